"""The same bytes to many sockets at once: each gets them, and those that don't take all of them are told."""

from __future__ import annotations

import os
import platform
import socket
from typing import TYPE_CHECKING

import pytest

from steadcast.socketio.aio import ROOM, Aio
from tests.support.kernel import needs_aio

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_aio

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """Connect over TCP, more often than goes in one call; gives who writes and who reads."""
    made = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        for _ in range(ROOM + 50):
            reader = socket.create_connection(listener.getsockname())
            writer, _ = listener.accept()
            writer.setblocking(False)
            made.append((writer, reader))
    yield made
    for writer, reader in made:
        writer.close()
        reader.close()


def ready() -> Aio:
    aio = Aio()
    assert aio.ready()
    return aio


def writers(pairs: list[Pair]) -> list[int]:
    return [writer.fileno() for writer, _ in pairs]


def read(reader: socket.socket, size: int) -> bytes:
    reader.settimeout(30)
    return reader.recv(size, socket.MSG_WAITALL)


def test_each_socket_gets_all_of_it_and_nothing_is_short(pairs: list[Pair]) -> None:
    aio = ready()
    for data in (b"first", b"x" * 4_000, b"last"):
        assert aio.write(data, writers(pairs)) == {}
        assert {read(reader, len(data)) for _, reader in pairs} == {data}


def test_nobody_is_written_to_where_there_is_nobody() -> None:
    assert ready().write(b"data", []) == {}


def test_a_socket_that_is_full_tells_how_much_it_took_and_the_others_get_all(pairs: list[Pair]) -> None:
    aio, data = ready(), b"y" * 3_000
    slow, gone = 7, ROOM + 20  # one in the first call, one in the second
    taken = {slow: 0, gone: 0}
    for index in taken:
        writer = pairs[index][0]
        writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        try:
            while True:
                taken[index] += writer.send(b"y" * 50_001)
        except BlockingIOError:
            pass
    short = aio.write(data, writers(pairs))
    assert set(short) == set(taken)
    assert all(took < len(data) for took in short.values())
    for index, (_, reader) in enumerate(pairs):
        size = taken[index] + short[index] if index in taken else len(data)
        assert read(reader, size) == b"y" * size


def test_a_socket_whose_reader_has_left_takes_nothing(pairs: list[Pair]) -> None:
    aio = ready()
    pairs[3][1].close()
    writer = pairs[3][0]
    try:
        while True:
            writer.send(b"until the reset is here")
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert aio.write(b"data", writers(pairs)) == {3: 0}


def test_a_socket_that_is_closed_keeps_nothing_from_the_others(pairs: list[Pair]) -> None:
    """It may not be given: but where it is, whoever wasn't written to is told."""
    fds = writers(pairs)
    pairs[5][0].close()
    short = ready().write(b"data", fds)
    assert 5 in short
    for index, (_, reader) in enumerate(pairs):
        if index not in short:
            assert read(reader, 4) == b"data"


def test_behind_its_end_nothing_is_taken(pairs: list[Pair]) -> None:
    aio = ready()
    aio.close()
    assert not aio.ready()
    assert aio.write(b"data", writers(pairs)) == dict.fromkeys(range(len(pairs)), 0)


def test_behind_a_fork_the_child_takes_nothing_and_the_parent_goes_on(pairs: list[Pair]) -> None:
    aio = ready()
    child = os.fork()
    if child == 0:
        os._exit(0 if aio.write(b"child", writers(pairs)[:2]) == {0: 0, 1: 0} else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert aio.write(b"data", writers(pairs)) == {}
    assert read(pairs[0][1], 4) == b"data"


def test_another_machine_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    assert not Aio().ready()
