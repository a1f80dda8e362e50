"""Bodies of requests: bytes, text, files, or pieces."""

from __future__ import annotations

from typing import BinaryIO, Iterable, Iterator, Union

_PIECE_BYTES = 256 * 1024

Body = Union[str, bytes, BinaryIO, Iterable[bytes]]


def pieces(body: Union[BinaryIO, Iterable[bytes]]) -> Iterator[bytes]:
    """A file or an iterable, piece by piece."""
    read = getattr(body, "read", None)
    if read is None:
        yield from body
        return
    while part := read(_PIECE_BYTES):
        yield part
