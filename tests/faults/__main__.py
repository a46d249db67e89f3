"""Lives through histories under real faults: `python -m tests.faults --histories 100 --jobs 4`.

The last line is `histories N events N violations N`; the exit status is 1 where a promise was broken.
`--first N --histories 1` draws one again; real time makes each telling of it another one.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.faults.history import History
from tests.support.record import in_words

_SHOWN = 30


class Told(NamedTuple):
    """What one history came to."""

    seed: int
    events: int
    faults: Counter[str]
    broken: list[str]


async def live(seed: int, jobs: asyncio.Semaphore, until: float) -> Told | None:
    """Live through one history, in a folder of its own; None where the time was over before it began."""
    async with jobs:
        if time.monotonic() > until:
            return None
        with tempfile.TemporaryDirectory(prefix="steadcast-faults-", ignore_cleanup_errors=True) as folder:
            history = History(seed, Path(folder))
            try:
                broken = [str(each) for each in await history.run()]
            except AssertionError as late:
                broken = [f"late: {late}"]
            if broken:
                _tell(history, broken)
            return Told(seed, len(history.ids), history.record.faults, broken)


def _tell(history: History, broken: list[str]) -> None:
    print(f"a history of {', '.join(history.kinds)}:")
    for entry in [each for each in history.record.entries if each[1] == "fault"][:_SHOWN]:
        print(in_words(entry))
    for each in broken[:3]:
        print(f"          ** {each}", flush=True)


async def live_all(chosen: argparse.Namespace) -> list[Told]:
    """Live through them, so many at a time."""
    free = asyncio.Semaphore(chosen.jobs)
    until = time.monotonic() + 60 * (chosen.minutes or float("inf"))
    seeds = range(chosen.first, chosen.first + chosen.histories)
    told = await asyncio.gather(*(live(seed, free, until) for seed in seeds))
    return [each for each in told if each is not None]


def main() -> int:
    """Live, and tell; returns the exit status."""
    options = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    options.add_argument("--histories", type=int, default=12, help="how many")
    options.add_argument("--first", type=int, default=0, help="the first one's seed")
    options.add_argument("--jobs", type=int, default=3, help="how many at a time")
    options.add_argument("--minutes", type=float, help="begin none after so long")
    chosen = options.parse_args()
    began = time.monotonic()
    told = asyncio.run(live_all(chosen))
    seconds = time.monotonic() - began
    faults = sum((each.faults for each in told), Counter[str]())
    for kind, count in sorted(faults.items(), key=lambda each: -each[1]):
        print(f"{count:10,}  {kind}")
    print(
        f"histories {chosen.first} to {chosen.first + len(told) - 1} in {seconds:.0f} s, "
        f"{chosen.jobs} at a time: {60 * len(told) / seconds:.1f} a minute"
    )
    broken = [each.seed for each in told if each.broken]
    for seed in broken:
        print(f"broken: {seed}")
    print(f"histories {len(told)} events {sum(each.events for each in told)} violations {len(broken)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
