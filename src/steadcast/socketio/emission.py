"""A message of a client on its way to a handler: its parts, and what the handler takes of them."""

from __future__ import annotations

import inspect
from typing import Any

from steadcast.socketio.codec import UNREADABLE


def unwrap(data: Any) -> tuple[str, list[Any], str | None]:
    """Take an emission's id off an event's arguments."""
    if not isinstance(data, list) or not data or not isinstance(data[0], str):
        data = [UNREADABLE, "a message is a list that begins with the event's name"]
    event, *args = data
    match args:
        case [payload, {"emission": str(emission), **rest}] if not rest and 0 < len(emission) <= 128:  # noqa: PLR2004
            return event, [payload], emission
    return event, args, None


def takes_only(handler: object, *args: object) -> bool:
    """Tell whether a handler takes these arguments and none behind them, such as the null of no data."""
    if not callable(handler):
        return False
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        # One that tells nothing of itself is called as ever.
        return False
    return _binds(signature, *args) and not _binds(signature, *args, None)


def _binds(signature: inspect.Signature, *args: object) -> bool:
    try:
        signature.bind(*args)
    except TypeError:
        return False
    return True
