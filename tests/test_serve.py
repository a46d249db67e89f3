"""`steadcast serve` as a process: how it starts, refuses to start, and leaves."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from steadcast.client.address import parse_address
from steadcast.client.spool import Spool
from steadcast.client.spooled import Request
from tests.support.certificates import make_certificate
from tests.support.house import Peer
from tests.support.server import BIN, Server, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def serve(folder: Path, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "steadcast", "serve", *flags],
        cwd=folder,
        env={**os.environ, "STEADCAST_SPOOL": str(folder / "spool"), **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


async def test_a_signal_drains_it_and_the_clients_are_told(tmp_path: Path) -> None:
    server = await asyncio.to_thread(Server(tmp_path).start)
    peer = Peer()
    await peer.connect(server.url)
    await peer.call("subscribe", {"stream": "s"})
    code = await asyncio.to_thread(server.kill, signal.SIGTERM)
    await peer.until(lambda: peer.named("disconnect"))
    assert code == 0
    assert [set(told) for told in peer.named("goaway")] == [{"reason", "reconnect_in"}]
    await peer.close()


EARLY = """
import os, signal, uvicorn

from steadcast.config import Settings
from steadcast.serve import serve

loop = uvicorn.Config.get_loop_factory

def told(config):
    os.kill(os.getpid(), signal.SIGTERM)
    return loop(config)

