"""A Python subscriber in a process of its own: prints a line per applied event until it is ended.

Arguments: URL, stream, and `from` as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys

from steadcast.client.subscriber import Subscriber


async def main(url: str, stream: str, start: str) -> None:
    """Follow, and say what was applied."""
    async with Subscriber(url, stream, start=json.loads(start)) as deliveries:
        async for delivery in deliveries:
            print(json.dumps({"id": delivery.event.id, "offset": delivery.position.offset}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
