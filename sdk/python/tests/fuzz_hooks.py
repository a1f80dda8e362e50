"""What schemathesis does not know of: archives are bytes, and a time to live ends the sandbox that it needs."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-tar")
def archive(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


@schemathesis.hook
def before_call(_context: Any, case: Any, _options: Any) -> None:
    body, long = case.body, 3_600_000
    if case.path.endswith("/lifecycle") and isinstance(body, dict) and isinstance(body.get("ttl_ms"), int):
        if 100 <= body["ttl_ms"] < long:
            body["ttl_ms"] = long
