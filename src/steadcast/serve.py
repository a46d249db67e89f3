"""`steadcast serve`: the application in uvicorn, its logs, its own spool, and a way to leave in peace."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import uvicorn

from steadcast import descriptors
from steadcast.app import Steadcast
from steadcast.certificate import Certificate
from steadcast.client.address import Address
from steadcast.client.drain import Drain
from steadcast.client.post import Connection
from steadcast.client.spool import Spool
from steadcast.client.spooled import spool_root
from steadcast.engines.jetstream_url import without_secrets
from steadcast.errors import InvalidRequest, SteadcastError
from steadcast.http.patience import patient
from steadcast.logs import hiding, one_line, secrets_of
from steadcast.outlet import Outlet
from steadcast.socketio.server import MAX_MESSAGE
from steadcast.socketio.websocket import DirectWebSocket

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from steadcast.client.post import Outcome
    from steadcast.config import Settings

    Again = Callable[[], Settings]

log = structlog.get_logger("steadcast.serve")

COLLECT: Final = (50_000, 3, 1)
"""When garbage in circles is searched for (`gc.set_threshold`): the youngest containers once there are 50,000
more. Python's 700 are a part of one publish, and every client that stays brings 140: a storm of connects
spent a fifth of its time in the search, while connections and requests leave next to nothing to find."""
RECONNECT_IN: Final = (0.5, 3.0)
"""Seconds, a range, in which drained clients come back."""
REACHED_AT: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - names to recognise, nothing is bound
"""Where a server that is bound to all addresses reaches itself: a wildcard is nobody's name."""
TICKS: Final = 10
"""Ticks of uvicorn's in a second."""
FILES_SPARE: Final = 64
"""So few that connections haven't taken are told; some thirty are the log's, the loop's and the spool's."""
TELL_FILES_EVERY: Final = 10.0
"""Seconds."""
STANDARD_ERROR: Final = 2
"""The descriptor that is standard error's, and the last of the three that every process is given."""
SETTINGS_KEPT: Final = 16
"""So many settings that were in force before are remembered, to keep their secrets out of the logs."""


def check_binding(settings: Settings) -> None:
    """Refuse to serve more than this machine without a token; raises `InvalidRequest`."""
    if not settings.guarded and not _is_loopback(settings.host):
        raise InvalidRequest(
            f"{settings.host} can be reached from other machines: set a token (--token, STEADCAST_TOKEN),"
            " or serve on 127.0.0.1",
            field="host",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def configure_logs(settings: Settings, *before: Settings, out: Outlet) -> None:
    """Send logs to `out`, those of libraries too: readable on a terminal, JSON by setting.

    No line shows a secret of these settings, nor of those that were in force `before`.
    """
    as_json = settings.log_format == "json"
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=out.isatty())
    )
    common: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        hiding([secret for each in (settings, *before) for secret in secrets_of(each)]),
    ]
    structlog.configure(
        processors=[*common, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        logger_factory=structlog.WriteLoggerFactory(out),  # type: ignore[arg-type]  # it uses no more of a file
    )
    handler = logging.StreamHandler(out)
    own = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *common, one_line],
            processors=[own, renderer],
        )
    )
    for name in ("socketio.server", "engineio.server"):
        # One without a level is given a handler of its own, which writes past `out`, and waits for it.
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def _not_drained(outcome: Outcome) -> None:
    log.warning("the spool can't be drained for now; it is tried again", error=outcome.reason)


