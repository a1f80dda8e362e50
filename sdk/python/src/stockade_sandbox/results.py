"""What operations give: plain values, made once from the daemon's JSON."""

from __future__ import annotations

import base64
import html
import math
import os
import sys
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from typing import Any, Literal, Optional

from . import api
from .errors import CommandFailedError


def decoded(data: str, encoding: str) -> bytes:
    """Bytes that travelled in JSON."""
    return base64.b64decode(data) if encoding == "base64" else data.encode()


def path_of(path: "api.PathText") -> str:
    """A path of the daemon as Python has it: bytes that are not UTF-8 as `os.fsdecode` writes them."""
    return path if isinstance(path, str) else os.fsdecode(base64.b64decode(path["base64"]))


def path_text(path: str | os.PathLike[str]) -> "api.PathText":
    """The other way round."""
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return {"base64": base64.b64encode(os.fsencode(text)).decode()}
    return text


def time_of(text: str) -> datetime:
    """RFC 3339, with up to nanoseconds, of which microseconds are kept."""
    head, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{head}.{(fraction or '0')[:6]:0<6}+00:00")


def milliseconds(seconds: Optional[float], name: str = "timeout") -> Optional[int]:
    """A bound in seconds, None for none. 0 is not one: some mean no bound by it, and others no time at all."""
    if seconds is None:
        return None
    if not _seconds(seconds, name) > 0:
        raise ValueError(f"{name} is in seconds and greater than 0, or None for no limit, and not {seconds}")
    return max(1, round(seconds * 1000))


def waited(seconds: Optional[float], name: str = "wait") -> Optional[int]:
    """The same for what may be waited for, of which 0 is not at all."""
    if seconds is None:
        return None
    if not _seconds(seconds, name) >= 0:
        raise ValueError(f"{name} is in seconds, 0 for not at all, and not {seconds}")
    return math.ceil(seconds * 1000)


def _seconds(seconds: Any, name: str) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} is to be a number of seconds, not {type(seconds).__name__}")
    # Not so for NaN either.
    return seconds if seconds < math.inf else math.nan


