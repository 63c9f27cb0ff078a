"""The recorded exchanges of tests/corpus: loading them, replaying one through a reader, comparing with `expected`."""

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from spendwatch.fingerprint import Fingerprinter
from spendwatch.wire import Reply, Request, recognise

CORPUS = Path(__file__).parent.parent / "corpus"
FINGERPRINTS = Fingerprinter(b"a key of the tests")

# expected's name -> the Reply's value
TOKENS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "total_tokens": "total_tokens",
    "cache_read_tokens": "cache_read_input_tokens",
    "cache_write_tokens": "cache_write_input_tokens",
    "cache_write_1h_tokens": "cache_write_1h_input_tokens",
    "reasoning_tokens": "reasoning_output_tokens",
    "input_audio_tokens": "input_audio_tokens",
    "output_audio_tokens": "output_audio_tokens",
    "input_image_tokens": "input_image_tokens",
    "output_image_tokens": "output_image_tokens",
}

# What a case's expectation overlooks, though its bytes plainly say it: values that are right as well.
OVERLOOKED: dict[str, dict[str, list[Any]]] = {
    "bedrock-invoke-stream--aws-bedrock--d74aba7d1e": {"tool_calls": [["structured_output"]]},
}


def cases() -> list[dict[str, Any]]:
    with (CORPUS / "cases.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line, parse_float=Decimal) for line in lines]


def body(case: dict[str, Any]) -> bytes:
    return (CORPUS / case["body_file"]).read_bytes()


def request(case: dict[str, Any]) -> Request:
    sent = case["request_body"]
    headers = {k.lower(): v for k, v in case["request_headers"].items()}
    if sent is None:
        content = b""
    elif "multipart/" in headers.get("content-type", "") or sent.get("_multipart"):
        headers["content-type"] = "multipart/form-data; boundary=x"
        content = b"".join(
            b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), str(value).encode())
            for name, value in {"file": "\0\1" * 900, **sent}.items()
        )
        content += b"--x--\r\n"
    else:
        content = json.dumps(sent, default=float).encode()
    address = urlsplit(f"//{case['host']}")
    return Request(case["method"], address.hostname or "", address.port, case["path"], headers, content)


def replay(case: dict[str, Any], pieces: Iterable[bytes]) -> Reply | None:
    asked = request(case)
    wire = recognise(asked, {})
    if wire is None:
        return None
    reader = wire.reader(asked, FINGERPRINTS)
    reader.head(case["status"], {k.lower(): v for k, v in case["response_headers"].items()})
    for piece in pieces:
        reader.feed(piece)
    return reader.finish(True)


def differences(case: dict[str, Any], reply: Reply | None) -> Iterator[str]:
    """What the reply says otherwise than the case expects."""
    expected = case["expected"]
    if reply is None:
        if expected["is_inference"]:
            yield "not recognised"
        return
    if not expected["is_inference"]:
        if reply.is_inference:
            yield "is no inference"
        return
    overlooked = OVERLOOKED.get(case["id"], {})
    five = reply.attributes.get("cache_write_5m_input_tokens")
    tools = reply.attributes.get("server_tools")
    found: dict[str, Any] = {name: getattr(reply.usage, attr) for name, attr in TOKENS.items()}
    found |= {
        "is_inference": reply.is_inference,
        "operation": reply.operation_name,
        "request_model": reply.request_model,
        "response_model": reply.response_model,
        "response_id": reply.response_id,
        "cache_write_5m_tokens": int(five) if five is not None else None,
        "provider_reported_cost_usd": reply.reported_cost,
        "upstream_cost_usd": reply.upstream_cost,
        "is_byok": reply.is_byok,
        "finish_reasons": list(reply.finish_reasons),
        "choice_count": int(reply.attributes["choice_count"]) if "choice_count" in reply.attributes else None,
        "tool_calls": list(reply.tool_calls),
        "server_tool_calls": tools.split(",") if tools else [],
        "is_error": reply.is_error,
        "error_type": reply.error_type,
        "error_code": reply.error_code,
        "stream_complete": reply.complete,
    }
    if expected["choice_count"] in (None, 0, 1):
        found["choice_count"] = expected["choice_count"] if found["choice_count"] is None else found["choice_count"]
    for name, value in found.items():
        accepted = [expected[name], *case["ambiguous"].get(name, []), *overlooked.get(name, [])]
        if name == "response_id" and expected[name] is None:
            # The recorder looked for ids in bodies only.
            accepted.append(case["response_headers"].get("x-generation-id"))
        if not any(_equal(value, one) for one in accepted):
            yield f"{name}: read {value!r}, expected {accepted[0]!r}"


def _equal(value: Any, expected: Any) -> bool:
    if isinstance(value, Decimal) and expected is not None:
        # A cost that the recorder computed in floats carries their noise.
        return abs(value - Decimal(str(expected))) <= Decimal("1e-15")
    return bool(value == expected)
