"""Requests that a sandbox sends out and this program answers: what they are, and how they are read. A sandbox is not
trusted: what it sends is bounded, and what goes wrong here is told to this program and not to it."""

from __future__ import annotations

import logging
import os
import secrets
import socket as sockets
from dataclasses import dataclass, field
from threading import Lock
from typing import Mapping, Optional, Sequence, Union

import h11

from .body import plain
from .errors import InvalidRequestError

LOG = logging.getLogger("stockade_sandbox")

#: Of one request, and of all that are here for one handler.
BODY_BYTES_MAX = 64 * 1024 * 1024
HELD_BYTES_MAX = 4 * BODY_BYTES_MAX
#: How many a handler answers at once; others wait.
AT_ONCE_MAX = 64
PART_BYTES = 64 * 1024
#: Of a body that is refused: who still sends it would not hear why.
_PASSED_OVER_BYTES_MAX = 4 * BODY_BYTES_MAX
_HEAD_BYTES_MAX = 128 * 1024
#: About one connection, or said here (RFC 9110 §7.6.1).
_HOPS = (
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
_BODILESS = (204, 205, 304)


@dataclass
class OutboundRequest:
    """What a sandbox has asked a host for."""

    method: str
    #: As the sandbox wrote it.
    url: str
    #: Names are in lower case; what came several times is joined by commas.
    headers: dict[str, str]
    body: bytes
    sandbox_id: str


@dataclass
class OutboundResponse:
    """What it is answered. Headers that come several times, as `set-cookie` does, are given as pairs."""

    status: int = 200
    headers: Union[Mapping[str, str], Sequence[tuple[str, str]]] = field(default_factory=dict)
    body: Union[str, bytes] = b""


class Refused(Exception):
    """The request is none for the handler."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Held:
    """How much of bodies is in memory."""

    def __init__(self) -> None:
        self._bytes = 0
        self._lock = Lock()

    def add(self, count: int) -> bool:
        with self._lock:
            if self._bytes + count > HELD_BYTES_MAX:
                return False
            self._bytes += count
            return True

    def remove(self, count: int) -> None:
        with self._lock:
            self._bytes -= count


class Exchange:
    """One request and its answer, on a connection of its own."""

    def __init__(self, sandbox: str, held: Held) -> None:
        self._sandbox = sandbox
        self._held = held
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES_MAX)
        self._asked: Optional[h11.Request] = None
        self._body = bytearray()
        self._refused: Optional[Refused] = None
        self._passed_over = 0

    def take(self, data: bytes) -> Optional[OutboundRequest]:
        """What has come; nothing is its end. The request, when it is whole."""
        try:
            self._connection.receive_data(data)
            while True:
                event = self._connection.next_event()
                if isinstance(event, h11.Request):
                    self._asked = event
                    length = dict(event.headers).get(b"content-length", b"0")
                    if int(length) > BODY_BYTES_MAX:
                        self._refused = Refused(413, "the body is too long")
                        if self._connection.they_are_waiting_for_100_continue:
                            raise self._refused
                elif isinstance(event, h11.Data):
                    self._add(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    if self._refused is not None:
                        raise self._refused
                    return self._request()
                elif event is h11.NEED_DATA:
                    return None
                else:
                    raise Refused(400, "there is no request")
        except h11.RemoteProtocolError as error:
            raise Refused(error.error_status_hint, str(error)) from error

    def _add(self, data: bytes) -> None:
        if self._refused is None and len(self._body) + len(data) > BODY_BYTES_MAX:
            self._refused = Refused(413, "the body is too long")
        if self._refused is None and not self._held.add(len(data)):
            self._refused = Refused(503, "there is too much at once")
        if self._refused is None:
            self._body += data
            return
        self._passed_over += len(data)
        if self._passed_over > _PASSED_OVER_BYTES_MAX:
            raise self._refused

    def more(self) -> bytes:
        """What the sender waits for before it goes on."""
        if not self._connection.they_are_waiting_for_100_continue:
            return b""
        return self._connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b""

    def _request(self) -> OutboundRequest:
        assert self._asked is not None
        headers: dict[str, str] = {}
        for raw, given in self._asked.headers:
            name, value = raw.decode("latin-1"), given.decode("latin-1")
            between = "; " if name == "cookie" else ", "
            headers[name] = f"{headers[name]}{between}{value}" if name in headers else value
        path = self._asked.target.decode("latin-1")
        url = headers.pop("x-stockade-original-url", f"http://{headers.get('host', '')}{path}")
        sandbox = headers.pop("x-stockade-sandbox", self._sandbox)
        return OutboundRequest(self._asked.method.decode("latin-1"), url, headers, bytes(self._body), sandbox)

    def answer(self, response: OutboundResponse) -> bytes:
        """An answer, or why it cannot be one."""
        if not isinstance(response, OutboundResponse):
            raise TypeError(f"a handler gives an OutboundResponse, and not {type(response).__name__}")
        if not 200 <= response.status <= 599:
            raise ValueError(f"{response.status} is the status of no answer")
        body = plain(response.body, "body")
        given = response.headers
        pairs = list(given.items()) if isinstance(given, Mapping) else list(given)
        headers = [(name, value) for name, value in pairs if name.lower() not in _HOPS]
        bodiless = response.status in _BODILESS
        if not bodiless:
            headers.append(("content-length", str(len(body))))
        elif response.status == 205:
            headers.append(("content-length", "0"))
        headers.append(("connection", "close"))
        sent = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
        head = self._connection.send(h11.Response(status_code=response.status, headers=sent))
        silent = bodiless or self._asked is not None and self._asked.method == b"HEAD"
        return (head or b"") + (b"" if silent else body)

    def refusal(self, status: int) -> bytes:
        said = {400: "Bad Request", 413: "Content Too Large", 500: "Internal Server Error", 503: "Service Unavailable"}
        body = said.get(status, "Bad Request")
        # By hand: it also answers what was not understood.
        head = f"HTTP/1.1 {status} {body}\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        silent = self._asked is not None and self._asked.method == b"HEAD"
        return (head + ("" if silent else body)).encode()

    def failure(self, request: OutboundRequest, error: Exception) -> bytes:
        """For whoever runs this program, and not for whoever asked: that is a sandbox."""
        LOG.error("a handler of outbound requests failed: %s %r", request.method, request.url, exc_info=error)
        return self.refusal(500)

    def end(self) -> None:
        self._held.remove(len(self._body))


class Place:
    """A socket in the daemon's directory of handlers."""

    def __init__(self, directory: str) -> None:
        self.name = f"sdk-{secrets.token_hex(8)}.sock"
        self._path = os.path.join(directory, self.name)
        self._process = os.getpid()
        self.listener = sockets.socket(sockets.AF_UNIX)
        try:
            self.listener.bind(self._path)
            # The daemon is root. Nobody can connect before it listens.
            os.chmod(self._path, 0o600)
            self.listener.listen(AT_ONCE_MAX * 2)
        except OSError as error:
            self.leave()
            raise InvalidRequestError(
                "INVALID_REQUEST",
                f"a handler cannot listen in {directory}: {error}",
                hint="give the client `handlers_directory`: `handlers` in the daemon's runtime directory",
                context={"field": "handlers_directory", "path": directory, "errno": error.errno},
            ) from error

    @property
    def ours(self) -> bool:
        """After fork(2) it is the parent's."""
        return self._process == os.getpid()

    def leave(self) -> None:
        self.listener.close()
        if self.ours:
            try:
                os.unlink(self._path)
            except OSError:
                pass