class Server(uvicorn.Server):
    """uvicorn, that tells its clients to come back before it closes their connections."""

    def __init__(
        self,
        config: uvicorn.Config,
        cast: Steadcast,
        settings: Settings,
        out: Outlet,
        again: Again | None = None,
    ) -> None:
        """Serve `cast`, whose log goes to `out`; `again` reads the settings anew."""
        super().__init__(config)
        self._cast = cast
        self._settings = settings
        self._out = out
        self._again = again
        self._reloaded: tuple[Settings, ...] = ()
        self._stop = threading.Event()
        self._files = descriptors.reach()
        self._told_files_at = float("-inf")
        self._certificate: Certificate | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and drain the spool that hooks and publishers left for this address."""
        self._certificate = self._shown()
        if self._again is not None:
            # First: who asks while the log is opened would end the process. Who asked before is heard now.
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload, self._again)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            scheme, host = "https" if self.config.is_ssl else "http", self.config.host
            base = self._settings.base_path
            engine = without_secrets(self._settings.engine)
            log.info("serving", url=Address(scheme, host, port, base).url, engine=engine)
            reached = Address(scheme, REACHED_AT.get(host, host), port, base)
            threading.Thread(
                target=self._drain_spool, args=(reached,), name="steadcast-spool", daemon=True
            ).start()

    async def on_tick(self, counter: int) -> bool:
        """Look once a second for room, and for a renewed certificate; tells whether to end."""
        if counter % TICKS == 0:
            self._look_at_files()
            if self._certificate is not None:
                self._certificate.look()
        return await super().on_tick(counter)

    def _shown(self) -> Certificate | None:
        context, chain = self.config.ssl, self._settings.certfile
        if context is None or chain is None:
            return None
        return Certificate(context, chain, self._settings.keyfile, self._cast.context.counts)

    def _look_at_files(self) -> None:
        connections, now = len(self.server_state.connections), time.monotonic()
        if connections > self._files - FILES_SPARE and now - self._told_files_at >= TELL_FILES_EVERY:
            self._told_files_at = now
            told = "open files are nearly used up: without one a connection is closed as soon as it is there"
            log.warning(told, connections=connections, limit=self._files)

    def _drain_spool(self, address: Address) -> None:
        try:
            folder = Path(spool_root()) / address.folder
        except OSError as error:
            log.warning("no spool is drained", error=str(error))
            return
        shown = self._certificate
        own = None if shown is None else lambda: shown.own
        connection = Connection(address, token=self._cast.own_token, certificate=own)
        Drain(Spool(str(folder)), connection).run(self._stop, told=_not_drained)

    def _reload(self, again: Again) -> None:
        """Read the tokens anew; where they can't be used, the old ones hold."""
        try:
            settings = again()
            revoked = self._cast.reload_tokens(settings)
        except (SteadcastError, OSError, ValueError) as error:
            self._cast.context.counts["reloads_failed"] += 1
            log.warning("the tokens can't be read anew; the old ones hold", error=str(error))
            return
        # A token that was taken back is still nobody's business.
        configure_logs(self._settings, settings, *self._reloaded, out=self._out)
        self._reloaded = (settings, *self._reloaded)[:SETTINGS_KEPT]
        log.info("the tokens were read anew", revoked=revoked)

    async def shutdown(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Drain, then close; every client learns when to come back."""
        self._stop.set()
        log.info("draining", clients=len(self._cast.connections))
        try:
            async with asyncio.timeout(self._settings.drain_limit / 2):
                await self._cast.drain(RECONNECT_IN)
        except TimeoutError:
            log.warning("the drain took too long; closing all the same")
        await super().shutdown(list(sockets) if sockets else None)


def serve(settings: Settings, again: Again | None = None) -> int:
    """Serve until a signal; returns the exit code: 0 after a drain, 3 where it couldn't start.

    With `again`, which reads the settings anew, SIGHUP has the tokens read anew.
    """
    check_binding(settings)
    _fill_standard_streams()
    out = Outlet(None if sys.stderr is None else sys.stderr.fileno())
    configure_logs(settings, out=out)
    try:
        server = _server(settings, out, again)
        for number in (signal.SIGINT, signal.SIGTERM):
            # Before its loop runs, and once more when it is done: uvicorn raises it for whoever stood here.
            signal.signal(number, server.handle_exit)
        server.run()
    finally:
        out.settle()
    return 0 if server.started else 3


def _fill_standard_streams() -> None:
    """Take the numbers of streams that were closed (`2>&-`): a connection with one would end the process.

    libuv takes it for a mistake, and aborts, where a descriptor below 3 is closed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass
    os.close(descriptor)


def _server(settings: Settings, out: Outlet, again: Again | None) -> Server:
    cast = Steadcast(settings=settings)
    out.lost_in(cast.context.counts)
    gc.freeze()  # what is there now stays: no need to look at it again
    gc.set_threshold(*COLLECT)
    config = uvicorn.Config(
        cast,
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.certfile,
        ssl_keyfile=settings.keyfile,
        http=patient(cast.context.counts),
        ws=DirectWebSocket,
        ws_max_size=2 * MAX_MESSAGE,  # what is over the limit is read, and refused in words
        ws_per_message_deflate=settings.websocket_deflate,
        ws_ping_interval=None,  # Engine.IO's own pings see who is gone
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=max(1, int(settings.drain_limit / 2)),
    )
    return Server(config, cast, settings, out, again)
