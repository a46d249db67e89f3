"""`steadcast trim`, as a real process: told before it is done, done when it is agreed to."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steadcast.event import Lane
from tests.support.command import Commands, Result
from tests.support.delivery import Place, serving
from tests.support.ports import free_port
from tests.support.server import BIN

NORMAL = ("orders", "--lane", "normal")
WOULD = "orders (normal): 4 events would go, offsets 1 to 4; the mark is 0, the head 10"
GONE = "orders (normal): 4 events gone, offsets 1 to 4; the mark is 4, the head 10"


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """Serve ten events."""
    async with serving() as running:
        for n in range(10):
            await running.cast.publish("orders", type="order.paid", id=str(n))
        yield running


async def run(place: Place, folder: Path, *args: str) -> Result:
    return await asyncio.to_thread(Commands(folder, place.url), "trim", *args)


async def mark(place: Place) -> int:
    return (await place.engine.describe("orders")).streams["orders"][Lane.NORMAL].trimmed


async def test_a_dry_run_tells_what_would_go(place: Place, tmp_path: Path) -> None:
    told = await run(place, tmp_path, *NORMAL, "--upto", "4", "--dry-run")
    assert (told.code, told.lines, told.err) == (0, [WOULD], "")
    assert await mark(place) == 0


async def test_what_went_is_told_to_people_and_programs(place: Place, tmp_path: Path) -> None:
    done = await run(place, tmp_path, *NORMAL, "--upto", "4", "--yes")
    assert (done.code, done.lines, done.err) == (0, [GONE], "")
    assert await mark(place) == 4
    done = await run(place, tmp_path, *NORMAL, "--upto", "e1:5", "--yes", "--json")
    assert [(each["events"], each["lost"], each["trimmed"]) for each in done.objects] == [(1, [5, 5], 5)]


@pytest.mark.parametrize("more", [(), ("--yes",), ("--dry-run",)])
async def test_where_there_is_nothing_to_do_it_says_so(
    place: Place, tmp_path: Path, more: tuple[str, ...]
) -> None:
    await place.engine.trim("orders", Lane.NORMAL, 4)
    done = await run(place, tmp_path, *NORMAL, "--upto", "3", *more)
    words = "orders (normal): nothing to do; the mark is 4, the head 10"
    assert (done.code, done.lines) == (0, [words])


async def test_without_anybody_to_ask_it_needs_yes(place: Place, tmp_path: Path) -> None:
    refused = await run(place, tmp_path, *NORMAL, "--upto", "4")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == f"steadcast: {WOULD}\nsteadcast: give --yes to do it\n"
    assert await mark(place) == 0


@pytest.mark.parametrize(("answer", "code", "trimmed"), [("y", 0, 4), ("n", 1, 0), ("", 1, 0)])
async def test_who_sits_there_is_asked(
    place: Place, tmp_path: Path, answer: str, code: int, trimmed: int
) -> None:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        BIN / "steadcast", "trim", *NORMAL, "--upto", "4",
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=Commands(tmp_path, place.url).environ,
    )  # fmt: skip
    os.write(ours, f"{answer}\n".encode())
    out, err = await asyncio.wait_for(process.communicate(), 40)
    os.close(theirs)
    os.close(ours)
    assert process.returncode == code, err
    assert err.decode().startswith(f"{WOULD}\nThat is for good. Go on? [y/N] ")
    assert ("nothing was trimmed" in err.decode()) is (trimmed == 0)
    assert out.decode().splitlines() == ([GONE] if trimmed else [])
    assert await mark(place) == trimmed


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((*NORMAL, "--upto", "11"), 2, "the lane ends at offset 10 (invalid_request)"),
        ((*NORMAL, "--upto", "ten"), 2, "upto has offsets from 0 to 2^53-1 (invalid_request)"),
        (("no stream", "--lane", "normal", "--upto", "1"), 2, "(invalid_stream)"),
        ((*NORMAL, "--upto", "e0:4"), 1, "the position is of another epoch (reset)"),
        (("nowhere", "--lane", "normal", "--upto", "1"), 1, "no stream of the name nowhere (not_found)"),
    ],
)
async def test_what_the_server_refuses_is_told(
    place: Place, tmp_path: Path, args: tuple[str, ...], code: int, words: str
) -> None:
    for more in ("--yes", "--dry-run"):
        refused = await run(place, tmp_path, *args, more)
        assert (refused.code, refused.out) == (code, "")
        assert words in refused.err
    assert await mark(place) == 0


def test_without_a_server_it_exits_3(tmp_path: Path) -> None:
    done = Commands(tmp_path, f"http://127.0.0.1:{free_port()}")("trim", *NORMAL, "--upto", "1", "--yes")
    assert done.code == 3
    assert "no server answers" in done.err


async def test_without_the_token_it_exits_5(tmp_path: Path) -> None:
    async with serving(token="right") as place:  # noqa: S106 - a test's
        refused = await run(place, tmp_path, *NORMAL, "--upto", "1", "--yes")
        assert refused.code == 5
