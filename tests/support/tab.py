"""Tabs of a Chromium that is driven by its own protocol alone.

Playwright keeps each of its pages visible and awake: nothing there is ever frozen, and what crashed is over.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from playwright.async_api import async_playwright
from websockets.asyncio.client import ClientConnection, connect

from tests.support.browser import FLAGS, find_browser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

WAIT = 60


class Refused(Exception):
    """The browser can't do what it was asked."""


class Session:
    """A conversation with a browser or a tab (Chrome DevTools Protocol)."""

    def __init__(self, url: str, socket: ClientConnection) -> None:
        self.url = url
        self._socket = socket
        self._numbers = count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self.crashed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for text in self._socket:
            told = json.loads(text)
            if told.get("method") == "Inspector.targetCrashed":
                self.crashed.set()
            if (asked := self._asked.pop(told.get("id", -1), None)) is not None:
                asked.set_result(told)

    async def ask(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        told = await asyncio.wait_for(answer, WAIT)
        if "error" in told:
            raise Refused(told["error"])
        return told["result"]

    async def run(self, script: str) -> Any:
        """Evaluate in the page; a promise is awaited."""
        told = await self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, condition: str) -> None:
        async with asyncio.timeout(WAIT):
            while not await self._is(condition):
                await asyncio.sleep(0.05)

    async def _is(self, condition: str) -> bool:
        with suppress(Refused):  # between two documents there is nothing to ask
            return bool(await self.run(f"Boolean({condition})"))
        return False

    async def crash(self) -> None:
        """End the tab's process, as a defect of the browser does."""
        await self.ask("Inspector.enable")
        ending = asyncio.create_task(self.ask("Page.crash"))
        await asyncio.wait_for(self.crashed.wait(), WAIT)
        ending.cancel()

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._socket.close()


class Chromium:
    """A browser and its tabs, all of one profile."""

    def __init__(self, url: str) -> None:
        self._at = url.rpartition("/devtools/")[0]
        self._url = url
        self._sessions: list[Session] = []

    async def begin(self, url: str | None = None) -> Session:
        at = url or self._url
        session = Session(at, await connect(at, max_size=None))
        self._sessions.append(session)
        return session

    async def tab(self, url: str) -> Session:
        """Open a tab; it has a session storage of its own."""
        made = await self._sessions[0].ask("Target.createTarget", url=url)
        return await self.begin(f"{self._at}/devtools/page/{made['targetId']}")

    async def anew(self, tab: Session) -> Session:
        """Load a tab again that has crashed."""
        again = await self.begin(tab.url)
        await again.ask("Page.reload")
        return again

    async def aclose(self) -> None:
        for session in self._sessions:
            await session.close()


@asynccontextmanager
async def tabs(profile: Path) -> AsyncIterator[Chromium]:
    """Run a Chromium with a profile of its own, in a folder that is there."""
    async with async_playwright() as playwright:
        program = find_browser(playwright.chromium.executable_path)
    process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
        [program, "--headless=new", *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={profile}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        chromium = Chromium(await _address(profile / "DevToolsActivePort", process))
        await chromium.begin()
        try:
            yield chromium
        finally:
            await chromium.aclose()
    finally:
        process.terminate()  # so that it ends its other processes too
        await asyncio.to_thread(_wait, process)


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _address(port_file: Path, process: subprocess.Popen[bytes]) -> str:
    async with asyncio.timeout(WAIT):
        while process.poll() is None:
            with suppress(OSError, ValueError):
                port, path = port_file.read_text().split()
                return f"ws://127.0.0.1:{port}{path}"
            await asyncio.sleep(0.05)
    raise AssertionError(f"Chromium ended at once: {process.returncode}")
