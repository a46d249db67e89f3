"""A token that is a function: asked once, and again when it was refused."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from steadcast.client.async_publisher import AsyncPublisher
from steadcast.client.delivery import deliver
from steadcast.client.post import PERMANENT, TEMPORARY, Connection, Outcome
from steadcast.client.publisher import Publisher
from steadcast.client.token import TokenFailed, TokenSource, fresh
from steadcast.core.backoff import Backoff
from steadcast.errors import NotAllowed, Unavailable
from tests.fake_ingest import Answer, FakeIngest, Received, problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = Backoff(base=0.01, cap=0.05)


def counting() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"t{next(numbers)}"


async def counting_slowly_from(numbers: Iterator[int]) -> str:
    await asyncio.sleep(0)
    return f"t{next(numbers)}"


def only(*tokens: str) -> Callable[[Received], Answer | None]:
    good = {f"Bearer {token}" for token in tokens}

    def rule(received: Received) -> Answer | None:
        shown = received.headers.get("authorization")
        return None if shown in good else problem(401, "token_expired", temporary=True)

    return rule


@pytest.fixture
def server() -> Iterator[FakeIngest]:
    with FakeIngest() as fake:
        yield fake


def test_a_function_is_asked_once_and_again_after_a_refusal() -> None:
    source = TokenSource(counting())
    assert [source.current(), source.current()] == ["t1", "t1"]
    assert source.refused("t1")
    assert source.current() == "t2"
    assert source.refused("t1"), "an old one"
    assert source.current() == "t2"
    assert not TokenSource("fixed").refused("fixed")
    assert (TokenSource(None).current(), TokenSource(" a ").current()) == ("", "a")


@pytest.mark.parametrize("gives", [lambda: 1 / 0, lambda: None, lambda: "a\nb", lambda: "ü"])
async def test_a_function_that_fails_is_told_without_its_words(gives: Any) -> None:
    with pytest.raises(TokenFailed) as caught:
        TokenSource(gives).current()
    assert "division" not in str(caught.value)
    with pytest.raises(TokenFailed):
        await TokenSource(gives).wait()
    with pytest.raises(Unavailable) as unavailable:
        await fresh(gives)
    assert (unavailable.value.code, unavailable.value.temporary) == ("token_failed", True)


async def test_an_awaited_function_that_fails_is_told_too() -> None:
    async def failing() -> str:
        raise OSError

    with pytest.raises(TokenFailed):
        await TokenSource(failing).wait()


def test_a_refused_token_is_refreshed_and_the_request_sent_again(server: FakeIngest) -> None:
    server.rule = only("t2")
    connection = Connection(server.url, token=counting())
    outcome = connection.post("/v1/streams/s/events", {"ce-id": "1"}, b"{}", timeout=5)
    assert outcome.status == 200
    assert [each.headers["authorization"] for each in server.requests] == ["Bearer t1", "Bearer t2"]
    connection.close()


def test_a_function_that_gives_the_same_again_is_not_sent_twice(server: FakeIngest) -> None:
    server.rule = only("other")
    connection = Connection(server.url, token=lambda: "same")
    outcome = connection.post("/x", {}, b"{}", timeout=5)
    assert (outcome.status, outcome.kind, len(server.requests)) == (401, TEMPORARY, 1)
    connection.close()


def test_a_function_that_fails_is_a_temporary_failure(server: FakeIngest) -> None:
    outcome = Connection(server.url, token=lambda: str(1 / 0)).post("/x", {}, b"{}", timeout=5)
    assert (outcome.kind, outcome.code, server.requests) == (TEMPORARY, "token_failed", [])


def test_a_publisher_goes_on_with_a_fresh_token(server: FakeIngest, tmp_path: Path) -> None:
    tokens = iter(["t1", "t2", "t3"])
    server.rule = only("t1")
    with Publisher(
        server.url, token=lambda: next(tokens), spool=tmp_path, source="test", backoff=QUICK
    ) as publisher:
        publisher.publish("s", type="t", id="1")
        assert publisher.flush().acked == 1
        server.rule = only("t2")
        publisher.publish("s", type="t", id="2")
        assert publisher.flush().acked == 2
    assert [each for _, each in server.applied] == ["1", "2"]


@pytest.mark.parametrize("slowly", [True, False])
async def test_an_async_publisher_goes_on_with_a_fresh_token(server: FakeIngest, slowly: bool) -> None:
    numbers = itertools.count(1)
    server.rule = only("t2")
    token: Any = (lambda: counting_slowly_from(numbers)) if slowly else counting()
    async with AsyncPublisher(server.url, token=token, source="test", retries=0) as publisher:
        await publisher.publish("s", type="t", id="1")
        await publisher.publish("s", type="t", id="2")
    shown = [each.headers["authorization"] for each in server.requests]
    assert shown == ["Bearer t1", "Bearer t2", "Bearer t2"]


async def test_an_async_publisher_tells_what_never_helps(server: FakeIngest) -> None:
    server.rule = only("other")
    async with AsyncPublisher(server.url, token=counting(), source="test", retries=0) as publisher:
        with pytest.raises(NotAllowed):
            await publisher.publish("s", type="t")
    async with AsyncPublisher(server.url, token=lambda: str(1 / 0), retries=0) as publisher:
        with pytest.raises(Unavailable) as caught:
            await publisher.publish("s", type="t")
        assert caught.value.code == "token_failed"


def test_a_stream_that_the_token_does_not_cover_holds_up_no_other() -> None:
    def send(entries: Any) -> Outcome:
        if "secret" in entries:
            return Outcome(PERMANENT, 403, code="forbidden", index=list(entries).index("secret"))
        return Outcome("accepted", 200)

    delivery = deliver(send, ["a", "secret", "b"])
    assert delivery.accepted == ["a", "b"]
    assert [entry for entry, _ in delivery.refused] == ["secret"]
    assert delivery.stopped is None
