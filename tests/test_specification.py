"""docs/specification.md has every sentence of the specification, and what it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "specification.md"
OWN = "tests/test_event_delivery.py"

COUNTS = {
    "Overview": 1,
    "1. Timeout protection": 6,
    "2. Client-side resilience": 11,
    "3. Retry queue": 13,
    "4. Health monitoring": 9,
    "Configuration": 8,
    "Benefits": 5,
    "Monitoring": 13,
    "Backward compatibility": 5,
    "Testing": 6,
    "Future enhancements, here already": 5,
}
"""How many sentences, and lines of examples, each chapter of the specification has."""
FAILURES = 14
GROUPS = ("TestRetryQueue", "TestTimeoutDecorator", "TestHealth", "TestEndToEnd")
EMOJI = "🏓🧟🧹🔄📊"

_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_PLACE = re.compile(r"`([\w./-]+\.(?:py|ts))` `([^`]+)`")
_PYTHON = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")
_TYPESCRIPT = re.compile(r"`(clients/js/tests/\w+\.test\.ts)` \"([^\"]+)\"")
_TITLE = re.compile(r"\bit\(\s*\"((?:[^\"\\]|\\.)+)\"")


class Row(NamedTuple):
    section: str
    sentence: str
    places: list[tuple[str, str]]
    python: list[tuple[str, str]]
    typescript: list[tuple[str, str]]


def rows() -> list[Row]:
    _, *parts = _SECTION.split(PAGE.read_text("utf-8"))
    found = []
    for section, text in zip(parts[::2], parts[1::2], strict=True):
        for line in [line for line in text.splitlines() if line.startswith("| ")][1:]:
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            shown = cells[-1]
            where = cells[1] if len(cells) == 3 else ""
            found.append(
                Row(
                    section,
                    cells[0].strip("“” "),
                    _PLACE.findall(where),
                    _PYTHON.findall(shown),
                    _TYPESCRIPT.findall(shown),
                )
            )
    return found


ROWS = rows()
SENTENCES = [row for row in ROWS if row.section in COUNTS]


@cache
def functions(path: str) -> frozenset[str]:
    """Give a file's tests, those of a class as `Class::test`."""
    names = set()
    for node in ast.parse((ROOT / path).read_text("utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        names |= {
            prefix + each.name for each in inner if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))
        }
    return frozenset(names)


@cache
def titles(path: str) -> frozenset[str]:
    return frozenset(_TITLE.findall((ROOT / path).read_text("utf-8")))


def test_every_chapter_has_all_its_sentences() -> None:
    counted = {section: sum(row.section == section for row in SENTENCES) for section in COUNTS}
    assert counted == COUNTS
    assert sum(COUNTS.values()) >= 40
    assert len(ROWS) - len(SENTENCES) == FAILURES


def test_no_sentence_stands_there_twice() -> None:
    told = [row.sentence for row in ROWS]
    assert sorted(told) == sorted(set(told))


def test_the_log_patterns_have_their_emoji_and_nothing_is_garbled() -> None:
    text = PAGE.read_text("utf-8")
    patterns = [row.sentence for row in SENTENCES if row.sentence[0] in EMOJI]
    assert [pattern[0] for pattern in patterns] == list(EMOJI)
    assert not re.search(r"[ü√∞ÃŸ\ufffd]", text)


@pytest.mark.parametrize("row", SENTENCES, ids=lambda row: row.sentence[:40])
def test_every_sentence_lives_in_a_file_that_has_the_name(row: Row) -> None:
    assert row.places, row.sentence
    for path, name in row.places:
        assert name in (ROOT / path).read_text("utf-8"), f"{path} has no {name}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.sentence[:40])
def test_every_sentence_is_shown_by_tests_that_exist(row: Row) -> None:
    assert row.python or row.typescript, row.sentence
    for path, name in row.python:
        assert name in functions(path), f"{path}::{name}"
    for path, title in row.typescript:
        assert title in titles(path), f'{path} "{title}"'


def test_every_cell_is_understood() -> None:
    """A name that is written in another form would go unchecked."""
    text = PAGE.read_text("utf-8")
    assert text.count(".py::") == sum(len(row.python) for row in ROWS)
    assert text.count(".test.ts`") == sum(len(row.typescript) for row in ROWS)


def test_the_specifications_own_command_runs_its_four_groups() -> None:
    tests = [name for name in functions(OWN) if "::test_" in name]
    assert {name.split("::")[0] for name in tests} == set(GROUPS)
    assert len(tests) >= 40
    for group in GROUPS:
        assert len([name for name in tests if name.startswith(group)]) >= 9, group
    assert f"pytest {OWN} -v" in PAGE.read_text("utf-8")
