"""Readiness: each thing that is needed to serve is tried, by one look at a time for all who ask."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from steadcast.errors import SteadcastError
from steadcast.event import Lane
from steadcast.http.context import PROBED

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable

    from steadcast.engines.base import Engine

PROBE_LIMIT = 3.0
"""Seconds after which a part of the engine that doesn't answer is told as not ready."""


class Readiness:
    """Tells in words what keeps a server from serving."""

    def __init__(
        self,
        engine: Engine,
        counts: Counter[str],
        *,
        known: Callable[[], list[str]],
        handler_timeout: float | None,
    ) -> None:
        """Probe `engine`; failures are counted as `ready_failed`. `known` tells what needs no probe.

        `handler_timeout` is what an HTTP handler may take, in seconds.
        """
        self._engine = engine
        self._counts = counts
        self._known = known
        # A little less than the handler's, so that the reason is told and not its timeout.
        self._limit = min(PROBE_LIMIT, 0.9 * (handler_timeout or PROBE_LIMIT))
        self._looking: asyncio.Task[list[str]] | None = None

    async def problems(self) -> list[str]:
        """List what is wrong. Who asks meanwhile gets the same answer.

        Anybody may ask, and each look writes to the disk: so there is one at a time.
        """
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="steadcast-ready")
        return await asyncio.shield(self._looking)

    async def _look(self) -> list[str]:
        probes = await asyncio.gather(
            self._probe("append", self._engine.append(PROBED, [])),
            self._probe("read", self._engine.read(PROBED, Lane.NORMAL, 0, 1)),
            self._probe("describe", self._engine.describe(PROBED)),
        )
        return [*self._known(), *dict.fromkeys(told for told in probes if told is not None)]

    async def _probe(self, what: str, work: Awaitable[object]) -> str | None:
        try:
            async with asyncio.timeout(self._limit):
                await work
        except SteadcastError as error:
            self._counts["ready_failed"] += 1
            return f"{error.code}: {error.message}"
        except TimeoutError:
            self._counts["ready_failed"] += 1
            return f"timeout: the log doesn't answer to {what} within {self._limit:g} s"
        return None
