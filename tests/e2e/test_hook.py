"""A coding agent's hook: never in its agent's way, and nothing lost while the server is away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

from tests.support.browser import chromium
from tests.support.server import BIN, Server, wait_until

if TYPE_CHECKING:
    from pathlib import Path

HOOK = {
    "session_id": "s1",
    "transcript_path": "/tmp/t.jsonl",  # noqa: S108 - a value of the agent's
    "cwd": "/work",
    "hook_event_name": "PreToolUse",
    "tool_name": "Bash",
    "tool_input": {"command": "ls"},
}


def call_hook(server: Server, body: dict[str, Any] | None = None, url: str | None = None) -> float:
    """Call the hook as an agent does; returns the seconds it took."""
    began = time.monotonic()
    done = subprocess.run(
        [BIN / "steadcast", "hook"],
        input=json.dumps(body or HOOK).encode(),
        env={**server.env, "STEADCAST_URL": url or server.url},
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    return time.monotonic() - began


def kept(server: Server) -> list[Any]:
    events: list[Any] = server.get("/v1/streams/claude/events").json()["events"]
    return events


async def test_a_call_while_the_server_is_down_is_on_the_page_once_it_is_up(tmp_path: Path) -> None:
    server = Server(tmp_path)
    call_hook(server)
    call_hook(server, HOOK | {"hook_event_name": "PostToolUse"})
    with server:
        await asyncio.to_thread(wait_until, lambda: len(kept(server)) == 2, what="the spool is drained")
        assert [e["type"] for e in kept(server)] == ["claude.PreToolUse", "claude.PostToolUse"]
        async with chromium() as browser:
            page = await browser.new_page()
            await page.goto(f"{server.url}/?stream=claude")
            # Both hooks of the call stand in one row.
            await page.locator('[data-testid="row"]:has-text("ToolUse")').click()
            text = await page.get_by_test_id("detail").inner_text()
            assert "claude.PreToolUse" in text
            assert "claude.PostToolUse" in text


class SlowDoor:
    """Stands before a server and lets each connection through only after some seconds."""

    def __init__(self, port: int, seconds: float) -> None:
        self.target, self.seconds = port, seconds
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            near, _ = self.listener.accept()
            threading.Thread(target=self._pass, args=(near,), daemon=True).start()

    def _pass(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self.target)) as far:
            up = threading.Thread(target=self._pump, args=(near, far, False), daemon=True)
            up.start()
            self._pump(far, near, True)

    def _pump(self, source: socket.socket, sink: socket.socket, slowly: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                time.sleep(self.seconds if slowly else 0)
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)


def test_a_server_that_answers_after_5_s_holds_the_agent_for_less_than_half_a_second(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        door = SlowDoor(server.port, 5)
        times = [call_hook(server, url=door.url) for _ in range(3)]
        assert min(times) < 0.5, times  # the least: the rest is what a busy machine added
        wait_until(lambda: len(kept(server)) == 1, what="the first event arrives")
        # All are still spooled, since no answer came in time: later calls send them again, with the same ids.
        door.seconds = 0.0
        calls = 0
        while (types := [each["type"] for each in kept(server)])[-1:] != ["claude.Stop"]:
            assert calls < 20, types
            call_hook(server, HOOK | {"hook_event_name": "Stop"}, url=door.url)
            calls += 1
        assert types[:4] == ["claude.PreToolUse"] * 3 + ["claude.Stop"]
