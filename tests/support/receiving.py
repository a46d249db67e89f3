"""Small words for the tests of the receiver: batches, answers, and what the effects say."""

from __future__ import annotations

from typing import Any

from steadcast.core.cursor import Receiver
from steadcast.core.effects import Deliver, Effect, SendAck, SendSubscribe, Told
from steadcast.event import Batch, Entry, Event, Lane, Position
from steadcast.wire import Cursor, LaneAnswer

CRITICAL, NORMAL = Lane.CRITICAL, Lane.NORMAL


def entry(offset: int, data: Any = None) -> Entry:
    return Entry(offset, Event(f"n{offset}", "test", "t", "2026-01-01T00:00:00Z", data))


def batch(
    after: int, upto: int, *offsets: int, lane: Lane = NORMAL, epoch: str = "e1", data: Any = None
) -> Batch:
    """Give a batch; without offsets it holds an event at each of them."""
    events = tuple(entry(offset, data) for offset in offsets or range(after + 1, upto + 1))
    return Batch("s", lane, epoch, after, upto, events)


def empty(after: int, upto: int) -> Batch:
    return Batch("s", NORMAL, "e1", after, upto, ())


def lane_answer(status: Any, cursor: int, head: int, *, epoch: str = "e1", **more: Any) -> LaneAnswer:
    behind = more.pop("behind", head - cursor)
    place, end = Position(epoch, cursor), Position(epoch, head)
    return LaneAnswer(status=status, cursor=place, head=end, behind=behind, **more)


def answers(normal: LaneAnswer | None = None, critical: LaneAnswer | None = None) -> dict[Lane, LaneAnswer]:
    return {
        CRITICAL: critical or lane_answer("new", 0, 0),
        NORMAL: normal or lane_answer("new", 0, 0),
    }


def following(now: float = 0.0, *, head: int = 0) -> Receiver:
    """Give a receiver that follows, with both cursors at e1:0."""
    receiver = Receiver("s", start="start")
    receiver.connected(now)
    receiver.answered(now, answers(lane_answer("new", 0, head)))
    return receiver


def finish(receiver: Receiver, now: float, n: int, lane: Lane = NORMAL) -> list[Effect]:
    """Let the handlers of the next n events return."""
    return [effect for _ in range(n) for effect in receiver.handled(now, lane)]


def delivered(effects: list[Effect]) -> list[int]:
    return [e.position.offset for e in effects if isinstance(e, Deliver)]


def acks(effects: list[Effect]) -> list[tuple[Lane, int]]:
    return [(e.lane, e.offset) for e in effects if isinstance(e, SendAck)]


def asks(effects: list[Effect]) -> list[dict[Lane, Cursor]]:
    return [e.cursors for e in effects if isinstance(e, SendSubscribe)]


def told(effects: list[Effect]) -> list[Told]:
    return [e for e in effects if isinstance(e, Told)]


def heads(normal: int, critical: int = 0, epoch: str = "e1") -> dict[Lane, Position]:
    return {NORMAL: Position(epoch, normal), CRITICAL: Position(epoch, critical)}
