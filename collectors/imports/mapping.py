"""Which column of a file is which of ours. Without a mapping, columns are named as in llm_calls or as in GenAI semconv.

A mapping is a small TOML file; some come with the server (mappings/). Never here: what a value has to be.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spendwatch.errors import ConfigError

FOLDER = Path(__file__).parent / "mappings"
_MAX_PLANS = 1000
UNITS = ("s", "ms", "us", "ns")
_KEYS = {"columns", "constants", "units", "attributes", "skip", "input_includes_cache", "identify_by"}

_SEMCONV: Mapping[str, tuple[str, ...]] = {
    "operation_name": ("gen_ai.operation.name",),
    "provider_name": ("gen_ai.provider.name", "gen_ai.system"),
    "request_model": ("gen_ai.request.model",),
    "response_model": ("gen_ai.response.model",),
    "response_id": ("gen_ai.response.id",),
    "finish_reason": ("gen_ai.response.finish_reasons",),
    "streamed": ("gen_ai.request.stream",),
    "input_tokens": ("gen_ai.usage.input_tokens",),
    "output_tokens": ("gen_ai.usage.output_tokens",),
    "total_tokens": ("gen_ai.usage.total_tokens",),
    "cache_read_input_tokens": ("gen_ai.usage.cache_read.input_tokens",),
    "cache_write_input_tokens": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
    ),
    "cache_write_1h_input_tokens": ("spendwatch.usage.cache_write_1h.input_tokens",),
    "reasoning_output_tokens": ("gen_ai.usage.reasoning.output_tokens",),
    "input_audio_tokens": ("gen_ai.usage.audio.input_tokens",),
    "output_audio_tokens": ("gen_ai.usage.audio.output_tokens",),
    "input_image_tokens": ("gen_ai.usage.image.input_tokens",),
    "output_image_tokens": ("gen_ai.usage.image.output_tokens",),
    "reported_cost": ("spendwatch.cost.reported",),
    "upstream_cost": ("spendwatch.cost.upstream",),
    "observer_listed_cost": ("spendwatch.cost.listed", "listed_cost"),
    "cost_basis": ("spendwatch.cost.basis",),
    "is_byok": ("spendwatch.is_byok",),
    "service_tier": ("spendwatch.service_tier", "openai.response.service_tier"),
    "serving_provider": ("spendwatch.serving_provider",),
    "key_hash": ("spendwatch.key_hash",),
    "server_address": ("server.address",),
    "server_port": ("server.port",),
    "http_status": ("http.response.status_code",),
    "error_type": ("error.type",),
    "service_name": ("service.name",),
    "session_id": ("spendwatch.tags.session", "gen_ai.conversation.id", "session.id"),
    "user_id": ("spendwatch.tags.user", "user.id"),
    "agent": ("spendwatch.tags.agent", "gen_ai.agent.name"),
    "team": ("spendwatch.tags.team",),
    "feature": ("spendwatch.tags.feature",),
    "environment": ("spendwatch.tags.environment", "deployment.environment.name"),
}

COLUMNS: tuple[str, ...] = (
    *_SEMCONV, "started_at", "duration_us", "time_to_first_chunk_us", "trace_id", "span_id", "parent_span_id",
    "status", "cancelled", "effective_cost", "observer_price_version", "wire_format", "source", "attributes",
)  # fmt: skip
"""What a file may hold, in our words. All but started_at, a provider or model, and an identity may be missing."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """A value, and the unit that the mapping says it has."""

    value: object
    unit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping_:  # noqa: N801  # `Mapping` is the standard library's
    """columns: ours -> theirs, best first. identity: names under which apply() gives what identifies a row."""

    columns: Mapping[str, tuple[str, ...]]
    constants: Mapping[str, object] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    input_includes_cache: bool | None = True
    """Whether input tokens hold what was cached. None: as the provider counts."""
    identity: tuple[str, ...] = ()
    _plans: dict[tuple[str, ...], list[tuple[str, tuple[str, ...]]]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    skip: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Rows with one of these values (lower case) in one of these columns of the file are no calls."""

    def skips(self, row: Mapping[str, object]) -> bool:
        """Whether the row is to be passed over."""
        return any(str(row.get(column)).lower() in values for column, values in self.skip.items())

    def read_of(self, row: Mapping[str, object]) -> dict[str, object]:
        """The part of a row that is read."""
        names = {name for names in self.columns.values() for name in names}
        return {name: value for name, value in row.items() if name in names}

    def apply(self, row: Mapping[str, object]) -> dict[str, Mapped]:
        """The row's values under our names."""
        out = {name: Mapped(constant) for name, constant in self.constants.items()}
        for ours, theirs in self._columns_of(tuple(row)):
            for name in theirs:
                found = _look_up(row, name)
                if found is not None and found != "":
                    out[ours] = Mapped(found, self.units.get(ours))
                    break
        return out

    def _columns_of(self, header: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
        """Of the columns those that rows with these names can have: a file's rows are mostly alike."""
        found = self._plans.get(header)
        if found is None:
            there = frozenset(header)
            found = []
            for ours, theirs in self.columns.items():
                names = tuple(name for name in theirs if name in there or name.partition(".")[0] in there)
                if names:
                    found.append((ours, names))
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            self._plans[header] = found
        return found

    def identified_by(self, columns: tuple[str, ...]) -> "Mapping_":
        """This mapping, with these columns of the file telling its rows apart."""
        names = {f"identity.{n}": (column,) for n, column in enumerate(columns)}
        return replace(self, columns={**self.columns, **names}, identity=tuple(names) or self.identity)

    def unknown(self, header: list[str]) -> list[str]:
        """Which of our required facts no column of this header can give."""
        known = set(header) | {name.partition(".")[0] for name in header}

        def there(ours: str) -> bool:
            return ours in self.constants or any(
                name in known or name.partition(".")[0] in known for name in self.columns.get(ours, ())
            )

        missing = [] if there("started_at") else ["started_at"]
        if not any(map(there, ("provider_name", "request_model", "response_model"))):
            missing.append("provider_name or request_model")
        if not there("response_id") and not (there("trace_id") and there("span_id")) and not self.identity:
            missing.append("response_id, or trace_id and span_id, or --identify-by")
        return missing


def _look_up(row: Mapping[str, object], name: str) -> object:
    found = row.get(name)
    if found is not None or "." not in name:
        return found
    inner: object = row
    for part in name.split("."):
        if not isinstance(inner, dict):
            return None
        inner = inner.get(part)
    return inner


def usual() -> Mapping_:
    """Columns named as in llm_calls, or as in GenAI semconv."""
    return Mapping_(columns={name: (name, *_SEMCONV.get(name, ())) for name in COLUMNS})


def shipped() -> list[str]:
    """The names of the mappings that come with the server."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Mapping_:
    """A shipped mapping by its name, or one from a TOML file. Raises ConfigError."""
    path = FOLDER / f"{name}.toml" if name in shipped() else Path(name)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"expected a mapping's file or one of {', '.join(shipped())}, found {name!r}. See docs/import.md."
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the mapping {path} can't be read: {error}.") from None
    return read(document, str(path))


def read(document: Mapping[str, Any], place: str) -> Mapping_:
    """A mapping from its TOML document. Raises ConfigError."""
    unknown = set(document) - _KEYS
    columns = _table(document, "columns", place)
    constants = _table(document, "constants", place)
    units = _table(document, "units", place)
    attributes = _table(document, "attributes", place)
    skip = _table(document, "skip", place)
    names = [name for name in (*columns, *constants, *units) if name not in COLUMNS]
    if unknown or names:
        raise ConfigError(
            f"{place}: expected columns named {', '.join(COLUMNS)}; found {', '.join((*sorted(unknown), *names))}."
        )
    wrong = [f"{name} = {unit!r}" for name, unit in units.items() if unit not in UNITS]
    if wrong:
        raise ConfigError(f"{place}: expected units of {', '.join(UNITS)}, found {', '.join(wrong)}.")
    includes = document.get("input_includes_cache", True)
    if includes not in (True, False, "auto"):
        raise ConfigError(f"{place}: expected input_includes_cache = true, false or 'auto', found {includes!r}.")
    made = Mapping_(
        columns={
            **{name: _names(theirs, name, place) for name, theirs in columns.items()},
            **{f"attributes.{name}": _names(theirs, name, place) for name, theirs in attributes.items()},
        },
        constants=constants,
        units=units,
        attributes=tuple(attributes),
        input_includes_cache=None if includes == "auto" else includes,
        skip={
            column: frozenset(value.lower() for value in _names(said, column, place)) for column, said in skip.items()
        },
    )
    by = _names(document["identify_by"], "identify_by", place) if "identify_by" in document else ()
    return made.identified_by(by)


def _table(document: Mapping[str, Any], name: str, place: str) -> Mapping[str, Any]:
    found = document.get(name, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{place}: expected [{name}] to be a table, found {type(found).__name__}.")
    return found


def _names(theirs: object, ours: str, place: str) -> tuple[str, ...]:
    found = [theirs] if isinstance(theirs, str) else theirs
    if not isinstance(found, list) or not found or not all(isinstance(name, str) and name for name in found):
        raise ConfigError(f"{place}: expected {ours} to be a column's name or a list of names, found {theirs!r}.")
    return tuple(found)
