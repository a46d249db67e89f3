"""What every test may ask for, how long it may take, and how hard the property tests look.

They look quickly by default, and for long with HYPOTHESIS_PROFILE=soak. No example has a deadline of its own:
a processor that others use as well takes many times as long as a free one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("quick", max_examples=40, deadline=None, derandomize=True, database=None)
settings.register_profile(
    "soak", max_examples=5_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

ROOT = Path(__file__).parent.parent
LIMIT = 3600.0 if os.environ.get("STEADCAST_SOAK") else 300.0
"""Seconds: a test that hangs fails, instead of holding up all that follow."""


@pytest.fixture(scope="session")
def root() -> Path:
    """Give the repository's root."""
    return ROOT


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    def over(_number: int, _frame: object) -> None:
        raise TimeoutError(f"{item.nodeid} took more than {LIMIT:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
