"""What the pages show runs as it stands there, in the order in which it stands there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.docs.snippets import Snippet, Story, documents, snippets
from tests.support.server import Server

RUN = [document for document in documents() if snippets(document)]


@pytest.mark.parametrize("document", RUN)
def test_every_block_of_a_page_does_what_it_says(document: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with Server(home) as server:
        story = Story(server, home)
        try:
            for snippet in snippets(document):
                story.tell(snippet)
        finally:
            story.end()


def test_the_pages_have_blocks_to_run() -> None:
    every = [snippet for document in RUN for snippet in snippets(document)]
    run = [snippet for snippet in every if "not run" not in snippet.marks]
    assert {"python", "sh", "ts", "toml"} <= {snippet.language for snippet in run}
    assert len(run) > 3 * (len(every) - len(run)), "too much is not run"


@pytest.mark.parametrize(
    ("language", "code", "marks", "why"),
    [
        ("sh", "false", {}, "exits 1, not 0"),
        ("sh", "echo one", {"prints": "two"}, "doesn't print 'two'"),
        ("sh", "echo one", {"runs until": "two"}, "it ended before"),
        ("python", "raise ValueError", {}, "exits 1, not 0"),
        ("ts", 'const n: number = "text";', {}, "exits 1, not 0"),
        ("cobol", "STOP RUN.", {}, "nothing runs cobol"),
    ],
)
def test_a_block_that_fails_is_told_with_its_place(
    tmp_path: Path, language: str, code: str, marks: dict[str, Any], why: str
) -> None:
    story = Story(Server(tmp_path), tmp_path)
    with pytest.raises(AssertionError, match=r"page\.md:7") as caught:
        story.tell(Snippet("page.md", 7, language, code, marks))
    assert why in str(caught.value)
