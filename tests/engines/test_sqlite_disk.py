"""A SQLite log whose disk runs full or can't be written: real ones, made for processes of their own."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from tests.engine_disk import can_mount, live_through_a_full_disk, tell

MOUNTS = can_mount()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder that another user can reach; pytest's own are for their owner alone."""
    with tempfile.TemporaryDirectory(prefix="steadcast-") as name:
        yield Path(name)


async def test_sqlite_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [300]
    hooks = [lambda conn: conn.pragma("max_page_count", pages[0])]
    monkeypatch.setattr(apsw, "connection_hooks", hooks)

    def make_room() -> None:
        pages[0] = 100_000
        for conn in apsw.connections():
            conn.pragma("max_page_count", pages[0])

    await live_through_a_full_disk(tmp_path / "log.db", make_room)


def test_sqlite_ioerr(folder: Path) -> None:
    tell("under_a_file_size_limit", folder)


def test_a_start_without_room_is_told_and_waited_for(folder: Path) -> None:
    tell("from_a_start_without_room", folder)


def test_no_right_to_write(folder: Path) -> None:
    tell("without_the_right_to_write", folder)


@pytest.mark.parametrize("story", ["on_a_small_disk", "on_a_readonly_disk"])
def test_a_disk_of_its_own(folder: Path, story: str) -> None:
    if MOUNTS:
        tell(story, folder, own_mounts=True)
        return
    # Where nobody may mount (a container without rights), its sibling above is the nearest that can be had;
    # that this one could not be told is said aloud, in the summary of the warnings.
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"{story}: no tmpfs can be mounted here", stacklevel=1)
    near = {"on_a_small_disk": "under_a_file_size_limit", "on_a_readonly_disk": "without_the_right_to_write"}
    tell(near[story], folder)
