"""What `tail` reads from its options, and what it says beside its output."""

from __future__ import annotations

import pytest

from steadcast.commands.tail import _tell_gap, parse_after, parse_start
from steadcast.core.effects import Told
from steadcast.errors import InvalidRequest
from steadcast.event import Lane


def test_where_to_begin() -> None:
    assert [parse_start(text) for text in ("start", "end", "last:20")] == ["start", "end", {"last": 20}]


@pytest.mark.parametrize(
    "text",
    [
        *("", "begin", "last", "last:", "last:-1", "last:x", "start:1", "last:\u00b2"),
        *(f"last:{2**53}", f"last:{'9' * 5_000}"),
    ],
)
def test_where_to_begin_in_any_other_words_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="start, end or last:N"):
        parse_start(text)


def test_where_to_go_on() -> None:
    assert parse_after(["normal:e-1:17", "critical:e-1:0"]) == {"normal": ["e-1", 17], "critical": ["e-1", 0]}


@pytest.mark.parametrize(
    "texts",
    [
        ["normal"],
        ["normal:e"],
        ["normal:e:x"],
        ["normal:e:1:id"],
        ["urgent:e:1"],
        ["normal:e:-1"],
        ["normal:e:1", "normal:e:2"],
        [f"normal:e:{'9' * 5_000}"],
    ],
)
def test_where_to_go_on_in_any_other_words_is_refused(texts: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="--after takes"):
        parse_after(texts)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            Told(kind="trimmed", lane=Lane.NORMAL, lost=(3, 9)),
            "normal: offsets 3 to 9 are gone: the log was trimmed",
        ),
        (
            Told(kind="trimmed", lane=Lane.CRITICAL, lost=(3, 9), maybe=True),
            "critical: offsets 3 to 9 may be gone: the log was trimmed",
        ),
        (Told(kind="reset", lane=Lane.NORMAL), "normal: the log is another one than before; it begins anew"),
    ],
)
def test_what_is_gone_is_told_beside_the_output(
    told: Told, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _tell_gap(told)
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"steadcast: {words}\n")
