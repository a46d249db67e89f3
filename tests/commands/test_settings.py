"""Settings that are wrong are told in words, one line each."""

from __future__ import annotations

from pathlib import Path

import pytest

from steadcast.commands.settings import WrongSettings, read_settings


def lines_of(config: Path | None = None, **flags: object) -> tuple[str, ...]:
    with pytest.raises(WrongSettings) as caught:
        read_settings(config, **flags)
    return caught.value.lines


def test_flags_stand_above_the_environment_above_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('port = 1\nnode = "file"\nengine = "memory:"\n')
    monkeypatch.setenv("STEADCAST_PORT", "2")
    monkeypatch.setenv("STEADCAST_NODE", "environment")
    settings = read_settings(file, port=3, node=None)
    assert (settings.port, settings.node, settings.engine) == (3, "environment", "memory:")


def test_each_wrong_setting_has_its_line_with_where_it_may_be_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("prot = 1\n")
    monkeypatch.setenv("STEADCAST_RETENTION_EVENTS", "0")
    lines = lines_of(file, port=70_000)
    assert len(lines) == 3
    assert any(line.startswith("port: ") and "70000" in line for line in lines)
    assert any("retention_events: " in line and "STEADCAST_RETENTION_EVENTS" in line for line in lines)
    assert any(line.startswith("prot: there is no such setting") and str(file) in line for line in lines)


def test_a_list_that_is_no_json_is_told_how_to_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEADCAST_ALLOWED_HOSTS", "a,b")
    (line,) = lines_of()
    assert line.startswith("allowed_hosts: STEADCAST_ALLOWED_HOSTS takes JSON")


def test_a_file_that_is_missing_unreadable_or_no_toml_is_named(tmp_path: Path) -> None:
    assert "there is no file" in lines_of(tmp_path / "nowhere.toml")[0]
    assert "can't be read" in lines_of(tmp_path)[0]
    (tmp_path / "broken.toml").write_text("port = ")
    assert "no valid TOML" in lines_of(tmp_path / "broken.toml")[0]
    (tmp_path / "latin.toml").write_bytes(b'node = "\xff"')
    assert "no valid TOML" in lines_of(tmp_path / "latin.toml")[0]


def test_a_token_of_the_wrong_form_is_not_shown() -> None:
    (line,) = lines_of(token=["geheim"])
    assert "geheim" not in line
