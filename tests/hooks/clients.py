"""The clients that one suite runs on, sync and async, behind one plain interface."""

import asyncio
import functools
import http.client
import json as jsonlib
import types
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx
import httpx2
import requests
import urllib3

GZIP_AND_DEFLATE = frozenset({"gzip", "deflate", "raw-deflate"})


@dataclass(slots=True)
class Kind:
    """One client. run() turns an async test body into a plain call; for a sync client it just calls."""

    module: Any
    is_async: bool
    client: Callable[..., Any]
    """A context manager of a Client, sync or async."""
    refused: tuple[type[Exception], str]
    """What the app sees when nothing listens, and what is recorded as the error's type."""
    timeout: tuple[type[Exception], str]
    broken: tuple[type[Exception], str]
    """The same for a connection that breaks within a body in chunks."""
    undecodable: type[Exception] | None
    """What the app sees of a body that isn't what its content-encoding says; None: this client doesn't decode."""
    hooks: list[tuple[Any, str]]
    """Where the hook is."""
    untouched: Callable[[Any], bool]
    """Whether an unread response of this client's own is as the client made it."""
    decodes: frozenset[str] = GZIP_AND_DEFLATE
    follows_redirects: bool = True
    hides_encoding: bool = False
    """It decodes before anybody can see."""
    reads_ahead: bool = False
    """The whole body is there before the response is."""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name or self.module.__name__}-{'async' if self.is_async else 'sync'}"

    def transport(self, handler: Callable[[Any], Any]) -> Any:
        return self.module.MockTransport(handler)

    def run(self, body: Callable[[Any], Any], **options: Any) -> Any:
        """Open a client, run `body(Client)`, close it. `body` is written with `await_` steps, see Client."""

        async def asynchronous() -> Any:
            async with self.client(**options) as client:
                return await _drive_async(body(client))

        if self.is_async:
            return asyncio.run(asynchronous())
        with self.client(**options) as client:
            return _drive(body(client))


def _drive(steps: Any) -> Any:
    """Run a body to its end: each thing it yields is a result already."""
    if not isinstance(steps, types.GeneratorType):
        return steps
    value: Any = None
    while True:
        try:
            value = steps.send(value)
        except StopIteration as stop:
            return stop.value


async def _drive_async(steps: Any) -> Any:
    """The same where what it yields may have to be awaited; errors are thrown into the body where they arose."""
    if not isinstance(steps, types.GeneratorType):
        return steps
    send: Callable[[Any], Any] = steps.send
    value: Any = None
    while True:
        try:
            step = send(value)
        except StopIteration as stop:
            return stop.value
        send = steps.send
        try:
            value = await step if asyncio.iscoroutine(step) or hasattr(step, "__await__") else step
        except Exception as exc:
            value, send = exc, steps.throw


class Client:
    """A client whose methods are yielded by a body: `response = yield client.post(...)` in both worlds."""

    is_async = False

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def post(self, url: str, **options: Any) -> Any:
        """Send and read the whole reply."""
        raise NotImplementedError

    def open(self, url: str, *, decode: bool = True, **options: Any) -> Any:
        """Send and return the response unread. decode False: its raw_chunks() are wanted."""
        raise NotImplementedError

    def next(self, iterator: Any) -> Any:
        return anext(iterator) if self.is_async else next(iterator)


def each(client: Client, iterator: Any) -> Iterator[Any]:
    """Collect what an iterator gives: `items = yield from each(client, client.chunks(response))`."""
    items: list[Any] = []
    while True:
        try:
            items.append((yield client.next(iterator)))
        except (StopAsyncIteration, StopIteration):
            return items


class Httpx(Client):
    """httpx and httpx2, whose names the suite's own follow."""

    def post(self, url: str, **options: Any) -> Any:
        return self.raw.post(url, **options)

    def open(self, url: str, *, decode: bool = True, method: str = "POST", **options: Any) -> Any:
        return self.raw.send(self.raw.build_request(method, url, **options), stream=True)

    def get(self, url: str) -> Any:
        return self.raw.get(url)

    def read(self, response: Any) -> Any:
        return response.aread() if self.is_async else response.read()

    def close(self, response: Any) -> Any:
        return response.aclose() if self.is_async else response.close()

    def raw_chunks(self, response: Any) -> Any:
        return response.aiter_raw() if self.is_async else response.iter_raw()

    def chunks(self, response: Any) -> Any:
        return response.aiter_bytes() if self.is_async else response.iter_bytes()


class AsyncHttpx(Httpx):
    is_async = True


@dataclass(slots=True)
class Reply:
    """Another client's response under the names that httpx has."""

    native: Any
    status_code: int
    content: bytes | None = None
    parts: list[Any] = field(default_factory=list)

    def json(self) -> Any:
        return jsonlib.loads(self.content or b"")


