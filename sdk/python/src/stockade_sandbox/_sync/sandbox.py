# Written by generate_sync.py from src/stockade_sandbox/_async/sandbox.py. Change that and run it again.
"""Sandboxes: everything that can be done in one."""

from __future__ import annotations

import base64
import json as codec
import time
from types import TracebackType
from typing import Any, Iterator, Callable, List, Mapping, Optional, Sequence, Union

import httpx

from .. import api
from ..body import LARGE_BYTES, Bytes, given, plain, range_headers
from ..errors import ConnectionLostError, NotFoundError, PortError, StockadeError, from_body
from ..events import Event
from ..results import (
    Change,
    Changes,
    Clone,
    CommandResult,
    Execution,
    ExposedPort,
    FileInfo,
    LogMatch,
    Output,
    Shown,
    StreamName,
    change,
    code_result,
    code_error,
    command_result,
    decoded,
    exposed_port,
    file_info,
    milliseconds,
    output,
    path_text,
    waited,
)
from ..sockets import Answered, Opening
from .net import SyncBody, OutboundHandler, Connection, Server, WebSocket, connect, server_socket, sleep, web_socket, whole
from .transport import Transport, bytes_of, events_of, path_behind, target

Command = Union[str, Sequence[str]]
#: How often a broken stream is taken up again without anything having come, and how long is waited before.
_RESUMES_MAX = 20
_RESUME_INTERVAL_S = 0.25
#: A connection that has held for so long was one.
_HELD_S = 1.0
_BYTES = (bytes, bytearray, memoryview)
#: A type that no event has: the answer is where events end now.
_NO_TYPE = "none"


def _line(command: Command) -> dict[str, Any]:
    """A string is for a shell, a list is a program and its arguments."""
    if isinstance(command, str):
        return {"shell": command}
    if isinstance(command, (list, tuple)) or isinstance(command, Sequence) and not isinstance(command, _BYTES):
        argv = list(command)
        if all(isinstance(argument, str) for argument in argv):
            return {"argv": argv}
    raise TypeError(f"a command is a str for a shell, or a list of str, and not {command!r:.80}")


def _env(env: Optional[Mapping[str, str]]) -> Optional[dict[str, str]]:
    """Variables over those of the sandbox, of which none can be unset for one command."""
    for name, value in (env or {}).items():
        if value is None:
            hint = "leave it out, or have it unset by `env.update` or by `env -u` in the command"
            raise ValueError(f"the variable {name} cannot be None: {hint}")
        if not isinstance(value, str):
            raise TypeError(f"the variable {name} is to be a str, not {type(value).__name__}")
    return dict(env) if env else None


