"""The hook as a real process: nothing is lost, nothing is printed, nobody waits for it."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steadcast.client.drain import Drain
from steadcast.client.hook import MAX_BODY, MAX_DEPTH, MAX_INPUT, PATH, _body
from steadcast.client.post import Connection
from steadcast.client.spool import Spool
from steadcast.client.spooled import Request
from steadcast.http.body import decode_loosely
from steadcast.masking import Masking
from steadcast.wire import check_event
from tests.fake_ingest import Answer, FakeIngest, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOOK = [str(Path(sys.executable).parent / "steadcast-hook")]
CALL = {"session_id": "s1", "hook_event_name": "PreToolUse", "tool_name": "Bash", "cwd": "/work"}


@pytest.fixture
def server() -> Iterator[FakeIngest]:
    with FakeIngest() as fake:
        yield fake


class Agent:
    """Runs hooks against one server, with a spool of their own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.environ = {"STEADCAST_SPOOL": str(folder), "STEADCAST_URL": url, "PATH": os.environ["PATH"]}
        self.spool = Spool(f"{folder}/localhost_{url.rpartition(':')[2]}")
        self.took = 0.0

    def call(self, content: bytes | dict[str, Any] = CALL, **environ: str) -> None:
        given = content if isinstance(content, bytes) else json.dumps(content).encode()
        began = time.monotonic()
        done = subprocess.run(
            HOOK, input=given, capture_output=True, env=self.environ | environ, timeout=20, check=False
        )
        self.took = time.monotonic() - began
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

    def start(self, **more: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            HOOK,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environ,
            **more,
        )

    def spooled(self) -> list[dict[str, Any]]:
        taken = [self.spool.take(name) for name in self.spool.names()]
        return [json.loads(each.body) for each in taken if each is not None]

    def drain(self, url: str) -> None:
        connection = Connection(url)
        Drain(self.spool, connection).until(time.monotonic() + 5)
        connection.close()


def takes_less(seconds: float, call: Callable[[int], float]) -> bool:
    """Tell whether one of a dozen calls took less: the rest is what a busy machine added."""
    return any(call(number) < seconds for number in range(12))


@pytest.fixture
def agent(server: FakeIngest, tmp_path: Path) -> Agent:
    return Agent(tmp_path / "spool", server.url)


def test_a_hook_arrives_as_it_is_with_an_id_and_a_time_and_leaves_nothing_spooled(
    server: FakeIngest, agent: Agent
) -> None:
    agent.call()
    (received,) = server.requests
    assert received.path == PATH
    assert json.loads(received.body) == CALL
    assert received.headers["content-type"] == "application/json"
    assert UUID(received.headers["ce-id"]).version == 7
    assert received.headers["ce-time"].endswith("Z")
    assert agent.spooled() == []
    assert agent.spool.statistics()["delivered"] == 1


def test_a_hook_without_a_server_is_spooled_and_delivered_by_the_next_one_in_order(tmp_path: Path) -> None:
    with FakeIngest() as gone:
        port = gone.port
    agent = Agent(tmp_path, gone.url)
    agent.call(CALL | {"n": 1})
    agent.call(CALL | {"n": 2})
    assert [each["n"] for each in agent.spooled()] == [1, 2]
    with FakeIngest(port) as server:
        agent.call(CALL | {"n": 3})
        assert [each["n"] for each in server.bodies] == [1, 2, 3]
    assert agent.spooled() == []


def test_a_server_that_answers_after_five_seconds_costs_the_agent_half_a_second_and_no_double(
    server: FakeIngest, tmp_path: Path
) -> None:
    def call(number: int) -> float:
        agent = Agent(tmp_path / str(number), server.url)
        server.then(Answer(delay=5))
        agent.call()
        assert len(agent.spooled()) == 1
        agent.drain(server.url)
        assert agent.spooled() == []
        assert len(server.requests) == 2 * (number + 1)
        assert len(server.applied) == number + 1
        return agent.took

    assert takes_less(0.5, call)


def test_a_server_that_accepts_and_never_reads_costs_the_agent_half_a_second(tmp_path: Path) -> None:
    def call(number: int) -> float:
        with socket.create_server(("127.0.0.1", 0), backlog=1) as deaf:
            agent = Agent(tmp_path / str(number), f"http://127.0.0.1:{deaf.getsockname()[1]}")
            agent.call()
        assert len(agent.spooled()) == 1
        return agent.took

    assert takes_less(0.5, call)


def test_a_long_backlog_costs_the_agent_half_a_second_too(tmp_path: Path) -> None:
    def call(number: int) -> float:
        with FakeIngest() as server:
            agent = Agent(tmp_path / str(number), server.url)
            for name in range(20):
                agent.spool.put(Request(PATH, {"ce-id": str(name)}, b"{}"))
            server.rule = lambda _received: Answer(delay=0.05)
            agent.call()
            agent.drain(server.url)
            assert server.ids()[:20] == [str(name) for name in range(20)]
            assert len(server.applied) == 21
        return agent.took

    assert takes_less(0.5, call)


