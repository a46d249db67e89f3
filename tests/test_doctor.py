"""The doctor: it finds what is wrong, says what to do, and disturbs nobody."""

from __future__ import annotations

import json
import pwd
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from steadcast import doctor
from steadcast.client.address import parse_address
from steadcast.client.hooks_install import install, settings_path
from steadcast.client.spool import Spool
from steadcast.client.spooled import Request
from steadcast.doctor import Finding, examine
from steadcast.errors import InvalidRequest
from steadcast.version import __version__
from tests.support.command import Commands
from tests.support.ports import free_port
from tests.support.server import Server

NOBODY = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("STEADCAST_SPOOL", str(tmp_path / "spool"))
    for name in ("STEADCAST_TOKEN", "STEADCAST_URL", "CLAUDE_CONFIG_DIR", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


def found(name: str, findings: list[Finding]) -> list[Finding]:
    return [each for each in findings if each.name == name]


def only(name: str, findings: list[Finding]) -> Finding:
    (finding,) = found(name, findings)
    return finding


# The report


def test_a_running_server_is_well_and_goes_on_undisturbed(server: Server, tmp_path: Path) -> None:
    steadcast = Commands(tmp_path, server.url)
    done = steadcast("doctor", "--engine", server.engine, "--json")
    told = json.loads(done.out)
    assert (done.code, told["ok"]) == (0, True)
    assert [each for each in told["checks"] if each["state"] == "problem"] == []
    shown = {each["name"]: each["told"] for each in told["checks"]}
    assert server.process is not None
    assert f"served by process {server.process.pid}" in shown["engine"]
    assert server.get("/v1/stats").json()["node"] in shown["server"]
    assert f"steadcast {__version__}" in shown["server"]
    assert "opens" in shown["websocket"]
    assert server.ready()
    assert (
        server.publish("after", {"specversion": "1.0", "id": "1", "source": "s", "type": "t"}).status_code
        == 200
    )


def test_a_problem_exits_with_1_and_is_shown_with_what_to_do(tmp_path: Path) -> None:
    done = Commands(tmp_path, NOBODY)("doctor", "--engine", "sqlite:///nowhere/steadcast.db")
    assert done.code == 1
    assert "there is no folder" in done.out
    assert "→ mkdir -p" in done.out
    assert done.lines[-1].startswith("1 problem, 1 warning")


def test_a_check_that_fails_itself_is_a_problem_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_stars(_: object) -> Iterator[Finding]:
        raise RuntimeError("cloudy")

    monkeypatch.setattr(doctor, "CHECKS", (check_stars, *doctor.CHECKS[:1]))
    findings = examine(NOBODY)
    assert findings[0] == Finding("stars", "problem", "the check failed: RuntimeError: cloudy")
    assert len(findings) > 1


def test_everything_that_isnt_well_has_an_advice(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEADCAST_PORT", "x")
    monkeypatch.setenv("STEADCAST_PROT", "1")
    monkeypatch.setenv("http_proxy", "http://user:secret@proxy:3128")
    findings = examine(server.url, "a-token")
    assert len([each for each in findings if each.state != "ok"]) >= 4
    assert all(bool(each.advice) == (each.state != "ok") for each in findings)
    assert "secret" not in str(findings)


# Settings and limits


def test_wrong_settings_and_variables_that_are_none_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEADCAST_PORT", "x")
    monkeypatch.setenv("STEADCAST_PROT", "1")
    wrong, unknown = found("settings", examine(NOBODY))
    assert (wrong.state, wrong.told[:6]) == ("problem", "port: ")
    assert (unknown.state, "STEADCAST_PROT" in unknown.told) == ("warning", True)


def test_a_low_limit_of_open_files_is_found_and_one_that_a_server_raises_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (512, 1024))
    finding = only("open files", examine(NOBODY))
    assert (finding.state, finding.told[:13]) == ("warning", "at most 1024;")
    assert "LimitNOFILE" in finding.advice
    monkeypatch.setattr(resource, "getrlimit", lambda _: (512, 1 << 20))
    assert only("open files", examine(NOBODY)).state == "ok"


def test_a_proxy_that_would_catch_localhost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    assert only("proxies", examine(NOBODY)).state == "warning"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert only("proxies", examine(NOBODY)).state == "ok"


# The engine


def other_file(path: Path) -> None:
    path.write_text("no log, but long enough to be looked at")


def newer_log(path: Path) -> None:
    import apsw

    from steadcast.engines.sqlite_schema import APPLICATION_ID

    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 99")
    connection.close()


def other_database(path: Path) -> None:
    import apsw

    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA application_id = 7")
    connection.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (other_file, "not a database"),
        (newer_log, "newer steadcast"),
        (other_database, "another program's"),
        (Path.mkdir, "it is a folder"),
    ],
)
def test_a_file_that_is_no_log_of_ours_is_found(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    path = tmp_path / "steadcast.db"
    make(path)
    finding = only("engine", examine(NOBODY, engine=f"sqlite:///{path}"))
    assert finding.state == "problem"
    assert words in finding.told


@pytest.mark.parametrize("name", ["log.db", "log[1].db"])
def test_a_logs_size_is_of_its_own_files_whatever_stands_beside_it(tmp_path: Path, name: str) -> None:
    import apsw

    path = tmp_path / name
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA page_size = 4096; CREATE TABLE one (n)")
    connection.close()
    path.with_name(f"{name}.before-20261123-120000").write_bytes(bytes(8_192))
    finding = only("engine", examine(NOBODY, engine=f"sqlite:///{path}"))
    assert (finding.state, finding.told) == ("ok", f"{path}, 8 KiB")


def test_looking_for_a_log_makes_none(tmp_path: Path) -> None:
    finding = only("engine", examine(NOBODY, engine=f"sqlite:///{tmp_path / 'new.db'}"))
    assert (finding.state, "will be made" in finding.told) == ("ok", True)
    assert not list(tmp_path.glob("new.db*"))


@pytest.mark.parametrize(
    ("url", "state"), [("memory:", "ok"), ("sqlite:///", "problem"), ("disk:", "problem")]
)
def test_an_engine_is_looked_at_by_its_url(url: str, state: str) -> None:
    assert only("engine", examine(NOBODY, engine=url)).state == state


# The server


class Stranger(BaseHTTPRequestHandler):
    """Answers as it is told to."""

    answers: ClassVar[dict[str, tuple[int, Any]]] = {}
    date: ClassVar[str | None] = None

    def do_GET(self) -> None:
        status, body = self.answers.get(self.path, (404, {}))
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return self.date or super().date_time_string(timestamp)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Stranger, "answers", {})
    monkeypatch.setattr(Stranger, "date", None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


def test_nobody_at_the_address_is_a_warning_that_says_how_to_start_one() -> None:
    finding = only("server", examine(f"http://127.0.0.1:{free_port()}"))
    assert (finding.state, "steadcast serve" in finding.advice) == ("warning", True)


def test_somebody_else_at_the_address_is_a_problem(stranger: str) -> None:
    finding = only("server", examine(stranger))
    assert (finding.state, "something else answers" in finding.told) == ("problem", True)


def test_a_listener_that_never_answers_is_a_problem() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        finding = only("server", examine(f"http://127.0.0.1:{deaf.getsockname()[1]}"))
    assert finding.state == "problem"


def test_a_server_that_is_not_ready_says_why_and_another_version_is_told(stranger: str) -> None:
    Stranger.answers = {
        "/readyz": (503, {"code": "not_ready", "detail": "engine_full: there is no room"}),
        "/v1/stats": (200, {"version": "0.0.1", "node": "n", "uptime": 4000}),
    }
    findings = examine(stranger)
    assert only("ready", findings).told == "engine_full: there is no room"
    assert (only("server", findings).state, "0.0.1" in only("server", findings).told) == ("warning", True)
    assert only("websocket", findings).state == "warning"


@pytest.mark.parametrize(
    ("date", "state"),
    [("Thu, 01 Jan 2026 00:00:00 GMT", "warning"), ("yesterday", "warning"), (None, "ok")],
)
def test_a_clock_that_is_off_is_found(stranger: str, date: str | None, state: str) -> None:
    Stranger.answers = {"/readyz": (200, {"status": "ready"}), "/v1/stats": (200, {"version": __version__})}
    Stranger.date = date
    assert only("clock", examine(stranger)).state == state


def test_a_token_that_doesnt_fit_is_found(server: Server, stranger: str) -> None:
    assert only("token", examine(server.url)).state == "ok"
    unasked = only("token", examine(server.url, "any"))
    assert (unasked.state, "asks for none" in unasked.told) == ("warning", True)
    Stranger.answers = {
        "/readyz": (200, {"status": "ready"}),
        "/v1/stats": (401, {"detail": "the token is not the right one"}),
    }
    missing, wrong = only("token", examine(stranger)), only("token", examine(stranger, "wrong"))
    assert (missing.state, "none is set" in missing.told) == ("problem", True)
    assert (wrong.state, wrong.told) == ("problem", "the token is not the right one")


def test_a_token_that_no_header_takes_is_told_and_not_shown(server: Server) -> None:
    assert only("token", examine(server.url, "any\n")).state == "warning"
    found = only("server", examine(server.url, "hush\nhush"))
    assert (found.state, "a token is printable ASCII" in found.told) == ("problem", True)
    assert "hush" not in found.told


# What this machine sends


def spool_of(home: Path, url: str) -> Spool:
    return Spool(str(home / "spool" / parse_address(url).folder))


def test_what_waits_too_long_what_is_dead_and_what_waits_elsewhere_is_found(home: Path) -> None:
    request = Request("/v1/hooks/claude", {}, b"{}")
    own, other = spool_of(home, NOBODY), spool_of(home, "http://127.0.0.1:2")
    own.put(request, "00000000001700000000-0000000001-0000000001".rjust(42, "0"))
    own.put_dead(request, "01700000000000000000-0000000001-0000000002", "400 invalid_event")
    other.put(request)
    late, dead, elsewhere = found("spool", examine(NOBODY))
    assert (late.state, "1 wait" in late.told) == ("warning", True)
    assert (dead.state, "1 were given up" in dead.told) == ("warning", True)
    assert (elsewhere.state, "another server (localhost_2)" in elsewhere.told) == ("warning", True)
    assert len(own.names()) == 1


def test_what_was_spooled_just_now_is_no_reason_to_worry(home: Path) -> None:
    spool_of(home, NOBODY).put(Request("/v1/hooks/claude", {}, b"{}"))
    finding = only("spool", examine(NOBODY))
    assert (finding.state, finding.told[:6]) == ("ok", "1 wait")


@pytest.mark.parametrize("place", ["spool", "spool/localhost_9", "spool/localhost_9/new"])
def test_a_spool_that_nothing_can_be_written_to_is_a_problem_also_before_it_was_used(
    home: Path, place: str
) -> None:
    """What a hook would spool while the server is away would be gone, and nobody the wiser."""
    in_the_way = home / place
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.touch()
    finding = only("spool", examine("http://127.0.0.1:9"))
    assert (finding.state, f"{in_the_way} can't be written" in finding.told) == ("problem", True)


def test_without_a_home_there_are_no_hooks_of_the_users(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user is a number alone."""

    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert (only("hooks", examine(NOBODY)).state, home.exists()) == ("ok", True)
    with pytest.raises(InvalidRequest, match="CLAUDE_CONFIG_DIR"):
        settings_path("user")


def test_hooks_are_found_where_they_are_installed_and_when_their_program_is_gone() -> None:
    assert "not installed" in only("hooks", examine(NOBODY)).told
    install(settings_path("user"), events=["Stop", "SessionStart"])
    there = only("hooks", examine(NOBODY))
    assert (there.state, "for 2 events (user: " in there.told) == ("ok", True)
    install(settings_path("project"), command="/gone/steadcast-hook")
    twice = found("hooks", examine(NOBODY))
    assert [each.state for each in twice] == ["ok", "ok", "problem", "warning"]
    assert "/gone/steadcast-hook is gone" in twice[2].told
    assert "uninstall" in twice[3].advice
    settings_path("project").write_text("{")
    assert any("not valid JSON" in each.told for each in found("hooks", examine(NOBODY)))


@pytest.mark.parametrize("strange", ['"Stop": 7', '"Stop": [5]', '"Stop": [{"hooks": null}]', '"Stop": null'])
def test_what_other_programs_left_among_the_hooks_is_no_trouble(strange: str) -> None:
    install(settings_path("user"), events=["SessionStart"])
    whole = settings_path("user").read_text().rstrip().removesuffix("}").rstrip().removesuffix("}")
    settings_path("user").write_text(f"{whole.rstrip()}, {strange}}}}}")
    there = only("hooks", examine(NOBODY))
    assert (there.state, "for 1 events (user: " in there.told) == ("ok", True)
