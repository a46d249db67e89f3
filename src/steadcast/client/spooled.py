"""One entry of the spool: its name, its file, and the folder that a server's entries stand in."""

# Paths are text here: pathlib costs each hook call its import, and a listing 10,000 objects.
# ruff: noqa: PTH100, PTH103, PTH111, PTH117, PTH118

from __future__ import annotations

import itertools
import json
import os
import re
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"(\d{20})-\d{10}-\d{10}-([cn])-(\d{1,12})")
_PATH = re.compile(r"/[!-~]*")
_HEADER = re.compile(r"[!-9;-~]+")
_NANOSECONDS = 10**9

_counter = itertools.count()
_latest = 0


class Request:
    """A request that waits: the path under the server's base, the headers that matter, and the body.

    `critical` is the priority of the event in it: a full spool gives up the oldest normal entry first.
    """

    __slots__ = ("body", "critical", "headers", "path")

    def __init__(self, path: str, headers: Mapping[str, str], body: bytes, *, critical: bool = False) -> None:
        self.path = path
        self.headers = headers
        self.body = body
        self.critical = critical


class Unreadable(Exception):
    """A file that holds no request."""


def stamp() -> str:
    """Mint the part of a name that says when: wall time in nanoseconds, process, counter.

    Stamps of one process sort in the order in which they were minted, even where the wall clock steps back.
    """
    global _latest  # noqa: PLW0603 - one order for the whole process, whichever spool it writes
    _latest = max(_latest, time.time_ns())
    return f"{_latest:020d}-{os.getpid():010d}-{next(_counter) % 10**10:010d}"


def entry_name(when: str, request: Request, size: int) -> str:
    """Give the name of an entry: stamp, priority and size, so that a listing alone says what to drop."""
    return f"{when}-{'c' if request.critical else 'n'}-{size}"


def is_entry(name: str) -> bool:
    """Tell whether this is the name of an entry."""
    return _NAME.fullmatch(name) is not None


def is_critical(name: str) -> bool:
    """Tell an entry's priority from its name."""
    return "-c-" in name


def size_in(name: str) -> int:
    """Give an entry's size in bytes from its name."""
    return int(name.rpartition("-")[2])


def wall_time(name: str) -> float:
    """Give the wall time (seconds since 1970) at which an entry was stamped."""
    return int(name[:20]) / _NANOSECONDS


def encode(request: Request) -> bytes:
    """Give the file's content: one line of JSON with path and headers, then the body as it is."""
    head = json.dumps({"path": request.path, "headers": dict(request.headers)}, separators=(",", ":"))
    return head.encode() + b"\n" + request.body


def decode(name: str, content: bytes) -> Request:
    """Read an entry; raises `Unreadable` for anything that could not be sent as it stands."""
    head, line_end, body = content.partition(b"\n")
    if not line_end or len(content) != size_in(name):
        raise Unreadable("cut short")
    try:
        fields = json.loads(head)
        path, headers = fields["path"], fields["headers"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable("no head") from error
    if not isinstance(path, str) or not _PATH.fullmatch(path) or not _are_headers(headers):
        raise Unreadable("no path or headers")
    return Request(path, headers, body, critical=is_critical(name))


def _are_headers(headers: object) -> bool:
    return isinstance(headers, dict) and all(
        _HEADER.fullmatch(name) and isinstance(value, str) and value.isascii() and value.isprintable()
        for name, value in headers.items()
    )


def spool_root(environ: Mapping[str, str] | None = None) -> str:
    """Give the folder that holds a spool folder for each server.

    `STEADCAST_SPOOL`, else `steadcast/spool` in the state directory of the XDG Base Directory
    Specification 0.8. Where there is no home, a private folder among the temporary files; raises
    PermissionError if somebody else owns that one.
    """
    environ = os.environ if environ is None else environ
    if chosen := environ.get("STEADCAST_SPOOL"):
        return os.path.abspath(os.path.expanduser(chosen))
    state = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):  # the specification wants relative ones ignored
        state = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local", "state")
    return os.path.join(state if os.path.isabs(state) else _homeless(environ), "steadcast", "spool")


def _homeless(environ: Mapping[str, str]) -> str:
    folder = os.path.join(environ.get("TMPDIR") or "/tmp", f"steadcast-{os.getuid()}")  # noqa: S108 - owner is checked
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if os.lstat(folder).st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder
