"""Collecting an OpenRouter account: fetch everything first, then keep it in one transaction, whole or not at all.

/activity has no column for the key, so it is asked for once for all keys and once for each; what the keys together
leave over was billed to none that is listed. Collecting twice changes nothing. Never here: judging what is stated.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from decimal import Decimal
from urllib.parse import quote

from django.db import transaction

from collectors.openrouter.fetch import OpenRouter
from collectors.openrouter.models import OpenRouterAccount
from collectors.openrouter.read import (
    ActivityRow,
    Credits,
    Key,
    check_endpoints,
    check_models,
    read_activity,
    read_credits,
    read_keys,
)
from ledger.models import Balance, ProviderKey, Statement
from ledger.statements import UsageRow, digest, keep, keep_lines, newest
from spendwatch.errors import CollectError, ReadError

SOURCE = "openrouter"
DAYS = 30
"""/activity speaks of the last 30 completed UTC days."""
PAGE = 100
MAX_KEYS = 10_000
MAX_MODELS = 500
MODELS_EVERY = timedelta(hours=20)
NEGLIGIBLE_USD = Decimal("0.000001")

log = logging.getLogger("spendwatch.collectors.openrouter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a collection brought: documents and lines that are new."""

    account: str
    documents: int
    lines: int


Activity = tuple[str, list[ActivityRow]]
"""A document of /activity and its rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Harvest:
    """Everything fetched, verbatim, and what was read from it. total: /activity of all keys together. by_key: by key
    hash; None when the total is the same as the last time. models: None when they were collected lately;
    endpoints: with them, those of each model that was used, by dated id."""

    key_pages: list[str]
    keys: list[Key]
    credits_document: str
    credits: Credits
    models: str | None
    endpoints: dict[str, str]
    total: Activity
    by_key: dict[str, Activity] | None


def collect(account: OpenRouterAccount, *, now: datetime) -> Collected:
    """Fetch, keep, and note on the account how it went. Raises CollectError, ReadError; then nothing was kept."""
    try:
        with OpenRouter(account=account.name, base_url=account.base_url, key=account.management_key) as api:
            harvest = fetch(api, account, now=now)
        collected = store(account, harvest, now=now)
    except (CollectError, ReadError) as error:
        OpenRouterAccount.objects.filter(pk=account.pk).update(last_error=str(error))
        raise
    OpenRouterAccount.objects.filter(pk=account.pk).update(last_collected_at=now, last_error="")
    return collected


def fetch(api: OpenRouter, account: OpenRouterAccount, *, now: datetime) -> Harvest:
    """Get and read all documents of an account. Raises CollectError, ReadError."""
    key_pages, keys = _fetch_keys(api)
    credits_document = api.get("/credits")
    credits = read_credits(credits_document)
    models = None
    last_models = newest(SOURCE, account.name, "models")
    if last_models is None or now - last_models.confirmed_at > MODELS_EVERY:
        models = api.get("/models")
        check_models(models)
    total = _activity(api, {})
    endpoints = {} if models is None else _fetch_endpoints(api, total[1])
    by_key = None
    if not _unchanged(account, total[0], keys, now):
        by_key = {hash_: _activity(api, {"api_key_hash": hash_}) for hash_ in sorted(_hashes(account, keys))}
    return Harvest(
        key_pages=key_pages,
        keys=keys,
        credits_document=credits_document,
        credits=credits,
        models=models,
        endpoints=endpoints,
        total=total,
        by_key=by_key,
    )


def _activity(api: OpenRouter, query: dict[str, str]) -> Activity:
    document = api.get("/activity", query)
    return document, read_activity(document)


def _fetch_keys(api: OpenRouter) -> tuple[list[str], list[Key]]:
    """All pages of /keys. A disabled or expired key still has spend, so they are asked for as well."""
    pages: list[str] = []
    keys: list[Key] = []
    while len(keys) < MAX_KEYS:
        query = {"offset": str(len(keys)), "include_disabled": "true", "include_expired": "true"}
        pages.append(api.get("/keys", query))
        page = read_keys(pages[-1])
        known = {key.hash for key in keys}
        # A server that does not page gives the same keys again: then they were all on the first page.
        new = [key for key in page if key.hash not in known]
        keys += new
        if len(page) < PAGE or not new:
            break
    return pages, keys


def _fetch_endpoints(api: OpenRouter, used: Iterable[ActivityRow]) -> dict[str, str]:
    """What each provider of a model charges, for the models that were used. One that is sold no more, or not shown to
    this key, has none: a missing price must not hold up a statement."""
    documents: dict[str, str] = {}
    for name in sorted({row.model_permaslug for row in used})[:MAX_MODELS]:
        try:
            document = api.get(f"/models/{quote(name, safe='/:')}/endpoints")
            check_endpoints(document)
        except (CollectError, ReadError) as error:
            if isinstance(error, CollectError) and not error.permanent:
                raise
            log.warning("no prices of %s: %s", name, error)
        else:
            documents[name] = document
    return documents


def _hashes(account: OpenRouterAccount, keys: Iterable[Key]) -> set[str]:
    """The keys to ask for: those listed now, and those listed once (a deleted key's spend stays on the statement)."""
    known = ProviderKey.objects.filter(source=SOURCE, account=account.name).values_list("hash", flat=True)
    return {key.hash for key in keys} | set(known)


def _unchanged(account: OpenRouterAccount, total: str, keys: Iterable[Key], now: datetime) -> bool:
    """True when the sum over all keys, and the keys, are those that were kept: then each key's rows are too."""
    last = newest(SOURCE, account.name, "activity")
    known = set(ProviderKey.objects.filter(source=SOURCE, account=account.name).values_list("hash", flat=True))
    return (
        last is not None
        and last.sha256 == digest(total)
        and last.period_start == _first_day(now)
        and {key.hash for key in keys} <= known
    )


def store(account: OpenRouterAccount, harvest: Harvest, *, now: datetime) -> Collected:
    """Keep everything, in one transaction. Raises CollectError when the parts don't fit together."""
    documents = lines = 0
    with transaction.atomic():
        # Two collections of one account take turns; the later one finds nothing new.
        OpenRouterAccount.objects.select_for_update().get(pk=account.pk)

        def file(kind: str, document: str, subject: str = "", period: tuple[date, date] | None = None) -> Statement:
            nonlocal documents
            kept, new = keep(
                source=SOURCE,
                account=account.name,
                kind=kind,
                subject=subject,
                period=period,
                document=document,
                now=now,
            )
            documents += new
            return kept

        for number, page in enumerate(harvest.key_pages):
            file("keys", page, subject=f"page {number + 1}" if number else "")
        credits = file("credits", harvest.credits_document)
        if harvest.models is not None:
            file("models", harvest.models)
        for name, document in harvest.endpoints.items():
            file("endpoints", document, subject=name)
        _list_keys(account, harvest.keys, now)
        _keep_balance(account, credits, harvest, now)
        period = (_first_day(now), _last_day(harvest.total[1], now))
        total = file("activity", harvest.total[0], period=period)
        if harvest.by_key is not None:
            filed = {
                hash_: file("activity", document, subject=hash_, period=period)
                for hash_, (document, _rows) in harvest.by_key.items()
            }
            found = [
                *(_usage_row(row, hash_, filed[hash_]) for hash_, (_doc, key) in harvest.by_key.items() for row in key),
                *(_usage_row(row, "", total) for row in left_over(harvest.total[1], harvest.by_key)),
            ]
            # The oldest day may fall out of the answer while it is still inside our period: the clocks differ.
            withdrawn = (period[0] + timedelta(days=1), period[1])
            lines = keep_lines(found, source=SOURCE, account=account.name, statement=total, withdrawn=withdrawn)
    return Collected(account=account.name, documents=documents, lines=lines)


def left_over(total: Iterable[ActivityRow], by_key: Mapping[str, Activity]) -> list[ActivityRow]:
    """What all keys together have beyond each one's rows. Raises CollectError when a key has more than all."""
    rest = {_cell(row): row for row in total}
    for _document, rows in by_key.values():
        for row in rows:
            whole = rest.get(_cell(row))
            if whole is None or whole.requests < row.requests:
                beside = whole.requests if whole else 0
                raise CollectError(
                    f"openrouter /activity changed while it was read: of {row.day} {row.model} one key has "
                    f"{row.requests} requests, all have {beside} beside the others'. Nothing was stored; collect again."
                )
            rest[_cell(row)] = _minus(whole, row)
    # Sums of floats on the other side leave dust; requests and tokens don't.
    return [
        row
        for row in rest.values()
        if row.requests or row.input_tokens or row.output_tokens or abs(row.usage + row.byok_usage) >= NEGLIGIBLE_USD
    ]


def _cell(row: ActivityRow) -> tuple[date, str, str]:
    return row.day, row.model, row.endpoint_id


def _minus(whole: ActivityRow, part: ActivityRow) -> ActivityRow:
    cached = None
    if whole.cached_tokens is not None and part.cached_tokens is not None:
        cached = whole.cached_tokens - part.cached_tokens
    return ActivityRow(
        day=whole.day,
        model=whole.model,
        model_permaslug=whole.model_permaslug,
        endpoint_id=whole.endpoint_id,
        provider_name=whole.provider_name,
        usage=whole.usage - part.usage,
        byok_usage=whole.byok_usage - part.byok_usage,
        requests=whole.requests - part.requests,
        input_tokens=whole.input_tokens - part.input_tokens,
        output_tokens=whole.output_tokens - part.output_tokens,
        reasoning_tokens=whole.reasoning_tokens - part.reasoning_tokens,
        cached_tokens=cached,
    )


def _usage_row(row: ActivityRow, hash_: str, statement: Statement) -> UsageRow:
    facts = {field.name: getattr(row, field.name) for field in fields(row)}
    return UsageRow(statement=statement, key_hash=hash_, **facts)


def _list_keys(account: OpenRouterAccount, keys: Iterable[Key], now: datetime) -> None:
    for key in keys:
        ProviderKey.objects.update_or_create(
            source=SOURCE,
            account=account.name,
            hash=key.hash,
            defaults={"name": key.name[:200], "disabled": key.disabled, "listed_at": now},
        )


def _keep_balance(account: OpenRouterAccount, credits: Statement, harvest: Harvest, now: datetime) -> None:
    used_today = sum((key.used_today for key in harvest.keys), Decimal(0))
    facts = {
        "purchased": harvest.credits.purchased,
        "used": harvest.credits.used,
        "used_today": used_today,
    }
    last = Balance.objects.filter(source=SOURCE, account=account.name).order_by("-taken_at", "-id").first()
    if last is None or last.taken_at.date() != now.date() or any(getattr(last, n) != v for n, v in facts.items()):
        Balance.objects.create(statement=credits, source=SOURCE, account=account.name, taken_at=now, **facts)


def _first_day(now: datetime) -> date:
    return now.date() - timedelta(days=DAYS)


def _last_day(rows: Iterable[ActivityRow], now: datetime) -> date:
    """Yesterday, unless the answer speaks of later days."""
    return max([now.date() - timedelta(days=1), *(row.day for row in rows)])