uvicorn.Config.get_loop_factory = told
raise SystemExit(serve(Settings(port=0, engine="memory:")))
"""


def test_a_signal_before_its_loop_runs_ends_it_all_the_same(tmp_path: Path) -> None:
    env = {**os.environ, "STEADCAST_SPOOL": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", EARLY], env=env, timeout=60, check=False)
    assert done.returncode == 0


async def test_a_signal_ends_the_polls_of_those_who_poll(tmp_path: Path) -> None:
    server = await asyncio.to_thread(Server(tmp_path).start)
    peer = Peer()
    await peer.connect(server.url, transports=["polling"])
    await peer.call("subscribe", {"stream": "s"})
    assert await asyncio.to_thread(server.kill, signal.SIGTERM) == 0
    await peer.until(lambda: peer.named("disconnect"))
    assert peer.named("goaway")
    assert "Traceback" not in server.log()
    assert "graceful shutdown exceeded" not in server.log()
    await peer.close()


def test_a_request_that_does_not_end_before_the_server_does_is_told_so(tmp_path: Path) -> None:
    head = b"POST /v1/streams/s/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    with (
        Server(tmp_path, STEADCAST_DRAIN_LIMIT="2") as server,
        socket.create_connection(("127.0.0.1", server.port)) as half,
    ):
        half.sendall(head)
        half.settimeout(60)
        assert server.get("/healthz").status_code == 200  # behind that, the half request has come in
        assert server.kill(signal.SIGTERM) == 0
        told = b""
        while part := half.recv(4096):
            told += part
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"draining" in told
        assert "Traceback" not in server.log()


def test_without_a_token_only_this_machine_is_served(tmp_path: Path) -> None:
    done = serve(tmp_path, "--host", "0.0.0.0", "--port", "0")  # noqa: S104 - it is refused
    assert done.returncode != 0
    assert "set a token" in done.stderr + done.stdout


def test_what_was_spooled_for_it_is_drained_where_it_is_bound_to_all_addresses(tmp_path: Path) -> None:
    token = {"authorization": "Bearer t"}
    server = Server(tmp_path)
    server.env |= {"STEADCAST_HOST": "0.0.0.0", "STEADCAST_TOKEN": "t"}  # noqa: S104 - with a token
    spool = Spool(f"{tmp_path}/spool/{parse_address(f'http://localhost:{server.port}').folder}")
    headers = {"content-type": "application/json"}
    spool.put(Request("/v1/streams/s/events", headers, b'{"id":"1","source":"test","type":"t"}'))
    server.start(wait=False)
    try:
        gone = lambda: spool.dead() or spool.statistics()["delivered"]  # noqa: E731 - counted behind its removal
        wait_until(gone, timeout=60, what="what was spooled has gone")
        assert [each.reason for each in spool.dead()] == []
        found = server.get("/v1/streams/s/events", headers=token).json()
        assert [each["id"] for each in found["events"]] == ["1"]
        assert server.kill(signal.SIGTERM) == 0
    finally:
        server.__exit__()


def test_what_was_spooled_for_it_is_drained_with_a_certificate_that_nobody_else_trusts(
    tmp_path: Path,
) -> None:
    certificate, key = make_certificate(tmp_path, "elsewhere.example")
    server = Server(tmp_path, STEADCAST_CERTFILE=str(certificate), STEADCAST_KEYFILE=str(key))
    spool = Spool(f"{tmp_path}/spool/{parse_address(f'https://localhost:{server.port}').folder}")
    spool.put(Request("/v1/hooks/claude", {"content-type": "application/json"}, b"{}"))
    server.start(wait=False)
    try:
        counted = lambda: spool.statistics()["delivered"]  # noqa: E731 - what is waited for
        wait_until(counted, timeout=60, what="what was spooled has gone")
        assert server.kill(signal.SIGTERM) == 0
    finally:
        server.__exit__()


def test_a_renewed_certificate_is_shown_without_a_start_and_open_connections_go_on(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "server.example")
    server = Server(tmp_path, STEADCAST_CERTFILE=str(certificate), STEADCAST_KEYFILE=str(key))
    server.start(wait=False)
    trusting = ssl.create_default_context(cafile=str(certificate))
    trusting.check_hostname = False
    try:
        wait_until(lambda: "serving" in server.log(), timeout=60, what="the server serves")
        open_before = http.client.HTTPSConnection("127.0.0.1", server.port, context=trusting, timeout=20)
        open_before.request("GET", "/healthz")
        assert open_before.getresponse().read()
        (tmp_path / "new").mkdir()
        renewed = make_certificate(tmp_path / "new", "server.example")
        text = renewed[0].read_text()
        renewed[0].replace(certificate)
        renewed[1].replace(key)
        asked = "127.0.0.1", server.port
        shown: Callable[[], bool] = lambda: ssl.get_server_certificate(asked, timeout=20) == text  # noqa: E731 - waited for
        wait_until(shown, timeout=60, what="the renewed certificate is shown")
        open_before.auto_open = 0
        open_before.request("GET", "/healthz")
        assert open_before.getresponse().status == 200
        open_before.close()
        # The server still knows itself: hooks that found no server are sent by it.
        spool = Spool(f"{tmp_path}/spool/{parse_address(f'https://localhost:{server.port}').folder}")
        spool.put(Request("/v1/hooks/claude", {"content-type": "application/json"}, b"{}"))
        counted = lambda: spool.statistics()["delivered"]  # noqa: E731 - what is waited for
        wait_until(counted, timeout=60, what="what was spooled has gone")
        assert server.kill(signal.SIGTERM) == 0
    finally:
        server.__exit__()


def test_what_can_not_be_drained_is_told(tmp_path: Path) -> None:
    server = Server(tmp_path, STEADCAST_BASE_PATH="/base")
    folder = tmp_path / "spool" / parse_address(f"{server.url}/base").folder
    Spool(str(folder)).put(Request("/v1/hooks/claude", {"content-type": "application/json"}, b"{}"))
    (folder / "new").rename(folder / "kept")
    (folder / "new").write_text("no folder")
    server.start(wait=False)
    try:
        told = lambda: "the spool can't be drained for now" in server.log()  # noqa: E731 - what is waited for
        wait_until(told, timeout=60, what="the server tells that it can't drain its spool")
    finally:
        server.__exit__()


def test_a_taken_port_ends_it(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        done = serve(tmp_path, "--port", str(server.port), "--engine", "memory:")
        assert done.returncode != 0


def test_a_file_that_is_no_log_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_bytes(b"no database at all, in no version of any kind " * 50)
    done = serve(tmp_path, "--port", "0", "--engine", "sqlite:///other.db")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "other.db" in done.stderr


@pytest.mark.parametrize("form", ["json", "text"])
def test_logs_are_json_by_setting_and_readable_otherwise(tmp_path: Path, form: str) -> None:
    with Server(tmp_path, STEADCAST_LOG_FORMAT=form) as server:
        first = server.log().splitlines()[0]
        told: dict[str, Any] = json.loads(first) if form == "json" else {"event": first}
        assert "serving" in told["event"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_a_library_logs_is_told_once_in_the_same_form_whatever_a_client_put_into_it(
    tmp_path: Path, form: str
) -> None:
    forged = "x%0a2026-01-01T00:00:00Z%20[error]%20all%20is%20lost%1b[2J"
    with Server(tmp_path, STEADCAST_LOG_FORMAT=form) as server:
        assert server.get(f"/socket.io/?EIO=4&transport=polling&sid={forged}").status_code == 400
        wait_until(lambda: "Invalid session x" in server.log())
        assert server.kill(signal.SIGTERM) == 0  # it writes all that it has to tell
        lines = server.log().splitlines()
    assert len([line for line in lines if "all is lost" in line]) == 1, lines
    assert not [line for line in lines if line.startswith("2026-01-01") or "\x1b" in line], lines
    if form == "json":
        assert {json.loads(line)["level"] for line in lines} <= {"info", "error"}
