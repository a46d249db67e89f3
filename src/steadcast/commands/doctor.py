"""`steadcast doctor`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from steadcast.commands.exits import Exit, logs_aside
from steadcast.commands.options import DEFAULT, AsJson, Config, Token, Url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steadcast.doctor import Finding

_COLOURS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "problem": typer.colors.RED}


def doctor(
    url: Url = DEFAULT,
    token: Token = None,
    engine: Annotated[
        str | None, typer.Option(help="The engine that serve would use.", metavar="URL")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Look at what Steadcast stands on: libraries, engine, disk, server, spool, hooks, clock, network.

    Changes nothing and disturbs no running server. Exits 1 where there is a problem; warnings are none.
    """
    from steadcast.doctor import examine

    logs_aside()
    findings = examine(url, token, config=config, engine=engine)
    problems = sum(each.state == "problem" for each in findings)
    if as_json:
        _print_json(findings, ok=not problems)
    else:
        _print_table(findings)
        typer.echo(_summary(findings))
    sys.exit(Exit.FAILED if problems else Exit.DONE)


def _print_json(findings: Sequence[Finding], *, ok: bool) -> None:
    import msgspec

    typer.echo(msgspec.json.encode({"ok": ok, "checks": findings}).decode())


def _print_table(findings: Sequence[Finding]) -> None:
    width = max(len(each.name) for each in findings)
    for each in findings:
        state = typer.style(f"{each.state:<7}", fg=_COLOURS[each.state])
        typer.echo(f"{state}  {each.name:<{width}}  {each.told}")
        if each.advice:
            typer.echo(f"{'':<{width + 11}}→ {each.advice}")


def _summary(findings: Sequence[Finding]) -> str:
    counts = [sum(each.state == state for each in findings) for state in ("problem", "warning")]
    told = [
        f"{count} {word}{'s' * (count != 1)}"
        for count, word in zip(counts, ("problem", "warning"), strict=True)
    ]
    return "all is well" if not any(counts) else ", ".join(told)
