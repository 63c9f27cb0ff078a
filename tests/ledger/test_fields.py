"""Money in the database is exact."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from django.db.models import Sum

from ledger.models import Adjustment


def adjustment(amount: Decimal) -> Adjustment:
    return Adjustment.objects.create(
        source="openrouter", day=date(2026, 11, 20), amount=amount, made_at=datetime(2026, 11, 21, tzinfo=UTC)
    )


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["0", "0.000000000001", "-4123456.123456789012", "9223372.036854775807"])
def test_an_amount_comes_back_to_the_last_digit(text: str) -> None:
    made = adjustment(Decimal(text))
    assert Adjustment.objects.get(pk=made.pk).amount == Decimal(text)
    assert Adjustment.objects.filter(amount=Decimal(text)).exists()


@pytest.mark.django_db
def test_the_database_adds_amounts_up_exactly() -> None:
    for _ in range(10):
        adjustment(Decimal("0.1"))
    adjustment(Decimal("1234567.000000000001"))
    assert Adjustment.objects.aggregate(total=Sum("amount"))["total"] == Decimal("1234568.000000000001")


@pytest.mark.django_db
@pytest.mark.parametrize("value", ["0.0000000000001", "9223373", "many"])
def test_what_can_not_be_kept_exactly_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="USD"):
        adjustment(value)  # type: ignore[arg-type]
