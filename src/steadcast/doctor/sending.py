"""What this machine sends: the spool, and the hooks that are installed."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from steadcast.client.spool import Spool
from steadcast.client.spooled import is_entry, spool_root, wall_time
from steadcast.doctor.finding import Finding, Findings, Patient, age_words
from steadcast.errors import InvalidRequest, SteadcastError

if TYPE_CHECKING:
    from collections.abc import Iterator

STUCK: Final = 60.0
"""Seconds after which an entry should have left the spool of a server that is there."""


def check_spool(patient: Patient) -> Findings:
    """See what waits on this machine for a server, this one and others."""
    root = Path(spool_root())
    own = root / patient.address.folder
    refusing = next((there for part in ("tmp", "new") if not _takes_files(there := _there(own / part))), None)
    if refusing is not None:
        why = f"{refusing} can't be written: what is spooled for a server that is away would be lost"
        yield Finding("spool", "problem", why, "give it to this user, or set STEADCAST_SPOOL")
        return
    yield from _own_spool(own)
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        waiting = _waiting(folder)
        if folder != own and waiting:
            yield Finding(
                "spool",
                "warning",
                f"{len(waiting)} wait for another server ({folder.name}), the oldest {_age_of(waiting)}",
                f"start that server, or remove {folder}",
            )


def _there(path: Path) -> Path:
    """Give the part of a path that is there; the rest is made with the first entry."""
    return next(each for each in (path, *path.parents) if os.path.exists(each))  # noqa: PTH110 - never raises


def _takes_files(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _own_spool(folder: Path) -> Findings:
    waiting = _waiting(folder)
    counts = Spool(str(folder)).statistics() if folder.is_dir() else {"dead": 0, "pending": 0}
    if waiting and time.time() - wall_time(waiting[0]) > STUCK:
        yield Finding(
            "spool",
            "warning",
            f"{len(waiting)} wait in {folder}, the oldest {_age_of(waiting)}",
            "start the server, which takes them; if it runs, see token and server above",
        )
    else:
        yield Finding("spool", "ok", f"{len(waiting)} wait in {folder}")
    if counts["dead"]:
        yield Finding(
            "spool",
            "warning",
            f"{counts['dead']} were given up; the first line of each file says why",
            f"look into {folder / 'dead'}",
        )


def _waiting(folder: Path) -> list[str]:
    try:
        return sorted(each.name for each in (folder / "new").iterdir() if is_entry(each.name))
    except OSError:
        return []  # no spool there


def check_hooks(_: Patient) -> Findings:
    """See where the hook is installed."""
    from steadcast.client.hooks_install import installed, settings_path

    found = 0
    for scope, path in _places():
        try:
            events = installed(path)
        except (SteadcastError, OSError) as error:
            yield Finding("hooks", "warning", str(error), "mend the file; the agent can't read it either")
            continue
        found += bool(events)
        if events:
            yield Finding("hooks", "ok", f"installed for {len(events)} events ({scope}: {path})")
            yield from _hook_programs(path)
    if not found:
        yield Finding("hooks", "ok", "not installed here (steadcast hooks install)")
    if found > 1:
        advice = f"steadcast hooks uninstall --settings {settings_path('project')}"
        yield Finding("hooks", "warning", "installed twice: each event comes twice", advice)


def _places() -> Iterator[tuple[str, Path]]:
    from steadcast.client.hooks_install import settings_path

    with suppress(InvalidRequest):  # a user without a home has no settings there
        yield "user", settings_path("user")
    yield "project", settings_path("project")


def _hook_programs(path: Path) -> Findings:
    from steadcast.client.hooks_install import own_commands

    for command in own_commands(path):
        program = next((word for word in shlex.split(command) if "=" not in word), "")
        if shutil.which(program) is None:
            yield Finding("hooks", "problem", f"{program} is gone", "steadcast hooks install puts it right")


def _age_of(names: list[str]) -> str:
    return f"{age_words(time.time() - wall_time(names[0]))} old"
