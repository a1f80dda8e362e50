"""Many calls at once, in the two worlds: `gather` for coroutines, `in_turn` for what has happened already."""

import asyncio
from typing import Any

gather = asyncio.gather


def in_turn(*results: Any) -> list[Any]:
    return list(results)
