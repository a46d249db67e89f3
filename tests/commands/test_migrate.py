"""`steadcast migrate`: a log moves, either way, while it is published to, nothing missing or doubled."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import nats
import pytest

from steadcast.engines import sqlite_path
from steadcast.engines.jetstream_url import parse_url
from steadcast.engines.sqlite_schema import SCHEMA_VERSION
from steadcast.errors import IdConflict
from steadcast.event import LANES
from tests.engine_backends import CRITICAL, NORMAL, event, events, ids, nats_url, open_jetstream, open_sqlite
from tests.engine_logfile import as_version_0
from tests.support.command import Commands, Result
from tests.support.server import Server
from tests.support.server import event as cloud_event


@pytest.fixture
def command(tmp_path: Path) -> Commands:
    return Commands(tmp_path, "http://127.0.0.1:1")


COUNT = 8_000
"""Events of a copy that is killed: so many that it isn't done before it is."""


@dataclass(frozen=True)
class Way:
    """From one log to another, and where it is noted how far it went."""

    origin: str
    target: str
    note: Path

    def run(self, command: Commands) -> Result:
        return command("migrate", *self.args)

    @property
    def args(self) -> tuple[str, ...]:
        return ("--from", self.origin, "--to", self.target)


@pytest.fixture(params=["to jetstream", "to sqlite"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Way:
    file, note = f"sqlite:///{tmp_path}/log.db", tmp_path / "log.db.migrated"
    logs = (file, nats_url()) if request.param == "to jetstream" else (nats_url(), file)
    return Way(*logs, note)


def opened(url: str) -> Any:
    return open_jetstream(url) if url.startswith("nats:") else open_sqlite(sqlite_path(url))


async def fill(url: str, count: int) -> None:
    engine = opened(url)
    for start in range(0, count, 500):
        await engine.append("orders", events(range(start, min(count, start + 500))))
    await engine.append("orders", events(["c1", "c2"], lane=CRITICAL))
    await engine.append("a.b", [event("other")])
    await engine.aclose()


async def held(url: str) -> dict[tuple[str, str], list[str]]:
    engine = opened(url)
    found: dict[tuple[str, str], list[str]] = {}
    for stream, lanes in (await engine.describe()).streams.items():
        for lane in LANES:
            after = lanes[lane].trimmed
            while (page := await engine.read(stream, lane, after)).events:
                found.setdefault((stream, str(lane)), []).extend(ids(page))
                after = page.upto
    await engine.aclose()
    return found


async def test_a_log_is_copied_in_order_with_its_ids_and_a_second_run_adds_nothing(
    way: Way, command: Commands
) -> None:
    await fill(way.origin, 700)
    done = way.run(command)
    assert (done.code, done.lines) == (0, ["caught up: 703 events added"])
    expected = {
        ("orders", "normal"): [str(n) for n in range(700)],
        ("orders", "critical"): ["c1", "c2"],
        ("a.b", "normal"): ["other"],
    }
    assert await held(way.target) == expected
    again = way.run(command)
    assert again.lines == ["caught up: 0 events added"]
    # Without the note of the first run, the ids say the same.
    way.note.unlink()
    assert way.run(command).lines == again.lines
    assert await held(way.target) == expected
    here, there = opened(way.origin), opened(way.target)
    assert (await here.describe()).epoch != (await there.describe()).epoch
    assert all(receipt.duplicate for receipt in await there.append("orders", events(range(700))))
    with pytest.raises(IdConflict):
        await there.append("orders", [event(3, {"other": "body"})])
    await here.aclose()
    await there.aclose()


async def test_a_log_of_many_streams_is_told_by_one_bar_that_shows_the_lane_under_way(
    tmp_path: Path, command: Commands
) -> None:
    way = Way(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/copy.db", tmp_path / "log.db.migrated")
    engine = opened(way.origin)
    await asyncio.gather(*(engine.append(f"s-{n}", [event("only")]) for n in range(60)))
    await engine.aclose()
    done = way.run(command)
    assert done.lines == ["caught up: 60 events added"]
    # What is drawn for each is drawn for all before it, too: with 10,000 streams that took hours.
    assert [line.split()[:2] for line in done.err.splitlines() if "━" in line] == [["s-59", "normal"]]


async def test_what_retention_took_before_is_left_out_and_what_it_took_meanwhile_is_told(
    way: Way, command: Commands
) -> None:
    await fill(way.origin, 300)
    engine = opened(way.origin)
    await engine.trim("orders", NORMAL, await offset_of(engine, 10))
    assert way.run(command).lines == ["caught up: 293 events added"]
    await engine.append("orders", events(range(300, 320)))
    await engine.trim("orders", NORMAL, await offset_of(engine, 305 - 10))
    await engine.aclose()
    done = way.run(command)
    assert done.lines == ["caught up: 15 events added"]
    assert "orders (normal): retention took" in done.err
    assert (await held(way.target))["orders", "normal"] == [
        str(n) for n in range(10, 320) if not 300 <= n < 305
    ]


async def offset_of(engine: Any, count: int) -> int:
    """Give the offset of the last of the first `count` events that a lane keeps."""
    after = (await engine.describe("orders")).streams["orders"][NORMAL].trimmed
    for _ in range(count):
        after = (await engine.read("orders", NORMAL, after, 1)).upto
    return int(after)


async def test_a_copy_that_was_killed_goes_on_where_it_was_while_the_server_takes_events(
    way: Way, tmp_path: Path
) -> None:
    await fill(way.origin, COUNT)
    with Server(tmp_path, engine=way.origin) as server:
        command = Commands(tmp_path, server.url)
        process = command.start("migrate", *way.args, told=tmp_path / "told")
        deadline = time.monotonic() + 30
        while not (way.note.exists() and '"normal"' in way.note.read_text().partition('"orders"')[2]):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        went = json.loads(way.note.read_text())["done"]["orders"]["normal"]
        assert server.publish("orders", *(cloud_event(n) for n in range(50))).status_code == 200
        done = way.run(command)
        assert done.code == 0
        assert int(done.lines[0].split()[2]) < COUNT
        assert server.publish("orders", *(cloud_event(n) for n in range(50, 60))).status_code == 200
        server.kill(signal.SIGTERM)
    assert way.run(command).code == 0
    found = await held(way.target)
    expected = [str(n) for n in range(COUNT)] + [f"e{n}" for n in range(60)]
    assert found["orders", "normal"] == expected
    assert 0 < went < COUNT


async def test_a_damaged_event_ends_a_copy_that_goes_on_once_it_was_trimmed(
    tmp_path: Path, command: Commands
) -> None:
    path = tmp_path / "log.db"
    way = Way(f"sqlite:///{path}", nats_url(), tmp_path / "log.db.migrated")
    await fill(way.origin, 10)
    log = apsw.Connection(str(path))
    log.execute("UPDATE events SET event = '{' WHERE event ->> 'id' = '4'")
    log.close()
    ended = way.run(command)
    assert (ended.code, ended.lines) == (3, [])
    assert "the event at offset 5 of orders (normal) is damaged" in ended.err
    engine = opened(way.origin)
    await engine.trim("orders", NORMAL, 5)
    await engine.aclose()
    assert way.run(command).code == 0
    assert (await held(way.target))["orders", "normal"] == [str(n) for n in range(10) if n != 4]


async def test_a_log_that_went_and_came_back_has_each_event_once(way: Way, command: Commands) -> None:
    await fill(way.origin, 10)
    assert way.run(command).code == 0
    there = opened(way.target)
    await there.append("orders", events(range(10, 20)))
    await there.aclose()
    back = command("migrate", "--from", way.target, "--to", way.origin)
    assert back.lines == ["caught up: 10 events added"]
    assert (await held(way.origin))["orders", "normal"] == [str(n) for n in range(20)]


def test_what_is_not_there_is_not_copied(command: Commands) -> None:
    done = command("migrate", "--from", "sqlite:////nowhere/log.db", "--to", "memory:")
    assert done.code == 2
    assert "there is no log /nowhere/log.db" in done.err
    assert command("migrate", "--from", "memory:", "--to", "memory:").code == 2


@pytest.mark.parametrize(
    ("version", "words"),
    [(SCHEMA_VERSION + 1, "update steadcast"), (0, "serve it once"), (-1, "it is empty")],
)
async def test_a_file_that_this_version_cant_read_is_refused_in_words_that_help(
    tmp_path: Path, command: Commands, version: int, words: str
) -> None:
    path, copy = tmp_path / "log.db", tmp_path / "copy.db"
    await fill(f"sqlite:///{path}", 1)
    if version < 0:
        path.write_bytes(b"")
    elif version == 0:
        as_version_0(path)
    else:
        conn = apsw.Connection(str(path))
        conn.pragma("user_version", version)
        conn.close()
    done = command("migrate", "--from", f"sqlite:///{path}", "--to", f"sqlite:///{copy}")
    assert (done.code, done.lines) == (3, [])
    assert words in done.err
    assert not copy.exists()


async def test_a_log_that_is_not_in_jetstream_is_not_made(tmp_path: Path, command: Commands) -> None:
    url = nats_url()
    done = command("migrate", "--from", url, "--to", f"sqlite:///{tmp_path}/log.db")
    assert (done.code, done.lines) == (2, [])
    assert f"there is no log {parse_url(url).stream} in JetStream" in done.err
    client = await nats.connect(parse_url(url).servers[0])
    assert parse_url(url).stream not in {each.config.name for each in await client.jetstream().streams_info()}
    await client.close()


async def test_a_file_that_is_served_takes_no_copy(tmp_path: Path) -> None:
    url = nats_url()
    await fill(url, 1)
    with Server(tmp_path) as server:
        done = Commands(tmp_path, server.url)("migrate", "--from", url, "--to", server.engine)
    assert done.code == 3
    assert "another server" in done.err


def test_between_two_logs_that_are_no_files_it_has_to_be_said_where_to_note_it(command: Commands) -> None:
    done = command("migrate", "--from", nats_url(), "--to", nats_url())
    assert (done.code, done.lines) == (2, [])
    assert "--state: neither log is a file" in done.err


async def test_a_log_is_not_copied_into_itself(way: Way, command: Commands) -> None:
    url = way.origin
    await fill(url, 1)
    done = command("migrate", "--from", url, "--to", url, "--state", str(way.note))
    assert (done.code, done.lines) == (2, [])
    assert "--to: this is the log that is copied from" in done.err
