"""What this machine sends: the spool, and the hooks that are installed."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from pathlib import Path
from typing import Final

from steadcast.client.spool import Spool
from steadcast.client.spooled import is_entry, spool_root, wall_time
from steadcast.doctor.finding import Finding, Findings, Patient, age_words
from steadcast.errors import SteadcastError

STUCK: Final = 60.0
"""Seconds after which an entry should have left the spool of a server that is there."""


def check_spool(patient: Patient) -> Findings:
    """See what waits on this machine for a server, this one and others."""
    root = Path(spool_root())
    own = root / patient.address.folder
    if root.exists() and not os.access(root, os.W_OK | os.X_OK):
        yield Finding(
            "spool", "problem", f"{root} can't be written", "give it to this user, or set STEADCAST_SPOOL"
        )
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

    places = {"user": settings_path("user"), "project": settings_path("project")}
    found = 0
    for scope, path in places.items():
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
        advice = f"steadcast hooks uninstall --settings {places['project']}"
        yield Finding("hooks", "warning", "installed twice: each event comes twice", advice)


def _hook_programs(path: Path) -> Findings:
    from steadcast.client.hooks_install import own_commands

    for command in own_commands(path):
        program = next((word for word in shlex.split(command) if "=" not in word), "")
        if shutil.which(program) is None:
            yield Finding("hooks", "problem", f"{program} is gone", "steadcast hooks install puts it right")


def _age_of(names: list[str]) -> str:
    return f"{age_words(time.time() - wall_time(names[0]))} old"
