"""What the pages point at is there: files, headings, and the tests that show a promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.snippets import ROOT, documents

PAGES = [*documents(), "clients/js/README.md"]
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_PYTHON_TEST = re.compile(r"`((?:tests/|\.\./tests/)[\w/]+\.py)(?:::(\w+))?`")
_JS_TEST = re.compile(r"`(clients/js/tests/[\w.]+\.ts|dashboard/tests/[\w.]+\.ts)`(?: \"([^\"]+)\")?")


def prose(page: str) -> str:
    return _FENCED.sub("", (ROOT / page).read_text("utf-8"))


def anchors(path: Path) -> set[str]:
    """Give the names of a page's headings as GitHub makes them."""
    words = (heading.lower().replace("`", "") for heading in _HEADING.findall(path.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-") for text in words}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for link in _LINK.findall(prose(page)):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page}: {link}"


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_is_named_exists(page: str) -> None:
    for path, name in _PYTHON_TEST.findall(prose(page)):
        source = (ROOT / path.removeprefix("../")).read_text("utf-8")
        assert not name or re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), (
            f"{page}: {path}::{name}"
        )
    for path, title in _JS_TEST.findall(prose(page)):
        assert title in (ROOT / path).read_text("utf-8"), f"{page}: {path} {title!r}"


def test_each_promise_is_there_with_a_limit_and_a_test() -> None:
    text = (ROOT / "docs/guarantees.md").read_text("utf-8")
    parts = re.split(r"^## (P\d)\b.*$", text, flags=re.MULTILINE)[1:]
    promises = dict(zip(parts[::2], parts[1::2], strict=True))
    assert list(promises) == [f"P{n}" for n in range(1, 9)]
    for name, part in promises.items():
        assert "**Limits**" in part, name
        assert "**Shown by**" in part, name
        assert _PYTHON_TEST.search(part), name


def test_the_licence_is_the_same_for_every_package() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert (ROOT / "clients/js/LICENSE").read_text("utf-8") == text
