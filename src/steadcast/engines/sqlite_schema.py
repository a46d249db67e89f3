"""The log's file: its layout, how it is opened, brought up to date, locked and given a new epoch.

An event is one row, its JSON as it travels on the wire: one binding to write, nothing to assemble when it
is read, and `sqlite3 file.db "select event ->> 'type' from events"` for a person. Its key is the number of
its lane and its offset, so that a lane lies in one stretch. `ids` outlive the events that they name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import apsw

from steadcast.engines.sqlite_errors import from_os, from_sqlite, invalid, locked, readonly
from steadcast.errors import EngineRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO

SCHEMA_VERSION: Final = 2
READABLE: Final = 1
"""From this version on a log can be read as it is."""
APPLICATION_ID: Final = 0x53744364
OFFSET_BITS: Final = 40
OFFSET_MASK: Final = (1 << OFFSET_BITS) - 1
MAX_LANES: Final = 1 << 22
"""A key has 63 bits; a file takes two million streams."""
WRITE_CACHE: Final = 8 * 1024
"""KiB of pages that the writing connection keeps; the others read in stretches and keep less."""
READ_CACHE: Final = 1024

_HAS_OLD_IDS: Final = "SELECT count(*) FROM sqlite_schema WHERE name = 'old_ids'"
_PROBE: Final = "CREATE TABLE probe (number INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT"
_IDS: Final = """CREATE TABLE ids (
  stream INTEGER NOT NULL, identity BLOB NOT NULL, fingerprint BLOB NOT NULL, key INTEGER NOT NULL,
  at INTEGER NOT NULL, PRIMARY KEY (stream, identity)
) STRICT, WITHOUT ROWID"""
_LAYOUT: Final = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE lanes (
  number INTEGER PRIMARY KEY, stream TEXT NOT NULL, lane TEXT NOT NULL, head INTEGER NOT NULL DEFAULT 0,
  trimmed INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, UNIQUE (stream, lane)
) STRICT;
CREATE TABLE events (key INTEGER PRIMARY KEY, at INTEGER NOT NULL, event TEXT NOT NULL) STRICT;
{_IDS};
{_PROBE};
"""


@dataclass(slots=True)
class Log:
    """An open log: its connection, its epoch, and whether it knows ids by their old names as well."""

    path: Path
    conn: apsw.Connection
    epoch: str
    old_ids: bool

    def error(self, error: Exception) -> Exception:
        """Say in the error tree what went wrong on this connection."""
        return from_sqlite(error, self.path, self.conn.system_errno)


class ServerLock:
    """An advisory lock beside the file: one server per log. Programs that only read aren't held up by it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None

    def take(self) -> None:
        """Take the lock unless it is held already.

        Raises `EngineUnavailable`: `engine_locked` where another server has it, else what the system says.
        """
        if self._file is not None:
            return
        try:
            # Without a buffer, which would be written, and fail, once more when the file is closed.
            file = self._path.with_name(self._path.name + ".lock").open("a+b", buffering=0)
        except OSError as error:
            raise from_os(error, self._path) from error
        try:
            self._lock(file)
        except BaseException:
            file.close()
            raise
        self._file = file

    def _lock(self, file: FileIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        except BlockingIOError as error:
            file.seek(0)
            holder = (file.read(20) or b"").decode(errors="replace").strip() or "unknown"
            raise locked(self._path, f"another server (process {holder})") from error
        except OSError as error:
            raise from_os(error, self._path) from error

    def release(self) -> None:
        """Let another server have the log. The lock file stays: removing it would let two servers in."""
        if self._file is not None:
            self._file.close()
            self._file = None


def open_log(path: Path, *, busy: float) -> Log:
    """Open the log for writing, make it or bring it up to date; waits `busy` seconds for another's lock.

    Raises `EngineRefused` (`engine_newer`, `engine_invalid`) for a file that isn't ours to write, and
    `EngineUnavailable` for what can pass.
    """
    _make_private(path)
    conn = connect(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, busy=busy, cache=WRITE_CACHE)
    try:
        _check_writable(conn, path)
        version = _version(conn, path)
        _set_durable(conn, path)
        if version != SCHEMA_VERSION:
            _bring_up_to_date(conn, path)
        _sync(path)
        return Log(path, conn, read_epoch(conn), old_ids=bool(conn.execute(_HAS_OLD_IDS).get))
    except Exception as error:
        told = from_sqlite(error, path, conn.system_errno)
        conn.close(force=True)
        raise told from error


def _make_private(path: Path) -> None:
    """Make a file that isn't there yet, for its owner alone; SQLite's other files follow it in that.

    One that is there isn't even opened: to close it would take SQLite's locks on it from the whole process.
    """
    with suppress(OSError):  # SQLite meets the same, and it is told then
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _in_utf8(path: Path) -> str:
    """Give a path as SQLite reads it, whatever the locale makes of its bytes."""
    try:
        return os.fsencode(path).decode()
    except UnicodeDecodeError as error:
        told = Path(os.fsencode(path).decode(errors="backslashreplace"))
        raise invalid(told, "SQLite takes paths in UTF-8 alone") from error


def connect(path: Path, flags: int, *, busy: float, cache: int = READ_CACHE) -> apsw.Connection:
    """Open a connection; raises what `sqlite_errors` makes of SQLite's errors."""
    if path.is_dir():
        raise invalid(path, "it is a folder")
    name = _in_utf8(path)
    try:
        conn = apsw.Connection(name, flags=flags, statementcachesize=512)
    except apsw.Error as error:
        raise _cannot_open(error, path) from error
    try:
        conn.set_busy_timeout(int(busy * 1000))
        conn.pragma("cache_size", -cache)
        conn.pragma("temp_store", "memory")
    except apsw.Error as error:
        told = from_sqlite(error, path, conn.system_errno)
        conn.close(force=True)
        raise told from error
    return conn


