"""A Slack that remembers, on loopback: incoming webhooks and the few Web API methods that posting needs.

It keeps every message it accepted, gives increasing string timestamps, refuses what Slack would refuse (block limits,
broken JSON, unknown messages), and misbehaves on demand. It never forgets a message that it accepted, also when the
connection then drops: that is the case a sender must survive.

`with FakeSlack() as slack:` runs one inside a test; `python -m tests.fakes.slack --port 8200` runs one by itself, with
`GET /` to read the channels, `GET /_messages` for the same as JSON and `POST /_misbehave` to order faults.
"""

import argparse
import html
import json
import threading
import time
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]

KINDS = ("ratelimited", "error", "html500", "drop", "refuse", "slow")


@dataclass(slots=True)
class Fault:
    """One ordered misbehaviour.

    kind: ratelimited (429 + Retry-After) | error (ok:false, or a webhook's 4xx, with `error`) | html500 | drop (take
    the message, then close the connection without an answer) | refuse (close it before taking the message) | slow
    (take the message, then answer after `seconds`). channel and method: only for requests to these (None: any). times:
    how often, -1 for ever.
    """

    kind: str
    error: str = "internal_error"
    status: int = 400
    seconds: float = 1
    channel: str | None = None
    method: str | None = None
    times: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is not a kind of fault; use one of {', '.join(KINDS)}")


@dataclass(slots=True)
class Message:
    """One message as Slack keeps it. via: "bot" or "webhook". versions: every text it ever showed, the last is now."""

    channel: str
    ts: str
    text: str
    blocks: list[Json]
    via: str
    thread_ts: str | None = None
    metadata: Json | None = None
    versions: list[str] = field(default_factory=list)
    broadcast: bool = False


@dataclass(slots=True)
class Received:
    """One HTTP request as it came in, whether it was accepted or not."""

    method: str
    token: str | None
    body: Json


