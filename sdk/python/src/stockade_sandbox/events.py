"""Server-sent events (WHATWG HTML §9.2), without any input or output."""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from typing import Any, Iterator, Optional


@dataclass(frozen=True)
class Event:
    """An event of the daemon."""

    name: str
    #: Where to go on after it.
    id: Optional[str]
    data: Any


class Events:
    """Takes bytes in whatever pieces they come, and gives events."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._name, self._id, self._data = "message", None, list[str]()

    def add(self, data: bytes) -> Iterator[Event]:
        # The daemon ends its lines with a line feed.
        *lines, self._rest = (self._rest + self._decoder.decode(data)).split("\n")
        for line in lines:
            event = self._line(line.rstrip("\r"))
            if event is not None:
                yield event

    def _line(self, line: str) -> Optional[Event]:
        if line == "":
            name, identifier, data = self._name, self._id, self._data
            self._name, self._id, self._data = "message", None, []
            return Event(name, identifier, json.loads("\n".join(data))) if data else None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif name == "id":
            self._id = value  # type: ignore[assignment]
        return None
