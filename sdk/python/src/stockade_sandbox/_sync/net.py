"""What differs between the two worlds by more than a word. `_async/net.py` is its twin."""

from __future__ import annotations

import re
import socket as sockets
import threading
from time import sleep
from typing import Any, Callable, Iterator, Optional, Union, cast

import httpx
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection as WebSocket
from websockets.sync.client import unix_connect

from ..body import Body, Whole, all_of, pieces
from ..outbound import (
    AT_ONCE_MAX,
    LOG,
    PART_BYTES,
    Exchange,
    Held,
    OutboundRequest,
    OutboundResponse,
    Place,
    Refused,
)
from ..sockets import Answered, Opening, quiet

#: What a connection to a port is.
Connection = sockets.socket

__all__ = [
    "SyncBody",
    "Connection",
    "OutboundHandler",
    "Places",
    "Server",
    "Stream",
    "WebSocket",
    "connect",
    "content",
    "server_socket",
    "sleep",
    "web_socket",
    "whole",
]

SyncBody = Body
OutboundHandler = Callable[[OutboundRequest], OutboundResponse]
Places = threading.Semaphore
Stream = httpx.SyncByteStream


def content(body: SyncBody) -> Union[bytes, Iterator[bytes]]:
    """A body as httpx takes it."""
    whole = all_of(body)
    return pieces(cast(Any, body)) if whole is None else whole


def web_socket(socket: str, path: str) -> WebSocket:
    # Entered, as newer versions want it; whoever has it closes it.
    opening = unix_connect(socket, f"ws://stockade{path}", compression=None, max_size=4 * 1024 * 1024, open_timeout=None)
    return opening.__enter__()


class _Straight(WebSocket):
    """One that is led nowhere else."""

    def handshake(self, *args: Any, **options: Any) -> None:
        try:
            super().handshake(*args, **options)
        except InvalidStatus as error:
            raise Answered(error.response) from None


def server_socket(socket: str, opening: Opening, message_bytes_max: Optional[int]) -> WebSocket:
    """A WebSocket of a server in a sandbox."""

    def begin(connection: sockets.socket, protocol: ClientProtocol, **options: Any) -> WebSocket:
        opening.said_by(protocol)
        return _Straight(connection, protocol, **quiet(options))

    # Entered as above.
    connecting = unix_connect(
        socket,
        "ws://stockade/",
        compression=None,
        create_connection=begin,
        max_size=message_bytes_max,
        open_timeout=None,
        subprotocols=opening.subprotocols,
    )
    return connecting.__enter__()


def connect(socket: str, path: str) -> tuple[int, bytes, Optional[Connection]]:
    """Upgrades to the bytes of a port: the status, what came with another one, and the connection."""
    connection = sockets.socket(sockets.AF_UNIX)
    connection.connect(socket)
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: stockade\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n".encode())
    head = b""
    # Byte by byte: what comes after the head is the port's.
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError("the daemon closed the connection")
        head += byte
    status = int(head.split(b" ", 2)[1])
    if status == httpx.codes.SWITCHING_PROTOCOLS:
        return status, b"", connection
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    with connection, connection.makefile("rb") as file:
        return status, file.read(int(length.group(1))) if length else b"", None


def whole(socket: str, path: str, headers: dict[str, str]) -> Optional[bytes]:
    """See `body.Whole`."""
    reading = Whole(socket, path, headers)
    try:
        return reading.read()
    finally:
        reading.close()


class Server:
    """Answers what a sandbox sends to a host, by a handler: each request in a thread."""

    def __init__(self, directory: str, sandbox: str, handler: OutboundHandler) -> None:
        self._place = Place(directory)
        self.name = self._place.name
        self._sandbox = sandbox
        self._handler = handler
        self._held = Held()
        self._places = threading.Semaphore(AT_ONCE_MAX)
        self._lock = threading.Lock()
        self._connections: set[sockets.socket] = set()
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            self._places.acquire()
            try:
                connection, _ = self._place.listener.accept()
            except OSError as error:
                self._places.release()
                if self._closed:
                    return
                LOG.warning("a handler of outbound requests cannot take a connection: %s", error)
                sleep(0.1)
                continue
            with self._lock:
                if self._closed:
                    connection.close()
                    return
                self._connections.add(connection)
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: sockets.socket) -> None:
        exchange = Exchange(self._sandbox, self._held)
        try:
            try:
                request = None
                while request is None:
                    request = exchange.take(connection.recv(PART_BYTES))
                    if request is None and (more := exchange.more()):
                        connection.sendall(more)
            except Refused as refused:
                connection.sendall(exchange.refusal(refused.status))
                return
            try:
                answer = exchange.answer(self._handler(request))
            except Exception as error:
                answer = exchange.failure(request, error)
            connection.sendall(answer)
        except OSError:
            # Who has gone away needs no answer.
            pass
        finally:
            with self._lock:
                self._connections.discard(connection)
                connection.close()
            exchange.end()
            self._places.release()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            # A thread that waits is woken by that alone.
            for waiting in (self._place.listener, *self._connections) if self._place.ours else ():
                try:
                    waiting.shutdown(sockets.SHUT_RDWR)
                except OSError:
                    pass
        self._place.leave()
