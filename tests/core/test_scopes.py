"""Identities, scopes and patterns of streams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadcast.core.scopes import ANYBODY, Grant, Identity, Scope, check_pattern, matches
from steadcast.errors import InvalidRequest, NotAllowed


@pytest.mark.parametrize(
    ("pattern", "stream", "stands"),
    [
        ("orders", "orders", True),
        ("orders", "orders.eu", False),
        ("orders.*", "orders.eu", True),
        ("orders.*", "orders", False),
        ("orders.*", "orders.", True),
        ("*.audit", "eu.audit", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*c", "abc", True),
        ("*", "anything", True),
        ("*", "steadcast.streams", True),
        ("s*", "steadcast.streams", False),
        ("*streams", "steadcast.streams", False),
        ("steadcast.*", "steadcast.dead", True),
        ("steadcast.*", "orders", False),
        ("orders*", "*", False),
    ],
)
def test_a_pattern_stands_for_what_it_says(pattern: str, stream: str, stands: bool) -> None:
    assert matches(pattern, stream) is stands


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_one_star_stands_for_any_run_and_a_name_for_itself_alone(a: str, b: str, c: str) -> None:
    a, c = f"x{a.replace('*', '')}", c.replace("*", "")
    assert matches(f"{a}*{c}", a + b + c)
    assert matches(a, b) is (a == b)


@pytest.mark.parametrize("pattern", ["", "a*b*c", "**", "x" * 129])
def test_a_pattern_of_no_use_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidRequest):
        check_pattern(pattern)


def identity(
    *scopes: Scope,
    streams: tuple[str, ...] = ("orders.*",),
    expires: float | None = None,
    grant: Grant | None = None,
) -> Identity:
    return Identity(name="x", scopes=frozenset(scopes), streams=streams, expires=expires, grant=grant)


@pytest.mark.parametrize("scope", Scope)
def test_each_scope_opens_its_own_and_nothing_else(scope: Scope) -> None:
    one = identity(scope)
    one.check(scope, "orders.eu", now=0.0)
    one.check(scope, now=0.0)
    for other in set(Scope) - {scope}:
        with pytest.raises(NotAllowed) as caught:
            one.check(other, "orders.eu", now=0.0)
        assert (caught.value.code, caught.value.temporary) == ("forbidden", False)
        assert caught.value.fields == {"scope": other}


def test_streams_outside_the_patterns_stay_shut_and_admin_is_of_the_whole_server() -> None:
    one = identity(*Scope)
    for scope in (Scope.PUBLISH, Scope.SUBSCRIBE):
        for stream in ("other", "*", "steadcast.streams"):
            with pytest.raises(NotAllowed, match="may not"):
                one.check(scope, stream, now=0.0)
    one.check(Scope.ADMIN, "other", now=0.0)


def test_without_patterns_nothing_is_covered() -> None:
    assert not identity(*Scope, streams=()).covers("orders")


def test_the_end_is_exact_and_temporary() -> None:
    one = identity(*Scope, expires=100.0)
    one.check(Scope.PUBLISH, "orders.eu", now=99.9)
    with pytest.raises(NotAllowed) as caught:
        one.check(Scope.PUBLISH, "orders.eu", now=100.0)
    assert (caught.value.code, caught.value.temporary) == ("token_expired", True)


def test_what_is_taken_back_is_over_before_its_end_and_temporary() -> None:
    grant = Grant()
    one = identity(*Scope, expires=100.0, grant=grant)
    one.check(Scope.PUBLISH, "orders.eu", now=1.0)
    grant.revoke()
    for now in (1.0, 100.0):
        with pytest.raises(NotAllowed) as caught:
            one.check(Scope.PUBLISH, "orders.eu", now=now)
        assert (caught.value.code, caught.value.temporary) == ("token_revoked", True)


def test_where_no_token_is_set_everybody_may_everything() -> None:
    for scope in Scope:
        ANYBODY.check(scope, "steadcast.dead", now=1e18)


def test_a_refusal_repeats_a_name_only_in_part_and_as_ascii() -> None:
    with pytest.raises(NotAllowed) as caught:
        identity(*Scope).check(Scope.PUBLISH, "ü\n" * 10_000, now=0.0)
    assert caught.value.message.isascii()
    assert len(caught.value.message) < 1_000
