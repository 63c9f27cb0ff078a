"""A month of made-up calls, made by the engine itself: sessions of agents that talk to twelve models, mostly through
OpenRouter.

What costs space and time in a real record is here: ids that are random by nature, traces that hold eight calls or one,
prompts that grow from turn to turn and are cached, costs in several layers that follow from tokens and prices, calls
that failed or were left, and fingerprints. A call is a function of its number alone, so any part can be made again.
"""

from datetime import datetime, timedelta

from spendwatch.clickhouse.client import Connection

DAYS = 30
BLOCK = 250_000
"""Calls in one statement; the engine cuts them into inserts of 65,536."""

TEAMS = (
    "search",
    "support",
    "growth",
    "platform",
    "billing",
    "research",
    "mobile",
    "ads",
    "legal",
    "ops",
    "docs",
    "risk",
)
# name, provider for direct calls ("" for OpenRouter's), USD a token: input, cached input, output; does it reason
_MODELS = (
    ("openai/gpt-5-mini", "", "0.00000025", "0.000000025", "0.000002", 1),
    ("anthropic/claude-sonnet-4.5", "", "0.000003", "0.0000003", "0.000015", 0),
    ("google/gemini-2.5-flash", "", "0.0000003", "0.00000003", "0.0000025", 1),
    ("openai/gpt-4o-mini", "", "0.00000015", "0.000000075", "0.0000006", 0),
    ("deepseek/deepseek-chat-v3.1", "", "0.00000027", "0.00000007", "0.0000011", 0),
    ("gpt-5-mini", "openai", "0.00000025", "0.000000025", "0.000002", 1),
    ("x-ai/grok-4-fast", "", "0.0000002", "0.00000005", "0.0000005", 1),
    ("claude-sonnet-4-5", "anthropic", "0.000003", "0.0000003", "0.000015", 0),
    ("qwen/qwen3-235b-a22b", "", "0.00000022", "0.00000022", "0.00000088", 1),
    ("meta-llama/llama-3.3-70b-instruct", "", "0.00000013", "0.00000013", "0.00000038", 0),
    ("mistralai/mistral-small-3.2", "", "0.000000075", "0.000000075", "0.0000002", 0),
    ("gpt-4o", "openai", "0.0000025", "0.00000125", "0.00001", 0),
)
_ENDPOINTS = (
    "OpenAI",
    "Azure",
    "Anthropic",
    "Amazon Bedrock",
    "Google",
    "Google Vertex",
    "DeepInfra",
    "Together",
    "Fireworks",
)


def _texts(values: "tuple[str, ...]") -> str:
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"


def _usd(column: int) -> str:
    return "[" + ", ".join(f"toDecimal64('{model[column]}', 12)" for model in _MODELS) + "]"


_NOTHING = "toDecimal64(0, 12)"
_NO_COUNT = "CAST(NULL AS Nullable(UInt32))"


def _when(known: str, value: str, nothing: str = _NOTHING) -> str:
    """The value, or NULL with a zero under it, as clients send it: what lies under a NULL takes space too."""
    return f"nullIf(if({known}, {value}, {nothing}), {nothing})"


