"""The conversations in conformance/, replayed against the receiver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from steadcast import wire
from steadcast.core.cursor import Receiver
from steadcast.core.effects import Deliver, SendAck, SendSubscribe, Told
from steadcast.event import Lane, Position

FILES = sorted((Path(__file__).parents[2] / "conformance").glob("*.json"))


class Replay:
    """Drive a receiver through a conversation and note what it does."""

    def __init__(self, conversation: dict[str, Any]) -> None:
        start = conversation["start"]
        kept = {Lane(lane): wire.check_cursor(c) for lane, c in start.get("cursors", {}).items()}
        self.receiver = Receiver(conversation["stream"], start=start.get("from", "end"), cursors=kept)
        self.fails: dict[str, int] = {}
        self.sends: list[Any] = []
        self.applies: list[str] = []
        self.tells: list[Any] = []

    def step(self, step: dict[str, Any]) -> None:
        at = step["at"]
        self.sends, self.applies, self.tells = [], [], []
        self.fails = dict(step.get("fails", {}))
        while (due := self.receiver.next_deadline()) is not None and due <= at:
            self.drain(due, self.receiver.handle_timeout(due))
        self.drain(at, self.give(at, step))

    def give(self, at: float, step: dict[str, Any]) -> list[Any]:
        match step:
            case {"connect": True}:
                return list(self.receiver.connected(at))
            case {"disconnect": True}:
                return list(self.receiver.disconnected(at))
            case {"answer": {"ok": True, "lanes": lanes}}:
                return list(self.receiver.answered(at, wire.parse_answer(lanes)))
            case {"answer": {"error": error}}:
                known = {k: error[k] for k in ("code", "temporary", "retry_after") if k in error}
                return list(self.receiver.refused(at, jitter=0.0, **known))
            case {"receive": ["batch", payload]}:
                return list(self.receiver.received(at, wire.parse_batch(payload)))
            case {"receive": ["ping", {"heads": heads}]}:
                told = heads.get(self.receiver.stream, {})
                return list(self.receiver.pinged(at, {Lane(k): Position(*v) for k, v in told.items()}))
        assert step["wait"]
        return []

    def drain(self, at: float, effects: list[Any]) -> None:
        pending = list(effects)
        while pending:
            effect = pending.pop(0)
            match effect:
                case SendSubscribe(stream, cursors, start):
                    self.sends.append(["subscribe", wire.subscribe_wire(stream, cursors, start)])
                case SendAck(stream, lane, epoch, offset):
                    payload = {"stream": stream, "lane": str(lane), "epoch": epoch, "offset": offset}
                    self.sends.append(["ack", payload])
                case Told():
                    self.tells.append(effect)
                case Deliver():
                    pending = self.handle(at, effect) + pending

    def handle(self, at: float, effect: Deliver) -> list[Any]:
        event_id = effect.entry.event.id
        if self.fails.get(event_id, 0) > 0:
            self.fails[event_id] -= 1
            return list(self.receiver.failed(at, effect.lane))
        self.applies.append(event_id)
        return list(self.receiver.handled(at, effect.lane))


def told_members(told: Told, expected: dict[str, Any]) -> dict[str, Any]:
    found = msgspec.to_builtins(told)
    return {key: (list(v) if isinstance(v := found[key], (list, tuple)) else v) for key in expected}


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


@pytest.mark.parametrize("path", FILES, ids=[f.stem for f in FILES])
def test_the_receiver_follows_the_conversation(path: Path) -> None:
    conversation = json.loads(path.read_text())
    replay = Replay(conversation)
    for number, step in enumerate(conversation["steps"]):
        replay.step(step)
        where = f"{path.name}, step {number}: {json.dumps(step)[:120]}"
        assert replay.sends == step.get("sends", []), where
        assert replay.applies == step.get("applies", []), where
        expected = step.get("tells", [])
        assert len(replay.tells) == len(expected), where
        for told, wanted in zip(replay.tells, expected, strict=True):
            assert told_members(told, wanted) == wanted, where
    cursors = {str(k): v.as_wire() for k, v in replay.receiver.cursors.items()}
    assert cursors == conversation["cursors"]
    counts = {camel(k): v for k, v in msgspec.structs.asdict(replay.receiver.counts).items()}
    assert {key: counts[key] for key in conversation["counts"]} == conversation["counts"]


def test_there_are_conversations_for_every_part_of_the_rule() -> None:
    assert len(FILES) >= 23
