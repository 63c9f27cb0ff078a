"""The ASGI application: OpenRouter's endpoints, a direct provider's, and the ones that script them.

Beside the real endpoints: POST /_script {"model"?, "script"}, POST /_plant (plants.Plant), POST /_keys {"secret",
"name"}, POST /_purchase {"amount"}, POST /_settings {"include_today"}, POST /_fail {"path", "status",
"retry_after_s"?, "body"?} for the next GET of a path, GET /_requests, GET /_generations.
"""

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from tests.fakes.openrouter import models
from tests.fakes.openrouter.http import Receive, Request, Scope, Send, answer, read
from tests.fakes.openrouter.inference import Inference, Refused, hash_of
from tests.fakes.openrouter.plants import Plant, plant
from tests.fakes.openrouter.script import Script
from tests.fakes.openrouter.world import MANAGEMENT_KEY, Generation, Key, World

INFERENCE = ("/api/v1/chat/completions", "/api/v1/messages", "/v1/chat/completions", "/v1/messages")
PAGE = 100


class App:
    """One world behind HTTP."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._inference = Inference(world)
        self._failures: dict[str, list[dict[str, Any]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of ASGI; only HTTP is spoken."""
        if scope["type"] != "http":
            return
        request = await read(scope, receive)
        failures = self._failures.get(request.path)
        if failures:
            failure = failures.pop(0)
            after = failure.get("retry_after_s")
            headers = {} if after is None else {"retry-after": str(after)}
            await answer(send, failure["status"], failure.get("body", {"error": {"code": failure["status"]}}), headers)
            return
        try:
            if request.method == "POST" and request.path in INFERENCE:
                await self._inference(request, send, receive)
            else:
                await answer(send, 200, self._answer(request))
        except Refused as refused:
            await answer(
                send,
                refused.status,
                {"error": {"code": refused.status, "message": refused.message}},
                {} if refused.retry_after_s is None else {"retry-after": str(refused.retry_after_s)},
            )
        except (LookupError, ValueError, msgspec.MsgspecError) as error:
            await answer(send, 400, {"error": {"code": 400, "message": str(error)}})

    def _answer(self, request: Request) -> Any:
        path = request.path
        if path.startswith("/_"):
            return self._own(request)
        if path.startswith("/api/v1/"):
            query = "&".join(f"{name}={value}" for name, value in sorted(request.query.items()))
            self._world.requests.append(f"{request.method} {path}" + (f"?{query}" if query else ""))
        if path == "/api/v1/models":
            return models.models_document()
        if path.startswith("/api/v1/models/") and path.endswith("/endpoints"):
            return self._endpoints(path)
        if path == "/api/v1/generation":
            return self._generation(request)
        if path == "/api/v1/key":
            return {"data": self._key_row(self._own_key(request))}
        self._managers_only(request)
        if path == "/api/v1/activity":
            day = request.query.get("date")
            return self._world.activity(
                day=date.fromisoformat(day) if day else None, hash_=request.query.get("api_key_hash")
            )
        if path == "/api/v1/credits":
            return {"data": {"total_credits": self._world.purchased, "total_usage": self._world.used()}}
        if path == "/api/v1/keys":
            return self._keys(request)
        if path.startswith("/api/v1/keys/") and request.method in ("GET", "PATCH"):
            return self._one_key(request)
        raise Refused(404, f"no such endpoint: {request.method} {path}")

    def _endpoints(self, path: str) -> Any:
        model = models.find(path.removeprefix("/api/v1/models/").removesuffix("/endpoints"))
        if model is None:
            raise Refused(404, "no such model")
        return models.endpoints_document(model)

    def _managers_only(self, request: Request) -> None:
        if request.secret is None:
            raise Refused(401, "No auth credentials found")
        if request.secret != MANAGEMENT_KEY:
            raise Refused(403, f"Only management keys can fetch {request.path.rsplit('/', 1)[-1]}")

    def _own_key(self, request: Request) -> Key:
        key = self._world.keys.get(hash_of(request) or "")
        if key is None:
            raise Refused(401, "User not found.")
        return key

    def _keys(self, request: Request) -> Any:
        offset = int(request.query.get("offset", "0"))
        hidden = request.query.get("include_disabled", "false") == "true"
        rows = [self._key_row(key) for key in self._world.keys.values() if hidden or not key.disabled]
        return {"data": rows[offset : offset + PAGE]}

    def _one_key(self, request: Request) -> Any:
        key = self._world.keys.get(request.path.rsplit("/", 1)[-1])
        if key is None:
            raise Refused(404, "API key not found")
        if request.method == "PATCH":
            key.disabled = bool(msgspec.json.decode(request.body).get("disabled", key.disabled))
            self._world.write("key", key)
        return {"data": self._key_row(key)}

    def _key_row(self, key: Key) -> dict[str, Any]:
        today = next(iter(World(include_today=True).days()))
        starts = {"": None, "_daily": today, "_weekly": today - timedelta(days=today.weekday()),
                  "_monthly": today.replace(day=1)}  # fmt: skip
        spent = {
            f"{prefix}{suffix}": self._world.used(key.hash, byok=byok, since=start)
            for prefix, byok in (("usage", False), ("byok_usage", True))
            for suffix, start in starts.items()
        }
        return {
            "hash": key.hash,
            "name": key.name,
            "label": f"sk-or-v1-{key.hash[:3]}...{key.hash[-3:]}",
            "disabled": key.disabled,
            "limit": None,
            "limit_remaining": None,
            "limit_reset": None,
            "include_byok_in_limit": False,
            **spent,
            "created_at": key.created_at.isoformat(),
            "updated_at": None,
            "last_used_at": None,
            "expires_at": None,
            "external_user": None,
        }

    def _generation(self, request: Request) -> Any:
        if request.secret is None:
            raise Refused(401, "No auth credentials found")
        id_ = request.query.get("id", "")
        generation = self._world.generations.get(id_)
        # The record lands a while after the call: the first to ask hears 404.
        if generation is None or id_ not in self._world.looked_up:
            self._world.looked_up.add(id_)
            raise Refused(404, f"Generation {id_} not found")
        if request.secret != MANAGEMENT_KEY and hash_of(request) != generation.key_hash:
            raise Refused(403, "This generation belongs to another account")
        return {"data": _generation_row(generation)}

    def _own(self, request: Request) -> Any:
        body: dict[str, Any] = msgspec.json.decode(request.body) if request.body else {}
        match request.path:
            case "/_script":
                script = msgspec.convert(body["script"], Script)
                self._inference.queued.setdefault(body.get("model", ""), []).append(script)
                return {"queued": True}
            case "/_plant":
                wish = msgspec.json.decode(request.body, type=Plant)
                return msgspec.to_builtins(plant(self._world, wish))
            case "/_keys":
                return self._key_row(self._world.key(body["secret"], body.get("name")))
            case "/_fail":
                self._failures.setdefault(body["path"], []).append(body)
                return {"queued": True}
            case "/_purchase":
                self._world.purchased += Decimal(str(body["amount"]))
                return {"total_credits": self._world.purchased}
            case "/_settings":
                self._world.include_today = bool(body.get("include_today", self._world.include_today))
                return {"include_today": self._world.include_today}
            case "/_requests":
                return {"data": self._world.requests}
            case "/_generations":
                return {"data": msgspec.to_builtins(list(self._world.generations.values()))}
        raise Refused(404, f"no such endpoint: {request.path}")