class Synchronous(Client):
    """What requests, urllib3 and urllib have in common: send() differs."""

    def send(self, method: str, url: str, *, headers: dict[str, str], content: Any, timeout: Any, follow: bool) -> Any:
        raise NotImplementedError

    def open(self, url: str, *, decode: bool = True, method: str = "POST", **options: Any) -> Any:
        headers = dict(options.get("headers", {}))
        content = options.get("content")
        if "json" in options:
            content = jsonlib.dumps(options["json"]).encode()
            headers.setdefault("content-type", "application/json")
        follow = options.get("follow_redirects", False)
        return self.send(
            method, url, headers=headers, content=content, timeout=options.get("timeout", 30), follow=follow
        )

    def post(self, url: str, **options: Any) -> Any:
        response = self.open(url, **options)
        response.content = self.read(response)
        return response

    def get(self, url: str) -> Any:
        return self.open(url, method="GET")

    def close(self, response: Any) -> Any:
        response.native.close()


class Requests(Synchronous):
    def send(self, method: str, url: str, *, headers: dict[str, str], content: Any, timeout: Any, follow: bool) -> Any:
        found = self.raw.request(
            method, url, data=content, headers=headers, timeout=timeout, allow_redirects=follow, stream=True
        )
        return Reply(found, found.status_code)

    def read(self, response: Any) -> Any:
        return response.native.content

    def raw_chunks(self, response: Any) -> Any:
        return response.native.raw.stream(65536, decode_content=False)

    def chunks(self, response: Any) -> Any:
        return response.native.iter_content(None)


class Urllib3(Synchronous):
    def send(self, method: str, url: str, *, headers: dict[str, str], content: Any, timeout: Any, follow: bool) -> Any:
        retries = urllib3.Retry(connect=0, read=0, redirect=3) if follow else False
        found = self.raw.request(
            method, url, body=content, headers=headers, timeout=timeout, retries=retries, preload_content=False
        )
        return Reply(found, found.status)

    def read(self, response: Any) -> Any:
        return response.native.data

    def raw_chunks(self, response: Any) -> Any:
        return response.native.stream(65536, decode_content=False)

    def chunks(self, response: Any) -> Any:
        return response.native.stream()


class Preloaded(Urllib3):
    """urllib3 as it is by default: the body is read before the response is there."""

    def post(self, url: str, **options: Any) -> Any:
        headers = dict(options.get("headers", {}))
        retries = urllib3.Retry(connect=0, read=0, redirect=3) if options.get("follow_redirects") else False
        how = {"timeout": options.get("timeout", 30), "retries": retries}
        if "content" in options:
            found = self.raw.request("POST", url, body=options["content"], headers=headers, **how)
        else:
            found = self.raw.request("POST", url, json=options["json"], headers=headers, **how)
        return Reply(found, found.status, found.data)


class Urllib(Synchronous):
    def send(self, method: str, url: str, *, headers: dict[str, str], content: Any, timeout: Any, follow: bool) -> Any:
        request = urllib.request.Request(url, data=content, headers=headers, method=method)
        try:
            found = self.raw.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            # It is the response as well.
            found = error
        return Reply(found, found.status)

    def read(self, response: Any) -> Any:
        return response.native.read()

    def raw_chunks(self, response: Any) -> Any:
        return iter(lambda: response.native.read1(65536), b"")

    def chunks(self, response: Any) -> Any:
        return self.raw_chunks(response)


class Aiohttp(Client):
    is_async = True

    async def open(self, url: str, *, decode: bool = True, method: str = "POST", **options: Any) -> Any:
        how: dict[str, Any] = {"headers": options.get("headers")}
        if "json" in options:
            how["json"] = options["json"]
        else:
            how["data"] = options.get("content")
        if "timeout" in options:
            how["timeout"] = aiohttp.ClientTimeout(total=options["timeout"])
        follow = options.get("follow_redirects", False)
        found = await self.raw.request(method, url, allow_redirects=follow, auto_decompress=decode, **how)
        return Reply(found, found.status)

    async def post(self, url: str, **options: Any) -> Any:
        response = await self.open(url, **options)
        response.content = await response.native.read()
        return response

    async def get(self, url: str) -> Any:
        response = await self.open(url, method="GET")
        await response.native.read()

    def read(self, response: Any) -> Any:
        return response.native.read()

    def close(self, response: Any) -> Any:
        response.native.close()

    def raw_chunks(self, response: Any) -> Any:
        return response.native.content.iter_any()

    def chunks(self, response: Any) -> Any:
        return response.native.content.iter_any()


@contextmanager
def _httpx(module: Any, **options: Any) -> Iterator[Client]:
    with module.Client(**options) as raw:
        yield Httpx(raw)


