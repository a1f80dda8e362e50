"""What is said to begin a WebSocket with a server in a sandbox."""

from __future__ import annotations

import re
from typing import Any, Mapping, Optional, Sequence

from websockets.client import ClientProtocol
from websockets.http11 import Request, Response

from .errors import InvalidRequestError

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: What ends a header, or is no part of one.
_UNSENT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
#: Those of the upgrade itself.
_OURS = ("connection", "upgrade", "content-length", "transfer-encoding")


class Answered(Exception):
    """No WebSocket, but an answer. Not the exception of `websockets`, which follows where a redirect of that one leads:
    to anything of the daemon, whose socket it is, because a server in a sandbox says so."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"the server answers with {response.status_code}")
        self.status = response.status_code
        self.headers = response.headers
        self.body = bytes(response.body or b"")


def _refused(field: str, message: str) -> InvalidRequestError:
    return InvalidRequestError("INVALID_REQUEST", message, context={"field": field})


class Opening:
    """The request for one, whose path is sent as it is written."""

    def __init__(self, path: str, headers: Optional[Mapping[str, str]], subprotocols: Optional[Sequence[str]]) -> None:
        self._path = path
        self._headers = dict(headers or {})
        for name, value in self._headers.items():
            if not _TOKEN.fullmatch(name) or _UNSENT.search(value):
                raise _refused("headers", f"this cannot be sent: {name!r}: {value!r}")
            if name.lower() in _OURS or name.lower().startswith("sec-websocket-"):
                raise _refused("headers", f"{name} is not for callers to say")
        if isinstance(subprotocols, str):
            raise TypeError(f"subprotocols are a list of str, and not {subprotocols!r:.80}")
        self.subprotocols: Any = list(subprotocols or ()) or None
        for name in self.subprotocols or ():
            if not _TOKEN.fullmatch(name):
                raise _refused("subprotocols", f"{name!r} is no name of a subprotocol")

    def said_by(self, protocol: ClientProtocol) -> None:
        """Has a connection say this, and nothing that a URL of it would have become."""
        begin = protocol.connect

        def connect() -> Request:
            request = begin()
            request.path = self._path
            for name, value in self._headers.items():
                if name in request.headers:
                    del request.headers[name]
                request.headers[name] = value
            return request

        protocol.connect = connect  # type: ignore[method-assign]


def quiet(options: dict[str, Any]) -> dict[str, Any]:
    """Without questions whether the server is there: a sandbox that is paused answers when it goes on."""
    return {name: None if name == "ping_interval" else value for name, value in options.items()}
