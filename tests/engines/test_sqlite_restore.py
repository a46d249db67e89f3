"""A backup in the place of a log: another epoch, the old log kept aside, and never under a running server."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import apsw
import msgspec
import pytest

from steadcast.engines.sqlite import SqliteEngine
from steadcast.engines.sqlite_restore import restore
from steadcast.errors import EngineRefused, EngineUnavailable, InvalidRequest
from steadcast.event import Event, Lane

if TYPE_CHECKING:
    from pathlib import Path


def event(n: int) -> Event:
    return Event(f"e{n}", "test", "t", "2026-01-01T00:00:00Z", msgspec.Raw(b"1"))


async def fill(path: Path, count: int) -> str:
    engine = SqliteEngine(path)
    receipts = await engine.append("s", [event(n) for n in range(count)])
    await engine.aclose()
    return receipts[0].position.epoch


async def head(path: Path) -> tuple[str, int]:
    engine = SqliteEngine(path)
    found = await engine.describe("s")
    await engine.aclose()
    return found.epoch, found.streams["s"][Lane.NORMAL].head


def back_up(path: Path, backup: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(f"VACUUM INTO '{backup}'")
    connection.close()


async def test_a_restored_log_has_the_backups_events_and_an_epoch_of_its_own(tmp_path: Path) -> None:
    log, backup, aside = (tmp_path / name for name in ("log.db", "backup.db", "aside.db"))
    old = await fill(log, 3)
    back_up(log, backup)
    await fill(log, 5)
    epoch = restore(backup, log, aside=aside)
    assert epoch != old
    assert await head(log) == (epoch, 3)
    assert await head(aside) == (old, 5)
    assert [p.name for p in tmp_path.iterdir() if "restoring" in p.name] == []


async def test_a_log_in_its_place_is_not_overwritten(tmp_path: Path) -> None:
    log, backup = tmp_path / "log.db", tmp_path / "backup.db"
    old = await fill(log, 3)
    back_up(log, backup)
    with pytest.raises(InvalidRequest, match="--replace"):
        restore(backup, log)
    assert await head(log) == (old, 3)


async def test_a_log_that_was_moved_aside_before_is_not_overwritten(tmp_path: Path) -> None:
    log, backup, aside = (tmp_path / name for name in ("log.db", "backup.db", "aside.db"))
    await fill(log, 3)
    back_up(log, backup)
    restore(backup, log, aside=aside)
    now, before = await head(log), await head(aside)
    with pytest.raises(InvalidRequest, match="moved aside before"):
        restore(backup, log, aside=aside)
    assert (await head(log), await head(aside)) == (now, before)


async def test_a_running_server_keeps_its_log(tmp_path: Path) -> None:
    log, backup = tmp_path / "log.db", tmp_path / "backup.db"
    await fill(log, 1)
    back_up(log, backup)
    engine = SqliteEngine(log)
    await engine.describe()
    with pytest.raises(EngineUnavailable) as refused:
        restore(backup, log, aside=tmp_path / "aside.db")
    assert refused.value.code == "engine_locked"
    await engine.aclose()
    assert (await head(log))[1] == 1


async def test_what_is_no_log_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    log, backup = tmp_path / "log.db", tmp_path / "backup.db"
    old = await fill(log, 2)
    backup.write_bytes(b"no log of any kind, in no version " * 40)
    with pytest.raises(EngineRefused):
        restore(backup, log, aside=tmp_path / "aside.db")
    assert await head(log) == (old, 2)


async def test_a_plain_copy_with_the_write_ahead_log_beside_it_is_restored_with_all_that_was_acked(
    tmp_path: Path,
) -> None:
    log, backup, target = (tmp_path / name for name in ("log.db", "backup.db", "target.db"))
    engine = SqliteEngine(log)
    await engine.append("s", [event(n) for n in range(3)])
    for end in ("", "-wal"):
        shutil.copyfile(f"{log}{end}", f"{backup}{end}")
    await engine.aclose()
    epoch = restore(backup, target)
    assert await head(target) == (epoch, 3)
    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith("backup")) == [
        "backup.db",
        "backup.db-wal",
    ], "the backup is left as it was"


async def test_a_write_ahead_log_that_a_removed_log_left_behind_is_not_taken_for_the_backups(
    tmp_path: Path,
) -> None:
    log, backup, target = (tmp_path / name for name in ("log.db", "backup.db", "target.db"))
    await fill(log, 2)
    back_up(log, backup)
    engine = SqliteEngine(log)
    await engine.append("s", [event(n) for n in range(2, 9)])
    shutil.copyfile(f"{log}-wal", f"{target}-wal")  # its server was killed, and then the log removed
    await engine.aclose()
    epoch = restore(backup, target)
    assert await head(target) == (epoch, 2)


async def test_a_restored_log_is_for_its_owner_alone_or_for_whom_the_one_before_was(tmp_path: Path) -> None:
    log, copy, aside = (tmp_path / name for name in ("log.db", "copy.db", "aside.db"))
    await fill(log, 3)
    back_up(log, copy)
    log.rename(aside)
    for path in (copy, copy.with_name("copy.db-wal")):
        path.touch()
        path.chmod(0o644)
    before = os.umask(0o022)
    try:
        restore(copy, log)
        assert log.stat().st_mode & 0o777 == 0o600
        log.chmod(0o640)
        restore(copy, log, aside=tmp_path / "again.db")
        assert log.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)
