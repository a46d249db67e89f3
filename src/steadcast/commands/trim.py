"""`steadcast trim`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

import typer

from steadcast.commands.admin import ask_server, refusal
from steadcast.commands.exits import Exit, leave
from steadcast.commands.options import DEFAULT, AsJson, Stream, Token, Url
from steadcast.event import Lane  # noqa: TC001 - typer reads the annotations at run time

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[[str, bool], dict[str, Any]]

_OK, _WRONG = 200, 400
_YES = frozenset({"y", "yes"})


def trim(
    stream: Stream,
    *,
    lane: Annotated[Lane, typer.Option(help="The lane, critical or normal.", show_default=False)],
    upto: Annotated[
        str, typer.Option(help="The last offset that is to go, also as EPOCH:OFFSET.", metavar="OFFSET")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask whether it may go.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT,
    token: Token = None,
) -> None:
    """Drop a lane's events up to and with an offset, for good: past an event that nobody can read.

    Asks a running server (scope admin). Every subscriber that hadn't got there is told what it lost, as
    after retention, and goes on behind it. Where nobody is there to be asked it needs --yes.
    """

    def ask(where: str, dry: bool) -> dict[str, Any]:
        query = urlencode({"lane": str(lane), "upto": where} | ({"dry_run": "true"} if dry else {}), safe=":")
        answer = ask_server(url, token, f"/v1/streams/{quote(stream, safe='')}/trim?{query}", method="POST")
        found = answer.json()
        if answer.status != _OK or "trimmed" not in found:
            leave(Exit.USAGE if answer.status == _WRONG else Exit.FAILED, refusal(answer))
        return found

    found = ask(upto, True) if dry_run else _until_done(ask, upto if yes else _agreed(ask, upto))
    typer.echo(_json(found) if as_json else _line(found))


def _agreed(ask: Ask, upto: str) -> str:
    """Have it agreed to by who sits there; gives the position that was agreed to."""
    found = ask(upto, True)
    if found["lost"] is not None:
        if not sys.stdin.isatty():
            leave(Exit.USAGE, _line(found), "give --yes to do it")
        # Not `typer.confirm`: it writes to standard output too, which is for what was done.
        typer.echo(f"{_line(found)}\nThat is for good. Go on? [y/N] ", nl=False, err=True)
        if sys.stdin.readline().strip().lower() not in _YES:
            leave(Exit.FAILED, "nothing was trimmed")
    return _in_epoch(found, upto)


def _until_done(ask: Ask, upto: str) -> dict[str, Any]:
    """Trim, again where a request was too short for it, and tell all of it as one."""
    done = ask(upto, False)
    while not done["complete"]:
        more = ask(_in_epoch(done, upto), False)
        done = more | {
            "events": done["events"] + more["events"],
            "lost": _both(done["lost"], more["lost"]),
        }
    return done


def _in_epoch(found: dict[str, Any], upto: str) -> str:
    """Mean the log that has answered, and no other that may have taken its place since."""
    return f"{found['epoch']}:{upto.rpartition(':')[2]}"


def _both(first: list[int] | None, then: list[int] | None) -> list[int] | None:
    if first is None or then is None:
        return first or then
    return [first[0], then[1]]


def _line(found: dict[str, Any]) -> str:
    where = f"{found['stream']} ({found['lane']})"
    mark = f"the mark is {found['trimmed']}, the head {found['head']}"
    if found["lost"] is None:
        return f"{where}: nothing to do; {mark}"
    first, last = found["lost"]
    events = f"{found['events']} event{'' if found['events'] == 1 else 's'}"
    verb = "would go" if found["dry_run"] else "gone"
    return f"{where}: {events} {verb}, offsets {first} to {last}; {mark}"


def _json(found: dict[str, Any]) -> str:
    import msgspec

    return msgspec.json.encode(found).decode()
