"""`AsyncPublisher`: awaits the acknowledged position of each event, and batches by itself under load."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
import msgspec

from steadcast.client.address import DEFAULT_URL, parse_address
from steadcast.client.delivery import deliveries
from steadcast.client.drain import BATCH_TYPE, EVENT_TYPE, MAX_GROUP_BYTES, MAX_GROUP_EVENTS, batch_body
from steadcast.client.loop import OneLoop
from steadcast.client.outgoing import Outgoing, compose, default_source
from steadcast.client.post import ACCEPTED, TEMPORARY, Outcome, classify
from steadcast.client.problems import error_of
from steadcast.client.token import TokenFailed, TokenSource
from steadcast.core.backoff import Backoff
from steadcast.errors import QueueFull, SteadcastError, Unavailable
from steadcast.event import Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from steadcast.client.delivery import Delivery
    from steadcast.client.token import AnyTokenFunction

MAX_ANSWER: Final = 4 * 1024 * 1024


@dataclass(slots=True, eq=False)
class _Waiting:
    item: Outgoing
    answer: asyncio.Future[Receipt]


@dataclass(slots=True, eq=False)
class _Line:
    """A stream's events that wait, how many tasks send them, and how many of those have taken nothing yet."""

    waiting: deque[_Waiting] = field(default_factory=deque)
    serving: int = 0
    starting: int = 0


