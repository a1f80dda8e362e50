# Written by generate_sync.py from src/stockade_sandbox/_async/transport.py. Change that and run it again.
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
import time
from typing import Any, Iterator, Optional
from urllib.parse import quote

import httpx

from .. import api
from ..errors import ConnectionLostError, StockadeError, from_body
from ..events import Event, Events
from .net import SyncBody, content, sleep

SOCKET_VARIABLE = "STOCKADE_SOCKET"
SOCKET_DEFAULT = "/run/stockade/stockade.sock"

#: The daemon takes 512 connections of one user, and closes those that are idle for longer than a request may take.
_LIMITS = httpx.Limits(max_connections=400, max_keepalive_connections=100, keepalive_expiry=10)
_PATIENCE = {"timeout": {"connect": 10.0, "read": None, "write": None, "pool": None}}
_ATTEMPT_INTERVAL_S = 0.05
#: Refusals before anything was done.
_PASSING = ("SHUTTING_DOWN", "SANDBOX_BUSY")
_JSON = {"content-type": "application/json"}


def target(template: str, path: dict[str, Any], query: dict[str, Any]) -> str:
    """Path and query of a request. Values that are None are left out; lists are repeated."""
    text = template
    for name, value in path.items():
        text = text.replace("{" + name + "}", quote(str(value), safe=""))
    pairs: list[str] = []
    for name, value in query.items():
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if one is None or one is False:
                continue
            raw = "true" if one is True else os.fsencode(str(one))
            pairs.append(f"{name}={quote(raw, safe='')}")
    return f"{text}?{'&'.join(pairs)}" if pairs else text


class Transport:
    """Connections to one daemon."""

    def __init__(self, socket: Optional[str] = None, absence_timeout: float = 10.0) -> None:
        self.socket = socket or os.environ.get(SOCKET_VARIABLE) or SOCKET_DEFAULT
        self._absence = absence_timeout
        self._pool = httpx.HTTPTransport(uds=self.socket, limits=_LIMITS)

    def close(self) -> None:
        self._pool.close()

    def call(
        self,
        operation: api.Operation,
        path: dict[str, Any],
        *,
        query: Optional[dict[str, Any]] = None,
        json: Any = None,
        body: Optional[SyncBody] = None,
        content_type: str = "application/octet-stream",
    ) -> Any:
        """Performs an operation and gives its answer as JSON, or None."""
        attempt = 0
        while True:
            response = None
            try:
                response = self.open(
                    operation, path, query=query, json=json, body=body, content_type=content_type
                )
                data = response.read()
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
                    response.close()

    def open(
        self,
        operation: api.Operation,
        path: dict[str, Any],
        *,
        query: Optional[dict[str, Any]] = None,
        json: Any = None,
        body: Optional[SyncBody] = None,
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
        return self.send(method, target(template, path, query or {}), sent, data)

    def send(self, method: str, path: str, headers: dict[str, str], data: Any = None) -> httpx.Response:
        """Sends a request, again while the daemon is away or refuses for the moment. Refusals are raised."""
        start = time.monotonic()
        again = data is None or isinstance(data, bytes)
        while True:
            error: StockadeError
            request = httpx.Request(method, f"http://stockade{path}", headers=headers, content=data, extensions=_PATIENCE)
            try:
                response = self._pool.handle_request(request)
                if response.status_code < 400:
                    return response
                error = refusal(response)
                if error.code not in _PASSING:
                    raise error
            except httpx.ConnectError as broken:
                error = _lost(broken)
                error.__cause__ = broken
            except httpx.TransportError as broken:
                raise _lost(broken) from broken
            if not again or time.monotonic() - start > self._absence:
                raise error
            sleep(_ATTEMPT_INTERVAL_S)

    def exchange(
        self, method: str, path: str, headers: dict[str, str], data: Optional[bytes]
    ) -> tuple[int, dict[str, str], bytes]:
        """A request to somebody behind the daemon: whatever they answer is an answer, and failures of the daemon are raised."""
        request = httpx.Request(method, f"http://stockade{path}", headers=headers, content=data, extensions=_PATIENCE)
        try:
            response = self._pool.handle_request(request)
            body = b"".join([part for part in bytes_of(response)])
        except httpx.TransportError as error:
            raise _lost(error) from error
        failure = _own(response, body)
        if failure is not None:
            raise failure
        return response.status_code, dict(response.headers), body


def _own(response: httpx.Response, body: bytes) -> Optional[StockadeError]:
    """The daemon's own failure, if this is one: its body names the request as the header does."""
    if response.status_code < 400 or not response.headers.get("content-type", "").startswith("application/json"):
        return None
    try:
        told = codec.loads(body)
    except ValueError:
        return None
    if not isinstance(told, dict) or told.get("request_id") != response.headers.get("x-request-id"):
        return None
    return from_body(told, response.status_code)


def refusal(response: httpx.Response) -> StockadeError:
    """The error that an answer is."""
    try:
        data = response.read()
    finally:
        response.close()
    try:
        return from_body(codec.loads(data), response.status_code)
    except (ValueError, AttributeError):
        text = data[:200].decode(errors="replace")
        return StockadeError("INTERNAL", f"status {response.status_code}: {text}", status=response.status_code)


def _lost(error: Exception) -> ConnectionLostError:
    hint = "is the daemon running, and is this its socket?"
    return ConnectionLostError("CONNECTION", f"the connection to the daemon broke: {error}", hint=hint)


def bytes_of(response: httpx.Response) -> Iterator[bytes]:
    """The bytes of an answer as they come, as they were sent. Leaving early closes the connection."""
    try:
        for part in response.stream:  # type: ignore[union-attr]
            yield part
    except httpx.TransportError as error:
        raise _lost(error) from error
    finally:
        response.close()


def events_of(response: httpx.Response) -> Iterator[Event]:
    """The events of an answer; its `error` is raised."""
    events = Events()
    parts = bytes_of(response)
    try:
        for part in parts:
            for event in events.add(part):
                if event.name == "error":
                    raise from_body(event.data, 500)
                yield event
    finally:
        parts.close()  # type: ignore[attr-defined]
