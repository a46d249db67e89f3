"""`steadcast doctor`: what is well, what isn't, and what to do about it. Looks, and changes nothing.

Each check gives findings: `ok`, `warning` (works, but not as it may be meant) or `problem` (something will
fail). A check that fails itself is a problem too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from steadcast.client.address import parse_address
from steadcast.commands.settings import WrongSettings, read_settings
from steadcast.doctor.finding import Check, Finding, Patient
from steadcast.doctor.machine import (
    check_open_files,
    check_proxies,
    check_python,
    check_settings,
    check_sqlite,
)
from steadcast.doctor.sending import check_hooks, check_spool
from steadcast.doctor.server import check_server
from steadcast.doctor.store import check_engine

if TYPE_CHECKING:
    from pathlib import Path

    from steadcast.config import Settings

__all__ = ["CHECKS", "Finding", "examine"]

CHECKS: Final[tuple[Check, ...]] = (
    check_python,
    check_sqlite,
    check_settings,
    check_engine,
    check_server,
    check_spool,
    check_hooks,
    check_open_files,
    check_proxies,
)


def examine(url: str, token: str | None = None, *, config: Path | None = None, **flags: Any) -> list[Finding]:
    """Run all checks; raises `InvalidRequest` for a URL that is none."""
    settings, wrong = _settings(config, flags)
    patient = Patient(settings, wrong, parse_address(url), token)
    return [finding for check in CHECKS for finding in _run(check, patient)]


def _settings(config: Path | None, flags: dict[str, Any]) -> tuple[Settings | None, tuple[str, ...]]:
    try:
        return read_settings(config, **flags), ()
    except WrongSettings as error:
        return None, error.lines  # told by `check_settings`


def _run(check: Check, patient: Patient) -> list[Finding]:
    name = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        return list(check(patient))
    except Exception as error:  # noqa: BLE001 - one check that fails must not hide what the others find
        return [Finding(name, "problem", f"the check failed: {type(error).__name__}: {error}")]
