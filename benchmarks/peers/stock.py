"""python-socketio as its documentation shows it, on uvicorn and uvloop, without compression.

One argument: the port.
"""

from __future__ import annotations

import sys
from typing import Any

import socketio
import uvicorn

sio = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*")


async def subscribe(sid: str, asked: dict[str, Any]) -> dict[str, bool]:
    """Put a client into the stream's room."""
    await sio.enter_room(sid, asked["stream"])
    return {"ok": True}


async def publish(_sid: str, asked: dict[str, Any]) -> dict[str, bool]:
    """Emit each event to the stream's room."""
    for event in asked["events"]:
        await sio.emit("event", event, room=asked["stream"])
    return {"ok": True}


sio.on("subscribe", subscribe)
sio.on("publish", publish)

if __name__ == "__main__":
    uvicorn.run(
        socketio.ASGIApp(sio),
        port=int(sys.argv[1]),
        loop="uvloop",
        ws_per_message_deflate=False,
        log_level="warning",
    )
