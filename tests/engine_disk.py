"""A disk that runs full under a log, or can't be written: the stories, and the children that live them.

Run as a program it becomes a process of its own, which may take away its rights, its room or its disk
without taking them from the tests: `python engine_disk.py STORY FOLDER`.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from steadcast.errors import EngineUnavailable, SteadcastError
from tests.engine_backends import NORMAL, event, open_sqlite, read_all
from tests.engine_logfile import check

KIB = 1024
NOBODY = 65534


async def live_through_a_full_disk(path: Path, make_room: Callable[[], None]) -> None:
    """Fill the disk, see every call say so or go on working, make room, find everything that was acked."""
    engine = open_sqlite(path)
    acked = await _append_until_full(engine)
    with pytest.raises(EngineUnavailable) as caught:
        await engine.append("s", [])
    assert caught.value.code == "engine_full"
    assert [e.id for _, e in await read_all(engine, "s", NORMAL)] == acked
    assert (await engine.describe("s")).streams["s"][NORMAL].head == len(acked)
    make_room()
    assert await engine.append("s", []) == []
    receipt = (await engine.append("s", [event("after", "x" * 20_000)]))[0]
    assert receipt.position.offset == len(acked) + 1
    assert engine.statistics().counts.failures["engine_full"] >= 1
    await engine.aclose()
    check(path)
    again = open_sqlite(path)
    assert [e.id for _, e in await read_all(again, "s", NORMAL)] == [*acked, "after"]
    await again.aclose()


async def _append_until_full(engine: object) -> list[str]:
    acked: list[str] = []
    for n in range(2_000):
        try:
            await engine.append("s", [event(n, "x" * 20_000)])  # type: ignore[attr-defined]  # any engine
        except SteadcastError as error:
            assert (error.code, error.temporary) == ("engine_full", True), error  # noqa: PT017 - it must come some time
            return acked
        acked.append(str(n))
    raise AssertionError("the disk never ran full")


def on_a_small_disk(folder: Path) -> None:
    """Run on a tmpfs of 2 MiB, in a mount namespace of this process alone."""
    _mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", folder)
    asyncio.run(live_through_a_full_disk(folder / "log.db", lambda: _mount("-o", "remount,size=64m", folder)))


def under_a_file_size_limit(folder: Path) -> None:
    """Run where no file may exceed 1 MiB: writing fails with EFBIG, which SQLite tells as SQLITE_IOERR."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * KIB, unlimited[1]))
    asyncio.run(
        live_through_a_full_disk(
            folder / "log.db", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        )
    )


def from_a_start_without_room(folder: Path) -> None:
    """Open a log where not a byte more can be written, not even who has it."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, unlimited[1]))

    async def live() -> None:
        engine = open_sqlite(folder / "log.db")
        for call in (engine.describe(), engine.append("s", [event(1)]), engine.append("s", [])):
            with pytest.raises(EngineUnavailable) as caught:
                await call
            assert caught.value.code == "engine_full", caught.value
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        assert (await engine.append("s", [event(1)]))[0].position.offset == 1
        await engine.aclose()

    asyncio.run(live())


def without_the_right_to_write(folder: Path) -> None:
    """Give up root's rights, make the file and its folder read-only, and get them back."""
    if os.getuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    path = folder / "log.db"

    async def fill() -> None:
        engine = open_sqlite(path)
        await engine.append("s", [event(1)])
        await engine.aclose()

    asyncio.run(fill())
    for file_mode, folder_mode in ((0o444, 0o755), (0o644, 0o555), (0o444, 0o555)):
        path.chmod(file_mode)
        path.with_name("log.db.lock").chmod(file_mode)
        folder.chmod(folder_mode)
        asyncio.run(_say_that_it_is_readonly(path, folder))
    folder.chmod(0o555)
    asyncio.run(_say_that_it_is_readonly(folder / "new.db", folder))


async def _say_that_it_is_readonly(path: Path, folder: Path) -> None:
    engine = open_sqlite(path)
    for call in (engine.append("s", [event(2)]), engine.append("s", []), engine.describe()):
        with pytest.raises(EngineUnavailable) as caught:
            await call
        assert (caught.value.code, caught.value.temporary) == ("engine_readonly", True), caught.value
    _give_back(folder)
    assert await engine.append("s", []) == []
    await engine.append("s", [event(1)])
    assert (await engine.describe("s")).streams["s"][NORMAL].head == 1
    await engine.aclose()


def _give_back(folder: Path) -> None:
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)


def on_a_readonly_disk(folder: Path) -> None:
    """Run on a mount that is read-only, in a mount namespace of this process alone."""
    _mount("-t", "tmpfs", "tmpfs", folder)
    path = folder / "log.db"

    async def live() -> None:
        engine = open_sqlite(path)
        await engine.append("s", [event(1)])
        await engine.aclose()
        _mount("-o", "remount,ro", folder)
        again = open_sqlite(path)
        for call in (again.append("s", [event(2)]), again.append("s", []), again.describe()):
            with pytest.raises(EngineUnavailable) as caught:
                await call
            assert caught.value.code == "engine_readonly", caught.value
        _mount("-o", "remount,rw", folder)
        assert (await again.append("s", [event(2)]))[0].position.offset == 2
        await again.aclose()

    asyncio.run(live())


def _mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


STORIES = {
    story.__name__: story
    for story in (
        on_a_small_disk,
        on_a_readonly_disk,
        under_a_file_size_limit,
        from_a_start_without_room,
        without_the_right_to_write,
    )
}
OWN_MOUNTS = (
    ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
)
"""How a process comes by mounts of its own."""


def can_mount() -> bool:
    """Tell whether this machine lets the tests mount a disk of their own."""
    probe = [*OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def tell(story: str, folder: Path, *, own_mounts: bool = False) -> None:
    """Run a story in a process of its own; what it says is said when it fails."""
    before = OWN_MOUNTS if own_mounts else []
    done = subprocess.run(
        [*before, sys.executable, "-m", "tests.engine_disk", story, str(folder)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    STORIES[sys.argv[1]](Path(sys.argv[2]))
