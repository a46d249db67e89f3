"""Plays many seeds in several processes, adds up what they met, and tells what broke."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import structlog

from tests.sim.shrink import story
from tests.sim.world import plan_of, play

CHUNK = 10
SAY_EVERY = 30.0


class Told(NamedTuple):
    """What some seeds came to."""

    seeds: int
    steps: int
    faults: Counter[str]
    broken: dict[int, list[str]]


def quiet() -> None:
    """Faults are meant here: the house's warnings about them say nothing."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))


def play_some(seeds: range) -> Told:
    """Play seeds one after the other; what breaks the simulation itself counts as broken too."""
    gc.disable()  # histories leave cycles: one sweep behind some of them is much cheaper
    told = Told(len(seeds), 0, Counter(), {})
    steps = 0
    for seed in seeds:
        world, violations = play(plan_of(seed))
        steps += world.loop.steps
        told.faults.update(world.record.faults)
        if violations:
            told.broken[seed] = [str(violation) for violation in violations[:3]]
        del world
    gc.collect()
    return told._replace(steps=steps)


def chunks(first: int, seeds: int) -> Iterator[range]:
    """Cut the seeds into parts that a process plays in a second or so."""
    for start in range(first, first + seeds, CHUNK):
        yield range(start, min(start + CHUNK, first + seeds))


def play_all(first: int, seeds: int, jobs: int) -> Iterator[Told]:
    """Play all seeds, in so many processes."""
    if jobs == 1:
        yield from map(play_some, chunks(first, seeds))
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(play_some, chunks(first, seeds))


def play_and_tell(options: argparse.Namespace) -> int:
    """Play, and tell; returns the exit status."""
    quiet()
    gc.collect()
    gc.freeze()  # what is imported stays: no sweep needs to look at it
    began = said = time.monotonic()
    total = Told(0, 0, Counter(), {})
    for part in play_all(options.first, options.seeds, options.jobs):
        total = Told(
            total.seeds + part.seeds,
            total.steps + part.steps,
            total.faults + part.faults,
            total.broken | part.broken,
        )
        for seed, violations in part.broken.items():
            print(f"seed {seed}: {'; '.join(violations)}", flush=True)
        if time.monotonic() - said > SAY_EVERY:
            said = time.monotonic()
            print(f"… {total.seeds} seeds, {len(total.broken)} broken", file=sys.stderr, flush=True)
        if options.stop and total.broken:
            break
        if options.minutes and time.monotonic() - began > 60 * options.minutes:
            break
    _tell(total, time.monotonic() - began, options)
    return 1 if total.broken else 0


def _tell(total: Told, seconds: float, options: argparse.Namespace) -> None:
    for seed in sorted(total.broken)[: options.stories]:
        print(f"\n{story(seed, options.tries)}\n")
    for kind, count in sorted(total.faults.items(), key=lambda each: -each[1]):
        print(f"{count:10,}  {kind}")
    rate = total.seeds / max(seconds, 1e-9)
    last = options.first + total.seeds - 1
    print(
        f"seeds {options.first} to {last} in {seconds:.0f} s, {options.jobs} processes: "
        f"{rate:.1f} seeds/s, a million in {1e6 / rate / 3600:.1f} h"
    )
    print(f"seeds {total.seeds} steps {total.steps} violations {len(total.broken)}")
