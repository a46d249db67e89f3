"""A subscriber's connection: standard Socket.IO, from its opening to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from typing import Any, Final, Protocol

import aiohttp
import socketio

from steadcast.client.problems import class_of, wait_of
from steadcast.errors import SteadcastError

log = logging.getLogger("steadcast.subscriber")

LOOK: Final = 1.0
"""Seconds between two looks at a connection whose end may have come unnoticed."""

PING_GRACE: Final = 10.0
"""Seconds that a ping may come later than its server said."""

CONNECT_TIMEOUT: Final = 10.0
"""Seconds from the first byte to the server's welcome; a handshake that nobody answers is given up."""


class Follower(Protocol):
    """Who is told what comes over a connection."""

    def answered(self, answer: object) -> None:
        """Take the acknowledgement of a `subscribe`."""

    def received(self, payload: object) -> None:
        """Take a `batch`."""

    def pinged(self, payload: dict[str, Any]) -> None:
        """Take a `ping` with its heads."""


class Connection:
    """One Socket.IO connection from its opening to its end; it never comes back."""

    def __init__(self, url: str, path: str, follower: Follower) -> None:
        """Stand ready; `follower` is told what comes."""
        self._url = url
        self._path = path
        self._follower = follower
        # A session of our own: the library forgets to close its one where a connect fails.
        self._http = aiohttp.ClientSession()
        self._client = socketio.AsyncClient(reconnection=False, handle_sigint=False, http_session=self._http)
        self._refusal: object = None
        self._lost = asyncio.Event()
        self._speaks = False
        self._last_ping = 0.0
        self._pinged_within = 0.0
        self._come_back_at = 0.0
        self._out: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(maxsize=1_000)
        self._sender: asyncio.Task[None] | None = None
        for name in ("welcome", "batch", "ping", "error", "goaway", "disconnect", "connect_error"):
            self._client.on(name, getattr(self, f"_on_{name}"))

    async def open(self, auth: dict[str, Any]) -> None:
        """Connect; raises `SteadcastError`, temporary or not, where that failed or was refused."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._connect_or_notice(auth)
        except Exception as error:
            # Not only the library's own: a server that closes before its first packet raises what it likes.
            await self._http.close()
            raise self._why(error) from error
        except asyncio.CancelledError:
            await self._http.close()
            raise
        self._sender = asyncio.create_task(self._send_all())

    async def _connect_or_notice(self, auth: dict[str, Any]) -> None:
        """Connect, and notice a transport that ends meanwhile: the library would wait out its timeout."""
        connecting = asyncio.ensure_future(
            self._client.connect(
                self._url,
                auth=auth,
                transports=["websocket"],
                wait_timeout=CONNECT_TIMEOUT,
                socketio_path=self._path,
            )
        )
        opened = False
        try:
            while not connecting.done():
                await asyncio.wait({connecting}, timeout=0.05)
                if opened and not self._open and not connecting.done():
                    break
                opened = opened or self._open
        finally:
            connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        if not connecting.cancelled():
            connecting.result()
        if not self._open:
            raise socketio.exceptions.ConnectionError("the connection ended while it was being made")

    @property
    def _open(self) -> bool:
        return bool(self._client.eio.state == "connected")

    def _why(self, error: Exception) -> SteadcastError:
        match self._refusal:
            case {"message": str(message), "data": {"code": str(code), "temporary": bool(temporary), **rest}}:
                return class_of(code)(message, code=code, temporary=temporary, retry_after=wait_of(rest))
        return SteadcastError(str(error) or "no connection", code="unreachable", temporary=True)

    async def until_lost(self, ping_timeout: float) -> None:
        """Wait until the connection is gone, or gives no sign of life for too long."""
        loop = asyncio.get_running_loop()
        self._last_ping = loop.time()
        while not self._lost.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), min(LOOK, ping_timeout / 4))
            if not self._open:
                return
            patience = max(ping_timeout, self._pinged_within)
            if self._speaks and loop.time() - self._last_ping >= patience:
                log.warning("no ping from %s for %g s; connecting anew", self._url, patience)
                return
            if 0 < self._come_back_at <= loop.time():
                return

    def come_back_in(self, now: float) -> float:
        """Give the seconds that a `goaway` asked to wait, from now."""
        return max(0.0, self._come_back_at - now)

    def send(self, event: str, payload: dict[str, Any]) -> None:
        """Queue a message; a queue that is full means that nothing moves: the connection is given up."""
        try:
            self._out.put_nowait((event, payload))
        except asyncio.QueueFull:
            self._lost.set()

    async def close(self) -> None:
        """Send what is queued where that is quick, and disconnect."""
        if self._sender is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._out.join(), 0.2)
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._client.disconnect(), 2.0)
        await self._http.close()
        self._lost.set()

    async def _send_all(self) -> None:
        while True:
            event, payload = await self._out.get()
            try:
                answer = self._follower.answered if event == "subscribe" else None
                await self._client.emit(event, payload, callback=answer)
            except Exception as error:  # noqa: BLE001 - whatever it is, this connection carries nothing more
                log.info("sending to %s failed: %r", self._url, error)
                self._lost.set()
            finally:
                self._out.task_done()

    def _on_welcome(self, payload: object) -> None:
        self._speaks = True
        match payload:
            case {"ping_interval": int() | float() as interval} if 0 < interval < math.inf:
                self._pinged_within = interval + PING_GRACE

    def _on_batch(self, payload: object) -> None:
        if not self._lost.is_set():
            self._follower.received(payload)

    def _on_ping(self, payload: object) -> None:
        if not isinstance(payload, dict):
            return
        self._last_ping = asyncio.get_running_loop().time()
        self.send("pong", {"time": payload.get("time")})
        if not self._lost.is_set():
            self._follower.pinged(payload)

    def _on_error(self, payload: object) -> None:
        log.warning("%s says: %.300r", self._url, payload)

    def _on_goaway(self, payload: object) -> None:
        match payload:
            case {"reconnect_in": [float() | int() as least, float() | int() as most]}:
                wait = random.uniform(least, max(least, most))  # noqa: S311 - spreads the clients
                self._come_back_at = asyncio.get_running_loop().time() + wait

    def _on_disconnect(self, *_: object) -> None:
        self._lost.set()

    def _on_connect_error(self, data: object = None) -> None:
        self._refusal = data
