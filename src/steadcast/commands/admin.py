"""Asking a server what only whoever runs it may: who can't be helped is told why, and left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steadcast.commands.exits import Exit, code_for, leave, token_advice

if TYPE_CHECKING:
    from steadcast.commands.asking import Answer

_LARGEST = 512 * 1024 * 1024
"""Bytes of an answer: 1,000 dead events of 256 KiB each, and room around them."""
_PATIENCE = 30.0
_UNAVAILABLE = 503


def ask_server(url: str, token: str | None, path: str, *, method: str = "GET") -> Answer:
    """Ask, and leave where nobody answers, may, or can for now."""
    from steadcast.client.address import parse_address
    from steadcast.commands.asking import NoAnswer, ask

    address = parse_address(url)
    try:
        answer = ask(address, path, token=token, timeout=_PATIENCE, method=method, largest=_LARGEST)
    except NoAnswer as error:
        leave(Exit.NO_SERVER, f"no server answers at {address.url} ({error})")
    if code_for(answer.json().get("code", ""), answer.status) is Exit.NOT_ALLOWED:
        leave(Exit.NOT_ALLOWED, refusal(answer), *token_advice())
    if answer.status == _UNAVAILABLE:
        leave(Exit.NO_SERVER, refusal(answer))
    return answer


def refusal(answer: Answer) -> str:
    """Give a server's refusal in words, with its code."""
    problem = answer.json()
    words = problem.get("detail", "what answers is no Steadcast server")
    return f"{words} ({problem.get('code', answer.status)})"
