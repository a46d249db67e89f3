"""Pages of the log that were just read: kept for a moment, so that who comes to the same place shares them.

After an outage everybody is behind by about the same: a page is read, encoded and framed once for all.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import msgspec

from steadcast.core.paging import cut
from steadcast.event import Lane  # noqa: TC001 - msgspec reads the annotations at run time
from steadcast.hub.frame import Frame

if TYPE_CHECKING:
    from collections import Counter

    from steadcast.event import Batch

PAGES_BYTES: Final = 4 * 1024 * 1024
"""So much JSON is kept at most; over it, the pages that were not wanted for longest go, counted."""
PAGES_AGE: Final = 2.0
"""Seconds for which a page is kept after it was read."""


class Place(msgspec.Struct, frozen=True):
    """Where a page begins; the epoch is the one that its reader expects."""

    stream: str
    lane: Lane
    epoch: str
    after: int
    limit: int


class Page:
    """A page, and the frame that was last made of it."""

    __slots__ = ("_frame", "batch", "read_at", "size")

    def __init__(self, batch: Batch, read_at: float) -> None:
        """Keep the page; `read_at` is monotonic."""
        self.batch = batch
        self.read_at = read_at
        self._frame = Frame(batch)
        self.size = len(self._frame.payload)

    def frame(self, upto: int) -> Frame:
        """Give the frame of the part at or below an offset; asked again, the same one."""
        upto = max(self.batch.after, min(upto, self.batch.upto))
        if self._frame.batch.upto != upto:
            self._frame = Frame(cut(self.batch, upto))
        return self._frame


class Pages:
    """The pages that are kept, by where they begin."""

    def __init__(
        self, counts: Counter[str], *, max_bytes: int = PAGES_BYTES, max_age: float = PAGES_AGE
    ) -> None:
        """Keep at most `max_bytes` of JSON, each page for `max_age` seconds."""
        self._counts = counts
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._pages: OrderedDict[Place, Page] = OrderedDict()  # bounded by _max_bytes in `keep`
        self.size = 0

    def get(self, place: Place, now: float) -> Page | None:
        """Give a page that was read less than `max_age` seconds ago, or None."""
        page = self._pages.get(place)
        if page is None or now - page.read_at >= self._max_age:
            return None
        self._pages.move_to_end(place)
        return page

    def keep(self, place: Place, batch: Batch, now: float) -> Page:
        """Keep what was read at a place: not an empty page, nor one of another epoch, nor one too large."""
        page = Page(batch, now)
        self._drop(place)
        if batch.events and batch.epoch == place.epoch and page.size <= self._max_bytes:
            self._pages[place] = page
            self.size += page.size
            while self.size > self._max_bytes:
                self._drop(next(iter(self._pages)))
                self._counts["pages_evicted"] += 1
        return page

    def forget_old(self, now: float) -> None:
        """Let go of the pages whose time is over."""
        for place in [place for place, page in self._pages.items() if now - page.read_at >= self._max_age]:
            self._drop(place)

    def _drop(self, place: Place) -> None:
        page = self._pages.pop(place, None)
        self.size -= page.size if page else 0
