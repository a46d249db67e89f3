"""Trimming: a lane's oldest events go once their ids are kept and its mark says so, in the log itself.

That takes room before it gives any. A log has some spare for it (`keep_spare`), which goes when there is none
left in the log (`max_bytes`), the account or the server, and comes back when it is trimmed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from steadcast.engines.jetstream_link import WRONG_SEQUENCE, Answered
from steadcast.engines.jetstream_records import ROLLUP, encode_ids

if TYPE_CHECKING:
    from steadcast.engines.base import Retention
    from steadcast.engines.jetstream_index import Index, LaneIndex
    from steadcast.engines.jetstream_link import Link
    from steadcast.engines.jetstream_log import Log

STEP: Final = 2_048
"""Events whose ids go into one record: about 100 KiB."""
LEAST: Final = 8
"""Events of a step where the log is full: with their mark they take about 1 KiB."""


def due(
    index: Index, lane: LaneIndex, retention: Retention, before: int | None, most: int = STEP
) -> tuple[int, int]:
    """Give the offset up to which a lane's next step trims, and how many events that are; 0 where none.

    They are at most `most`. `before` is the append time, in milliseconds, before which events are too old;
    None where age waits.
    """
    over = lane.events - retention.events
    over_bytes = lane.bytes - retention.bytes
    upto = gone = 0
    for row in index.rows(lane, lane.trimmed, most):
        if over <= 0 and over_bytes <= 0 and (before is None or row.at >= before):
            break
        upto, gone = row.seq, gone + 1
        over -= 1
        over_bytes -= row.size
    return upto, gone


def upto_step(index: Index, lane: LaneIndex, upto: int, most: int = STEP) -> tuple[int, int]:
    """Give the same for dropping a lane's events up to an offset."""
    rows = [row.seq for row in index.rows(lane, lane.trimmed, most) if row.seq <= upto]
    return (rows[-1], len(rows)) if rows else (0, 0)


async def trim_step(log: Log, lane: LaneIndex, upto: int) -> bool:
    """Trim a lane up to an event of it; False where another node was quicker.

    First the ids, then the mark, then the events: a node that ends in between loses nothing, and what it left
    is done again with the lane's next step. Raises `EngineUnavailable`.
    """
    link = await log.ready()
    subjects = log.subjects
    ids = encode_ids(lane.stream, lane.lane, log.index.ids_upto(lane, upto))
    expected = {"Nats-Expected-Last-Subject-Sequence": str(lane.mark_seq)}
    try:
        await link.ask(subjects.ids, ids)
        ack = await link.ask(subjects.mark(lane.stream, lane.lane), str(upto).encode(), ROLLUP | expected)
    except Answered as error:
        if error.code == WRONG_SEQUENCE:
            return False
        raise error.told() from error
    await purge(log, link, subjects.event(lane.stream, lane.lane), upto)
    await log.reached(int(ack["seq"]))
    return True


async def purge(log: Log, link: Link, subject: str, upto: int) -> int:
    """Free what stands on a subject up to a sequence; gives how many went. Raises `EngineUnavailable`."""
    try:
        answer = await link.api(f"STREAM.PURGE.{log.options.stream}", {"filter": subject, "seq": upto + 1})
    except Answered as error:
        raise error.told() from error
    return int(answer["purged"])


async def free_spare(log: Log) -> bool:
    """Free the spare room of a full log; False where there is none any more. Raises `EngineUnavailable`."""
    return bool(await purge(log, await log.ready(), log.subjects.spare, log.index.seq))
