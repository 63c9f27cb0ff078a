"""Slack: renders an Alert as Block Kit and delivers it by an incoming webhook or with a bot token.

Limits and error codes follow slack_sdk's block models and Slack's reference of chat.postMessage, chat.update and
incoming webhooks. Invariant: a payload keeps every limit, and no text of ours can become markup. The client's own
retries are off: a retry the caller does not see may post twice. Never here: deciding whether to send, buttons that
nothing answers.
"""

import http.client
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.error import URLError

from slack_sdk import WebClient, WebhookClient
from slack_sdk.errors import SlackApiError

from alerts.channels.alert import Alert
from spendwatch.errors import DeliveryError

EVENT_TYPE = "spendwatch_incident"
TIMEOUT_S = 10
HEADER_CHARS, FIELD_CHARS, FIELDS, SECTION_CHARS, ELEMENTS, BUTTON_URL_CHARS = 150, 2000, 10, 3000, 10, 3000
HISTORY_PAGES = 10

CHANNEL_ERRORS = frozenset({
    "not_in_channel", "channel_not_found", "is_archived", "channel_is_archived", "restricted_action", "invalid_auth",
    "action_prohibited", "not_authed", "account_inactive", "token_revoked", "token_expired", "missing_scope",
    "no_service", "no_active_hooks", "invalid_token", "team_disabled", "no_permission", "ekm_access_denied",
    "posting_to_general_channel_denied", "access_denied", "org_login_required", "not_allowed_token_type", "no_team",
    "user_not_found",
})  # fmt: skip
"""Nothing can be sent there until a person repairs something."""
MESSAGE_ERRORS = frozenset({
    "invalid_blocks", "invalid_blocks_format", "msg_too_long", "no_text", "invalid_payload", "invalid_arguments",
    "invalid_metadata_format", "metadata_too_large", "msg_blocks_too_long", "invalid_json",
})  # fmt: skip
"""This message can't be sent there, another one may."""
UNSURE_ERRORS = frozenset({"internal_error", "fatal_error", "service_unavailable", "request_timeout", "rollup_error"})
"""Slack may have posted the message all the same."""
GONE_ERRORS = frozenset({"message_not_found", "cant_update_message", "edit_window_closed", "thread_not_found"})


class MessageRefusedError(DeliveryError):
    """Slack will not take this message; the channel is sound."""


class MessageGoneError(DeliveryError):
    """The message to update or answer is not there any more."""


class UnsureError(DeliveryError):
    """The attempt ended without telling whether the message arrived."""


def render(alert: Alert) -> dict[str, Any]:
    """The message as chat.postMessage and webhooks take it: text, blocks, metadata."""
    facts = alert.facts[:FIELDS]
    notes = [_cut(escape(note), FIELD_CHARS) for note in alert.notes]
    notes += [f"{escape(label)} {_date(at)}" for label, at in alert.times]
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _cut(alert.headline, HEADER_CHARS), "emoji": False}},
        {"type": "section", "text": _mrkdwn(_cut(escape(alert.text), SECTION_CHARS))},
    ]
    if facts:
        fields = [_mrkdwn(_field(label, value, label in alert.code)) for label, value in facts]
        blocks.append({"type": "section", "fields": fields})
    if notes:
        blocks.append({"type": "context", "elements": [_mrkdwn(note) for note in notes[:ELEMENTS]]})
    if alert.url.startswith(("http://", "https://")) and len(alert.url) <= BUTTON_URL_CHARS:
        open_button = {"type": "button", "action_id": "sw:open", "text": _plain("Open"), "url": alert.url}
        blocks.append({"type": "actions", "elements": [open_button]})
    return {
        "text": _cut(escape(alert.text), SECTION_CHARS),
        "blocks": blocks,
        "unfurl_links": False,
        "metadata": {"event_type": EVENT_TYPE, "event_payload": {"id": alert.incident, "delivery": alert.key}},
    }


def escape(text: str) -> str:
    """The three characters that mean something to Slack, as Slack's formatting reference asks."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    kept = text[: limit - 1]
    # An entity cut in the middle would show as garbage.
    start = kept.rfind("&")
    return (kept[:start] if start > len(kept) - 5 and ";" not in kept[start:] else kept) + "…"


def _field(label: str, value: str, code: bool) -> str:
    room = FIELD_CHARS - len(label) - 10
    shown = _cut(escape(value), room) or "-"
    # A name such as a_b*c would become italics and bold; a backtick inside would end the code.
    return f"*{label}*\n`{shown.replace('`', chr(39))}`" if code else f"*{label}*\n{shown}"


def _date(at: datetime) -> str:
    """A time that Slack shows in each reader's own time zone."""
    return f"<!date^{int(at.timestamp())}^{{date_short_pretty}} {{time}}|{at:%Y-%m-%d %H:%M} UTC>"


def _mrkdwn(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text}


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text}


