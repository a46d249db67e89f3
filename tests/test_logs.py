"""What goes to the log: no secret, whoever wrote the line and in whatever form."""

from __future__ import annotations

import logging
import sys

import pytest
import structlog

from steadcast.config import Settings
from steadcast.core.scopes import Scope, TokenRule
from steadcast.logs import hiding, secrets_of
from steadcast.outlet import Outlet
from steadcast.serve import configure_logs

TOKEN = "made-up-token"  # noqa: S105 - made up for these tests


@pytest.fixture
def settings() -> Settings:
    rule = TokenRule(name="ci", token="another-made-up", scopes=[Scope.PUBLISH])  # noqa: S106 - as above
    return Settings(token=TOKEN, tokens=[rule], jwt_secret="s" * 32, log_level="debug", log_format="json")


def test_the_secrets_of_the_settings_are_known(settings: Settings) -> None:
    assert secrets_of(settings) == [TOKEN, "s" * 32, "another-made-up"]
    assert secrets_of(Settings(token=None)) == []
    assert all(secret not in repr(settings) for secret in secrets_of(settings))


def test_they_are_taken_out_of_every_value_and_the_rest_stays() -> None:
    hide = hiding([TOKEN, "abc"])
    line = {
        "event": f"got {TOKEN}",
        "headers": {"authorization": "Bearer x"},
        "error": ValueError(f"bad {TOKEN}"),
        "token": "short",
        "number": 5,
        "word": "abcdef",
        "_record": TOKEN,
    }
    assert hide(None, "info", line) == {
        "event": "got [masked]",
        "headers": "{'authorization': '[masked]'}",
        "error": "ValueError('bad [masked]')",
        "token": "[masked]",
        "number": 5,
        "word": "abcdef",
        "_record": TOKEN,
    }


def test_own_lines_tracebacks_and_those_of_libraries_go_through_it(
    settings: Settings, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    before = structlog.get_config()
    out = Outlet(sys.stderr.fileno())
    try:
        configure_logs(settings, out=out)
        structlog.get_logger("t").info("hello", url=f"http://x/?token={TOKEN}")
        try:
            int(f"no number: {TOKEN}")
        except ValueError:
            structlog.get_logger("t").exception("failed")
            logging.getLogger("library").exception("failed with %s", TOKEN)
    finally:
        structlog.configure(**before)
    out.settle(60)
    told = capfd.readouterr().err
    assert told.count("[masked]") >= 4
    assert "hello" in told
    assert TOKEN not in told
