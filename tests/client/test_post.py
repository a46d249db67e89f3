"""One POST against a real server: what answers mean, and that the deadline holds whatever the server does."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadcast.client.post import (
    ACCEPTED,
    MAX_RETRY_AFTER,
    PERMANENT,
    TEMPORARY,
    Connection,
    Outcome,
    classify,
)
from tests.fake_ingest import Answer, FakeIngest, problem
from tests.support.certificates import make_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATH = "/v1/streams/s/events"
BODY = b'{"id":"1"}'


@pytest.fixture
def server() -> Iterator[FakeIngest]:
    with FakeIngest() as fake:
        yield fake


@pytest.fixture
def connection(server: FakeIngest) -> Iterator[Connection]:
    opened = Connection(server.url)
    yield opened
    opened.close()


def post(connection: Connection, timeout: float = 20.0) -> Outcome:
    return connection.post(PATH, {"content-type": "application/json"}, BODY, timeout=timeout)


def test_an_acknowledged_request_is_accepted_with_its_results(
    server: FakeIngest, connection: Connection
) -> None:
    outcome = post(connection)
    assert outcome.kind == ACCEPTED
    assert outcome.answer["results"][0]["id"] == "1"
    assert server.ids(PATH) == ["1"]


def test_the_connection_is_kept_between_requests(server: FakeIngest, connection: Connection) -> None:
    assert {post(connection).kind for _ in range(3)} == {ACCEPTED}
    assert len({received.connection for received in server.requests}) == 1


def test_a_server_that_closes_after_its_answer_gets_a_new_connection(
    server: FakeIngest, connection: Connection
) -> None:
    server.then(Answer(headers={"Connection": "close"}))
    assert post(connection).kind == ACCEPTED
    assert post(connection).kind == ACCEPTED
    assert len({received.connection for received in server.requests}) == 2


def test_a_kept_connection_that_the_server_dropped_costs_no_failure(connection: Connection) -> None:
    with FakeIngest() as first:
        kept = Connection(first.url)
        assert post(kept).kind == ACCEPTED
    with FakeIngest(first.port) as second:
        assert post(kept).kind == ACCEPTED
        assert second.ids() == ["1"]
        kept.close()


def test_a_fresh_connection_that_is_cut_is_a_temporary_failure(
    server: FakeIngest, connection: Connection
) -> None:
    server.then(Answer(cut=True))
    assert post(connection).kind == TEMPORARY
    assert post(connection).kind == ACCEPTED


def test_token_and_base_path_travel(server: FakeIngest) -> None:
    connection = Connection(f"{server.url}/base/", token="secret\n")  # noqa: S106 - no secret of anybody
    post(connection)
    connection.close()
    assert server.requests[0].path == f"/base{PATH}"
    assert server.requests[0].headers["authorization"] == "Bearer secret"
    assert server.requests[0].headers["host"] == f"127.0.0.1:{server.port}"


def test_nobody_listening_is_temporary() -> None:
    with FakeIngest() as gone:
        url = gone.url
    outcome = post(Connection(url))
    assert (outcome.kind, outcome.code) == (TEMPORARY, "unreachable")


def test_a_name_without_an_address_is_temporary() -> None:
    assert post(Connection("http://nowhere.invalid:8765")).kind == TEMPORARY


def test_a_server_that_never_answers_is_left_at_the_deadline(
    server: FakeIngest, connection: Connection
) -> None:
    server.then(Answer(delay=30))
    began = time.monotonic()
    outcome = post(connection, timeout=0.3)
    assert (outcome.kind, outcome.code) == (TEMPORARY, "timeout")
    assert 0.25 < time.monotonic() - began < 15


def test_a_server_that_answers_byte_by_byte_is_left_at_the_deadline(
    server: FakeIngest, connection: Connection
) -> None:
    server.then(Answer(drip=0.05))
    began = time.monotonic()
    outcome = post(connection, timeout=0.4)
    assert (outcome.kind, outcome.code) == (TEMPORARY, "timeout")
    assert time.monotonic() - began < 15


def test_after_a_timeout_the_next_request_is_not_given_the_late_answer(
    server: FakeIngest, connection: Connection
) -> None:
    server.then(Answer(200, {"results": "late"}, delay=0.4))
    assert post(connection, timeout=0.1).kind == TEMPORARY
    assert post(connection).answer["results"][0]["id"] == "1"


def test_a_server_is_known_by_the_one_certificate_that_is_given(tmp_path: Path) -> None:
    own, other = (make_certificate(tmp_path, name) for name in ("own.example", "other.example"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*own)
    with FakeIngest(tls=context) as server:
        for given, kind in ((own, ACCEPTED), (other, TEMPORARY), (None, TEMPORARY)):
            shown = None if given is None else partial(ssl.PEM_cert_to_DER_cert, given[0].read_text())
            connection = Connection(server.url.replace("http:", "https:"), certificate=shown)
            assert post(connection).kind == kind
            connection.close()
        assert len(server.requests) == 1


def test_abort_breaks_off_a_post_in_another_thread(server: FakeIngest, connection: Connection) -> None:
    server.then(Answer(delay=30))
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(post(connection, timeout=30)))
    thread.start()
    server.wait(lambda: len(server.requests) == 1)
    connection.abort()
    thread.join(5)
    assert not thread.is_alive()
    assert [outcome.kind for outcome in outcomes] == [TEMPORARY]
    assert post(connection).kind == TEMPORARY


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/a b", {}),
        ("/a\r\nX: y", {}),
        ("/ok", {"x": "a\r\nEvil: 1"}),
        ("/ok", {"x\n": "a"}),
        ("/ok", {"x": "ü"}),
    ],
)
def test_what_would_break_the_framing_is_refused(path: str, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="printable"):
        Connection("http://127.0.0.1:1").post(path, headers, b"", timeout=1)


def test_a_token_with_line_breaks_inside_is_refused() -> None:
    with pytest.raises(ValueError, match="token"):
        Connection("http://127.0.0.1:1", token="a\r\nb")  # noqa: S106 - no secret of anybody


def raw_answer(content: bytes) -> Outcome:
    """Answer one request with exactly these bytes, then close."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(content)

        thread = threading.Thread(target=serve)
        thread.start()
        connection = Connection(f"http://127.0.0.1:{listener.getsockname()[1]}")
        outcome = post(connection, timeout=2)
        connection.close()
        thread.join()
    return outcome


