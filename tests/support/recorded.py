"""The recorded demo session as events that happened just now: its own times, without its waiting."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx

from steadcast.demo.player import recording
from tests.support.plain import PLAIN

if TYPE_CHECKING:
    from tests.support.server import Server


def play(server: Server, *, until: float = 1_000.0, ago: float | None = None) -> int:
    """Publish the recording up to a second of it, which is `ago` seconds ago (default: right now)."""
    steps = [step for step in recording() if step.at <= until]
    begin = datetime.now(UTC) - timedelta(seconds=steps[-1].at + (ago or 0.0))
    with httpx.Client(verify=PLAIN, base_url=server.url) as client:
        for step in steps:
            at = (begin + timedelta(seconds=step.at)).isoformat().replace("+00:00", "Z")
            headers = {"ce-id": uuid.uuid4().hex, "ce-time": at}
            client.post("/v1/hooks/claude", json=step.hook, headers=headers).raise_for_status()
    return len(steps)
