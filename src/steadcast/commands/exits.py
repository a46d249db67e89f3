"""Exit codes, and how a command leaves: in one line of words on standard error."""

from __future__ import annotations

import io
import os
import sys
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn

from steadcast.errors import InvalidInput, NotAllowed, SteadcastError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Exit(IntEnum):
    """What scripts can tell apart; the command line's docstring and `--help` have the table."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_SERVER = 3
    SPOOLED = 4
    NOT_ALLOWED = 5
    INTERRUPTED = 130


MEANINGS = {
    Exit.DONE: "done",
    Exit.FAILED: "refused or failed, or doctor found a problem",
    Exit.USAGE: "wrong option, setting or input",
    Exit.NO_SERVER: "no server answers or takes anything for now, or serve couldn't start",
    Exit.SPOOLED: "spooled: on disk, sent when the server is back",
    Exit.NOT_ALLOWED: "no token, or a wrong one",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
}

_NOT_ALLOWED = frozenset(
    {"unauthorized", "forbidden", "token_expired", "token_revoked", "wrong_host", "wrong_origin"}
)


def tell(text: str) -> None:
    """Say something to the person, beside the output."""
    print(f"steadcast: {text}", file=sys.stderr, flush=True)  # noqa: T201 - what a command line is for


def logs_aside() -> None:
    """Send what the parts of the house log to standard error, beside the output."""
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("warning"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def leave(code: Exit, *lines: str) -> NoReturn:
    """Say why, a line each, and exit."""
    for line in lines:
        tell(line)
    sys.exit(code)


def code_for(code: str, status: int = 0) -> Exit:
    """Give the exit code for a server's refusal, by its error code and HTTP status."""
    return Exit.NOT_ALLOWED if code in _NOT_ALLOWED or status in {401, 403} else Exit.FAILED


def leave_with(error: SteadcastError) -> NoReturn:
    """Exit as an error of the tree asks for; what was invalid before any server saw it is wrong usage."""
    if isinstance(error, InvalidInput):
        leave(Exit.USAGE, error.message)
    if isinstance(error, NotAllowed) or code_for(error.code) is Exit.NOT_ALLOWED:
        leave(Exit.NOT_ALLOWED, f"{error.message} ({error.code})", *token_advice())
    leave(Exit.NO_SERVER if error.temporary else Exit.FAILED, f"{error.message} ({error.code})")


def token_advice() -> Sequence[str]:
    """Say where a token comes from."""
    return ("give the server's token with --token or STEADCAST_TOKEN",)


class Output(io.TextIOWrapper):
    """Standard output that knows its own failure, and spells what its encoding has no character for."""

    failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write as ever; raises OSError, and keeps it."""
        try:
            return super().write(text)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        """Flush as ever; raises OSError, and keeps it."""
        try:
            super().flush()
        except OSError as error:
            self.failure = error
            raise


@contextmanager
def own_output() -> Iterator[None]:
    """Print by an `Output` meanwhile; a failure of it that nobody has told ends the command in words."""
    given = sys.stdout
    if not isinstance(given, io.TextIOWrapper):
        yield
        return
    output = Output(given.buffer, given.encoding, "backslashreplace", line_buffering=given.line_buffering)
    sys.stdout = output
    try:
        yield
    except OSError as error:
        if output.failure is not error:
            raise
        mute()
        leave(Exit.FAILED, f"standard output can't be written: {error.strerror}")
    finally:
        sys.stdout = given
        try:
            output.detach()
        except OSError:
            mute()  # its failure has been told


def mute() -> None:
    """Send what is still printed nowhere, since nobody reads it any more."""
    # What is still buffered would raise once more when the interpreter flushes it.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
