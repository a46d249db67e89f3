"""The checker itself is proven: each thing made wrong in the real house is caught, within few seeds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.sim.hunt import hunt, story_in
from tests.sim.mutants import MUTANTS

HUNTED = list(MUTANTS)[:: 1 if os.environ.get("STEADCAST_SOAK") else 2]
"""Every second one, unless there is time: `make soak` hunts for all, and so does the log in docs/evidence."""


@pytest.fixture(scope="module")
def hunts() -> Iterator[dict[str, Future[str]]]:
    """Hunt for all of them, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(hunt, name) for name in HUNTED}


@pytest.mark.parametrize("name", HUNTED)
def test_a_mutant_is_caught_by_a_seed_that_is_told_as_a_story(
    hunts: dict[str, Future[str]], name: str
) -> None:
    said = hunts[name].result(300)
    print(said)
    assert said.startswith("exit 1\n"), said
    assert re.search(r"^ +[\d.]+  \*\* (P\d|raised): ", story_in(said), re.MULTILINE), said


@pytest.mark.parametrize("name", MUTANTS)
def test_what_a_mutant_makes_wrong_stands_in_its_module_once(name: str) -> None:
    spec = find_spec(MUTANTS[name].module)
    assert spec is not None
    assert Path(str(spec.origin)).read_text("utf-8").count(MUTANTS[name].right) == 1


def test_there_is_a_mutant_in_every_room_that_delivers() -> None:
    rooms = {mutant.module.rpartition(".")[0] for mutant in MUTANTS.values()}
    assert rooms == {f"steadcast.{room}" for room in ("core", "hub", "engines", "client", "http")}