def _given(**fields: Any) -> dict[str, Any]:
    """Fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def _input(stdin: Union[str, Bytes, None]) -> dict[str, Any]:
    if stdin is None or isinstance(stdin, str):
        return _given(stdin=stdin)
    return {"stdin_base64": base64.b64encode(plain(stdin, "stdin")).decode()}


def _lifecycle(
    idle_timeout: Optional[float], ttl: Optional[float], keep_alive: bool, processes_hold: bool
) -> dict[str, Any]:
    return _given(
        idle_timeout_ms=milliseconds(idle_timeout, "idle_timeout"),
        ttl_ms=milliseconds(ttl, "ttl"),
        keep_alive=keep_alive or None,
        processes_hold=processes_hold or None,
    )


class _Part:
    """A group of operations of one sandbox."""

    def __init__(self, transport: Transport, sandbox: str) -> None:
        self._transport = transport
        self._sandbox = sandbox

    def _call(self, operation: api.Operation, *, path: Optional[dict[str, Any]] = None, **more: Any) -> Any:
        return self._transport.call(operation, {"id": self._sandbox, **(path or {})}, **more)

    def _path(self, template: str, query: dict[str, Any], **path: Any) -> str:
        return target(template, {"id": self._sandbox, **path}, query)


OnOutput = Optional[Callable[[str], None]]


class _Runner(_Part):
    """Commands, in a session or outside of any."""

    _session: Optional[str] = None

    def run(
        self,
        command: Command,
        *,
        cwd: Optional[str] = None,
        env: Optional[Mapping[str, str]] = None,
        user: Optional[str] = None,
        stdin: Union[str, Bytes, None] = None,
        timeout: Optional[float] = None,
        output_bytes_max: Optional[int] = None,
        check: bool = False,
        record: Optional[api.RecordSetting] = None,
        on_stdout: OnOutput = None,
        on_stderr: OnOutput = None,
    ) -> CommandResult:
        """Runs a command and waits for its end. A code other than 0 is a result, unless `check` is set.

        `timeout` is in seconds: after it the command and what it started are killed, and the result says so.
        With `record` it is recorded for asciinema, and the result names the recording.
        Here and everywhere else None is no limit, and what is not greater than 0 is a ValueError.
        """
        spec = self._spec(command, cwd, env, user, stdin, timeout) | _given(record=record)
        if on_stdout or on_stderr:
            result = self._streamed(spec, on_stdout, on_stderr)
        else:
            spec |= _given(output_bytes_max=output_bytes_max)
            operation, path = self._operation()
            result = command_result(self._call(operation, path=path, json=spec))
        return result.check() if check else result

    @staticmethod
    def _spec(
        command: Command,
        cwd: Optional[str],
        env: Optional[Mapping[str, str]],
        user: Optional[str],
        stdin: Union[str, Bytes, None],
        timeout: Optional[float],
    ) -> dict[str, Any]:
        spec = _line(command) | _input(stdin)
        return spec | _given(cwd=cwd, env=_env(env), user=user, timeout_ms=milliseconds(timeout))

    def _operation(self) -> tuple[api.Operation, dict[str, Any]]:
        if self._session is None:
            return "runCommand", {}
        return "runInSession", {"session": self._session}

    def _streamed(self, spec: dict[str, Any], on_stdout: OnOutput, on_stderr: OnOutput) -> CommandResult:
        whole = {"stdout": bytearray(), "stderr": bytearray()}
        callbacks = {"stdout": on_stdout, "stderr": on_stderr}
        recording: dict[str, Any] = {}
        for event in self._events(spec):
            if event.name in whole:
                data = decoded(event.data["data"], event.data["encoding"])
                whole[event.name] += data
                callback = callbacks[event.name]
                if callback is not None:
                    callback(data.decode(errors="replace"))
            elif event.name == "started":
                recording = _given(recording=event.data.get("recording"))
            elif event.name == "exit":
                return command_result(event.data | recording, bytes(whole["stdout"]), bytes(whole["stderr"]))
        raise ConnectionLostError("CONNECTION", "the stream ended before the command did")

    def _events(self, spec: dict[str, Any]) -> Iterator[Any]:
        operation, path = self._operation()
        response = self._transport.open(
            operation, {"id": self._sandbox, **path}, json=spec, accept="text/event-stream"
        )
        for event in events_of(response):
            yield event

    def stream(
        self,
        command: Command,
        *,
        cwd: Optional[str] = None,
        env: Optional[Mapping[str, str]] = None,
        user: Optional[str] = None,
        stdin: Union[str, Bytes, None] = None,
        timeout: Optional[float] = None,
    ) -> Iterator[Union[Output, CommandResult]]:
        """Output as it comes, and the result (without output) last. Leaving early kills the command."""
        for event in self._events(self._spec(command, cwd, env, user, stdin, timeout)):
            if event.name in ("stdout", "stderr"):
                yield output(event.name, event.data)
            elif event.name == "exit":
                yield command_result(event.data, b"", b"")


class Commands(_Runner):
    """Commands that run outside of any session."""

    def list(self) -> list[api.CommandView]:
        """Those that run."""
        commands: list[api.CommandView] = (self._call("listCommands"))["commands"]
        return commands

    def signal(self, command: str, signal: Union[str, int]) -> None:
        self._call("signalCommand", path={"command": command}, json={"signal": signal})

    def attach(
        self,
        command: Command,
        *,
        cwd: Optional[str] = None,
        env: Optional[Mapping[str, str]] = None,
        user: Optional[str] = None,
        timeout: Optional[float] = None,
    ) -> "Attachment":
        """Runs a command with live input and output. It is killed when its attachment is closed."""
        spec = self._spec(command, cwd, env, user, None, timeout)
        socket = _look(self._transport, self._path("/v1/sandboxes/{id}/commands/attach", {}))
        socket.send(codec.dumps(spec))
        started = codec.loads(socket.recv())
        if started["event"] == "error":
            socket.close()
            raise from_body(started, 500)
        return Attachment(socket, started["id"], started["pid"])


class Attachment:
    """A command with live input and output."""

    def __init__(self, socket: WebSocket, id: str, pid: int) -> None:
        self._socket = socket
        self.id = id
        self.pid = pid
        #: How it ended; there when the output has been read to its end.
        self.result: Optional[CommandResult] = None

    def write(self, data: Union[str, Bytes]) -> None:
        """Gives the command something to read."""
        self._socket.send(b"\0" + plain(data, "data"))

    def end(self) -> None:
        """Ends its input."""
        self._socket.send(b"\0")

    def signal(self, signal: Union[str, int]) -> None:
        self._socket.send(codec.dumps({"signal": signal}))

    def output(self) -> Iterator[Output]:
        """Its output, as it comes."""
        for frame in self._socket:
            if isinstance(frame, bytes):
                stream: StreamName = "stdout" if frame[0] == 1 else "stderr"
                yield Output(stream, frame[1:])
                continue
            event = codec.loads(frame)
            if event["event"] == "error":
                raise from_body(event, 500)
            if event["event"] == "exit":
                self.result = command_result(event, b"", b"")
                return

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _look(transport: Transport, path: str) -> WebSocket:
    """A WebSocket of the daemon."""
    from websockets.exceptions import InvalidStatus, WebSocketException

    try:
        return web_socket(transport.socket, path)
    except InvalidStatus as error:
        body = error.response.body or b"{}"
        raise from_body(codec.loads(body), error.response.status_code) from error
    except (OSError, WebSocketException, EOFError) as error:
        raise ConnectionLostError("CONNECTION", f"the connection to the daemon broke: {error}") from error


class Session(_Runner):
    """A bash that stays: its directory, variables and functions live on between commands."""

    def __init__(self, transport: Transport, sandbox: str, id: str) -> None:
        super().__init__(transport, sandbox)
        self.id = id
        self._session = id

    def info(self) -> api.SessionView:
        view: api.SessionView = self._call("getSession", path={"session": self.id})
        return view

    def delete(self) -> None:
        """Kills it and everything that it started."""
        self._call("deleteSession", path={"session": self.id})

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.delete()


class Sessions(_Part):
    """Shells that stay."""

    def create(
        self,
        id: Optional[str] = None,
        *,
        cwd: Optional[str] = None,
        env: Optional[Mapping[str, str]] = None,
        user: Optional[str] = None,
    ) -> Session:
        spec = _given(id=id, cwd=cwd, env=_env(env), user=user)
        view = self._call("createSession", json=spec)
        return Session(self._transport, self._sandbox, view["id"])

    def get(self, id: str = "default") -> Session:
        """A session by name; `default` is always there."""
        return Session(self._transport, self._sandbox, id)

    def list(self) -> list[api.SessionView]:
        sessions: list[api.SessionView] = (self._call("listSessions"))["sessions"]
        return sessions


class Process(_Part):
    """A background process. It outlives this program."""

    def __init__(self, transport: Transport, sandbox: str, view: api.Process) -> None:
        super().__init__(transport, sandbox)
        #: As it was when it was last asked for: see `refresh`.
        self.view = view
        self.id = view["id"]
        self.pid = view["pid"]

    @property
    def running(self) -> bool:
        return self.view["state"] == "running"

    @property
    def exit_code(self) -> Optional[int]:
        return self.view.get("exit_code")

    def _self(self) -> dict[str, Any]:
        return {"process": self.id}

    def refresh(self) -> "Process":
        self.view = self._call("getProcess", path=self._self())
        return self

    def _wait(self, wish: dict[str, Any], timeout: Optional[float]) -> Any:
        """Asks again when the connection breaks, for what is left of the time: to wait changes nothing."""
        body = {"for": wish} | _given(timeout_ms=milliseconds(timeout))
        start = time.monotonic()
        broke = 0
        while True:
            asked = time.monotonic()
            try:
                came = self._call("waitForProcess", path=self._self(), json=body)
                self.view = came["process"]
                return came
            except StockadeError as error:
                # A daemon that is not there was waited for already.
                absent = isinstance(error.__cause__, httpx.ConnectError)
                if error.code not in ("CONNECTION", "SHUTTING_DOWN") or absent or broke >= _RESUMES_MAX:
                    raise
            broke = broke + 1 if time.monotonic() - asked < _HELD_S else 0
            sleep(_RESUME_INTERVAL_S)
            if timeout is not None:
                # At least once more, so that it is the daemon that says that it did not come in time.
                body["timeout_ms"] = milliseconds(max(start + timeout - time.monotonic(), 0.001))

    def wait(self, timeout: Optional[float] = None) -> int:
        """Waits for its end and gives its exit code."""
        self._wait({"exit": {}}, timeout)
        code = self.exit_code
        return -1 if code is None else code

    def wait_for_log(
        self, text: Optional[str] = None, *, regex: Optional[str] = None, timeout: Optional[float] = None
    ) -> LogMatch:
        """Waits for a line with this text, or that matches this expression (of Rust's crate regex)."""
        came = self._wait({"log": _given(text=text, regex=regex)}, timeout)
        return LogMatch(came["log"]["line"], tuple(came["log"].get("groups") or ()))

    def wait_for_port(
        self, port: int, *, path: Optional[str] = None, status: tuple[int, int] = (200, 399), timeout: Optional[float] = None
    ) -> None:
        """Waits until the port takes a connection, or with `path` until it answers a request with such a status."""
        wish: dict[str, Any] = {"port": port}
        if path is not None:
            wish["http"] = {"path": path, "status_min": status[0], "status_max": status[1]}
        self._wait({"port": wish}, timeout)

    def signal(self, signal: Union[str, int], *, tree: bool = False) -> None:
        self._call("signalProcess", path=self._self(), json={"signal": signal, "tree": tree})

    def kill(self, grace: float = 5.0) -> None:
        """SIGTERM to everything that it started, and SIGKILL to what is left after the grace, in seconds."""
        waited(grace, "grace")
        try:
            if grace > 0:
                self.signal("SIGTERM", tree=True)
                self.wait(grace)
            else:
                self.signal("SIGKILL", tree=True)
                self.wait()
        except StockadeError as error:
            if error.code == "PROCESS_EXITED":
                self.refresh()
                return
            if error.code != "WAIT_TIMEOUT":
                raise
            self.signal("SIGKILL", tree=True)
            self.wait()

    def write(self, data: SyncBody) -> None:
        """Writes to its stdin, for processes started with `stdin`."""
        self._call("writeProcessStdin", path=self._self(), body=given(data))

    def close_stdin(self) -> None:
        self._call("writeProcessStdin", path=self._self(), query={"close": True}, body=b"")

    def logs(self, stream: Optional[str] = None) -> bytes:
        """What it has written so far, or one stream of it, as far as it is kept."""
        parts = [
            part
            for part in bytes_of(
                self._transport.open(
                    "readProcessLog",
                    {"id": self._sandbox, **self._self()},
                    query={"stream": stream},
                    accept="application/octet-stream",
                )
            )
        ]
        return b"".join(parts)

    def follow(
        self, cursor: Optional[int] = None, *, on_dropped: Optional[Callable[[int], object]] = None
    ) -> Iterator[Output]:
        """Output from the beginning, or from a cursor, to the end.

        When the connection breaks, it goes on behind the last byte that came, over a restart of the daemon too. `on_dropped` hears
        how many bytes are gone because the log's bound was passed before they were read.
        """
        broke = 0
        while True:
            headers = {} if cursor is None else {"last-event-id": str(cursor)}
            try:
                response = self._transport.open(
                    "readProcessLog",
                    {"id": self._sandbox, **self._self()},
                    headers=headers,
                    accept="text/event-stream",
                )
                for event in events_of(response):
                    broke = 0
                    cursor = cursor if event.id is None else int(event.id)
                    if event.name == "exit":
                        self.view = event.data
                        return
                    if event.name in ("stdout", "stderr"):
                        yield output(event.name, event.data, cursor)
                    elif event.name == "dropped" and on_dropped is not None:
                        on_dropped(event.data["bytes"])
                broke += 1
            except StockadeError as error:
                broke += 1
                if error.code not in ("CONNECTION", "SHUTTING_DOWN") or broke > _RESUMES_MAX:
                    raise
            sleep(_RESUME_INTERVAL_S)

    def remove(self) -> None:
        """Kills it, and removes it with its log."""
        self._call("removeProcess", path=self._self())

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.remove()
        except NotFoundError:
            pass


class Processes(_Part):
    """Background processes."""

    def start(
        self,
        command: Command,
        *,
        id: Optional[str] = None,
        cwd: Optional[str] = None,
        env: Optional[Mapping[str, str]] = None,
        user: Optional[str] = None,
        stdin: bool = False,
        timeout: Optional[float] = None,
        log_bytes_max: Optional[int] = None,
        on_exit: Optional[api.OnExit] = None,
    ) -> Process:
        spec = _line(command) | _given(
            id=id,
            cwd=cwd,
            env=_env(env),
            user=user,
            stdin=stdin,
            timeout_ms=milliseconds(timeout),
            log_bytes_max=log_bytes_max,
            on_exit=on_exit,
        )
        return Process(self._transport, self._sandbox, self._call("startProcess", json=spec))

    def get(self, id: str) -> Process:
        return Process(self._transport, self._sandbox, self._call("getProcess", path={"process": id}))

    def list(self) -> list[Process]:
        views = (self._call("listProcesses"))["processes"]
        return [Process(self._transport, self._sandbox, view) for view in views]

    def kill_all(self, *, remove: bool = False) -> int:
        """Kills all at once, and says how many there were; with `remove` their logs go too."""
        killed: int = (self._call("killProcesses", query={"remove": remove}))["killed"]
        return killed


class Files(_Part):
    """Files. Paths are absolute, or below the sandbox's working directory."""

    def read(self, path: str, *, start: int = 0, end: Optional[int] = None, user: Optional[str] = None) -> bytes:
        """The bytes of a file, or of the part from `start` to before `end`, as far as it is there."""
        response, headers = self._content(path, start, end, user)
        if response is None:
            return b""
        if int(response.headers.get("content-length", 0)) >= LARGE_BYTES:
            response.close()
            asked = self._path("/v1/sandboxes/{id}/files/content", {"path": path, "user": user})
            large = whole(self._transport.socket, asked, headers)
            if large is not None:
                return large
            response, _ = self._content(path, start, end, user)
        return b"" if response is None else b"".join([part for part in bytes_of(response)])

    def read_text(self, path: str, *, encoding: str = "utf-8", user: Optional[str] = None) -> str:
        return (self.read(path, user=user)).decode(encoding)

    def stream(
        self, path: str, *, start: int = 0, end: Optional[int] = None, user: Optional[str] = None
    ) -> Iterator[bytes]:
        """The same as it comes."""
        response, _ = self._content(path, start, end, user)
        if response is None:
            return
        for part in bytes_of(response):
            yield part

    def _content(
        self, path: str, start: int, end: Optional[int], user: Optional[str]
    ) -> tuple[Optional[httpx.Response], dict[str, str]]:
        """An answer as it begins, or None for no bytes, and the headers with which it was asked for."""
        headers = range_headers(start, end)
        query = {"path": path, "user": user}
        try:
            response = self._transport.open("readFile", {"id": self._sandbox}, query=query, headers=headers)
        except StockadeError as error:
            # Behind the end there is nothing.
            if error.code != "RANGE_NOT_SATISFIABLE":
                raise
            return None, headers
        if start == end:
            # HTTP has no empty ranges: a byte was asked for, to hear what is wrong with the file.
            response.close()
            return None, headers
        return response, headers

    def write(
        self,
        path: str,
        content: SyncBody,
        *,
        mode: Optional[int] = None,
        owner: Optional[str] = None,
        parents: bool = False,
        user: Optional[str] = None,
    ) -> FileInfo:
        """Replaces a file in one step, when all of the content is there."""
        octal = None if mode is None else f"{mode:o}"
        query = {"path": path, "mode": octal, "owner": owner, "parents": parents, "user": user}
        return file_info(self._call("writeFile", query=query, body=given(content)))

    def list(
        self,
        path: str = ".",
        *,
        recursive: bool = False,
        hidden: bool = False,
        glob: Optional[str] = None,
        user: Optional[str] = None,
    ) -> list[FileInfo]:
        """What is in a directory; paths are below it."""
        found: list[FileInfo] = []
        cursor: Optional[str] = None
        while True:
            query = {"path": path, "recursive": recursive, "hidden": hidden, "glob": glob, "user": user}
            page = self._call("listFiles", query=query | {"limit": 10000, "cursor": cursor})
            found.extend(file_info(entry) for entry in page["entries"])
            cursor = page.get("cursor")
            if cursor is None:
                return found

    def stat(self, path: str, *, follow_symlinks: bool = True, user: Optional[str] = None) -> FileInfo:
        query = {"path": path, "no_follow": not follow_symlinks, "user": user}
        return file_info(self._call("statFile", query=query))

    def exists(self, path: str, *, user: Optional[str] = None) -> bool:
        exists: bool = (self._call("fileExists", query={"path": path, "user": user}))["exists"]
        return exists

    def mkdir(self, path: str, *, mode: Optional[int] = None, parents: bool = False, user: Optional[str] = None) -> None:
        octal = None if mode is None else f"{mode:o}"
        self._call("makeDirectory", json=_given(path=path_text(path), mode=octal, parents=parents, user=user))

    def remove(
        self, path: str, *, recursive: bool = False, missing_ok: bool = False, user: Optional[str] = None
    ) -> None:
        body = _given(path=path_text(path), recursive=recursive, missing_ok=missing_ok, user=user)
        self._call("removeFile", json=body)

    def rename(self, old: str, new: str, *, overwrite: bool = False, user: Optional[str] = None) -> None:
        body = _given(to=path_text(new), overwrite=overwrite, user=user) | {"from": path_text(old)}
        self._call("renameFile", json=body)

    def copy(self, old: str, new: str, *, overwrite: bool = False, user: Optional[str] = None) -> None:
        body = _given(to=path_text(new), overwrite=overwrite, user=user) | {"from": path_text(old)}
        self._call("copyFile", json=body)

    def chmod(self, path: str, mode: int, *, user: Optional[str] = None) -> None:
        self._call("changeMode", json=_given(path=path_text(path), mode=f"{mode:o}", user=user))

    def chown(
        self, path: str, owner: str, *, follow_symlinks: bool = True, user: Optional[str] = None
    ) -> None:
        body = _given(path=path_text(path), owner=owner, no_follow=not follow_symlinks, user=user)
        self._call("changeOwner", json=body)

    def symlink(self, target: str, path: str, *, user: Optional[str] = None) -> None:
        self._call("makeSymlink", json=_given(path=path_text(path), target=path_text(target), user=user))

    def search(
        self,
        path: str,
        text: Optional[str] = None,
        *,
        regex: Optional[str] = None,
        glob: Optional[str] = None,
        ignore_case: bool = False,
        hidden: bool = False,
        limit: Optional[int] = None,
        user: Optional[str] = None,
    ) -> api.SearchResult:
        """Lines with this text, or that match this expression (of Rust's crate regex)."""
        body = _given(
            path=path_text(path),
            text=text,
            regex=regex,
            glob=glob,
            ignore_case=ignore_case,
            hidden=hidden,
            limit=limit,
            user=user,
        )
        found: api.SearchResult = self._call("searchFiles", json=body)
        return found

    def download_archive(self, path: str, *, user: Optional[str] = None) -> Iterator[bytes]:
        """A tree as a tar archive, made while it is read."""
        query = {"path": path, "user": user}
        response = self._transport.open("downloadArchive", {"id": self._sandbox}, query=query)
        for part in bytes_of(response):
            yield part

    def upload_archive(
        self, path: str, tar: SyncBody, *, owners: bool = False, user: Optional[str] = None
    ) -> None:
        """Unpacks a tar archive below a directory."""
        query = {"path": path, "owners": owners, "user": user}
        self._call("uploadArchive", query=query, body=given(tar), content_type="application/x-tar")

    def watch(
        self,
        path: str,
        *,
        recursive: bool = True,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        user: Optional[str] = None,
    ) -> Iterator[Change]:
        """Changes as they happen. Nothing is missed from when this comes back."""
        response = self._transport.open(
            "watchFiles",
            {"id": self._sandbox},
            query={
                "path": path,
                "recursive": recursive,
                "include": list(include),
                "exclude": list(exclude),
                "user": user,
            },
            accept="text/event-stream",
        )
        events = events_of(response)
        # `armed`.
        next(events)
        return self._changes(events)

    @staticmethod
    def _changes(events: Iterator[Event]) -> Iterator[Change]:
        for event in events:
            yield change(event.name, event.data)

    def changes(
        self,
        path: str,
        cursor: Optional[str] = None,
        *,
        recursive: bool = True,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        user: Optional[str] = None,
    ) -> Changes:
        """Whether anything has changed since the cursor of an answer before."""
        query = {
            "path": path,
            "recursive": recursive,
            "include": list(include),
            "exclude": list(exclude),
            "cursor": cursor,
            "user": user,
        }
        answer = self._call("filesChanged", query=query)
        return Changes(answer["status"], answer["cursor"])


class Environment(_Part):
    """Variables of everything that is started from now on."""

    def get(self) -> dict[str, str]:
        env: dict[str, str] = (self._call("getEnvironment"))["env"]
        return env

    def update(self, env: Optional[Mapping[str, Optional[str]]] = None, **more: Optional[str]) -> dict[str, str]:
        """Sets variables, and unsets those that are None."""
        wanted = {**(env or {}), **more}
        body = {
            "set": {name: value for name, value in wanted.items() if value is not None},
            "unset": [name for name, value in wanted.items() if value is None],
        }
        changed: dict[str, str] = (self._call("changeEnvironment", json=body))["env"]
        return changed

    def replace(self, env: Mapping[str, str]) -> None:
        """Exactly these; those of the image go too, `PATH` among them."""
        self._call("replaceEnvironment", json={"env": _env(env) or {}})


class Git(_Part):
    """Repositories."""

    def clone(
        self,
        url: str,
        path: Optional[str] = None,
        *,
        branch: Optional[str] = None,
        depth: Optional[int] = None,
        token: Optional[str] = None,
        username: Optional[str] = None,
        password: Optional[str] = None,
        recurse_submodules: bool = False,
        timeout: Optional[float] = None,
        user: Optional[str] = None,
    ) -> Clone:
        """Clones. Credentials are shown to the URL's host alone, and kept nowhere."""
        body = _given(
            url=url,
            path=path,
            branch=branch,
            depth=depth,
            token=token,
            username=username,
            password=password,
            recurse_submodules=recurse_submodules,
            timeout_ms=milliseconds(timeout),
            user=user,
        )
        done = self._call("cloneRepository", json=body)
        return Clone(done["path"], done.get("branch"), done.get("commit"))


class Network(_Part):
    """What may leave the sandbox."""

    def get(self) -> api.NetworkView:
        view: api.NetworkView = self._call("getNetwork")
        return view

    def set(self, policy: api.NetworkPolicy, *, dry_run: bool = False) -> api.NetworkChange:
        """Replaces the policy; in force when this comes back. With `dry_run` it only says what would differ."""
        changed: api.NetworkChange = self._call("setNetwork", json=policy, query={"dry_run": dry_run})
        return changed

    def events(self, after: Optional[int] = None, *, limit: Optional[int] = None) -> api.NetworkEvents:
        """The last decisions."""
        found: api.NetworkEvents = self._call("listNetworkEvents", query={"after": after, "limit": limit})
        return found

    def _change(self, change: Callable[[Any], dict[str, Any]]) -> None:
        policy: Any = dict((self.get())["policy"])
        if policy.get("mode") == "none":
            # Nothing may leave so far: the rules say what may.
            del policy["mode"]
        self.set({**policy, **change(policy)})  # type: ignore[typeddict-item]

    def set_outbound_by_host(self, host: str, handler: OutboundHandler) -> None:
        """Answers the sandbox's requests for a host, plain or TLS, in this program, until the client is closed.

        The host need not exist. The daemon hands requests to a socket in its directory of handlers: `handlers_directory` of
        the client, or `handlers` beside the daemon's socket. A body of more than 64 MiB is refused, and of what a handler
        raises the sandbox sees a 500 and this program's log the rest.
        """
        if not callable(handler):
            raise TypeError(f"a handler is a function, and not {handler!r:.80}")
        server = Server(self._transport.handlers, self._sandbox, handler)
        try:
            self._change(
                lambda policy: {
                    "hosts": [*_others(policy, host), {"host": host, "handler": server.name}],
                    "intercept": [*(name for name in policy.get("intercept") or () if name != host), host],
                }
            )
            self._transport.end(self._sandbox, host)
        except BaseException:
            server.close()
            raise
        self._transport.servers[self._sandbox, host] = server

    def remove_outbound_by_host(self, host: str) -> None:
        """Answers them no longer: the policy says again what becomes of them."""
        self._change(
            lambda policy: {
                "hosts": _others(policy, host),
                "intercept": [name for name in policy.get("intercept") or () if name != host],
            }
        )
        self._transport.end(self._sandbox, host)


def _others(policy: Any, host: str) -> list[Any]:
    """What a policy says of other hosts."""
    return [one for one in policy.get("hosts") or () if one["host"] != host]


class Ports(_Part):
    """Servers in the sandbox."""

    def expose(
        self, port: int, *, name: Optional[str] = None, token: Optional[str] = None, wait: Optional[float] = None
    ) -> ExposedPort:
        """Gives a port an address for browsers. `wait` is how long a request waits for somebody to listen."""
        body = _given(port=port, name=name, token=token, wait_ms=waited(wait))
        return exposed_port(self._call("exposePort", json=body))

    def revoke(self, port: int) -> None:
        self._call("revokePort", path={"port": port})

    def get(self, port: int) -> ExposedPort:
        return exposed_port(self._call("getPort", path={"port": port}))

    def list(self) -> list[ExposedPort]:
        return [exposed_port(view) for view in (self._call("listPorts"))["ports"]]

    def request(
        self,
        port: int,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Optional[Mapping[str, str]] = None,
        body: Union[str, Bytes, None] = None,
        wait: Optional[float] = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Sends a request to a server: its status, headers and body. Failures of the daemon are raised.

        `path` is the server's, with its query, and arrives as it is written, `..` and all; what is not ASCII is quoted.
        """
        sent = dict(headers or {})
        if wait is not None:
            sent["x-stockade-wait-ms"] = str(waited(wait))
        url = self._path("/v1/sandboxes/{id}/ports/{port}/proxy", {}, port=port) + path_behind(path)
        return self._transport.exchange(method, url, sent, None if body is None else plain(body, "body"))

    def websocket(
        self,
        port: int,
        path: str = "/",
        *,
        headers: Optional[Mapping[str, str]] = None,
        subprotocols: Optional[Sequence[str]] = None,
        wait: Optional[float] = None,
        message_bytes_max: Optional[int] = 4 * 1024 * 1024,
    ) -> WebSocket:
        """A WebSocket of a server: a connection of `websockets`, closed by whoever has it, as by `with`.

        `path` is as for `request`. A server that answers with anything else, redirects included, is a PortError with the
        `status`. Messages that are longer than `message_bytes_max` end the connection; None is no limit.
        """
        from websockets.exceptions import InvalidHandshake, InvalidMessage, WebSocketException

        sent = dict(headers or {})
        if wait is not None:
            sent["x-stockade-wait-ms"] = str(waited(wait))
        url = self._path("/v1/sandboxes/{id}/ports/{port}/proxy", {}, port=port) + path_behind(path)
        opening = Opening(url, sent, subprotocols)
        try:
            return server_socket(self._transport.socket, opening, message_bytes_max)
        except Answered as answer:
            # The header is the daemon's alone.
            if "x-stockade-error" in answer.headers:
                raise from_body(codec.loads(answer.body), answer.status) from None
            raise PortError("SERVICE_FAILED", str(answer), context={"port": port}, status=answer.status) from answer
        except (OSError, EOFError, InvalidMessage) as error:
            raise ConnectionLostError("CONNECTION", f"the connection to the daemon broke: {error}") from error
        except InvalidHandshake as error:
            told = f"the server speaks no WebSocket: {error}"
            raise PortError("SERVICE_FAILED", told, context={"port": port}) from error
        except WebSocketException as error:
            raise ConnectionLostError("CONNECTION", f"the connection to the daemon broke: {error}") from error

    def connect(self, port: int, *, wait: Optional[float] = None) -> Connection:
        """A connection to a port, for any protocol."""
        query = {"wait_ms": waited(wait)}
        path = self._path("/v1/sandboxes/{id}/ports/{port}/connect", query, port=port)
        status, body, connection = connect(self._transport.socket, path)
        if connection is None:
            raise from_body(codec.loads(body or b"{}"), status)
        return connection


class Terminal(_Part):
    """A program on a terminal."""

    def __init__(self, transport: Transport, sandbox: str, id: str) -> None:
        super().__init__(transport, sandbox)
        self.id = id
        self._input: Optional[WebSocket] = None

    def info(self) -> api.TerminalView:
        view: api.TerminalView = self._call("getTerminal", path={"terminal": self.id})
        return view

    def _attach(self, cursor: Optional[int]) -> str:
        template = "/v1/sandboxes/{id}/terminals/{terminal}/attach"
        return self._path(template, {"cursor": cursor}, terminal=self.id)

    def write(self, data: Union[str, Bytes]) -> None:
        """Types."""
        typed = plain(data, "data")
        if self._input is None:
            self._input = _look(self._transport, self._attach((self.info())["cursor_next"]))
        self._input.send(typed)

    def resize(self, columns: int, rows: int) -> None:
        self._call("resizeTerminal", path={"terminal": self.id}, json={"columns": columns, "rows": rows})

    def signal(self, signal: Union[str, int], *, tree: bool = False) -> None:
        self._call("signalTerminal", path={"terminal": self.id}, json={"signal": signal, "tree": tree})

    def output(
        self, cursor: Optional[int] = None, *, on_dropped: Optional[Callable[[int], object]] = None
    ) -> Iterator[bytes]:
        """Output from a position on, or from the oldest byte that is kept, to the end. Broken connections are resumed.

        `on_dropped` hears how many bytes came and went while nobody looked.
        """
        broke = 0
        while broke <= _RESUMES_MAX:
            try:
                socket = _look(self._transport, self._attach(cursor))
            except ConnectionLostError:
                broke += 1
                sleep(_RESUME_INTERVAL_S)
                continue
            try:
                for frame in socket:
                    broke = 0
                    if isinstance(frame, bytes):
                        cursor = (cursor or 0) + len(frame)
                        yield frame
                        continue
                    event = codec.loads(frame)
                    cursor = event["cursor"]
                    if event["event"] == "skipped" and on_dropped is not None:
                        on_dropped(event["bytes"])
                    if event["event"] == "exit":
                        return
            except EOFError:
                pass
            except Exception as error:
                if type(error).__module__.partition(".")[0] != "websockets":
                    raise
            finally:
                socket.close()
            broke += 1
            sleep(_RESUME_INTERVAL_S)
        raise ConnectionLostError("CONNECTION", f"terminal {self.id} cannot be looked at any more")

    def close(self) -> None:
        """Kills the program and forgets the terminal."""
        if self._input is not None:
            self._input.close()
        self._call("closeTerminal", path={"terminal": self.id})

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
        except NotFoundError:
            pass


class Terminals(_Part):
    """Terminals."""

    def open(
        self,
        command: Optional[Sequence[str]] = None,
        *,
        id: Optional[str] = None,
        columns: int = 80,
        rows: int = 24,
        cwd: Optional[str] = None,
        env: Optional[Mapping[str, str]] = None,
        session: Optional[str] = None,
        user: Optional[str] = None,
        record: Optional[api.RecordSetting] = None,
    ) -> Terminal:
        """Starts a program, bash unless another is named, on a terminal of its own.

        With `record` what is seen on it is recorded for asciinema: `info` names the recording.
        """
        body = _given(
            argv=None if command is None else list(command),
            id=id,
            columns=columns,
            rows=rows,
            cwd=cwd,
            env=_env(env),
            session=session,
            user=user,
            record=record,
        )
        view = self._call("openTerminal", json=body)
        return Terminal(self._transport, self._sandbox, view["id"])

    def get(self, id: str) -> Terminal:
        terminal = Terminal(self._transport, self._sandbox, id)
        terminal.info()
        return terminal

    def list(self) -> list[api.TerminalView]:
        terminals: list[api.TerminalView] = (self._call("listTerminals"))["terminals"]
        return terminals


class Recordings(_Part):
    """What was recorded of terminals and commands, as files for asciinema."""

    def list(self) -> list[api.RecordingView]:
        """The oldest first."""
        recordings: list[api.RecordingView] = (self._call("listRecordings"))["recordings"]
        return recordings

    def get(self, recording: str) -> bytes:
        """In asciinema's format, also while it goes on."""
        path = {"id": self._sandbox, "recording": recording}
        response = self._transport.open("getRecording", path)
        return b"".join([part for part in bytes_of(response)])

    def remove(self, recording: str) -> None:
        self._call("deleteRecording", path={"recording": recording})


class Code(_Part):
    """Code contexts: interpreters whose state stays."""

    def create(
        self,
        language: api.Language = "python",
        *,
        id: Optional[str] = None,
        cwd: Optional[str] = None,
        env: Optional[Mapping[str, str]] = None,
        timeout: Optional[float] = None,
    ) -> str:
        """Makes a context and gives its name. One that is named as its language is there without being made."""
        body = _given(
            language=language, id=id, cwd=cwd, env=_env(env), timeout_ms=milliseconds(timeout)
        )
        name: str = (self._call("createContext", json=body))["id"]
        return name

    def runs(self, context: str = "python") -> list[api.CodeRunView]:
        """Cells that were started so and that the daemon still knows: the last ones of each context."""
        runs: list[api.CodeRunView] = (self._call("listRuns", path={"context": context}))["runs"]
        return runs

    def list(self) -> list[api.ContextView]:
        contexts: list[api.ContextView] = (self._call("listContexts"))["contexts"]
        return contexts

    def get(self, context: str) -> api.ContextView:
        view: api.ContextView = self._call("getContext", path={"context": context})
        return view

    def delete(self, context: str) -> None:
        self._call("deleteContext", path={"context": context})

    def interrupt(self, context: str = "python") -> None:
        """As Ctrl-C does; the state stays."""
        self._call("interruptContext", path={"context": context})

    def restart(self, context: str = "python") -> None:
        """A new interpreter, which knows nothing."""
        self._call("restartContext", path={"context": context})

    def answer(self, context: str, line: Optional[str]) -> None:
        """Answers code that asks for a line; None says that there are no more."""
        body = {"eof": True} if line is None else {"value": line}
        self._call("answerContext", path={"context": context}, json=body)

    def run(
        self,
        code: str,
        *,
        context: str = "python",
        cwd: Optional[str] = None,
        env: Optional[Mapping[str, str]] = None,
        timeout: Optional[float] = None,
        on_stdout: OnOutput = None,
        on_stderr: OnOutput = None,
        on_result: Optional[Callable[[Shown], None]] = None,
    ) -> Execution:
        """Runs a cell: what it defines, the next ones of the context find. Code that fails is a result: see `error`."""
        body = _given(code=code, cwd=cwd, env=_env(env), timeout_ms=milliseconds(timeout))
        path = {"id": self._sandbox, "context": context}
        response = self._transport.open("runCode", path, json=body, accept="text/event-stream")
        written = {"stdout": "", "stderr": "", "background": ""}
        callbacks = {"stdout": on_stdout, "stderr": on_stderr}
        results: dict[str, Shown] = {}
        for event in events_of(response):
            if event.name in callbacks:
                text = decoded(event.data["data"], event.data["encoding"]).decode(errors="replace")
                if event.data["background"]:
                    written["background"] += text
                    continue
                written[event.name] += text
                callback = callbacks[event.name]
                if callback is not None:
                    callback(text)
            elif event.name in ("display", "result"):
                shown = Shown(event.data["data"], event.data["metadata"])
                # One that is updated takes the place of the one before.
                results[event.data["transient"].get("display_id") or f"#{len(results)}"] = shown
                if on_result is not None:
                    on_result(shown)
            elif event.name == "end":
                end = event.data
                error, count = code_error(end.get("error")), end.get("execution_count")
                shown_all = tuple(results.values())
                duration = end["duration_ms"] / 1000
                stdout, stderr, background = written.values()
                return Execution(stdout, stderr, shown_all, error, count, duration, background)
        raise ConnectionLostError("CONNECTION", "the stream ended before the run did")

    def start(
        self,
        code: str,
        *,
        context: str = "python",
        cwd: Optional[str] = None,
        env: Optional[Mapping[str, str]] = None,
        timeout: Optional[float] = None,
    ) -> str:
        """Starts a cell that goes on whatever becomes of this program, and gives its name for `result`."""
        body = _given(code=code, cwd=cwd, env=_env(env), timeout_ms=milliseconds(timeout), detach=True)
        name: str = (self._call("runCode", path={"context": context}, json=body))["id"]
        return name

    def result(
        self, run: str, *, context: str = "python", wait: Optional[float] = None
    ) -> Optional[Execution]:
        """What came of a cell that was started so, or None while it goes on; waits for its end for so many seconds."""
        query = {"wait_ms": waited(wait)}
        view = self._call("getRun", path={"context": context, "run": run}, query=query)
        return code_result(view["result"]) if view["ended"] else None


class Mounts(_Part):
    """Buckets, and directories of the host that the operator opens, in the sandbox's tree."""

    def mount(
        self,
        path: str,
        bucket: Optional[str] = None,
        *,
        endpoint: Optional[str] = None,
        credentials: Optional[api.MountCredentials] = None,
        **options: Any,
    ) -> api.MountView:
        """Mounts a bucket, or with an endpoint `file:///...` a directory of the host. It can be used when this returns.
        `options` are those of the API: prefix, region, addressing, read_only, uid, gid, file_mode, dir_mode,
        cache_bytes, attribute_ttl_ms, conditional_writes. Credentials stay outside of the sandbox."""
        body = _given(path=path, bucket=bucket, endpoint=endpoint, credentials=credentials, **options)
        view: api.MountView = self._call("mount", json=body)
        return view

    def list(self) -> list[api.MountView]:
        mounts: list[api.MountView] = (self._call("listMounts"))["mounts"]
        return mounts

    def get(self, mount: str) -> api.MountView:
        """A mount by its name (`id`), with what its worker counts."""
        view: api.MountView = self._call("getMount", path={"mount": mount})
        return view

    def unmount(self, path: str, *, timeout: Optional[float] = None) -> api.Unmounted:
        """Takes away what is mounted there, after what is left was uploaded, for so many seconds at most. Says what was
        not."""
        found = [mount["id"] for mount in self.list() if mount["path"] == path.rstrip("/")]
        # For one that is not there it is the daemon that says so.
        name = found[0] if found else "none"
        query = {"timeout_ms": milliseconds(timeout)}
        gone: api.Unmounted = self._call("unmount", path={"mount": name}, query=query)
        return gone


class Sandbox:
    """A sandbox. As a context manager it is destroyed at the end."""

    def __init__(self, id: str, transport: Transport, *, owns_transport: bool = False) -> None:
        self.id = id
        self._transport = transport
        self._owns = owns_transport
        self.commands = Commands(transport, id)
        self.sessions = Sessions(transport, id)
        self.processes = Processes(transport, id)
        self.files = Files(transport, id)
        self.env = Environment(transport, id)
        self.git = Git(transport, id)
        self.network = Network(transport, id)
        self.ports = Ports(transport, id)
        self.terminals = Terminals(transport, id)
        self.recordings = Recordings(transport, id)
        self.code = Code(transport, id)
        self.mounts = Mounts(transport, id)

    @classmethod
    def create(
        cls,
        image: str = "host",
        *,
        id: Optional[str] = None,
        env: Optional[Mapping[str, str]] = None,
        cwd: Optional[str] = None,
        user: Optional[str] = None,
        labels: Optional[Mapping[str, str]] = None,
        resources: Optional[api.ResourceLimits] = None,
        network: Optional[api.NetworkPolicy] = None,
        profile: Optional[api.Profile] = None,
        durability: Optional[api.Durability] = None,
        hostname: Optional[str] = None,
        idle_timeout: Optional[float] = None,
        ttl: Optional[float] = None,
        keep_alive: bool = False,
        processes_hold: bool = False,
        snapshot: Optional[str] = None,
        startup: Optional[Sequence[api.StartupProcess]] = None,
        socket: Optional[str] = None,
        handlers_directory: Optional[str] = None,
        transport: Optional[Transport] = None,
    ) -> "Sandbox":
        """Makes a sandbox. With an id that is there, made of the same, it is that one. With a `snapshot` its files
        begin as that one's, and the image is that one's.

        When it rests and ends by itself: see `set_lifecycle`. Processes of `startup` are started now, and each time that
        it is woken.
        """
        used = transport or Transport(socket, handlers_directory=handlers_directory)
        spec = _given(
            image=image,
            id=id,
            env=_env(env),
            cwd=cwd,
            user=user,
            labels=dict(labels) if labels else None,
            resources=resources,
            network=network,
            profile=profile,
            durability=durability,
            hostname=hostname,
            lifecycle=_lifecycle(idle_timeout, ttl, keep_alive, processes_hold) or None,
            snapshot=snapshot,
            startup=list(startup) if startup else None,
        )
        view = used.call("createSandbox", {}, json=spec)
        return cls(view["id"], used, owns_transport=transport is None)

    @classmethod
    def get(
        cls,
        id: str,
        *,
        socket: Optional[str] = None,
        handlers_directory: Optional[str] = None,
        transport: Optional[Transport] = None,
    ) -> "Sandbox":
        """A sandbox that is there."""
        used = transport or Transport(socket, handlers_directory=handlers_directory)
        sandbox = cls(id, used, owns_transport=transport is None)
        sandbox.info()
        return sandbox

    def info(self) -> api.SandboxView:
        """What it is, and what it really got."""
        view: api.SandboxView = self._transport.call("getSandbox", {"id": self.id})
        return view

    def run(
        self,
        command: Command,
        *,
        cwd: Optional[str] = None,
        env: Optional[Mapping[str, str]] = None,
        user: Optional[str] = None,
        stdin: Union[str, Bytes, None] = None,
        timeout: Optional[float] = None,
        check: bool = False,
        record: Optional[api.RecordSetting] = None,
        on_stdout: OnOutput = None,
        on_stderr: OnOutput = None,
    ) -> CommandResult:
        """Runs a command outside of any session: see `commands.run`."""
        return self.commands.run(
            command,
            cwd=cwd,
            env=env,
            user=user,
            stdin=stdin,
            timeout=timeout,
            check=check,
            record=record,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
        )

    def stop(self) -> api.SandboxView:
        """Ends everything in it. Its files, variables, ports and logs stay, and the next call that needs it wakes it."""
        view: api.SandboxView = self._transport.call("stopSandbox", {"id": self.id})
        return view

    def pause(self) -> api.SandboxView:
        """Freezes everything in it, with its memory. The next call that needs it lets it go on."""
        view: api.SandboxView = self._transport.call("pauseSandbox", {"id": self.id})
        return view

    def start(self) -> api.SandboxView:
        """Has it run again, also when it has ended by itself, after which no other call does that."""
        view: api.SandboxView = self._transport.call("startSandbox", {"id": self.id})
        return view

    def set_lifecycle(
        self,
        *,
        idle_timeout: Optional[float] = None,
        ttl: Optional[float] = None,
        keep_alive: bool = False,
        processes_hold: bool = False,
    ) -> api.SandboxView:
        """Changes when it rests and ends by itself. The whole of it: what is left out is never.

        It is stopped when nobody has used it for `idle_timeout`, and destroyed `ttl` after its creation, in seconds;
        neither while `keep_alive` is set. Background processes are use only with `processes_hold`.
        """
        body = _lifecycle(idle_timeout, ttl, keep_alive, processes_hold)
        view: api.SandboxView = self._transport.call("setLifecycle", {"id": self.id}, json=body)
        return view

    def stats(self, *, disk: bool = False) -> api.SandboxStats:
        """What it uses; with `disk` its files are counted too. Wakes nothing."""
        query = {"disk": disk or None}
        stats: api.SandboxStats = self._transport.call("getStats", {"id": self.id}, query=query)
        return stats

    def watch_stats(self, *, interval: float = 1.0, disk: bool = False) -> Iterator[api.SandboxStats]:
        """What it uses, again every `interval` seconds, until it is destroyed."""
        query = {"disk": disk or None, "interval_ms": milliseconds(interval, "interval")}
        answer = self._transport.open("getStats", {"id": self.id}, query=query, accept="text/event-stream")
        for event in events_of(answer):
            if event.name == "gone":
                return
            yield event.data

    def set_resources(self, resources: api.ResourceLimits, *, dry_run: bool = False) -> api.ResourcesChange:
        """Other limits, also while it runs. Those that are left out stay, and 0 is none."""
        change: api.ResourcesChange = self._transport.call(
            "changeResources", {"id": self.id}, query={"dry_run": dry_run or None}, json=resources
        )
        return change

    def snapshot(
        self,
        *,
        name: Optional[str] = None,
        labels: Optional[Mapping[str, str]] = None,
        ttl: Optional[float] = None,
        path: Optional[str] = None,
        exclude: Sequence[str] = (),
        gitignore: bool = False,
    ) -> api.SnapshotView:
        """Keeps its files as they are now, for `ttl` seconds or for ever. What runs in it is frozen meanwhile.

        With a `path` only that directory, without what matches a glob of `exclude` and, with `gitignore`, what the
        `.gitignore` files in it say.
        """
        body = _given(
            name=name,
            labels=dict(labels) if labels else None,
            ttl_ms=milliseconds(ttl, "ttl"),
            path=path,
            exclude=list(exclude) or None,
            gitignore=gitignore or None,
        )
        view: api.SnapshotView = self._transport.call("createSnapshot", {"id": self.id}, json=body)
        return view

    def snapshots(self) -> list[api.SnapshotView]:
        """Those that were made of it, the oldest first."""
        answer = self._transport.call("listSandboxSnapshots", {"id": self.id})
        snapshots: list[api.SnapshotView] = answer["snapshots"]
        return snapshots

    def restore(self, snapshot: str, path: Optional[str] = None) -> api.SandboxView:
        """Ends what runs in it and gives it the files of a snapshot. The next call wakes it.

        One of a directory takes the place of that one, or of `path`, and nothing ends.
        """
        body = _given(snapshot=snapshot, path=path)
        view: api.SandboxView = self._transport.call("restoreSandbox", {"id": self.id}, json=body)
        return view

    def rollback(self, snapshot: Optional[str] = None) -> api.SandboxView:
        """The same with one of its own snapshots, the latest unless one is named."""
        body = _given(snapshot=snapshot)
        view: api.SandboxView = self._transport.call("rollBackSandbox", {"id": self.id}, json=body)
        return view

    def commit(self, reference: str) -> api.Image:
        """Makes an image of all of its files, in the daemon's store."""
        image: api.Image = self._transport.call("commitSandbox", {"id": self.id}, json={"reference": reference})
        return image

    def export(
        self, *, format: Optional[str] = None, reference: Optional[str] = None, recipient: Optional[str] = None
    ) -> Iterator[bytes]:
        """All of its files as an archive, made while it is read.

        `oci`, which `images.import_tar` takes elsewhere, or `tar`, compressed with zstd. With a `recipient` of age nobody
        else can read it.
        """
        query = {"format": format, "reference": reference, "recipient": recipient}
        response = self._transport.open("exportSandbox", {"id": self.id}, query=query)
        for part in bytes_of(response):
            yield part

    def push(self, reference: str, **credentials: Any) -> api.Pushed:
        """Sends an image of all of its files to a registry."""
        body = {"reference": reference, **credentials}
        pushed: api.Pushed = self._transport.call("pushSandbox", {"id": self.id}, json=body)
        return pushed

    def store(
        self,
        object: api.BucketObject,
        *,
        format: Optional[str] = None,
        reference: Optional[str] = None,
        recipient: Optional[str] = None,
    ) -> api.StoredObject:
        """Writes the archive of an export to an object in a bucket, whose keys stay with the daemon."""
        body = _given(object=object, format=format, reference=reference, recipient=recipient)
        stored: api.StoredObject = self._transport.call("storeSandbox", {"id": self.id}, json=body)
        return stored

    def fork(
        self,
        count: Optional[int] = None,
        *,
        ids: Sequence[str] = (),
        labels: Optional[Mapping[str, str]] = None,
    ) -> list[api.SandboxView]:
        """Makes sandboxes whose files begin as its own are now. They run; what runs in it is not copied."""
        body = _given(count=count, ids=list(ids), labels=None if labels is None else dict(labels))
        answer = self._transport.call("forkSandbox", {"id": self.id}, json=body)
        children: list[api.SandboxView] = answer["sandboxes"]
        return children

    def destroy(self) -> None:
        """Kills everything in it and removes its files. One that is gone is no error."""
        try:
            self._transport.call("destroySandbox", {"id": self.id})
        except NotFoundError:
            pass

    def close(self) -> None:
        """Leaves the sandbox alone, and closes connections that only it had, and its handlers."""
        self._transport.end(self.id)
        if self._owns:
            self._transport.close()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.destroy()
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"


class Images:
    """Images in the store."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[api.Image]:
        images: list[api.Image] = (self._transport.call("listImages", {}))["images"]
        return images

    def get(self, reference: str) -> api.Image:
        image: api.Image = self._transport.call("getImage", {"reference": reference})
        return image

    def pull(
        self, reference: str, *, on_progress: Optional[Callable[[dict[str, Any]], None]] = None, **credentials: Any
    ) -> api.Image:
        """From a registry. `on_progress` hears of each layer."""
        body = {"reference": reference, **credentials}
        image: api.Image
        if on_progress is None:
            image = self._transport.call("pullImage", {}, json=body)
            return image
        for event in events_of(
            self._transport.open("pullImage", {}, json=body, accept="text/event-stream")
        ):
            if event.name == "image":
                image = event.data
                return image
            on_progress(event.data)
        raise ConnectionLostError("CONNECTION", "the stream ended before the pull did")

    def import_tar(
        self,
        tar: SyncBody,
        reference: Optional[str] = None,
        *,
        rootfs: bool = False,
        identity: Optional[str] = None,
    ) -> List[api.Image]:
        """From a tar of an OCI layout or of `docker save`; with `rootfs` from a tar of files.

        `identity` is that of age which it is encrypted to.
        """
        answer = self._transport.call(
            "importImage",
            {},
            query={"reference": reference, "rootfs": rootfs or None},
            headers=_sealed(identity),
            body=given(tar),
            content_type="application/x-tar",
        )
        images: List[api.Image] = answer["images"]
        return images

    def load(
        self,
        object: api.BucketObject,
        *,
        reference: Optional[str] = None,
        rootfs: bool = False,
        identity: Optional[str] = None,
    ) -> List[api.Image]:
        """From an object in a bucket."""
        body = _given(object=object, reference=reference, rootfs=rootfs, identity=identity)
        images: List[api.Image] = (self._transport.call("loadImage", {}, json=body))["images"]
        return images

    def remove(self, reference: str) -> None:
        self._transport.call("deleteImage", {"reference": reference})


def _sealed(identity: Optional[str]) -> Optional[dict[str, str]]:
    """What opens an upload: a header, for URLs are logged."""
    return None if identity is None else {"x-stockade-identity": identity}


class Snapshots:
    """Snapshots of the caller's sandboxes."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[api.SnapshotView]:
        """The oldest first."""
        snapshots: list[api.SnapshotView] = (self._transport.call("listSnapshots", {}))["snapshots"]
        return snapshots

    def get(self, id: str) -> api.SnapshotView:
        view: api.SnapshotView = self._transport.call("getSnapshot", {"id": id})
        return view

    def remove(self, id: str) -> None:
        """Sandboxes that were made of it keep their files."""
        self._transport.call("deleteSnapshot", {"id": id})

    def download(self, id: str, *, recipient: Optional[str] = None) -> Iterator[bytes]:
        """One of a directory, as a tar that is compressed with zstd.

        With a `recipient` of age nobody else can read it.
        """
        query = {"recipient": recipient}
        for part in bytes_of(self._transport.open("downloadSnapshot", {"id": id}, query=query)):
            yield part

    def upload(
        self,
        tar: SyncBody,
        path: str,
        *,
        name: Optional[str] = None,
        ttl: Optional[float] = None,
        identity: Optional[str] = None,
    ) -> api.SnapshotView:
        """Makes one of a directory of such a tar, for `ttl` seconds or for ever.

        `identity` is that of age which it is encrypted to.
        """
        view: api.SnapshotView = self._transport.call(
            "uploadSnapshot",
            {},
            query={"path": path, "name": name, "ttl_ms": milliseconds(ttl, "ttl")},
            headers=_sealed(identity),
            body=given(tar),
        )
        return view


class Stockade:
    """The daemon: its sandboxes, images and snapshots."""

    def __init__(
        self,
        socket: Optional[str] = None,
        *,
        absence_timeout: float = 10.0,
        handlers_directory: Optional[str] = None,
    ) -> None:
        self.transport = Transport(socket, absence_timeout, handlers_directory)
        self.images = Images(self.transport)
        self.snapshots = Snapshots(self.transport)

    def health(self) -> api.Health:
        health: api.Health = self.transport.call("getHealth", {})
        return health

    def info(self) -> api.DaemonInfo:
        info: api.DaemonInfo = self.transport.call("getInfo", {})
        return info

    def openapi(self) -> dict[str, Any]:
        document: dict[str, Any] = self.transport.call("getOpenapi", {})
        return document

    def create(self, image: str = "host", **options: Any) -> Sandbox:
        """Makes a sandbox: see `Sandbox.create`."""
        return Sandbox.create(image, transport=self.transport, **options)

    def get(self, id: str) -> Sandbox:
        """A sandbox that is there."""
        return Sandbox.get(id, transport=self.transport)

    def list(self, *labels: str) -> list[api.SandboxView]:
        """Those of the caller, with these labels (`key=value` or `key`)."""
        answer = self.transport.call("listSandboxes", {}, query={"label": list(labels)})
        sandboxes: list[api.SandboxView] = answer["sandboxes"]
        return sandboxes

    def stats(self, *, disk: bool = False) -> api.StatsList:
        """What the caller's sandboxes use; with `disk` their files are counted too."""
        stats: api.StatsList = self.transport.call("listStats", {}, query={"disk": disk})
        return stats

    def events(
        self,
        *,
        sandboxes: Optional[Sequence[str]] = None,
        types: Optional[Sequence[str]] = None,
        after: Optional[int] = None,
        on_lost: Optional[Callable[[], object]] = None,
    ) -> Iterator[api.Happened]:
        """What happens to the caller's sandboxes, from now on or from behind an event.

        Goes on when the connection breaks, behind the last one that came. `on_lost` hears when the daemon does not remember what
        came next.
        """
        if after is None:
            # Known before anything has come, so that a connection that breaks until then loses nothing either.
            after = (self.transport.call("listEvents", {}, query={"type": _NO_TYPE}))["next"]
        query: dict[str, Any] = {"sandbox": list(sandboxes or ()), "type": list(types or ()), "after": after}
        broke = 0
        while True:
            try:
                answer = self.transport.open("listEvents", {}, query=query, accept="text/event-stream")
                for event in events_of(answer):
                    broke = 0
                    if event.name == "lost":
                        if on_lost is not None:
                            on_lost()
                        continue
                    query["after"] = event.data["seq"]
                    yield event.data
            except StockadeError as error:
                if error.code not in ("CONNECTION", "SHUTTING_DOWN") or broke >= _RESUMES_MAX:
                    raise
            broke += 1
            sleep(_RESUME_INTERVAL_S)

    def audit(
        self, *, after: Optional[int] = None, limit: Optional[int] = None, sandbox: Optional[str] = None
    ) -> api.AuditLines:
        """Who asked for what, and what became of it: the last records, or those after one."""
        query = {"after": after, "limit": limit, "sandbox": sandbox}
        lines: api.AuditLines = self.transport.call("listAudit", {}, query=query)
        return lines

    def metrics(self) -> str:
        """Numbers for monitoring, in the text format of Prometheus. For root and operators."""
        answer = self.transport.open("getMetrics", {})
        return b"".join([part for part in bytes_of(answer)]).decode()

    def quota(self) -> api.QuotaView:
        """How much the caller may have, and has."""
        quota: api.QuotaView = self.transport.call("getQuota", {})
        return quota

    def close(self) -> None:
        self.transport.close()

    def __enter__(self) -> "Stockade":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


__all__ = [
    "Attachment",
    "Images",
    "Process",
    "Sandbox",
    "Session",
    "Stockade",
    "Terminal",
]
