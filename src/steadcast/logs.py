"""What is written to the log: no token, no password, whoever wrote the line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from steadcast.masking import MASK, NOTE, Masking
from steadcast.wire import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping

    from steadcast.config import Settings

    Processor = Callable[[Any, str, MutableMapping[str, Any]], MutableMapping[str, Any]]

SHORTEST: Final = 6
"""Characters: a shorter secret is in too many words for a log without it to be readable."""


def secrets_of(settings: Settings) -> list[str]:
    """Give the secrets that the settings name, without the blanks around them."""
    named = [settings.token, settings.jwt_secret, *(rule.token for rule in settings.tokens)]
    return [each.strip() for each in named if each and not each.isspace()]


def hiding(secrets: Iterable[str]) -> Processor:
    """Make a structlog processor that takes these texts out of a line, and what looks like a secret."""
    known = [each for each in secrets if len(each) >= SHORTEST]
    masking = Masking()

    def hide(_logger: Any, _name: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        own = {key: value for key, value in line.items() if key.startswith("_")}  # the library's
        masked: dict[str, Any] = masking.body(
            {key: _plain(value) for key, value in line.items() if key not in own}
        )
        masked.pop(NOTE, None)
        for key, value in masked.items():
            if isinstance(value, str):
                masked[key] = _without(known, value)
        return masked | own

    return hide


def one_line(_logger: Any, _name: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep a library's message to its line: some hold what a client sent, as it came."""
    return {**line, "event": visible(str(line["event"]))}


def _plain(value: Any) -> Any:
    """Turn into text what a renderer would turn into text, so that it can be looked at."""
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def _without(known: list[str], text: str) -> str:
    for secret in known:
        text = text.replace(secret, MASK)
    return text
