"""Exact US dollars in any database.

SQLite has no exact decimals: it would turn a Decimal of more than fifteen digits into a float. So an amount is kept as
whole pico-dollars in a 64-bit integer, which every database adds up exactly. Range: +- 9.2 million USD a value or sum.
Invariant: what is read is what was saved, to a pico-dollar; finer digits are refused, not rounded.
"""

from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any

from django import forms
from django.core import exceptions
from django.db import models
from django.db.models.expressions import Expression

from spendwatch import money

MAX_PICO = 2**63 - 1

if TYPE_CHECKING:
    _Integer = models.BigIntegerField[Decimal, Decimal]
else:
    _Integer = models.BigIntegerField


class UsdField(_Integer):
    """A Decimal of USD; None where the model allows null."""

    description = "US dollars, exact to a pico-dollar"

    def get_prep_value(self, value: Any) -> int | None:
        """Whole pico-dollars. Raises ValidationError for what is no amount, is finer or does not fit."""
        amount = self.to_python(value)
        if amount is None:
            return None
        pico = money.pico(amount)
        if _decimal(pico) != amount or abs(pico) > MAX_PICO:
            raise exceptions.ValidationError(
                f"expected USD with at most 12 decimals and below 9.2 million, found {amount}. Quantise it first."
            )
        return pico

    def from_db_value(self, value: Any, _expression: Expression, _connection: Any) -> Decimal | None:
        """The amount as it was saved; a database's own type for sums (PostgreSQL: numeric) is read as well."""
        return None if value is None else _decimal(int(value))

    def to_python(self, value: Any) -> Decimal | None:
        """An amount from a form, a fixture or code."""
        if value is None or value == "":
            return None
        amount = money.parse(value)
        if amount is None:
            raise exceptions.ValidationError(f"expected an amount in USD, found {value!r}")
        return amount

    def value_to_string(self, obj: models.Model) -> str:
        """For fixtures: a plain decimal string."""
        amount = self.value_from_object(obj)
        return "" if amount is None else money.text(amount)

    def formfield(self, **kwargs: Any) -> Any:
        """A decimal input."""
        return models.Field.formfield(self, **{"form_class": forms.DecimalField, "decimal_places": 12, **kwargs})


def _decimal(pico: int) -> Decimal:
    with localcontext() as context:
        context.prec = 50
        return Decimal(pico).scaleb(-12)
