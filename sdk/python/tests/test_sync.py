# Written by generate_sync.py from tests/test_async.py. Change that and run it again.
"""The client against a real daemon."""

import copy
import io
import json
import math
import os
import pickle
import secrets
import sys
import tarfile
import time
import types
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from websockets.exceptions import ConnectionClosed

from at_once import sleep, gather, in_turn  # noqa: F401
from stockade_sandbox import (
    Sandbox,
    Stockade,
    CodeError,
    CommandFailedError,
    CommandNotStartedError,
    CommandResult,
    ConflictError,
    ConnectionLostError,
    DeniedError,
    Execution,
    InvalidRequestError,
    LogMatch,
    MountError,
    NotFoundError,
    OutboundRequest,
    OutboundResponse,
    Output,
    PortError,
    ProcessExitedError,
    SessionEndedError,
    Shown,
    StockadeError,
    WaitTimeoutError,
)
from stockade_sandbox._sync.transport import Transport
from stockade_sandbox.api import MountCredentials

pytestmark = pytest.mark.anyio


def test_a_command_runs_and_its_result_is_whole(daemon: str) -> None:
    with Sandbox.create(socket=daemon, env={"A": "b"}) as sandbox:
        result = sandbox.run(["sh", "-c", "echo $A; printf '\\377' >&2; exit 3"])
        assert (result.exit_code, result.stdout, result.stderr_bytes, result.ok) == (3, "b\n", b"\xff", False)
        assert result.duration > 0 and not result.timed_out
        assert (sandbox.run("cat", stdin=b"\0\xff")).stdout_bytes == b"\0\xff"
        assert (sandbox.run("cat; pwd", stdin="text", cwd="/tmp")).stdout == "text/tmp\n"
        with pytest.raises(CommandFailedError) as failed:
            sandbox.run("echo why >&2; false", check=True)
        assert failed.value.result.stderr == "why\n"
        late = sandbox.run("echo before; sleep 60", timeout=0.2)
        assert (late.timed_out, late.stdout, late.ok) == (True, "before\n", False)
        with pytest.raises(CommandNotStartedError) as missing:
            sandbox.run(["/no/such/program"])
        error = missing.value
        assert error.code == "COMMAND_NOT_IN_IMAGE" and error.request_id and error.hint and error.status == 422


