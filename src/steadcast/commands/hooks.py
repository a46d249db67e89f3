"""`steadcast hooks install` and `uninstall`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from steadcast.commands.exits import Exit, leave, tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from steadcast.client.hooks_install import Change

app = typer.Typer(
    name="hooks",
    no_args_is_help=True,
    help="Install the hook in a coding agent's settings, or take it out.",
    pretty_exceptions_enable=False,
)

User: TypeAlias = Annotated[
    bool,
    typer.Option("--user/--project", help="The user's settings, or those of the project in this folder."),
]
SettingsFile: TypeAlias = Annotated[
    Path | None, typer.Option("--settings", help="Another settings file.", metavar="FILE")
]


@app.command()
def install(
    user: User = False,
    settings: SettingsFile = None,
    command: Annotated[
        str | None,
        typer.Option(help="The command to install: steadcast-hook or steadcast hook, by any path."),
    ] = None,
    event: Annotated[
        list[str] | None, typer.Option(help="Only this hook event; may be given several times.")
    ] = None,
) -> None:
    """Install the hook for every hook event that watching doesn't disturb; a second time changes nothing.

    All else in the settings stays as it is, and the file as it was is kept beside it.
    """
    from steadcast.client.hooks_install import NOT_BY_DEFAULT, is_own
    from steadcast.client.hooks_install import install as change

    if command is not None and not is_own({"command": command}):
        leave(
            Exit.USAGE, f"--command: {command!r} is no steadcast hook, and uninstall wouldn't find it again"
        )
    path = _path(settings, user=user)
    done = _changed(lambda: change(path, command=command, events=event or None))
    if not done.changed:
        typer.echo(f"{path}: the hook was installed already, for {len(done.events)} events")
        return
    typer.echo(f"{path}: the hook is installed for {len(done.events)} events")
    _tell_backup(done)
    for name, why in NOT_BY_DEFAULT.items():
        if name not in done.events:
            tell(f"left out: {name}: {why}")


@app.command()
def uninstall(user: User = False, settings: SettingsFile = None) -> None:
    """Take out the hook, and nothing else."""
    from steadcast.client.hooks_install import uninstall as change

    path = _path(settings, user=user)
    done = _changed(lambda: change(path))
    if not done.changed:
        typer.echo(f"{path}: no hook is installed")
        return
    typer.echo(f"{path}: the hook is taken out, of {len(done.events)} events")
    _tell_backup(done)


def _path(settings: Path | None, *, user: bool) -> Path:
    from steadcast.client.hooks_install import settings_path

    return settings or settings_path("user" if user else "project")


def _changed(change: Callable[[], Change]) -> Change:
    try:
        return change()
    except OSError as error:
        leave(Exit.FAILED, f"{error.filename}: {error.strerror}")


def _tell_backup(done: Change) -> None:
    typer.echo(f"the file as it was: {done.backup}" if done.backup else "there was no such file before")