def test_a_refused_hook_is_kept_as_dead(server: FakeIngest, agent: Agent) -> None:
    server.then(problem(400, "invalid_event", temporary=False))
    agent.call()
    assert agent.spooled() == []
    assert [dead.reason for dead in agent.spool.dead()] == ["refused: 400 invalid_event it is invalid_event"]


def test_the_token_comes_from_the_environment_and_is_not_written_to_disk(
    server: FakeIngest, agent: Agent
) -> None:
    server.then(Answer(503))
    agent.environ |= {"STEADCAST_TOKEN": "t0ken"}
    agent.call()
    assert server.requests[0].headers["authorization"] == "Bearer t0ken"
    assert all(
        b"t0ken" not in path.read_bytes() for path in Path(agent.spool.folder).rglob("*") if path.is_file()
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"not json", "not_json"),
        (b'{"cut": ', "not_json"),
        (b"\xff\xfe\x00", "not_json"),
        (b"[1, 2]", "not_an_object"),
        (b"null", "not_an_object"),
        (b"[" * 100_000, "too_deep"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "too_deep"),
        (b"1" * 5_000, "not_json"),
        (b"x" * (MAX_INPUT + 10), "too_large"),
    ],
)
def test_what_is_no_hook_is_told_instead_of_lost(
    server: FakeIngest, agent: Agent, content: bytes, reason: str
) -> None:
    agent.call(content)
    (body,) = server.bodies
    assert (body["hook_event_name"], body["reason"], body["bytes"]) == ("hook.invalid", reason, len(content))
    assert body["head"] == content[:2_000].decode("utf-8", "replace")


def test_a_hook_too_large_for_an_event_has_its_long_strings_cut(server: FakeIngest, agent: Agent) -> None:
    big = CALL | {"tool_response": {"content": "x" * 1_000_000, "lines": ["y" * 100_000] * 5, "ok": True}}
    agent.call(big)
    (body,) = server.bodies
    assert len(server.requests[0].body) <= MAX_BODY
    assert {key: body[key] for key in CALL} == CALL
    assert body["tool_response"]["ok"] is True
    assert body["tool_response"]["content"].startswith("x" * 1_000)
    assert body["steadcast_truncated"]["bytes"] == len(json.dumps(big))


def test_secrets_are_masked_before_anything_is_kept(tmp_path: Path) -> None:
    agent = Agent(tmp_path, "http://127.0.0.1:9")
    agent.environ["STEADCAST_MASK_PATTERNS"] = '["ACME-\\\\d"]'
    agent.call(CALL | {"tool_input": {"command": "TOKEN=geheim1 run", "password": "geheim2", "x": "ACME-7"}})
    agent.call(b"TOKEN=geheim3 is no JSON")
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert kept.count(b"[masked]") == 4
    assert b"steadcast_masked" in kept
    assert b"geheim" not in kept
    assert b"ACME" not in kept


def test_a_pipe_that_the_agent_leaves_open_does_not_hold_the_hook(server: FakeIngest, agent: Agent) -> None:
    with agent.start() as hook:
        assert hook.stdin is not None
        hook.stdin.write(json.dumps(CALL).encode())
        hook.stdin.flush()
        assert hook.wait(2) == 0
    assert server.bodies == [CALL]


def test_an_agent_that_writes_nothing_does_not_hold_the_hook(server: FakeIngest, agent: Agent) -> None:
    with agent.start() as hook:
        assert hook.wait(3) == 0
    assert [body["reason"] for body in server.bodies] == ["empty"]


def test_an_input_larger_than_is_understood_is_read_to_its_end(server: FakeIngest, agent: Agent) -> None:
    with agent.start() as hook:
        assert hook.stdin is not None
        hook.stdin.write(b"x" * (MAX_INPUT + 3 * 1024 * 1024))
        hook.stdin.close()
        assert hook.wait(5) == 0
    assert server.bodies[0]["reason"] == "too_large"


def closed(*descriptors: int) -> list[str]:
    """Give a command that runs the hook with these descriptors closed."""
    shut = "".join(f"os.close({each});" for each in descriptors)
    return [sys.executable, "-c", f"import os, sys; {shut} os.execv(sys.argv[1], sys.argv[1:])", *HOOK]


