"""Tokens that are taken back from a server that runs: who came in by them is sent away, the others stay."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import httpx
import pytest

from steadcast.client.subscriber import Subscriber
from steadcast.errors import NotAllowed
from tests.support.histories import until
from tests.support.house import Peer
from tests.support.plain import PLAIN
from tests.support.server import Server, event

KEPT = "made-up-token-that-stays"
TAKEN = "made-up-token-that-is-taken-back"
FRESH = "made-up-token-that-comes-in-its-place"
RULE = """
[[tokens]]
name = "{0}"
token = "made-up-token-that-{1}"
scopes = ["publish", "subscribe"]
"""
BEFORE = RULE.format("kept", "stays") + RULE.format("taken", "is-taken-back")
AFTER = RULE.format("kept", "stays") + RULE.format("fresh", "comes-in-its-place")


class Reloading(Server):
    """A server with a file of settings."""

    def __init__(self, folder: Path, tokens: str) -> None:
        super().__init__(folder)
        self.config = folder / "steadcast.toml"
        self.arguments = ("--config", str(self.config))
        self.config.write_text(tokens)

    def ask(self, path: str, token: str) -> int:
        return self.get(path, headers=bearer(token)).status_code

    async def reload(self, tokens: str, says: str) -> None:
        """Give it other tokens, and wait until it says what it made of them."""
        said = self.log().count(says)
        self.config.write_text(tokens)
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)
        await until(lambda: self.log().count(says) > said, what=f"the log says {says!r}")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def peer_of(server: Server, token: str) -> Peer:
    peer = Peer()
    await peer.connect(server.url, auth={"token": token})
    assert (await peer.call("subscribe", {"stream": "s"}))["ok"]
    return peer


async def publish(server: Server, number: int) -> None:
    headers = bearer(KEPT) | {"content-type": "application/cloudevents+json"}
    async with httpx.AsyncClient(verify=PLAIN, headers=headers) as client:
        answer = await client.post(f"{server.url}/v1/streams/s/events", json=event(number))
    answer.raise_for_status()


async def read_feed(server: Server, token: str, heard: list[str]) -> None:
    async with (
        httpx.AsyncClient(verify=PLAIN, timeout=60) as client,
        client.stream("GET", f"{server.url}/v1/streams/s/sse", headers=bearer(token)) as feed,
    ):
        async for line in feed.aiter_lines():
            heard.append(line)  # noqa: PERF401 - what was heard so far is looked at meanwhile


async def test_who_came_in_by_a_token_that_is_taken_back_is_sent_away_and_nobody_else(tmp_path: Path) -> None:
    with Reloading(tmp_path, BEFORE) as server:
        kept, taken = await peer_of(server, KEPT), await peer_of(server, TAKEN)
        heard: dict[str, list[str]] = {KEPT: [], TAKEN: []}
        feeds = {name: asyncio.create_task(read_feed(server, name, heard[name])) for name in heard}
        await until(lambda: all(any("subscribed" in line for line in lines) for lines in heard.values()))
        await server.reload(AFTER, "the tokens were read anew")
        await taken.until(lambda: taken.named("disconnect"), "the end")
        (told,) = taken.named("error")
        assert (told["code"], told["temporary"]) == ("token_revoked", True)
        await asyncio.wait_for(feeds[TAKEN], 20)
        assert any('"reason":"token_revoked"' in line for line in heard[TAKEN])
        assert server.ask("/v1/streams", TAKEN) == 401
        assert server.ask("/v1/streams", FRESH) == 200
        answer = await kept.call("publish", {"stream": "s", "events": [event(1)]})
        assert answer["ok"]
        await kept.until(kept.events, "its own event")
        await until(lambda: any('"id":"e1"' in line for line in heard[KEPT]), what="the event in the feed")
        assert (kept.named("disconnect"), taken.events()) == ([], [])
        feeds[KEPT].cancel()
        await asyncio.gather(*feeds.values(), return_exceptions=True)
        await kept.close()
        assert all(secret not in server.log() for secret in (KEPT, TAKEN, FRESH))


async def test_a_client_whose_token_was_taken_back_goes_on_with_a_fresh_one_or_ends_in_words(
    tmp_path: Path,
) -> None:
    with Reloading(tmp_path, BEFORE) as server:
        given = [TAKEN]
        async with (
            Subscriber(server.url, "s", start="start", token=lambda: given[-1]) as rotating,
            Subscriber(server.url, "s", start="start", token=TAKEN) as fixed,
        ):
            await publish(server, 1)
            assert (await anext(rotating)).event.id == "e1"
            assert (await anext(fixed)).event.id == "e1"
            given.append(FRESH)
            await server.reload(AFTER, "the tokens were read anew")
            await publish(server, 2)
            assert (await asyncio.wait_for(anext(rotating), 30)).event.id == "e2"
            with pytest.raises(NotAllowed) as caught:
                await asyncio.wait_for(anext(fixed), 30)
            assert caught.value.code == "unauthorized"


async def test_settings_of_no_use_leave_the_old_tokens_and_the_server_says_why(tmp_path: Path) -> None:
    with Reloading(tmp_path, BEFORE) as server:
        taken = await peer_of(server, TAKEN)
        for broken in ("tokens = [", "tokens = 5", AFTER.replace("name", "nom"), ""):
            await server.reload(broken, "the old ones hold")
            assert server.ask("/v1/streams", TAKEN) == 200
        counts = server.get("/v1/stats", headers=bearer(KEPT)).json()["http"]["counts"]
        assert counts["reloads_failed"] == 4
        assert taken.named("disconnect") == []
        await taken.close()


async def test_without_a_file_of_settings_a_closed_terminal_ends_the_server(tmp_path: Path) -> None:
    # Under `nohup` a program inherits that the signal is ignored, and keeps to it.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with Server(tmp_path) as server:
            assert server.process is not None
            server.process.send_signal(signal.SIGHUP)
            assert await asyncio.to_thread(server.process.wait, 30) == -signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, before)


def holds_back(pid: int, number: signal.Signals) -> bool:
    """Tell whether a process takes a signal later (signal(7), proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    blocked = next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
    return bool(int(blocked, 16) & 1 << number - 1)


async def test_a_server_that_is_told_to_reload_before_it_has_read_its_settings_takes_the_tokens_and_starts(
    tmp_path: Path,
) -> None:
    server = Reloading(tmp_path, BEFORE)
    server.start(wait=False)
    assert server.process is not None
    pid = server.process.pid
    try:
        begun = lambda: holds_back(pid, signal.SIGHUP) or "serving" in server.log()  # noqa: E731 - what is waited for
        await until(begun, what="it has begun")
        await server.reload(AFTER, "the tokens were read anew")
        await until(lambda: "serving" in server.log(), what="it serves")
        assert server.ask("/v1/clients", TAKEN) == 401
        assert not holds_back(pid, signal.SIGHUP)
    finally:
        server.__exit__()


async def test_a_server_that_is_told_to_reload_while_it_waits_for_its_log_takes_the_tokens_and_starts(
    tmp_path: Path,
) -> None:
    server = Reloading(tmp_path, BEFORE)
    server.engine = "nats://127.0.0.1:1"  # nobody is there: a start waits for 2 s
    server.start(wait=False)
    try:
        await until(lambda: "the log is away" in server.log(), what="it waits for its log")
        await server.reload(AFTER, "the tokens were read anew")
        await until(lambda: "serving" in server.log(), what="it serves")
        assert server.ask("/v1/clients", TAKEN) == 401
    finally:
        assert server.kill(signal.SIGTERM) == 0
