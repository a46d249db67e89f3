"""Rates: connects and guesses per address, publishes per client."""

from __future__ import annotations

from collections import Counter

import pytest

from steadcast.errors import InvalidRequest, RateLimited
from steadcast.http import rates as module
from steadcast.http.rates import Rates, check_rate, is_local, network

FAR = "203.0.113.7"


async def over(what: object) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        await what  # type: ignore[misc]  # a coroutine
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 600
    assert (caught.value.code, caught.value.temporary) == ("rate_limited", True)
    return caught.value


async def test_connects_are_counted_by_address() -> None:
    counts: Counter[str] = Counter()
    rates = Rates(connects="3/minute", counts=counts)
    for _ in range(3):
        await rates.connect(FAR)
    await over(rates.connect(FAR))
    await rates.connect("203.0.113.8")
    assert counts == {"limited_connects": 1}


async def test_this_machines_own_addresses_are_not_counted() -> None:
    rates = Rates(connects="1/day")
    for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", None):
        await rates.connect(address)
        await rates.connect(address)


async def test_an_ipv6_subscriber_is_one_client_whatever_address_of_its_own_it_takes() -> None:
    rates = Rates(connects="1/day")
    await rates.connect("2001:db8::1")
    await over(rates.connect("2001:db8::ffff:2"))
    await rates.connect("2001:db8:0:1::1")


async def test_publishes_are_counted_by_event_and_more_than_the_rate_take_the_whole_of_it() -> None:
    rates = Rates(publishes="10/minute")
    await rates.publish("a", 6)
    await over(rates.publish("a", 6))
    await rates.publish("a", 4)
    await rates.publish("b", 1_000)
    await over(rates.publish("b", 1))
    await rates.publish("b", 0)


async def test_after_too_many_wrong_tokens_none_is_looked_at_but_those_that_were_right() -> None:
    rates = Rates(guesses="2/minute")
    await rates.guessed(FAR, "good", right=True)
    for n in range(2):
        await rates.guess(FAR, f"wrong{n}")
        await rates.guessed(FAR, f"wrong{n}", right=False)
    await over(rates.guess(FAR, "another"))
    await rates.guess(FAR, "good")
    await rates.guess("203.0.113.8", "another")
    await rates.guessed(FAR, "good", right=False)
    await over(rates.guess(FAR, "another"))


async def test_a_wrong_token_that_is_shown_again_is_no_other_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN", 5)
    rates = Rates(guesses="2/minute")
    for _ in range(20):
        await rates.guess(FAR, "taken back")
        await rates.guessed(FAR, "taken back", right=False)
    await rates.guess(FAR, "another")
    await rates.guessed(FAR, "another", right=False)
    await rates.guess(FAR, "taken back")
    await over(rates.guess(FAR, "a third"))
    for n in range(20):
        await rates.guessed(FAR, f"wrong{n}", right=False)
    assert len(rates._wrong) == 5


async def test_without_a_rate_nothing_is_counted() -> None:
    rates = Rates()
    for _ in range(50):
        await rates.connect(FAR)
        await rates.publish("a", 1_000)
        await rates.guess(FAR, "x")
        await rates.guessed(FAR, "x", right=False)


async def test_what_is_held_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 20)
    monkeypatch.setattr(module, "KNOWN", 5)
    counts: Counter[str] = Counter()
    rates = Rates(connects="5/minute", guesses="5/minute", counts=counts)
    for n in range(200):
        await rates.connect(f"203.0.{n}.1")
        await rates.guessed(FAR, str(n), right=True)
    assert len(rates._storage.storage) <= 21
    assert len(rates._right) == 5
    assert counts["rates_forgotten"] >= 5


@pytest.mark.parametrize("text", ["10/second", "300 per minute", "1000/5 minutes", "1/day"])
def test_a_rate_is_read_as_the_library_does(text: str) -> None:
    from limits import parse

    assert check_rate(text, "f") == text
    assert parse(text).amount > 0


@pytest.mark.parametrize(
    "text", ["", "ten/second", "0/second", "10", "10/week", "1/second;5/minute", "-1/day"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="or off"):
        check_rate(text, "rate_connects")


def test_an_address_that_is_none_is_a_client_too() -> None:
    assert (network("testclient"), network(None)) == ("testclient", "")
    assert not is_local("testclient")
