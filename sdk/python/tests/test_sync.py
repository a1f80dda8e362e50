# Written by generate_sync.py from tests/test_async.py. Change that and run it again.
"""The client against a real daemon."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any, Callable

import pytest

from at_once import sleep, gather, in_turn  # noqa: F401
from stockade_sandbox import (
    Sandbox,
    Stockade,
    CommandFailedError,
    CommandNotStartedError,
    CommandResult,
    ConflictError,
    ConnectionLostError,
    InvalidRequestError,
    NotFoundError,
    NotSupportedError,
    Output,
    PortError,
    ProcessExitedError,
    SessionEndedError,
    WaitTimeoutError,
)

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


def test_a_result_shows_itself_in_a_notebook(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        bundle = (sandbox.run("echo '<b>'; echo oops >&2; exit 2"))._repr_mimebundle_()
        assert bundle["text/plain"] == "<b>\noops\n[exit code 2]\n"
        assert "&lt;b&gt;" in bundle["text/html"] and "exit code 2" in bundle["text/html"]


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
        broken = breaking(lambda number: 60_000 + number * 7_919 % 60_000)
        other = Sandbox.get(sandbox.id, socket=broken.socket)
        text = b"".join([part.data for part in (other.processes.get(process.id)).follow()])
        expected = "".join(f"{number} ä€🦀\n" for number in range(1, 40_001)) + "end\n"
        assert text == expected.encode()
        assert broken.broken > 5
        other.close()


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


def test_many_megabytes_go_both_ways(daemon: str, tmp_path: Path) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        big = tmp_path / "big"
        big.write_bytes(os.urandom(1 << 20) * 64)
        with big.open("rb") as file:
            sandbox.files.write("/workspace/big", file)
        back = b"".join([part for part in sandbox.files.stream("/workspace/big")])
        assert back == big.read_bytes()


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


def test_what_the_daemon_has_not_is_said_by_name(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        with pytest.raises(NotSupportedError) as missing:
            sandbox.mounts.unmount("/x")
        assert missing.value.context["feature"] == "bucket mounts" and missing.value.hint


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


def test_a_daemon_that_is_not_there(tmp_path: Path) -> None:
    with Stockade(str(tmp_path / "nobody"), absence_timeout=0.1) as stockade:
        with pytest.raises(ConnectionLostError):
            stockade.health()
