"""The token that a client shows: a fixed one, or a function that is asked for a fresh one.

Only the standard library: the hook loads it at every call.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    TokenFunction = Callable[[], str]
    AnyTokenFunction = Callable[[], str | Awaitable[str]]


class TokenFailed(Exception):
    """The token function raised, or gave nothing that a header takes; the cause has more."""


class TokenSource:
    """Asks a function once, and again when its token was refused."""

    __slots__ = ("_given", "_held")

    def __init__(self, given: str | AnyTokenFunction | None) -> None:
        """Raise ValueError for a fixed token that no header takes."""
        self._given = given
        self._held = None if callable(given) else checked(given or "")

    def current(self) -> str:
        """Give the token, "" where there is none; raises `TokenFailed`. For functions that don't wait."""
        if self._held is None:
            self._hold(self._ask())
        return self._held or ""

    async def wait(self) -> str:
        """Give the token, as `current`, also from a function that has to be awaited."""
        if self._held is None:
            answer = self._ask()
            if not isinstance(answer, str):
                try:
                    answer = await answer
                except Exception as error:
                    raise TokenFailed(_told(error)) from error
            self._hold(answer)
        return self._held or ""

    def refused(self, token: str) -> bool:
        """Forget a token that the server refused; tells whether the function can be asked for another."""
        if not callable(self._given):
            return False
        if self._held == token:
            self._held = None
        return True

    def _ask(self) -> str | Awaitable[str]:
        assert callable(self._given)  # noqa: S101 - only a function's token is ever missing
        try:
            return self._given()
        except Exception as error:
            raise TokenFailed(_told(error)) from error

    def _hold(self, answer: object) -> None:
        if not isinstance(answer, str):
            raise TokenFailed(f"the token function gave {type(answer).__name__}")
        try:
            self._held = checked(answer)
        except ValueError as error:
            raise TokenFailed(str(error)) from error


async def fresh(given: str | AnyTokenFunction) -> str:
    """Give a token for a connection that is about to be made; raises `Unavailable` (`token_failed`)."""
    from steadcast.errors import Unavailable

    try:
        return await TokenSource(given).wait()
    except TokenFailed as error:
        raise Unavailable(str(error), code="token_failed") from error


def checked(token: str) -> str:
    """Return a token without the blanks around it; raises ValueError for one that no header takes."""
    token = token.strip()
    if not (token.isascii() and token.isprintable()):
        raise ValueError("a token is printable ASCII")
    return token


def _told(error: Exception) -> str:
    return f"the token function failed: {type(error).__name__}"  # its words might hold the token
