"""Putting a backup in the place of a log: under a new epoch, so that nobody takes new events for old ones."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from steadcast.engines.sqlite_schema import ServerLock, mint_epoch
from steadcast.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

KEPT: Final = ("", "-wal")
"""How the names of a log's files end: the database's, and that of the write-ahead log beside it."""
ALL: Final = (*KEPT, "-shm")
"""With SQLite's shared memory, which is made anew from the others."""


def restore(backup: Path, target: Path, *, aside: Path | None = None) -> str:
    """Put a copy of `backup` in the place of `target`, and return its new epoch.

    The backup is one file, or a plain copy of the log's files: what is in a write-ahead log beside it counts.
    It is checked and given its epoch before anything else is touched. A log that stands at `target`
    is moved to `aside`, and whoever might read that one may read this one, otherwise its owner alone. A
    write-ahead log whose log is gone is dropped, since it would be taken for the backup's.

    Raises `InvalidRequest` where a log is there and `aside` is None, or where `aside` exists,
    `EngineUnavailable` (`engine_locked`) while a server has it, `EngineRefused` where the backup is no log,
    OSError where the disk refuses.
    """
    if target.exists() and aside is None:
        raise InvalidRequest(f"{target} exists: say --replace to move it aside", field="engine")
    if aside is not None and aside.exists():
        raise InvalidRequest(f"{aside} exists: what was moved aside before is kept", field="engine")
    fresh = target.with_name(f"{target.name}.restoring")
    lock = ServerLock(target)
    lock.take()
    try:
        for source, copy in zip(_files(backup, KEPT), _files(fresh, KEPT), strict=True):
            if source == backup or source.exists():
                _make_as(target, copy)
                shutil.copyfile(source, copy)
        epoch = mint_epoch(fresh)
        if aside is not None:
            _move(target, aside)
        for stale in _files(target)[1:]:
            stale.unlink(missing_ok=True)
        _move(fresh, target)
    finally:
        for left in (*_files(fresh), fresh.with_name(f"{fresh.name}.lock")):
            left.unlink(missing_ok=True)
        lock.release()
    return epoch


def _make_as(model: Path, path: Path) -> None:
    """Make an empty file with a file's owner and mode; for its own owner alone where that isn't there."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with suppress(FileNotFoundError):
        told = model.stat()
        path.chmod(told.st_mode & 0o777)
        with suppress(PermissionError):  # only root may give a file away
            os.chown(path, told.st_uid, told.st_gid)


def _move(source: Path, target: Path) -> None:
    for old, new in zip(_files(source), _files(target), strict=True):
        if old.exists():
            old.replace(new)


def _files(path: Path, ends: tuple[str, ...] = ALL) -> list[Path]:
    return [path.with_name(path.name + end) for end in ends]
