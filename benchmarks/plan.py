"""Which server goes through which bench, in which order: all of them in turn, then all again."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import cells, commits, servers
from benchmarks.latency import latency
from benchmarks.rows import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.cells import Scale
    from benchmarks.rows import Sample
    from benchmarks.servers import Kind

BENCHES: Final = ("fanout", "paced", "publish", "storm", "stall", "idle", "start", "latency")
ONLY_PUBLISHES: Final = servers.JETSTREAM_SYNCED
"""It differs by how it stores, and is compared where that is measured."""


@dataclass(frozen=True)
class Step:
    """One server in one bench."""

    bench: str
    label: str
    samples: Callable[[], Iterator[Sample]]


@dataclass
class Outcome:
    """The rows, and what isn't one: a failure is named, and makes the command fail."""

    table: Table = field(default_factory=Table)
    failures: list[str] = field(default_factory=list)


def steps(kinds: list[Kind], tools: Path, scale: Scale, wanted: set[str]) -> list[Step]:
    """Give what one go consists of."""
    found = [
        *_fanout(kinds, tools, scale),
        *_each("paced", cells.paced, _live(kinds), tools, scale),
        *_each("publish", cells.publish, cells.publish_kinds(kinds), tools, scale),
        Step("publish", "sqlite", partial(commits.commits, tools, scale)),
        *_each("storm", cells.storm, [kind for kind in _delivering(kinds) if kind.resumes], tools, scale),
        *_each("stall", cells.stall, [kind for kind in _live(kinds) if kind.name != "raw-c"], tools, scale),
        *_each("idle", cells.idle, _live(kinds), tools, scale),
        *_each("start", cells.start, [kind for kind in kinds if kind.variant is None], tools, scale),
        *[Step("latency", name, partial(latency, name, tools, scale)) for name in scale.runtimes],
    ]
    return [step for step in found if step.bench in wanted]


def _delivering(kinds: list[Kind]) -> list[Kind]:
    return [kind for kind in kinds if kind is not ONLY_PUBLISHES]


def _live(kinds: list[Kind]) -> list[Kind]:
    """Leave out what differs by resuming only, where nobody resumes."""
    return [kind for kind in _delivering(kinds) if kind is not servers.RECOVERY]


def _each(
    name: str,
    cell: Callable[[Kind, Path, Scale], Iterator[Sample]],
    kinds: list[Kind],
    tools: Path,
    scale: Scale,
) -> list[Step]:
    return [Step(name, kind.label, partial(cell, kind, tools, scale)) for kind in kinds]


def _fanout(kinds: list[Kind], tools: Path, scale: Scale) -> Iterator[Step]:
    for clients in scale.clients:
        for kind in _delivering(kinds) if clients == scale.clients[-1] else _live(kinds):
            yield Step("fanout", kind.label, partial(cells.fanout, kind, tools, scale, clients))
    for clients in scale.growth:
        for kind in kinds:
            if kind.name != "python-socketio" and kind.variant is None:
                yield Step("fanout", kind.label, partial(cells.fanout, kind, tools, scale, clients))
    for kind in (servers.STEADCAST, servers.NATS):
        yield Step("fanout", kind.label, partial(cells.backlogged, kind, tools, scale, scale.clients[-1]))


def run(
    todo: list[Step], runs: int, say: Callable[[str], None], after: Callable[[Outcome], None] = lambda _: None
) -> Outcome:
    """Do all steps, `runs` times over; nothing but a checked figure becomes a sample.

    `after` is given what there is when all steps were done once more.
    """
    outcome = Outcome()
    for number in range(1, runs + 1):
        for step in todo:
            say(f"{number}/{runs} {step.bench} {step.label}")
            try:
                for sample in step.samples():
                    outcome.table.add(sample)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and makes the command fail
                outcome.failures.append(f"{step.bench} {step.label}: {type(error).__name__}: {error}")
                say(f"FAILED {outcome.failures[-1]}")
        after(outcome)
    return outcome
