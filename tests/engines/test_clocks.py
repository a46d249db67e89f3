"""A wall clock that is set: what is too old by it waits, for a day at most."""

from __future__ import annotations

import pytest

from steadcast.engines.clocks import BELIEVED, Clocks
from tests.engine_backends import Clock

YEAR = 31_536_000.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def clocks(clock: Clock) -> Clocks:
    return Clocks(lambda: clock.wall, lambda: clock.steady)


def test_age_counts_by_the_wall_clock(clock: Clock, clocks: Clocks) -> None:
    clock.advance(YEAR)
    assert clocks.before(60) == int((clock.wall - 60) * 1000)


@pytest.mark.parametrize("jump", [61.0, -61.0, YEAR, -YEAR])
def test_a_clock_that_was_set_is_believed_after_a_day(clock: Clock, clocks: Clocks, jump: float) -> None:
    clock.wall += jump
    assert clocks.waits()
    clock.advance(BELIEVED - 1)
    assert clocks.before(60) is None
    clock.advance(1)
    assert clocks.before(60) == int((clock.wall - 60) * 1000)
    clock.advance(1)
    assert not clocks.waits()


def test_a_clock_that_is_set_again_begins_its_day_anew(clock: Clock, clocks: Clocks) -> None:
    clock.wall += YEAR
    assert clocks.waits()
    clock.advance(BELIEVED - 1)
    clock.wall += 3600
    assert clocks.waits()
    clock.advance(BELIEVED - 1)
    assert clocks.waits()
    clock.advance(1)
    assert not clocks.waits()


def test_a_clock_that_is_set_back_in_time_is_the_one_that_was_believed(clock: Clock, clocks: Clocks) -> None:
    clock.wall += YEAR
    assert clocks.waits()
    clock.advance(BELIEVED - 1)
    clock.wall -= YEAR
    assert not clocks.waits()
    clock.wall += YEAR
    assert clocks.waits()
    clock.advance(BELIEVED - 1)
    assert clocks.waits()
