"""A Python subscriber: prints the milliseconds that each probe was under way. Arguments: URL, stream."""

from __future__ import annotations

import asyncio
import sys
import time

from steadcast.client.subscriber import Subscriber


async def follow(url: str, stream: str) -> None:
    """Follow from the end, until killed."""
    async with Subscriber(url, stream, start="end") as deliveries:
        async for delivery in deliveries:
            data = delivery.event.data
            if isinstance(data, dict) and "sent" in data:
                print(time.time() * 1000 - data["sent"], flush=True)


if __name__ == "__main__":
    asyncio.run(follow(*sys.argv[1:]))
