"""Settings in words: what is wrong with which one, a line each."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from steadcast.commands.exits import Exit, leave

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import ValidationError

    from steadcast.config import Settings


class WrongSettings(Exception):
    """Settings that can't be used; `lines` has one for each that is wrong."""

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def read_settings(config: Path | None, **flags: Any) -> Settings:
    """Read the settings; raises `WrongSettings` in words."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from steadcast.config import load

    if config is not None:
        _check_file(config)
    try:
        return load(config, **flags)
    except ValidationError as error:
        raise WrongSettings(*_lines(error, config)) from error
    except SettingsError as error:
        raise WrongSettings(_not_json(error)) from error


def settings_or_leave(config: Path | None, **flags: Any) -> Settings:
    """Read the settings, or exit with a line for each that is wrong."""
    try:
        return read_settings(config, **flags)
    except WrongSettings as wrong:
        leave(Exit.USAGE, *wrong.lines)


def _check_file(config: Path) -> None:
    try:
        tomllib.loads(config.read_text("utf-8"))
    except FileNotFoundError as error:
        raise WrongSettings(f"--config: there is no file {config}") from error
    except OSError as error:
        raise WrongSettings(f"--config: {config} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WrongSettings(f"--config: {config} is no valid TOML: {error}") from error


def _lines(error: ValidationError, config: Path | None) -> list[str]:
    return [_line(each["type"], each["loc"], each["msg"], each["input"], config) for each in error.errors()]


def _line(kind: str, place: tuple[int | str, ...], why: str, given: object, config: Path | None) -> str:
    name = ".".join(map(str, place))
    if kind == "extra_forbidden":
        return f"{name}: there is no such setting" + (f" ({config})" if config else "")
    shown = ascii(given) if "token" not in name else "a secret"
    sources = [f"STEADCAST_{str(place[0]).upper()}" if place else "the environment", "a flag"]
    sources += [str(config)] if config else []
    why = why[:1].lower() + why[1:]
    return f"{name}: {why}, not {shown[:100]} (set by {', '.join(sources[:-1])} or {sources[-1]})"


def _not_json(error: Exception) -> str:
    # pydantic-settings says this only as text: error parsing value for field "x" from source "…".
    parts = str(error).split('"')
    name = parts[1] if len(parts) > 1 else "?"
    return (
        f'{name}: STEADCAST_{name.upper()} takes JSON, as in ["a", "b"] for a list or {{"a": 1}} for a table'
    )
