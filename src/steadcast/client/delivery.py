"""Send a group of entries so that one bad entry costs the others nothing. Pure: the sending is handed in."""

from __future__ import annotations

from steadcast.client.post import ACCEPTED, TEMPORARY, Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from typing import Any

_NOT_ALLOWED = (401, 403)
_FORBIDDEN = "forbidden"


class Delivery:
    """What became of a group: `accepted`, `refused` (with the outcome that says why), and `left`.

    `left` keeps its order and is to be sent again later; `stopped` is the temporary outcome that says why.
    """

    __slots__ = ("accepted", "left", "refused", "stopped")

    def __init__(self) -> None:
        self.accepted: list[Any] = []
        self.refused: list[tuple[Any, Outcome]] = []
        self.left: list[Any] = []
        self.stopped: Outcome | None = None


def deliver(send: Callable[[Sequence[Any]], Outcome], group: Sequence[Any]) -> Delivery:
    """Send a group as `deliveries` says, with a `send` that waits for the answer.

    For entries that can wait, a missing or wrong token is no verdict on them: it stops the line until it is
    mended, instead of moving a whole spool to the dead. A stream that the token doesn't cover is one: other
    streams' entries must not wait behind it.
    """
    steps = deliveries(group)
    try:
        entries = next(steps)
        while True:
            outcome = send(entries)
            if outcome.status in _NOT_ALLOWED and outcome.code != _FORBIDDEN:
                outcome.kind = TEMPORARY
            entries = steps.send(outcome)
    except StopIteration as end:
        delivery: Delivery = end.value
        return delivery


def deliveries(group: Sequence[Any]) -> Generator[list[Any], Outcome, Delivery]:
    """Yield what to send next, take its outcome, and return the `Delivery`: in order, at best one request.

    A batch is all or nothing, so that a refused one says nothing about its good events. The one that the
    answer names by its index is taken out and the rest sent again; where none is named, the group is
    halved until the bad one stands alone. The first temporary failure stops everything behind it.
    """
    delivery = Delivery()
    waiting = [list(group)] if group else []
    while waiting:
        entries = waiting.pop()
        outcome = yield entries
        if outcome.kind == ACCEPTED:
            delivery.accepted += entries
        elif outcome.kind == TEMPORARY:
            delivery.stopped = outcome
            delivery.left = entries + [entry for later in reversed(waiting) for entry in later]
            break
        elif len(entries) == 1:
            delivery.refused.append((entries[0], outcome))
        else:
            waiting += reversed(_parts(entries, outcome, delivery))
    return delivery


def _parts(entries: list[Any], outcome: Outcome, delivery: Delivery) -> list[list[Any]]:
    bad = outcome.index
    if bad is not None and bad < len(entries):
        delivery.refused.append((entries[bad], outcome))
        return [entries[:bad] + entries[bad + 1 :]]
    middle = len(entries) // 2
    return [entries[:middle], entries[middle:]]