def mint_epoch(path: Path, *, busy: float = 2.0) -> str:
    """Give a restored log a new epoch and return it: what subscribers saw beyond the backup is gone.

    Raises `EngineUnavailable` (`engine_locked`) while a server has the log, and what `open_log` raises;
    `EngineRefused` where there is no file.
    """
    if not path.exists():
        raise invalid(path, "there is no such file")
    path = path.resolve()
    lock = ServerLock(path)
    lock.take()
    try:
        log = open_log(path, busy=busy)
        epoch = _new_epoch()
        with transaction(log.conn):
            log.conn.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (epoch,))
        log.conn.close()
    finally:
        lock.release()
    return epoch


def read_epoch(conn: apsw.Connection) -> str:
    """Read the name of this incarnation of the log."""
    epoch: str = conn.execute("SELECT value FROM meta WHERE key = 'epoch'").get
    return epoch


@contextmanager
def transaction(conn: apsw.Connection) -> Iterator[None]:
    """Run a write transaction; durable once this is left without an error."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def _set_durable(conn: apsw.Connection, path: Path) -> None:
    if conn.pragma("journal_mode", "wal") != "wal":
        raise invalid(path, "its filesystem has no shared memory, which a write-ahead log needs")
    conn.pragma("synchronous", "full")
    conn.pragma("journal_size_limit", 64 * 1024 * 1024)


def _sync(path: Path) -> None:
    """Make durable what can be read.

    A server that was killed between writing and syncing leaves commits that are readable and not yet on
    disk: without this a duplicate of such an event would be answered too early. SQLite holds no lock on
    this file, so that closing another descriptor of it does no harm.
    """
    try:
        for name in (path.with_name(path.name + "-wal"), path.parent):
            descriptor = os.open(name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except FileNotFoundError:
        return  # no log beside the file: everything is in it, and was synced before the log was removed
    except OSError as error:
        raise from_os(error, path) from error


def _check_writable(conn: apsw.Connection, path: Path) -> None:
    if conn.readonly("main"):
        raise readonly(path, "the file is read-only")


def check_readable(conn: apsw.Connection, path: Path) -> None:
    """Raise `EngineRefused` where the file is no log, or of a version that can't be read as it is."""
    version = _version(conn, path)
    if version < 0:
        raise invalid(path, "it is empty")
    if version < READABLE:
        raise invalid(
            path, f"it is of an old version (schema {version}); serve it once, which brings it up to date"
        )


def _version(conn: apsw.Connection, path: Path) -> int:
    """Read the file's schema version, -1 where it is empty; refuse what isn't a log of ours."""
    application = conn.pragma("application_id")
    version: int = conn.pragma("user_version")
    tables = {name for (name,) in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not tables and application in {0, APPLICATION_ID}:
        return -1
    if application != APPLICATION_ID and not (application == 0 and {"meta", "lanes", "events"} <= tables):
        raise invalid(path, "it is a database of another program")
    if version > SCHEMA_VERSION:
        raise EngineRefused(
            f"{path} was written by a newer version of steadcast (schema {version}, this one knows"
            f" {SCHEMA_VERSION}); update steadcast, or choose another file",
            code="engine_newer",
        )
    return version


def _bring_up_to_date(conn: apsw.Connection, path: Path) -> None:
    with transaction(conn):
        version = _version(conn, path)
        if version < 0:
            _create(conn)
        else:
            for migrate in _MIGRATIONS[version:]:
                migrate(conn)
        conn.pragma("application_id", APPLICATION_ID)
        conn.pragma("user_version", SCHEMA_VERSION)


def _create(conn: apsw.Connection) -> None:
    conn.execute(_LAYOUT)
    conn.execute("INSERT INTO meta VALUES ('epoch', ?)", (_new_epoch(),))


def _count_bytes(conn: apsw.Connection) -> None:
    """Version 0 knew neither a lane's bytes nor the probe."""
    conn.execute("ALTER TABLE lanes ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0")
    conn.execute(
        "UPDATE lanes SET bytes = (SELECT coalesce(sum(octet_length(event)), 0) FROM events"
        " WHERE key > lanes.number << ?1 AND key <= (lanes.number << ?1) + lanes.head)",
        (OFFSET_BITS,),
    )
    conn.execute(_PROBE)


def _set_old_ids_aside(conn: apsw.Connection) -> None:
    """Version 1 named events by a digest of their ids, from which no new name can be made.

    The old names stay, and are looked at, until the last of them is swept.
    """
    conn.execute("ALTER TABLE ids RENAME TO old_ids")
    conn.execute(_IDS)


_MIGRATIONS: Final[tuple[Callable[[apsw.Connection], None], ...]] = (_count_bytes, _set_old_ids_aside)
"""The step from version n to n + 1 stands at index n."""


def _new_epoch() -> str:
    return secrets.token_hex(8)


def inode(path: Path) -> tuple[int, int] | None:
    """Tell one file from another at the same path; None where there is none.

    Raises `EngineUnavailable` where the system doesn't tell.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise from_os(error, path) from error
    return found.st_dev, found.st_ino


def _cannot_open(error: apsw.Error, path: Path) -> Exception:
    """Say why there is no connection to ask: SQLITE_CANTOPEN alone tells too little."""
    if not path.parent.is_dir():
        return from_os(FileNotFoundError(errno.ENOENT, "its folder does not exist"), path)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return readonly(path, "no right to write there")
    return from_sqlite(error, path)