def test_chunked_answers_are_read() -> None:
    content = (
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n{"a":\r\n2\r\n1}\r\n0\r\nT: x\r\n\r\n'
    )
    assert raw_answer(content).answer == {"a": 1}


def test_interim_answers_are_passed_over() -> None:
    assert raw_answer(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").kind == ACCEPTED


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    assert raw_answer(b'HTTP/1.0 200 OK\r\n\r\n{"a": 1}').answer == {"a": 1}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 \xb2\xb2\xb2\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"a":1}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
        b"x" * 200_000,
    ],
)
def test_what_is_no_whole_http_answer_is_temporary(content: bytes) -> None:
    assert raw_answer(content).kind == TEMPORARY


def test_an_answer_of_many_chunks_is_read_as_far_as_any_of_ours_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steadcast.client.post._MAX_BODY", 20)
    outcome = raw_answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"8\r\n{       \r\n" * 3)
    assert (outcome.kind, "too long" in outcome.reason) == (TEMPORARY, True)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(400, "invalid_event", temporary=False), PERMANENT),
        (problem(400, "invalid_event"), PERMANENT),
        (problem(409, "id_conflict", temporary=False), PERMANENT),
        (problem(413, "event_too_large"), PERMANENT),
        (problem(401, "unauthorized", temporary=False), PERMANENT),
        (problem(421, "wrong_host", temporary=False), TEMPORARY),
        (problem(401, "token_expired", temporary=True), TEMPORARY),
        (problem(401, "unauthorized"), TEMPORARY),
        (problem(403, "forbidden"), TEMPORARY),
        (problem(404, "not_found"), PERMANENT),
        (Answer(400, text="<h1>bad</h1>"), PERMANENT),
        (Answer(404, text="<h1>nobody here</h1>"), TEMPORARY),
        (Answer(405, text=""), TEMPORARY),
        (Answer(408, text=""), TEMPORARY),
        (Answer(425, text=""), TEMPORARY),
        (problem(429, "rate_limited"), TEMPORARY),
        (Answer(500, text="oops"), TEMPORARY),
        (problem(503, "engine_unavailable", temporary=True), TEMPORARY),
        (problem(500, "internal", temporary=False), TEMPORARY),
        (Answer(302, text="", headers={"Location": "/login"}), TEMPORARY),
        (Answer(200, text="<html>a page of somebody else"), TEMPORARY),
        (Answer(200, json=[1, 2]), TEMPORARY),
        (Answer(200, json={}), ACCEPTED),
        (Answer(204, text=""), ACCEPTED),
    ],
)
def test_each_answer_has_its_meaning(
    server: FakeIngest, connection: Connection, answer: Answer, kind: str
) -> None:
    server.then(answer)
    assert post(connection).kind == kind


def test_a_refused_batch_names_the_bad_event(server: FakeIngest, connection: Connection) -> None:
    server.then(problem(400, "invalid_event", index=3))
    outcome = post(connection)
    assert (outcome.index, outcome.code, outcome.detail) == (3, "invalid_event", "it is invalid_event")
    assert outcome.reason == "400 invalid_event it is invalid_event"


@pytest.mark.parametrize(
    ("header", "member", "seconds"),
    [
        ("7", None, 7),
        ("7", 2.5, 2.5),
        (None, 3, 3),
        ("999999999", None, MAX_RETRY_AFTER),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None, 0),
        ("soon", None, None),
        ("²", None, None),
        (None, -1, None),
        (None, True, None),
        (None, "5", None),
        (None, float("nan"), None),
        (None, 10**400, MAX_RETRY_AFTER),
    ],
)
def test_retry_after_is_read_from_body_and_header(header: str | None, member: Any, seconds: Any) -> None:
    import json

    headers = {} if header is None else {"retry-after": header}
    body = {} if member is None else {"retry_after": member}
    assert classify(503, headers, json.dumps(body).encode()).retry_after == seconds


@given(
    st.integers(100, 999),
    st.dictionaries(st.sampled_from(["retry-after", "x"]), st.text(max_size=20)),
    st.one_of(
        st.binary(max_size=50),
        st.dictionaries(
            st.sampled_from(["temporary", "code", "detail", "index", "retry_after"]),
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.none())),
        ),
    ),
)
def test_any_answer_has_a_meaning(status: int, headers: dict[str, str], body: Any) -> None:
    import json

    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    outcome = classify(status, headers, content)
    assert outcome.kind in {ACCEPTED, TEMPORARY, PERMANENT}
    assert outcome.kind != ACCEPTED or 200 <= status < 300
    assert outcome.retry_after is None or 0 <= outcome.retry_after <= MAX_RETRY_AFTER
