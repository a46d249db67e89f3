"""The page as a person sees it. Its pictures go to STEADCAST_PICTURES where that is set (`make pictures`)."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import Browser, Page

from tests.support.browser import chromium
from tests.support.server import Server, event, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

COMMANDS = ["git status", "pytest -q", "ruff check .", "npm run build", "curl localhost:8000/health"]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    running = await asyncio.to_thread(Server(tmp_path).start)
    yield running
    running.__exit__()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


def picture(tmp_path: Path, name: str) -> Path:
    return Path(os.environ.get("STEADCAST_PICTURES", tmp_path)) / name


def hook(n: int, session: str) -> dict[str, Any]:
    pre = n % 2 == 0
    body: dict[str, Any] = {
        "session_id": session,
        "cwd": "/home/dev/shop",
        "hook_event_name": "PreToolUse" if pre else "PostToolUse",
        "tool_name": "Bash" if n % 4 < 2 else "Edit",
        "tool_input": {"command": COMMANDS[n // 2 % len(COMMANDS)]},
    }
    return body if pre else body | {"tool_response": {"stdout": "ok", "exit_code": 0}}


async def fill(server: Server) -> None:
    import httpx

    async with httpx.AsyncClient(base_url=server.url) as client:
        for n in range(24):
            session = "3f9a" if n % 4 < 2 else "c07b"
            await client.post("/v1/hooks/claude", json=hook(n, session))
        asks = {"session_id": "c07b", "hook_event_name": "PermissionRequest", "tool_name": "Bash"}
        await client.post("/v1/hooks/claude", json=asks | {"tool_input": {"command": "rm -r build"}})


async def value(page: Page, name: str) -> int:
    return int(await page.get_by_test_id(name).get_attribute("data-value") or "-1")


async def until_state(page: Page, state: str) -> None:
    await page.wait_for_selector(f'[data-testid="state-pill"][data-state="{state}"]', timeout=20_000)


async def test_the_page_shows_events_as_they_come_and_says_that_nothing_is_lost(
    server: Server, browser: Browser, tmp_path: Path
) -> None:
    page = await browser.new_page(viewport={"width": 1280, "height": 800})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if server.url not in request.url else None)
    await page.goto(server.url)
    await page.wait_for_selector('[data-testid="empty"]')
    assert server.url in await page.get_by_test_id("empty").inner_text()
    await page.screenshot(path=picture(tmp_path, "empty.png"))
    await fill(server)
    await page.wait_for_selector('[data-testid="row"] >> nth=24', timeout=20_000)
    await until_state(page, "live")
    assert await value(page, "lost") == 0
    await page.screenshot(path=picture(tmp_path, "feed.png"))
    await page.emulate_media(color_scheme="dark")
    await page.screenshot(path=picture(tmp_path, "feed_dark.png"))
    await page.set_viewport_size({"width": 375, "height": 700})
    await page.screenshot(path=picture(tmp_path, "feed_narrow.png"))
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert foreign == []
    assert complaints == []


async def test_a_killed_server_is_shown_and_the_page_catches_up(server: Server, browser: Browser) -> None:
    await asyncio.to_thread(server.publish, "orders", *[event(n) for n in range(10)])
    page = await browser.new_page()
    await page.goto(server.url)
    await page.wait_for_selector('[data-testid="row"] >> nth=9')
    await asyncio.to_thread(server.kill)
    await until_state(page, "offline")
    await asyncio.to_thread(server.start)
    await asyncio.to_thread(server.publish, "orders", *[event(n) for n in range(10, 15)])
    await page.wait_for_selector('[data-testid="row"] >> nth=14', timeout=20_000)
    await until_state(page, "live")
    rows = await page.locator('[data-testid="row"]').evaluate_all("rows => rows.map(row => row.dataset.id)")
    assert rows == [f"e{n}" for n in range(15)]
    assert await value(page, "lost") == 0
    assert await value(page, "duplicates") == 0


async def test_what_retention_took_stands_as_a_row_at_its_place(tmp_path: Path, browser: Browser) -> None:
    with Server(tmp_path, STEADCAST_RETENTION_EVENTS="20", STEADCAST_TRIM_INTERVAL="0.2") as server:
        await asyncio.to_thread(server.publish, "orders", *[event(n) for n in range(10)])
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await page.goto(server.url)
        await page.wait_for_selector('[data-testid="row"] >> nth=9')
        await page.context.set_offline(True)
        await until_state(page, "offline")
        for start in range(10, 100, 30):
            await asyncio.to_thread(server.publish, "orders", *[event(n) for n in range(start, start + 30)])
        await asyncio.sleep(1)
        await page.context.set_offline(False)
        await page.wait_for_selector('[data-testid="loss-row"]', timeout=30_000)
        await until_state(page, "live")
        assert await value(page, "lost") > 0
        await page.screenshot(path=picture(tmp_path, "loss_row.png"))


async def test_with_a_token_the_page_asks_for_it_once(tmp_path: Path, browser: Browser) -> None:
    with Server(tmp_path, port=free_port(), STEADCAST_TOKEN="secret") as server:  # noqa: S106 - a test's
        page = await browser.new_page()
        await page.goto(server.url)
        await page.get_by_test_id("token").fill("wrong")
        await page.get_by_test_id("login-button").click()
        await page.get_by_test_id("token").fill("secret")
        await page.get_by_test_id("login-button").click()
        await until_state(page, "connected")
        await page.reload()
        await until_state(page, "connected")
        cookies = await page.context.cookies()
        assert [(c["httpOnly"], c["sameSite"]) for c in cookies] == [(True, "Strict")]
        assert "secret" not in json.dumps(cookies)
