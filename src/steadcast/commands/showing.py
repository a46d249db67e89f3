"""A delivery as a line: for a person, with colours on a terminal, or as JSON for a program."""

from __future__ import annotations

import os
import re
import shutil
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from steadcast.event import Lane

if TYPE_CHECKING:
    from collections.abc import Callable

    from steadcast.client.subscriber import Delivery

    Show: TypeAlias = Callable[[Delivery], None]

# JSON escapes the first control characters (RFC 8259, section 7) but not these, which a terminal may obey.
_OBEYED = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_DIM, _BLUE, _RED, _PLAIN = "\x1b[2m", "\x1b[36m", "\x1b[1;31m", "\x1b[0m"


def show_for(*, as_json: bool) -> Show:
    """Give what prints a delivery to standard output; it raises as `write`."""
    if as_json:
        return lambda delivery: write(msgspec.json.encode(as_object(delivery)).decode())
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return lambda delivery: write(as_line(delivery, coloured=coloured, width=width))


def as_object(delivery: Delivery) -> dict[str, Any]:
    """Give a delivery as the object that a program reads: its place, and the event as on the wire."""
    event = delivery.event
    place = {
        "stream": delivery.stream,
        "lane": delivery.lane,
        "position": delivery.position,
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "time": event.time,
        "priority": event.priority,
    }
    subject = {} if event.subject is None else {"subject": event.subject}
    return place | subject | {"data": event.data}


def as_line(delivery: Delivery, *, coloured: bool = False, width: int | None = None) -> str:
    """Give a delivery as a line: time, lane and offset, type, subject, data; `width` cuts the data."""
    event = delivery.event
    data = "" if event.data is None else msgspec.json.encode(event.data).decode()
    place = f"{delivery.lane}:{delivery.position.offset}"
    parts = [_clock(event.time), f"{place:<12}", event.type, event.subject or "", data]
    line = "  ".join(_OBEYED.sub("\ufffd", part) for part in parts if part)
    if width is not None and len(line) > width:
        line = line[: width - 1] + "…"
    return _coloured(line, delivery, len(parts[0])) if coloured else line


def _coloured(line: str, delivery: Delivery, clock: int) -> str:
    colour = _RED if delivery.lane is Lane.CRITICAL else _BLUE
    kind = delivery.event.type
    head, found, rest = line.partition(f"  {kind}")
    if not found:
        return line  # cut before its end
    return f"{_DIM}{head[:clock]}{_PLAIN}{head[clock:]}  {colour}{kind}{_PLAIN}{rest}"


def _clock(time: str) -> str:
    try:
        local = datetime.fromisoformat(time.upper()).astimezone()
    except (ValueError, OverflowError):
        return time  # as the event has it
    return local.strftime("%H:%M:%S.") + f"{local.microsecond // 1000:03d}"


def write(line: str) -> None:
    """Write a line to standard output, at once; raises OSError, BrokenPipeError where nobody reads."""
    # As bytes, since an event has characters that the terminal's encoding may not have.
    sys.stdout.buffer.write(line.encode("utf-8", "replace") + b"\n")
    sys.stdout.buffer.flush()
