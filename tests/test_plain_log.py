"""What goes to a log that nobody has configured: where it failed, and no token."""

from __future__ import annotations

import subprocess
import sys

FAILING = """
from steadcast.plain_log import plain_log

def fail(authorization):
    raise ValueError("a defect")

log = plain_log("t")
log.info("well", number=1)
try:
    fail("made-up-token")
except ValueError as error:
    log.exception("failed", path="/v1/stats")
    log.warning("failed too", exc_info=error)
"""


def test_a_traceback_shows_no_variables_where_structlog_is_as_it_comes() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FAILING], capture_output=True, text=True, check=True
    )
    told = done.stdout + done.stderr
    assert told.count("ValueError: a defect") == 2
    assert "in fail" in told
    assert "/v1/stats" in told
    assert "made-up-token" not in told
