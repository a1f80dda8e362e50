"""HTTP/1.1 over the daemon's Unix socket.

Retries, and why they are safe: a socket that cannot be connected to has taken nothing; `SHUTTING_DOWN` and
`SANDBOX_BUSY` are refusals before anything was done; and what only reads may be asked twice when the connection broke.
Nothing else is sent twice: of a command whose connection broke nobody knows whether it ran.

Why the transport of httpx and not its client: cookies, redirects and authentication are not for this daemon, and cost
as much as the request.
"""

from __future__ import annotations

import json as codec
import os
import re
import ssl
import time
from functools import partial
from threading import Lock
from typing import Any, AsyncIterator, Callable, Optional
from urllib.parse import quote

import httpx

from .. import api
from ..errors import ConnectionLostError, InvalidRequestError, StockadeError, from_body
from ..events import Event, Events
from ..results import waited
from .net import AsyncBody, Places, Server, Stream, content, sleep

SOCKET_VARIABLE = "STOCKADE_SOCKET"
SOCKET_DEFAULT = "/run/stockade/stockade.sock"

#: The daemon takes 512 connections of one user, and closes those that are idle for longer than a request may take.
_CONNECTIONS_MAX = 400
#: A pool looks at all of its connections for each of its requests, for each that waits: many small ones of which none
#: has to wait are ten times as fast as a large one.
_POOLS = 20
_LIMITS = httpx.Limits(max_connections=_CONNECTIONS_MAX // _POOLS, max_keepalive_connections=5, keepalive_expiry=10)
_PATIENCE = {"timeout": {"connect": 10.0, "read": None, "write": None, "pool": None}}
_ATTEMPT_INTERVAL_S = 0.05
#: Refusals before anything was done.
_PASSING = ("SHUTTING_DOWN", "SANDBOX_BUSY")
_JSON = {"content-type": "application/json"}
#: What a URL's path does not have as the name of anything: they are steps of it, and whoever resolves them is elsewhere.
_NO_NAMES = ("", ".", "..")
_BASE = httpx.URL("http://stockade")
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: What ends a request's line, or is no part of it: a control character, and what browsers keep to themselves.
_UNSENT = re.compile(r"[\x00-\x1f\x7f#]")
#: What a request's line takes as it is; the rest is text, which travels quoted.
_SENT = "/?%!$&'()*+,;=:@[]\\^|{}\"~"


def target(template: str, path: dict[str, Any], query: dict[str, Any]) -> str:
    """Path and query of a request. Values that are None are left out; lists are repeated."""
    text = template
    for name, value in path.items():
        if value is None or str(value) in _NO_NAMES:
            raise _no_name(name, value)
        text = text.replace("{" + name + "}", quote(str(value), safe=""))
    pairs: list[str] = []
    for name, value in query.items():
        several: list[Any] = value if hasattr(value, "append") else [value]
        for one in several:
            if one is None or one is False:
                continue
            raw = "true" if one is True else os.fsencode(str(one))
            pairs.append(f"{name}={quote(raw, safe='')}")
    return f"{text}?{'&'.join(pairs)}" if pairs else text


def _no_name(field: str, value: Any) -> InvalidRequestError:
    code = "INVALID_REFERENCE" if field == "reference" else "INVALID_ID"
    return InvalidRequestError(
        code,
        f"{value!r} is the name of nothing",
        hint="choose a name other than '', '.' and '..'",
        context={"field": field},
    )


def _refused(field: str, message: str, hint: Optional[str] = None) -> InvalidRequestError:
    return InvalidRequestError("INVALID_REQUEST", message, hint=hint, context={"field": field})


def path_behind(path: str) -> str:
    """The path and query of a request to a server in a sandbox, as they are sent: nothing in them is resolved."""
    if path and path[0] not in "/?":
        raise _refused("path", f"the path {path!r} does not begin with '/'", "it is one of the server's, and no URL")
    if _UNSENT.search(path):
        raise _refused("path", f"the path {path!r} has what no request can have", "write control characters and '#' as %XX")
    return quote(path, safe=_SENT)


class _Target(httpx.URL):
    """A path of the daemon, sent as it is written. A URL of httpx resolves `..`, which leads elsewhere."""

    def __init__(self, path: str) -> None:
        super().__init__(_BASE)
        self._path = path.encode("ascii")

    @property
    def raw_path(self) -> bytes:
        return self._path


def _request(method: str, path: str, headers: dict[str, str], data: Any) -> httpx.Request:
    request = httpx.Request(method, _BASE, headers=headers, content=data, extensions=_PATIENCE)
    request.url = _Target(path)
    return request


class _Held(Stream):
    """An answer that holds its place among the connections until it is closed."""

    def __init__(self, stream: Any, release: Callable[[], None]) -> None:
        self._stream = stream
        self._release: Optional[Callable[[], None]] = release

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        release, self._release = self._release, None
        try:
            await self._stream.aclose()
        finally:
            if release is not None:
                release()


class _Pools:
    """Connections, in pools of which each has as few requests as another."""

    def __init__(self, socket: str) -> None:
        # Said, because each pool would read the host's certificates otherwise, for which a Unix socket has no use.
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._pools = [httpx.AsyncHTTPTransport(uds=socket, limits=_LIMITS, verify=tls) for _ in range(_POOLS)]
        self._busy = [0] * _POOLS
        self._places = Places(_CONNECTIONS_MAX)
        self._lock = Lock()

    async def ask(self, request: httpx.Request) -> httpx.Response:
        await self._places.acquire()
        with self._lock:
            # The first that will do: its connections are there already.
            chosen = self._busy.index(min(self._busy))
            self._busy[chosen] += 1
        try:
            response = await self._pools[chosen].handle_async_request(request)
        except BaseException:
            self._release(chosen)
            raise
        response.stream = _Held(response.stream, partial(self._release, chosen))
        return response

    def _release(self, chosen: int) -> None:
        with self._lock:
            self._busy[chosen] -= 1
        self._places.release()

    async def aclose(self) -> None:
        for pool in self._pools:
            await pool.aclose()


class AsyncTransport:
    """Connections to one daemon."""

    def __init__(
        self, socket: Optional[str] = None, absence_timeout: float = 10.0, handlers_directory: Optional[str] = None
    ) -> None:
        self.socket = socket or os.environ.get(SOCKET_VARIABLE) or SOCKET_DEFAULT
        #: Where the daemon looks for sockets of handlers.
        self.handlers = handlers_directory or os.path.join(os.path.dirname(self.socket), "handlers")
        #: Those of this client, by the sandbox and the host.
        self.servers: dict[tuple[str, str], Server] = {}
        waited(absence_timeout, "absence_timeout")
        self._absence = absence_timeout
        self._pool = _Pools(self.socket)
        self._process = os.getpid()

    def _connections(self) -> _Pools:
        """Those of this process: after fork(2) the parent's are the parent's."""
        if self._process != os.getpid():
            # Held, because closing what is the parent's is not for us.
            self._inherited = self._pool
            self._pool = _Pools(self.socket)
            self._process = os.getpid()
        return self._pool

    async def end(self, sandbox: Optional[str] = None, host: Optional[str] = None) -> None:
        """Ends handlers: of a sandbox, or all of them."""
        for key in list(self.servers):
            if sandbox in (None, key[0]) and host in (None, key[1]):
                server = self.servers.pop(key, None)
                if server is not None:
                    await server.close()

    async def close(self) -> None:
        await self.end()
        await self._pool.aclose()

    async def call(
        self,
        operation: api.Operation,
        path: dict[str, Any],
        *,
        query: Optional[dict[str, Any]] = None,
        json: Any = None,
        body: Optional[AsyncBody] = None,
        content_type: str = "application/octet-stream",
        headers: Optional[dict[str, str]] = None,
    ) -> Any:
        """Performs an operation and gives its answer as JSON, or None."""
        attempt = 0
        while True:
            response = None
            try:
                response = await self.open(
                    operation,
                    path,
                    query=query,
                    json=json,
                    body=body,
                    content_type=content_type,
                    headers=headers,
                )
                data = await response.aread()
                return codec.loads(data) if data else None
            except httpx.TransportError as error:
                attempt += 1
                if attempt > 1 or api.OPERATIONS[operation][0] != "GET":
                    raise _lost(error) from error
            except ConnectionLostError:
                attempt += 1
                if attempt > 1 or api.OPERATIONS[operation][0] != "GET":
                    raise
            finally:
                if response is not None:
                    await response.aclose()

    async def open(
        self,
        operation: api.Operation,
        path: dict[str, Any],
        *,
        query: Optional[dict[str, Any]] = None,
        json: Any = None,
        body: Optional[AsyncBody] = None,
        content_type: str = "application/octet-stream",
        headers: Optional[dict[str, str]] = None,
        accept: Optional[str] = None,
    ) -> httpx.Response:
        """Performs an operation and gives its answer as it begins; whoever takes it closes it."""
        method, template = api.OPERATIONS[operation]
        if query and not api.QUERIES[operation].issuperset(query):
            raise TypeError(f"{operation} has no parameters {sorted(set(query) - api.QUERIES[operation])}")
        sent: dict[str, str] = dict(headers or {})
        data: Any = None
        if json is not None:
            sent |= _JSON
            data = codec.dumps(json).encode()
        elif body is not None:
            sent["content-type"] = content_type
            data = content(body)
        if accept:
            sent["accept"] = accept
        return await self.send(method, target(template, path, query or {}), sent, data)

    async def send(self, method: str, path: str, headers: dict[str, str], data: Any = None) -> httpx.Response:
        """Sends a request, again while the daemon is away or refuses for the moment. Refusals are raised."""
        start = time.monotonic()
        again = data is None or isinstance(data, bytes)
        while True:
            error: StockadeError
            request = _request(method, path, headers, data)
            try:
                response = await self._connections().ask(request)
                if response.status_code < 400:
                    return response
                error = await refusal(response)
                if error.code not in _PASSING:
                    raise error
            except httpx.ConnectError as broken:
                error = _lost(broken)
                error.__cause__ = broken
            except httpx.TransportError as broken:
                raise _lost(broken) from broken
            if not again or time.monotonic() - start > self._absence:
                raise error
            await sleep(_ATTEMPT_INTERVAL_S)

    async def exchange(
        self, method: str, path: str, headers: dict[str, str], data: Optional[bytes]
    ) -> tuple[int, dict[str, str], bytes]:
        """A request to somebody behind the daemon: whatever they answer is an answer, and failures of the daemon are raised."""
        if not _METHOD.fullmatch(method):
            raise _refused("method", f"{method!r} is no method")
        request = _request(method, path, headers, data)
        try:
            response = await self._connections().ask(request)
            body = b"".join([part async for part in bytes_of(response)])
        except httpx.LocalProtocolError as error:
            raise _refused("headers", f"this cannot be sent: {error}") from error
        except httpx.TransportError as error:
            raise _lost(error) from error
        # The header is the daemon's alone.
        if "x-stockade-error" in response.headers:
            raise from_body(codec.loads(body), response.status_code)
        return response.status_code, dict(response.headers), body


async def refusal(response: httpx.Response) -> StockadeError:
    """The error that an answer is."""
    try:
        data = await response.aread()
    finally:
        await response.aclose()
    try:
        return from_body(codec.loads(data), response.status_code)
    except (ValueError, AttributeError):
        text = data[:200].decode(errors="replace")
        return StockadeError("INTERNAL", f"status {response.status_code}: {text}", status=response.status_code)


def _lost(error: Exception) -> ConnectionLostError:
    hint = "is the daemon running, and is this its socket?"
    return ConnectionLostError("CONNECTION", f"the connection to the daemon broke: {error}", hint=hint)


async def bytes_of(response: httpx.Response) -> AsyncIterator[bytes]:
    """The bytes of an answer as they come, as they were sent. Leaving early closes the connection."""
    try:
        async for part in response.stream:  # type: ignore[union-attr]
            yield part
    except httpx.TransportError as error:
        raise _lost(error) from error
    finally:
        await response.aclose()


async def events_of(response: httpx.Response) -> AsyncIterator[Event]:
    """The events of an answer; its `error` is raised."""
    events = Events()
    parts = bytes_of(response)
    try:
        async for part in parts:
            for event in events.add(part):
                if event.name == "error":
                    raise from_body(event.data, 500)
                yield event
    finally:
        await parts.aclose()  # type: ignore[attr-defined]