# Four steps, each built on the names of the one before: who and when, what was asked, the tokens, the money.
_WHO = """
    SELECT number AS i, cityHash64(i, 1) AS r, cityHash64(i, 2) AS r2, cityHash64(i, 3) AS r3,
        i % {lanes} AS lane, intDiv(i, {lanes}) AS step, intDiv(step, 16) AS nth, step % 16 AS turn,
        cityHash64(lane, nth, 4) AS s,
        toUInt64(pow((s % 10000) / 10000, 3) * 120) AS a,
        {start} + toInt64(i * {us}) + toInt64(r % toUInt64({us} * {lanes})) AS at_us
    FROM numbers({first}, {count})
"""
_ASKED = f"""
    SELECT *, a % 12 AS t, 1 + if(r % 10 < 8, cityHash64(a, 5) % 12, r2 % 12) AS m,
        {_texts(tuple(m[0] for m in _MODELS))}[m] AS model, {_texts(tuple(m[1] for m in _MODELS))}[m] AS direct,
        if(direct = '', 'openrouter', direct) AS provider,
        multiIf(r3 % 100 < 2, 'error', r3 % 100 = 2, 'aborted', 'ok') AS status_,
        s % 2 AS in_trace, r2 % 10 < 6 AS streams
    FROM ({_WHO})
"""
_TOKENS = f"""
    SELECT *, toUInt32(800 + cityHash64(a, 7) % 6000 + turn * (400 + s % 900) + r3 % 200) AS input_,
        toUInt32(if(turn = 0 OR r2 % 10 < 3, 0, intDiv((input_ - 400) * 9, 1280) * 128)) AS cached_,
        toUInt32(exp(3 + 4 * (r % 100000) / 100000)) AS output_,
        toUInt32(if({[m[5] for m in _MODELS]}[m] = 1, intDiv(output_ * (r2 % 60), 100), 0)) AS reasoned_,
        if(direct = 'anthropic' AND turn = 0, input_ - 300, 0) AS written_
    FROM ({_ASKED})
"""
_MONEY = f"""
    SELECT *, {_usd(2)}[m] AS rate_in, {_usd(3)}[m] AS rate_cached, {_usd(4)}[m] AS rate_out, r2 % 5 AS e,
        rate_in * input_ + rate_out * output_ AS list_,
        if(direct = '', list_ * (96 + e * 2) / 100, list_) AS routed_,
        rate_in * (input_ - cached_) + rate_cached * cached_ + rate_out * output_ AS drawn_,
        if(direct = '', drawn_ * (96 + e * 2) / 100, drawn_) AS effective_,
        status_ = 'ok' AS known, direct = '' AS reported
    FROM ({_TOKENS})
"""
_SESSION = "concat('run-', lower(hex(cityHash64(s, 8))))"
_BASE64 = "translate(substring(base64Encode(reinterpretAsFixedString(sipHash128(i, {0}))), 1, {1}), '+/', 'xY')"
_FACTS: "dict[str, str]" = {
    "revision": "0",
    "started_at": "fromUnixTimestamp64Micro(at_us, 'UTC')",
    "received_at": "fromUnixTimestamp64Milli(intDiv(at_us, 1000) + 2000 + toInt64(r % 9000), 'UTC')",
    "duration_us": "toUInt64(400000 + output_ * 11000 + r3 % 700000)",
    "time_to_first_chunk_us": "nullIf(if(streams, 180000 + r2 % 900000, 0), 0)",
    "source": "'sdk'",
    # Under an agent's span eight calls share a trace and a parent; a call outside of one is a trace of its own.
    "trace_id": "if(in_trace, sipHash128(lane, nth, intDiv(turn, 8)), sipHash128(i, 9))",
    "span_id": "reinterpretAsFixedString(cityHash64(i, 10))",
    "parent_span_id": "reinterpretAsFixedString(if(in_trace, cityHash64(lane, nth, intDiv(turn, 8), 11), 0))",
    "response_id": (
        "multiIf(status_ = 'error', '', direct = 'openai', concat('chatcmpl-', "
        + _BASE64.format(12, 22)
        + ", "
        + _BASE64.format(13, 7)
        + "), direct = 'anthropic', concat('msg_01', "
        + _BASE64.format(12, 22)
        + "), "
        "concat('gen-', toString(intDiv(at_us, 1000000)), '-', " + _BASE64.format(12, 20) + "))"
    ),
    "environment": "if(s % 20 = 0, 'staging', 'production')",
    "team": f"{_texts(TEAMS)}[t + 1]",
    "project": f"{_texts(TEAMS[:4])}[t % 4 + 1]",
    "service_name": "concat('service-', toString(a % 30))",
    "agent": "concat('agent-', toString(a))",
    "feature": "concat('feature-', toString(a % 60))",
    "user_id": "if(s % 3 = 0, '', concat('user-', toString(cityHash64(s, 14) % 20000)))",
    "session_id": _SESSION,
    "key_hash": "lower(hex(SHA256(toString(a % 25))))",
    "provider_name": "provider",
    "serving_provider": f"if(reported AND known, {_texts(_ENDPOINTS)}[1 + (m + e % 3) % 9], '')",
    "operation_name": "'chat'",
    "request_model": "model",
    "response_model": "if(status_ = 'error', '', if(direct = '', model, concat(model, '-2025-08-07')))",
    "server_address": (
        "multiIf(direct = 'openai', 'api.openai.com', direct = 'anthropic', 'api.anthropic.com', 'openrouter.ai')"
    ),
    "server_port": "443",
    "wire_format": "if(direct = 'anthropic', 'anthropic_messages', 'openai_chat')",
    "status": "status_",
    "http_status": "if(status_ = 'error', if(r % 2 = 0, 429, 502), 200)",
    "error_type": "if(status_ = 'error', if(r % 2 = 0, '429', '502'), '')",
    "finish_reason": "if(known, if(r2 % 10 < 4, 'tool_calls', 'stop'), '')",
    "streamed": "streams",
    "input_tokens": _when("known", "input_", "toUInt32(0)"),
    "output_tokens": _when("known", "output_", "toUInt32(0)"),
    "total_tokens_offset": "if(known AND direct != 'anthropic', 0, NULL)",
    "cache_read_input_tokens": f"if(known, cached_, {_NO_COUNT})",
    "cache_write_input_tokens": _when("known AND direct = 'anthropic'", "written_", "toUInt32(0)"),
    "reasoning_output_tokens": f"if(known AND direct != 'anthropic', reasoned_, {_NO_COUNT})",
    "list_cost": _when("known", "list_"),
    "routed_cost": _when("known", "routed_"),
    "effective_cost": _when("known", "effective_"),
    "upstream_cost_offset": f"if(known AND reported, {_NOTHING}, NULL)",
    "reported_cost_offset": f"if(known AND reported, {_NOTHING}, NULL)",
    "observer_listed_cost_offset": f"if(known AND NOT reported, {_NOTHING}, NULL)",
    "cost_basis": "multiIf(NOT known, 'unpriced', reported, 'reported', 'listed')",
    "price_version": "concat('2026-', toString(1 + intDiv(i * 4, {total})))",
    "observer_price_version": "if(reported, '', '2026-1')",
    "is_byok": "if(reported AND known, false, CAST(NULL AS Nullable(Bool)))",
    "attributes": "if(s % 5 = 0, map('spendwatch.tags.run', toString(s % 1000)), map())",
}
_PRINTS: "dict[str, str]" = {
    "fingerprint_system": "cityHash64(a, 20)",
    "fingerprint_prefix": "if(turn = 0, cityHash64(a, 21), cityHash64(lane, nth, turn, 21))",
    "fingerprint_last": "cityHash64(i, 22)",
    "fingerprint_last_role": "if(turn % 3 = 0, 'user', 'tool')",
    "fingerprint_last_simhash": "cityHash64(i, 23)",
    "fingerprint_last_length": "toUInt32(20 + r % 3000)",
    "fingerprint_last_is_error": "r2 % 40 = 0",
    "fingerprint_last_normalised": "cityHash64(i, 24)",
    "fingerprint_messages": "toUInt32(2 + turn * 2)",
    "fingerprint_tools": (
        "if(known AND r2 % 10 < 4, [concat(['search', 'read_file', 'run_sql', 'http_get'][1 + r % 4], ':', "
        "lower(hex(cityHash64(i, 25))), ':', lower(hex(cityHash64(i, 26))))], [])"
    ),
    "fingerprint_response": "if(known, cityHash64(i, 27), 0)",
    "fingerprint_response_simhash": "if(known, cityHash64(i, 28), 0)",
    "fingerprint_response_length": f"if(known, output_ * 4 + toUInt32(r3 % 4), {_NO_COUNT})",
}


def fill(ch: Connection, *, first: int, count: int, total: int, end: datetime, prints: bool) -> None:
    """Store the calls [first, first + count) of `total` that end at `end`, through the ordinary table."""
    columns = {"call_id": "cityHash64(i, 15)"} | _FACTS | (_PRINTS if prints else {})
    span_us = int(timedelta(days=DAYS).total_seconds()) * 1_000_000
    lanes = max(16, total // 100_000)
    words = {
        "lanes": lanes, "start": int(end.timestamp()) * 1_000_000 - span_us, "us": span_us // (total + lanes),
        "first": first, "count": count, "total": total,
    }  # fmt: skip
    sql = f"INSERT INTO llm_calls ({', '.join(columns)}) SELECT {', '.join(columns.values())} FROM ({_MONEY})"
    for name, value in words.items():
        sql = sql.replace("{" + name + "}", str(value))
    ch.command("fill", sql)
