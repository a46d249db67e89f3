"""What SQLite says, in the words of the error tree."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

import apsw

from steadcast.errors import EngineRefused, EngineUnavailable, SteadcastError

if TYPE_CHECKING:
    from pathlib import Path

RETRY_AFTER: Final = 1.0
"""Seconds after which trying again is sensible where nothing tells when the engine will be back."""

_NO_SPACE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_RIGHT: Final = {errno.EROFS, errno.EACCES, errno.EPERM}


def locked(path: Path, who: str) -> EngineUnavailable:
    """Make the error for a log that someone else holds."""
    return EngineUnavailable(f"{path} is locked by {who}", code="engine_locked", retry_after=RETRY_AFTER)


def full(path: Path, why: object) -> EngineUnavailable:
    """Make the error for a log that has no room to grow."""
    return EngineUnavailable(
        f"there is no room for {path} to grow ({why})", code="engine_full", retry_after=RETRY_AFTER
    )


def readonly(path: Path, why: object) -> EngineUnavailable:
    """Make the error for a log that can't be written."""
    return EngineUnavailable(
        f"{path} can't be written ({why})", code="engine_readonly", retry_after=RETRY_AFTER
    )


def invalid(path: Path, why: object) -> EngineRefused:
    """Make the error for a file that is no log, or a damaged one."""
    return EngineRefused(f"{path} can't be used as a log: {why}", code="engine_invalid")


def from_os(error: OSError, path: Path) -> EngineUnavailable:
    """Say what an operating system's error means for the log."""
    return _by_errno(error.errno or 0, path, error.strerror or str(error))


def from_sqlite(error: Exception, path: Path, system_errno: int = 0) -> Exception:
    """Say what an error of apsw means for the log; an error of the tree, or a defect, stays what it is.

    Source: SQLite's result codes, https://sqlite.org/rescode.html.
    """
    match error:
        case SteadcastError():
            return error
        case apsw.BusyError() | apsw.LockedError():
            return locked(path, "another program")
        case apsw.FullError():
            return full(path, error)
        case apsw.ReadOnlyError() | apsw.PermissionsError():
            return readonly(path, error)
        case apsw.IOError() | apsw.CantOpenError():
            return _by_errno(system_errno, path, error)
        case apsw.CorruptError() | apsw.NotADBError() | apsw.SQLError() | apsw.ConstraintError():
            return invalid(path, error)
        case apsw.Error():
            return _away(path, error)
        case _:
            return error


def _by_errno(number: int, path: Path, why: object) -> EngineUnavailable:
    """Tell the causes of SQLITE_IOERR apart: only ENOSPC on a write comes as SQLITE_FULL of its own."""
    if number in _NO_SPACE or _disk_is_full(path):
        return full(path, why)
    if number in _NO_RIGHT:
        return readonly(path, why)
    return _away(path, why)


def _away(path: Path, why: object) -> EngineUnavailable:
    return EngineUnavailable(f"{path} can't be used now: {why}", retry_after=RETRY_AFTER)


def _disk_is_full(path: Path) -> bool:
    try:
        return os.statvfs(path.parent).f_bavail == 0
    except OSError:
        return False  # why it can't be told is no word on the room
