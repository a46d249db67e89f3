"""One connection to JetStream: requests, acks, pages. When it breaks it is over; the engine makes another."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import nats.errors
import structlog
from nats.aio.client import Client

from steadcast.engines.jetstream_creds import read_credentials
from steadcast.engines.jetstream_url import login
from steadcast.errors import EngineRefused, EngineUnavailable, SteadcastError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from nats.aio.msg import Msg

    from steadcast.engines.jetstream_url import Options

log = structlog.get_logger("steadcast.jetstream")

CONNECT_LIMIT: Final = 2
"""Seconds for a server to take the connection."""
CLOSE_LIMIT: Final = 1.0
"""Seconds for a connection to close: one whose TLS didn't begin never says that it has."""
ANSWER_LIMIT: Final = 5.0
"""Seconds for an ack or an answer."""
PING_EVERY: Final = 2
"""Seconds between our pings; two without an answer end the connection."""
RETRY_AFTER: Final = 1.0

STREAM_MISSING: Final = 10059
NO_MESSAGE: Final = 10037
NAME_TAKEN: Final = 10058
ID_IN_PROCESS: Final = 10158
"""The server has that message id under way and can't say yet what became of it: never a success."""
ID_IN_BATCH_KNOWN: Final = 10201
BATCHES_FULL: Final = 10210
UNAVAILABLE: Final = 10008
"""A server that has lost touch with the others: it can't say anything of what they hold together."""
WRONG_SEQUENCE: Final = 10071
_FULL: Final = {10002, 10023, 10047, 10077, 10122}
"""No room: in the account, on the server, on its disk or in the log itself."""
_REFUSED: Final = {10039, 10074, 10076}


class Answered(Exception):
    """The server answered with an error; `code` is JetStream's own number for it."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        """Keep the server's words."""
        super().__init__(error.get("description", "no description"))
        self.code = int(error.get("err_code", 0))

    def told(self) -> SteadcastError:
        """Give it as an error of ours: temporary, unless waiting can't help."""
        words = f"JetStream refused: {self} ({self.code})"
        if self.code in _REFUSED:
            return EngineRefused(words)
        code = "engine_full" if self.code in _FULL else None
        return EngineUnavailable(words, code=code, retry_after=RETRY_AFTER)


def away(words: str) -> EngineUnavailable:
    """Make the error that is raised while JetStream can't be reached."""
    return EngineUnavailable(words, retry_after=RETRY_AFTER)


