"""Many calls at once, and waiting, in the two worlds: `gather` and `asleep` are for coroutines, `in_turn` and `sleep` not."""

import asyncio
from time import sleep as sleep
from typing import Any

gather = asyncio.gather
asleep = asyncio.sleep


def in_turn(*results: Any) -> list[Any]:
    return list(results)
