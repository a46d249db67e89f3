"""The spool: requests on disk while their server is away. Maildir manner: crash-safe, many writers, no lock.

A folder holds `tmp/` (being written), `new/` (waiting), `dead/` (given up, each with its reason) and
`counts/`. An entry is written to `tmp/`, fsynced, renamed into `new/`, and that folder is fsynced: then it
counts as spooled. A drainer removes it when the server has acknowledged it. Several drainers may send
the same entry, which the events' ids make harmless; whoever's removal succeeds is the one who counts it.

Accounting, over all processes together and at rest: accepted = pending + delivered + dropped by reason.
A process that is killed may leave the counts off by the one entry that it had in hand, never the entries.
"""

# Paths are text here: pathlib costs each hook call its import, and a listing 10,000 objects.
# ruff: noqa: PTH103, PTH105, PTH108, PTH120, PTH208

from __future__ import annotations

import json
import os
import time
from _thread import RLock, allocate_lock  # what threading has, without the import's cost for a hook
from bisect import bisect_left, insort
from errno import EINVAL, EMFILE, ENFILE, ENOMEM
from stat import S_ISREG

from steadcast.client.spooled import (
    Request,
    Unreadable,
    decode,
    encode,
    entry_name,
    is_critical,
    is_entry,
    size_in,
    stamp,
    wall_time,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

DELIVERED = "delivered"
FULL = "full"
EXPIRED = "expired"
REFUSED = "refused"
UNREADABLE = "unreadable"
DROPS = (FULL, EXPIRED, REFUSED, UNREADABLE)

_SHORT = (EMFILE, ENFILE, ENOMEM)
"""What the process or the machine has too little of for now: that says nothing about an entry."""

_DAY = 86_400.0
_LISTING_HOLDS = 1.0
_LEFTOVER_AGE = 3_600.0
_CLOCKS_ARE_SET = 1_577_836_800.0
"""2020, before there was any spool: an earlier stamp is of a clock that wasn't set yet, and tells no age."""


class Dead:
    """An entry that was given up: why, when (seconds since 1970), and the request where it can be read."""

    __slots__ = ("at", "name", "reason", "request")

    def __init__(self, name: str, reason: str, at: float, request: Request | None) -> None:
        self.name = name
        self.reason = reason
        self.at = at
        self.request = request


class Spool:
    """The spool of one server. Its methods may be called from several threads and processes at once.

    Bounds are kept per put from a listing that is at most a second old, so several processes that write
    to a full spool at once may exceed them by the few entries that each has in hand.

    `now` gives the wall time. `watch(name, outcome)`, which may be set later, is told of each entry that
    leaves by this object: `delivered` or a reason for dropping. OSError is raised where the disk refuses.
    """

    def __init__(
        self,
        folder: str,
        *,
        max_entries: int = 10_000,
        max_bytes: int = 64 * 1024 * 1024,
        max_age: float = 7 * _DAY,
        max_dead: int = 1_000,
        max_dead_bytes: int = 16 * 1024 * 1024,
        now: Callable[[], float] = time.time,
        watch: Callable[[str, str], None] | None = None,
    ) -> None:
        """Nothing is made on disk before the first put. `max_age` is in seconds."""
        self.folder = folder
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.max_age = max_age
        self.max_dead = max_dead
        self.max_dead_bytes = max_dead_bytes
        self.uncounted = 0
        self._now = now
        self.watch = watch
        # Reentrant: a signal handler or a finalizer may put an entry in the middle of another put.
        self._lock = RLock()
        self._leaving = allocate_lock()
        self._listing: list[str] = []
        self._bytes = 0
        self._listed_at = -_LISTING_HOLDS
        self._swept = False
        self._dead_room = 0
        self._dead_room_bytes = 0

    def put(self, request: Request, when: str | None = None) -> str | None:
        """Spool a request durably and give its name; None where it was itself the one to be dropped.

        `when` is the `stamp()` it is sorted by, if that was minted before.
        """
        name = self._write(request, stamp() if when is None else when)
        if name is not None:
            _sync_folder(self._path("new"))
        return name

    def put_many(self, items: Iterable[tuple[str, Request]]) -> int:
        """Spool stamped requests in one go; give how many from the front are done (spooled or dropped).

        Stops at the first that the disk refuses; raises OSError if that is the very first.
        """
        done = 0
        for when, request in items:
            try:
                self._write(request, when)
            except OSError:
                if done:
                    break
                raise
            done += 1
        if done:
            _sync_folder(self._path("new"))
        return done

    def names(self) -> list[str]:
        """List what is waiting, oldest first. A foreign file among it goes to dead."""
        self._sweep_once()
        foreign = self._list()
        for name in foreign:
            self._count("accepted")
            self._bury(name, UNREADABLE, "not the name of an entry")
        with self._lock:
            return self._listing.copy()

    def take(self, name: str) -> Request | None:
        """Read an entry that is to be sent; None where it is gone, or went to dead unreadable or too old.

        Raises OSError where nothing can be read for now.
        """
        if self._now() - self.max_age > wall_time(name) >= _CLOCKS_ARE_SET:
            self._bury(name, EXPIRED, f"older than {self.max_age:g} s")
            return None
        try:
            return decode(name, _read(self._path("new", name)))
        except FileNotFoundError:
            self._forget(name)
            return None
        except (Unreadable, OSError) as error:
            if isinstance(error, OSError) and error.errno in _SHORT:
                raise
            self._bury(name, UNREADABLE, str(error))
            return None

    def delivered(self, name: str) -> bool:
        """Remove an entry that the server has acknowledged; False where another drainer was quicker.

        Not fsynced: an entry that a crash brings back is sent once more, and its id makes that harmless.
        """
        return self._leave(name, DELIVERED)

    def refuse(self, name: str, reason: str) -> bool:
        """Move an entry that was refused for good to dead, with the reason."""
        return self._bury(name, REFUSED, reason)

    def put_dead(self, request: Request, when: str, reason: str) -> None:
        """Keep a request that was refused for good before it ever was in the spool."""
        content = encode(request)
        self._write_dead(entry_name(when, request, len(content)), f"{REFUSED}: {reason}", content)
        self._count("accepted")
        self._count(f"dropped.{REFUSED}")

    def dead(self) -> list[Dead]:
        """List what was given up, oldest first."""
        return [_read_dead(self._path("dead"), name) for name in self._names_in("dead")]

    def redrive(self, name: str | None = None) -> int:
        """Put dead entries (all, or one) back in line as new ones; give how many. Ids and times stay."""
        moved = 0
        for entry in self.dead():
            if entry.request is None or name not in {None, entry.name}:
                continue
            if self.put(entry.request) is None:
                break
            if _unlink(self._path("dead", entry.name)):
                self._count("redriven")
                moved += 1
        return moved

    def statistics(self) -> dict[str, Any]:
        """Give the counts of this folder over all processes, and what is waiting now."""
        self._list()
        return {
            "accepted": self._counted("accepted"),
            "delivered": self._counted(DELIVERED),
            "dropped": {reason: self._counted(f"dropped.{reason}") for reason in DROPS},
            "pending": len(self._listing),
            "pending_bytes": self._bytes,
            "dead": len(self._names_in("dead")),
            "dead_evicted": self._counted("dead_evicted"),
            "redriven": self._counted("redriven"),
        }

    def end(self, within: float) -> None:
        """Let nothing leave any more, since the process ends at once: what is half out is counted before.

        Waits for that at most `within` seconds: a disk may hang.
        """
        self._leaving.acquire(timeout=within)

    def after_fork(self) -> None:
        """Forget, in a child process, a lock that another thread of the parent may have held."""
        self._lock = RLock()
        self._leaving = allocate_lock()
        self._listed_at = -_LISTING_HOLDS

    # Writing

    def _write(self, request: Request, when: str) -> str | None:
        content = encode(request)
        name = entry_name(when, request, len(content))
        fits, evicted = self._make_room(name)
        for victim in evicted:
            self._told(victim, FULL)
        if fits:
            self._write_entry(name, content)
        self._count("accepted")
        if not fits:
            self._told(name, FULL)
            return None
        return name

    def _write_entry(self, name: str, content: bytes) -> None:
        self._write_into("new", name, content)
        with self._lock:
            insort(self._listing, name)
            self._bytes += len(content)

    def _write_into(self, part: str, name: str, content: bytes) -> None:
        try:
            _write_durably(self._path("tmp", name), content, self._path(part, name))
        except FileNotFoundError:
            # The first write of all, or somebody has removed the folder under us.
            self._ensure()
            _write_durably(self._path("tmp", name), content, self._path(part, name))

    def _make_room(self, name: str) -> tuple[bool, list[str]]:
        size = size_in(name)
        evicted: list[str] = []
        if size > self.max_bytes or self.max_entries < 1:
            return False, evicted
        if time.monotonic() - self._listed_at >= _LISTING_HOLDS:
            self._list()
        with self._lock:
            while len(self._listing) >= self.max_entries or self._bytes + size > self.max_bytes:
                victim = self._victim(name)
                if victim is None:
                    return False, evicted
                self._drop_from_listing(victim)
                if _unlink(self._path("new", victim)):
                    evicted.append(victim)
        return True, evicted

    def _victim(self, newcomer: str) -> str | None:
        normal = next((name for name in self._listing if not is_critical(name)), None)
        if is_critical(newcomer):
            oldest = normal or self._listing[0]
            return oldest if normal or oldest < newcomer else None
        return normal if normal is not None and normal < newcomer else None

    # Leaving

    def _leave(self, name: str, outcome: str) -> bool:
        self._forget(name)
        with self._leaving:
            if not _unlink(self._path("new", name)):
                return False
            self._count_out(outcome)
        self._watched(name, outcome)
        return True

    def _bury(self, name: str, outcome: str, reason: str) -> bool:
        self._forget(name)
        try:
            content = _read(self._path("new", name))
        except FileNotFoundError:
            return False
        except OSError as error:
            return self._bury_as_it_is(name, outcome, error)
        try:
            self._write_dead(name, f"{outcome}: {reason}", content)
        except OSError as error:
            return self._bury_as_it_is(name, outcome, error)
        if not self._leave(name, outcome):
            _unlink(self._path("dead", name))  # another drainer has delivered it meanwhile
            return False
        return True

    def _bury_as_it_is(self, name: str, outcome: str, error: OSError) -> bool:
        # It can't be read, or there is no room for a copy: it must leave the line all the same, or nothing
        # behind it would ever be sent. The reason is lost.
        try:
            os.makedirs(self._path("dead"), mode=0o700, exist_ok=True)
            os.replace(self._path("new", name), self._path("dead", name))
        except OSError as trouble:
            raise trouble from error
        self._told(name, outcome)
        return True

    def _write_dead(self, name: str, reason: str, content: bytes) -> None:
        head = json.dumps({"reason": reason, "at": self._now()}).encode() + b"\n"
        self._write_into("dead", name, head + content)
        _sync_folder(self._path("dead"))
        self._dead_room -= 1
        self._dead_room_bytes -= len(head) + len(content)
        if self._dead_room < 0 or self._dead_room_bytes < 0:
            self._trim_dead()

    def _trim_dead(self) -> None:
        names = self._names_in("dead")
        sizes = {name: _size(self._path("dead", name)) for name in names}
        total = sum(sizes.values())
        left = len(names)
        if left > self.max_dead or total > self.max_dead_bytes:
            # A tenth of slack, so that a full folder isn't listed again for each further entry.
            for name in names:
                if left <= self.max_dead * 0.9 and total <= self.max_dead_bytes * 0.9:
                    break
                left -= 1
                total -= sizes[name]
                if _unlink(self._path("dead", name)):
                    self._count("dead_evicted")
        self._dead_room = self.max_dead - left
        self._dead_room_bytes = self.max_dead_bytes - total

    def _told(self, name: str, outcome: str) -> None:
        self._count_out(outcome)
        self._watched(name, outcome)

    def _count_out(self, outcome: str) -> None:
        self._count(outcome if outcome == DELIVERED else f"dropped.{outcome}")

    def _watched(self, name: str, outcome: str) -> None:
        if self.watch is not None:
            self.watch(name, outcome)

    # Listing

    def _list(self) -> list[str]:
        names = self._names_in("new")
        entries = [name for name in names if is_entry(name)]
        with self._lock:
            self._listing = entries
            self._bytes = sum(map(size_in, entries))
            self._listed_at = time.monotonic()
        return [] if len(entries) == len(names) else sorted(set(names) - set(entries))

    def _names_in(self, part: str) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._path(part)) if not name.startswith("."))
        except FileNotFoundError:
            return []

    def _forget(self, name: str) -> None:
        with self._lock:
            self._drop_from_listing(name)

    def _drop_from_listing(self, name: str) -> None:
        place = bisect_left(self._listing, name)
        if place < len(self._listing) and self._listing[place] == name:
            del self._listing[place]
            self._bytes -= size_in(name)

    # Housekeeping

    def _path(self, *parts: str) -> str:
        return "/".join((self.folder, *parts))

    def _ensure(self) -> None:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        for part in ("counts", "dead", "new", "tmp"):  # the last one lets others write
            os.makedirs(self._path(part), mode=0o700, exist_ok=True)
        _sync_folder(self.folder)
        _sync_folder(os.path.dirname(self.folder))

    def _sweep_once(self) -> None:
        # What a killed writer left in tmp/ never counted as spooled.
        if self._swept:
            return
        self._swept = True
        for name in self._names_in("tmp"):
            path = self._path("tmp", name)
            if self._now() - _modified(path, self._now()) > _LEFTOVER_AGE:
                _unlink(path)

    def _count(self, what: str) -> None:
        # A count is the size of a file: appending one byte is atomic without a lock (POSIX write, O_APPEND).
        try:
            file = os.open(self._path("counts", what), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, b".")
            finally:
                os.close(file)
        except OSError:
            self.uncounted += 1

    def _counted(self, what: str) -> int:
        return _size(self._path("counts", what))


def _write_durably(path: str, content: bytes, target: str) -> None:
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
        finally:
            os.close(file)
        os.replace(path, target)
    except OSError:
        _unlink(path)
        raise


def _read(path: str) -> bytes:
    """Read a file; OSError for what is none: a pipe would hold the line up, and a link may lead to one."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        if not S_ISREG(os.fstat(file).st_mode):
            raise OSError(EINVAL, "no file", path)
        with open(file, "rb", closefd=False) as opened:
            return opened.read()
    finally:
        os.close(file)


def _sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0


def _modified(path: str, missing: float) -> float:
    try:
        return os.lstat(path).st_mtime
    except FileNotFoundError:
        return missing


def _read_dead(folder: str, name: str) -> Dead:
    path = f"{folder}/{name}"
    try:
        content = _read(path)
        head, _, rest = content.partition(b"\n")
        told = json.loads(head)
        reason, at = str(told["reason"]), float(told["at"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Dead(name, "unknown", _modified(path, 0.0), None)
    try:
        return Dead(name, reason, at, decode(name, rest) if is_entry(name) else None)
    except Unreadable:
        return Dead(name, reason, at, None)
