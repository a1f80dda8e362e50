"""What differs between the two worlds by more than a word. `_async/net.py` is its twin."""

from __future__ import annotations

import re
import socket as sockets
from time import sleep
from typing import Iterator, Optional, Union

import httpx
from websockets.sync.client import ClientConnection as WebSocket
from websockets.sync.client import unix_connect

from ..body import Body, pieces

#: What a connection to a port is.
Connection = sockets.socket

__all__ = ["SyncBody", "Connection", "WebSocket", "connect", "content", "sleep", "web_socket"]

SyncBody = Body


def content(body: SyncBody) -> Union[bytes, Iterator[bytes]]:
    """A body as httpx takes it."""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes):
        return body
    return pieces(body)


def web_socket(socket: str, path: str) -> WebSocket:
    return unix_connect(socket, f"ws://stockade{path}", compression=None, max_size=4 * 1024 * 1024, open_timeout=None)


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