def test_a_time_is_a_time_and_a_command_a_command(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        process = sandbox.processes.start("sleep 600")
        for bad in (0, -1, 0.0, -0.001, math.nan, math.inf, -math.inf):
            for ask in (
                lambda: sandbox.run("touch /tmp/ran", timeout=bad),
                lambda: sandbox.sessions.get().run("touch /tmp/ran", timeout=bad),
                lambda: sandbox.commands.attach("touch /tmp/ran", timeout=bad),
                lambda: sandbox.processes.start("touch /tmp/ran", timeout=bad),
                lambda: sandbox.code.run("1", timeout=bad),
                lambda: sandbox.code.create(timeout=bad),
                lambda: sandbox.git.clone("/x", timeout=bad),
                lambda: sandbox.set_lifecycle(idle_timeout=bad),
                lambda: sandbox.set_lifecycle(ttl=bad),
                lambda: sandbox.mounts.unmount("/x", timeout=bad),
                lambda: process.wait(bad),
                lambda: process.wait_for_log("x", timeout=bad),
                lambda: process.wait_for_port(1, timeout=bad),
            ):
                with pytest.raises(ValueError) as refused:
                    ask()
                assert "greater than 0" in str(refused.value)
        for bad in (-1, math.nan):
            with pytest.raises(ValueError):
                process.kill(bad)
            with pytest.raises(ValueError):
                sandbox.ports.request(8000, wait=bad)
            with pytest.raises(ValueError):
                Stockade(daemon, absence_timeout=bad)
        assert process.running and not sandbox.files.exists("/tmp/ran")
        with pytest.raises(PortError):
            sandbox.ports.request(8000, wait=0)
        process.kill(0)
        assert process.view.get("signal") == "SIGKILL"
        wrong: Any
        for wrong in (5, None, b"true", ["a", 5], {"a": 1}, [Path("x")], 1.5):
            with pytest.raises(TypeError) as mistaken:
                sandbox.run(wrong)
            assert "a command is" in str(mistaken.value)
        assert (sandbox.run(("echo", "a"))).stdout == "a\n"
        wrong = None
        with pytest.raises(ValueError):
            sandbox.run("true", env={"A": wrong})
        wrong = 5
        with pytest.raises(TypeError):
            sandbox.sessions.create(env={"A": wrong})


def test_a_result_shows_itself_in_a_notebook(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        bundle = (sandbox.run("echo '<b>'; echo oops >&2; exit 2"))._repr_mimebundle_()
        assert bundle["text/plain"] == "<b>\noops\n[exit code 2]\n"
        assert "&lt;b&gt;" in bundle["text/html"] and "exit code 2" in bundle["text/html"]


def test_a_notebook_shows_all_of_an_execution(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[Any] = []
    display = types.ModuleType("IPython.display")
    display.__dict__["display"] = lambda data, **more: shown.append((data, more))
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    results = (Shown({"image/png": "AA=="}, {"image/png": {"width": 1}}), Shown({"text/plain": "42"}))
    error = CodeError("ValueError", "no", ("Traceback:", "ValueError: no"))
    Execution("out\n", "err", results, error, 1, 0.1, "behind\n")._ipython_display_()
    written = capsys.readouterr()
    assert written.out == "out\nbehind\n" and written.err == "err\nTraceback:\nValueError: no\n"
    assert [data for data, _ in shown] == [{"image/png": "AA=="}, {"text/plain": "42"}]
    assert shown[0][1] == {"metadata": {"image/png": {"width": 1}}, "raw": True}


def test_output_comes_while_the_command_runs(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        seen: list[Any] = []
        for part in sandbox.commands.stream("echo one; until [ -e /tmp/go ]; do sleep 0.01; done; echo two"):
            seen.append(part.text if isinstance(part, Output) else part)
            if seen == ["one\n"]:
                sandbox.files.write("/tmp/go", b"")
        assert seen[:2] == ["one\n", "two\n"] and isinstance(seen[2], CommandResult) and seen[2].ok
        called: list[str] = []
        result = sandbox.run("echo out; echo err >&2", on_stdout=called.append, on_stderr=called.append)
        assert sorted(called) == ["err\n", "out\n"] and result.stdout == "out\n"


def test_many_commands_at_once(daemon: str) -> None:
    with Sandbox.create(socket=daemon, resources={"pids": 2000, "memory_bytes": 1 << 31}) as sandbox:
        results = in_turn(*[sandbox.run(["echo", str(number)]) for number in range(200)])
        assert [result.stdout for result in results] == [f"{number}\n" for number in range(200)]


def test_far_more_at_once_than_there_are_connections(daemon: str) -> None:
    with Stockade(daemon) as stockade:
        begun = time.process_time()
        answers = in_turn(*[stockade.health() for _ in range(1000)])
        assert len(answers) == 1000
        # Each looked at all others: it took ten times as long.
        assert time.process_time() - begun < 4


def test_what_has_ended_takes_no_connection(daemon: str) -> None:
    with Stockade(daemon) as stockade, stockade.create() as sandbox:
        sandbox.files.write("/tmp/f", bytes(300_000))
        for _ in range(410):
            with pytest.raises(NotFoundError):
                sandbox.files.stat("/nowhere")
            with pytest.raises(PortError):
                sandbox.ports.request(8000)
            parts: Any = sandbox.files.stream("/tmp/f")
            assert next(parts)
            parts.close()
        assert (sandbox.run("true")).ok


def test_live_input_and_output(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        with sandbox.commands.attach("while read line; do echo got $line; done; exit 5") as attachment:
            attachment.write("one\n")
            text = b""
            for part in attachment.output():
                text += part.data
                if text == b"got one\n":
                    attachment.write(b"two\n")
                    attachment.end()
            assert text == b"got one\ngot two\n"
            assert attachment.result is not None and attachment.result.exit_code == 5


def test_sessions_remember(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        session = sandbox.sessions.create("dev", env={"A": "1"}, cwd="/tmp")
        session.run("cd /; f() { echo from f $A; }")
        assert (session.run("f; pwd")).stdout == "from f 1\n/\n"
        assert (sandbox.sessions.get().run("pwd")).stdout == "/workspace\n"
        with pytest.raises(SessionEndedError) as ended:
            session.run("exit 7")
        assert ended.value.context["exit_code"] == 7
        with pytest.raises(ConflictError):
            sandbox.sessions.create("dev")
        assert {view["id"] for view in sandbox.sessions.list()} == {"default", "dev"}
        session.delete()
        with pytest.raises(NotFoundError):
            session.info()


def test_processes_are_started_waited_for_and_killed(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        server = sandbox.processes.start(["python3", "-um", "http.server", "8000"], id="server", cwd="/workspace")
        server.wait_for_port(8000, path="/", timeout=30)
        match = server.wait_for_log(regex=r"port (\d+)", timeout=30)
        assert match.groups[1] == "8000"
        status, headers, body = sandbox.ports.request(8000, "/")
        assert status == 200 and b"Directory listing" in body and "content-type" in headers
        with pytest.raises(WaitTimeoutError):
            server.wait_for_log("never", timeout=0.05)
        server.kill()
        assert not server.running
        with pytest.raises(ProcessExitedError):
            server.wait_for_log("never")
        assert b"GET /" in server.logs()
        cat = sandbox.processes.start("cat; exit 4", stdin=True)
        cat.write(b"bytes ")
        cat.write(io.BytesIO(b"of a file"))
        cat.close_stdin()
        assert cat.wait() == 4
        assert cat.logs("stdout") == b"bytes of a file"
        assert [process.id for process in sandbox.processes.list()] == ["server", cat.id]
        cat.remove()
        with pytest.raises(NotFoundError):
            sandbox.processes.get(cat.id)


def test_a_log_whose_connection_breaks_comes_whole_and_once(daemon: str, breaking: Callable[..., Any]) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        script = 'for i in $(seq 1 40000); do echo "$i ä€🦀"; done; sleep 0.3; echo end'
        process = sandbox.processes.start(["bash", "-c", script])
        # Anywhere: in a head, in an event, in a character. The first connection is for what is not asked again.
        broken = breaking(lambda number: 60_000 if number == 0 else 1 + secrets.randbelow(120_000))
        other = Sandbox.get(sandbox.id, socket=broken.socket)
        text = b"".join([part.data for part in (other.processes.get(process.id)).follow()])
        expected = "".join(f"{number} ä€🦀\n" for number in range(1, 40_001)) + "end\n"
        assert text == expected.encode()
        assert broken.broken > 5
        other.close()


def test_a_terminal_whose_connection_breaks_is_whole_and_once(daemon: str, breaking: Callable[..., Any]) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        script = "read go; for i in $(seq 1 30000); do echo $i; done; sleep 0.3; echo end"
        terminal = sandbox.terminals.open(["bash", "-c", script])
        terminal.write("go\n")
        broken = breaking(lambda number: 70_000 + number * 7_919 % 20_000)
        other = Sandbox.get(sandbox.id, socket=broken.socket)
        text = b"".join([part for part in (other.terminals.get(terminal.id)).output()])
        assert text == b"go\r\n" + b"".join(b"%d\r\n" % number for number in range(1, 30_001)) + b"end\r\n"
        assert broken.broken >= 2
        other.close()


def test_events_come_once_each_whatever_connection_breaks(daemon: str, breaking: Callable[..., Any]) -> None:
    types = ["command.started", "command.exited", "sandbox.destroyed"]
    broken = breaking(lambda number: 3_000)
    with Stockade(daemon) as stockade, Stockade(broken.socket) as other:
        sandbox = stockade.create()
        for _ in range(25):
            sandbox.run("true")
        sandbox.destroy()
        seen = []
        for event in other.events(sandboxes=[sandbox.id], types=types, after=1):
            seen.append(event["seq"])
            if event["type"] == "sandbox.destroyed":
                break
        query = {"sandbox": sandbox.id, "type": types, "after": 1, "limit": 1000}
        expected = (stockade.transport.call("listEvents", {}, query=query))["events"]
        assert len(expected) >= 51
        assert seen == [event["seq"] for event in expected]
        assert broken.broken >= 3


def test_a_watch_whose_connection_breaks_says_so(daemon: str, breaking: Callable[..., Any]) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        cursor = (sandbox.files.changes("/workspace")).cursor
        broken = breaking(lambda number: 3_000)
        other = Sandbox.get(sandbox.id, socket=broken.socket)
        watch = other.files.watch("/workspace")
        sandbox.run("cd /workspace && for i in $(seq 1 200); do echo $i > $i.txt; done")
        with pytest.raises(ConnectionLostError):
            for _ in watch:
                pass
        missed = sandbox.files.changes("/workspace", cursor)
        assert missed.status == "changed"
        assert (sandbox.files.changes("/workspace", missed.cursor)).status == "unchanged"
        other.close()


def test_a_reader_that_was_away_for_too_long_hears_how_much_it_has_missed(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        process = sandbox.processes.start(["seq", "1", "100000"], log_bytes_max=65_536)
        process.wait()
        dropped: list[int] = []
        kept = b"".join([part.data for part in process.follow(0, on_dropped=dropped.append)])
        assert dropped and sum(dropped) + len(kept) == 588_895
        assert kept.endswith(b"\n100000\n")


def test_a_command_is_not_sent_twice_when_its_connection_breaks(daemon: str, breaking: Callable[..., Any]) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        broken = breaking(lambda number: 0)
        with Stockade(broken.socket) as stockade:
            lost = type(sandbox)(sandbox.id, stockade.transport)
            with pytest.raises(ConnectionLostError):
                lost.run("echo x >> /tmp/times")
            assert sandbox.files.read_text("/tmp/times") == "x\n"
            assert broken.broken == 1
            with pytest.raises(ConnectionLostError):
                stockade.health()
            assert broken.broken == 3, "what only reads is asked twice"


def test_a_wait_is_taken_up_again(daemon: str, breaking: Callable[..., Any]) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        started = sandbox.processes.start("read a; echo said $a; python3 -m http.server 8000", stdin=True)
        process = sandbox.processes.get(started.id)
        started.write(b"it\n")
        asked: list[Callable[[], Any]] = [
            lambda: process.wait_for_log(regex=r"said (\w+)", timeout=30),
            lambda: process.wait_for_port(8000, timeout=30),
            lambda: process.wait(timeout=30),
        ]
        for number, ask in enumerate(asked):
            own = Transport(breaking(lambda number: 0 if number < 3 else 60_000).socket)
            process._transport = own
            if number == 2:
                started.signal("SIGKILL", tree=True)
            answer = ask()
            if number == 0:
                assert isinstance(answer, LogMatch) and answer.groups == ("said it", "it")
            own.close()
        # A wait that times out does so in its time, whatever breaks.
        late = sandbox.processes.start("sleep 600")
        late._transport = Transport(breaking(lambda number: 0 if number < 2 else 60_000).socket)
        begun = time.monotonic()
        with pytest.raises(WaitTimeoutError):
            late.wait_for_log("never", timeout=1.5)
        assert 1.4 < time.monotonic() - begun < 5
        late._transport.close()
        process._transport = Transport(breaking(lambda number: 0).socket)
        with pytest.raises(ConnectionLostError):
            process.wait()
        process._transport.close()


def test_errors_go_to_other_processes(daemon: str) -> None:
    with Stockade(daemon) as stockade, stockade.create() as sandbox:
        asked: list[Callable[[], Any]] = [
            lambda: sandbox.run("echo why >&2; false", check=True),
            lambda: sandbox.run(["/no/such/program"]),
            lambda: sandbox.sessions.get("nobody").info(),
            lambda: stockade.images.get(".."),
            lambda: sandbox.ports.request(8000),
            lambda: type(stockade)("/nowhere", absence_timeout=0).health(),
        ]
        for ask in asked:
            with pytest.raises(StockadeError) as failed:
                ask()
            error = failed.value
            for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
                assert type(again) is type(error) and str(again) == str(error) and again.args == error.args
                assert vars(again) == vars(error)
        timed = WaitTimeoutError("WAIT_TIMEOUT", "late", hint="wait")
        assert str(pickle.loads(pickle.dumps(timed))) == "WAIT_TIMEOUT: late (wait)"


def test_files(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        files = sandbox.files
        files.mkdir("/workspace/a/b", parents=True, mode=0o750)
        info = files.write("/workspace/a/b/c.txt", "one\ntwo needle\n", mode=0o640)
        assert (info.name, info.size, info.mode, info.is_file) == ("c.txt", 15, 0o640, True)
        assert info.modified_at.tzinfo is not None
        assert files.read("/workspace/a/b/c.txt", start=4, end=7) == b"two"
        files.write("odd \udcff name", b"\0\xff")
        assert files.read("odd \udcff name") == b"\0\xff"
        files.remove("odd \udcff name")
        files.symlink("b/c.txt", "a/link")
        assert (files.stat("a/link", follow_symlinks=False)).target == "b/c.txt"
        files.chmod("a/b/c.txt", 0o600)
        files.chown("a/b/c.txt", "0:0")
        files.copy("a", "copy")
        files.rename("copy", "moved")
        assert not files.exists("copy")
        listed = files.list("moved", recursive=True)
        assert [(one.path, one.type) for one in listed] == [("b", "directory"), ("b/c.txt", "file"), ("link", "symlink")]
        assert (files.search("moved", "needle"))["matches"][0]["line"] == 2
        tar = b"".join([part for part in files.download_archive("moved")])
        assert "b/c.txt" in [name.removeprefix("./") for name in tarfile.open(fileobj=io.BytesIO(tar)).getnames()]
        files.upload_archive("/tmp/unpacked", io.BytesIO(tar))
        assert files.read_text("/tmp/unpacked/b/c.txt") == "one\ntwo needle\n"
        with pytest.raises(ConflictError):
            files.remove("moved")
        files.remove("moved", recursive=True)
        files.remove("moved", missing_ok=True)
        with pytest.raises(NotFoundError) as missing:
            files.read("/nowhere")
        assert missing.value.code == "FILE_NOT_FOUND"


def test_a_part_of_a_file_is_what_a_slice_of_it_would_be(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        for data in (b"0123456789", b""):
            sandbox.files.write("/tmp/f", data)
            for start, end in [(2, 2), (0, 0), (3, 7), (10, None), (10, 12), (99, None), (99, 99), (8, 99), (9, 10), (0, None)]:
                assert sandbox.files.read("/tmp/f", start=start, end=end) == data[start:end]
                parts = [part for part in sandbox.files.stream("/tmp/f", start=start, end=end)]
                assert b"".join(parts) == data[start:end]
        for start, end in [(3, 2), (-1, None), (0, -1), (-2, -1)]:
            with pytest.raises(ValueError):
                sandbox.files.read("/tmp/f", start=start, end=end)
        wrong: Any
        for wrong in (1.5, "1", True):
            with pytest.raises(TypeError):
                sandbox.files.read("/tmp/f", start=wrong)
        with pytest.raises(NotFoundError):
            sandbox.files.read("/nowhere", start=2, end=2)


def test_what_is_written_is_bytes_or_nothing_is_written(daemon: str, tmp_path: Path) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        like: Any
        wide = memoryview(b"abcdefgh").cast("I")
        some: list[Any] = [bytearray(b"abcd"), memoryview(b"efgh")]
        for like in (bytearray(b"abcdefgh"), memoryview(b"abcdefgh"), wide, some):
            assert (sandbox.files.write("/tmp/f", like)).size == 8
            assert sandbox.files.read("/tmp/f") == b"abcdefgh"
        assert (sandbox.run("cat", stdin=bytearray(b"a"))).stdout == "a"
        (tmp_path / "text").write_text("text")
        wrong: Any
        for wrong in (None, 5, 1.5, object(), ["text"], [5], {"a": 1}, (tmp_path / "text").open()):
            with pytest.raises(TypeError) as refused:
                sandbox.files.write("/tmp/f", wrong)
            assert "content is to be" in str(refused.value)
            with pytest.raises(TypeError):
                sandbox.files.upload_archive("/tmp/u", wrong)
        with pytest.raises(TypeError):
            sandbox.run("cat", stdin=wrong)
        with pytest.raises(TypeError):
            sandbox.ports.request(8000, body=wrong)
        assert sandbox.files.read("/tmp/f") == b"abcdefgh"


def test_many_megabytes_go_both_ways(daemon: str, tmp_path: Path) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        big = tmp_path / "big"
        big.write_bytes(os.urandom(1 << 20) * 64)
        with big.open("rb") as file:
            sandbox.files.write("/workspace/big", file)
        back = b"".join([part for part in sandbox.files.stream("/workspace/big")])
        assert back == big.read_bytes()


def test_a_large_file_comes_whole_and_a_part_of_it(daemon: str, breaking: Callable[..., Any]) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        data = os.urandom(9 * 1024 * 1024 + 7)
        sandbox.files.write("/tmp/large", data)
        assert sandbox.files.read("/tmp/large") == data
        assert sandbox.files.read("/tmp/large", start=3, end=8_000_000) == data[3:8_000_000]
        # A connection that breaks in the middle of it: the ordinary way is tried, and says so.
        cut = Sandbox.get(sandbox.id, socket=breaking(lambda number: 5_000_000).socket)
        with pytest.raises(ConnectionLostError):
            cut.files.read("/tmp/large")
        cut.close()


def test_changes(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        before = sandbox.files.changes("/workspace", exclude=["*.md", "*.tmp"])
        assert before.status == "unchanged"
        kinds: list[tuple[str, str]] = []
        process = sandbox.processes.start("read go; touch x.md; echo 1 > a.txt; mv a.txt b.txt; rm b.txt", stdin=True)
        watch = sandbox.files.watch("/workspace", include=["*.txt"])
        process.write(b"go\n")
        for change in watch:
            kinds.append((change.kind, change.path))
            if change.kind in ("delete", "gone"):
                break
        assert kinds[-1] == ("delete", "b.txt") and all(not path.endswith(".md") for _, path in kinds)
        after = sandbox.files.changes("/workspace", before.cursor, exclude=["*.md", "*.tmp"])
        assert after.status == "changed"


def test_variables_network_and_git(daemon: str) -> None:
    with Sandbox.create(socket=daemon, network={"allow": ["example.org"]}) as sandbox:
        sandbox.env.update({"A": "1"}, B="2")
        assert (sandbox.env.update(A=None))["B"] == "2"
        assert (sandbox.run("echo $A $B")).stdout == "2\n"
        env = sandbox.env.get()
        sandbox.env.replace(env)
        assert (sandbox.network.get())["policy"].get("allow") == ["example.org"]
        assert (sandbox.network.set({"deny": ["example.org"]}, dry_run=True))["dry_run"]
        assert (sandbox.network.events(limit=5))["events"] == []
        made = "git init -q -b main r && cd r && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first"
        sandbox.run(made, check=True)
        clone = sandbox.git.clone("/workspace/r", "/workspace/clone")
        assert (clone.path, clone.branch) == ("/workspace/clone", "main")
        with pytest.raises(NotFoundError):
            sandbox.git.clone("/workspace/nothing")


def test_ports(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        exposed = sandbox.ports.expose(8000, name="web", token="abc_1")
        assert (exposed.port, exposed.token, exposed.name) == (8000, "abc_1", "web")
        assert exposed.url is None or f"8000-{sandbox.id}-abc_1" in exposed.url
        assert sandbox.ports.get(8000) == exposed and sandbox.ports.list() == [exposed]
        sandbox.ports.revoke(8000)
        with pytest.raises(NotFoundError):
            sandbox.ports.get(8000)
        with pytest.raises(PortError):
            sandbox.ports.request(8000)
        with pytest.raises(PortError):
            sandbox.ports.connect(8000)


def test_a_name_leads_nowhere_else(daemon: str) -> None:
    with Stockade(daemon) as stockade, stockade.create() as sandbox:
        for name in ("..", ".", ""):
            asked: list[Callable[[], Any]] = [
                lambda: stockade.get(name),
                lambda: stockade.images.get(name),
                lambda: stockade.images.remove(name),
                lambda: stockade.snapshots.remove(name),
                lambda: sandbox.sessions.get(name).delete(),
                lambda: sandbox.sessions.get(name).run("true"),
                lambda: sandbox.processes.get(name),
                lambda: sandbox.terminals.get(name),
                lambda: sandbox.mounts.get(name),
                lambda: sandbox.code.delete(name),
                lambda: sandbox.code.result(name),
                lambda: sandbox.commands.signal(name, 9),
                lambda: type(sandbox)(name, stockade.transport).destroy(),
            ]
            for ask in asked:
                with pytest.raises(InvalidRequestError) as refused:
                    ask()
                assert refused.value.code in ("INVALID_ID", "INVALID_REFERENCE") and refused.value.hint
        for name in ("../..", "%2e%2e", "a/../..", "..\\"):
            with pytest.raises(NotFoundError):
                sandbox.sessions.get(name).delete()
        assert (sandbox.info())["state"] == "running"


#: Answers with the line that asked.
ECHO = """
import socket
listener = socket.create_server(("127.0.0.1", 8000))
while True:
    connection = listener.accept()[0]
    line = connection.makefile("rb").readline().strip()
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nconnection: close\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(line) + line)
    connection.close()
"""


def test_a_path_reaches_the_server_as_it_is(daemon: str) -> None:
    with Stockade(daemon) as stockade, stockade.create() as sandbox:
        with stockade.create() as victim:
            server = sandbox.processes.start(["python3", "-c", ECHO])
            server.wait_for_port(8000, timeout=30)
            whole = [f"/../../../../{victim.id}", f"/../../../../../v1/sandboxes/{victim.id}", "//x", "/./a/../b?q=/../c&d"]
            for path in [*whole, "/%2e%2e/%2F", "/a\\..\\b", '/a^|"{}[]', "/@:;?a=b?c"]:
                status, _, body = sandbox.ports.request(8000, path, method="DELETE")
                assert (status, body.decode()) == (200, f"DELETE {path} HTTP/1.1")
            for path, sent in [("", "/"), ("?a", "/?a"), ("/ä b", "/%C3%A4%20b"), ("/<`>", "/%3C%60%3E")]:
                assert (sandbox.ports.request(8000, path))[2].decode() == f"GET {sent} HTTP/1.1"
            for path in ("x", "../x", "http://example.org/", "\\x", "@x", "/a\r\nb: c", "/\0", "/\x7f", "/a#b"):
                with pytest.raises(InvalidRequestError) as refused:
                    sandbox.ports.request(8000, path)
                assert refused.value.context == {"field": "path"}
            with pytest.raises(InvalidRequestError):
                sandbox.ports.request(8000, method="GET /x HTTP/1.1\r\n\r\nGET")
            with pytest.raises(InvalidRequestError):
                sandbox.ports.request(8000, headers={"a": "b\r\nc: d"})
            assert (victim.info())["state"] == "running"


#: Says what asked for a WebSocket, and speaks one: text comes back, and "end" ends it. What asks for /else goes elsewhere.
SOCKETS = """
import base64, hashlib, json, socket, struct, sys
listener = socket.create_server(("127.0.0.1", 8000))
while True:
    connection = listener.accept()[0]
    file = connection.makefile("rb")
    head = b""
    while not head.endswith(b"\\r\\n\\r\\n"):
        line = file.readline()
        if not line:
            break
        head += line
    if not head:
        continue
    lines = head.decode().split("\\r\\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:-2])
    given = dict(line.split(": ", 1) for line in lines[1:-2])
    key = next((value for name, value in given.items() if name.lower() == "sec-websocket-key"), "")
    if "/else" in lines[0]:
        connection.sendall(b"HTTP/1.1 302 Found\\r\\nlocation: " + sys.argv[1].encode() + b"\\r\\ncontent-length: 0\\r\\n\\r\\n")
        connection.shutdown(socket.SHUT_RDWR)
        continue
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    answer = "HTTP/1.1 101 x\\r\\nupgrade: websocket\\r\\nconnection: upgrade\\r\\nsec-websocket-accept: "
    answer += base64.b64encode(digest).decode() + "\\r\\n"
    if "sec-websocket-protocol" in headers:
        answer += "sec-websocket-protocol: " + headers["sec-websocket-protocol"].split(", ")[-1] + "\\r\\n"
    connection.sendall(answer.encode() + b"\\r\\n")
    def frame(code, data):
        size = bytes([len(data)]) if len(data) < 126 else b"\\x7e" + struct.pack(">H", len(data))
        connection.sendall(bytes([128 | code]) + size + data)
    frame(1, json.dumps([lines[0], headers.get("x-a"), headers.get("origin")]).encode())
    while True:
        first = file.read(2)
        if len(first) < 2:
            break
        size = first[1] & 127
        size = struct.unpack(">H", file.read(2))[0] if size == 126 else size
        mask = file.read(4)
        data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(file.read(size)))
        code = first[0] & 15
        if code == 8:
            frame(8, data)
            break
        if data == b"end":
            frame(8, struct.pack(">H", 4321) + b"enough")
            break
        frame(code, data)
    connection.shutdown(socket.SHUT_RDWR)
"""


def test_a_websocket_of_a_server(daemon: str) -> None:
    with Stockade(daemon) as stockade, stockade.create() as sandbox:
        with stockade.create() as victim:
            with pytest.raises(PortError) as closed:
                sandbox.ports.websocket(8000)
            assert closed.value.code == "PORT_CLOSED"
            elsewhere = f"/v1/sandboxes/{victim.id}/commands/attach"
            sandbox.processes.start(["python3", "-c", SOCKETS, elsewhere])
            ask = sandbox.ports.websocket
            headers = {"X-A": "b", "Origin": "https://app.test"}
            with ask(8000, "/?a", headers=headers, subprotocols=["one", "two"], wait=30) as socket:
                assert json.loads(socket.recv()) == ["GET /?a HTTP/1.1", "b", "https://app.test"]
                assert socket.subprotocol == "two"
                for message in ("ä", b"\0\xff", "x" * 60_000, ""):
                    socket.send(message)
                    assert socket.recv() == message
                socket.send("end")
                with pytest.raises(ConnectionClosed) as ended:
                    socket.recv()
                assert ended.value.rcvd is not None
                assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (4321, "enough")
            for path in ("/../../../../../v1/info", "//x;y", "/%2e%2e/%2F?", "/a;b=c?d;e", '/^|"{}[]'):
                with ask(8000, path) as socket:
                    assert json.loads(socket.recv())[0] == f"GET {path} HTTP/1.1"
                    socket.close(4000, "done")
                    assert socket.close_code == 4000
            with pytest.raises(PortError) as led:
                ask(8000, "/else")
            assert led.value.status == 302
            for wrong in ({"a": "b\r\nc: d"}, {"a b": "c"}, {"Sec-WebSocket-Key": "x"}, {"upgrade": "tcp"}):
                with pytest.raises(InvalidRequestError) as refused:
                    ask(8000, headers=wrong)
                assert refused.value.context == {"field": "headers"}
            for name in ("", "a, b", "a\r\nb: c"):
                with pytest.raises(InvalidRequestError):
                    ask(8000, subprotocols=[name])
            for path in ("x", "/a\r\nb: c", "/a#b"):
                with pytest.raises(InvalidRequestError):
                    ask(8000, path)
            with ask(8000, message_bytes_max=1000) as socket:
                socket.recv()
                socket.send("x" * 2000)
                with pytest.raises(ConnectionClosed):
                    socket.recv()
    with pytest.raises(NotFoundError):
        sandbox.ports.websocket(8000)


def test_what_a_sandbox_asks_a_host_for_is_answered_here(daemon: str, caplog: pytest.LogCaptureFixture) -> None:
    def handler(request: OutboundRequest) -> OutboundResponse:
        if request.url.endswith("/raise"):
            raise RuntimeError("secret detail")
        if request.url.endswith("/wrong"):
            return OutboundResponse(headers={"a": "b\r\nc: d"})
        if request.url.endswith("/none"):
            return OutboundResponse(204)
        if request.url.endswith("/pairs"):
            return OutboundResponse(201, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Content-Length", "9")], "two")
        told = [request.method, request.url, len(request.body), request.headers.get("x-a"), request.sandbox_id]
        return OutboundResponse(headers={"content-type": "application/json"}, body=json.dumps(told))

    handlers = Path(daemon).parent / "handlers"
    before = set(handlers.iterdir())
    with Stockade(daemon) as stockade, stockade.create() as sandbox:
        network = sandbox.network
        network.set_outbound_by_host("api.internal", handler)
        (made,) = set(handlers.iterdir()) - before
        assert made.stat().st_mode & 0o777 == 0o600
        for scheme in ("http", "https"):
            asked = sandbox.run(f"curl -sS -H 'X-A: b' -d hi {scheme}://api.internal/a?b", check=True)
            assert json.loads(asked.stdout) == ["POST", f"{scheme}://api.internal/a?b", 2, "b", sandbox.id]
        large = "head -c 3000000 /dev/zero | curl -sS -T - http://api.internal/large"
        assert json.loads((sandbox.run(large, check=True)).stdout)[2] == 3_000_000
        head = (sandbox.run("curl -sSI http://api.internal/", check=True)).stdout
        assert head.startswith("HTTP/1.1 200") and "application/json" in head
        pairs = (sandbox.run("curl -sSi http://api.internal/pairs", check=True)).stdout
        assert pairs.startswith("HTTP/1.1 201") and pairs.endswith("two")
        assert "a=1" in pairs and "b=2" in pairs
        assert (sandbox.run("curl -sSi http://api.internal/none")).stdout.startswith("HTTP/1.1 204")
        for path in ("raise", "wrong"):
            failed = (sandbox.run(f"curl -sSi http://api.internal/{path}", check=True)).stdout
            assert failed.startswith("HTTP/1.1 500") and "secret" not in failed and "c: d" not in failed
        assert "secret detail" in caplog.text
        for sent in ("-H 'Expect:'", "-H 'Transfer-Encoding: chunked' -H 'Expect:'", ""):
            code = f"truncate -s 65M /tmp/f; curl -sS -o /dev/null -w '%{{http_code}}' {sent} -T /tmp/f http://api.internal/"
            assert (sandbox.run(code)).stdout.endswith("413")
        assert (sandbox.run("seq 100 | xargs -P 20 -I N curl -sSf -o /dev/null http://api.internal/N")).ok
        # Another one takes its place, and nothing of it is left.
        network.set_outbound_by_host("api.internal", handler)
        (again,) = set(handlers.iterdir()) - before
        assert again != made and (sandbox.run("curl -sSf http://api.internal/")).ok
        network.remove_outbound_by_host("api.internal")
        assert set(handlers.iterdir()) == before
        assert not (sandbox.run("curl -sSf -m 5 http://api.internal/")).ok
        wrong: Any = "handler"
        with pytest.raises(TypeError):
            network.set_outbound_by_host("api.internal", wrong)
        with pytest.raises(StockadeError):
            network.set_outbound_by_host("no host/", handler)
        assert set(handlers.iterdir()) == before
        network.set_outbound_by_host("one.internal", handler)
        with Sandbox.get(sandbox.id, socket=daemon, handlers_directory="/no/such") as other:
            with pytest.raises(InvalidRequestError) as nowhere:
                other.network.set_outbound_by_host("a.internal", handler)
            assert nowhere.value.context["path"] == "/no/such" and nowhere.value.hint
    assert set(handlers.iterdir()) == before


def test_recordings(daemon: str) -> None:
    with Sandbox.create() as sandbox:
        result = sandbox.run("echo recorded", record=True)
        heard: list[str] = []
        streamed = sandbox.run(["cat"], stdin="typed", record={"input": True}, on_stdout=heard.append)
        with sandbox.terminals.open(["sh", "-c", "echo shown"], record=True) as terminal:
            text = b"".join([part for part in terminal.output()])
            info = terminal.info()
        kept = sandbox.recordings.list()
        assert [one["id"] for one in kept] == [result.recording, streamed.recording, info.get("recording")]
        assert kept[2].get("terminal") == terminal.id and kept[1]["input"] and not kept[0]["input"]
        cast = [json.loads(line) for line in (sandbox.recordings.get(kept[2]["id"])).splitlines()]
        assert cast[0]["version"] == 2 and "".join(event[2] for event in cast[1:]).encode() == text
        assert b'"i","typed"' in sandbox.recordings.get(kept[1]["id"])
        sandbox.recordings.remove(kept[0]["id"])
        with pytest.raises(NotFoundError):
            sandbox.recordings.get(kept[0]["id"])
        assert (sandbox.run("true")).recording is None


def test_terminals(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        with sandbox.terminals.open(["bash", "--norc"], columns=90, rows=20, cwd="/tmp") as terminal:
            terminal.write("stty size; pwd\n")
            seen = b""
            for part in terminal.output():
                seen += part
                if b"/tmp\r\n" in seen:
                    break
            assert b"20 90" in seen
            terminal.resize(100, 50)
            terminal.write("stty size; exit 4\n")
            rest = b"".join([part for part in terminal.output(len(seen))])
            assert b"50 100" in rest and b"20 90" not in rest
            assert (terminal.info()).get("exit_code") == 4
            assert [view["id"] for view in sandbox.terminals.list()] == [terminal.id]
        with pytest.raises(NotFoundError):
            sandbox.terminals.get(terminal.id)


def test_the_daemon(daemon: str) -> None:
    with Stockade(daemon) as stockade:
        assert (stockade.health())["status"] == "ok"
        assert (stockade.info())["api"] == "v1"
        assert "paths" in stockade.openapi()
        with stockade.create(labels={"made": "by-python"}) as sandbox:
            assert sandbox.id in [view["id"] for view in stockade.list("made=by-python")]
            again = stockade.get(sandbox.id)
            assert (again.info())["labels"] == {"made": "by-python"}
        with pytest.raises(NotFoundError):
            stockade.get(sandbox.id)
        sandbox.destroy()
        with pytest.raises(NotFoundError):
            stockade.images.get("not/there:1")
        with pytest.raises(InvalidRequestError):
            stockade.create(id="Not An Id")


def test_what_is_mounted_is_there_until_it_is_not(daemon: str) -> None:
    shared = os.environ["STOCKADE_TEST_DIRECTORY"]
    with Sandbox.create(socket=daemon) as sandbox:
        view = sandbox.mounts.mount("/data", endpoint=f"file://{shared}", read_only=True)
        assert view["path"] == "/data" and view["state"] == "mounted"
        assert sandbox.files.read_text("/data/greeting") == "hello\n"
        assert [mount["id"] for mount in sandbox.mounts.list()] == [view["id"]]
        assert sandbox.mounts.get(view["id"]) == view
        with pytest.raises(ConflictError):
            sandbox.mounts.mount("/data/in", endpoint=f"file://{shared}", read_only=True)
        assert (sandbox.mounts.unmount("/data"))["lost_count"] == 0
        with pytest.raises(NotFoundError):
            sandbox.mounts.unmount("/data")
        with pytest.raises(StockadeError) as denied:
            sandbox.mounts.mount("/data", endpoint="file:///etc")
        assert denied.value.code == "DIRECTORY_DENIED" and denied.value.hint


@pytest.mark.skipif("STOCKADE_TEST_S3" not in os.environ, reason="there is no S3 server")
def test_a_bucket_is_files_of_which_a_part_or_nothing_to_write_can_be_mounted(daemon: str) -> None:
    server = json.loads(os.environ["STOCKADE_TEST_S3"])
    key: MountCredentials = {"access_key_id": server["accessKeyId"], "secret_access_key": server["secretAccessKey"]}
    endpoint, prefix, name = server["endpoint"], f"py-{secrets.token_hex(4)}/deep", "Größe 🦀.txt"
    with Sandbox.create(socket=daemon) as sandbox:
        view = sandbox.mounts.mount("/data", "photos", endpoint=endpoint, credentials=key)
        assert view["state"] == "mounted" and server["secretAccessKey"] not in json.dumps(view)
        sandbox.files.write(f"/data/{prefix}/{name}", "hello\n", parents=True)
        told = sandbox.commands.run(["cat", f"/data/{prefix}/{name}"])
        assert told.stdout == "hello\n"
        # Nothing in it knows the key.
        told = sandbox.commands.run("cat /proc/self/mountinfo /proc/*/environ /proc/*/cmdline 2>/dev/null")
        assert "/data" in told.stdout and server["secretAccessKey"] not in told.stdout
        assert (sandbox.mounts.unmount("/data"))["lost_count"] == 0
        options = {"prefix": prefix, "read_only": True}
        sandbox.mounts.mount("/part", "photos", endpoint=endpoint, credentials=key, **options)
        assert [entry.path for entry in sandbox.files.list("/part")] == [name]
        told = sandbox.commands.run("echo x > /part/more")
        assert told.exit_code != 0 and "ead-only" in told.stderr
        with pytest.raises(DeniedError):
            sandbox.files.write("/part/more", "x")
        sandbox.mounts.unmount("/part")
        wrong: MountCredentials = {**key, "secret_access_key": "wrong"}
        failures: list[tuple[str, str, Optional[MountCredentials], str, type[StockadeError]]] = [
            ("nobody", endpoint, key, "BUCKET_NOT_FOUND", NotFoundError),
            ("photos", endpoint, wrong, "BUCKET_DENIED", DeniedError),
            ("photos", "http://127.0.0.1:1", key, "BUCKET_UNREACHABLE", MountError),
            ("photos", endpoint, None, "PERMISSION_DENIED", DeniedError),
            ("../x", endpoint, key, "INVALID_REQUEST", InvalidRequestError),
        ]
        for bucket, server_url, credentials, code, kind in failures:
            with pytest.raises(kind) as refused:
                sandbox.mounts.mount("/data", bucket, endpoint=server_url, credentials=credentials)
            assert refused.value.code == code and refused.value.hint and refused.value.request_id
        assert sandbox.mounts.list() == []


def test_cells_share_their_state(daemon: str) -> None:
    with Sandbox.create(socket=daemon, resources={"memory_bytes": 1 << 30}) as sandbox:
        first = sandbox.code.run("x = 41; print('hi'); x + 1")
        assert (first.stdout, first.text, first.execution_count, first.ok) == ("hi\n", "42", 1, True)
        assert first._repr_mimebundle_()["text/plain"] == "42"
        failed = sandbox.code.run("x / 0")
        assert failed.error is not None and failed.error.name == "ZeroDivisionError"
        sandbox.code.restart()
        gone = sandbox.code.run("x")
        assert gone.error is not None and gone.error.name == "NameError"
        name = sandbox.code.create(env={"A": "b"})
        assert (sandbox.code.run("import os; os.environ['A']", context=name)).text == "'b'"
        assert name in [view["id"] for view in sandbox.code.list()]
        sandbox.code.delete(name)
        with pytest.raises(NotFoundError):
            sandbox.code.run("1", context=name)
        started = sandbox.code.start("import time; time.sleep(0.5); print('slept'); 7")
        assert sandbox.code.result(started) is None
        slept = sandbox.code.result(started, wait=60)
        assert slept is not None and (slept.stdout, slept.text, slept.background) == ("slept\n", "7", "")
        assert [(run["id"], run["ended"]) for run in sandbox.code.runs()] == [(started, True)]
        late = "import threading, time; threading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()"
        sandbox.code.run(late)
        after = sandbox.code.run("time.sleep(0.6); print('on')")
        assert (after.stdout, after.background) == ("on\n", "late\n")


def test_a_stopped_sandbox_keeps_its_files_and_the_next_call_wakes_it(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        sandbox.files.write("/workspace/kept", "here")
        process = sandbox.processes.start("echo said; exec sleep 600")
        process.wait_for_log("said")
        assert (sandbox.stop())["state"] == "stopped"
        assert (sandbox.info())["state"] == "stopped"
        assert (process.logs()) == b"said\n"
        assert (sandbox.info())["state"] == "stopped"
        assert (sandbox.run("cat /workspace/kept; ps ax | grep -c '[s]leep 600'")).stdout == "here0\n"
        assert (sandbox.info())["state"] == "running"
        sandbox.stop()
        assert (sandbox.start())["state"] == "running"


def test_snapshots_give_files_back_and_to_others(daemon: str) -> None:
    with Stockade(daemon) as stockade:
        with stockade.create() as sandbox:
            sandbox.run("echo one > /workspace/f; mkdir p; echo k > p/k; echo x > p/x", check=True)
            kept = sandbox.snapshot(name="before", ttl=600)
            assert [one["id"] for one in sandbox.snapshots()] == [kept["id"]]
            sandbox.run("echo two > /workspace/f", check=True)
            (child,) = sandbox.fork()
            assert (sandbox.rollback())["state"] == "stopped"
            assert (sandbox.run("cat /workspace/f")).stdout == "one\n"
            forked = stockade.get(child["id"])
            assert (forked.run("cat /workspace/f")).stdout == "two\n"
            forked.restore(kept["id"])
            part = sandbox.snapshot(path="/workspace/p", exclude=["x"], gitignore=True)
            forked.restore(part["id"], "/workspace/q")
            assert (forked.run("cat /workspace/f; ls /workspace/q")).stdout == "one\nk\n"
            archive = b"".join([chunk for chunk in stockade.snapshots.download(part["id"])])
            uploaded = stockade.snapshots.upload(archive, "/workspace/r", name="moved", ttl=600)
            assert uploaded["name"] == "moved" and uploaded["sandbox"] is None
            forked.restore(uploaded["id"])
            assert (forked.run("ls /workspace/r")).stdout == "k\n"
            for call in (
                lambda: sandbox.push("localhost:1/team/a:1"),
                lambda: sandbox.store({"key": "/", "bucket": "b"}),
                lambda: stockade.images.load({"key": "/", "bucket": "b"}),
                lambda: stockade.images.import_tar(b"", rootfs=True, identity="none"),
            ):
                with pytest.raises(StockadeError) as refused:
                    call()
                assert refused.value.code in ("SNAPSHOT_UNSUPPORTED", "PATH_INVALID", "KEY_INVALID"), refused.value
            with pytest.raises(StockadeError) as refused:
                for _ in sandbox.export():
                    pass
            assert refused.value.code == "SNAPSHOT_UNSUPPORTED"
            forked.destroy()
            made = stockade.create(snapshot=kept["id"])
            assert (made.run("cat /workspace/f")).stdout == "one\n"
            made.destroy()
            with pytest.raises(StockadeError) as refused:
                sandbox.commit("team/made:1")
            assert refused.value.code == "SNAPSHOT_UNSUPPORTED"
        for one in stockade.snapshots.list():
            stockade.snapshots.remove(one["id"])
        with pytest.raises(NotFoundError):
            stockade.snapshots.get(kept["id"])


def test_a_paused_sandbox_goes_on_with_its_memory(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        sandbox.sessions.get().run("X=kept")
        assert (sandbox.pause())["state"] == "paused"
        assert (sandbox.info())["state"] == "paused"
        assert (sandbox.sessions.get().run("echo $X")).stdout == "kept\n"
        assert (sandbox.info())["state"] == "running"


def test_a_sandbox_rests_and_ends_by_itself_when_that_was_asked_for(daemon: str) -> None:
    with Sandbox.create(
        socket=daemon, idle_timeout=0.2, ttl=3600, keep_alive=True, processes_hold=True
    ) as sandbox:
        asked = {"idle_timeout_ms": 200, "ttl_ms": 3_600_000, "keep_alive": True, "processes_hold": True}
        assert (sandbox.info())["lifecycle"] == asked
        sandbox.run("echo here > /workspace/f")
        changed = sandbox.set_lifecycle(idle_timeout=0.2)
        assert changed["lifecycle"] == {"idle_timeout_ms": 200, "keep_alive": False, "processes_hold": False}
        while (sandbox.info())["state"] != "stopped":
            sleep(0.05)
        assert (sandbox.run("cat /workspace/f")).stdout == "here\n"
        sandbox.set_lifecycle(ttl=0.1)
        with pytest.raises(NotFoundError):
            while True:
                sandbox.info()
                sleep(0.05)
        with pytest.raises(NotFoundError):
            sandbox.stop()
        with pytest.raises(InvalidRequestError) as wrong:
            Sandbox.create(socket=daemon, idle_timeout=0.01)
        assert wrong.value.context["field"] == "lifecycle.idle_timeout_ms"


def test_what_a_sandbox_uses_is_shown_and_its_limits_change(daemon: str) -> None:
    with Stockade(daemon) as stockade, stockade.create() as sandbox:
        sandbox.run("true")
        stats = sandbox.stats(disk=True)
        assert stats["cpu"]["usage_us"] and stats["disk"]
        assert sandbox.id in [one["id"] for one in (stockade.stats())["sandboxes"]]
        for one in sandbox.watch_stats(interval=0.1):
            assert one["id"] == sandbox.id
            break
        change = sandbox.set_resources({"pids": 50}, dry_run=True)
        assert change["changes"] == [{"limit": "pids", "before": 512, "after": 50}]
        sandbox.set_resources({"pids": 50})
        assert (stockade.quota())["sandboxes"]["used"] > 0
        assert "stockade_sandboxes" in stockade.metrics()
        assert (stockade.audit(sandbox=sandbox.id))["lines"]
        for event in stockade.events(sandboxes=[sandbox.id], after=1):
            assert event["type"] == "sandbox.created"
            break
        isolation = (sandbox.info())["isolation"]
        assert isolation and isolation["limits"]["pids"]["value"] == 50


def test_a_daemon_that_is_not_there(tmp_path: Path) -> None:
    with Stockade(str(tmp_path / "nobody"), absence_timeout=0.1) as stockade:
        with pytest.raises(ConnectionLostError):
            stockade.health()
