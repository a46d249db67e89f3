"""The checker itself is proven: each thing made wrong in the real house is caught, within few seeds."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.sim.mutants import MUTANTS

WITHIN = 200
"""Seeds; what takes more than a tenth of what `make test` plays is caught by luck."""


@pytest.fixture(scope="module")
def hunts(root: Path) -> Iterator[dict[str, Future[str]]]:
    """Hunt for all of them, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(hunt, root, name) for name in MUTANTS}


def hunt(root: Path, name: str) -> str:
    few = ["--seeds", str(WITHIN), "--jobs", "1", "--stop", "--stories", "1", "--tries", "8"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", *few, "--mutant", name],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"exit {done.returncode}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught_by_a_seed_that_is_told_as_a_story(
    hunts: dict[str, Future[str]], name: str
) -> None:
    said = hunts[name].result(120)
    print(said)
    assert said.startswith("exit 1\n"), said
    assert re.search(r"^seed \d+, shrunk: .*\n( +[\d.]+  .+\n)+ +[\d.]+  \*\* P\d: ", said, re.MULTILINE), (
        said
    )
    assert re.search(r"^seeds \d+ steps \d+ violations [1-9]", said, re.MULTILINE), said


def test_there_is_a_mutant_in_every_room_that_delivers() -> None:
    rooms = {mutant.module.rpartition(".")[0] for mutant in MUTANTS.values()}
    assert rooms == {"steadcast.core", "steadcast.hub", "steadcast.engines", "steadcast.client"}
