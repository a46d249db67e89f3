"""Settings in words: what is wrong with which one, a line each."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from steadcast.commands.exits import Exit, leave
from steadcast.config import FIELDS, is_secret, load, variable
from steadcast.errors import InvalidSettings

if TYPE_CHECKING:
    from pathlib import Path

    from steadcast.config import Settings


class WrongSettings(Exception):
    """Settings that can't be used; `lines` has one for each that is wrong."""

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def read_settings(config: Path | None, **flags: Any) -> Settings:
    """Read the settings; raises `WrongSettings` in words."""
    try:
        return load(config, **flags)
    except InvalidSettings as error:
        lines = [_line(name, why, given, config) for name, (why, given) in error.wrong.items()]
        raise WrongSettings(*lines) from error
    except FileNotFoundError as error:
        raise WrongSettings(f"--config: there is no file {config}") from error
    except OSError as error:
        raise WrongSettings(f"--config: {config} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WrongSettings(f"--config: {config} is no valid TOML: {error}") from error


def settings_or_leave(config: Path | None, **flags: Any) -> Settings:
    """Read the settings, or exit with a line for each that is wrong."""
    try:
        return read_settings(config, **flags)
    except WrongSettings as wrong:
        leave(Exit.USAGE, *wrong.lines)


def _line(name: str, why: str, given: object, config: Path | None) -> str:
    if name not in FIELDS:
        return f"{name}: {why}" + (f" ({config})" if config else "")
    shown = "a secret" if is_secret(name) else ascii(given)[:100]
    sources = [variable(name), "a flag", *([str(config)] if config else [])]
    return f"{name}: {why}, not {shown} (set by {', '.join(sources[:-1])} or {sources[-1]})"
