"""docs/settings.md says of every setting what config.py says."""

from __future__ import annotations

import json
import re
from typing import Any

from steadcast.config import FIELDS, default_of, variable
from tests.docs.snippets import ROOT

_ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| (?:`([^`]*)`|none) \| (.+) \|$", re.MULTILINE)


def rows() -> dict[str, tuple[str, str, str]]:
    text = (ROOT / "docs/settings.md").read_text("utf-8")
    return {name: (variable, default, meaning) for name, variable, default, meaning in _ROW.findall(text)}


def spelled(default: Any) -> str:
    return "" if default is None else default if isinstance(default, str) else json.dumps(default)


def test_every_setting_is_there_with_its_variable_and_default() -> None:
    told = {name: row[:2] for name, row in rows().items()}
    real = {name: (variable(name), spelled(default_of(name))) for name in FIELDS}
    assert told == real


def test_every_setting_has_a_meaning() -> None:
    assert [name for name, (_, _, meaning) in rows().items() if len(meaning) < len("seconds")] == []
