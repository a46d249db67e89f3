"""Settings come from the environment, then a TOML file, then the defaults; flags stand on top."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from steadcast.config import Settings, default_of, load
from steadcast.errors import InvalidSettings

if TYPE_CHECKING:
    from pathlib import Path


def test_the_defaults_are_the_designs_numbers() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.engine) == ("127.0.0.1", 8765, "sqlite:///steadcast.db")
    assert (settings.ping_interval, settings.ping_timeout, settings.stale_check_interval) == (30, 10, 60)
    assert (settings.handler_timeout, settings.retry_interval, settings.max_retries) == (5, 2, 3)
    assert (settings.retry_delay, settings.retry_delay_max) == (1, 8)
    assert (settings.retry_age_limit, settings.retry_queue_size) == (30, 1_000)
    assert (settings.window_events, settings.window_bytes) == (1_024, 1024 * 1024)
    assert (settings.retention_age, settings.retention_events) == (7 * 24 * 3600, 1_000_000)
    assert settings.retention_bytes == 2 * 1024**3


def test_the_environment_goes_before_the_file_and_flags_before_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "steadcast.toml"
    file.write_text('port = 1001\nhost = "127.0.0.2"\nengine = "memory:"\n')
    monkeypatch.setenv("STEADCAST_PORT", "1002")
    monkeypatch.setenv("STEADCAST_HOST", "127.0.0.3")
    settings = load(file, host="127.0.0.4", port=None)
    assert (settings.host, settings.port, settings.engine) == ("127.0.0.4", 1002, "memory:")


def test_timeouts_by_handler_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEADCAST_HANDLER_TIMEOUTS", '{"import": 60, "watch": null}')
    assert Settings().handler_timeouts == {"import": 60.0, "watch": None}


@pytest.mark.parametrize(
    "bad",
    [
        {"port": 70_000},
        {"window_events": 0},
        {"log_format": "xml"},
        {"unknown": 1},
        {"handler_timeouts": {"export": 0}},
        {"handler_timeouts": {"export": 30.0, "import": -1.0}},
        {"retention_age": math.inf},
        {"retention_events": 2**53},
        {"drain_limit": math.inf},
        {"retry_delay": 9.0},
        {"retry_delay": 3.0, "retry_delay_max": 2.0},
    ],
)
def test_a_setting_that_is_none_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings) as caught:
        load(**bad)
    assert list(caught.value.wrong) == list(bad)[:1]


def test_an_application_is_refused_too() -> None:
    with pytest.raises(InvalidSettings, match="port: expected int <= 65535; max_retries: expected int >= 1"):
        Settings(port=70_000, max_retries=0)


def test_an_application_sets_some_and_the_environment_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEADCAST_TOKEN", "of the environment")
    monkeypatch.setenv("STEADCAST_ALLOWED_HOSTS", '["steadcast.example"]')
    settings = Settings(handler_timeout=None)
    assert (settings.handler_timeout, settings.token) == (None, "of the environment")
    assert settings.allowed_hosts == ["steadcast.example"]


def test_what_comes_as_text_becomes_what_it_must_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STEADCAST_RETRY_DELAY", "1e-1")
    monkeypatch.setenv("STEADCAST_HANDLER_TIMEOUT", "null")
    monkeypatch.setenv("STEADCAST_DEAD_FILE", str(tmp_path))
    settings = Settings()
    assert (settings.retry_delay, settings.handler_timeout, settings.dead_file) == (0.1, None, tmp_path)


def test_an_empty_variable_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEADCAST_PORT", "")
    monkeypatch.setenv("STEADCAST_TOKEN", "")
    assert (Settings().port, Settings().token) == (default_of("port"), None)


def test_two_settings_share_no_list() -> None:
    Settings().allowed_hosts.append("else.example")
    assert Settings().allowed_hosts == []