def _generation_row(generation: Generation) -> dict[str, Any]:
    figures = generation.billed
    usage = figures.usage if figures else Decimal(0)
    tokens = (figures or generation.said).tokens
    is_byok = figures is not None and figures.byok > 0
    return {
        "id": generation.id,
        "created_at": generation.created_at.isoformat(),
        "api_type": generation.api_type,
        "model": generation.permaslug,
        "provider_name": generation.provider_name,
        "is_byok": is_byok,
        "total_cost": usage,
        "usage": usage,
        "upstream_inference_cost": figures.byok if figures is not None and is_byok else 0,
        "tokens_prompt": tokens.prompt - tokens.prompt // 50,
        "tokens_completion": tokens.completion,
        "native_tokens_prompt": tokens.prompt,
        "native_tokens_completion": tokens.completion,
        "native_tokens_reasoning": tokens.reasoning,
        "native_tokens_cached": tokens.cached,
        "streamed": generation.streamed,
        "cancelled": generation.cancelled,
        "finish_reason": None if generation.cancelled else generation.finish_reason,
        "data_region": "global",
        "origin": "",
        "provider_responses": [
            {
                "status": 200,
                "provider_name": generation.provider_name,
                "endpoint_id": generation.endpoint_id,
                "model_permaslug": generation.permaslug,
                "is_byok": is_byok,
            }
        ],
    }
