"""Installing hooks: idempotent, everything else stays, and uninstalling takes out exactly its own."""

from __future__ import annotations

import json
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadcast.client.hooks_install import (
    HOOK_EVENTS,
    NOT_BY_DEFAULT,
    WITHOUT_MATCHER,
    hook_command,
    install,
    installed,
    is_own,
    settings_path,
    uninstall,
)
from steadcast.errors import InvalidRequest

COMMAND = "/opt/env/bin/steadcast-hook"

THEIRS = """{
    "$schema": "https://json.schemastore.org/claude-code-settings.json",
    "model": "opus",
    "permissions": {"allow": ["Bash(git *)"], "deny": []},
    "hooks": {
        "PreToolUse": [
            {"matcher": "Bash", "hooks": [{"type": "command", "command": "audit.sh", "timeout": 3}]}
        ],
        "SomethingNew": [{"hooks": [{"type": "http", "url": "http://x"}]}]
    },
    "zażółć": "gęślą"
}"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".claude" / "settings.json"


@pytest.fixture
def theirs(path: Path) -> Path:
    path.parent.mkdir()
    path.write_text(THEIRS, encoding="utf-8")
    return path


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def backups(path: Path) -> list[Path]:
    return sorted(path.parent.glob("settings.json.steadcast-backup-*"))


def test_a_new_settings_file_has_every_event_but_those_that_watching_disturbs(path: Path) -> None:
    change = install(path, command=COMMAND)
    expected = [event for event in HOOK_EVENTS if event not in NOT_BY_DEFAULT]
    assert (change.changed, change.backup, list(change.events)) == (True, None, expected)
    hooks = read(path)["hooks"]
    assert list(hooks) == expected
    handler = {"type": "command", "command": COMMAND, "timeout": 5}
    for event in expected:
        matcher = {} if event in WITHOUT_MATCHER else {"matcher": "*"}
        assert hooks[event] == [matcher | {"hooks": [handler]}]
    assert path.read_text().startswith('{\n  "hooks": {\n')
    assert installed(path) == tuple(expected)


def test_all_thirty_three_events_are_known() -> None:
    assert len(set(HOOK_EVENTS)) == len(HOOK_EVENTS) == 33
    assert set(NOT_BY_DEFAULT) | WITHOUT_MATCHER <= set(HOOK_EVENTS)


def test_an_event_that_watching_disturbs_is_installed_where_it_is_asked_for(path: Path) -> None:
    install(path, command=COMMAND, events=["MessageDisplay"])
    assert installed(path) == ("MessageDisplay",)


def test_installing_again_changes_nothing_and_makes_no_backup(theirs: Path) -> None:
    install(theirs, command=COMMAND)
    before = theirs.read_bytes()
    change = install(theirs, command=COMMAND)
    assert (change.changed, change.backup) == (False, None)
    assert theirs.read_bytes() == before
    assert len(backups(theirs)) == 1


def test_everything_that_was_there_stays_in_its_place(theirs: Path) -> None:
    change = install(theirs, command=COMMAND)
    was, now = json.loads(THEIRS), read(theirs)
    assert list(now) == list(was)
    assert {key: now[key] for key in now if key != "hooks"} == {
        key: was[key] for key in was if key != "hooks"
    }
    assert now["hooks"]["PreToolUse"][0] == was["hooks"]["PreToolUse"][0]
    assert now["hooks"]["SomethingNew"] == was["hooks"]["SomethingNew"]
    assert list(now["hooks"])[:2] == ["PreToolUse", "SomethingNew"]
    assert change.backup is not None
    assert change.backup.read_text(encoding="utf-8") == THEIRS
    text = theirs.read_text(encoding="utf-8")
    assert '\n    "zażółć": "gęślą"' in text
    assert not text.endswith("\n")


def test_uninstalling_takes_out_exactly_its_own(theirs: Path) -> None:
    install(theirs, command=COMMAND)
    change = uninstall(theirs)
    assert change.changed
    assert change.backup is not None
    assert read(theirs) == json.loads(THEIRS)
    assert list(read(theirs)["hooks"]) == list(json.loads(THEIRS)["hooks"])
    again = uninstall(theirs)
    assert (again.changed, again.backup) == (False, None)
    assert installed(theirs) == ()


def test_uninstalling_where_nothing_is_makes_no_file(path: Path) -> None:
    assert not uninstall(path).changed
    assert not path.parent.exists()


def test_an_entry_of_a_moved_environment_gets_the_new_command_in_place(theirs: Path) -> None:
    install(theirs, command="/old/bin/steadcast-hook")
    change = install(theirs, command=COMMAND)
    assert change.changed
    text = theirs.read_text(encoding="utf-8")
    assert "/old/" not in text
    assert text.count(COMMAND) == len(HOOK_EVENTS) - len(NOT_BY_DEFAULT)


def test_a_matcher_that_the_user_chose_for_ours_stays(path: Path) -> None:
    install(path, command="/old/bin/steadcast-hook", events=["PreToolUse"])
    settings = read(path)
    settings["hooks"]["PreToolUse"][0]["matcher"] = "Bash"
    path.write_text(json.dumps(settings))
    install(path, command=COMMAND, events=["PreToolUse"])
    assert read(path)["hooks"]["PreToolUse"] == [
        {"matcher": "Bash", "hooks": [{"type": "command", "command": COMMAND, "timeout": 5}]}
    ]


def test_own_entries_that_stand_twice_become_one(path: Path) -> None:
    install(path, command=COMMAND, events=["Stop"])
    settings = read(path)
    settings["hooks"]["Stop"] += [
        {"hooks": []},
        {"hooks": [{"type": "command", "command": "steadcast hook"}]},
        {"hooks": [{"type": "command", "command": "theirs"}, {"type": "command", "command": COMMAND}]},
    ]
    path.write_text(json.dumps(settings))
    install(path, command=COMMAND, events=["Stop"])
    assert read(path)["hooks"]["Stop"] == [
        {"hooks": [{"type": "command", "command": COMMAND, "timeout": 5}]},
        {"hooks": []},
        {"hooks": [{"type": "command", "command": "theirs"}]},
    ]


def test_uninstalling_leaves_others_in_a_shared_group(path: Path) -> None:
    path.parent.mkdir()
    own, other = ({"type": "command", "command": each} for each in (COMMAND, "theirs"))
    path.write_text(json.dumps({"hooks": {"Stop": [{"hooks": [own, other]}], "New": [{"hooks": [own]}]}}))
    uninstall(path)
    assert read(path) == {"hooks": {"Stop": [{"hooks": [other]}]}}


@pytest.mark.parametrize(
    ("command", "own"),
    [
        ("/a/bin/steadcast-hook", True),
        ("'/a b/bin/steadcast-hook'", True),
        ("steadcast-hook", True),
        ("/a/bin/steadcast hook", True),
        ("STEADCAST_URL='http://x y' /a/bin/steadcast-hook", True),
        ("/a/bin/steadcast tail", False),
        ("notify && /a/bin/steadcast-hook", False),
        ("/a/steadcast-hook/other", False),
        ("my-steadcast-hook", False),
        ("echo steadcast-hook", False),
        ("steadcast-hook 'unclosed", False),
        ("", False),
        (None, False),
    ],
)
def test_own_commands_are_recognised_and_no_others(command: Any, own: bool) -> None:
    assert is_own({"type": "command", "command": command}) is own
    assert not is_own(command)


@pytest.mark.parametrize(
    "content",
    [
        b"{ not json",
        b'{"a": 1, // a comment\n "b": 2}',
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"hooks": []}',
        b'{"hooks": {"PreToolUse": {}}}',
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b"[" * 100_000,
    ],
)
def test_settings_that_are_not_valid_are_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match="left as it is"):
        install(path, command=COMMAND)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "text",
    [
        '{\n\t"a": 1\n}\n',
        '{\r\n  "a": 1\r\n}\r\n',
        '\ufeff{\n "a": 1\n}',
        '{"a": 1}',
        '{"a": 1}\n',
        "{}",
        "{}\n",
        "{\n}\n",
    ],
)
def test_the_spelling_of_the_file_is_kept(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_bytes(text.encode())
    install(path, command=COMMAND)
    after = path.read_bytes().decode()
    assert after.startswith("\ufeff") == text.startswith("\ufeff")
    uninstall(path)
    back = path.read_bytes().decode()
    assert back == text or not text.strip("{}\n")
    assert json.loads(back.removeprefix("\ufeff")) == json.loads(text.removeprefix("\ufeff"))


def test_the_mode_of_the_file_is_kept(theirs: Path) -> None:
    theirs.chmod(0o640)
    install(theirs, command=COMMAND)
    assert stat.S_IMODE(theirs.stat().st_mode) == 0o640


def test_a_linked_settings_file_stays_a_link(theirs: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.json"
    theirs.rename(real)
    theirs.symlink_to(real)
    install(theirs, command=COMMAND)
    assert theirs.is_symlink()
    assert installed(real) == installed(theirs) != ()


def test_nothing_but_settings_and_backup_is_left_behind(theirs: Path) -> None:
    install(theirs, command=COMMAND)
    assert sorted(theirs.parent.iterdir()) == [theirs, *backups(theirs)]


def test_the_installed_command_is_absolute_and_runs(path: Path) -> None:
    (program,) = shlex.split(hook_command())
    assert program == str(Path(sys.executable).parent / "steadcast-hook")
    environ = {"STEADCAST_SPOOL": str(path.parent), "STEADCAST_URL": "http://127.0.0.1:1"}
    done = subprocess.run(
        ["/bin/sh", "-c", hook_command()], input=b"{}", env=environ, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_missing_program_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidRequest, match="steadcast-hook"):
        hook_command()


def test_a_path_with_spaces_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "my env"
    folder.mkdir()
    (folder / "steadcast-hook").touch()
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    assert shlex.split(hook_command()) == [str(folder / "steadcast-hook")]
    assert is_own({"command": hook_command()})


def test_the_settings_stand_where_the_agent_reads_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    assert settings_path("project", tmp_path / "p") == tmp_path / "p" / ".claude" / "settings.json"
    assert settings_path("user") == tmp_path / ".claude" / "settings.json"
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "c"))
    assert settings_path("user") == tmp_path / "c" / "settings.json"


HANDLERS = st.fixed_dictionaries(
    {"type": st.just("command"), "command": st.text(max_size=8)}, optional={"timeout": st.integers(0, 9)}
)
GROUPS = st.fixed_dictionaries(
    {"hooks": st.lists(HANDLERS, min_size=1, max_size=2)}, optional={"matcher": st.text(max_size=4)}
)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "model": st.text(),
        "env": st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
        "hooks": st.dictionaries(
            st.sampled_from(["PreToolUse", "Stop", "Later"]),
            st.lists(GROUPS, min_size=1, max_size=2),
            min_size=1,
        ),
    },
)


@given(SETTINGS, st.sampled_from([None, 2, "\t"]))
def test_installing_and_uninstalling_gives_back_any_settings(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any], indent: Any
) -> None:
    path = tmp_path_factory.mktemp("x") / "settings.json"
    path.write_text(json.dumps(settings, indent=indent, ensure_ascii=False), encoding="utf-8")
    before = path.read_text(encoding="utf-8")
    install(path, command=COMMAND)
    assert set(installed(path)) == set(HOOK_EVENTS) - set(NOT_BY_DEFAULT)
    uninstall(path)
    after = path.read_text(encoding="utf-8")
    assert json.loads(after) == settings
    assert after == before or not settings
