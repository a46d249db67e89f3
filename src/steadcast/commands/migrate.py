"""`steadcast migrate`."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from steadcast.commands.exits import Exit, leave, logs_aside, tell
from steadcast.errors import InvalidRequest

if TYPE_CHECKING:
    from rich.progress import TaskID

    from steadcast.engines.base import Engine
    from steadcast.engines.copy import Progress, Source

ROUNDS = 1_000
"""Looks at the log before a copy that never catches up is ended."""


def migrate(
    *,
    origin: Annotated[
        str, typer.Option("--from", help="The log that is: sqlite:///path or nats://…", metavar="URL")
    ],
    target: Annotated[str, typer.Option("--to", help="The log that is to be.", metavar="URL")],
    state: Annotated[
        Path | None,
        typer.Option(help="Where to note how far it went; beside the SQLite log by default.", metavar="FILE"),
    ] = None,
) -> None:
    """Copy a log into another engine, from SQLite to NATS JetStream or back; publishers may go on meanwhile.

    Run it while the old server serves, until it has caught up; then stop that server, run it once more for
    the rest, and start the new one. Ended in the middle, it goes on where it was. Positions change, and
    with them the epoch: every subscriber is told that the log is another one, and shows it anew.
    """
    from steadcast.engines import open_engine
    from steadcast.engines.copy import open_source

    logs_aside()
    try:
        source = open_source(origin)
    except InvalidRequest as error:
        leave(Exit.USAGE, f"--from: {error.message}")
    added = asyncio.run(_copy(source, open_engine(target), state or _beside(origin, target)))
    typer.echo(f"caught up: {added} events added")
    tell("stop the old server, run this once more, then start the new one")


def _beside(origin: str, target: str) -> Path:
    """Give the note's place beside the log that is a file."""
    from steadcast.engines import sqlite_path

    files = [sqlite_path(url) for url in (origin, target) if url.startswith("sqlite:")]
    if not files:
        leave(Exit.USAGE, "--state: neither log is a file; say where to note how far it went")
    return files[0].with_name(f"{files[0].name}.migrated")


async def _copy(source: Source, engine: Engine, note: Path) -> int:
    try:
        ours, theirs = await _epoch(source), await _epoch(engine)
        if ours == theirs:
            leave(Exit.USAGE, "--to: this is the log that is copied from")
        progress = _progress(note, ours, theirs)
        added = 0
        for _ in range(ROUNDS):
            more = await _round(source, engine, progress, note)
            added += more
            if not more:
                return added
        leave(Exit.FAILED, "events come faster than they can be copied; run it again when there are fewer")
    finally:
        await source.aclose()
        await engine.aclose()


async def _epoch(log: Source) -> str:
    """Wait for a log: a first connection takes its time."""
    from steadcast.errors import EngineUnavailable

    for _ in range(4):
        try:
            return (await log.describe()).epoch
        except EngineUnavailable:
            await asyncio.sleep(0.2)
    return (await log.describe()).epoch


async def _round(source: Source, engine: Engine, progress: Progress, note: Path) -> int:
    """Copy what there is now; gives how many events were new."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from steadcast.engines.copy import copy_log

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    added = 0
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task: TaskID | None = None  # one for all lanes: with each that is added, all are drawn anew
        async with aclosing(copy_log(source, engine, progress)) as steps:
            async for step in steps:
                task = bar.add_task("") if task is None else task
                lane = f"{step.stream} {step.lane}"
                bar.update(task, description=lane, total=step.head, completed=step.upto)
                if step.lost is not None:
                    tell(f"{step.stream} ({step.lane}): retention took {step.lost[0]} to {step.lost[1]}")
                added += step.added
                _note(note, progress)
    return added


def _progress(note: Path, source: str, target: str) -> Progress:
    """Read how far an earlier run went; a note about other logs counts for nothing."""
    import msgspec

    from steadcast.engines.copy import Progress

    try:
        found = msgspec.json.decode(note.read_bytes(), type=Progress)
    except FileNotFoundError:
        return Progress(source, target)
    except (OSError, msgspec.DecodeError) as error:
        leave(Exit.FAILED, f"{note} can't be read: {error}; give another --state, or remove it")
    return found if (found.source, found.target) == (source, target) else Progress(source, target)


def _note(note: Path, progress: Progress) -> None:
    import msgspec

    fresh = note.with_name(f"{note.name}.new")
    fresh.write_bytes(msgspec.json.encode(progress))
    os.replace(fresh, note)  # noqa: PTH105 - the same call on every system