class Webhook:
    """An incoming webhook: posts into its one channel; can neither look, update nor answer in a thread."""

    def __init__(self, url: str) -> None:
        self._client = WebhookClient(url, timeout=TIMEOUT_S, retry_handlers=[])

    def post(self, payload: dict[str, Any]) -> None:
        """Send a message. Raises DeliveryError."""
        # A webhook has no use for the metadata: nobody can look it up.
        body = {name: value for name, value in payload.items() if name != "metadata"}
        answer = _reach(lambda: self._client.send_dict(body))
        if answer.status_code == 200:
            return
        said = str(answer.body).strip()[:100]
        if answer.status_code == 429:
            raise DeliveryError("Slack asks to wait (429).", retry_after_s=_retry_after(answer.headers))
        if answer.status_code >= 500:
            raise UnsureError(f"expected 200 from the webhook, found {answer.status_code}. Trying again.")
        if said in MESSAGE_ERRORS or (answer.status_code == 400 and said not in CHANNEL_ERRORS):
            raise MessageRefusedError(f"the webhook refused the message: {answer.status_code} {said}.", permanent=True)
        raise DeliveryError(
            f"the webhook refused: {answer.status_code} {said}. Make a new webhook in Slack and put its URL here.",
            permanent=True,
        )


class Bot:
    """A bot token: posts, updates, answers in threads, and finds a message again."""

    def __init__(self, token: str, channel: str, base_url: str) -> None:
        self._client = WebClient(token, base_url=base_url, timeout=TIMEOUT_S, retry_handlers=[])
        self._channel = channel

    def post(self, payload: dict[str, Any], thread: tuple[str, str] | None = None) -> tuple[str, str]:
        """Send a message, as a reply to `thread` if given; its (channel id, ts). Raises DeliveryError.

        A reply is shown in the channel too: who follows the channel only would miss it otherwise.
        """
        more = {"thread_ts": thread[1], "reply_broadcast": True} if thread else {}
        answer = self._call("chat.postMessage", {"channel": thread[0] if thread else self._channel, **payload, **more})
        return str(answer["channel"]), str(answer["ts"])

    def update(self, message: tuple[str, str], payload: dict[str, Any]) -> None:
        """Replace what a message shows. Raises DeliveryError, MessageGoneError when there is nothing to replace."""
        # chat.update knows nothing of unfurling; text and blocks go together, else the blocks would vanish.
        body = {name: value for name, value in payload.items() if name != "unfurl_links"}
        self._call("chat.update", {"channel": message[0], "ts": message[1], **body})

    def find(self, key: str, since: datetime, thread: tuple[str, str] | None = None) -> tuple[str, str] | None:
        """The message posted with this key since then (channel id, ts), None when there is none. Raises DeliveryError.

        Needs the scope channels:history (groups:history in a private channel).
        """
        # Slack's clock and ours need not agree.
        query: dict[str, Any] = {
            "channel": thread[0] if thread else self._channel,
            "oldest": f"{(since - timedelta(minutes=5)).timestamp():.6f}",
            "include_all_metadata": True,
            "limit": 100,
        }
        method = "conversations.history"
        if thread:
            method, query["ts"] = "conversations.replies", thread[1]
        for _ in range(HISTORY_PAGES):
            answer = self._call(method, query, form=True)
            for message in answer.get("messages") or ():
                payload = (message.get("metadata") or {}).get("event_payload") or {}
                if payload.get("delivery") == key:
                    return str(answer.get("channel") or query["channel"]), str(message["ts"])
            cursor = (answer.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                return None
            query["cursor"] = cursor
        return None

    def _call(self, method: str, body: dict[str, Any], *, form: bool = False) -> Any:
        def ask() -> Any:
            if form:
                return self._client.api_call(method, params=body)
            return self._client.api_call(method, json=body)

        try:
            return _reach(ask)
        except SlackApiError as error:
            raise _refusal(method, error) from None


def _refusal(method: str, error: SlackApiError) -> DeliveryError:
    answer: Any = error.response
    status, code = answer.status_code, str(answer.get("error") or "")
    if status == 429 or code in ("ratelimited", "rate_limited"):
        return DeliveryError(f"Slack asks to wait ({method}: ratelimited).", retry_after_s=_retry_after(answer.headers))
    if status >= 500 or code in UNSURE_ERRORS:
        return UnsureError(f"expected ok from {method}, found {status} {code[:60]}. Trying again.")
    if code in GONE_ERRORS:
        return MessageGoneError(f"{method}: {code}.", permanent=True)
    if code in MESSAGE_ERRORS:
        return MessageRefusedError(f"Slack refused the message ({method}: {code}).", permanent=True)
    if code in CHANNEL_ERRORS:
        needed = f"; it needs the scope {answer.get('needed')}" if answer.get("needed") else ""
        return DeliveryError(
            f"Slack refuses this channel ({method}: {code}{needed}). Repair it in Slack, then send a test message.",
            permanent=True,
        )
    return DeliveryError(f"expected ok from {method}, found {status} {code[:60]}. Trying again.")


def _reach(ask: Callable[[], Any]) -> Any:
    """Ask, and tell apart "never got there" from "no answer came back"."""
    try:
        return ask()
    except URLError as error:
        # urllib wraps what fails before the request is out; a time-out may come later, while it waits.
        kind = UnsureError if isinstance(error.reason, TimeoutError) else DeliveryError
        raise kind(f"Slack could not be reached: {error.reason}. Trying again.") from None
    except (OSError, http.client.HTTPException) as error:
        raise UnsureError(f"Slack did not answer: {type(error).__name__}. Trying again.") from None
    except ValueError as error:
        raise DeliveryError(
            f"expected an http(s) address of Slack, found: {error}. Correct it.", permanent=True
        ) from None


def _retry_after(headers: Any) -> float | None:
    value = headers.get("Retry-After") or headers.get("retry-after")
    try:
        return max(0.0, float(value[0] if isinstance(value, list) else value))
    except (TypeError, ValueError):
        return None
