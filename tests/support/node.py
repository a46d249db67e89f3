"""The TypeScript client in a Node process."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support.histories import History, until

ROOT = Path(__file__).parents[2]


class NodeSubscriber:
    """The TypeScript client in a Node process."""

    def __init__(self) -> None:
        self.history = History()
        self.told: list[Any] = []
        self.states: list[str] = []

    async def follow(self, url: str, **environ: str) -> None:
        await self.start(url, **environ)
        await until(lambda: "live" in self.states, what="the client is live")

    async def start(self, url: str, **environ: str) -> None:
        node = shutil.which("node") or str(ROOT / ".venv" / "bin" / "node")
        script = ROOT / "clients" / "js" / "tests" / "node_subscriber.mjs"
        self.process = await asyncio.create_subprocess_exec(
            node, script, url, "orders", '"start"', stdout=subprocess.PIPE, env=os.environ | environ
        )
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            said = json.loads(line)
            if "id" in said:
                self.history.applied.append(said["id"])
            elif "told" in said:
                self.told.append(said["told"])
            else:
                self.states.append(said["state"])

    async def end(self) -> None:
        self.process.terminate()
        assert await self.process.wait() == 0
        await self.task
