"""The page in Chromium, as tests drive it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.support.server import BIN, Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.async_api import Browser, Page

ROOT = Path(__file__).parents[2]
AXE = ROOT / "node_modules/axe-core/axe.min.js"


def picture(tmp_path: Path, name: str) -> Path:
    """Say where a picture goes: into STEADCAST_PICTURES where that is set, else it is the test's own."""
    return Path(os.environ.get("STEADCAST_PICTURES", tmp_path)) / name


def play_demo(server: Server) -> None:
    """Publish the recorded session, without its pauses."""
    command = [str(BIN / "steadcast"), "demo", "--speed", "0", "--url", server.url]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


async def value(page: Page, name: str) -> int:
    """Read one of the bar's numbers."""
    return int(await page.get_by_test_id(name).get_attribute("data-value") or "-1")


async def until_state(page: Page, state: str) -> None:
    """Wait until the pill says so."""
    await page.wait_for_selector(f'[data-testid="state-pill"][data-state="{state}"]', timeout=30_000)


async def until(page: Page, condition: str, what: str) -> Any:
    """Wait until something is true in the page, whose security policy lets it evaluate no text by itself."""
    async with asyncio.timeout(30):
        while not (found := await page.evaluate(condition)):
            await asyncio.sleep(0.03)
    assert found, what
    return found


async def ids(page: Page) -> list[str]:
    """Give the ids of the events whose rows stand in the document, from top to bottom.

    Looked for and measured in one task: a locator does that in two, and a row that leaves in between stands
    nowhere.
    """
    rows = await page.evaluate(
        """() => [...document.querySelectorAll('[data-testid="row"]')]
            .map(row => [row.getBoundingClientRect().top, row.dataset.id])"""
    )
    return [name for _, name in sorted(rows)]


async def scrolled(page: Page, by: int, there: Callable[[list[int]], bool]) -> None:
    """Turn the wheel until the rows are where they should be; on the way none is missing or misplaced."""
    async with asyncio.timeout(60):
        while True:
            shown = [int(name[1:]) for name in await ids(page)]
            assert shown == [shown[0] + n for n in range(len(shown))]
            if shown and there(shown):
                return
            await page.mouse.wheel(0, by)
            await asyncio.sleep(0.05)


async def jump(page: Page, moment: str) -> None:
    """Go to a time, told in UTC; the field wants the browser's own."""
    local = await page.evaluate(
        "text => { const date = new Date(text + 'Z');"
        " return new Date(date - date.getTimezoneOffset() * 60000).toISOString().slice(0, 19) }",
        moment,
    )
    await page.get_by_test_id("jump").click()
    await page.get_by_test_id("jump-time").fill(local)
    await page.get_by_test_id("jump-go").click()


async def violations(page: Page) -> list[str]:
    """Let axe look at the page; gives each violation with the elements that have it."""
    await page.evaluate(AXE.read_text())
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    options = {"runOnly": {"type": "tag", "values": tags}}
    found = await page.evaluate("options => window.axe.run(document, options)", options)
    return [
        f"{each['id']}: {node['target']} {node.get('failureSummary', '')}"
        for each in found["violations"]
        for node in each["nodes"][:3]
    ]


class Watched:
    """A page whose complaints and requests are noted."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        page.on("console", self._says)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._asks(request.url, url))

    @classmethod
    async def open(cls, browser: Browser, url: str, **more: Any) -> Self:
        """Open the page in a window of 1280 by 800."""
        page = await browser.new_page(viewport={"width": 1280, "height": 800}, **more)
        watched = cls(page, url)
        await page.goto(url)
        return watched

    def _says(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def _asks(self, asked: str, url: str) -> None:
        if not asked.startswith((url, "blob:")):
            self.foreign.append(asked)
