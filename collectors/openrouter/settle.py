"""Settling calls: what an aborted or unpriced call really cost, asked of OpenRouter by the generation's id.

The answer is kept verbatim and appended as a higher revision of the call; no row is changed. A generation lands a while
after its call, so a 404 is asked again later, ever more rarely, for a day. Asking twice changes nothing.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db import transaction

from collectors.openrouter.collect import SOURCE
from collectors.openrouter.fetch import NotFoundError, OpenRouter
from collectors.openrouter.models import GenerationLookup, OpenRouterAccount
from collectors.openrouter.read import Generation, read_generation
from ledger.models import ProviderKey
from ledger.statements import keep
from spendwatch.calls import CostBasis, PricedCall, Window
from spendwatch.clickhouse import queries, rows
from spendwatch.clickhouse.client import Connection
from spendwatch.clickhouse.stored import StoredCall
from spendwatch.errors import CollectError, ReadError

LOOK_BACK = timedelta(days=30)
GIVE_UP_AFTER = timedelta(days=1)
MAX_LOOKUPS = 200
"""In one run: a bounded burst on the account's rate limit."""

log = logging.getLogger("spendwatch.collectors.openrouter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """How many calls were settled, and how many are still open."""

    settled: int
    waiting: int


def settle(ch: Connection, *, now: datetime) -> Settled:
    """Look up what is due and append what was found. Raises StoreError; a source's refusal is noted and logged."""
    accounts = list(OpenRouterAccount.objects.filter(active=True))
    if not accounts:
        return Settled(settled=0, waiting=0)
    calls = queries.unsettled(ch, SOURCE, Window(now - LOOK_BACK, now + timedelta(days=1)), limit=5 * MAX_LOOKUPS)
    done = tried = 0
    with _Apis(accounts) as apis:
        for call, lookup in _due(calls, now):
            if tried == MAX_LOOKUPS:
                break
            if not _claim(lookup, now):
                continue
            tried += 1
            try:
                generation = _ask(apis, call, now)
            except NotFoundError:
                continue
            except (CollectError, ReadError) as error:
                log.warning("could not settle %s: %s", call.call.response_id, error)
                if isinstance(error, CollectError) and not error.permanent:
                    break
                continue
            rows.insert(ch, [settled(call, generation)], received_at=now)
            GenerationLookup.objects.filter(pk=lookup.pk).delete()
            done += 1
    return Settled(settled=done, waiting=len(calls) - done)


def settled(call: StoredCall, generation: Generation) -> PricedCall:
    """The call with what its generation was billed, as the next revision. Billed counts replace what the app saw."""
    seen = call.call
    usage = replace(
        seen.usage,
        input_tokens=_first(generation.input_tokens, seen.usage.input_tokens),
        output_tokens=_first(generation.output_tokens, seen.usage.output_tokens),
        reasoning_output_tokens=_first(generation.reasoning_tokens, seen.usage.reasoning_output_tokens),
        cache_read_input_tokens=_first(generation.cached_tokens, seen.usage.cache_read_input_tokens),
    )
    facts = replace(
        seen,
        usage=usage,
        reported_cost=generation.usage,
        upstream_cost=generation.upstream if generation.is_byok else seen.upstream_cost,
        is_byok=generation.is_byok,
        serving_provider=generation.provider_name or seen.serving_provider,
        response_model=seen.response_model or generation.model,
        cost_basis=CostBasis.REPORTED,
    )
    return replace(
        call.priced(),
        call=facts,
        effective_cost=generation.cost,
        cost_basis=CostBasis.SETTLED,
        revision=call.revision + 1,
    )


def _first(billed: int | None, seen: int | None) -> int | None:
    return seen if billed is None else billed


class _Apis:
    """An open connection for each account, and the order in which they are asked about a call."""

    def __init__(self, accounts: Sequence[OpenRouterAccount]) -> None:
        self._apis = {
            account.name: OpenRouter(account=account.name, base_url=account.base_url, key=account.management_key)
            for account in accounts
        }
        listed = ProviderKey.objects.filter(source=SOURCE, account__in=self._apis)
        self._account_of = dict(listed.values_list("hash", "account"))

    def __enter__(self) -> "_Apis":
        return self

    def __exit__(self, *_: object) -> None:
        for api in self._apis.values():
            api.__exit__(None, None, None)

    def for_key(self, key_hash: str | None) -> Iterator[tuple[str, OpenRouter]]:
        """The account that lists the key; when none does, each in turn."""
        owner = self._account_of.get(key_hash or "")
        for name, api in self._apis.items():
            if owner in (None, name):
                yield name, api


def _ask(apis: _Apis, call: StoredCall, now: datetime) -> Generation:
    refused: CollectError | None = None
    for account, api in apis.for_key(call.call.key_hash):
        try:
            document = api.get("/generation", {"id": call.call.response_id or ""})
        except CollectError as error:
            # Another account's generation is refused or unknown: the next account may be its owner. "Not yet" is the
            # better news of the two.
            refused = error if refused is None or isinstance(error, NotFoundError) else refused
            continue
        generation = read_generation(document)
        with transaction.atomic():
            keep(
                source=SOURCE,
                account=account,
                kind="generation",
                document=document,
                now=now,
                subject=call.call.response_id or "",
            )
        return generation
    raise refused or CollectError(f"no account to ask about {call.call.response_id}", permanent=True)


def _due(calls: Sequence[StoredCall], now: datetime) -> Iterator[tuple[StoredCall, GenerationLookup]]:
    """The calls whose lookup is due, with their state; made at the first sight of a call."""
    ids = [call.call.response_id or "" for call in calls]
    known: dict[str, GenerationLookup] = {}
    for start in range(0, len(ids), 500):
        for lookup in GenerationLookup.objects.filter(generation_id__in=ids[start : start + 500]):
            known[lookup.generation_id] = lookup
    for call, id_ in zip(calls, ids, strict=True):
        found = known.get(id_)
        if found is None:
            found, _new = GenerationLookup.objects.get_or_create(
                generation_id=id_, defaults={"first_at": now, "next_at": now}
            )
        if found.next_at is not None and found.next_at <= now:
            yield call, found


def _claim(lookup: GenerationLookup, now: datetime) -> bool:
    """Note when to ask again should this fail, in 1, 2, 4, ... minutes, at most an hour apart and for a day; True when
    no other worker was faster."""
    wait = timedelta(minutes=min(60, 2 ** min(lookup.attempts, 6)))
    next_at = now + wait if now + wait - lookup.first_at <= GIVE_UP_AFTER else None
    mine = GenerationLookup.objects.filter(pk=lookup.pk, attempts=lookup.attempts)
    return mine.update(attempts=lookup.attempts + 1, next_at=next_at) == 1
