"""What happened, as seen from outside: the one form in which simulation and real faults are written down.

An entry is a tuple: the time in seconds, its kind, and the kind's own fields. Nothing in it comes from
inside the house: publishers, subscribers, the wire and the disk each write down what they see. Where there
are several streams, their names stand before lanes and ids (`orders/normal`, `orders/e1`), and a subscriber
is named with the stream that it follows (`ann:orders`).

    asked        who, ids                                       a publish goes out for the first time
    acked        who, id, epoch, lane, offset, duplicate        a publisher reads its answer
    spooled      id                                             a publisher has put it into its spool
    kept         epoch, lane, offset, id                        the disk has it durably
    dropped      epoch, lane, upto                              retention took all up to here
    opened       epoch                                          this log is the one that is served
    session      conn, {lane: (epoch, offset)}                  a subscribe was answered, with these cursors
    sent         conn, lane, epoch, after, upto, count          a batch left the server
    taken        conn, lane, epoch, offset                      an ack reached the server
    arrived      who, lane, count                               events of a batch reached a subscriber
    began        who, lane, epoch, offset                       it had no cursor and begins behind here
    applied      who, lane, epoch, offset, id                   its handler has returned
    confirmed    who, lane, epoch, offset                       it acked all up to here
    passed_over  who, lane, epoch, offset, id                   it was told that the handler failed for good
    lost         who, lane, first, last, maybe                  it was told that these offsets are gone
    reset        who, lane, epoch, offset                       it was told that the log is another one
    buffer       name, accepted, pending, delivered, dropped    what a buffer counted
    head         lane, epoch, offset                            where the log ended
    gone         who                                            a subscriber that was not there at the end
    raised       text                                           something broke that must not
    fault, note  text                                           what was done to them
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Entry = tuple[Any, ...]


class Record:
    """Entries in the order in which they happened, and how often each kind of fault was met."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.entries: list[Entry] = []
        self.faults: Counter[str] = Counter()

    def add(self, kind: str, *fields: Any) -> None:
        self.entries.append((self.clock(), kind, *fields))

    def fault(self, kind: str, text: str) -> None:
        self.faults[kind] += 1
        self.add("fault", text)

    def digest(self) -> str:
        """Give what tells two records apart: the same seed gives the same one, in any process."""
        return hashlib.sha256(repr(self.entries).encode()).hexdigest()[:16]


def in_words(entry: Entry) -> str:
    """Give an entry as a line that a person reads."""
    at, kind, *fields = entry
    told = {"fault": "!! {0}", "note": "-- {0}"}.get(kind)
    text = told.format(*fields) if told else f"{kind} " + " ".join(map(str, fields))
    return f"{at:8.3f}  {text}"
