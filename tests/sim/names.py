"""How a record names what belongs to one of several streams."""

from __future__ import annotations


def within(stream: str, name: object) -> str:
    """Name a lane, or an event, of a stream: the same id on another stream is another event."""
    return f"{stream}/{name}"
