"""One round of the client for Python: run where it can be imported. Prints what took how long, in milliseconds."""

import http.client
import json
import socket
import statistics
import sys
import time

from stockade_sandbox import Sandbox

PATH, ID, CALLS, BYTES = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])


class Bare(http.client.HTTPConnection):
    """The same request without a client."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(PATH)

    def ask(self):
        self.request("GET", f"/v1/sandboxes/{ID}")
        return json.loads(self.getresponse().read())


def timed(act):
    start = time.perf_counter()
    value = act()
    return (time.perf_counter() - start) * 1000, value


sandbox, bare = Sandbox.get(ID, socket=PATH), Bare("stockade")
without, with_ = [], []
# In turn, so that what disturbs one disturbs the other.
for _ in range(CALLS * 2):
    without.append(timed(bare.ask)[0])
    with_.append(timed(sandbox.info)[0])
data = b"x" * BYTES
upload, _ = timed(lambda: sandbox.files.write("/workspace/sdk", data))
download, read = timed(lambda: sandbox.files.read("/workspace/sdk"))
assert read == data
median = {name: statistics.median(samples[CALLS:]) for name, samples in (("bare", without), ("client", with_))}
print(json.dumps({**median, "upload": upload, "download": download}))
