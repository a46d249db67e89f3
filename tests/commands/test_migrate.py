"""`steadcast migrate`: a log moves into JetStream while it is published to, nothing missing or doubled."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path

import pytest

from steadcast.event import LANES
from tests.engine_backends import CRITICAL, event, events, ids, nats_url, open_jetstream, open_sqlite
from tests.support.command import Commands
from tests.support.server import Server
from tests.support.server import event as cloud_event


@pytest.fixture
def command(tmp_path: Path) -> Commands:
    return Commands(tmp_path, "http://127.0.0.1:1")


async def fill(path: Path, count: int) -> None:
    engine = open_sqlite(path)
    for start in range(0, count, 500):
        await engine.append("orders", events(range(start, min(count, start + 500))))
    await engine.append("orders", events(["c1", "c2"], lane=CRITICAL))
    await engine.append("a.b", [event("other")])
    await engine.aclose()


async def held(url: str) -> dict[tuple[str, str], list[str]]:
    engine = open_jetstream(url)
    found: dict[tuple[str, str], list[str]] = {}
    for stream in (await engine.describe()).streams:
        for lane in LANES:
            after = 0
            while (page := await engine.read(stream, lane, after)).events:
                found.setdefault((stream, str(lane)), []).extend(ids(page))
                after = page.upto
    await engine.aclose()
    return found


async def test_a_log_is_copied_in_order_and_a_second_run_adds_nothing(
    tmp_path: Path, command: Commands
) -> None:
    await fill(tmp_path / "log.db", 700)
    url = nats_url()
    done = command("migrate", "--from", f"sqlite:///{tmp_path}/log.db", "--to", url)
    assert (done.code, done.lines) == (0, ["caught up: 703 events added"])
    expected = {
        ("orders", "normal"): [str(n) for n in range(700)],
        ("orders", "critical"): ["c1", "c2"],
        ("a.b", "normal"): ["other"],
    }
    assert await held(url) == expected
    again = command("migrate", "--from", f"sqlite:///{tmp_path}/log.db", "--to", url)
    assert again.lines == ["caught up: 0 events added"]
    # Without the note of the first run, the ids say the same.
    (tmp_path / "log.db.migrated").unlink()
    assert command("migrate", "--from", f"sqlite:///{tmp_path}/log.db", "--to", url).lines == again.lines
    assert await held(url) == expected


async def test_a_copy_that_was_killed_goes_on_where_it_was_while_the_server_takes_events(
    tmp_path: Path,
) -> None:
    await fill(tmp_path / "steadcast.db", 2_500)
    url = nats_url()
    note = tmp_path / "steadcast.db.migrated"
    with Server(tmp_path) as server:
        command = Commands(tmp_path, server.url)
        options = ("migrate", "--from", f"sqlite:///{tmp_path}/steadcast.db", "--to", url)
        process = command.start(*options, told=tmp_path / "told")
        deadline = time.monotonic() + 30
        while not (note.exists() and '"normal"' in note.read_text().partition('"orders"')[2]):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        went = json.loads(note.read_text())["done"]["orders"]["normal"]
        assert server.publish("orders", *(cloud_event(n) for n in range(50))).status_code == 200
        done = command(*options)
        assert done.code == 0
        assert int(done.lines[0].split()[2]) < 2_500
        assert server.publish("orders", *(cloud_event(n) for n in range(50, 60))).status_code == 200
        server.kill(signal.SIGTERM)
    assert command(*options).code == 0
    found = await held(url)
    expected = [str(n) for n in range(2_500)] + [f"e{n}" for n in range(60)]
    assert found["orders", "normal"] == expected
    assert 0 < went < 2_500


def test_what_is_not_there_is_not_copied(command: Commands) -> None:
    done = command("migrate", "--from", "sqlite:////nowhere/log.db", "--to", "memory:")
    assert done.code == 2
    assert "there is no log /nowhere/log.db" in done.err
    assert command("migrate", "--from", "memory:", "--to", "memory:").code == 2


async def test_a_log_is_not_copied_into_itself(tmp_path: Path, command: Commands) -> None:
    await fill(tmp_path / "log.db", 1)
    url = f"sqlite:///{tmp_path}/log.db"
    done = command("migrate", "--from", url, "--to", url)
    assert (done.code, done.lines) == (2, [])
    assert "--to: this is the log that is copied from" in done.err
