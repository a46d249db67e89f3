"""Engines by URL."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from steadcast.engines import open_engine
from steadcast.engines.base import Retention
from steadcast.engines.jetstream import JetStreamEngine
from steadcast.engines.memory import MemoryEngine
from steadcast.engines.sqlite import SqliteEngine
from steadcast.errors import EngineRefused, InvalidRequest
from tests.engine_backends import event


async def test_memory() -> None:
    engine = open_engine("memory:", retention=Retention(events=1))
    assert isinstance(engine, MemoryEngine)
    assert engine.retention.events == 1


async def test_sqlite_with_three_slashes_is_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    engine = open_engine("sqlite:///some%20log.db", retention=Retention(events=1))
    assert isinstance(engine, SqliteEngine)
    assert engine.retention.events == 1
    monkeypatch.chdir("/")
    await engine.append("s", [event(1)])
    await engine.aclose()
    assert (tmp_path / "some%20log.db").exists()


async def test_sqlite_with_four_slashes_is_absolute(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/log.db")
    await engine.append("s", [event(1)])
    await engine.aclose()
    assert (tmp_path / "log.db").exists()


@pytest.mark.parametrize(
    "url",
    ["", "memory", "memory:x", "memory://", "sqlite", "sqlite:", "sqlite:log.db", "sqlite://log.db",
     "sqlite:///", "sqlite:////", "sqlite:///:memory:", "redis://localhost", "/var/log.db", "nats:",
     "nats://", "nats://host/path", "nats://host?stream=a.b", "nats://host?replicas=2",
     "nats://host?window=1", "nats://host?window=nan", "nats://host?unknown=1", "nats://host,,other",
     "nats://host:port", "nats://host:99999", "nats://host:", "nats://::1", "nats://one,two:4222:4222",
     "nats://ho st", "nats://user:password@one,user:password@two"],
)  # fmt: skip
def test_what_names_no_engine_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        open_engine(url)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("steadcast.engines.jetstream")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nats", None)
    with pytest.raises(EngineRefused, match=r"steadcast\[nats\]"):
        open_engine("nats://localhost:4222")


def test_nats() -> None:
    engine = open_engine("nats://localhost:4222?stream=events", retention=Retention(events=1))
    assert isinstance(engine, JetStreamEngine)
    assert engine.retention.events == 1