@pytest.mark.parametrize("descriptors", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_closed_standard_streams_do_no_harm(
    server: FakeIngest, agent: Agent, descriptors: tuple[int, ...]
) -> None:
    content = json.dumps(CALL).encode()
    done = subprocess.run(
        closed(*descriptors), input=content, capture_output=True, env=agent.environ, timeout=20, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    if 0 not in descriptors:
        assert server.bodies == [CALL]


def test_a_person_who_types_the_command_makes_no_event(server: FakeIngest, agent: Agent) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(HOOK, stdin=theirs, capture_output=True, env=agent.environ, timeout=20, check=False)
    os.close(ours)
    os.close(theirs)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert server.requests == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_event_is_spooled_does_not_lose_it(
    server: FakeIngest, agent: Agent, number: int
) -> None:
    server.rule = lambda _received: Answer(delay=5)
    with agent.start() as hook:
        assert hook.stdin is not None
        content = json.dumps(CALL).encode()
        hook.stdin.write(content[:10])
        hook.stdin.flush()
        wait_until(lambda: ignores(hook.pid, number))
        hook.send_signal(number)
        hook.stdin.write(content[10:])
        hook.stdin.close()
        assert hook.wait(3) == 0
    assert agent.spooled() == [CALL]


def test_a_signal_while_the_server_is_tried_ends_the_hook_at_once(server: FakeIngest, agent: Agent) -> None:
    server.rule = lambda _received: Answer(delay=5)
    with agent.start() as hook:
        assert hook.stdin is not None
        hook.stdin.write(json.dumps(CALL).encode())
        hook.stdin.close()
        server.wait(lambda: len(server.requests) == 1)
        hook.send_signal(signal.SIGTERM)
        assert hook.wait(3) == 0
    assert agent.spooled() == [CALL]


def ignores(pid: int, number: int) -> bool:
    """Tell from the kernel whether a process ignores a signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigIgn"))
    return bool(mask >> (number - 1) & 1)


def wait_until(condition: Any, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def test_a_disk_that_may_not_be_written_does_not_keep_the_event_from_the_server(
    server: FakeIngest, agent: Agent, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    agent.call(STEADCAST_SPOOL=str(tmp_path / "file" / "spool"))
    assert server.bodies == [CALL]


def test_without_disk_and_server_the_hook_still_ends_quietly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    Agent(tmp_path / "file" / "spool", "http://127.0.0.1:1").call()


def test_without_a_home_the_hook_still_works(server: FakeIngest, agent: Agent, tmp_path: Path) -> None:
    del agent.environ["STEADCAST_SPOOL"]
    agent.call(TMPDIR=str(tmp_path), HOME="")
    assert server.bodies == [CALL]


@pytest.mark.parametrize("url", ["nonsense://x", "http://", "http://a b"])
def test_a_mistyped_url_means_the_default_server(server: FakeIngest, agent: Agent, url: str) -> None:
    code = f"from steadcast.client import address, hook; address.DEFAULT_URL = {server.url!r}; hook.main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(CALL).encode(),
        capture_output=True,
        env=agent.environ | {"STEADCAST_URL": url},
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert server.bodies == [CALL]


def test_many_hooks_at_once_are_all_delivered_once(server: FakeIngest, agent: Agent) -> None:
    hooks = [agent.start() for _ in range(12)]
    for number, hook in enumerate(hooks):
        assert hook.stdin is not None
        hook.stdin.write(json.dumps(CALL | {"n": number}).encode())
        hook.stdin.close()
    for hook in hooks:
        with hook:
            assert hook.wait(10) == 0
    agent.drain(server.url)
    assert sorted(body["n"] for body in server.bodies) == list(range(12))
    told = agent.spool.statistics()
    assert (told["accepted"], told["delivered"], told["pending"]) == (12, 12, 0)


def test_the_hook_imports_the_standard_library_alone_and_none_of_its_slow_parts() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "from steadcast.client import address, drain, hook, post, spool, spooled\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    roots = {name.partition(".")[0] for name in output}
    assert roots - {"steadcast"} <= sys.stdlib_module_names
    slow = {"asyncio", "dataclasses", "email", "http", "inspect", "logging", "pathlib", "ssl"}
    assert not roots & (slow | {"threading", "tempfile"})


MASKING = Masking()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_read_becomes_one_bounded_strict_json_object(content: bytes) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    body = _body(content, len(content), MASKING)
    assert len(body) <= MAX_BODY
    assert isinstance(json.loads(body.decode("utf-8"), parse_constant=refuse), dict)


@given(st.integers(1, 40_000), st.integers(1, 30), st.sampled_from(["x", "ü", "\U0001f600", "\\ud800"]))
@settings(deadline=None, max_examples=30)
def test_a_large_object_is_cut_until_it_fits(length: int, count: int, letter: str) -> None:
    content = ('{"all": [' + ",".join([f'"{letter * length}"'] * count) + "]}").encode()
    body = _body(content, len(content), MASKING)
    assert len(body) <= MAX_BODY
    assert "all" in json.loads(body)


@pytest.mark.parametrize("on", [True, False])
@given(
    st.integers(1, 3_000), st.sampled_from(["", "x" * 300_000]), st.sampled_from([("[", "]"), ('{"a":', "}")])
)
@settings(deadline=None, max_examples=30)
def test_however_deep_an_object_is_the_server_takes_what_is_made_of_it(
    on: bool, depth: int, long: str, brackets: tuple[str, str]
) -> None:
    opening, closing = brackets
    content = f'{{"all": {opening * depth}1{closing * depth}, "long": "{long}"}}'.encode()
    body = decode_loosely(_body(content, len(content), Masking(on=on)))
    check_event({"id": "1", "source": "s", "type": "t", "data": body}, now="2026-01-31T12:00:00Z")
    assert ("all" in body) is (depth < MAX_DEPTH)
