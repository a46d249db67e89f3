"""Whether a record keeps the promises P1 to P5 and P7: the one checker of the simulation and the real faults.

It reads a record from front to back and believes nothing but what stands there; so it also sees what came
too early, such as an answer before its event was durable.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tests.support.record import Record

Place = tuple[str, str, int]
_SHOWN = 5


class Violation(NamedTuple):
    """A broken promise: which, in words, and the number of the entry at which it shows."""

    promise: str
    text: str
    at: int

    def __str__(self) -> str:
        return f"{self.promise}: {self.text}"


@dataclass
class Log:
    """A lane of one epoch, as the disk has told it."""

    ids: dict[int, str] = field(default_factory=dict)
    head: int = 0
    trimmed: int = 0


@dataclass
class Track:
    """Where a subscriber stands in a lane, and which ranges it was told to be lost."""

    epoch: str
    at: int
    told: list[tuple[int, int]] = field(default_factory=list)

    def was_told(self, offset: int) -> bool:
        return any(first <= offset <= last for first, last in self.told)


@dataclass
class Sending:
    """One lane of a session at the server's end of the wire."""

    epoch: str
    upto: int
    unacked: deque[int] = field(default_factory=deque)


class Checker:
    """Reads a record and lists every violation in words.

    `window` is how many events of a lane may be on their way to a connection without an ack.
    """

    def __init__(self, record: Record, *, window: int) -> None:
        self.record = record
        self.window = window
        self.violations: list[Violation] = []
        self._index = 0
        self._logs: defaultdict[tuple[str, str], Log] = defaultdict(Log)
        self._known: dict[tuple[str, str], Place] = {}
        self._ever_kept: set[str] = set()
        self._spooled: dict[str, None] = {}
        self._answered: dict[tuple[str, str], Place] = {}
        self._latest: dict[tuple[str, str], int] = {}
        self._floors: dict[str, dict[tuple[str, str], int]] = {}
        self._tracks: dict[tuple[str, str], Track] = {}
        self._sending: dict[tuple[str, str], Sending] = {}
        self._heads: dict[str, tuple[str, int]] = {}
        self._gone: set[str] = set()
        self._arrivals: defaultdict[str, int] = defaultdict(int)

    def check(self) -> list[Violation]:
        for at, entry in enumerate(self.record.entries):
            self._index = at
            reader = _READERS.get(entry[1])
            if reader is not None:
                reader(self, *entry[2:])
        self._end()
        return self.violations

    def _say(self, promise: str, text: str) -> None:
        self.violations.append(Violation(promise, text, self._index))

    # What is published keeps P1 and P7

    def _asked(self, _who: str, ids: tuple[str, ...]) -> None:
        latest = dict(self._latest)
        for each in ids:
            self._floors.setdefault(each, latest)

    def _acked(self, who: str, event: str, *placed: Any) -> None:
        epoch, lane, offset, duplicate = placed
        place = (epoch, lane, offset)
        kept = self._logs[epoch, lane].ids.get(offset)
        if kept != event:
            self._say("P1", f"{event} was acked to {who} at {place}, where {kept or 'nothing'} is kept")
        first = self._answered.setdefault((epoch, event), place)
        if first != place:
            self._say("P7", f"{event} was acked at {first} and at {place}")
        if not duplicate and offset <= self._floors.get(event, {}).get((epoch, lane), 0):
            self._say("P2", f"{event} at {place} stands before what was acked before it was published")
        self._latest[epoch, lane] = max(self._latest.get((epoch, lane), 0), offset)

    def _spooled_entry(self, event: str) -> None:
        self._spooled[event] = None

    def _kept(self, epoch: str, lane: str, offset: int, event: str) -> None:
        log = self._logs[epoch, lane]
        if offset <= log.head:
            self._say("P2", f"{event} is kept at {(epoch, lane, offset)}, behind the head {log.head}")
        first = self._known.setdefault((epoch, event), (epoch, lane, offset))
        if first != (epoch, lane, offset):
            self._say("P7", f"{event} is kept at {first} and at {(epoch, lane, offset)}")
        log.ids[offset] = event
        log.head = max(log.head, offset)
        self._ever_kept.add(event)

    def _dropped(self, epoch: str, lane: str, upto: int) -> None:
        log = self._logs[epoch, lane]
        log.trimmed = max(log.trimmed, upto)

    # What is on the wire keeps P2 and P5

    def _session(self, conn: str, cursors: dict[str, tuple[str, int]]) -> None:
        for lane, (epoch, offset) in cursors.items():
            self._sending[conn, lane] = Sending(epoch, offset)

    def _sent(self, conn: str, lane: str, epoch: str, *chained: int) -> None:
        after, upto, count = chained
        sending = self._sending.get((conn, lane))
        if sending is None:
            self._say("P2", f"{conn} {lane}: a batch before any answer")
            return
        log = self._logs[epoch, lane]
        if upto > log.head:
            self._say("P1", f"{conn} {lane}: {upto} of {epoch} was delivered while the disk has {log.head}")
        if count != sum(offset in log.ids for offset in range(after + 1, upto + 1)):
            self._say("P2", f"{conn} {lane}: the batch ({after}, {upto}] of {epoch} has {count} events")
        if epoch == sending.epoch and after < sending.upto:
            self._say("P2", f"{conn} {lane}: ({after}, {upto}] was sent behind {sending.upto}: again")
        if epoch == sending.epoch and sending.upto < after and log.trimmed < after:
            self._say("P2", f"{conn} {lane}: ({after}, {upto}] was sent behind {sending.upto}: a hole")
        if epoch != sending.epoch:
            sending.unacked.clear()
        sending.epoch, sending.upto = epoch, upto
        sending.unacked.extend(range(upto - count + 1, upto + 1))
        if len(sending.unacked) > self.window:
            self._say("P5", f"{conn} {lane}: {len(sending.unacked)} events unacked, {self.window} allowed")

    def _taken(self, conn: str, lane: str, epoch: str, offset: int) -> None:
        sending = self._sending.get((conn, lane))
        if sending is None or sending.epoch != epoch or offset > sending.upto:
            return
        while sending.unacked and sending.unacked[0] <= offset:
            sending.unacked.popleft()

    # What is shown keeps P2 and P3

    def _began(self, who: str, lane: str, epoch: str, offset: int) -> None:
        if (who, lane) in self._tracks:
            self._say("P3", f"{who} {lane}: began again at {offset} of {epoch}")
        if offset > self._logs[epoch, lane].head:
            self._say("P2", f"{who} {lane}: begins at {offset}, above the head")
        self._tracks[who, lane] = Track(epoch, offset)

    def _moved(self, who: str, lane: str, epoch: str, offset: int, event: str) -> None:
        track = self._tracks.get((who, lane))
        if track is None or epoch != track.epoch:
            where = "anything" if track is None else track.epoch
            self._say("P3", f"{who} {lane}: {offset} of {epoch} was shown, {where} is what it was told of")
            return
        log = self._logs[epoch, lane]
        if offset <= track.at:
            self._say("P2", f"{who} {lane}: {offset} applied again or too late, it stood at {track.at}")
        if track.told and track.was_told(offset):
            self._say("P3", f"{who} {lane}: {offset} applied, which was told to be lost")
        if offset > track.at + 1 and (missing := self._missing(track, log, offset)):
            self._say("P2", f"{who} {lane}: {missing[:_SHOWN]} missing before {offset}")
        if log.ids.get(offset) != event:
            held = log.ids.get(offset, "nothing")
            self._say("P1", f"{who} {lane}: {event} at {offset} of {epoch} was applied, where {held} is kept")
        track.at = max(track.at, offset)

    def _lost(self, who: str, lane: str, first: int, last: int, _maybe: bool) -> None:
        track = self._tracks[who, lane]
        trimmed = self._logs[track.epoch, lane].trimmed
        if last > trimmed:
            self._say("P3", f"{who} {lane}: {(first, last)} told to be lost, only {trimmed} is trimmed")
        if first <= track.at:
            self._say("P3", f"{who} {lane}: {(first, last)} told to be lost, {track.at} was applied")
        track.told.append((first, last))

    def _reset(self, who: str, lane: str, epoch: str, offset: int) -> None:
        track = self._tracks.get((who, lane))
        if track is not None and track.epoch == epoch:
            self._say("P3", f"{who} {lane}: told of a reset within {epoch}")
        self._tracks[who, lane] = Track(epoch, offset)

    def _confirmed(self, who: str, lane: str, epoch: str, offset: int) -> None:
        track = self._tracks[who, lane]
        if epoch == track.epoch and self._missing(track, self._logs[epoch, lane], offset + 1):
            self._say("P5", f"{who} {lane}: {offset} was acked while {track.at} was applied")

    @staticmethod
    def _missing(track: Track, log: Log, before: int) -> list[int]:
        behind = range(track.at + 1, before)
        return [offset for offset in behind if offset in log.ids and not track.was_told(offset)]

    # What is counted keeps P4

    def _arrived(self, who: str, _lane: str, count: int) -> None:
        self._arrivals[who] += count

    def _buffer(self, name: str, accepted: int, pending: int, delivered: int, dropped: int) -> None:
        arrived = self._arrivals.pop(name.split(" ", maxsplit=1)[0], accepted)
        if accepted != arrived:
            self._say("P4", f"{name}: {accepted} accepted, {arrived} arrived")
        if accepted != pending + delivered + dropped or min(accepted, pending, delivered, dropped) < 0:
            self._say("P4", f"{name}: {accepted} accepted, {pending} + {delivered} + {dropped} accounted for")

    # The end

    def _head(self, lane: str, epoch: str, offset: int) -> None:
        self._heads[lane] = (epoch, offset)
        log = self._logs[epoch, lane]
        if offset != log.head:
            self._say("P1", f"{lane}: the log ends at {offset}, {log.head} was kept")

    def _gone_for_good(self, who: str) -> None:
        self._gone.add(who)

    def _raised(self, text: str) -> None:
        self._say("raised", text)

    def _end(self) -> None:
        for lost in [each for each in self._spooled if each not in self._ever_kept][:_SHOWN]:
            self._say("P8", f"{lost} was spooled and is in no log")
        for (who, lane), track in self._tracks.items():
            epoch, head = self._heads.get(lane, ("", 0))
            if who in self._gone or not epoch:
                continue
            if track.epoch != epoch:
                self._say("P2", f"{who} {lane}: ended in {track.epoch}, the log is {epoch}")
            elif left := self._missing(track, self._logs[epoch, lane], head + 1):
                self._say("P2", f"{who} {lane}: ended at {track.at}; {left[:_SHOWN]} to {head} never came")


_READERS: dict[str, Any] = {
    "asked": Checker._asked,
    "acked": Checker._acked,
    "spooled": Checker._spooled_entry,
    "kept": Checker._kept,
    "dropped": Checker._dropped,
    "session": Checker._session,
    "sent": Checker._sent,
    "taken": Checker._taken,
    "arrived": Checker._arrived,
    "began": Checker._began,
    "applied": Checker._moved,
    "passed_over": Checker._moved,
    "confirmed": Checker._confirmed,
    "lost": Checker._lost,
    "reset": Checker._reset,
    "buffer": Checker._buffer,
    "head": Checker._head,
    "gone": Checker._gone_for_good,
    "raised": Checker._raised,
}
