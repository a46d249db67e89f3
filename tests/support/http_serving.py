"""A real server in a thread of its own, and a client that holds every answer against the OpenAPI document."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import uvicorn

from steadcast.engines.memory import MemoryEngine
from steadcast.http.app import build
from steadcast.http.context import Context
from steadcast.http.openapi import document
from steadcast.http.tokens import Tokens
from steadcast.hub import Hub, Timing
from tests.support.asgi import served

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from steadcast.engines.base import Description
    from steadcast.event import Batch, Event, Lane, Receipt

DOCUMENT = document(version="0", server="/")
PATIENCE = 20.0


class SickEngine(MemoryEngine):
    """The memory engine, which fails as `sick` says and waits while `slow` is set."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.sick: Exception | None = None
        self.slow = False

    async def _suffer(self) -> None:
        while self.slow:
            await asyncio.sleep(0.01)
        if self.sick is not None:
            raise self.sick

    async def recreate(self, epoch: str) -> None:
        """Begin a new log, as after a restore."""
        self._epoch = epoch
        self._streams.clear()

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        await self._suffer()
        return await super().append(stream, events)

    async def read(
        self, stream: str, lane: Lane, after: int, limit: int = 256, *, kept: bool = False
    ) -> Batch:
        await self._suffer()
        return await super().read(stream, lane, after, limit, kept=kept)

    async def describe(self, stream: str | None = None) -> Description:
        await self._suffer()
        return await super().describe(stream)


class Server:
    """A server in a thread; `call` runs a coroutine in its loop."""

    def __init__(self, engine: SickEngine | None = None, **settings: Any) -> None:
        self.engine = engine or SickEngine(epoch="one")
        self.more = settings.pop("more", ())
        token = settings.pop("token", None)
        self.settings = settings | ({"tokens": Tokens(token)} if token is not None else {})
        self.context: Context
        # asyncio turns Nagle's algorithm off for sockets that say they are TCP; else each answer takes 40 ms.
        self.sockets = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self.sockets.bind(("127.0.0.1", 0))
        self.port: int = self.sockets.getsockname()[1]
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        hub = Hub(self.engine, timing=Timing(trim_every=3600.0))
        await hub.start()
        self.context = Context(hub=hub, engine=self.engine, node="node-1", **self.settings)
        config = uvicorn.Config(
            build(self.context, self.more),
            log_level="critical",
            lifespan="off",
            ws="none",
        )
        self._ended = asyncio.Event()
        async with served(config, sockets=[self.sockets], leaving=10.0):
            self._ready.set()
            await self._ended.wait()
        await hub.aclose()
        await self.engine.aclose()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE), "it never listened"
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.slow = False
        self.loop.call_soon_threadsafe(self.context.feeds.end, (0.0, 0.0))
        self.loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(PATIENCE)
        self.sockets.close()
        assert not self._thread.is_alive()

    def call(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(PATIENCE)


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One kept connection: a closed one shows, since it is never opened again."""

    def __init__(self, port: int, base: str = "") -> None:
        self.port = port
        self.base = base
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.http.connect()
        self.http.auto_open = 0

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        *,
        documented: bool = True,
    ) -> Answer:
        sent = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            sent = {"Content-Type": "application/json"} | sent
        self.http.request(method, self.base + path, body, sent)
        response = self.http.getresponse()
        answer = Answer(
            response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        )
        if documented:
            check_documented(method, path, answer)
        return answer

    def publish(self, stream: str, *events: dict[str, Any]) -> list[dict[str, Any]]:
        answer = self.ask("POST", f"/v1/streams/{stream}/events", list(events))
        assert answer.status == 200, answer.body
        results: list[dict[str, Any]] = answer.json["results"]
        return results

    def close(self) -> None:
        self.http.close()


def check_documented(method: str, path: str, answer: Answer) -> None:
    """Fail where an answer isn't in the OpenAPI document: its path, method, status or content type."""
    plain = path.partition("?")[0]
    for template, item in DOCUMENT["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), plain):
            responses = item["get" if method == "HEAD" else method.lower()]["responses"]
            assert str(answer.status) in responses, f"{method} {path}: {answer.status} is not documented"
            check_content(responses[str(answer.status)], answer)
            return
    raise AssertionError(f"{path} is not documented")


def check_content(documented: dict[str, Any], answer: Answer) -> None:
    kinds = documented.get("content", {})
    if answer.body or kinds:
        assert answer.headers.get("content-type", "").partition(";")[0] in {*kinds, "text/plain"}
    if answer.status >= 400:
        check_problem(answer)


def check_problem(answer: Answer) -> None:
    """Fail where an error isn't a problem of RFC 9457 with our members."""
    assert answer.headers["content-type"] == "application/problem+json"
    if not answer.body:
        return  # HEAD
    problem = answer.json
    assert problem["type"] == f"urn:steadcast:problem:{problem['code']}"
    assert problem["status"] == answer.status
    assert problem["title"]
    assert problem["detail"]
    assert isinstance(problem["temporary"], bool)
    known = set(DOCUMENT["components"]["schemas"]["Problem"]["properties"])
    assert set(problem) <= known
    if answer.status in {429, 503}:
        assert int(answer.headers["retry-after"]) >= 1


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until a condition in another thread holds; fails loudly where it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def an_event(number: int = 1, **fields: Any) -> dict[str, Any]:
    """Give a valid event."""
    return {"id": f"e{number}", "source": "/test", "type": "t", "data": {"n": number}} | fields


@contextlib.contextmanager
def serving(engine: SickEngine | None = None, **settings: Any) -> Iterator[tuple[Server, Client]]:
    with Server(engine, **settings) as server:
        client = Client(server.port, server.context.base)
        try:
            yield server, client
        finally:
            client.close()
