"""A view of the page in a real browser, watched: its complaints, its requests, its accessibility."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.async_api import expect

from tests.support.browser import chromium

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Page

    from tests.support.server import Server

# Five seconds, its own default, are short on a processor that others use as well.
expect.set_options(timeout=30_000)

AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
SIZES = {"narrow": (375, 760), "": (1280, 860), "wide": (2560, 1200)}


@asynccontextmanager
async def viewed(server: Server, address: str = "", **options: Any) -> AsyncIterator[Page]:
    """Open the page; fails at the end where it complained, or asked anybody but its server."""
    async with chromium() as browser:
        width, height = SIZES[""]
        page = await browser.new_page(viewport={"width": width, "height": height}, **options)
        complaints: list[str] = []
        page.on("console", lambda told: complaints.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        foreign: list[str] = []
        page.on("request", lambda asked: foreign.append(asked.url) if server.url not in asked.url else None)
        await page.goto(f"{server.url}/{address}")
        yield page
        assert complaints == [], complaints
        assert foreign == [], foreign


async def check_accessible(page: Page) -> None:
    """Hold what is shown against axe's rules for WCAG 2.2 A and AA."""
    await page.evaluate(AXE.read_text())
    found = await page.evaluate(
        """async () => {
            const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
            const { violations } = await axe.run(document, { runOnly: tags });
            return violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html.slice(0, 160))]);
        }"""
    )
    assert found == [], found


async def check_sizes(page: Page, tmp_path: Path, name: str) -> None:
    """Show a view in both themes and at three widths, accessible and without a sideways scroll in each.

    Of the pictures, `name`, `name_dark` and `name_narrow` are for the docs.
    """
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        for size, (width, height) in SIZES.items():
            await page.set_viewport_size({"width": width, "height": height})
            await page.wait_for_function("() => new Promise(done => requestAnimationFrame(() => done(true)))")
            assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), size
            parts = [name, scheme if scheme == "dark" else "", size]
            path = tmp_path / "shown.png" if size == "wide" or all(parts) else picture(tmp_path, parts)
            await page.screenshot(path=path)
        await check_accessible(page)
    width, height = SIZES[""]
    await page.set_viewport_size({"width": width, "height": height})


def picture(tmp_path: Path, parts: list[str]) -> Path:
    """Name a picture's file: of those for the docs where STEADCAST_PICTURES is set, else a test's own."""
    return Path(os.environ.get("STEADCAST_PICTURES", tmp_path)) / f"{'_'.join(filter(None, parts))}.png"
