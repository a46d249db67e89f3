"""The command line, as real processes against a real server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from steadcast.cli import main
from steadcast.client.hooks_install import HOOK_EVENTS, NOT_BY_DEFAULT
from steadcast.client.spool import Spool
from steadcast.version import __version__
from tests.fake_ingest import Answer, FakeIngest
from tests.support.command import Commands, Result
from tests.support.ports import free_port
from tests.support.server import BIN, Server, wait_until

RIGHT: dict[str, Any] = {"STEADCAST_TOKEN": "right"}
SERVER = "uvicorn socketio engineio starlette aiohttp apsw structlog prometheus_client"
Within = Callable[..., Result]
POSITION = re.compile(r"(critical|normal):([A-Za-z0-9_-]+):(\d+)  (\S+)(  duplicate)?")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def steadcast(server: Server, tmp_path: Path) -> Commands:
    return Commands(tmp_path, server.url)


@pytest.fixture
def alone(tmp_path: Path) -> Commands:
    return Commands(tmp_path, f"http://127.0.0.1:{free_port()}")


@pytest.fixture
def within(alone: Commands, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Within:
    """Run a command in this process, where no process of its own is needed to see what it does."""
    monkeypatch.chdir(alone.folder)
    for name in [name for name in os.environ if name.startswith("STEADCAST_")]:
        monkeypatch.delenv(name)
    for name in ("STEADCAST_URL", "STEADCAST_SPOOL", "HOME", "TERM"):
        monkeypatch.setenv(name, alone.environ[name])
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)

    def run(*args: str) -> Result:
        monkeypatch.setattr("sys.argv", ["steadcast", *args])
        with pytest.raises(SystemExit) as left:
            main()
        return Result(int(left.value.code or 0), *capsys.readouterr())

    return run


# The whole


def test_the_version_and_the_help_with_its_exit_codes(alone: Commands) -> None:
    assert alone("--version").out == f"steadcast {__version__}\n"
    told = alone("--help").out
    assert re.findall(r"^ +(\d+)  \w", told, re.MULTILINE) == ["0", "1", "2", "3", "4", "5", "130"]
    for command in ("serve", "publish", "tail", "hook", "hooks", "demo", "doctor"):
        assert re.search(rf"\b{command}\b", told)


def test_a_python_runs_its_own_command_as_a_module(alone: Commands) -> None:
    for arguments in (["--version"], ["publish", "one", "too many"]):
        command = [sys.executable, "-m", "steadcast", *arguments]
        told = subprocess.run(command, env=alone.environ, capture_output=True, text=True, check=False)
        assert Result(told.returncode, told.stdout, told.stderr) == alone(*arguments)


def test_a_shell_completes_commands(alone: Commands) -> None:
    assert "_STEADCAST_COMPLETE" in alone(_STEADCAST_COMPLETE="source_bash").out
    asked = {"_STEADCAST_COMPLETE": "complete_bash", "COMP_WORDS": "steadcast pub", "COMP_CWORD": "1"}
    assert alone.with_env(asked)().out.split() == ["publish"]


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--version"], SERVER),
        (
            ["publish", "s", "--type", "t", "--no-spool"],
            SERVER,
        ),
        (["hook"], "typer rich msgspec steadcast.commands steadcast.errors http.client"),
    ],
)
def test_a_quick_command_imports_nothing_of_the_server(
    alone: Commands, arguments: list[str], heavy: str
) -> None:
    program = (
        "import os, sys\n"
        f"sys.argv = ['steadcast', *{arguments!r}]\n"
        "def told():\n"
        f"    there = [name for name in {heavy.split()!r} if name in sys.modules]\n"
        "    open('imports', 'w').write(' '.join(there))\n"
        "left = os._exit\n"
        "os._exit = lambda code: (told(), left(code))\n"
        "from steadcast.cli import main\n"
        "try:\n    main()\nfinally:\n    told()\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        input=b"{}",
        capture_output=True,
        env=alone.environ,
        cwd=alone.folder,
        check=False,
    )
    assert (alone.folder / "imports").read_text() == ""


# serve


def test_wrong_settings_are_told_in_a_line_each(alone: Commands) -> None:
    done = alone("serve", STEADCAST_PORT="many", STEADCAST_RETENTION_AGE="-1")
    assert done.code == 2
    port, age = done.err.splitlines()
    assert port.startswith("steadcast: port: ")
    assert "'many'" in port
    assert "STEADCAST_PORT" in port
    assert age.startswith("steadcast: retention_age: ")


def test_serving_other_machines_without_a_token_is_wrong_usage(alone: Commands) -> None:
    done = alone("serve", "--host", "192.0.2.1", "--engine", "memory:")
    assert (done.code, "set a token" in done.err) == (2, True)


def test_a_certificate_that_is_not_there_is_told_before_anything_is_served(alone: Commands) -> None:
    done = alone("serve", "--engine", "memory:", "--certfile", "nowhere.pem")
    assert done.code == 2
    assert "nowhere.pem" in done.err


def test_a_port_that_is_taken_exits_with_3_and_says_so(server: Server, alone: Commands) -> None:
    done = alone("serve", "--port", str(server.port), "--engine", "memory:")
    assert done.code == 3
    assert "address already in use" in done.err
    assert "doctor" in done.err


# publish


def test_publish_prints_the_position_that_tail_takes(steadcast: Commands) -> None:
    first = steadcast("publish", "orders", "--type", "order.paid", "--data", '{"n": 1}', "--id", "p1")
    assert first.code == 0
    found = POSITION.fullmatch(first.lines[0])
    assert found is not None
    assert (found[1], found[4], found[5]) == ("normal", "p1", None)
    second = steadcast("publish", "orders", "--type", "order.paid", "--data", '{"n": 1}', "--id", "p1")
    assert second.lines == [f"{first.lines[0]}  duplicate"]
    steadcast("publish", "orders", "--type", "order.sent")
    after = f"{found[1]}:{found[2]}:{found[3]}"
    followed = steadcast("tail", "orders", "--after", after, "--count", "1", "--json")
    assert followed.objects[0]["type"] == "order.sent"


FULL = "steadcast: standard output can't be written: No space left on device\n"


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        ("publish quiet --type t >/dev/full", 1, FULL),
        ("tail quiet --from start --count 1 >/dev/full", 1, FULL),
        ("doctor >/dev/full", 1, FULL),
        ("hooks install --settings hooks.json >/dev/full", 1, FULL),
        ("--help >/dev/full", 1, FULL),
        ("publish quiet --type t >&-", 0, ""),
        ("tail quiet --from start --count 1 >&-", 2, "steadcast: standard output is closed\n"),
    ],
)
def test_an_output_that_takes_nothing_is_told_in_words(
    steadcast: Commands, command: str, code: int, told: str
) -> None:
    steadcast("publish", "quiet", "--type", "t")
    done = subprocess.run(
        ["sh", "-c", f"{BIN}/steadcast {command}"],
        env=steadcast.environ,
        cwd=steadcast.folder,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, told)


def test_doctor_advises_on_a_terminal_whose_encoding_has_no_arrow(alone: Commands) -> None:
    done = alone("doctor", PYTHONIOENCODING="latin-1")
    assert (done.code, done.err) == (0, "")
    assert "\\u2192" in done.out


def test_publish_prints_an_id_that_the_terminals_encoding_has_not(steadcast: Commands) -> None:
    done = steadcast("publish", "orders", "--type", "t", "--id", "fünf", PYTHONIOENCODING="ascii")
    assert done.code == 0
    assert done.lines[0].endswith("  fünf")


def test_publish_takes_data_from_a_file_and_from_standard_input_and_says_all_as_json(
    steadcast: Commands,
) -> None:
    (steadcast.folder / "data.json").write_text('{"from": "file"}')
    common = ("--type", "t", "--json", "--priority", "critical", "--subject", "lamp", "--source", "//here")
    told = steadcast("publish", "given", "--data", "@data.json", *common).objects[0]
    assert (told["stream"], told["lane"], told["duplicate"]) == ("given", "critical", False)
    steadcast("publish", "given", "--data", "-", *common, feed='{"from": "input"}')
    read = steadcast("tail", "given", "--from", "start", "--count", "2", "--json").objects
    assert [each["data"]["from"] for each in read] == ["file", "input"]
    assert {(each["subject"], each["source"], each["priority"]) for each in read} == {
        ("lamp", "//here", "critical")
    }


def test_publish_takes_an_event_a_line_and_passes_over_what_is_none(steadcast: Commands) -> None:
    done = steadcast("publish", "lines", "--type", "n", "--json-lines", feed="1\n\nnone\n[2]\n3")
    assert done.code == 1
    assert len(done.lines) == 3
    assert "line 3 is refused: no JSON" in done.err
    read = steadcast("tail", "lines", "--from", "start", "--count", "3", "--json").objects
    assert [each["data"] for each in read] == [1, [2], 3]


def test_what_is_not_utf_8_is_refused_and_costs_no_other_line(steadcast: Commands) -> None:
    lines = steadcast.folder / "latin-1.jsonl"
    lines.write_bytes(b'1\n"caf\xe9"\n3\n')
    for command, code, count in [
        (f"--json-lines <{lines}", 1, 2),
        (f"--data - <{lines}", 2, 0),
        (f"--data @{lines}", 2, 0),
        ('--data "$(printf \'"caf\\351"\')"', 2, 0),
    ]:
        done = subprocess.run(
            ["sh", "-c", f"{BIN}/steadcast publish latin --type t {command}"],
            env=steadcast.environ,
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert "no JSON" in done.stderr
        assert (done.returncode, len(done.stdout.splitlines())) == (code, count)


def test_a_live_pipe_is_published_as_its_lines_come(steadcast: Commands) -> None:
    publishing = steadcast.start("publish", "pipe", "--type", "n", "--json-lines")
    assert publishing.stdin is not None
    assert publishing.stdout is not None
    for number in range(3):
        publishing.stdin.write(f"{number}\n")
        publishing.stdin.flush()
        assert POSITION.match(publishing.stdout.readline())
    publishing.communicate(timeout=10)
    assert publishing.returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("orders", "--type", "t", "--data", "hello"),
        ("orders", "--type", "t", "--data", "@nowhere.json"),
        ("no stream", "--type", "t"),
        ("orders",),
        ("orders", "--type", "t", "--json-lines", "--id", "one"),
        ("orders", "--type", "t", "--url", "ftp://127.0.0.1"),
    ],
)
def test_what_no_server_could_take_is_wrong_usage(
    alone: Commands, within: Within, arguments: tuple[str, ...]
) -> None:
    done = within("publish", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err
    assert not alone.spool.exists()


def test_an_event_that_the_server_refuses_exits_with_1(steadcast: Commands) -> None:
    steadcast("publish", "taken", "--type", "t", "--id", "same", "--source", "s", "--data", "1")
    done = steadcast("publish", "taken", "--type", "t", "--id", "same", "--source", "s", "--data", "2")
    assert done.code == 1
    assert "id_conflict" in done.err


def test_without_a_server_an_event_is_spooled_and_goes_before_the_next_one(alone: Commands) -> None:
    done = alone("publish", "away", "--type", "t", "--id", "first", "--json")
    assert done.code == 4
    folder = done.objects[0]["spooled"]
    assert folder.startswith(str(alone.spool))
    assert folder in done.err
    assert len(Spool(folder).names()) == 1
    with FakeIngest(int(alone.url.rpartition(":")[2])) as back:
        done = alone("publish", "away", "--type", "t", "--id", "second")
        assert (done.code, len(done.lines)) == (0, 1)
        assert back.ids() == ["first", "second"]
    assert Spool(folder).names() == []


def test_no_spool_exits_with_3_and_keeps_nothing(alone: Commands) -> None:
    done = alone("publish", "away", "--type", "t", "--no-spool")
    assert done.code == 3
    assert not alone.spool.exists()


def test_a_server_that_breaks_off_in_the_middle_leaves_the_rest_spooled(alone: Commands) -> None:
    with FakeIngest() as server:
        server.then(Answer(status=503, json={"code": "engine_full", "temporary": True}))
        done = alone("publish", "s", "--type", "t", "--json-lines", "--url", server.url, feed="1\n2\n")
        assert done.code == 4
        assert "spooled 2" in done.err
        assert "engine_full" in done.err
        assert server.ids() == []


def test_a_server_that_answers_something_else_has_taken_nothing(alone: Commands) -> None:
    with FakeIngest() as server:
        server.then(Answer(json={"hello": "world"}))
        assert alone("publish", "s", "--type", "t", "--url", server.url).code == 4


def test_data_from_a_pipe_that_is_not_blocking_is_waited_for(steadcast: Commands) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    command = [f"{BIN}/steadcast", "publish", "slow", "--type", "t", "--data", "-"]
    with subprocess.Popen(
        command, stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=steadcast.environ
    ) as publishing:
        os.close(reading)
        os.write(writing, b'{"half":')
        time.sleep(1)  # it has read so far, most likely; nothing depends on it
        os.write(writing, b" 1}")
        os.close(writing)
        out, err = publishing.communicate(timeout=40)
    assert (publishing.returncode, err) == (0, b"")
    assert POSITION.match(out.decode())


def test_ctrl_c_spools_what_is_in_hand_and_says_so(alone: Commands) -> None:
    with FakeIngest() as server:
        server.then(Answer(delay=60))
        arguments = ("s", "--type", "t", "--json-lines", "--timeout", "60", "--url", server.url)
        publishing = alone.start("publish", *arguments)
        assert publishing.stdin is not None
        publishing.stdin.write("1\n2\n")
        publishing.stdin.flush()
        server.wait(lambda: bool(server.requests))
        publishing.send_signal(signal.SIGINT)
        out, err = publishing.communicate(timeout=20)
        assert publishing.returncode == 130
        assert "Traceback" not in err
        count = out.count("spooled")
        assert count >= 1
        assert f"spooled {count} in" in err
        assert "interrupted" in err


# tail


def test_tail_filters_by_type_and_shows_a_person_time_place_type_and_data(steadcast: Commands) -> None:
    for type_ in ("lamp.on", "door.open", "lamp.off"):
        steadcast("publish", "house", "--type", type_, "--data", '{"by": "\x9b31m"}')
    done = steadcast("tail", "house", "--from", "start", "--type", "lamp.*", "--count", "2")
    assert done.code == 0
    on, off = done.lines
    assert re.fullmatch(r'\d\d:\d\d:\d\d\.\d{3}  normal:1 +lamp\.on  \{"by":"\ufffd31m"\}', on)
    assert "normal:3" in off
    last = steadcast("tail", "house", "--from", "last:1", "--count", "1", "--json")
    assert last.objects[0]["type"] == "lamp.off"


def test_tail_ends_with_130_on_ctrl_c(steadcast: Commands) -> None:
    steadcast("publish", "long", "--type", "t")
    tail = steadcast.start("tail", "long", "--from", "start")
    assert tail.stdout is not None
    assert "normal:1" in tail.stdout.readline()
    tail.send_signal(signal.SIGINT)
    _, err = tail.communicate(timeout=10)
    assert (tail.returncode, err) == (130, "")


def test_tail_ends_quietly_when_its_reader_has_had_enough(steadcast: Commands) -> None:
    steadcast("publish", "enough", "--type", "t", "--json-lines", feed="1\n2\n3\n")
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {BIN}/steadcast tail enough --from start --json | head -1"],
        capture_output=True,
        text=True,
        env=steadcast.environ,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["data"] == 1


def test_tail_goes_on_through_a_restart_of_the_server(server: Server, steadcast: Commands) -> None:
    steadcast("publish", "restart", "--type", "t", "--data", "1")
    told = steadcast.folder / "told"
    tail = steadcast.start("tail", "restart", "--from", "start", "--count", "2", "--json", told=told)
    assert tail.stdout is not None
    assert json.loads(tail.stdout.readline())["data"] == 1
    server.kill()
    wait_until(lambda: "the connection is lost" in told.read_text(), what="the loss is told")
    server.start()
    wait_until(lambda: "connected again" in told.read_text(), what="the return is told")
    steadcast("publish", "restart", "--type", "t", "--data", "2")
    out, _ = tail.communicate(timeout=20)
    assert (tail.returncode, [json.loads(line)["data"] for line in out.splitlines()]) == (0, [2])


def test_tail_exits_with_3_where_nobody_listens(alone: Commands) -> None:
    done = alone("tail", "orders")
    assert done.code == 3
    assert "steadcast serve" in done.err


# tokens


def test_a_wrong_token_is_told_with_5_and_the_right_one_is_read_from_the_environment(tmp_path: Path) -> None:
    with Server(tmp_path, engine="memory:", **RIGHT) as server:
        steadcast = Commands(tmp_path, server.url)
        wrong = steadcast("publish", "s", "--type", "t", "--no-spool", "--token", "wrong")
        assert (wrong.code, "STEADCAST_TOKEN" in wrong.err) == (5, True)
        kept = steadcast("publish", "s", "--type", "t", "--id", "kept")
        assert (kept.code, "401" in kept.err) == (4, True)
        assert steadcast("tail", "s", "--token", "wrong").code == 5
        assert steadcast("demo", "--speed", "0").code == 5
        assert steadcast("publish", "s", "--type", "t", "--id", "right", **RIGHT).code == 0
        read = steadcast("tail", "s", "--from", "start", "--count", "2", "--json", **RIGHT)
        assert [each["id"] for each in read.objects] == ["kept", "right"]


# hooks


def test_hook_takes_the_short_way_and_never_fails_its_agent(steadcast: Commands, server: Server) -> None:
    done = steadcast("hook", "--whatever", feed=json.dumps({"hook_event_name": "Stop", "session_id": "s9"}))
    assert (done.code, done.out, done.err) == (0, "", "")

    def arrived() -> bool:
        events = server.get("/v1/streams/claude/events").json().get("events", [])
        return any(each["source"] == "claude-code/s9" for each in events)

    wait_until(arrived, what="the hook's event is there")
    assert "standard input" in steadcast("hook", "--help").out


def test_hooks_are_installed_once_and_taken_out_again(alone: Commands, within: Within) -> None:
    settings = alone.folder / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text('{\n  "model": "any"\n}\n')
    first = within("hooks", "install")
    assert first.code == 0
    assert f"installed for {len(HOOK_EVENTS) - len(NOT_BY_DEFAULT)} events" in first.out
    backup = next(settings.parent.glob("*backup*"))
    assert str(backup) in first.out
    assert backup.read_text() == '{\n  "model": "any"\n}\n'
    for name in NOT_BY_DEFAULT:
        assert name in first.err
    assert "already" in within("hooks", "install").out
    assert "taken out" in within("hooks", "uninstall").out
    assert json.loads(settings.read_text()) == {"model": "any"}
    assert "no hook" in within("hooks", "uninstall", "--user").out


def test_hooks_go_into_the_users_or_another_file_and_only_with_a_command_that_is_ours(
    alone: Commands, within: Within
) -> None:
    within("hooks", "install", "--user", "--event", "Stop", "--command", "/opt/bin/steadcast hook")
    user = json.loads((alone.folder / ".claude" / "settings.json").read_text())
    assert user["hooks"]["Stop"][0]["hooks"][0]["command"] == "/opt/bin/steadcast hook"
    assert set(user["hooks"]) == {"Stop"}
    assert within("hooks", "install", "--settings", "x.json", "--command", "rm -r").code == 2
    (alone.folder / "broken.json").write_text("{")
    broken = within("hooks", "install", "--settings", "broken.json")
    assert (broken.code, "not valid JSON" in broken.err) == (2, True)
