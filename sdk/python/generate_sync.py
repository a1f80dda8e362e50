"""Writes the synchronous client, and its tests, from the asynchronous ones.

    python3 generate_sync.py            writes src/stockade_sandbox/_sync and tests/test_sync.py
    python3 generate_sync.py --check    fails when it differs from what would be written
"""

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = Path("src", "stockade_sandbox")
#: From what, and what.
MODULES = (
    (PACKAGE / "_async" / "transport.py", PACKAGE / "_sync" / "transport.py"),
    (PACKAGE / "_async" / "sandbox.py", PACKAGE / "_sync" / "sandbox.py"),
    (Path("tests", "test_async.py"), Path("tests", "test_sync.py")),
)
HEAD = "# Written by generate_sync.py from {source}. Change that and run it again.\n"

#: In order: each is replaced everywhere.
WORDS = (
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsyncHTTPTransport\b", "HTTPTransport"),
    (r"\bhandle_async_request\b", "handle_request"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\b__aiter__\b", "__iter__"),
    (r"\b(def |self\._stream\.|pool\.)aclose\b", r"\1close"),
    (r"\baread\b", "read"),
    (r"\.response\.aclose\b", ".response.close"),
    (r"\bself\._pool\.aclose\b", "self._pool.close"),
    (r"\bresponse\.aclose\b", "response.close"),
    (r"\bparts\.aclose\b", "parts.close"),
    (r"\b_async\.", "_sync."),
    (r"\bAsyncBody\b", "SyncBody"),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\banext\(", "next("),
    (r"\bgather\(", "in_turn("),
    (r"\basleep\b", "sleep"),
)


def written(source: Path) -> str:
    text = (HERE / source).read_text()
    for pattern, replacement in WORDS:
        text = re.sub(pattern, replacement, text)
    return HEAD.format(source=source) + text


def main() -> int:
    drifted = 0
    for source, path in MODULES:
        text = written(source)
        if "--check" not in sys.argv:
            (HERE / path).write_text(text)
        elif (HERE / path).read_text() != text:
            print(f"{path} is not what {source} says: run python3 sdk/python/generate_sync.py", file=sys.stderr)
            drifted = 1
    return drifted


if __name__ == "__main__":
    sys.exit(main())