class FakeSlack:
    """The server and its memory. `url` is its root, `api_url` what a WebClient takes as base_url."""

    def __init__(self, port: int = 0) -> None:
        self.messages: list[Message] = []
        self.requests: list[Received] = []
        self.faults: list[Fault] = []
        self.revoked: set[str] = set()
        """Tokens (bot) and paths (webhook) that were taken back."""
        self.lock = threading.RLock()
        self._last_ts = 0
        handler = type("Handler", (_Handler,), {"slack": self})
        self._server = _Server(("127.0.0.1", port), handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.api_url = f"{self.url}/api/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def webhook_url(self, channel: str) -> str:
        """An incoming webhook that posts into `channel`."""
        return f"{self.url}/services/T0ACME/B0SPEND/{channel}"

    def misbehave(self, kind: str, **more: Any) -> None:
        """Order a fault; faults are served in the order they were given."""
        with self.lock:
            self.faults.append(Fault(kind, **more))

    def behave(self) -> None:
        """Forget every ordered fault."""
        with self.lock:
            self.faults.clear()

    def roots(self, channel: str | None = None) -> list[Message]:
        """The messages that stand in a channel by themselves: each may have a thread."""
        with self.lock:
            return [m for m in self.messages if m.thread_ts is None and channel in (None, m.channel)]

    def replies(self, root: Message) -> list[Message]:
        """The thread under a message."""
        with self.lock:
            return [m for m in self.messages if m.thread_ts == root.ts and m.channel == root.channel]

    def next_ts(self) -> str:
        """A fresh timestamp: microseconds of the clock, always above the last one."""
        self._last_ts = max(self._last_ts + 1, time.time_ns() // 1000)
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"

    def take_fault(self, method: str, channel: str) -> Fault | None:
        """The next fault that concerns this request, used up by one."""
        with self.lock:
            for fault in self.faults:
                if fault.channel in (None, channel) and fault.method in (None, method):
                    if fault.times > 0:
                        fault.times -= 1
                        if fault.times == 0:
                            self.faults.remove(fault)
                    return fault
        return None

    def start(self) -> "FakeSlack":
        """Serve in a thread of its own."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def serve(self) -> None:
        """Serve in this thread until it is interrupted."""
        self._server.serve_forever()

    def __enter__(self) -> "FakeSlack":
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Refusal(Exception):
    """Slack says no: the Web API's error code, and a webhook's status."""

    def __init__(self, error: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    slack: FakeSlack
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the memory is the log."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        with self.slack.lock:
            if path == "/_messages":
                self._json(200, [asdict(m) for m in self.slack.messages])
            elif path == "/_requests":
                self._json(200, [asdict(r) for r in self.slack.requests])
            elif path == "/":
                self._answer(200, _page(self.slack), "text/html; charset=utf-8")
            elif path.startswith("/api/"):
                self.do_POST()
            else:
                self._answer(404, "not found", "text/plain")

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if url.path == "/_misbehave":
            self.slack.misbehave(**json.loads(raw))
            self._json(200, {"ok": True})
            return
        webhook = url.path.startswith("/services/")
        method = "webhook" if webhook else url.path.removeprefix("/api/")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        try:
            body = _decode(raw, self.headers.get("Content-Type") or "", url.query)
            channel = url.path.rsplit("/", 1)[-1] if webhook else str(body.get("channel", ""))
            with self.slack.lock:
                self.slack.requests.append(Received(method, token, body))
            fault = self.slack.take_fault(method, channel)
            if fault is not None and self._misbehave(fault, webhook):
                return
            if (url.path if webhook else token) in self.slack.revoked:
                raise _Refusal("no_service" if webhook else "token_revoked", 404)
            with self.slack.lock:
                answer = self._webhook(channel, body) if webhook else self._api(method, token, body)
        except _Refusal as refusal:
            if webhook:
                self._answer(refusal.status, refusal.error, "text/plain")
            else:
                self._json(200, {"ok": False, "error": refusal.error})
            return
        if fault is not None and fault.kind == "drop":
            self.close_connection = True
            return
        if fault is not None and fault.kind == "slow":
            time.sleep(fault.seconds)
        if webhook:
            self._answer(200, "ok", "text/plain")
        else:
            self._json(200, {"ok": True, **answer})

    def _misbehave(self, fault: Fault, webhook: bool) -> bool:
        """True when the request has had its answer (or none) by now."""
        match fault.kind:
            case "ratelimited":
                body = "rate_limited" if webhook else json.dumps({"ok": False, "error": "ratelimited"})
                kind = "text/plain" if webhook else "application/json"
                self._answer(429, body, kind, {"Retry-After": str(int(fault.seconds))})
            case "error" if webhook:
                self._answer(fault.status, fault.error, "text/plain")
            case "error":
                self._json(200, {"ok": False, "error": fault.error})
            case "html500":
                self._answer(500, "<html><body><h1>Server Error</h1></body></html>", "text/html; charset=utf-8")
            case "refuse":
                self.close_connection = True
            case _:
                return False
        return True

    def _webhook(self, channel: str, body: Json) -> Json:
        if not body.get("text") and not body.get("blocks"):
            raise _Refusal("no_text")
        check_message(body)
        ts = self.slack.next_ts()
        text, blocks = str(body.get("text") or ""), body.get("blocks") or []
        self.slack.messages.append(Message(channel, ts, text, blocks, "webhook", versions=[text]))
        return {}

    def _api(self, method: str, token: str | None, body: Json) -> Json:
        if not (token or "").startswith("xoxb-"):
            raise _Refusal("invalid_auth" if token else "not_authed")
        match method:
            case "auth.test":
                return {"team": "Acme", "team_id": "T0ACME", "user_id": "U0SPEND", "bot_id": "B0SPEND"}
            case "chat.postMessage":
                return self._post(body)
            case "chat.update":
                return self._update(body)
            case "conversations.history" | "conversations.replies":
                return self._history(method, body)
        raise _Refusal("unknown_method")

    def _post(self, body: Json) -> Json:
        channel = str(body.get("channel") or "")
        if not channel:
            raise _Refusal("channel_not_found")
        if not body.get("text") and not body.get("blocks"):
            raise _Refusal("no_text")
        check_message(body)
        text = str(body.get("text") or "")
        thread_ts = body.get("thread_ts")
        if thread_ts is not None and not isinstance(thread_ts, str):
            raise _Refusal("invalid_thread_ts")
        message = Message(
            channel, self.slack.next_ts(), text, body.get("blocks") or [], "bot", thread_ts, body.get("metadata"),
            [text], bool(body.get("reply_broadcast")),
        )  # fmt: skip
        self.slack.messages.append(message)
        return {"channel": channel, "ts": message.ts, "message": _shown(message)}

    def _update(self, body: Json) -> Json:
        message = self._find(str(body.get("channel") or ""), body.get("ts"))
        check_message(body)
        # Text without blocks removes the blocks, as Slack does.
        if "text" in body or "blocks" in body:
            message.text, message.blocks = str(body.get("text") or ""), body.get("blocks") or []
        if body.get("metadata"):
            message.metadata = body["metadata"]
        message.versions.append(message.text)
        return {"channel": message.channel, "ts": message.ts, "text": message.text, "message": _shown(message)}

    def _find(self, channel: str, ts: object) -> Message:
        for message in self.slack.messages:
            if message.channel == channel and message.ts == ts:
                if message.via == "webhook":
                    raise _Refusal("cant_update_message")
                return message
        raise _Refusal("message_not_found")

    def _history(self, method: str, body: Json) -> Json:
        channel, oldest = str(body.get("channel") or ""), str(body.get("oldest") or "0")
        limit = int(body.get("limit") or 100)
        with_metadata = str(body.get("include_all_metadata", "")).lower() in ("1", "true")
        thread = body.get("ts") if method == "conversations.replies" else None
        found = [
            m
            for m in self.slack.messages
            if m.channel == channel
            and float(m.ts) > float(oldest)
            and ((m.thread_ts == thread or m.ts == thread) if thread else m.thread_ts is None or m.broadcast)
        ]
        if thread is None:
            found.reverse()
        start = int(body.get("cursor") or 0)
        page, rest = found[start : start + limit], len(found) > start + limit
        shown = [_shown(m) if with_metadata else {**_shown(m), "metadata": None} for m in page]
        more = {"next_cursor": str(start + limit)} if rest else {"next_cursor": ""}
        return {"messages": shown, "has_more": rest, "response_metadata": more}

    def _json(self, status: int, value: object) -> None:
        self._answer(status, json.dumps(value), "application/json; charset=utf-8")

    def _answer(self, status: int, body: str, kind: str, headers: dict[str, str] | None = None) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _decode(raw: bytes, kind: str, query: str) -> Json:
    if "json" in kind:
        try:
            body = json.loads(raw)
        except ValueError:
            raise _Refusal("invalid_json" if b"{" in raw else "invalid_payload") from None
        if not isinstance(body, dict):
            raise _Refusal("invalid_payload")
        return body
    form = parse_qs(raw.decode() or query)
    return {name: values[-1] for name, values in form.items()}


def _shown(message: Message) -> Json:
    shown: Json = {"type": "message", "ts": message.ts, "text": message.text, "bot_id": "B0SPEND"}
    if message.thread_ts:
        shown["thread_ts"] = message.thread_ts
    if message.metadata:
        shown["metadata"] = message.metadata
    return shown


def check_message(body: Json) -> None:
    """Refuse what Slack refuses: limits of slack_sdk's block models and of Slack's reference for chat.postMessage."""
    if len(str(body.get("text") or "")) > 40_000:
        raise _Refusal("msg_too_long")
    blocks = body.get("blocks") or []
    if not isinstance(blocks, list) or len(blocks) > 50:
        raise _Refusal("invalid_blocks")
    for block in blocks:
        if not isinstance(block, dict) or not _block_fits(block):
            raise _Refusal("invalid_blocks")
    metadata = body.get("metadata")
    if metadata is not None and not ({"event_type", "event_payload"} <= set(metadata)):
        raise _Refusal("invalid_metadata_format")


def _block_fits(block: Json) -> bool:
    if len(str(block.get("block_id") or "")) > 255:
        return False
    match block.get("type"):
        case "header":
            return _text_fits(block.get("text"), 150, ("plain_text",))
        case "section":
            fields = block.get("fields") or []
            text = block.get("text")
            return (
                bool(fields or text)
                and (text is None or _text_fits(text, 3000))
                and len(fields) <= 10
                and all(_text_fits(one, 2000) for one in fields)
            )
        case "context":
            elements = block.get("elements") or []
            return 1 <= len(elements) <= 10 and all(_text_fits(one, 3000) for one in elements)
        case "actions":
            elements = block.get("elements") or []
            return 1 <= len(elements) <= 25 and all(_button_fits(one) for one in elements)
        case "divider":
            return True
    return False


def _text_fits(text: object, limit: int, kinds: tuple[str, ...] = ("plain_text", "mrkdwn")) -> bool:
    if not isinstance(text, dict) or text.get("type") not in kinds:
        return False
    return isinstance(text.get("text"), str) and 1 <= len(text["text"]) <= limit


def _button_fits(element: Json) -> bool:
    url = element.get("url")
    return (
        element.get("type") == "button"
        and len(str(element.get("action_id") or "")) <= 255
        and len(str(element.get("value") or "")) <= 2000
        and (url is None or (len(str(url)) <= 3000 and str(url).startswith(("http://", "https://"))))
        and _text_fits(element.get("text"), 75, ("plain_text",))
    )


def _page(slack: FakeSlack) -> str:
    """The channels as a plain page, threads indented under their message."""
    out = ["<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=3><title>Slack (loopback)</title>"]
    for channel in sorted({m.channel for m in slack.messages}):
        out.append(f"<h2>#{html.escape(channel)}</h2><ul>")
        for root in slack.roots(channel):
            thread = "".join(f"<li>{_item(reply)}</li>" for reply in slack.replies(root))
            out.append(f"<li>{_item(root)}<ul>{thread}</ul></li>")
        out.append("</ul>")
    if not slack.messages:
        out.append("<p>No message yet.</p>")
    return "\n".join(out)


def _item(message: Message) -> str:
    parts = []
    for block in message.blocks:
        for part in (block.get("text"), *(block.get("fields") or ()), *(block.get("elements") or ())):
            text = part.get("text") if isinstance(part, dict) else None
            text = text.get("text") if isinstance(text, dict) else text
            if text and isinstance(part, dict) and part.get("url"):
                # Slack shows a url button as a link.
                parts.append(f'<a href="{html.escape(str(part["url"]))}">{html.escape(text)}</a>')
            elif text:
                # Text is already escaped for Slack (&amp; &lt; &gt;).
                parts.append(html.escape(html.unescape(text)).replace("\n", ": "))
    edited = f" <i>(edited {len(message.versions) - 1} times)</i>" if len(message.versions) > 1 else ""
    return f"<b>{html.escape(html.unescape(message.text))}</b>{edited}<br><small>{'<br>'.join(parts)}</small>"


def main() -> None:
    """Serve until interrupted; the first line printed is the address."""
    parser = argparse.ArgumentParser(description="A Slack that remembers, on loopback.")
    parser.add_argument("--port", type=int, default=0)
    slack = FakeSlack(parser.parse_args().port)
    print(slack.url, flush=True)
    try:
        slack.serve()
    except KeyboardInterrupt:
        pass
    finally:
        slack.stop()


if __name__ == "__main__":
    main()
