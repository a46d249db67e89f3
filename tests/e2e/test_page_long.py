"""The feed under much: five thousand events a second, and a history of a million.

STEADCAST_SOAK asks for the long forms, which print what they measured and hold the page to it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import msgspec
import pytest
from playwright.async_api import Browser, Page

from steadcast.engines.sqlite import SqliteEngine
from steadcast.event import Event, Lane
from tests.support.browser import chromium
from tests.support.page import Watched, ids, jump, scrolled, until, until_state
from tests.support.plain import PLAIN
from tests.support.server import Server, event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ROW = '[data-testid="row"]'
SOAK = bool(os.environ.get("STEADCAST_SOAK"))


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


async def test_five_thousand_events_a_second_are_applied_and_the_page_still_moves(
    tmp_path: Path, browser: Browser
) -> None:
    with Server(tmp_path, engine="memory:") as server:
        await asyncio.to_thread(server.publish, "orders", event(-1))
        page = (await Watched.open(browser, server.url)).page
        await page.wait_for_selector(ROW)
        cdp = await page.context.new_cdp_session(page)
        await page.evaluate(FRAMES)
        before = await heap(cdp)
        await browser.start_tracing(page=page, categories=["toplevel"])
        sent, took = await flood(server.url, 60 if SOAK else 4)
        await until(page, f"+document.querySelector('[data-testid=feed]').dataset.applied > {sent}", "all")
        await until_state(page, "live")
        tasks = tasks_of(await browser.stop_tracing())
        after = await heap(cdp)
        frames, dropped = await page.evaluate("window.frames()")
        print(
            f"\n{sent} events in {took:.1f} s; {len(tasks)} tasks; {told(tasks)}\nheap {before / 1e6:.1f} to "
            f"{after / 1e6:.1f} MB; {frames} frames, {dropped} dropped; load {load()}"
        )
        await page.wait_for_selector(f'{ROW}[data-id="e{sent - 1}"]')
        last = await ids(page)
        assert last == [f"e{n}" for n in range(sent - len(last), sent)]
        assert after - before < 60_000_000
        # A processor that others use as well draws seldom.
        assert frames > (8 if SOAK else 1) * took, "the page stood still"
        if SOAK:
            assert max(task.processor for task in tasks) <= LONG


class Task(NamedTuple):
    """What the page's main thread did at one go, in milliseconds."""

    lasted: float
    processor: float


LONG = 50.0


def tasks_of(trace: bytes) -> list[Task]:
    """Read the main thread's tasks from a trace: how long they lasted, and for how long they ran."""
    events = json.loads(trace)["traceEvents"]
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e.get("name") == "thread_name"}
    return [
        Task(e["dur"] / 1_000, e.get("tdur", e["dur"]) / 1_000)
        for e in events
        if e.get("name") == "ThreadControllerImpl::RunTask"
        and "dur" in e  # one may be under way
        and threads.get((e["pid"], e["tid"])) == "CrRendererMain"
    ]


def told(tasks: list[Task]) -> str:
    """Say how long the tasks were, by the clock and without the time that others had the processor."""
    clock = [task.lasted for task in tasks]
    own = [task.processor for task in tasks]
    return (
        f"above {LONG:.0f} ms by the clock {sum(each > LONG for each in clock)} (longest {max(clock):.0f}), "
        f"of processor time {sum(each > LONG for each in own)} (longest {max(own):.0f}), "
        f"{sum(own) / 1_000:.1f} s in all"
    )


FRAMES = """() => {
  const frames = [];
  let last = performance.now();
  const frame = () => {
    const now = performance.now();
    frames.push(now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  window.frames = () => [frames.length, frames.filter((each) => each > 34).length];
}"""


async def heap(cdp: Any) -> float:
    await cdp.send("HeapProfiler.collectGarbage")
    usage = await cdp.send("Runtime.getHeapUsage")
    return float(usage["usedSize"])


async def flood(url: str, seconds: float) -> tuple[int, float]:
    """Publish 5,000 events a second, 500 at once; gives how many, and how long it took."""
    headers = {"content-type": "application/cloudevents-batch+json"}
    began = time.monotonic()
    sent = 0
    async with httpx.AsyncClient(verify=PLAIN, base_url=url, headers=headers, timeout=30) as client:
        while sent < seconds * 5_000:
            events = [event(n) for n in range(sent, sent + 500)]
            answer = await client.post("/v1/streams/orders/events", json=events)
            assert answer.status_code == 200, answer.text
            sent += 500
            await asyncio.sleep(max(0.0, began + sent / 5_000 - time.monotonic()))
    return sent, time.monotonic() - began


async def test_a_long_history_is_paged_through_while_the_page_keeps_little_of_it(
    tmp_path: Path, browser: Browser
) -> None:
    count, places = (1_000_000, 12) if SOAK else (20_000, 2)
    began = time.monotonic()
    await history(tmp_path / "steadcast.db", count)
    print(f"\n{count} events in the log after {time.monotonic() - began:.0f} s; load {load()}")
    with Server(tmp_path) as server:
        page = (await Watched.open(browser, server.url)).page
        await page.wait_for_selector(f'{ROW}[data-id="e{count - 1}"]')
        await page.mouse.move(600, 500)
        cdp = await page.context.new_cdp_session(page)
        before = highest = await heap(cdp)
        for number in range(places - 1, -1, -1):
            first = number * count // places // 1_000 * 1_000
            kept, now = await looked_around(page, cdp, first)
            highest = max(highest, now)
            print(f"around event {first:>7}: {kept:>6} rows kept, heap {now / 1e6:.1f} MB")
        print(f"heap {before / 1e6:.1f} MB at first, {highest / 1e6:.1f} MB at most; load {load()}")
        assert highest - before < 60_000_000
        await page.keyboard.press("g")
        await page.wait_for_selector(f'{ROW}[data-id="e{count - 1}"]')


async def looked_around(page: Page, cdp: Any, first: int) -> tuple[str, float]:
    """Jump to an event, scroll up and down from there; gives how many rows are kept, and the heap's bytes."""
    await jump(page, moment(first)[:19])
    await page.wait_for_selector(f'{ROW}[data-id="e{first}"]')
    if first > 0:
        await scrolled(page, -3_000, lambda shown: shown[0] < first - 1_500)
    await scrolled(page, 3_000, lambda shown: shown[-1] > first + 1_500)
    kept = await page.get_by_test_id("found").inner_text()
    return kept.split()[0], await heap(cdp)


def load() -> str:
    """Tell the load average of the last minute: others may use the processor as well."""
    return f"{os.getloadavg()[0]:.1f}"


def moment(n: int) -> str:
    """Give the time of the event with the number `n`: a millisecond after the one before."""
    seconds = n // 1_000
    clock = f"{seconds // 3_600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"2026-01-01T{clock}.{n % 1_000:03d}Z"


async def history(path: Path, count: int) -> None:
    """Write a log, every fiftieth event of it critical."""
    engine = SqliteEngine(path)
    for start in range(0, count, 1_000):
        await engine.append("orders", [entry(n) for n in range(start, start + 1_000)])
    await engine.aclose()


def entry(n: int) -> Event:
    priority = Lane.CRITICAL if n % 50 == 0 else Lane.NORMAL
    return Event(f"e{n}", "test", "test.counted", moment(n), msgspec.Raw(b'{"n":%d}' % n), priority)
