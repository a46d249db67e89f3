"""`steadcast publish`: events to a stream, their positions to standard output."""

from __future__ import annotations

import os
import select
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from steadcast.commands.exits import Exit, leave
from steadcast.commands.options import DEFAULT, AsJson, Stream, Token, Url
from steadcast.errors import InvalidInput

if TYPE_CHECKING:
    from steadcast.client.outgoing import Outgoing
    from steadcast.commands.sending import Sending

MAX_INPUT = 1024 * 1024
"""Bytes of data that are read; the server takes 256 KiB an event, and data that is indented shrinks."""
GROUP_EVENTS = 500
GROUP_BYTES = 512 * 1024


class Priority(StrEnum):
    """An event's priority, which chooses its lane."""

    CRITICAL = "critical"
    NORMAL = "normal"


def publish(
    stream: Stream,
    *,
    type_: Annotated[str, typer.Option("--type", help="The events' type.", show_default=False)],
    data: Annotated[
        str | None,
        typer.Option(help="The event's data: JSON, @file or - for standard input.", metavar="JSON"),
    ] = None,
    subject: Annotated[str | None, typer.Option(help="What the event is about.")] = None,
    priority: Annotated[Priority, typer.Option(help="critical overtakes normal.")] = Priority.NORMAL,
    id_: Annotated[
        str | None,
        typer.Option("--id", help="The event's id: published twice, it counts once.", show_default="minted"),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Where it happened.", show_default="//host/steadcast")
    ] = None,
    json_lines: Annotated[
        bool, typer.Option("--json-lines", help="Take one event's data from each line of standard input.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds that the server has to answer.", min=0.1, max=600)
    ] = 5.0,
    no_spool: Annotated[
        bool, typer.Option("--no-spool", help="Keep nothing on disk: exit 3 while the server is away.")
    ] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT,
    token: Token = None,
) -> None:
    """Publish an event, or one for each line, and print its position: LANE:EPOCH:OFFSET.

    Exits 0 when all are durable at the server, 4 when the server is away and they are spooled, 1 when the
    server refuses one.
    """
    from steadcast.client.outgoing import compose, default_source
    from steadcast.commands.sending import open_sending

    if json_lines and (data is not None or id_ is not None):
        leave(Exit.USAGE, "--json-lines takes its data from standard input, and mints each id")
    sending = open_sending(url, token=token, spools=not no_spool, timeout=timeout, as_json=as_json)
    attributes: dict[str, Any] = {
        "type": type_,
        "source": default_source() if source is None else source,
        "subject": subject,
        "priority": str(priority),
    }
    compose(stream, **attributes)  # what no event could have is refused before anything is read
    try:
        if json_lines:
            _publish_lines(sending, stream, attributes)
        else:
            sending.send([compose(stream, **attributes, id=id_, data=_data(data))])
    except KeyboardInterrupt:
        sending.finish()
        leave(Exit.INTERRUPTED)
    leave(sending.finish())


def _data(given: str | None) -> Any:
    if given is None:
        return None
    try:
        if given == "-":
            if sys.stdin is None:
                leave(Exit.USAGE, "--data: standard input is closed")
            return _json(_limited(sys.stdin.buffer, "standard input"), "standard input")
        if given.startswith("@"):
            with Path(given[1:]).open("rb") as file:
                return _json(_limited(file, given[1:]), given[1:])
    except OSError as error:
        leave(Exit.USAGE, f"--data: {error.filename or 'standard input'} can't be read: {error.strerror}")
    return _json(os.fsencode(given), "--data")


def _limited(file: BinaryIO, where: str) -> bytes:
    content = bytearray()
    part = b"\0"
    while part and len(content) <= MAX_INPUT:
        # Waited for here, as `Lines` does: a read of a pipe that a parent has made non-blocking doesn't wait.
        select.select([file], [], [])
        part = os.read(file.fileno(), MAX_INPUT + 1 - len(content))
        content += part
    if len(content) > MAX_INPUT:
        leave(Exit.USAGE, f"{where} is longer than {MAX_INPUT} bytes")
    return bytes(content)


def _json(content: bytes, where: str) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = " (a text needs its quotes: '\"text\"')" if content[:1].isalpha() else ""
        leave(Exit.USAGE, f"{where} is no JSON: {error}{hint}")


def _publish_lines(sending: Sending, stream: str, attributes: dict[str, Any]) -> None:
    from steadcast.commands.lines import Lines

    lines = Lines(0, longest=MAX_INPUT)
    try:
        while group := lines.next_group(GROUP_EVENTS, GROUP_BYTES):
            items = [_from_line(number, line, stream, attributes, sending) for number, line in group]
            sending.send([item for item in items if item is not None])
    except OSError as error:
        sending.refused("standard input", f"it can't be read: {error.strerror}", Exit.USAGE)


def _from_line(
    number: int, line: bytes | None, stream: str, attributes: dict[str, Any], sending: Sending
) -> Outgoing | None:
    """Make the event of a line; a line that makes none is told and counted, and the others go on."""
    import msgspec

    from steadcast.client.outgoing import compose

    if line is None:
        sending.refused(f"line {number}", f"longer than {MAX_INPUT} bytes")
        return None
    try:
        return compose(stream, **attributes, data=msgspec.json.decode(line))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        sending.refused(f"line {number}", f"no JSON: {error}")
    except InvalidInput as error:
        sending.refused(f"line {number}", error.message)
    return None
