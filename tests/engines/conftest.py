"""What the tests of engines may ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine_backends import BACKENDS, Backend


@pytest.fixture(params=BACKENDS)
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    """Give each kind of engine in turn."""
    made = BACKENDS[request.param](tmp_path)
    yield made
    await made.aclose()


@pytest.fixture
def engine(backend: Backend) -> Any:
    """Give an engine with the default settings."""
    return backend.open()
