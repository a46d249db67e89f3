"""Minted ids: of the form that RFC 9562 says, each another, and in the order of time."""

from __future__ import annotations

import time
import uuid

import pytest

from steadcast.client.ids import mint_id


def test_an_id_is_a_uuid_of_version_7_that_begins_with_the_time() -> None:
    before = time.time_ns() // 10**6
    minted = mint_id()
    parsed = uuid.UUID(minted)
    assert (str(parsed), parsed.version, parsed.variant) == (minted, 7, uuid.RFC_4122)
    assert before <= parsed.int >> 80 <= time.time_ns() // 10**6


def test_the_12_bits_behind_the_version_are_the_milliseconds_fraction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fractions = {}
    for fraction in (0, 250_000, 999_999):
        moment = 1_700_000_000_123 * 10**6 + fraction
        monkeypatch.setattr(time, "time_ns", lambda moment=moment: moment)
        fractions[fraction] = uuid.UUID(mint_id()).int >> 64 & 0xFFF
    assert fractions == {0: 0, 250_000: 1024, 999_999: 4095}


def test_ids_differ_and_sort_in_the_order_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(range(1_700_000_000_000 * 10**6, 1_700_000_000_002 * 10**6, 1_000))
    monkeypatch.setattr(time, "time_ns", lambda: next(moments))
    minted = [mint_id() for _ in range(2_000)]
    assert len(set(minted)) == len(minted)
    assert sorted(minted) == minted


def test_ids_of_one_moment_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000 * 10**6)
    assert len({mint_id() for _ in range(1_000)}) == 1_000
