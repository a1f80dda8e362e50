"""What schemathesis does not know of: archives are bytes, a time to live ends the sandbox that it needs, and the API wants
whole numbers written as such, which JSON Schema cannot say: to it 5.0 is an integer."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-tar")
def archive(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


def whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: whole(one) for name, one in value.items()}
    if isinstance(value, list):
        return [whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53 else value


def with_secrets(policy: Any) -> None:
    """Secrets may be left out where the sandbox has them already, and each host has one entry: a schema knows neither."""
    hosts = policy.get("hosts", [])
    policy |= {"hosts": [*{host.get("host"): host for host in hosts}.values()]} if hosts else {}
    for host in policy.get("hosts", []):
        for kind, secret in (
            ("header", {"value": "x"}),
            ("basic", {"username": "x", "password": "x"}),
            ("aws", {"access_key_id": "x", "secret_access_key": "x"}),
        ):
            if isinstance(given := host.get(kind), dict):
                given |= {name: value for name, value in secret.items() if given.get(name) is None}


@schemathesis.hook
def before_call(_context: Any, case: Any, _options: Any) -> None:
    if isinstance(case.body, dict) and case.meta is not None and case.meta.generation.mode.is_positive:
        case.body = whole(case.body)
        for policy in (case.body, case.body.get("network")):
            if isinstance(policy, dict):
                with_secrets(policy)
    body, long = case.body, 3_600_000
    if case.path.endswith("/lifecycle") and isinstance(body, dict) and isinstance(body.get("ttl_ms"), int):
        if 100 <= body["ttl_ms"] < long:
            body["ttl_ms"] = long
