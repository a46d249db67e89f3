"""Any sequence of calls, against a model that is too simple to be wrong. Runs for each kind of engine."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from steadcast.engines.base import Retention
from steadcast.errors import IdConflict, PositionLost
from steadcast.event import LANES, Batch, Event, Lane
from tests.engine_backends import BACKENDS, Backend, event, size

STREAMS = ("s", "t")
RETENTION = Retention(age=50.0, events=8, bytes=2_000)
IDS_AGE = 100.0

streams = st.sampled_from(STREAMS)
lanes = st.sampled_from(LANES)
made = st.builds(
    event,
    st.integers(0, 15),
    st.sampled_from([0, 0, 0, "another body", "x" * 300]),
    lane=lanes,
    source=st.sampled_from(["/a", "/b"]),
)


@dataclass
class LaneModel:
    """Everything that a lane ever held, by offset; what is trimmed stays in the list."""

    all: list[tuple[float, Event]] = field(default_factory=list)
    trimmed: int = 0

    @property
    def retained(self) -> list[tuple[float, Event]]:
        return self.all[self.trimmed :]


@dataclass
class StreamModel:
    lanes: dict[Lane, LaneModel] = field(default_factory=lambda: {lane: LaneModel() for lane in LANES})
    ids: dict[tuple[str, str], tuple[Lane, int, Event, float]] = field(default_factory=dict)


class EngineMachine(RuleBasedStateMachine):
    kind: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.backend: Backend = BACKENDS[self.kind](self.folder)
        self.model: dict[str, StreamModel] = {stream: StreamModel() for stream in STREAMS}
        self.open()
        self.epoch = self.run(self.engine.describe()).epoch

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def open(self) -> None:
        self.engine = self.backend.open(retention=RETENTION, ids_age=IDS_AGE)
        self.watch = self.engine.watch()
        self.watched: dict[tuple[str, Lane], list[Batch]] = {}
        self.start = {(s, lane): len(self.model[s].lanes[lane].all) for s in STREAMS for lane in LANES}

    def teardown(self) -> None:
        self.run(self.backend.aclose())
        self.runner.close()
        shutil.rmtree(self.folder)

    @rule(jobs=st.lists(st.tuples(streams, st.lists(made, min_size=1, max_size=6)), min_size=1, max_size=5))
    def append(self, jobs: list[tuple[str, list[Event]]]) -> None:
        """Append from several callers at once, who come in one after the other."""

        async def together() -> list[Any]:
            calls = (self.engine.append(stream, some) for stream, some in jobs)
            return await asyncio.gather(*calls, return_exceptions=True)

        for (stream, some), told in zip(jobs, self.run(together()), strict=True):
            expected = self._expect(self.model[stream], some)
            if isinstance(expected, int):
                assert isinstance(told, IdConflict)
                assert told.fields["index"] == expected
                continue
            assert [(r.lane, r.position.offset, r.duplicate) for r in told] == expected
            assert {r.position.epoch for r in told} == {self.epoch}
            self._add(self.model[stream], expected, some)

    def _add(self, model: StreamModel, places: list[tuple[Lane, int, bool]], some: list[Event]) -> None:
        for (lane, offset, duplicate), new in zip(places, some, strict=True):
            if not duplicate:
                model.lanes[lane].all.append((self.backend.clock.wall, new))
                model.ids[new.source, new.id] = (lane, offset, new, self.backend.clock.wall)

    @staticmethod
    def _expect(model: StreamModel, some: list[Event]) -> Any:
        """Say what an append must answer, or the index of its first conflict."""
        heads = {lane: len(model.lanes[lane].all) for lane in LANES}
        fresh: dict[tuple[str, str], tuple[Lane, int, Event]] = {}
        answers = []
        for index, new in enumerate(some):
            name = new.source, new.id
            first = fresh.get(name) or (model.ids[name][:3] if name in model.ids else None)
            if first is None:
                heads[new.priority] += 1
                fresh[name] = (new.priority, heads[new.priority], new)
                answers.append((new.priority, heads[new.priority], False))
            elif bytes(first[2].data) != bytes(new.data):
                return index
            else:
                answers.append((first[0], first[1], True))
        return answers

    @rule(stream=streams, lane=lanes, after=st.integers(-12, 40), limit=st.integers(1, 20))
    def read(self, stream: str, lane: Lane, after: int, limit: int) -> None:
        model = self.model[stream].lanes[lane]
        head = len(model.all)
        start = max(model.trimmed, head + after) if after < 0 else after
        if not model.trimmed <= start <= head:
            with pytest.raises(PositionLost) as caught:
                self.run(self.engine.read(stream, lane, after, limit))
            expected = ("reset", None) if start > head else ("trimmed", (start + 1, model.trimmed))
            assert (caught.value.code, caught.value.lost) == expected
            return
        page = self.run(self.engine.read(stream, lane, after, limit))
        assert (page.after, page.upto) == (start, min(head, start + limit))
        self._assert_holds(page)

    def _assert_holds(self, batch: Batch) -> None:
        model = self.model[batch.stream].lanes[batch.lane]
        assert [entry.offset for entry in batch.events] == list(range(batch.after + 1, batch.upto + 1))
        for entry in batch.events:
            there = model.all[entry.offset - 1][1]
            assert msgspec.json.encode(entry.event) == msgspec.json.encode(there)

    @rule(stream=streams, lane=lanes, upto=st.integers(0, 30))
    def trim_upto(self, stream: str, lane: Lane, upto: int) -> None:
        model = self.model[stream].lanes[lane]
        mark = max(model.trimmed, min(upto, len(model.all)))
        assert self.run(self.engine.trim(stream, lane, upto)) == mark - model.trimmed
        model.trimmed = mark

    @rule()
    def apply_retention(self) -> None:
        now = self.backend.clock.wall
        gone = 0
        for model in self.model.values():
            for lane in model.lanes.values():
                while lane.retained and (
                    len(lane.retained) > RETENTION.events
                    or sum(size(e) for _, e in lane.retained) > RETENTION.bytes
                    or lane.retained[0][0] < now - RETENTION.age
                ):
                    lane.trimmed += 1
                    gone += 1
            model.ids = {
                name: (lane, offset, first, at)
                for name, (lane, offset, first, at) in model.ids.items()
                if at >= now - IDS_AGE or offset > model.lanes[lane].trimmed
            }
        assert self.run(self.engine.trim()) == gone

    @rule(seconds=st.integers(1, 60))
    def wait(self, seconds: int) -> None:
        self.backend.clock.advance(seconds)

    @precondition(lambda self: self.backend.persists)
    @rule()
    def reopen(self) -> None:
        self.run(self.engine.aclose())
        self.open()

    @invariant()
    def the_description_is_true(self) -> None:
        description = self.run(self.engine.describe())
        assert description.epoch == self.epoch
        used = {s for s in STREAMS if any(lane.all for lane in self.model[s].lanes.values())}
        assert set(description.streams) == used
        for stream in used:
            for lane, state in description.streams[stream].items():
                model = self.model[stream].lanes[lane]
                assert (state.head, state.trimmed) == (len(model.all), model.trimmed)
                assert state.events == len(model.retained)
                assert state.bytes == sum(size(e) for _, e in model.retained)

    @invariant()
    def the_watch_has_all_that_was_appended(self) -> None:
        for (stream, lane), began in self.start.items():
            head = len(self.model[stream].lanes[lane].all)
            while self._seen(stream, lane, began) < head:
                batch = self.run(anext(self.watch))
                assert batch.after == self._seen(
                    batch.stream, batch.lane, self.start[batch.stream, batch.lane]
                )
                self._assert_holds(batch)
                self.watched.setdefault((batch.stream, batch.lane), []).append(batch)

    def _seen(self, stream: str, lane: Lane, began: int) -> int:
        batches = self.watched.get((stream, lane))
        return batches[-1].upto if batches else began


@pytest.mark.parametrize("kind", BACKENDS)
def test_any_sequence_of_calls_agrees_with_the_model(kind: str) -> None:
    machine = type("Machine", (EngineMachine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
