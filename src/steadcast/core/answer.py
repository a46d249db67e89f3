"""The answer to a `subscribe`: what a lane's log says about a cursor. Pure; the hub supplies what it read."""

from __future__ import annotations

from steadcast.event import Position
from steadcast.wire import Cursor, LaneAnswer, Status


def answer_cursor(
    cursor: Cursor, *, epoch: str, head: int, trimmed: int, retained_id: str | None, dense: bool
) -> LaneAnswer:
    """Answer a subscriber that has a cursor.

    `retained_id` is the id of the event at the cursor's offset where that is retained, else None;
    `dense` says that the lane's offsets have no holes, so that counts are known.
    `resumed`: go on behind the cursor. `trimmed`: offsets up to the trim mark are gone.
    `reset`: the cursor is of another log: another epoch, above the head, or another event stands there.
    """
    if cursor.epoch != epoch or cursor.offset > head or _differs(cursor, trimmed, retained_id):
        return _lane_answer("reset", trimmed, epoch=epoch, head=head, dense=dense)
    if cursor.offset < trimmed:
        return LaneAnswer(
            status="trimmed",
            cursor=Position(epoch, trimmed),
            head=Position(epoch, head),
            behind=_behind(trimmed, head, dense=dense),
            lost=(cursor.offset + 1, trimmed),
            maybe=not dense,
        )
    return _lane_answer("resumed", cursor.offset, epoch=epoch, head=head, dense=dense)


def answer_new(after: int, *, epoch: str, head: int, dense: bool) -> LaneAnswer:
    """Answer a subscriber without a cursor, who begins behind `after`."""
    return _lane_answer("new", after, epoch=epoch, head=head, dense=dense)


def _differs(cursor: Cursor, trimmed: int, retained_id: str | None) -> bool:
    return cursor.id is not None and cursor.offset > trimmed and cursor.id != retained_id


def _behind(after: int, head: int, *, dense: bool) -> int | None:
    return head - after if dense or head == after else None


def _lane_answer(status: Status, after: int, *, epoch: str, head: int, dense: bool) -> LaneAnswer:
    return LaneAnswer(
        status=status,
        cursor=Position(epoch, after),
        head=Position(epoch, head),
        behind=_behind(after, head, dense=dense),
    )
