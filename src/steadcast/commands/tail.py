"""`steadcast tail`: a stream's events to standard output, each once, for as long as somebody reads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import signal
import socket
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steadcast.commands.exits import Exit, leave, leave_with, mute, tell
from steadcast.commands.options import DEFAULT, AsJson, Stream, Token, Url
from steadcast.errors import InvalidRequest, SteadcastError

if TYPE_CHECKING:
    from steadcast.client.address import Address
    from steadcast.client.subscriber import Subscriber
    from steadcast.commands.showing import Show
    from steadcast.core.effects import Told

_LOOK = 0.2
"""Seconds between two looks at whether the server is there and the output is still read."""
_CONNECT = 5.0


def tail(
    stream: Stream,
    *,
    start: Annotated[
        str, typer.Option("--from", help="Where to begin: start, end or last:N a lane.", metavar="WHERE")
    ] = "end",
    after: Annotated[
        list[str] | None,
        typer.Option(
            help="Go on after a position; once for each lane. A lane without it begins at --from.",
            metavar="LANE:EPOCH:OFFSET",
        ),
    ] = None,
    type_: Annotated[
        str | None, typer.Option("--type", help="Only events whose type matches.", metavar="GLOB")
    ] = None,
    count: Annotated[int | None, typer.Option(help="Exit after so many events.", min=1)] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT,
    token: Token = None,
) -> None:
    """Follow a stream: every event in its lane's order, once, also through restarts of the server.

    What is gone (a trimmed range, a log that was replaced) is told on standard error. Exits 130 on Ctrl-C,
    0 after --count events or when the output is closed, 3 if no server answers at first.
    """
    from steadcast.client.address import parse_address
    from steadcast.client.subscriber import Subscriber
    from steadcast.commands.showing import show_for

    if sys.stdout is None:
        leave(Exit.USAGE, "standard output is closed")
    address = parse_address(url)
    wanted: dict[str, Any] = {"start": parse_start(start), "cursors": parse_after(after or [])}
    _reach(address)
    place = _Place()
    try:
        subscriber = _subscriber(Subscriber, address, stream, token, wanted)
        done = asyncio.run(_follow(subscriber, show_for(as_json=as_json), type_ or "*", count, place))
    except KeyboardInterrupt:
        done = Exit.INTERRUPTED
    except SteadcastError as error:
        leave_with(error)
    except OSError as error:
        mute()
        leave(Exit.FAILED, f"standard output can't be written: {error.strerror}")
    if done is Exit.INTERRUPTED:
        place.tell()
    leave(done)


@dataclass(slots=True)
class _Place:
    """How far the output got, as the options that go on from there."""

    cursors: dict[str, list[str | int]] = field(default_factory=dict)

    def tell(self) -> None:
        options = [f"--after {lane}:{each[0]}:{each[1]}" for lane, each in self.cursors.items()]
        if options and sys.stderr.isatty():
            tell(f"go on with {' '.join(options)}")


def parse_start(text: str) -> object:
    """Turn `start`, `end` or `last:N` into the protocol's `from`; raises `InvalidRequest`."""
    kind, _, number = text.partition(":")
    if text in {"start", "end"}:
        return text
    if kind == "last" and _is_offset(number):
        return {"last": int(number)}
    raise InvalidRequest(f"--from takes start, end or last:N, not {text!r}", field="from")


def parse_after(texts: list[str]) -> dict[str, list[str | int]]:
    """Turn LANE:EPOCH:OFFSET, once for each lane, into cursors; raises `InvalidRequest`."""
    cursors: dict[str, list[str | int]] = {}
    for text in texts:
        lane, epoch, offset = [*text.split(":"), "", ""][:3]
        well = text.count(":") == 2 and lane in {"critical", "normal"}  # noqa: PLR2004 - two colons
        if not well or not _is_offset(offset) or lane in cursors:
            raise InvalidRequest(
                f"--after takes critical:EPOCH:OFFSET and normal:EPOCH:OFFSET, each once, not {text!r}",
                field="after",
            )
        cursors[lane] = [epoch, int(offset)]
    return cursors


def _is_offset(text: str) -> bool:
    from steadcast.wire import MAX_OFFSET, whole_number

    return whole_number(text, MAX_OFFSET) is not None


def _subscriber(
    kind: type[Subscriber], address: Address, stream: str, token: str | None, wanted: dict[str, Any]
) -> Subscriber:
    log = logging.getLogger("steadcast.subscriber")
    log.addHandler(_Trouble())
    log.setLevel(logging.INFO)
    log.propagate = False
    return kind(
        address.url,
        stream,
        token=token,
        on_told=_tell_gap,
        **wanted,
    )


def _reach(address: Address) -> None:
    """Exit where nobody listens: a mistyped address is told at once, instead of waited for."""
    try:
        socket.create_connection((address.host, address.port), timeout=_CONNECT).close()
    except OSError as error:
        leave(
            Exit.NO_SERVER, f"no server answers at {address.url} ({error}); start one with: steadcast serve"
        )


async def _follow(subscriber: Subscriber, show: Show, glob: str, count: int | None, place: _Place) -> Exit:
    shown = 0
    async with subscriber:
        interrupted = _interruptible()
        watching = asyncio.create_task(_watch(subscriber, interrupted))
        try:
            async for delivery in subscriber:
                if fnmatchcase(delivery.event.type, glob):
                    show(delivery)
                    shown += 1
                place.cursors = delivery.cursors
                if shown == count:
                    break
        except BrokenPipeError:
            mute()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    return Exit.INTERRUPTED if interrupted.is_set() else Exit.DONE


def _interruptible() -> asyncio.Event:
    """Give what the first Ctrl-C sets; the second one has its usual effect.

    The usual one cancels, and the Socket.IO library takes some cancellations for its own and goes on.
    """
    loop, interrupted = asyncio.get_running_loop(), asyncio.Event()

    def interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        interrupted.set()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    return interrupted


async def _watch(subscriber: Subscriber, interrupted: asyncio.Event) -> None:
    """Tell when the connection goes and comes; end the subscription when it is to end, or nobody reads on."""
    was_there = True
    while _is_read() and not interrupted.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(interrupted.wait(), _LOOK)
        is_there = subscriber.connected
        if subscriber.connects and is_there != was_there:
            tell("connected again" if is_there else "the connection is lost; trying again")
            was_there = is_there
    if not interrupted.is_set():
        mute()
    await subscriber.aclose()


def _is_read() -> bool:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return not any(state & select.POLLERR for _, state in poll.poll(0))
    return True


class _Trouble(logging.Handler):
    """Tells what the subscriber logs, the same thing once in a row."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._last = ""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text != self._last:
            self._last = text
            tell(text)


def _tell_gap(told: Told) -> None:
    match told.kind:
        case "trimmed" if told.lost is not None:
            surely = "may be gone" if told.maybe else "are gone"
            tell(f"{told.lane}: offsets {told.lost[0]} to {told.lost[1]} {surely}: the log was trimmed")
        case "reset":
            tell(f"{told.lane}: the log is another one than before; it begins anew")
        case _:
            tell(f"{told.kind} {told.lane or ''} {told.code or told.id or ''}".rstrip())
