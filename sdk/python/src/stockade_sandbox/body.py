"""Bodies: those of requests are bytes, text, files, or pieces; large ones of answers are read without copies."""

from __future__ import annotations

import http.client
import io
import socket as sockets
from typing import Any, BinaryIO, Iterable, Iterator, Optional, TypeVar, Union

#: Answers that are longer are worth a connection of their own.
LARGE_BYTES = 4 * 1024 * 1024

_PIECE_BYTES = 256 * 1024

Bytes = Union[bytes, bytearray, memoryview]
Body = Union[str, Bytes, BinaryIO, Iterable[Bytes]]
Given = TypeVar("Given")


def plain(data: Any, name: str) -> bytes:
    """Text or anything like bytes, as they are now."""
    if isinstance(data, str):
        return data.encode()
    try:
        return bytes(memoryview(data))
    except TypeError:
        raise TypeError(f"{name} is to be str, bytes or something like bytes, not {type(data).__name__}") from None


def given(body: Given) -> Given:
    """A body that is one, so that nothing is sent that would empty a file for want of one."""
    if isinstance(body, io.TextIOBase):
        raise TypeError("the content is to be bytes: open the file with 'rb', or give what it reads")
    if _whole(body) or any(hasattr(body, name) for name in ("read", "__iter__", "__aiter__")):
        return body
    wanted = "str, bytes or something like bytes, a file open for bytes, or an iterable of bytes"
    raise TypeError(f"the content is to be {wanted}, not {type(body).__name__}")


def _whole(body: Any) -> bool:
    try:
        return isinstance(body, str) or memoryview(body) is not None
    except TypeError:
        return False


def all_of(body: Any) -> Optional[bytes]:
    """A body that is all there, or None for one that comes in pieces."""
    return plain(body, "the content") if _whole(body) else None


def piece(part: Any) -> bytes:
    """A piece of a body. Text is none: a file is to be open for bytes, or its encoding would be a guess."""
    if isinstance(part, str):
        raise TypeError("a piece of the content is to be bytes, not str: open a file with 'rb'")
    return part if isinstance(part, bytes) else plain(part, "a piece of the content")


def pieces(body: Union[BinaryIO, Iterable[Bytes]]) -> Iterator[bytes]:
    """A file or an iterable, piece by piece."""
    read = getattr(body, "read", None)
    if read is None:
        for part in body:
            yield piece(part)
        return
    while part := read(_PIECE_BYTES):
        yield piece(part)


def range_headers(start: int, end: Optional[int]) -> dict[str, str]:
    """What asks for the bytes from `start` to before `end`; for none of them, the one at `start`."""
    for name, at in (("start", start), ("end", end)):
        if at is not None and (not isinstance(at, int) or isinstance(at, bool)):
            raise TypeError(f"{name} is to be an int, not {type(at).__name__}")
        if at is not None and at < 0:
            raise ValueError(f"{name} is to be counted from the beginning of the file, and not {at}")
    if end is None:
        return {} if start == 0 else {"range": f"bytes={start}-"}
    if end < start:
        raise ValueError(f"the range ends at {end}, before it starts at {start}")
    return {"range": f"bytes={start}-{max(start, end - 1)}"}


class Whole:
    """A large answer to a GET, over a connection of its own, into memory that is had once.

    The pool's way makes several copies of each 64 KiB, which takes twice as long.
    """

    def __init__(self, socket: str, path: str, headers: dict[str, str]) -> None:
        self._socket = socket
        self._path = path
        self._headers = {"connection": "close", **headers}
        self._connection = http.client.HTTPConnection("stockade")

    def read(self) -> Optional[bytes]:
        """None when it did not come whole, whyever: the ordinary way, which can be gone after that, says what is wrong."""
        try:
            self._connection.sock = sockets.socket(sockets.AF_UNIX)
            self._connection.sock.connect(self._socket)
            self._connection.request("GET", self._path, headers=self._headers)
            response = self._connection.getresponse()
            if response.status not in (200, 206) or response.length is None:
                return None
            return _filled(response, response.length)
        except (OSError, http.client.HTTPException):
            return None

    def close(self) -> None:
        """Ends it, from another thread too."""
        connection = self._connection.sock
        if connection is not None:
            try:
                connection.shutdown(sockets.SHUT_RDWR)
            except OSError:
                pass
        self._connection.close()


def _filled(response: http.client.HTTPResponse, length: int) -> Optional[bytes]:
    # The bytes of a BytesIO can be written into, and are given away without a copy.
    target = io.BytesIO()
    target.seek(length - 1)
    target.write(b"\0")
    with target.getbuffer() as view:
        at = 0
        while at < length:
            count = response.readinto(view[at:])
            if not count:
                return None
            at += count
    return target.getvalue()
