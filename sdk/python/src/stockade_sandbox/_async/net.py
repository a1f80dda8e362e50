"""What differs between the two worlds by more than a word. `_sync/net.py` is its twin, written by hand."""

from __future__ import annotations

import asyncio
import re
import socket as sockets
from typing import Any, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Optional, Union, cast

import httpx
from websockets.asyncio.client import ClientConnection as WebSocket
from websockets.asyncio.client import unix_connect
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus

from ..body import Body, Bytes, Whole, all_of, piece, pieces
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
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

__all__ = [
    "AsyncBody",
    "AsyncOutboundHandler",
    "Connection",
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

AsyncBody = Union[Body, AsyncIterable[Bytes]]
AsyncOutboundHandler = Callable[[OutboundRequest], Awaitable[OutboundResponse]]

sleep = asyncio.sleep
Places = asyncio.Semaphore
Stream = httpx.AsyncByteStream


def content(body: AsyncBody) -> Union[bytes, AsyncIterator[bytes]]:
    """A body as httpx takes it."""
    whole = all_of(body)
    if whole is not None:
        return whole
    if isinstance(body, AsyncIterable):
        return _checked(body)
    return _later(pieces(cast(Any, body)))


async def _checked(parts: AsyncIterable[Bytes]) -> AsyncIterator[bytes]:
    async for part in parts:
        yield piece(part)


async def _later(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def web_socket(socket: str, path: str) -> WebSocket:
    return await unix_connect(socket, f"ws://stockade{path}", compression=None, max_size=4 * 1024 * 1024, open_timeout=None)


class _Straight(WebSocket):
    """One that is led nowhere else."""

    async def handshake(self, *args: Any, **options: Any) -> None:
        try:
            await super().handshake(*args, **options)
        except InvalidStatus as error:
            raise Answered(error.response) from None


async def server_socket(socket: str, opening: Opening, message_bytes_max: Optional[int]) -> WebSocket:
    """A WebSocket of a server in a sandbox."""

    def begin(protocol: ClientProtocol, **options: Any) -> WebSocket:
        opening.said_by(protocol)
        return _Straight(protocol, **quiet(options))

    return await unix_connect(
        socket,
        "ws://stockade/",
        compression=None,
        create_connection=begin,
        max_size=message_bytes_max,
        open_timeout=None,
        subprotocols=opening.subprotocols,
    )


async def connect(socket: str, path: str) -> tuple[int, bytes, Optional[Connection]]:
    """Upgrades to the bytes of a port: the status, what came with another one, and the connection."""
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: stockade\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if status == httpx.codes.SWITCHING_PROTOCOLS:
        return status, b"", (reader, writer)
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    body = await reader.readexactly(int(length.group(1))) if length else b""
    writer.close()
    return status, body, None


async def whole(socket: str, path: str, headers: dict[str, str]) -> Optional[bytes]:
    """See `body.Whole`; when this is cancelled its connection ends."""
    reading = Whole(socket, path, headers)
    try:
        return await asyncio.to_thread(reading.read)
    finally:
        reading.close()


class Server:
    """Answers what a sandbox sends to a host, by a handler."""

    def __init__(self, directory: str, sandbox: str, handler: AsyncOutboundHandler) -> None:
        self._place = Place(directory)
        self.name = self._place.name
        self._sandbox = sandbox
        self._handler = handler
        self._held = Held()
        self._places = asyncio.Semaphore(AT_ONCE_MAX)
        self._place.listener.setblocking(False)
        self._tasks: set[asyncio.Task[None]] = set()
        self._begin(self._accept())

    def _begin(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._places.acquire()
            try:
                connection, _ = await loop.sock_accept(self._place.listener)
            except OSError as error:
                self._places.release()
                LOG.warning("a handler of outbound requests cannot take a connection: %s", error)
                await sleep(0.1)
                continue
            self._begin(self._answer(connection))

    async def _answer(self, connection: sockets.socket) -> None:
        exchange = Exchange(self._sandbox, self._held)
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        try:
            with connection:
                try:
                    request = None
                    while request is None:
                        request = exchange.take(await loop.sock_recv(connection, PART_BYTES))
                        if request is None and (more := exchange.more()):
                            await loop.sock_sendall(connection, more)
                except Refused as refused:
                    await loop.sock_sendall(connection, exchange.refusal(refused.status))
                    return
                try:
                    answer = exchange.answer(await self._handler(request))
                except Exception as error:
                    answer = exchange.failure(request, error)
                await loop.sock_sendall(connection, answer)
        except OSError:
            # Who has gone away needs no answer.
            pass
        finally:
            exchange.end()
            self._places.release()

    async def close(self) -> None:
        tasks = [task for task in self._tasks if self._place.ours and task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._place.leave()
