"""The node's one ordered consumer: the log's records from a sequence on, each once, until it ends."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import TYPE_CHECKING, Final

from steadcast.engines.jetstream_link import Answered, away

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from nats.aio.msg import Msg

    from steadcast.engines.jetstream_link import Link
    from steadcast.engines.jetstream_records import Record, Subjects

HEARTBEAT: Final = 0.5
"""Seconds without a record after which the server says that it is there."""
SILENCE: Final = 4 * HEARTBEAT
"""Seconds without anything after which the consumer is taken for gone."""
INACTIVE: Final = 10.0
"""Seconds after which the server forgets a consumer that nobody listens to."""
TAKE: Final = 1_024
"""Records that are handed over at once."""


class Follower:
    """A consumer that the server pushes; it stops when what it pushed isn't taken, so the buffer is bounded.

    `heard` is the loop's time at which the server last said that nothing more is there.
    """

    def __init__(self, link: Link, subjects: Subjects, name: str) -> None:
        """Prepare to follow the JetStream stream `name`."""
        self._link = link
        self._subjects = subjects
        self._name = name
        self._buffer: deque[Msg] = deque()  # bounded by the server's flow control
        self._wake = asyncio.Event()
        self._sent = 0
        self._consumer = ""
        self._end: Callable[[], Awaitable[None]] | None = None
        self.pending = 0
        self.heard = 0.0

    async def start(self, seq: int, *, only: Sequence[str] = (), headers_only: bool = False) -> None:
        """Ask for the records from a sequence on. Raises `EngineUnavailable`."""
        self._link.on_end = self._wake.set
        inbox, self._end = await self._link.subscribe(self._on_message)
        self._consumer = f"node-{secrets.token_hex(8)}"
        config = {
            "name": self._consumer,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": seq,
            "deliver_subject": inbox,
            "ack_policy": "none",
            "max_deliver": 1,
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT * 1e9),
            "inactive_threshold": int(INACTIVE * 1e9),
            "headers_only": headers_only,
            "mem_storage": True,
            "num_replicas": 1,
            **({"filter_subjects": only} if only else {}),
        }
        try:
            made = await self._link.api(
                f"CONSUMER.CREATE.{self._name}.{self._consumer}",
                {"stream_name": self._name, "config": config, "action": "create"},
            )
        except Answered as error:
            raise error.told() from error
        self.pending = made["num_pending"]

    async def take(self) -> list[Record]:
        """Wait for records, at most `TAKE`; none where the server says that it has none for now.

        Raises `EngineUnavailable` where one was missed, or the server fell silent.
        """
        while not self._buffer:
            await self._listen()
        messages = [self._buffer.popleft() for _ in range(min(TAKE, len(self._buffer)))]
        records: list[Record] = []
        for message in messages:
            if message.subject.startswith(self._subjects.root):
                records.append(self._next(message))
            else:
                await self._status(message)
        return records

    async def _listen(self) -> None:
        self._wake.clear()
        if self._link.ended.is_set():
            raise away("the connection to JetStream ended")
        try:
            async with asyncio.timeout(SILENCE):
                await self._wake.wait()
        except TimeoutError as error:
            raise away(f"the log's consumer was silent for {SILENCE:g} s") from error

    def _next(self, message: Msg) -> Record:
        record = self._subjects.record(message)
        if record.sent != self._sent + 1:
            raise away(f"the log's consumer skipped {record.sent - self._sent - 1} records")
        self._sent = record.sent
        self.pending = record.pending
        if record.pending == 0:
            self.heard = asyncio.get_running_loop().time()
        return record

    async def _status(self, message: Msg) -> None:
        """Answer a request of the flow control, or compare a heartbeat with what came."""
        headers = message.headers or {}
        stalled = headers.get("Nats-Consumer-Stalled") or message.reply
        if stalled:
            await self._link.put(stalled, b"")
        elif int(headers.get("Nats-Last-Consumer", self._sent)) != self._sent:
            raise away("the log's consumer lost its last records")
        else:
            self.pending = 0
            self.heard = asyncio.get_running_loop().time()

    async def aclose(self) -> None:
        """Stop, and let the server forget the consumer."""
        if self._end is None:
            return
        await self._end()
        if not self._link.ended.is_set():
            await self._link.put(f"$JS.API.CONSUMER.DELETE.{self._name}.{self._consumer}", b"")

    async def _on_message(self, message: Msg) -> None:
        self._buffer.append(message)
        self._wake.set()
