"""Plays seeds and says how many kept their promises: `python -m tests.sim --seeds 10000 --jobs 2`.

The last line is `seeds N steps N violations N`; the exit status is 1 where a promise was broken. Each
broken seed is named; the first few are shrunk and told. `--first N --seeds 1` plays one again.
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.sim import mutants


def options() -> argparse.ArgumentParser:
    given = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    given.add_argument("--seeds", type=int, default=2_000, help="how many")
    given.add_argument("--first", type=int, default=0, help="the first one")
    given.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    given.add_argument("--stories", type=int, default=3, help="broken seeds that are shrunk and told")
    given.add_argument("--tries", type=int, default=150, help="histories that are played to shrink one")
    given.add_argument("--stop", action="store_true", help="stop at the first that is broken")
    given.add_argument("--minutes", type=float, help="stop after so long")
    given.add_argument("--mutant", choices=mutants.MUTANTS, help="make this wrong before")
    return given


def main() -> int:
    chosen = options().parse_args()
    if chosen.mutant:
        mutants.apply(chosen.mutant)
    from tests.sim import run  # imports the house, with its mutant

    return run.play_and_tell(chosen)


if __name__ == "__main__":
    sys.exit(main())
