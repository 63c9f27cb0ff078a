"""What the Django database holds of one user of the apps, or of one project, and taking the names out of it.

Incidents, deliveries and variances keep evidence: there the user's id and sessions are replaced by a word, wherever
they stand, and a project's slug where it says whose project it is (the word may mean other things elsewhere).
What is no evidence but a setting (a budget's scope, a project with its tokens) or a document kept verbatim
is not changed here, only named. Never here: ClickHouse.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import models, transaction

DELETED = "(deleted)"
_LONG = 6
"""A name of so many characters is also looked for within a text."""
_PROJECT_KEYS = frozenset({"project", "projects", "slug"})
_APPS = ("spendwatch_alerts", "spendwatch_ledger", "spendwatch_collectors")
# Settings, and documents that prove a sum by being unchanged.
_KEPT = {"Budget", "Project", "IngestToken", "Statement", "StatementLine", "Import"}


@dataclass(frozen=True, slots=True)
class Traces:
    """Rows whose evidence names it, by model; and what names it and stays, in words."""

    rows: dict[str, int]
    kept: list[str]


def traces(names: Collection[str], *, of_project: bool = False) -> Traces:
    """What names one of these. Changes nothing."""
    return _go_through(_Names(frozenset(names), of_project), change=False)


def forget(names: Collection[str], *, of_project: bool = False) -> Traces:
    """Replace these names wherever evidence holds them; what was changed, and what stays."""
    with transaction.atomic():
        return _go_through(_Names(frozenset(names), of_project), change=True)


@dataclass(frozen=True, slots=True)
class _Names:
    """What to take out, and where: anywhere, or only where it is said to be a project."""

    names: frozenset[str]
    of_project: bool

    def without(self, value: Any, key: str) -> Any:
        """The value, which stands under a key, with the names replaced. Keys stay."""
        if isinstance(value, str):
            if self.of_project and key not in _PROJECT_KEYS:
                return value
            if value in self.names:
                return DELETED
            for name in self.names if not self.of_project else ():
                if len(name) >= _LONG:
                    value = value.replace(name, DELETED)
            return value
        if isinstance(value, dict):
            return {inner: self.without(held, inner) for inner, held in value.items()}
        if isinstance(value, list):
            return [self.without(held, key) for held in value]
        return value


def _go_through(names: _Names, *, change: bool) -> Traces:
    found = Traces({}, [])
    for model in _models():
        fields = [field for field in model._meta.concrete_fields if _holds_text(field)]
        for row in model._base_manager.iterator(chunk_size=500):
            new = {field.attname: names.without(getattr(row, field.attname), field.name) for field in fields}
            changed = {name: value for name, value in new.items() if value != getattr(row, name)}
            if not changed:
                continue
            if model.__name__ in _KEPT:
                found.kept.append(f"{model._meta.verbose_name} {row.pk}")
                continue
            label = str(model._meta.verbose_name)
            found.rows[label] = found.rows.get(label, 0) + 1
            if change:
                # Evidence is otherwise never updated; a plain query set knows no such rule.
                models.QuerySet(model).filter(pk=row.pk).update(**changed)
    return found


def _models() -> Iterator[type[models.Model]]:
    for name in _APPS:
        yield from apps.get_app_config(name).get_models()


def _holds_text(field: "models.Field[Any, Any]") -> bool:
    return isinstance(field, models.JSONField | models.CharField | models.TextField) and not field.choices
