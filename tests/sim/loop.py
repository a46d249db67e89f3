"""An event loop whose time is virtual: it sleeps in no time, and runs the same way every time."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any, Never


class _NoSelector(selectors.BaseSelector):
    """Selects nothing; a wait moves the clock instead."""

    def __init__(self) -> None:
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            msg = "nothing is scheduled any more: the simulation is stuck"
            raise RuntimeError(msg)
        self.now += max(timeout, 0.0)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_map(self) -> dict[Any, Any]:
        return {}

    def close(self) -> None:
        """Nothing to close."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time stands still while code runs, and jumps to the next timer when nothing is left to run."""

    def __init__(self) -> None:
        self._virtual = _NoSelector()
        super().__init__(self._virtual)
        self.steps = 0

    def time(self) -> float:
        return self._virtual.now

    def _make_self_pipe(self) -> None:
        """No other thread wakes this loop."""

    def _close_self_pipe(self) -> None:
        """There is none."""

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> Never:
        msg = "a simulation has one thread"
        raise RuntimeError(msg)

    def _run_once(self) -> None:
        self.steps += 1
        super()._run_once()  # type: ignore[misc]