@dataclass(frozen=True)
class CommandResult:
    """How a command ended, and what it wrote."""

    exit_code: int
    stdout_bytes: bytes = field(repr=False)
    stderr_bytes: bytes = field(repr=False)
    #: Seconds.
    duration: float
    timed_out: bool
    signal: Optional[str] = None
    oom_killed: bool = False
    #: Whether more was written than was kept.
    truncated: bool = False
    usage: Optional["api.CommandUsage"] = field(default=None, repr=False)
    #: The recording of it, when that was asked for.
    recording: Optional[str] = None

    @property
    def stdout(self) -> str:
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        return self.stderr_bytes.decode(errors="replace")

    @property
    def ok(self) -> bool:
        return self.exit_code == 0 and not self.timed_out

    def check(self) -> "CommandResult":
        """Raises `CommandFailedError` unless it went well."""
        if not self.ok:
            raise CommandFailedError(self)
        return self

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What a notebook shows: the output, and in red what went to stderr."""
        parts = [f"<pre>{html.escape(self.stdout)}</pre>"] if self.stdout else []
        if self.stderr:
            parts.append(f'<pre style="color:#b00">{html.escape(self.stderr)}</pre>')
        if not self.ok:
            parts.append(f"<small>exit code {self.exit_code}{', timed out' if self.timed_out else ''}</small>")
        plain = self.stdout + self.stderr + ("" if self.ok else f"[exit code {self.exit_code}]\n")
        return {"text/plain": plain, "text/html": "".join(parts) or "<small>no output</small>"}


def command_result(view: dict[str, Any], stdout: Optional[bytes] = None, stderr: Optional[bytes] = None) -> CommandResult:
    written = {
        name: given if given is not None else decoded(view[name], view[f"{name}_encoding"])
        for name, given in (("stdout", stdout), ("stderr", stderr))
    }
    cut = view.get("truncated", {})
    return CommandResult(
        exit_code=view["exit_code"],
        stdout_bytes=written["stdout"],
        stderr_bytes=written["stderr"],
        duration=view["duration_ms"] / 1000,
        timed_out=view["timed_out"],
        signal=view.get("signal"),
        oom_killed=view.get("oom_killed", False),
        truncated=bool(cut.get("stdout") or cut.get("stderr")),
        usage=view.get("usage"),
        recording=view.get("recording"),
    )


StreamName = Literal["stdout", "stderr"]


@dataclass(frozen=True)
class Output:
    """Bytes of one of two streams."""

    stream: StreamName
    data: bytes
    #: Behind these bytes, where there is a log to go on in.
    cursor: Optional[int] = None

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")


def output(name: str, data: dict[str, Any], cursor: Optional[int] = None) -> Output:
    """An event of a stream."""
    stream: StreamName = "stderr" if name == "stderr" else "stdout"
    return Output(stream, decoded(data["data"], data["encoding"]), cursor)


@dataclass(frozen=True)
class CodeError:
    """Why a cell did not succeed."""

    name: str
    message: str
    traceback: tuple[str, ...] = field(repr=False)
    line: Optional[int] = None


@dataclass(frozen=True)
class Shown:
    """Something that a cell shows, by media type; pictures in base64. A notebook shows it as it would its own."""

    data: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)

    @property
    def text(self) -> Optional[str]:
        return self.data.get("text/plain")

    @property
    def png(self) -> Optional[bytes]:
        picture = self.data.get("image/png")
        return None if picture is None else base64.b64decode(picture)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.data, self.metadata


@dataclass(frozen=True)
class Execution:
    """What came of a cell."""

    stdout: str
    stderr: str
    #: In order; the value of the cell is the last one, if it has one.
    results: tuple[Shown, ...]
    error: Optional[CodeError]
    execution_count: Optional[int]
    #: Seconds.
    duration: float
    #: What earlier cells have left running wrote meanwhile.
    background: str = ""

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def text(self) -> Optional[str]:
        """The last result as text."""
        return self.results[-1].text if self.results else None

    def _ipython_display_(self) -> None:
        """What a notebook shows: all of it, as of a cell of its own."""
        # Whoever calls this has it.
        display = import_module("IPython.display").display
        for text, stream in ((self.stdout, sys.stdout), (self.background, sys.stdout), (self.stderr, sys.stderr)):
            if text:
                stream.write(text if text.endswith("\n") else f"{text}\n")
                stream.flush()
        for shown in self.results:
            display(shown.data, metadata=shown.metadata, raw=True)
        if self.error is not None:
            print(self._why(self.error), file=sys.stderr, flush=True)

    @staticmethod
    def _why(error: CodeError) -> str:
        return "\n".join(error.traceback) or f"{error.name}: {error.message}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """What others show, which can show one thing: why it failed, the last result, or else what was written."""
        if self.error is not None:
            return {"text/plain": self._why(self.error)}
        if self.results:
            return self.results[-1].data
        return {"text/plain": self.stdout + self.stderr}


def code_error(view: Optional[dict[str, Any]]) -> Optional[CodeError]:
    if view is None:
        return None
    return CodeError(view["name"], view["message"], tuple(view["traceback"]), view.get("line"))


def code_result(view: dict[str, Any]) -> Execution:
    """What the daemon has collected of a cell."""
    written = [decoded(view[name], view[f"{name}_encoding"]).decode(errors="replace") for name in ("stdout", "stderr")]
    results = tuple(Shown(shown["data"], shown["metadata"]) for shown in view["results"])
    error, count = code_error(view.get("error")), view.get("execution_count")
    return Execution(written[0], written[1], results, error, count, view["duration_ms"] / 1000, view["background"])


@dataclass(frozen=True)
class LogMatch:
    """A line that was waited for."""

    line: str
    groups: tuple[Optional[str], ...]


@dataclass(frozen=True)
class FileInfo:
    """What a file is."""

    path: str
    type: "api.FileType"
    size: int
    #: Permissions.
    mode: int
    uid: int
    gid: int
    modified_at: datetime
    etag: str
    mime: Optional[str] = None
    #: Of a symbolic link.
    target: Optional[str] = None

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def is_dir(self) -> bool:
        return self.type == "directory"

    @property
    def is_file(self) -> bool:
        return self.type == "file"


def file_info(view: "api.FileInfo") -> FileInfo:
    target = view.get("target")
    return FileInfo(
        path=path_of(view["path"]),
        type=view["type"],
        size=view["size"],
        mode=int(view["mode"], 8),
        uid=view["uid"],
        gid=view["gid"],
        modified_at=time_of(view["modified_at"]),
        etag=view["etag"],
        mime=view.get("mime"),
        target=None if target is None else path_of(target),
    )


@dataclass(frozen=True)
class Change:
    """A change that a watch reports. After `overflow` look at everything; after `gone` nothing comes any more."""

    kind: Literal["create", "modify", "delete", "rename", "attrib", "overflow", "gone"]
    path: str = ""
    #: Of a rename.
    old_path: Optional[str] = None
    is_dir: bool = False


def change(event: str, data: dict[str, Any]) -> Change:
    old = data.get("from")
    return Change(
        kind=event,  # type: ignore[arg-type]
        path=path_of(data["path"]) if "path" in data else "",
        old_path=None if old is None else path_of(old),
        is_dir=bool(data.get("directory", False)),
    )


@dataclass(frozen=True)
class Changes:
    """Whether files have changed; `cursor` is for the next question."""

    status: Literal["unchanged", "changed", "resync"]
    cursor: str


@dataclass(frozen=True)
class ExposedPort:
    """A port with an address. Without previews there is no `url`."""

    port: int
    token: str
    url: Optional[str]
    name: Optional[str] = None


def exposed_port(view: dict[str, Any]) -> ExposedPort:
    return ExposedPort(port=view["port"], token=view["token"], url=view.get("url"), name=view.get("name"))


@dataclass(frozen=True)
class Clone:
    """A repository that was cloned."""

    path: str
    branch: Optional[str]
    commit: Optional[str]
