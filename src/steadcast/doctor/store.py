"""The engine that a server would use here, and the disk below it; no running server is disturbed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from steadcast.doctor.finding import Finding, Findings, Patient, size_words
from steadcast.engines.jetstream_url import parse_url, without_secrets
from steadcast.errors import SteadcastError

LITTLE_SPACE: Final = 1024**3
NO_SPACE: Final = 100 * 1024**2


def check_engine(patient: Patient) -> Findings:
    """See whether the log can be opened and written."""
    if patient.settings is None:
        return
    url = patient.settings.engine
    if url.startswith("sqlite:"):
        yield from _sqlite_engine(url)
    elif url == "memory:":
        yield Finding("engine", "ok", "memory: (what is published is gone when the server ends)")
    else:
        yield _other_engine(url)
        yield from _lazy(url)


def _sqlite_engine(url: str) -> Findings:
    from steadcast.engines import open_engine

    try:
        open_engine(url)  # looks at the URL alone, and opens nothing
    except SteadcastError as error:
        yield Finding("engine", "problem", error.message, "give another --engine")
        return
    path = Path(url.removeprefix("sqlite:///")).resolve()
    folder = path.parent
    if not folder.is_dir():
        yield Finding("engine", "problem", f"there is no folder {folder}", f"mkdir -p {folder}")
        return
    trouble = _write_trouble(folder, path)
    if trouble:
        yield Finding("engine", "problem", trouble, "give the server's user the right to write there")
    elif not path.exists():
        yield Finding("engine", "ok", f"{path} will be made")
    else:
        yield _log_file(path)
    yield _space(folder)


def _write_trouble(folder: Path, path: Path) -> str:
    """Say why the folder or the file can't be written; tried with a file of our own beside the log."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"{folder} can't be written: {error.strerror}"
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return f"{path} can't be read and written"
    return ""


def _log_file(path: Path) -> Finding:
    """Open the log as a reader, which disturbs no server."""
    import apsw

    from steadcast.engines.sqlite_restore import ALL
    from steadcast.engines.sqlite_schema import APPLICATION_ID, SCHEMA_VERSION, connect

    try:
        conn = connect(path, apsw.SQLITE_OPEN_READONLY, busy=1.0)
        try:
            version, kind = conn.pragma("user_version"), conn.pragma("application_id")
        finally:
            conn.close(force=True)
    except (SteadcastError, apsw.Error) as error:
        return Finding("engine", "problem", f"{path}: {error}", "give another --engine, or a backup")
    if kind not in {APPLICATION_ID, 0}:
        return Finding("engine", "problem", f"{path} is another program's file", "give another --engine")
    if version > SCHEMA_VERSION:
        return Finding(
            "engine", "problem", f"{path} is of a newer steadcast (schema {version})", "update steadcast"
        )
    files = [path.with_name(path.name + end) for end in ALL]
    size = sum(each.stat().st_size for each in files if each.is_file())
    holder = _holder(path)
    return Finding(
        "engine", "ok", f"{path}, {size_words(size)}" + (f", served by process {holder}" * bool(holder))
    )


def _holder(path: Path) -> int:
    """Give the process that has the log's lock, by what it wrote there; 0 where none lives."""
    try:
        process = int(path.with_name(path.name + ".lock").read_text() or 0)
        os.kill(process, 0) if process > 0 else None
    except PermissionError:
        return process  # it lives, and is somebody else's
    except (OSError, ValueError):
        return 0
    return max(process, 0)


def _space(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    told = f"{size_words(free)} free for {folder}"
    if free < NO_SPACE:
        return Finding("disk", "problem", told, "make room: the server refuses events when none is left")
    if free < LITTLE_SPACE:
        return Finding("disk", "warning", told, "make room, or lower STEADCAST_RETENTION_BYTES")
    return Finding("disk", "ok", told)


def _other_engine(url: str) -> Finding:
    import asyncio

    from steadcast.engines import open_engine

    async def look() -> str:
        engine = open_engine(url)
        try:
            async with asyncio.timeout(5):
                return (await engine.describe()).epoch
        finally:
            await engine.aclose()

    shown = without_secrets(url)
    try:
        epoch = asyncio.run(look())
    except TimeoutError:
        return Finding("engine", "problem", f"{shown}: no answer within 5 s", "see whether it runs")
    except SteadcastError as error:
        return Finding("engine", "problem", f"{shown}: {error.message}", "give another --engine")
    return Finding("engine", "ok", f"{shown}, epoch {epoch}")


def _lazy(url: str) -> Findings:
    """Warn of servers that answer before they flush: no client can ask them whether they do."""
    try:
        options = parse_url(url)
    except SteadcastError:
        return  # told by `_other_engine`
    if options.sync == "lazy":
        yield Finding(
            "flushing",
            "warning",
            "JetStream flushes every two minutes unless told otherwise: a power cut can take what was acked",
            "set sync_interval: always in every server's jetstream block, then add sync=always to --engine",
        )
