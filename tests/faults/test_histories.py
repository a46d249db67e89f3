"""A dozen histories of real processes under real faults keep the promises; `make soak` has hundreds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.faults.faults import FAULTS
from tests.faults.history import History, kinds_of

HISTORIES = 12


def test_a_dozen_histories_under_real_faults_keep_the_promises(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--histories", str(HISTORIES), "--jobs", "3"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(rf"histories {HISTORIES} events \d+ violations 0", done.stdout.splitlines()[-1])


def test_a_dozen_histories_meet_every_kind_of_fault() -> None:
    assert {kind for seed in range(HISTORIES) for kind in kinds_of(seed)} == set(FAULTS)


async def test_a_log_that_does_not_outlive_its_server_is_seen_to_break_the_promises(tmp_path: Path) -> None:
    history = History(1, tmp_path, ["server_killed"], engine="memory:")
    history.within = 1.0
    promises = {violation.promise for violation in await history.run()}
    assert "P1" in promises
    assert "raised" in promises
