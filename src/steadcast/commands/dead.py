"""`steadcast dead list`, `redrive` and `drop`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias
from urllib.parse import quote

import typer

from steadcast.commands.admin import ask_server, refusal
from steadcast.commands.exits import Exit, leave, tell
from steadcast.commands.options import DEFAULT, AsJson, Token, Url

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

app = typer.Typer(
    name="dead",
    no_args_is_help=True,
    help="Look at what a server gave up after its retries, append it again, or drop it.",
    pretty_exceptions_enable=False,
)

Ids: TypeAlias = Annotated[
    list[str] | None, typer.Argument(help="Ids as `list` shows them.", show_default=False)
]
All: TypeAlias = Annotated[bool, typer.Option("--all", help="Every dead event, the oldest first.")]


@app.command("list")
def list_dead(as_json: AsJson = False, url: Url = DEFAULT, token: Token = None) -> None:
    """List the dead events of a server, the oldest first: id, time, reason, attempts, and the event."""
    found = _listing(url, token)
    if as_json:
        import msgspec

        for each in found["dead"]:
            typer.echo(msgspec.json.encode(each).decode())
    else:
        for each in found["dead"]:
            typer.echo(_line(each))
    if not found["complete"]:
        tell("the log can't be read now: some may be missing here")
    elif not found["dead"] and not as_json:
        tell("there are no dead events")


@app.command()
def redrive(ids: Ids = None, every: All = False, url: Url = DEFAULT, token: Token = None) -> None:
    """Append dead events to their streams again, as they were: an event that did arrive isn't doubled.

    Exits 1 where one was refused or isn't there; the others are re-driven all the same.
    """

    def again(dead: str) -> str | None:
        answer = ask_server(url, token, f"/v1/dead/{quote(dead, safe='')}/redrive", method="POST")
        if answer.status != _OK:
            return refusal(answer)
        result = answer.json()["result"]
        epoch, offset = result["position"]
        note = "  it had arrived" if result["duplicate"] else ""
        typer.echo(f"{dead}  {result['lane']}:{epoch}:{offset}{note}")
        return None

    _each(_chosen(ids, url, token, every=every), again)


@app.command()
def drop(ids: Ids = None, every: All = False, url: Url = DEFAULT, token: Token = None) -> None:
    """Forget dead events for good. Exits 1 where one isn't there."""

    def away(dead: str) -> str | None:
        answer = ask_server(url, token, f"/v1/dead/{quote(dead, safe='')}", method="DELETE")
        if answer.status != _GONE:
            return refusal(answer)
        typer.echo(f"{dead}  dropped")
        return None

    _each(_chosen(ids, url, token, every=every), away)


_OK, _GONE = 200, 204


def _each(ids: Sequence[str], work: Callable[[str], str | None]) -> None:
    """Do something for each; what went wrong is told, and is the exit code in the end."""
    failed = 0
    for dead in ids:
        wrong = work(dead)
        if wrong is not None:
            failed += 1
            tell(f"{dead}: {wrong}")
    sys.exit(Exit.FAILED if failed else Exit.DONE)


def _chosen(ids: list[str] | None, url: str, token: str | None, *, every: bool) -> list[str]:
    if every == bool(ids):
        leave(Exit.USAGE, "give ids, or --all")
    return ids or [each["id"] for each in _listing(url, token)["dead"]]


def _listing(url: str, token: str | None) -> dict[str, Any]:
    answer = ask_server(url, token, "/v1/dead")
    found = answer.json()
    if answer.status != _OK or "dead" not in found:
        leave(Exit.FAILED, refusal(answer))
    return found


def _line(each: dict[str, Any]) -> str:
    event = each["event"]
    parts = [each["id"], each["at"], f"{each['reason']} after {each['attempts']}", each["stream"]]
    parts += [event["type"], event["id"], each["error"] or ""]
    return "  ".join(_plain(part) for part in parts).rstrip()


def _plain(text: str) -> str:
    """Take away what a terminal may obey: ids and errors come from elsewhere."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)