@asynccontextmanager
async def _async_httpx(module: Any, **options: Any) -> AsyncIterator[Client]:
    async with module.AsyncClient(**options) as raw:
        yield AsyncHttpx(raw)


@contextmanager
def _requests(proxy: str | None = None) -> Iterator[Client]:
    with requests.Session() as session:
        if proxy is not None:
            session.proxies = {"http": proxy}
        yield Requests(session)


@contextmanager
def _urllib3(client: type[Client], proxy: str | None = None) -> Iterator[Client]:
    with urllib3.PoolManager() if proxy is None else urllib3.ProxyManager(proxy) as manager:
        yield client(manager)


@contextmanager
def _urllib(proxy: str | None = None) -> Iterator[Client]:
    yield Urllib(urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy} if proxy else {})))


@asynccontextmanager
async def _aiohttp(proxy: str | None = None) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(proxy=proxy) as session:
        yield Aiohttp(session)


def _httpx_kind(module: Any, is_async: bool) -> Kind:
    owner = module.AsyncClient if is_async else module.Client
    return Kind(
        module,
        is_async,
        functools.partial(_async_httpx if is_async else _httpx, module),
        refused=(module.ConnectError, "ConnectError"),
        timeout=(module.ReadTimeout, "ReadTimeout"),
        broken=(module.RemoteProtocolError, "RemoteProtocolError"),
        undecodable=module.DecodingError,
        hooks=[(owner, "_transport_for_url")],
        untouched=lambda response: "spendwatch" not in type(response.stream._stream).__module__,
        decodes=GZIP_AND_DEFLATE
        | {"gzip, identity", "deflate, gzip"}
        # httpx 0.28 decodes zstd with a package that is not installed.
        | ({"zstd"} if module is httpx2 else set()),
    )


def _file_is_theirs(raw: Any) -> bool:
    return "spendwatch" not in type(raw.fp).__module__


HTTPX_KINDS = [_httpx_kind(module, is_async) for module in (httpx, httpx2) for is_async in (False, True)]
_POOL = [(urllib3.HTTPConnectionPool, "_make_request")]
_URLLIB3: dict[str, Any] = {
    "refused": (urllib3.exceptions.NewConnectionError, "NewConnectionError"),
    "timeout": (urllib3.exceptions.ReadTimeoutError, "ReadTimeoutError"),
    "broken": (urllib3.exceptions.ProtocolError, "IncompleteRead"),
    "undecodable": urllib3.exceptions.DecodeError,
    "hooks": _POOL,
    "untouched": lambda response: _file_is_theirs(response.native._original_response),
    "decodes": GZIP_AND_DEFLATE | {"zstd", "deflate, gzip"},
}
KINDS = [
    *HTTPX_KINDS,
    Kind(
        requests,
        False,
        _requests,
        refused=(requests.ConnectionError, "NewConnectionError"),
        timeout=(requests.ReadTimeout, "ReadTimeoutError"),
        broken=(requests.exceptions.ChunkedEncodingError, "IncompleteRead"),
        undecodable=requests.exceptions.ContentDecodingError,
        hooks=_POOL,
        untouched=lambda response: _file_is_theirs(response.native.raw._original_response),
        decodes=GZIP_AND_DEFLATE | {"zstd", "deflate, gzip"},
    ),
    Kind(urllib3, False, functools.partial(_urllib3, Urllib3), **_URLLIB3),
    Kind(
        urllib3, False, functools.partial(_urllib3, Preloaded), **_URLLIB3, reads_ahead=True, name="urllib3-preloaded"
    ),
    Kind(
        urllib.request,
        False,
        _urllib,
        refused=(urllib.error.URLError, "ConnectionRefusedError"),
        timeout=(TimeoutError, "TimeoutError"),
        broken=(http.client.IncompleteRead, "IncompleteRead"),
        undecodable=None,
        hooks=[(http.client.HTTPConnection, "request"), (http.client.HTTPConnection, "getresponse")],
        untouched=lambda response: _file_is_theirs(response.native),
        decodes=frozenset(),
        follows_redirects=False,
        name="urllib",
    ),
    Kind(
        aiohttp,
        True,
        _aiohttp,
        refused=(aiohttp.ClientConnectorError, "ClientConnectorError"),
        timeout=(TimeoutError, "TimeoutError"),
        broken=(aiohttp.ClientPayloadError, "ClientPayloadError"),
        undecodable=aiohttp.ClientPayloadError,
        hooks=[(aiohttp.BaseConnector, "connect"), (aiohttp.ClientResponse, "start")],
        untouched=lambda response: type(response.native.content) is aiohttp.StreamReader,
        decodes=GZIP_AND_DEFLATE | {"zstd"},
        hides_encoding=True,
    ),
]
