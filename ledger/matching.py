"""What a model and an endpoint are called on both sides of a reconciliation.

An app's reply names a slug ("openai/gpt-4.1-mini"), a routed variant of it (":nitro") or a dated id; a statement names
both the slug and the dated id. Here each becomes the dated id, plus the suffix of a variant that has prices of its own
(":free"). The pairs come from the statement lines and the newest /models snapshot. Names nobody knows stay as they are.
"""

import json
from collections.abc import Mapping

from ledger.models import Statement, StatementLine

# These choose among a model's endpoints and are billed as the model; the others (":free", ":thinking") are models.
ROUTING_SUFFIXES = (":nitro", ":floor", ":exacto", ":online")
PRICED_SUFFIXES = (":free", ":extended", ":thinking", ":batch")


class Names:
    """The names of one source, learnt from what it states. canonical: slug -> dated id."""

    def __init__(self, canonical: Mapping[str, str]) -> None:
        self._canonical = dict(canonical)

    @classmethod
    def read(cls, source: str) -> "Names":
        """The names in the newest snapshot of models and on the lines; a line is the nearer witness."""
        canonical: dict[str, str] = {}
        newest = Statement.objects.filter(source=source, kind="models").order_by("-collected_at", "-id").first()
        if newest is not None:
            for row in json.loads(newest.document).get("data") or []:
                canonical[str(row.get("id"))] = str(row.get("canonical_slug") or row.get("id"))
        lines = StatementLine.objects.filter(source=source).exclude(model_permaslug="")
        canonical.update(lines.order_by().values_list("model", "model_permaslug").distinct())
        return cls(canonical)

    def model(self, name: str, permaslug: str = "") -> str:
        """The name a model is compared under; permaslug: the dated id, where the source states it beside the slug."""
        for suffix in ROUTING_SUFFIXES:
            name = name.removesuffix(suffix)
        variant = next((suffix for suffix in PRICED_SUFFIXES if name.endswith(suffix)), "")
        base = permaslug or self._canonical.get(name) or self._canonical.get(name.removesuffix(variant)) or name
        return base.removesuffix(variant) + variant

    def endpoint(self, name: str) -> str:
        """The name a serving provider is compared under."""
        return name.strip().casefold()
