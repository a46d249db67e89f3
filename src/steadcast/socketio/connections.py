"""The connections: who is there, who still answers, and who has to go."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from steadcast.core.health import Health
from steadcast.core.session import State
from steadcast.errors import SteadcastError, Unavailable
from steadcast.plain_log import plain_log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from steadcast.core.session import Flow
    from steadcast.hub import Hub
    from steadcast.socketio.client import Client

log = plain_log("steadcast.connections")

KNOWN_CLIENTS: Final = 10_000
"""So many client ids are remembered for their reconnects; the longest unseen go first, counted."""


class _Record(msgspec.Struct):
    """What a client did over all its connections."""

    connects: int = 0
    failures: int = 0


class _Asked(NamedTuple):
    """A ping of its own that somebody waits for: its `time`, when it was sent, and its round trip to come."""

    wall: float
    at: float
    round_trip: asyncio.Future[float | None]


class ConnectionEventHandler:
    """Pings every client, cleans up those that no longer answer, and keeps each one's figures."""

    def __init__(
        self,
        hub: Hub,
        *,
        ping_interval: float = 30,
        ping_timeout: float = 10,
        stale_check_interval: float = 60,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """All times are in seconds."""
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        self.stale_check_interval = stale_check_interval
        self.counts: Counter[str] = Counter()
        self._hub = hub
        self._clock = clock
        self._clients: dict[str, Client] = {}
        self._health: dict[str, Health] = {}
        self._records: dict[str, _Record] = {}
        self._known: OrderedDict[str, _Record] = OrderedDict()
        self._pings: dict[float, float] = {}
        self._told: dict[str, Any] = {}
        self._asked: dict[str, _Asked] = {}  # bounded by the clients: one ping each is waited for
        self._tasks: list[asyncio.Task[None]] = []

    # Life

    def start(self) -> None:
        """Begin to ping and to check."""
        self._tasks = [
            asyncio.create_task(self._for_ever(self._ping_later), name="steadcast-ping"),
            asyncio.create_task(self._for_ever(self._check_later), name="steadcast-stale"),
        ]

    async def aclose(self) -> None:
        """Stop pinging and checking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Who is there

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._clients.values()))

    def get(self, sid: str) -> Client | None:
        """Give the client of a connection, or None."""
        return self._clients.get(sid)

    def connected(self, client: Client) -> None:
        """Know a client from now on."""
        self._clients[client.id] = client
        self._health[client.id] = Health(since=self._clock())
        self.counts["connects"] += 1
        record = self._records[client.id] = self._record(client.client_id)
        record.connects += 1

    def disconnected(self, sid: str) -> Client | None:
        """Forget a connection; returns its client where there was one."""
        self._health.pop(sid, None)
        self._records.pop(sid, None)
        if sid in self._asked:
            self._answer_ping(sid, self._asked[sid], None)
        client = self._clients.pop(sid, None)
        self.counts["disconnects"] += client is not None
        return client

    def _record(self, client_id: str | None) -> _Record:
        """Give what is remembered of a client; one without an id is new with each connection."""
        if client_id is None:
            return _Record()
        record = self._known.setdefault(client_id, _Record())
        self._known.move_to_end(client_id)
        if len(self._known) > KNOWN_CLIENTS:
            self._known.popitem(last=False)
            self.counts["client_ids_evicted"] += 1
        return record

    # Who answers

    def subscribed(self, client: Client) -> None:
        """Judge this client by its pongs from now on: it speaks the protocol."""
        if client.id in self._health:
            self._health[client.id].judge()

    def ponged(self, client: Client, payload: object) -> None:
        """Take a `pong`; the `time` in it says which ping it answers."""
        health = self._health.get(client.id)
        if health is None:
            return
        told = payload.get("time") if isinstance(payload, dict) else None
        sent_at = self._pings.get(told) if isinstance(told, (int, float)) else None
        asked = self._asked.get(client.id)
        answered = asked is not None and told == asked.wall
        if asked is not None and answered:
            sent_at = asked.at
        health.ponged(self._clock(), sent_at=sent_at)
        if asked is not None and answered:
            self._answer_ping(client.id, asked, health.round_trip)
        self.counts["pongs"] += 1

    def failed(self, client: Client) -> None:
        """Count a failure of this client's: a handler that raised or timed out, a ping, a missing pong."""
        if client.id in self._records:
            self._records[client.id].failures += 1

    async def ping_all(self) -> tuple[int, int]:
        """Ping every client with the heads of its streams; returns how many were sent and how many failed."""
        if not self._clients:
            return 0, 0
        heads = self._told = await self._heads()
        wall, now = time.time(), self._clock()
        self._pings = {sent: at for sent, at in self._pings.items() if now - at < 2 * self._patience} | {
            wall: now
        }
        sent = failed = 0
        for client in self:
            told = {stream: heads[stream] for stream in self._hub.sessions(client) if stream in heads}
            if await client.send("ping", {"time": wall, "heads": told}):
                sent += 1
                self._pinged(client, now)
            else:
                failed += 1
                self.failed(client)
        self.counts["pings"] += sent
        self.counts["pings_failed"] += failed
        self._tell(f"🏓 Sent pings to {sent} clients, {failed} failed")
        return sent, failed

    async def ping(self, client: Client, patience: float) -> float | None:
        """Ping one client now; returns its round trip, or None where no pong comes within `patience` seconds.

        Who asks while a ping of that client is under way is answered with that one. A plain Socket.IO client
        gives no pong, and isn't judged by it.
        """
        asked = self._asked.get(client.id)
        if asked is None:
            asked = _Asked(time.time(), self._clock(), asyncio.get_running_loop().create_future())
            self._asked[client.id] = asked
            heads = {
                stream: self._told[stream] for stream in self._hub.sessions(client) if stream in self._told
            }
            if await client.send("ping", {"time": asked.wall, "heads": heads}):
                self._pinged(client, asked.at)
                later = asyncio.get_running_loop().call_later
                later(patience, self._answer_ping, client.id, asked, None)
            else:
                self._answer_ping(client.id, asked, None)
        return await asyncio.shield(asked.round_trip)

    def _answer_ping(self, sid: str, asked: _Asked, round_trip: float | None) -> None:
        """Answer those who wait for a ping of its own, once."""
        if self._asked.get(sid) is asked:
            del self._asked[sid]
        if not asked.round_trip.done():
            asked.round_trip.set_result(round_trip)

    def clean_up(self) -> int:
        """Disconnect every stale client; returns how many there were."""
        now = self._clock()
        stale = [c for c in self if c.kicked is None and self._health[c.id].stale(now, self._patience)]
        for client in stale:
            self._tell(f"🧟 Detected stale connection {client.id}", alarming=True)
            self.failed(client)
            client.kick(Unavailable("no pong for too long", code="stale"))
        self.counts["stale"] += len(stale)
        if stale:
            self._tell(f"🧹 Cleaned up {len(stale)} stale connections")
        return len(stale)

    # Figures

    def statistics(self) -> dict[str, Any]:
        """Give the counts and each client's figures."""
        return {
            "connected": len(self._clients),
            "counts": dict(self.counts),
            "clients": [self.metrics(client) for client in self],
        }

    def metrics(self, client: Client) -> dict[str, Any]:
        """Give one client's figures; times are in seconds, lag and what is unacked in events.

        `reconnects` and `failures` are those of the client's id, over all its connections, where it has one.
        """
        health, record = self._health[client.id], self._records[client.id]
        return {
            "sid": client.id,
            "client_id": client.client_id,
            "transport": client.transport,
            "leaving": client.kicked,
            "uptime": round(health.uptime(self._clock()), 3),
            "reconnects": record.connects - 1,
            "failures": record.failures,
            "round_trip": health.round_trip,
            "queued": client.queued,
            "streams": {
                stream: {
                    str(lane): {
                        "state": flow.state.value,
                        "position": [flow.epoch, flow.position],
                        "acked": flow.acked,
                        "unacked": flow.unacked[0],
                        "unacked_bytes": flow.unacked[1],
                        "lag": self._lag(stream, flow),
                    }
                    for lane, flow in session.flows.items()
                }
                for stream, session in self._hub.sessions(client).items()
            },
        }

    def _lag(self, stream: str, flow: Flow) -> int | None:
        """Count the events between a client's last ack and the head as the last ping told it.

        None where it can't be counted: before the first ping, or where the engine's offsets have holes.
        """
        if not self._hub.engine.dense:
            return None
        epoch, head = self._told.get(stream, {}).get(str(flow.lane), ("", 0))
        if epoch != flow.epoch and flow.state is not State.LIVE:
            return None
        # A live flow is at its group's position, which is later than the last ping.
        known = max(flow.position, head if epoch == flow.epoch else 0)
        return max(0, known - flow.acked)

    # The loops

    @property
    def _patience(self) -> float:
        return self.ping_interval + self.ping_timeout

    def _pinged(self, client: Client, now: float) -> None:
        if client.id in self._health:
            self._health[client.id].pinged(now)

    async def _heads(self) -> dict[str, Any]:
        streams = {stream for client in self for stream in self._hub.sessions(client)}
        if not streams:
            return {}
        try:
            async with asyncio.timeout(self.ping_timeout / 2):
                heads = await self._hub.heads(streams)
        except (SteadcastError, TimeoutError) as error:
            # A ping without heads still shows that the connection lives.
            self.counts["pings_without_heads"] += 1
            log.warning("the engine told no heads", code=getattr(error, "code", "timeout"))
            return {}
        return {
            stream: {lane: [at.epoch, at.offset] for lane, at in lanes.items()}
            for stream, lanes in heads.items()
        }

    async def _ping_later(self) -> None:
        await asyncio.sleep(self.ping_interval)
        await self.ping_all()

    async def _check_later(self) -> None:
        await asyncio.sleep(self.stale_check_interval)
        self.clean_up()

    async def _for_ever(self, job: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await job()
            except Exception:
                # A defect in one round must not end the pings: every client would be stale.
                self.counts["rounds_failed"] += 1
                log.exception("a round of pings or checks failed")

    @staticmethod
    def _tell(message: str, *, alarming: bool = False) -> None:
        # Formatted here: an application's structlog may not put arguments into the text.
        (log.warning if alarming else log.info)(message)
