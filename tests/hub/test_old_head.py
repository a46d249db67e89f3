"""A log on several servers may tell an old head for a while: that alone answers no cursor `reset`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from steadcast.engines.base import Description
from steadcast.engines.memory import MemoryEngine
from steadcast.errors import EngineUnavailable
from steadcast.event import Event, Lane, Receipt
from steadcast.hub import Hub
from steadcast.wire import Cursor, Subscribe
from tests.hub.test_hub import Listener, event


class Lagging(MemoryEngine):
    """Tells what it knew until a write went through; without a quorum none does."""

    def __init__(self, *, quorum: bool) -> None:
        super().__init__(epoch="e1")
        self.old: Description | None = None
        self.quorum = quorum

    async def describe(self, stream: str | None = None) -> Description:
        return self.old or await super().describe(stream)

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        if not events and not self.quorum:
            raise EngineUnavailable("no quorum")
        if not events:
            self.old = None
        return await super().append(stream, events)


async def lagging(*, quorum: bool) -> tuple[Hub, Cursor]:
    engine = Lagging(quorum=quorum)
    await engine.append("s", [event(1)])
    engine.old = await engine.describe("s")
    await engine.append("s", [event(2)])
    return Hub(engine), Cursor("e1", 2, "e2")


async def test_a_cursor_above_an_old_head_goes_on_once_a_write_went_through() -> None:
    hub, cursor = await lagging(quorum=True)
    answers = await Listener(hub, acks=False).join(normal=cursor)
    assert answers[Lane.NORMAL].status == "resumed"
    assert hub.counts["heads_checked"] == 1


async def test_without_a_quorum_nobody_is_told_reset() -> None:
    hub, cursor = await lagging(quorum=False)
    listener = Listener(hub, acks=False)
    with pytest.raises(EngineUnavailable):
        await hub.subscribe(listener, Subscribe("s", {Lane.NORMAL: cursor}, 0))


async def test_a_cursor_that_is_above_the_head_all_the_same_is_reset() -> None:
    hub, _ = await lagging(quorum=True)
    answers = await Listener(hub, acks=False).join(normal=Cursor("e1", 9, None))
    assert answers[Lane.NORMAL].status == "reset"
