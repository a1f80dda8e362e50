"""Has schemathesis ask the daemon whatever the API's description allows, and what it does not.

It does not speak to a Unix socket: a port of loopback passes the bytes on.
"""

import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

SOCKET = os.environ["STOCKADE_SOCKET"]
#: Most are about the sandbox `fuzz`, or all would end at a sandbox that is not there.
#: A server that cannot be reached from a sandbox, or does not come in time, is no fault of the daemon. What the description
#: allows is never refused as such (400): other codes are about what there is, a user in an image or a file in a sandbox.
CONFIG = """
[parameters]
"path.id" = "fuzz"
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 502, 503, 504, 507]
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 409, 410, 412, 413, 416, 422, 429, "5xx"]
"""
#: WebSockets and upgrades, what waits as long as it is told, requests for somebody else, registries; and the end of `fuzz`.
EXCLUDED = (
    "attachCommand",
    "attachTerminal",
    "connectToPort",
    "proxyToPort",
    "watchFiles",
    "pullImage",
    "waitForProcess",
    "destroySandbox",
)
EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "3")


def pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(listener: socket.socket) -> None:
    while True:
        client, _ = listener.accept()
        daemon = socket.socket(socket.AF_UNIX)
        daemon.connect(SOCKET)
        for ends in ((client, daemon), (daemon, client)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


def main() -> int:
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "schemathesis.toml")
        config.write_text(CONFIG)
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", f"{url}/v1/openapi.json"]
        command += ["--url", url, "--max-examples", EXAMPLES, "--seed", "1", "--request-timeout", "20"]
        command += ["--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all", "--no-color"]
        command += [word for name in EXCLUDED for word in ("--exclude-operation-id", name)]
        here = str(Path(__file__).parent)
        path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "SCHEMATHESIS_HOOKS": "fuzz_hooks"}
        return subprocess.run([*command, *sys.argv[1:]], cwd=directory, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
