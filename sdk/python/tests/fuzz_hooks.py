"""What schemathesis does not know of: archives are bytes."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-tar")
def archive(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")
