"""Seeded histories of the real hub and the real receiver keep the promises, as seen from outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.sim.faults import FAULTS
from tests.sim.plan import Limits, Plan
from tests.sim.world import KINDS, plan_of

SEEDS = 2_000
_DIGESTS = """
import structlog
from tests.sim.run import quiet
from tests.sim.world import plan_of, play
quiet()
for seed in (7, 8, 9):
    world, _ = play(plan_of(seed))
    print(world.record.digest(), world.loop.steps)
"""


def python(root: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=root, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


def test_two_thousand_seeds_keep_the_promises_and_meet_every_kind_of_fault(root: Path) -> None:
    done = python(root, "-m", "tests.sim", "--seeds", str(SEEDS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(rf"seeds {SEEDS} steps \d+ violations 0", done.stdout.splitlines()[-1])
    met = re.findall(r"^ +([\d,]+)  (.+)$", done.stdout, re.MULTILINE)
    assert len(met) >= len(FAULTS), met
    assert min(int(count.replace(",", "")) for count, _ in met) > 100, met


def test_a_seed_tells_the_same_story_in_every_process(root: Path) -> None:
    told = {python(root, "-c", _DIGESTS, PYTHONHASHSEED=str(seed)).stdout for seed in (1, 2)}
    assert len(told) == 1
    assert len(told.pop().splitlines()) == 3


def test_a_plan_gets_smaller_by_one_thing_at_a_time() -> None:
    plan = next(plan for plan in map(plan_of, range(100)) if plan.spooling and len(plan.faults) > 3)
    smaller = list(plan.smaller())
    assert len(smaller) >= len(plan.faults) + 1
    assert all(_size(each) < _size(plan) for each in smaller)


def test_the_limits_of_the_house_are_met_at_several_sizes() -> None:
    limits: set[Limits] = {Plan.of(seed, KINDS).limits for seed in range(100)}
    assert len(limits) == 4


def _size(plan: Plan) -> float:
    things = len(plan.faults) + plan.publishers + plan.subscribers + plan.streams + plan.spooling
    return things + plan.seconds / 100
