"""Trimming and the sweeping of ids, in steps small enough that appends aren't held up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from steadcast.engines.sqlite_schema import OFFSET_BITS, OFFSET_MASK, transaction
from steadcast.event import Lane

if TYPE_CHECKING:
    from collections.abc import Iterable

    import apsw

    from steadcast.engines.base import Retention
    from steadcast.engines.sqlite_schema import Log

STEP_EVENTS: Final = 1_000
"""A step drops at most this many events …"""
STEP_BYTES: Final = 4 * 1024 * 1024
"""… and, beyond its first, at most this many bytes."""
STEP_IDS: Final = 2_000
"""A step of the sweep looks at this many ids."""

Sweep = Callable[..., tuple[int, tuple[int, bytes] | None]]
"""A step of the sweep: from the log, `after` and `before` to how many went, and where to go on."""

_lanes = msgspec.json.Decoder(list[tuple[str, Lane]]).decode
_rows = msgspec.json.Decoder(list[tuple[int, int, int]]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What of a lane may go: all up to an offset, what is over a count or bytes, what is older than `before`.

    `before` is wall time in milliseconds; None: age doesn't count for now.
    """

    upto: int = 0
    events: int
    bytes: int
    before: int | None = None


def drop_upto(offset: int) -> Rule:
    """Make the rule that drops a lane's events up to an offset, and no other."""
    return Rule(upto=offset, events=1 << 62, bytes=1 << 62)


def retain(retention: Retention, before: int | None) -> Rule:
    """Make the rule that applies retention."""
    return Rule(events=retention.events, bytes=retention.bytes, before=before)


@dataclass(slots=True)
class _Span:
    """The oldest stretch of a lane, as it shrinks."""

    head: int
    trimmed: int
    bytes: int

    def shrink(self, rule: Rule, rows: Iterable[tuple[int, int, int]]) -> int:
        """Take the events that must go off the front, up to a step's bytes; returns how many.

        `rows` are offsets, append times and sizes. Events that are missing go with the one behind them.
        """
        before, taken = self.trimmed, 0
        for offset, at, size in rows:
            if not self._must_go(rule, offset, at) or (taken and taken + size > STEP_BYTES):
                break
            self.trimmed = offset
            self.bytes -= size
            taken += size
        if self.trimmed == before:
            # None is left up to there, for all that the lane says: the last ones are missing.
            self.trimmed = max(before, min(rule.upto, self.head))
        # One that was damaged has another size than the one it was counted with.
        self.bytes = max(0, self.bytes) if self.trimmed < self.head else 0
        return self.trimmed - before

    def _must_go(self, rule: Rule, offset: int, at: int) -> bool:
        return (
            offset <= rule.upto
            or self.head - self.trimmed > rule.events
            or self.bytes > rule.bytes
            or (rule.before is not None and at < rule.before)
        )


def due(conn: apsw.Connection, rule: Rule, stream: str | None, lane: Lane | None) -> list[tuple[str, Lane]]:
    """List the lanes, of one stream or lane or of all, whose oldest event must go."""
    return _lanes(
        conn.execute(
            "SELECT json_group_array(json_array(stream, lane)) FROM lanes"
            " WHERE head > trimmed AND stream = coalesce(?1, stream) AND lane = coalesce(?2, lane)"
            " AND (head - trimmed > ?3 OR bytes > ?4 OR"
            " (SELECT at FROM events WHERE key > (number << ?6) + trimmed AND key <= (number << ?6) + head"
            " ORDER BY key LIMIT 1) < ?5)",
            (stream, lane, rule.events, rule.bytes, rule.before, OFFSET_BITS),
        ).get
    )


def trim_step(log: Log, stream: str, lane: Lane, rule: Rule) -> int:
    """Drop a step's worth of a lane's oldest events; returns how many went, 0 at the end."""
    with transaction(log.conn):
        row = log.conn.execute(
            "SELECT number, head, trimmed, bytes FROM lanes WHERE stream = ? AND lane = ?", (stream, lane)
        ).get
        if row is None:
            return 0
        number, *state = row
        base = number << OFFSET_BITS
        span = _Span(*state)
        if gone := span.shrink(rule, _oldest(log, base, span)):
            log.conn.execute("DELETE FROM events WHERE key > ? AND key <= ?", (base, base + span.trimmed))
            log.conn.execute(
                "UPDATE lanes SET trimmed = ?, bytes = ? WHERE number = ?", (span.trimmed, span.bytes, number)
            )
        return gone


def _oldest(log: Log, base: int, span: _Span) -> list[tuple[int, int, int]]:
    after = base + span.trimmed
    # One row from SQLite rather than a thousand: see sqlite_append.
    return _rows(
        log.conn.execute(
            "SELECT json_group_array(json_array(key - ?, at, octet_length(event))) FROM"
            " (SELECT key, at, event FROM events WHERE key > ? AND key <= ? ORDER BY key LIMIT ?)",
            (base, after, base + span.head, STEP_EVENTS),
        ).get
    )


def sweep_step(
    log: Log, after: tuple[int, bytes], before: int, *, table: str = "ids"
) -> tuple[int, tuple[int, bytes] | None]:
    """Forget ids from before `before` (wall time, milliseconds) whose events are gone, in one stretch.

    The stretch begins behind `after`. Returns how many went, and the end of the stretch, None at the last.
    """
    conn = log.conn
    end = conn.execute(
        f"SELECT stream, identity FROM {table} WHERE (stream, identity) > (?, ?)"  # noqa: S608 - a name of ours
        " ORDER BY stream, identity LIMIT 1 OFFSET ?",
        (*after, STEP_IDS - 1),
    ).get
    last = end or (1 << 62, b"")
    with transaction(conn):
        conn.execute(
            f"DELETE FROM {table} WHERE (stream, identity) > (?, ?) AND (stream, identity) <= (?, ?)"  # noqa: S608 - as above
            " AND at < ? AND key & ? <= (SELECT trimmed FROM lanes WHERE number = key >> ?)",
            (*after, *last, before, OFFSET_MASK, OFFSET_BITS),
        )
        return conn.changes(), end


def sweep_old_step(log: Log, after: tuple[int, bytes], before: int) -> tuple[int, tuple[int, bytes] | None]:
    """Do the same for ids under their old names; with the last of them their table goes."""
    if not log.old_ids:
        return 0, None
    swept, end = sweep_step(log, after, before, table="old_ids")
    if end is None and log.conn.execute("SELECT NOT EXISTS (SELECT 1 FROM old_ids)").get:
        with transaction(log.conn):
            log.conn.execute("DROP TABLE old_ids")
        log.old_ids = False
    return swept, end
