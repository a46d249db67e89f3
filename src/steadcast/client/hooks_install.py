"""Install `steadcast-hook` in a coding agent's settings, and take it out again, leaving all else as it is.

The format is that of Claude Code's `settings.json` (https://code.claude.com/docs/en/hooks): under `hooks`,
for each event, a list of groups `{matcher?, hooks: [{type, command, timeout}]}`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from steadcast.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

HOOK_EVENTS: Final = (
    "PreToolUse",
    "PostToolUse",
    "PostToolUseFailure",
    "PostToolBatch",
    "PermissionRequest",
    "PermissionDenied",
    "UserPromptSubmit",
    "UserPromptExpansion",
    "SessionStart",
    "SessionEnd",
    "Stop",
    "StopFailure",
    "SubagentStart",
    "SubagentStop",
    "Notification",
    "PreCompact",
    "PostCompact",
    "PreModelSwitch",
    "PostModelSwitch",
    "TaskCreated",
    "TaskCompleted",
    "TeammateIdle",
    "Setup",
    "ConfigChange",
    "InstructionsLoaded",
    "CwdChanged",
    "FileChanged",
    "DirectoryAdded",
    "WorktreeCreate",
    "WorktreeRemove",
    "Elicitation",
    "ElicitationResult",
    "MessageDisplay",
)
"""All hook events that are known. The server takes unknown ones all the same."""

NOT_BY_DEFAULT: Final = {
    "WorktreeCreate": "a hook there replaces the agent's own making of worktrees, and must print a path",
    "MessageDisplay": "it runs for each piece of text while the text is shown, which would wait for it",
}
"""Events that watching would disturb, and why; they are installed only where they are asked for by name."""

WITHOUT_MATCHER: Final = frozenset(
    {
        "UserPromptSubmit",
        "PostToolBatch",
        "Stop",
        "TeammateIdle",
        "TaskCreated",
        "TaskCompleted",
        "WorktreeCreate",
        "WorktreeRemove",
        "MessageDisplay",
        "CwdChanged",
        # Its matcher isn't a filter but the list of files to watch.
        "FileChanged",
    }
)

PROGRAM: Final = "steadcast-hook"
TIMEOUT: Final = 5
"""Seconds after which the agent stops waiting; the hook itself is done in well under one."""

Scope = Literal["project", "user"]

_INDENT = re.compile(r'\n([ \t]+)"')
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Change:
    """What was done: to which file, for which events, and where the file as it was before is kept."""

    path: Path
    changed: bool
    events: tuple[str, ...]
    backup: Path | None


def settings_path(scope: Scope, folder: Path | None = None) -> Path:
    """Give the settings of a project (`folder`, default the working one) or of the user.

    The user's are in `CLAUDE_CONFIG_DIR`, else `~/.claude`. Raises `InvalidRequest` where there is no home.
    """
    if scope == "project":
        return (folder or Path.cwd()) / ".claude" / "settings.json"
    chosen = os.environ.get("CLAUDE_CONFIG_DIR")
    try:
        return (Path(chosen) if chosen else Path.home() / ".claude") / "settings.json"
    except RuntimeError as error:
        why = "this user has no home directory: set HOME or CLAUDE_CONFIG_DIR, or name a file (--settings)"
        raise InvalidRequest(why, field="settings") from error


def hook_command() -> str:
    """Give the shell command that is installed: the absolute path of this installation's `steadcast-hook`.

    Raises `InvalidRequest` where it isn't found.
    """
    beside = Path(sys.executable).parent / PROGRAM
    found = str(beside) if beside.is_file() else shutil.which(PROGRAM)
    if found is None:
        raise InvalidRequest(f"{PROGRAM} is neither beside {sys.executable} nor on PATH", field="command")
    return shlex.quote(str(Path(found).absolute()))


def install(path: Path, *, command: str | None = None, events: Collection[str] | None = None) -> Change:
    """Install the hook for `events` (default: all known but NOT_BY_DEFAULT); nothing changes if it is there.

    An own entry with another command, as after the environment has moved, gets the new command in place.
    Raises `InvalidRequest` for settings that aren't valid, which are then left alone, and OSError.
    """
    wanted = [event for event in HOOK_EVENTS if event not in NOT_BY_DEFAULT] if events is None else events
    told = hook_command() if command is None else command

    def edit(settings: dict[str, Any]) -> None:
        hooks = _dict_in(settings, "hooks", path)
        for event in wanted:
            _install_event(_list_in(hooks, event, path), event, told)

    return _edit(path, edit)


def uninstall(path: Path) -> Change:
    """Take out the own entries of all events, and what they leave empty; nothing else changes.

    Raises `InvalidRequest` for settings that aren't valid, which are then left alone, and OSError.
    """

    def edit(settings: dict[str, Any]) -> None:
        hooks = settings.get("hooks")
        if not isinstance(hooks, dict):
            return
        for event in {name: None for name, _ in _own_groups(hooks)}:
            _uninstall_event(hooks, event)
        if not hooks:
            del settings["hooks"]

    return _edit(path, edit, only_own=True)


def installed(path: Path) -> tuple[str, ...]:
    """Give the events that have an own entry; raises `InvalidRequest` and OSError as `install` does."""
    return tuple(dict.fromkeys(event for event, _ in _own_groups(_hooks_in(path))))


def own_commands(path: Path) -> list[str]:
    """Give the commands of the own entries, each once; raises as `installed`."""
    groups = (group for _, group in _own_groups(_hooks_in(path)))
    return sorted({each["command"] for group in groups for each in _handlers(group) if is_own(each)})


def is_own(handler: object) -> bool:
    """Tell whether a handler is one that this project installs, wherever its environment stood then.

    It is one command and nothing else: `steadcast-hook` or `steadcast hook`, by any path, perhaps with
    variables set before it.
    """
    if not isinstance(handler, dict) or not isinstance(handler.get("command"), str):
        return False
    try:
        words = shlex.split(handler["command"])
    except ValueError:
        return False  # no shell would run it: not ours
    while words and _ASSIGNMENT.fullmatch(words[0]):
        del words[0]
    names = [Path(words[0]).name, *words[1:]] if words else []
    return names in ([PROGRAM], ["steadcast", "hook"])


def _install_event(groups: list[Any], event: str, command: str) -> None:
    own = [handler for group in groups for handler in _handlers(group) if is_own(handler)]
    if own:
        own[0]["command"] = command
        groups[:] = _without_own(groups, but=own[0])
        return
    handler = {"type": "command", "command": command, "timeout": TIMEOUT}
    matcher = {} if event in WITHOUT_MATCHER else {"matcher": "*"}
    groups.append(matcher | {"hooks": [handler]})


def _uninstall_event(hooks: dict[str, Any], event: str) -> None:
    hooks[event] = _without_own(hooks[event])
    if not hooks[event]:
        del hooks[event]


def _without_own(groups: list[Any], but: object = None) -> list[Any]:
    """Take the own handlers out, and the groups that this empties."""
    kept = []
    for group in groups:
        left = [handler for handler in _handlers(group) if handler is but or not is_own(handler)]
        if len(left) < len(_handlers(group)):
            group["hooks"] = left
            if not left:
                continue
        kept.append(group)
    return kept


def _own_groups(hooks: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for event, groups in hooks.items():
        for group in groups if isinstance(groups, list) else ():
            if any(is_own(handler) for handler in _handlers(group)):
                yield event, group


def _handlers(group: object) -> list[Any]:
    handlers = group.get("hooks") if isinstance(group, dict) else None
    return handlers if isinstance(handlers, list) else []


def _hooks_in(path: Path) -> dict[str, Any]:
    text = _read(path)
    hooks = {} if text is None else _parse(text, path).get("hooks")
    return hooks if isinstance(hooks, dict) else {}


def _dict_in(settings: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    value = settings.setdefault(name, {})
    if not isinstance(value, dict):
        _refuse(path, f"{name} is no object")
    return value


def _list_in(hooks: dict[str, Any], event: str, path: Path) -> list[Any]:
    value = hooks.setdefault(event, [])
    if not isinstance(value, list):
        _refuse(path, f"hooks.{event} is no list")
    return value


def _edit(path: Path, edit: Callable[[dict[str, Any]], None], *, only_own: bool = False) -> Change:
    real = Path(os.path.realpath(path))  # a linked file stays a link: what it points to is written
    text = _read(real)
    if text is None and only_own:
        return Change(path, changed=False, events=(), backup=None)
    settings = _parse(text or "{}", path)
    before = json.dumps(settings)
    touched = _events_of(settings)
    edit(settings)
    touched |= _events_of(settings)
    events = tuple(sorted(touched, key=_known_first))
    if json.dumps(settings) == before:
        return Change(path, changed=False, events=events, backup=None)
    backup = None if text is None else _back_up(real)
    _write(real, _spell(settings, text))
    return Change(path, changed=True, events=events, backup=backup)


def _events_of(settings: dict[str, Any]) -> set[str]:
    hooks = settings.get("hooks")
    return {event for event, _ in _own_groups(hooks)} if isinstance(hooks, dict) else set()


def _known_first(event: str) -> tuple[int, str]:
    return (HOOK_EVENTS.index(event) if event in HOOK_EVENTS else len(HOOK_EVENTS), event)


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        _refuse(path, f"is not UTF-8: {error}")


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(
            text.removeprefix("\ufeff"), object_pairs_hook=_no_key_twice, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        _refuse(path, f"is not valid JSON: {error}")
    if not isinstance(value, dict):
        _refuse(path, "is no JSON object")
    return value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        # Writing it back would lose one of them.
        raise ValueError("a key stands twice in one object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _refuse(path: Path, why: str) -> NoReturn:
    raise InvalidRequest(f"{path} {why}; it was left as it is", field="settings")


def _spell(settings: dict[str, Any], like: str | None) -> str:
    """Spell JSON as the file was: indentation, line ends, a last line end, a byte order mark."""
    like = '{\n  "": 0\n}\n' if like is None or not like.strip("\ufeff \t\r\n{}") else like
    found = _INDENT.search(like.replace("\r\n", "\n"))
    one_line = "\n" not in like.strip()
    text = json.dumps(settings, ensure_ascii=False, indent=None if one_line else found[1] if found else 2)
    text += "\n" if like.endswith("\n") else ""
    text = text.replace("\n", "\r\n") if "\r\n" in like else text
    return ("\ufeff" if like.startswith("\ufeff") else "") + text


def _back_up(path: Path) -> Path:
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    backup = path.with_name(f"{path.name}.steadcast-backup-{now}")
    shutil.copy2(path, backup)
    return backup


def _write(path: Path, text: str) -> None:
    """Write atomically: readers see the old file or the new one, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}.steadcast-{os.getpid()}")
    try:
        with written.open("wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, written)
        written.replace(path)
    finally:
        written.unlink(missing_ok=True)
