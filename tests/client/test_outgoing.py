"""Events on their way out: what is minted, what is refused, and how they are spelled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest

from steadcast.client.outgoing import compose, default_source
from steadcast.errors import InvalidEvent, InvalidStream, SteadcastError, TooLarge
from steadcast.wire import check_event


def test_an_event_is_spelled_as_a_cloudevent() -> None:
    out = compose("s", type="t", source="//h/p", data={"a": [1, None]}, subject="x", priority="critical")
    event = json.loads(out.body)
    assert event | {"id": "", "time": ""} == {
        "specversion": "1.0",
        "id": "",
        "source": "//h/p",
        "type": "t",
        "time": "",
        "subject": "x",
        "priority": "critical",
        "data": {"a": [1, None]},
    }
    assert event["id"] == out.id
    assert out.critical
    assert out.path == "/v1/streams/s/events"


def test_what_is_left_out_is_minted_or_absent() -> None:
    out = compose("s", type="t", source="//h/p")
    event = json.loads(out.body)
    assert set(event) == {"specversion", "id", "source", "type", "time", "data"}
    assert UUID(event["id"]).version == 7
    assert datetime.fromisoformat(event["time"]).tzinfo is not None


def test_the_servers_own_check_takes_what_is_composed() -> None:
    out = compose("s", type="t", source=default_source(), data="ü")
    assert check_event(json.loads(out.body), now="").id == out.id


@pytest.mark.parametrize("name", [b"b\xc3\xbccher.py", b"b\xfccher.py"])
def test_a_program_is_named_by_the_bytes_of_its_file_whatever_the_locale_makes_of_them(
    tmp_path: Path, name: bytes
) -> None:
    """In the C locale, as under cron, a character beyond ASCII is no text; nor is Latin-1 in UTF-8."""
    program = tmp_path / os.fsdecode(name)
    program.write_text("from steadcast.client.outgoing import default_source\nprint(default_source())")
    environ = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, program], env=environ, capture_output=True, check=False, timeout=60, text=True
    )
    assert done.stderr == ""
    assert done.stdout.strip().rpartition("/")[2] == quote(name.removesuffix(b".py"))


def test_a_package_that_is_run_as_a_program_is_named_as_such(tmp_path: Path) -> None:
    package = tmp_path / "butcher"
    package.mkdir()
    program = "from steadcast.client.outgoing import default_source\nprint(default_source())"
    (package / "__main__.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "butcher"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=60,
        text=True,
    )
    assert done.stdout.strip().rpartition("/")[2] == "butcher"


def test_the_default_source_is_the_same_at_each_start() -> None:
    assert default_source() == default_source()
    assert default_source().startswith("//")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"stream": "no spaces"}, InvalidStream),
        ({"stream": "steadcast.dead"}, InvalidStream),
        ({"type": ""}, InvalidEvent),
        ({"type": 7}, InvalidEvent),
        ({"source": ""}, InvalidEvent),
        ({"id": ""}, InvalidEvent),
        ({"subject": "\n"}, InvalidEvent),
        ({"priority": "urgent"}, InvalidEvent),
        ({"time": "yesterday"}, InvalidEvent),
        ({"data": object()}, InvalidEvent),
        ({"data": "x" * 300_000}, TooLarge),
    ],
)
def test_what_no_server_would_take_is_refused_at_once(
    wrong: dict[str, Any], error: type[SteadcastError]
) -> None:
    fields: dict[str, Any] = {"stream": "s", "type": "t", "source": "x"} | wrong
    with pytest.raises(error):
        compose(fields.pop("stream"), **fields)