class Link:
    """A connection with one inbox for all answers. Ends by itself; `ended` tells.

    `mute` tells that what was asked had no answer, and no write an ack, for ANSWER_LIMIT, though the server
    is there: the log may have no leader, or this server be cut off from the others. Set at the end too.
    """

    def __init__(self, client: Client) -> None:
        """Take over a fresh client; only `connect` calls this."""
        self._client = client
        self._inbox = client.new_inbox()
        self._answers: dict[str, Callable[[Msg], None]] = {}
        self._waiting: set[asyncio.Future[Any]] = set()  # bounded by who waits
        self._last_error: Exception | None = None
        self._heard = self._in_vain = self._erred = float("-inf")
        self.ended = asyncio.Event()
        self.mute = asyncio.Event()
        self.on_end: Callable[[], None] | None = None

    @classmethod
    async def connect(cls, options: Options, server: str, *, name: str) -> Link:
        """Connect to a server. Raises `EngineUnavailable`, or `EngineRefused` where we aren't let in."""
        # Read anew each time, and before there is a client: one that didn't begin to connect can't be closed.
        tls, (address, who) = _tls(options), _who(options, server)
        client = _Guarded() if tls is not None else Client()
        link = cls(client)
        try:
            async with asyncio.timeout(2 * CONNECT_LIMIT):
                await client.connect(
                    address,
                    name=name,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=CONNECT_LIMIT,
                    ping_interval=PING_EVERY,
                    max_outstanding_pings=2,
                    closed_cb=link._on_closed,
                    error_cb=link._on_error,
                    tls=tls,
                    **who,
                )
                await client.subscribe(f"{link._inbox}.*", cb=link._on_answer)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            await _close(client)
            raise _connect_error(link._last_error or error) from error
        except BaseException:
            await _close(client)
            raise
        return link

    @property
    def server(self) -> str:
        """The server's name, as it calls itself."""
        return str(self._client._server_info.get("server_name", ""))  # noqa: SLF001 - there is no other way

    async def aclose(self) -> None:
        """Close; whoever waits for an answer is told."""
        await _close(self._client)
        self._end()

    # Asking

    async def send(
        self, subject: str, body: bytes, headers: dict[str, str] | None = None
    ) -> asyncio.Future[Msg]:
        """Send a request, and give the future of its answer; what is sent first arrives first."""
        answer: asyncio.Future[Msg] = self._future()
        token = secrets.token_hex(6)
        self._answers[token] = lambda message: None if answer.done() else answer.set_result(message)
        answer.add_done_callback(lambda _: self._answers.pop(token, None))
        try:
            await self.put(subject, body, headers, reply=f"{self._inbox}.{token}")
        except BaseException:
            answer.cancel()
            raise
        return answer

    async def put(
        self, subject: str, body: bytes, headers: dict[str, str] | None = None, reply: str = ""
    ) -> None:
        """Send without waiting for an answer. Raises `EngineUnavailable`."""
        if self.ended.is_set():
            raise away("the connection to JetStream ended")
        try:
            await self._client.publish(subject, body, reply=reply, headers=headers)
        except (nats.errors.Error, OSError) as error:
            raise away(f"JetStream can't be written to: {error}") from error

    async def answer(self, waiting: asyncio.Future[Msg]) -> dict[str, Any]:
        """Wait for an answer and read it. Raises `Answered` for an error in it, `EngineUnavailable`."""
        asked = self._now()
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                message = await waiting
        except TimeoutError as error:
            self._unanswered(asked)
            raise away(f"JetStream didn't answer within {ANSWER_LIMIT:g} s{self._beside()}") from error
        if (message.headers or {}).get("Status") == "503":
            self._unanswered(asked)
            raise away("no JetStream server answers for the log")
        body: dict[str, Any] = json.loads(message.data)
        if "seq" in body:
            # A write was acked. Any other answer proves nothing: a leader that lost its quorum gives some.
            self._heard = self._now()
        if "error" in body:
            refusal = Answered(body["error"])
            if refusal.code == UNAVAILABLE:
                self._unanswered(asked)
            raise refusal
        return body

    async def ask(self, subject: str, body: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Send a request and wait for its answer; raises as `answer` does."""
        return await self.answer(await self.send(subject, body, headers))

    async def api(self, name: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call JetStream's API; raises as `answer` does."""
        return await self.ask(f"$JS.API.{name}", json.dumps(body).encode() if body is not None else b"")

    async def collect(self, subject: str, body: Mapping[str, Any]) -> list[Msg]:
        """Send a request that many messages answer, and give those with a sequence; the request bounds them.

        Raises `EngineUnavailable`.
        """
        found: list[Msg] = []
        done: asyncio.Future[None] = self._future()

        def take(message: Msg) -> None:
            headers = message.headers or {}
            if "Nats-Sequence" in headers:
                found.append(message)
            elif not done.done():
                done.set_result(None)

        token = secrets.token_hex(6)
        self._answers[token] = take
        try:
            await self.put(subject, json.dumps(body).encode(), reply=f"{self._inbox}.{token}")
            async with asyncio.timeout(ANSWER_LIMIT):
                await done
        except TimeoutError as error:
            raise away(f"JetStream gave no page within {ANSWER_LIMIT:g} s{self._beside()}") from error
        finally:
            del self._answers[token]
        return found

    async def subscribe(
        self, take: Callable[[Msg], Awaitable[None]]
    ) -> tuple[str, Callable[[], Awaitable[None]]]:
        """Listen on an inbox of its own; gives its name and what ends it."""
        inbox = self._client.new_inbox()
        try:
            subscription = await self._client.subscribe(inbox, cb=take)
        except (nats.errors.Error, OSError) as error:
            raise away(f"JetStream can't be written to: {error}") from error

        async def end() -> None:
            if not self.ended.is_set():
                await subscription.unsubscribe()

        return inbox, end

    # What the client calls

    async def _on_answer(self, message: Msg) -> None:
        take = self._answers.get(message.subject.rpartition(".")[2])
        if take is not None:
            take(message)

    async def _on_closed(self) -> None:
        self._end()

    async def _on_error(self, error: Exception) -> None:
        self._last_error, self._erred = error, self._now()
        log.debug("the connection to JetStream said", error=str(error))

    def _beside(self) -> str:
        """Give what the server has said of late: to what isn't allowed it answers nothing else."""
        recent = self._last_error is not None and self._now() - self._erred <= 2 * ANSWER_LIMIT
        return f": {self._last_error}" if recent else ""

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _unanswered(self, asked: float) -> None:
        """Note that what was asked at a time has no answer; a write that is acked makes that good."""
        if self._in_vain <= self._heard:
            self._in_vain = max(asked, self._heard)
        if self._now() - self._in_vain >= ANSWER_LIMIT:
            self.mute.set()

    def _future(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    def _end(self) -> None:
        self.ended.set()
        self.mute.set()
        if self.on_end is not None:
            self.on_end()
        for future in list(self._waiting):
            if not future.done():
                future.set_exception(away("the connection to JetStream ended before the answer came"))
                # Whoever has given up meanwhile would leave it unseen, and asyncio complains of that.
                future.exception()


class _Guarded(Client):
    """A client that says nothing, who it is least of all, to a server that offers no TLS."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and not info.get("tls_required"):
            raise nats.errors.Error("the server offers no TLS")
        await super()._process_info(info, initial_connection)


async def _close(client: Client) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_LIMIT):
            await client.close()


def _tls(options: Options) -> ssl.SSLContext | None:
    if not options.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=options.ca)
        if options.cert is not None:
            context.load_cert_chain(options.cert, options.key)
    except OSError as error:
        raise EngineRefused(f"the certificates for JetStream can't be used: {error}") from error
    return context


def _who(options: Options, server: str) -> tuple[str, dict[str, Any]]:
    if options.creds is None:
        return login(server)
    found = read_credentials(options.creds)
    # Without a user nats-py takes nothing for configured, and shows no one; it isn't sent.
    return server, {"user": "creds", "user_jwt_cb": lambda: found.token, "signature_cb": found.sign}


def _connect_error(error: Exception) -> SteadcastError:
    words = str(error).strip("'\"") or type(error).__name__
    if "authorization" in words.lower() or "authentication" in words.lower():
        return EngineRefused(f"JetStream doesn't let us in: {words}")
    return away(f"JetStream can't be reached: {words}")
