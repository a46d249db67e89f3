"""The log's file: made, recognised, migrated, refused, locked, and given a new epoch."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from steadcast.engines import open_engine
from steadcast.engines.base import Retention
from steadcast.engines.sqlite import SqliteEngine
from steadcast.engines.sqlite_schema import APPLICATION_ID, SCHEMA_VERSION, mint_epoch
from steadcast.errors import EngineRefused, EngineUnavailable, IdConflict
from tests.engine_backends import CRITICAL, NORMAL, Clock, event, events, open_sqlite, read_all
from tests.engine_logfile import as_version_0, check

Open = Callable[..., SqliteEngine]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
async def opened(path: Path) -> AsyncIterator[Open]:
    engines: list[SqliteEngine] = []

    def open_one(**settings: Any) -> SqliteEngine:
        engines.append(open_sqlite(path, **settings))
        return engines[-1]

    yield open_one
    for engine in engines:
        await engine.aclose()


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def fill(path: Path, what: bytes) -> None:
    path.write_bytes(what)


def look(path: Path, query: str) -> Any:
    conn = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    found = conn.execute(query).get
    conn.close()
    return found


async def test_no_file_is_touched_before_the_first_call(path: Path, opened: Open) -> None:
    engine = opened()
    assert content(path) is None
    await engine.describe()
    assert content(path) is not None


async def test_a_new_file_says_what_it_is_and_writes_durably(path: Path, opened: Open) -> None:
    engine = opened()
    await engine.append("s", [event(1)])

    def settings(log: Any) -> list[Any]:
        names = ("application_id", "user_version", "journal_mode", "synchronous")
        return [log.conn.pragma(name) for name in names]

    full = 2
    assert await engine._writer.call(settings) == [APPLICATION_ID, SCHEMA_VERSION, "wal", full]


async def test_an_empty_file_becomes_a_log(path: Path, opened: Open) -> None:
    fill(path, b"")
    await opened().append("s", [event(1)])
    check(path)


async def test_a_person_can_read_the_file_with_sqlite_while_it_is_served(path: Path, opened: Open) -> None:
    engine = opened()
    await engine.append("s", [event(1, {"a": 1}, type="made"), event(2)])
    assert look(path, "SELECT event ->> 'type' FROM events ORDER BY key LIMIT 1") == "made"
    await engine.append("s", [event(3)])
    assert look(path, "SELECT count(*) FROM events") == 3


async def test_a_newer_file_is_refused_with_a_word_that_helps_and_left_as_it_is(
    path: Path, opened: Open
) -> None:
    await (first := opened()).append("s", [event(1)])
    await first.aclose()
    conn = apsw.Connection(str(path))
    conn.pragma("user_version", SCHEMA_VERSION + 1)
    conn.close()
    before = content(path)
    engine = opened()
    for call in (engine.describe(), engine.append("s", [event(2)]), engine.read("s", NORMAL, 0)):
        with pytest.raises(EngineRefused, match=r"newer version of steadcast.*update steadcast") as caught:
            await call
        assert caught.value.code == "engine_newer"
    await engine.aclose()
    assert content(path) == before


async def test_an_older_file_is_brought_up_to_date_with_everything_in_it(path: Path, opened: Open) -> None:
    await (first := opened()).append("s", events(range(10)) + events(range(10, 13), lane=CRITICAL))
    await first.trim("s", NORMAL, 4)
    before = await first.describe()
    await first.aclose()
    as_version_0(path)
    engine = opened()
    assert await engine.describe() == before
    assert [e.id for _, e in await read_all(engine, "s", NORMAL, 4)] == ["4", "5", "6", "7", "8", "9"]
    receipts = await engine.append("s", [event(2), event("fresh")])
    assert [(r.position.offset, r.duplicate) for r in receipts] == [(3, True), (11, False)]
    assert await engine.append("s", []) == []
    await engine.aclose()
    assert look(path, "PRAGMA user_version") == SCHEMA_VERSION
    assert look(path, "PRAGMA application_id") == APPLICATION_ID
    check(path)


async def test_ids_under_their_old_names_are_known_until_the_last_is_swept(path: Path) -> None:
    clock = Clock()
    before = open_sqlite(path, clock)
    first = await before.append("s", events(range(10)))
    await before.trim("s", NORMAL, 5)
    await before.aclose()
    as_version_0(path)
    engine = open_sqlite(path, clock, retention=Retention(events=1), ids_age=100.0)
    for names in (range(10), range(12)):
        again = await engine.append("s", events(names))
        assert again[:10] == [msgspec.structs.replace(receipt, duplicate=True) for receipt in first]
    assert [receipt.duplicate for receipt in again[10:]] == [False, False]
    for name in (2, 7):
        with pytest.raises(IdConflict):
            await engine.append("s", [event("fresh"), event(name, "changed")])
    assert not (await engine.append("other", [event(2)]))[0].duplicate
    tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'old_ids'"
    await engine.trim()
    assert look(path, tables) == 1
    clock.advance(101)
    await engine.trim()
    assert look(path, tables) == 0
    assert not (await engine.append("s", [event(2)]))[0].duplicate
    await engine.aclose()
    check(path)


@pytest.mark.parametrize(("application", "tables"), [(0, "CREATE TABLE notes (text)"), (77, "")])
async def test_a_database_of_another_program_is_refused_and_left_as_it_is(
    path: Path, opened: Open, application: int, tables: str
) -> None:
    conn = apsw.Connection(str(path))
    conn.execute(tables)
    conn.pragma("application_id", application)
    conn.close()
    before = content(path)
    with pytest.raises(EngineRefused, match="another program") as caught:
        await opened().describe()
    assert caught.value.code == "engine_invalid"
    assert content(path) == before


async def test_a_file_that_is_no_database_is_refused(path: Path, opened: Open) -> None:
    fill(path, os.urandom(8192))
    before = content(path)
    engine = opened()
    for call in (engine.describe, partial(engine.append, "s", [event(1)]), partial(engine.append, "s", [])):
        with pytest.raises(EngineRefused) as caught:
            await call()
        assert caught.value.code == "engine_invalid"
    assert content(path) == before


async def test_a_damaged_log_is_told_not_served(path: Path, opened: Open) -> None:
    await (first := opened()).append("s", events(range(500), data="x" * 200))
    await first.aclose()
    whole = content(path)
    assert whole is not None
    fill(path, whole[: 4096 * 8] + os.urandom(4096 * 10) + whole[4096 * 18 :])
    engine = opened()
    with pytest.raises(EngineRefused) as caught:
        await read_all(engine, "s", NORMAL)
    assert caught.value.code == "engine_invalid"


async def test_a_folder_is_no_log(tmp_path: Path) -> None:
    engine = open_sqlite(tmp_path)
    with pytest.raises(EngineRefused, match="it is a folder"):
        await engine.describe()
    await engine.aclose()


async def test_a_missing_folder_is_named_and_heals_when_it_is_made(tmp_path: Path) -> None:
    engine = open_sqlite(tmp_path / "missing" / "log.db")
    with pytest.raises(EngineUnavailable, match="missing"):
        await engine.describe()
    (tmp_path / "missing").mkdir()
    assert (await engine.append("s", [event(1)]))[0].position.offset == 1
    await engine.aclose()


# One server per file


async def test_a_second_server_is_refused_in_words_until_the_first_is_gone(path: Path, opened: Open) -> None:
    first, second = opened(), opened()
    await first.append("s", [event(1)])
    for call in (second.describe(), second.append("s", [event(2)]), second.append("s", [])):
        with pytest.raises(EngineUnavailable, match=f"another server .process {os.getpid()}") as caught:
            await call
        assert (caught.value.code, caught.value.temporary) == ("engine_locked", True)
    await first.aclose()
    assert (await second.append("s", [event(2)]))[0].position.offset == 2


async def test_the_lock_follows_the_file_through_links(path: Path, opened: Open) -> None:
    await opened().append("s", [event(1)])
    link = path.with_name("link.db")
    link.symlink_to(path)
    other = open_engine(f"sqlite:///{link}")
    with pytest.raises(EngineUnavailable, match="another server"):
        await other.describe()
    await other.aclose()


# Epochs


async def test_the_epoch_stays_with_the_file(path: Path, opened: Open) -> None:
    first = opened()
    epoch = (await first.describe()).epoch
    await first.aclose()
    assert (await opened().describe()).epoch == epoch


async def test_a_restored_log_is_given_a_new_epoch_and_keeps_its_offsets(path: Path, opened: Open) -> None:
    first = opened()
    receipt = (await first.append("s", [event(1)]))[0]
    with pytest.raises(EngineUnavailable) as caught:
        await asyncio.to_thread(mint_epoch, path)
    assert caught.value.code == "engine_locked"
    await first.aclose()
    epoch = mint_epoch(path)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", epoch)
    assert epoch != receipt.position.epoch
    again = opened()
    assert (await again.describe()).epoch == epoch
    duplicate = (await again.append("s", [event(1)]))[0]
    assert (duplicate.position.epoch, duplicate.position.offset, duplicate.duplicate) == (epoch, 1, True)
    assert (await again.append("s", [event(2)]))[0].position.offset == 2


def test_there_is_no_epoch_to_mint_without_a_file(path: Path) -> None:
    with pytest.raises(EngineRefused):
        mint_epoch(path)
    assert not path.exists()


# Names that the locale can't read


def test_a_log_beside_names_beyond_ascii_is_opened_in_the_c_locale_too(tmp_path: Path) -> None:
    """As under cron: its characters come to Python as no text, and are what SQLite reads all the same."""
    folder = tmp_path / "büro"
    folder.mkdir()
    program = """
import asyncio
from steadcast import Steadcast

async def main():
    async with Steadcast(engine="sqlite:///log.db") as cast:
        print((await cast.publish("s", type="t")).position.offset)

asyncio.run(main())
"""
    environ = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, check=False, timeout=60, text=True
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert (folder / "log.db").exists()


async def test_a_path_that_is_no_utf_8_is_refused_in_words(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"b\xfcro")
    folder.mkdir()
    engine = SqliteEngine(folder / "log.db")
    with pytest.raises(EngineRefused, match="UTF-8"):
        await engine.describe()
    await engine.aclose()


async def test_a_new_log_is_for_its_owner_alone_and_one_that_is_there_keeps_its_mode(
    path: Path, opened: Open
) -> None:
    before = os.umask(0o022)
    try:
        engine = opened()
        await engine.append("s", [event("1")])
        files = [path, *path.parent.glob(f"{path.name}-*")]
        assert len(files) == 3
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
        await engine.aclose()
        path.chmod(0o640)
        again = opened()
        await again.append("s", [event("2")])
        assert path.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)
