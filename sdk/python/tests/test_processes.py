"""The synchronous client among threads, forks and signals."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stockade_sandbox import OutboundRequest, OutboundResponse, Sandbox, outbound


def test_many_threads_share_a_client(daemon: str) -> None:
    with Sandbox.create(socket=daemon, resources={"pids": 2000, "memory_bytes": 1 << 30}) as sandbox:
        with ThreadPoolExecutor(200) as pool:
            results = list(pool.map(lambda number: sandbox.run(["echo", str(number)]).stdout, range(200)))
        assert results == [f"{number}\n" for number in range(200)]


def test_a_fork_has_connections_of_its_own(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:
        sandbox.run(["true"])
        child = os.fork()
        try:
            whole = all(sandbox.run(["echo", f"{child} {n}"]).stdout == f"{child} {n}\n" for n in range(50))
        except BaseException:
            whole = False
        if child == 0:
            os._exit(0 if whole else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 and whole


def test_a_handler_is_its_process_own_and_ends_while_it_answers(daemon: str) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def handler(request: OutboundRequest) -> OutboundResponse:
        if request.url.endswith("/wait"):
            asked.set()
            go_on.wait(30)
        return OutboundResponse(body="here")

    handlers = Path(daemon).parent / "handlers"
    before = set(handlers.iterdir())
    with Sandbox.create(socket=daemon) as sandbox:
        sandbox.network.set_outbound_by_host("api.internal", handler)
        child = os.fork()
        if child == 0:
            sandbox.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert sandbox.run("curl -sS http://api.internal/").stdout == "here"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(sandbox.run, "curl -sSf http://api.internal/wait")
            assert asked.wait(30)
            sandbox.network.remove_outbound_by_host("api.internal")
            assert not waiting.result(30).ok and set(handlers.iterdir()) == before
        go_on.set()


def test_what_is_held_for_a_handler_is_bounded() -> None:
    held = outbound.Held()
    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"
    some = [outbound.Exchange("s", held) for _ in range(5)]
    for one in some[:4]:
        assert one.take(head % outbound.BODY_BYTES_MAX) is None
        assert one.take(bytes(outbound.BODY_BYTES_MAX - 1)) is None
    assert some[4].take(head % 5) is None
    with pytest.raises(outbound.Refused) as full:
        some[4].take(b"12345")
    assert full.value.status == 503
    for one in some:
        one.end()
    last = outbound.Exchange("s", held)
    request = last.take(head % 5 + b"12345")
    assert request is not None and (request.url, request.body) == ("http://a/", b"12345")
    for wrong, status in ((b"nonsense\r\n\r\n", 400), (b"GET /" + b"a" * 200_000, 431), (b"", 400)):
        with pytest.raises(outbound.Refused) as refused:
            outbound.Exchange("s", held).take(wrong)
        assert refused.value.status == status


def test_ctrl_c_ends_the_command_and_not_the_client(daemon: str) -> None:
    with Sandbox.create(socket=daemon) as sandbox:

        def interrupt() -> None:
            while not sandbox.commands.list():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            sandbox.run(["sleep", "600"])
        while sandbox.commands.list():
            time.sleep(0.01)
        assert sandbox.run(["echo", "still"]).stdout == "still\n"
