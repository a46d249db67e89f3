"""One write for an answer's head and what follows it; nothing else waits, and nothing is lost."""

from __future__ import annotations

import asyncio

from steadcast.http.joined import Joined

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Recorder(asyncio.Transport):
    """Keeps what is written, each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def test_a_head_goes_out_with_the_body_and_the_rest_as_it_comes() -> None:
    transport = Recorder()
    joined = Joined(transport)
    for part in (HEAD, b"one", b"two", b"HTTP/1.1 in a body"):
        joined.write(part)
    assert transport.writes == [HEAD + b"one", b"two", b"HTTP/1.1 in a body"]


def test_an_empty_body_lets_its_head_go() -> None:
    transport = Recorder()
    joined = Joined(transport)
    joined.write(HEAD)
    assert transport.writes == []
    joined.write(b"")
    assert transport.writes == [HEAD]


def test_the_word_that_a_client_waits_for_goes_out_at_once() -> None:
    transport = Recorder()
    joined = Joined(transport)
    joined.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert transport.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    joined.write(HEAD)
    joined.write(b"body")
    assert transport.writes[1:] == [HEAD + b"body"]


def test_an_answer_that_breaks_off_has_its_head_before_the_end() -> None:
    transport = Recorder()
    joined = Joined(transport)
    joined.write(HEAD)
    joined.close()
    assert (transport.writes, joined.is_closing()) == ([HEAD], True)
