"""`steadcast demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from steadcast.commands.exits import Exit, code_for, leave, mute, tell, token_advice
from steadcast.commands.options import DEFAULT, Token, Url

if TYPE_CHECKING:
    from steadcast.client.post import Connection, Outcome
    from steadcast.demo.player import Step


def demo(
    speed: Annotated[
        float, typer.Option(help="2 plays twice as fast; 0 waits for nothing.", min=0, max=1000)
    ] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end, until Ctrl-C.")] = False,
    url: Url = DEFAULT,
    token: Token = None,
) -> None:
    """Play a recorded session of several coding agents to a server, in real time.

    A server that is killed meanwhile is waited for, and misses nothing.
    """
    from steadcast.client.post import Connection
    from steadcast.demo.player import Unplayable, play, recording

    connection = _connection(Connection, url, token)
    steps = recording()
    _announce(connection.address.url, steps, speed)
    try:
        while True:
            taken = play(connection, steps, speed=speed, tell=_show, away=_away)
            _echo(f"{taken} events played")
            if not loop:
                break
            steps = recording()
    except Unplayable as error:
        code = code_for(error.outcome.code, error.outcome.status)
        advice = token_advice() if code is Exit.NOT_ALLOWED else ()
        leave(Exit.NO_SERVER if error.outcome.status == 0 else code, str(error), *advice)


def _connection(kind: type[Connection], url: str, token: str | None) -> Connection:
    """Connect to a server that is there; exits where none is, and says how to start one."""
    from steadcast.client.address import parse_address
    from steadcast.commands.asking import NoAnswer, ask

    address = parse_address(url)
    try:
        answer = ask(address, "/healthz")
    except NoAnswer as error:
        leave(
            Exit.NO_SERVER,
            f"no server answers at {address.url} ({error})",
            "start one in another terminal with: steadcast serve",
        )
    if answer.json().get("status") != "ok":
        leave(Exit.NO_SERVER, f"what answers at {address.url} is no Steadcast server")
    try:
        return kind(address, token=token)
    except ValueError as error:
        leave(Exit.USAGE, f"--token: {error}")


def _announce(url: str, steps: list[Step], speed: float) -> None:
    sessions = len({step.hook["session_id"] for step in steps})
    length = f"{steps[-1].at / speed:.0f} s" if speed else "no time"
    _echo(f"Open {url}/ in a browser: {sessions} agents at work, {len(steps)} events in {length}.")


def _show(step: Step) -> None:
    minutes, seconds = divmod(int(step.at), 60)
    line = step.line.replace("\n", " ")
    _echo(f"{minutes}:{seconds:02d}  {line if len(line) <= _WIDTH else line[: _WIDTH - 1] + '…'}")


_WIDTH = 100


def _away(outcome: Outcome) -> None:
    tell(f"the server is away ({outcome.reason}); waiting for it")


def _echo(text: str) -> None:
    try:
        typer.echo(text)
    except BrokenPipeError:
        mute()  # the show is on the page
