"""The recorded session: whole, different in each run, and played in its own time without a loss."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steadcast.client.hooks_install import HOOK_EVENTS
from steadcast.client.post import Connection, Outcome
from steadcast.demo.player import Step, Unplayable, play, recording
from tests.fake_ingest import Answer, FakeIngest, Received, problem
from tests.support.command import Commands
from tests.support.ports import free_port
from tests.support.server import Server

STEPS = recording()
HOOKS: list[dict[str, Any]] = [step.hook for step in STEPS]


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def server() -> Iterator[FakeIngest]:
    with FakeIngest() as fake:
        yield fake


@pytest.fixture
def connection(server: FakeIngest) -> Iterator[Connection]:
    opened = Connection(server.url)
    yield opened
    opened.close()


# The recording


def test_every_hook_event_that_is_known_appears() -> None:
    assert {hook["hook_event_name"] for hook in HOOKS} == set(HOOK_EVENTS)


def test_it_is_two_sessions_with_subagents_for_two_or_three_minutes() -> None:
    assert len(STEPS) >= 120
    assert 120 <= STEPS[-1].at <= 180
    assert [step.at for step in STEPS] == sorted(step.at for step in STEPS)
    assert len({hook["session_id"] for hook in HOOKS}) == 2
    assert len({hook["agent_id"] for hook in HOOKS if "agent_id" in hook}) == 3


def test_every_hook_has_the_fields_that_all_have() -> None:
    for hook in HOOKS:
        assert {"session_id", "transcript_path", "cwd", "hook_event_name"} <= hook.keys()
        assert hook["session_id"] in hook["transcript_path"]
        assert ("agent_id" in hook) == ("agent_type" in hook)


def test_every_tool_call_has_its_end() -> None:
    ends = {"PostToolUse", "PostToolUseFailure", "PermissionDenied"}
    calls = Counter(hook["tool_use_id"] for hook in HOOKS if hook["hook_event_name"] == "PreToolUse")
    ended = Counter(hook["tool_use_id"] for hook in HOOKS if hook["hook_event_name"] in ends)
    assert calls == ended
    assert set(calls.values()) == {1}


def test_every_edit_shows_what_it_changed() -> None:
    edits = [
        hook for hook in HOOKS if hook["hook_event_name"] == "PostToolUse" and hook.get("tool_name") == "Edit"
    ]
    assert len(edits) >= 5
    for edit in edits:
        (patch,) = edit["tool_response"]["structuredPatch"]
        removed = [line[1:] for line in patch["lines"] if line[0] in "- "]
        added = [line[1:] for line in patch["lines"] if line[0] in "+ "]
        assert "\n".join(removed) in edit["tool_input"]["old_string"]
        assert "\n".join(added) in edit["tool_input"]["new_string"]


def test_two_runs_have_no_identifier_in_common() -> None:
    names = ("session_id", "prompt_id", "tool_use_id", "agent_id")
    first, second = (
        {step.hook[name] for step in run for name in names if name in step.hook}
        for run in (STEPS, recording())
    )
    assert not first & second
    assert "<<" not in json.dumps(HOOKS)


# The player


def test_each_hook_arrives_once_in_order_with_an_id_and_a_time(
    server: FakeIngest, connection: Connection
) -> None:
    assert play(connection, STEPS, speed=0) == len(STEPS)
    assert server.bodies == HOOKS
    assert len({each.headers["ce-id"] for each in server.requests}) == len(STEPS)
    assert all(each.headers["ce-time"].endswith("Z") for each in server.requests)


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_it_plays_in_its_own_time_or_as_much_faster_as_was_asked(
    connection: Connection, speed: float
) -> None:
    clock = Clock()
    seen: list[float] = []
    play(
        connection,
        STEPS[:20],
        speed=speed,
        tell=lambda _: seen.append(clock.now - 1_000),
        sleep=clock.sleep,
        clock=clock,
    )
    assert seen == pytest.approx([step.at / speed for step in STEPS[:20]])


def test_a_server_that_goes_away_is_waited_for_and_misses_nothing(
    server: FakeIngest, connection: Connection
) -> None:
    clock = Clock()
    away: list[Outcome] = []
    gone = Answer(status=503, json={"code": "draining"}, headers={"retry-after": "7"})

    def fails_twice(received: Received) -> Answer | None:
        tried = [each.headers["ce-id"] for each in server.requests].count(received.headers["ce-id"])
        return gone if len(server.bodies) == 3 and tried < 3 else None

    server.rule = fails_twice
    play(connection, STEPS[:6], speed=0, away=away.append, sleep=clock.sleep, clock=clock)
    assert server.bodies == HOOKS[:6]
    assert [outcome.code for outcome in away] == ["draining"]
    assert clock.slept == [7.0, 7.0]


def test_a_server_that_stays_away_is_given_up_in_the_end(connection: Connection, server: FakeIngest) -> None:
    clock = Clock()
    server.rule = lambda _: Answer(status=503, json={"code": "draining"})
    with pytest.raises(Unplayable, match="draining"):
        play(connection, STEPS[:1], speed=0, sleep=clock.sleep, clock=clock)
    assert 300 <= clock.now - 1_000 <= 310


@pytest.mark.parametrize("answer", [problem(400, "invalid_event"), problem(401, "unauthorized")])
def test_a_refusal_ends_the_play_at_once(server: FakeIngest, connection: Connection, answer: Answer) -> None:
    server.then(answer)
    with pytest.raises(Unplayable):
        play(connection, STEPS[:2], speed=0)
    assert len(server.requests) == 1


def test_a_step_says_in_a_few_words_what_happens() -> None:
    hook = {"hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_input": {"command": "ls"}}
    assert Step(1.0, hook).line == "PreToolUse  Bash  ls"


# The command


def test_the_demo_says_which_page_to_open_and_fills_the_stream(tmp_path: Path) -> None:
    with Server(tmp_path, engine="memory:") as server:
        done = Commands(tmp_path, server.url)("demo", "--speed", "0")
        assert done.code == 0
        assert done.lines[0].startswith(f"Open {server.url}/ in a browser: 2 agents")
        assert done.lines[-1] == f"{len(STEPS)} events played"
        told = server.get("/v1/streams").json()
        heads = json.dumps(told)
        assert re.search('"claude"', heads)
        events = [
            each
            for lane in ("critical", "normal")
            for each in server.get(f"/v1/streams/claude/events?lane={lane}&limit=256").json()["events"]
        ]
        assert {each["type"] for each in events} == {f"claude.{name}" for name in HOOK_EVENTS}
        assert len(events) == len(STEPS)


def test_without_a_server_the_demo_says_how_to_start_one(tmp_path: Path) -> None:
    done = Commands(tmp_path, f"http://127.0.0.1:{free_port()}")("demo")
    assert (done.code, done.out) == (3, "")
    assert "steadcast serve" in done.err


def test_the_demo_isnt_played_to_a_stranger(tmp_path: Path) -> None:
    with FakeIngest() as stranger:
        done = Commands(tmp_path, stranger.url)("demo")
    assert done.code == 3
    assert "no Steadcast server" in done.err
    assert stranger.requests == []
