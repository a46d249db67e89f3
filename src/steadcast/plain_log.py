"""A log whose tracebacks show where, and nothing of what the variables there hold."""

from __future__ import annotations

import functools
import sys
import traceback
from typing import Any

import structlog


class _PlainLog:
    """structlog's logger of a name.

    Where nobody has configured structlog, as in most applications, it prints the variables of every frame
    beside a traceback: headers with tokens, and events as they came.
    """

    def __init__(self, name: str) -> None:
        self._log = structlog.get_logger(name)

    def __getattr__(self, level: str) -> Any:
        return functools.partial(self._say, level)

    def _say(self, level: str, event: str, **fields: Any) -> None:
        error = fields.get("exc_info", sys.exception() if level == "exception" else None)
        if error is not None and not structlog.is_configured():
            event = f"{event}\n{''.join(traceback.format_exception(error)).rstrip()}"
            fields["exc_info"] = False
        getattr(self._log, level)(event, **fields)


def plain_log(name: str) -> Any:
    """Give the logger of a name, with the methods of structlog's."""
    return _PlainLog(name)
