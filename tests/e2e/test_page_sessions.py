"""The sessions view as a person uses it, with the recorded demo and with both shapes of hooks."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import httpx
from playwright.async_api import expect

from tests.support.pages import check_accessible, check_sizes, viewed
from tests.support.recorded import play
from tests.support.server import Server, event

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Page

MPM = {
    "namespace": "hook",
    "event": "claude_event",
    "data": {
        "event": "claude_event",
        "source": "claude_hooks",
        "type": "hook",
        "session_id": "mpm-1",
        "correlation_id": "c-1",
        "cwd": "/srv/billing",
    },
}


async def states(page: Page) -> dict[str, str]:
    """Give each session's state by its title's first word."""
    found: dict[str, str] = await page.get_by_test_id("session").evaluate_all(
        """lines => Object.fromEntries(lines.map(line =>
            [line.querySelector('.title').textContent.split(' ')[0], line.dataset.state]))"""
    )
    return found


def mpm(subtype: str, detail: dict[str, Any]) -> dict[str, Any]:
    inner = MPM["data"]
    assert isinstance(inner, dict)
    return MPM | {"data": inner | {"subtype": subtype, "data": detail}}


async def test_the_recorded_sessions_are_listed_with_their_states_and_one_is_looked_at(
    server: Server, tmp_path: Path
) -> None:
    await asyncio.to_thread(play, server, until=82.0)
    async with viewed(server, "?view=sessions") as page:
        await expect(page.get_by_test_id("session")).to_have_count(2)
        assert await states(page) == {"Orders": "working", "Find": "working"}
        await page.get_by_test_id("session").filter(has_text="Orders").click()
        assert "id=" in page.url
        agents = page.get_by_test_id("session-agents").locator("tr")
        await expect(agents).to_have_count(4)
        await expect(agents.nth(2)).to_contain_text("Review the change")
        await expect(page.get_by_test_id("session-failures")).to_contain_text("WebFetch was denied")
        await check_sizes(page, tmp_path, "session")
        await page.set_viewport_size({"width": 375, "height": 760})
        await page.get_by_role("button", name="Back to all sessions").click()
        await expect(page.get_by_test_id("session").first).to_be_visible()
        await page.go_back()
        await expect(page.get_by_test_id("session-detail")).to_be_visible()


async def test_each_agent_that_asks_is_listed_until_it_is_answered(server: Server) -> None:
    def hook(n: int, name: str, agent: str, **more: Any) -> dict[str, Any]:
        data = {"session_id": "s1", "cwd": "/srv/x", "hook_event_name": name, "agent_id": agent}
        call = {"tool_name": "Bash", "tool_use_id": f"t-{agent}", "tool_input": {"command": f"push {agent}"}}
        return event(n, type=f"claude.{name}", data=data | call | more)

    asked = [
        each
        for n, agent in enumerate(("one", "two"))
        for each in (hook(4 * n, "PreToolUse", agent), hook(4 * n + 1, "PermissionRequest", agent))
    ]
    await asyncio.to_thread(server.publish, "claude", *asked)
    async with viewed(server, "?view=sessions&id=s1") as page:
        asks = page.get_by_test_id("session-asks").locator("p")
        await expect(asks).to_have_count(2)
        line = page.get_by_test_id("session-ask")
        await expect(line).to_have_text("Bash: push one, and 1 more")
        await asyncio.to_thread(server.publish, "claude", hook(20, "PostToolUse", "one"))
        await expect(asks).to_have_count(1)
        await expect(asks).to_contain_text("push two")
        await expect(line).to_have_text("Bash: push two")
        await expect(page.get_by_test_id("session-sum")).to_contain_text("1 waiting for you")


async def test_who_asked_before_the_events_of_a_page_that_was_just_opened_is_told(server: Server) -> None:
    def hook(n: int, name: str, session: str, **more: Any) -> dict[str, Any]:
        lane = "critical" if name == "PermissionRequest" else "normal"
        data = {"session_id": session, "hook_event_name": name} | more
        return event(n, type=f"claude.{name}", priority=lane, data=data)

    for n, session in enumerate(("asks", "answered")):
        await asyncio.to_thread(
            server.publish,
            "claude",
            hook(10 * n, "PreToolUse", session, tool_name="Bash"),
            hook(10 * n + 1, "PermissionRequest", session, tool_name="Bash"),
        )
    await asyncio.to_thread(server.publish, "claude", hook(20, "PostToolUse", "answered", tool_name="Bash"))
    others = [hook(100 + n, "PreToolUse", "other", tool_name="Read") for n in range(250)]
    await asyncio.to_thread(server.publish, "claude", *others)
    async with viewed(server, "") as page:
        await expect(page).to_have_title(re.compile("^1 waiting"))


async def test_what_is_older_than_today_is_said_with_its_day(server: Server) -> None:
    def hook(n: int, name: str, **more: Any) -> dict[str, Any]:
        data = {"session_id": "s1", "hook_event_name": name} | more
        return event(n, type=f"claude.{name}", time=f"2026-01-02T12:00:0{n}Z", data=data)

    call = {"tool_name": "Bash", "tool_use_id": "t1"}
    asked = hook(2, "PermissionRequest", **call)
    prompted = hook(0, "UserPromptSubmit", prompt="Go")
    await asyncio.to_thread(server.publish, "claude", prompted, hook(1, "PreToolUse", **call), asked)
    async with viewed(server, "?view=sessions&id=s1") as page:
        day = re.compile(r"01-0[123] \d\d:\d\d:0")
        await expect(page.get_by_test_id("session-asks")).to_contain_text(day)
        await expect(page.get_by_role("region", name="Prompts")).to_contain_text(day)
        await expect(page.get_by_role("region", name="Tool uses")).to_contain_text(day)
        await expect(page.locator("svg text.tick").first).to_have_text(re.compile(r"^\d\d-\d\d "))


async def test_states_follow_what_comes(server: Server) -> None:
    async with viewed(server, "?view=sessions") as page:
        await expect(page.get_by_test_id("no-sessions")).to_contain_text("steadcast hooks install")
        await check_accessible(page)
        await asyncio.to_thread(play, server, until=41.0)
        asks = page.locator('[data-testid="session"][data-state="waiting"]')
        await expect(asks).to_contain_text("git push origin fix/theme-choice")
        await asks.click()
        await expect(page.get_by_test_id("session-asks")).to_contain_text("waits for you")
        session = await asks.get_attribute("data-session")
        ends = {"session_id": session, "hook_event_name": "SessionEnd", "reason": "clear"}
        await asyncio.to_thread(httpx.post, f"{server.url}/v1/hooks/claude", json=ends)
        await expect(page.locator(f'[data-session="{session}"]')).to_have_attribute("data-state", "ended")
        await expect(page.get_by_test_id("session-asks")).to_have_count(0)


async def test_who_waits_for_a_person_is_told_in_every_view_and_in_the_title(server: Server) -> None:
    await asyncio.to_thread(play, server, until=41.0)
    async with viewed(server, "?view=pulse") as page:
        asking = page.get_by_test_id("asking")
        await expect(asking).to_contain_text("1")
        await expect(page).to_have_title(re.compile("^1 waiting · live · claude"))
        assert "git push origin fix/theme-choice" in (await asking.get_attribute("title") or "")
        await check_accessible(page)
        await page.get_by_test_id("view-feed").click()
        await page.get_by_test_id("filter-type").select_option("claude.PermissionRequest")
        await page.get_by_test_id("row").last.click()
        await page.evaluate("void (window.same = true)")
        await page.get_by_test_id("detail-session").click()
        await expect(page.get_by_test_id("session-asks")).to_contain_text("waits for you")
        assert await page.evaluate("window.same"), "a link within the page doesn't load it anew"
        first = page.get_by_test_id("session").first
        await expect(first).to_have_attribute("data-state", "waiting")
        ends = {"session_id": await first.get_attribute("data-session"), "hook_event_name": "SessionEnd"}
        await asyncio.to_thread(httpx.post, f"{server.url}/v1/hooks/claude", json=ends)
        await expect(asking).to_have_count(0)
        await expect(page).to_have_title(re.compile("^live · claude"))


async def test_the_lanes_are_brushed_zoomed_and_walked_through_by_mouse_and_keys(server: Server) -> None:
    await asyncio.to_thread(play, server)
    async with viewed(server, "?view=sessions") as page:
        await page.get_by_test_id("session").filter(has_text="Orders").click()
        lanes = page.get_by_test_id("lanes")
        span = page.get_by_test_id("lanes-range")
        whole = await span.inner_text()
        box = await lanes.bounding_box()
        assert box is not None
        await page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 40)
        await page.mouse.down()
        await page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 60, steps=4)
        await page.mouse.up()
        await expect(lanes).to_have_attribute("data-zoomed", "true")
        assert await span.inner_text() != whole
        await page.get_by_test_id("lanes-all").click()
        await expect(span).to_have_text(whole)
        await lanes.focus()
        await page.keyboard.press("+")
        await expect(lanes).to_have_attribute("data-zoomed", "true")
        zoomed = await span.inner_text()
        await page.keyboard.press("ArrowRight")
        assert await span.inner_text() != zoomed
        await page.keyboard.press("0")
        await expect(span).to_have_text(whole)
        await page.keyboard.press("n")
        await expect(page.get_by_test_id("session-call")).to_contain_text("class Order")
        await page.keyboard.press("n")
        await expect(page.get_by_test_id("lanes-said")).to_contain_text("Read")
        failed = lanes.locator('[data-outcome="denied"] rect').first
        spot = await failed.bounding_box()
        assert spot is not None
        await page.mouse.click(spot["x"] + 1, spot["y"] + 4)
        await expect(page.get_by_test_id("session-call")).to_contain_text("docs.example.com")
        await page.get_by_test_id("session-feed").click()
        await expect(page.get_by_test_id("feed")).to_be_visible()
        assert "session=" in page.url


async def test_claude_mpm_s_hooks_are_sessions_too(server: Server) -> None:
    posts = [
        mpm("user_prompt", {"prompt_text": "Check the invoices"}),
        mpm("pre_tool", {"tool_name": "Bash", "tool_parameters": {"command": "make invoices"}}),
        mpm("post_tool", {"tool_name": "Bash", "exit_code": 2}),
    ]
    for body in posts:
        assert (await asyncio.to_thread(httpx.post, f"{server.url}/api/events", json=body)).status_code == 204
    async with viewed(server, "?view=sessions") as page:
        line = page.get_by_test_id("session")
        await expect(line).to_contain_text("Check the invoices")
        await expect(line).to_contain_text("1 failed")
        await line.click()
        await expect(page.get_by_test_id("session-detail")).to_contain_text("Claude MPM")
        await expect(page.get_by_test_id("session-detail")).to_contain_text("make invoices")
