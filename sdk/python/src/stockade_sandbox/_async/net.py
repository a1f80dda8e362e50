"""What differs between the two worlds by more than a word. `_sync/net.py` is its twin, written by hand."""

from __future__ import annotations

import asyncio
import re
from typing import AsyncIterator, Iterator, Optional, Union

import httpx
from websockets.asyncio.client import ClientConnection as WebSocket
from websockets.asyncio.client import unix_connect

from ..body import Body, pieces

#: What a connection to a port is.
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

__all__ = ["AsyncBody", "Connection", "WebSocket", "connect", "content", "sleep", "web_socket"]

AsyncBody = Union[Body, AsyncIterator[bytes]]

sleep = asyncio.sleep


def content(body: AsyncBody) -> Union[bytes, AsyncIterator[bytes]]:
    """A body as httpx takes it."""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes):
        return body
    if isinstance(body, AsyncIterator):
        return body
    return _later(pieces(body))


async def _later(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def web_socket(socket: str, path: str) -> WebSocket:
    return await unix_connect(socket, f"ws://stockade{path}", compression=None, max_size=4 * 1024 * 1024, open_timeout=None)


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
