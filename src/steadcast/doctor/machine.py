"""This machine: Python, libraries, settings, limits, proxies."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Final

from steadcast.config import FIELDS, PREFIX, variable
from steadcast.descriptors import MOST, reachable
from steadcast.doctor.finding import Finding, Findings, Patient, without_password
from steadcast.version import __version__

MIN_SQLITE: Final = (3, 51, 3)
"""Older ones can corrupt a log whose write-ahead log is reset by two connections at once."""
FEW_FILES: Final = 4_096
LIBRARIES: Final = (
    "aiohttp",
    "apsw",
    "msgspec",
    "python-engineio",
    "python-socketio",
    "starlette",
    "structlog",
    "uvicorn",
    "websockets",
)


def check_python(_: Patient) -> Findings:
    """See Python, this program, and the libraries that it stands on."""
    yield Finding("python", "ok", f"{platform.python_version()}, {sys.executable}")
    missing = [name for name in LIBRARIES if _version(name) is None]
    found = ", ".join(f"{name} {_version(name)}" for name in LIBRARIES if name not in missing)
    yield Finding("steadcast", "ok", f"{__version__}, {platform.platform()}")
    if missing:
        yield Finding("libraries", "problem", f"missing: {', '.join(missing)}", "install steadcast again")
    else:
        yield Finding("libraries", "ok", found)


def check_sqlite(_: Patient) -> Findings:
    """See which SQLite apsw brings along."""
    import apsw

    version = apsw.sqlite_lib_version()
    if tuple(map(int, version.split("."))) < MIN_SQLITE:
        yield Finding(
            "sqlite", "problem", f"{version} can corrupt a log", "install apsw anew: pip install -U apsw"
        )
    else:
        yield Finding("sqlite", "ok", f"{version}, from apsw")


def check_settings(patient: Patient) -> Findings:
    """Find settings that are wrong, and variables that look like settings and are none."""
    for line in patient.wrong:
        yield Finding("settings", "problem", line, "set it right, or leave it out")
    known = {variable(name) for name in FIELDS} | {"STEADCAST_URL", "STEADCAST_SPOOL"}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            yield Finding(
                "settings", "warning", f"{name} is no setting and has no effect", "see the spelling"
            )
    if not patient.wrong:
        yield Finding("settings", "ok", "can be read")


def check_open_files(_: Patient) -> Findings:
    """See how many connections the system lets a server have, which asks for all that it may."""
    there = reachable()
    if there < FEW_FILES:
        yield Finding(
            "open files",
            "warning",
            f"at most {there}; each open page takes one",
            f"have the system allow more: ulimit -Hn {MOST}, or LimitNOFILE={MOST} in a systemd unit",
        )
    else:
        yield Finding("open files", "ok", f"at most {there}")


def check_proxies(patient: Patient) -> Findings:
    """Find proxies in the environment that would catch requests to this server."""
    from urllib.request import getproxies_environment, proxy_bypass

    proxies = getproxies_environment()
    caught = proxies.get(patient.address.scheme) or proxies.get("all")
    if caught and not proxy_bypass(patient.address.host):
        yield Finding(
            "proxies",
            "warning",
            f"{without_password(caught)} gets what curl sends to {patient.address.host}; steadcast uses none",
            f"export no_proxy={patient.address.host}",
        )
    else:
        yield Finding("proxies", "ok", "none for this server")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
