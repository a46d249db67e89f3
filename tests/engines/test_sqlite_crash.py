"""Nothing that was acked is lost, and the log agrees with itself, wherever its process was killed."""

from __future__ import annotations

import random
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engine_crash
from tests.engine_crash import acked_rows, assert_there

ROUNDS = 15
CHILD = [sys.executable, "-m", engine_crash.__name__]
STARTUP = 30.0


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """Give a folder in memory where there is one: a process can be killed there as well as on a disk."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder inside it is nobody else's
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


def killed_after(path: Path, seed: int, seconds: float) -> bytes:
    """Let a process append until this long after its first receipt, kill it, and give what it printed."""
    with subprocess.Popen([*CHILD, "append", str(path), str(seed)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert select.select([child.stdout], [], [], STARTUP)[0]
        # The moment of the kill is what this test chooses; no condition could be awaited instead.
        time.sleep(seconds)
        child.kill()
        return child.stdout.read()


async def test_sigkill_at_any_moment_loses_nothing_that_was_acked(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    chance = random.Random(7)
    acked = []
    for seed in range(ROUNDS):
        acked += acked_rows(killed_after(path, seed, chance.uniform(0, 0.06)))
    # Each sampled row is read by itself; all of them would take long.
    await assert_there(path, random.Random(8).sample(acked, min(len(acked), 2_000)))
    places = {(stream, lane, offset): name for stream, name, lane, _, offset in acked}
    assert len(places) == len(acked) > ROUNDS


@pytest.mark.parametrize("start", ["new", "old"])
def test_a_crash_before_any_statement_loses_nothing_that_was_acked(quick: Path, start: str) -> None:
    done = subprocess.run(
        [*CHILD, "statements", str(quick), start], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # Opening, creating or migrating, appends, trims, a sweep, a probe: fewer statements would mean that the
    # trace saw nothing.
    assert int(done.stdout) > 80
