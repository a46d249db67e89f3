"""Seeded histories of the real hub and the real receiver keep the promises, as seen from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog

from tests.sim.history import Checker
from tests.sim.world import FAULTS, Plan, World

SEEDS = int(os.environ.get("STEADCAST_SIM_SEEDS", "120"))
CHUNK = 20


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Faults are meant here; their warnings say nothing."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()


def story(seed: int) -> tuple[World, list[str]]:
    world = World(Plan.of(seed))
    return world, Checker(world.run()).check()


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_a_seeded_history_keeps_the_promises(first: int) -> None:
    for seed in range(first, first + CHUNK):
        world, violations = story(seed)
        assert not violations, f"seed {seed}:\n" + "\n".join([*world.story, *violations[:10]])


def test_a_seed_tells_the_same_story_every_time() -> None:
    first, second = story(7)[0], story(7)[0]
    assert first.story == second.story
    assert first.loop.steps == second.loop.steps
    assert first.history.receipts == second.history.receipts


def test_every_kind_of_fault_is_met() -> None:
    met = {kind for seed in range(200) for _, kind, _ in Plan.of(seed).faults}
    assert met == set(FAULTS)