class AsyncPublisher:
    """Publishes from one event loop; `publish` raises `InvalidRequest` in another one.

    Events that are published while a request of their stream is on its way travel together in the next one
    (at most 1,000 events or 1 MiB), in the order of the `publish` calls. With an `in_flight` above 1, up to
    so many requests of a stream are on their way while the events that wait fill them: faster over a long
    way, but publishes that don't await each other may then come into the log in another order. A temporary
    failure is retried `retries` times with the same ids, so that nothing is doubled; then every event of
    that request raises.
    A server that asks to wait longer than `patience` seconds is not waited for. At most `buffer_limit`
    events and `buffer_bytes` are held: `publish` raises `QueueFull` above that.

    published = acked + pending + failed, by the error's code.

    `token` defaults to `STEADCAST_TOKEN`; a function, which may be awaited, is asked for one at first and
    again when its token was refused, and what was refused is sent again. `source` defaults to
    `//host/program`. Raises `InvalidRequest` for a wrong `url`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | AnyTokenFunction | None = None,
        source: str | None = None,
        retries: int = 3,
        backoff: Backoff | None = None,
        patience: float = 30.0,
        buffer_limit: int = 10_000,
        buffer_bytes: int = 64 * 1024 * 1024,
        batch_events: int = MAX_GROUP_EVENTS,
        batch_bytes: int = MAX_GROUP_BYTES,
        request_timeout: float = 10.0,
        in_flight: int = 1,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Nothing is opened before the first `publish`. `request_timeout` is in seconds, for each try."""
        self._url = parse_address(url).url
        self._token = TokenSource(os.environ.get("STEADCAST_TOKEN", "") if token is None else token)
        self._source = default_source() if source is None else source
        self._retries = retries
        self._backoff = Backoff() if backoff is None else backoff
        self._patience = patience
        self._limits = (buffer_limit, buffer_bytes)
        self._batch = (batch_events, batch_bytes)
        self._timeout = request_timeout
        self._in_flight = in_flight
        self._jitter = jitter
        self._streams: dict[str, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._counts: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._pending_bytes = 0
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._loop = OneLoop("an AsyncPublisher")

    async def publish(
        self,
        stream: str,
        *,
        type: str,  # noqa: A002 - CloudEvents' own word
        data: Any = None,
        subject: str | None = None,
        priority: str = "normal",
        id: str | None = None,  # noqa: A002 - see type
        time: str | None = None,
    ) -> Receipt:
        """Publish an event and return its receipt: lane, position, and whether the server knew it already.

        Once this returns the event is durable. Raises `InvalidStream`, `InvalidEvent`, `TooLarge`,
        `IdConflict` or `NotAllowed` for a refusal, and `Unavailable` (or what the server said) when the
        retries are used up: then the event may still have arrived, and publishing it again with the same
        `id` is safe. Cancelled before its request went out, the event isn't sent.
        """
        self._loop.check()
        item = compose(
            stream,
            type=type,
            source=self._source,
            data=data,
            subject=subject,
            priority=priority,
            id=id,
            time=time,
        )
        self._check_room(item)
        waiting = _Waiting(item, asyncio.get_running_loop().create_future())
        self._counts["published"] += 1
        self._pending_bytes += len(item.body)
        waiting.answer.add_done_callback(lambda answer: self._settled(item, answer))
        self._enqueue(waiting)
        return await waiting.answer

    def statistics(self) -> dict[str, Any]:
        """Give the counts: published = acked + pending + failed, by the error's code."""
        return {
            "published": self._counts["published"],
            "acked": self._counts["acked"],
            "pending": self._pending,
            "failed": dict(self._failed),
            "turned_away": self._counts["turned_away"],
            "requests": self._counts["requests"],
            "retries": self._counts["retries"],
        }

    async def aclose(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - what is left then gets its error
        """Wait at most `timeout` seconds for what is on its way; what is left then raises `Unavailable`."""
        self._closed = True
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=timeout)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def _pending(self) -> int:
        return self._counts["published"] - self._counts["acked"] - self._failed.total()

    def _check_room(self, item: Outgoing) -> None:
        if self._closed:
            raise Unavailable("the publisher is closed", code="closed", temporary=False)
        max_events, max_bytes = self._limits
        if self._pending >= max_events or self._pending_bytes + len(item.body) > max_bytes:
            self._counts["turned_away"] += 1
            raise QueueFull(f"{self._pending} events wait for the server", limit=max_events)

    def _settled(self, item: Outgoing, answer: asyncio.Future[Receipt]) -> None:
        self._pending_bytes -= len(item.body)
        if answer.cancelled():
            self._failed["cancelled"] += 1
        elif (error := answer.exception()) is not None:
            self._failed[getattr(error, "code", "error")] += 1
        else:
            self._counts["acked"] += 1

    def _enqueue(self, waiting: _Waiting) -> None:
        stream = waiting.item.stream
        line = self._streams.setdefault(stream, _Line())
        line.waiting.append(waiting)
        # One task more while there is a whole request for it, beside those that are about to take theirs.
        whole = len(line.waiting) >= self._batch[0] * (line.starting + 1)
        if not line.serving or (whole and line.serving < self._in_flight):
            line.serving += 1
            line.starting += 1
            task = asyncio.create_task(self._serve(stream, line), name=f"steadcast-publish-{stream}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, stream: str, line: _Line) -> None:
        line.starting -= 1
        batch: list[_Waiting] = []
        try:
            while batch := self._take(line.waiting):
                await self._deliver(batch)
        except BaseException as error:
            # Cancelled by `aclose`, or a defect: nobody may be left waiting for an answer.
            why = f"not published: {type(error).__name__}"
            _fail([*batch, *line.waiting], lambda: Unavailable(why, code="closed"))
            raise
        finally:
            line.serving -= 1
            if not line.serving:
                del self._streams[stream]

    def _take(self, queue: deque[_Waiting]) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        max_events, max_bytes = self._batch
        while queue and len(batch) < max_events:
            if queue[0].answer.done():
                queue.popleft()  # cancelled by its caller
                continue
            size += len(queue[0].item.body) + 1
            if batch and size > max_bytes:
                break
            batch.append(queue.popleft())
        return batch

    async def _deliver(self, batch: list[_Waiting]) -> None:
        steps = deliveries(batch)
        group = next(steps)
        while True:
            outcome = await self._send(group)
            try:
                group = steps.send(outcome)
            except StopIteration as end:
                _fail_all(end.value)
                return

    async def _send(self, group: Sequence[_Waiting]) -> Outcome:
        for attempt in range(1, self._retries + 2):
            outcome = await self._try(group)
            delay = max(self._backoff.delay(attempt, self._jitter()), outcome.retry_after or 0.0)
            if outcome.kind != TEMPORARY or attempt > self._retries or delay > self._patience:
                break
            self._counts["retries"] += 1
            await asyncio.sleep(delay)
        return outcome

    async def _try(self, group: Sequence[_Waiting]) -> Outcome:
        bodies = [waiting.item.body for waiting in group]
        single = len(bodies) == 1
        headers = {"Content-Type": EVENT_TYPE if single else BATCH_TYPE}
        self._counts["requests"] += 1
        try:
            outcome = await self._post(
                group[0].item.path, headers, bodies[0] if single else batch_body(bodies)
            )
        except TokenFailed as error:
            return Outcome(TEMPORARY, code="token_failed", detail=str(error))
        except TimeoutError:
            return Outcome(TEMPORARY, code="timeout", detail=f"no answer within {self._timeout:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Outcome(TEMPORARY, code="unreachable", detail=f"{type(error).__name__}: {error}")
        return _answered(group, outcome) if outcome.kind == ACCEPTED else outcome

    async def _post(self, path: str, headers: dict[str, str], body: bytes) -> Outcome:
        token = await self._token.wait()
        outcome = await self._post_with(token, path, headers, body)
        if outcome.status == HTTPStatus.UNAUTHORIZED and token and self._token.refused(token):
            fresh = await self._token.wait()
            return outcome if fresh == token else await self._post_with(fresh, path, headers, body)
        return outcome

    async def _post_with(self, token: str, path: str, headers: dict[str, str], body: bytes) -> Outcome:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout))
        own = {"Authorization": f"Bearer {token}"} if token else {}
        async with self._session.post(
            self._url + path, data=body, headers=headers | own, allow_redirects=False
        ) as response:
            content = b""
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > MAX_ANSWER:
                    return Outcome(TEMPORARY, response.status, code="not_steadcast", detail="too long")
            lower = {name.lower(): value for name, value in response.headers.items()}
            return classify(response.status, lower, content)


def _answered(group: Sequence[_Waiting], outcome: Outcome) -> Outcome:
    """Hand out the receipts; an acceptance without one for each event isn't one."""
    results = outcome.answer.get("results") if isinstance(outcome.answer, dict) else None
    try:
        receipts = msgspec.convert(results, list[Receipt])
    except msgspec.ValidationError as error:
        return Outcome(TEMPORARY, outcome.status, code="not_steadcast", detail=str(error))
    if [receipt.id for receipt in receipts] != [waiting.item.id for waiting in group]:
        return Outcome(TEMPORARY, outcome.status, code="not_steadcast", detail="results for other events")
    for waiting, receipt in zip(group, receipts, strict=True):
        if not waiting.answer.done():
            waiting.answer.set_result(receipt)
    return outcome


def _fail_all(delivery: Delivery) -> None:
    for waiting, outcome in delivery.refused:
        _fail([waiting], partial(error_of, outcome))
    if delivery.stopped is not None:
        _fail(delivery.left, partial(error_of, delivery.stopped))


def _fail(group: Sequence[_Waiting], error: Callable[[], SteadcastError]) -> None:
    for waiting in group:
        if not waiting.answer.done():
            waiting.answer.set_exception(error())  # one each: a raised error carries its own traceback
