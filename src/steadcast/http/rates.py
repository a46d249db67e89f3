"""Rates: how often one address may connect or guess a token, and how much one client may publish.

Counted in sliding windows by the library `limits`, in this process's memory: several servers count each for
itself. A rate is written as that library reads it: `10/second`, `300 per minute`, `1000/5 minutes`; or `off`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import time
from collections import Counter, OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from steadcast.errors import InvalidRequest, RateLimited

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.aio.strategies import SlidingWindowCounterRateLimiter

MOST: Final = 10_000
"""Counters that are held; more are forgotten all at once, counted, and every rate begins anew."""
KNOWN: Final = 10_000
"""Tokens that were right lately, by address, and as many that were wrong; the longest unseen go first."""
OFF: Final = "off"
LONGEST: Final = 600.0
"""Seconds: nobody is asked to come back later than that."""
_RATE: Final = re.compile(r"[1-9]\d{0,8} ?(?:/|per) ?(?:[1-9]\d{0,3} ?)?(?:second|minute|hour|day)s?")


class Rates:
    """What is counted for each client."""

    def __init__(
        self,
        *,
        connects: str = OFF,
        publishes: str = OFF,
        guesses: str = OFF,
        counts: Counter[str] | None = None,
    ) -> None:
        """Count nothing yet; raises `InvalidRequest` for what is no rate.

        `connects` (handshakes) and `guesses` (wrong tokens) are per address, `publishes` (events) per client.
        """
        self._connects = check_rate(connects, "rate_connects")
        self._publishes = check_rate(publishes, "rate_publishes")
        self._guesses = check_rate(guesses, "rate_guesses")
        self._counts: Counter[str] = Counter() if counts is None else counts
        self._items: dict[str, RateLimitItem] = {}
        self._limiter: SlidingWindowCounterRateLimiter | None = None
        self._right: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._wrong: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def connect(self, address: str | None) -> None:
        """Count a handshake; raises `RateLimited`.

        This machine's own addresses aren't counted: a proxy and every local agent come from there.
        """
        if self._connects is not None and not is_local(address):
            await self._spend(self._connects, "connects", network(address))

    async def publish(self, client: str, events: int) -> None:
        """Count a client's events; raises `RateLimited`. More at once than the rate take the whole of it."""
        if self._publishes is not None:
            await self._spend(self._publishes, "publishes", client, events)

    async def guess(self, address: str | None, token: str) -> None:
        """Refuse to look at a token while too many from this address were wrong; raises `RateLimited`.

        One that was right there lately is looked at, and one that was wrong: to show it again tells nothing
        new, and who goes on with a token that was taken back locks out no other.
        """
        if self._guesses is None:
            return
        pair = _pair(address, token)
        if pair in self._right or pair in self._wrong:
            return
        limiter, rate = self._ready(self._guesses)
        if not await limiter.test(rate, "guesses", network(address)):
            raise await self._over(self._guesses, "guesses", network(address))

    async def guessed(self, address: str | None, token: str, *, right: bool) -> None:
        """Note what came of a guess."""
        if self._guesses is None:
            return
        key = _pair(address, token)
        told, other = (self._right, self._wrong) if right else (self._wrong, self._right)
        other.pop(key, None)
        known = key in told
        told[key] = None
        told.move_to_end(key)
        if len(told) > KNOWN:
            told.popitem(last=False)
        if not right and not known:
            limiter, rate = self._ready(self._guesses)
            await limiter.hit(rate, "guesses", network(address))

    async def _spend(self, rate: str, what: str, key: str, cost: int = 1) -> None:
        limiter, item = self._ready(rate)
        if cost and not await limiter.hit(item, what, key, cost=min(cost, item.amount)):
            raise await self._over(rate, what, key)

    async def _over(self, rate: str, what: str, key: str) -> RateLimited:
        self._counts[f"limited_{what}"] += 1
        limiter, item = self._ready(rate)
        window = await limiter.get_window_stats(item, what, key)
        wait = min(max(window.reset_time - time.time(), 0.1), LONGEST)
        return RateLimited(f"more {what} than {rate}", retry_after=round(wait, 3))

    def _ready(self, rate: str) -> tuple[SlidingWindowCounterRateLimiter, RateLimitItem]:
        # Imported with the first thing to count: it would take a third of a server's start.
        from limits import parse

        if self._limiter is None:
            from limits.aio.storage import MemoryStorage
            from limits.aio.strategies import SlidingWindowCounterRateLimiter

            self._storage = MemoryStorage()
            self._limiter = SlidingWindowCounterRateLimiter(self._storage)
        if len(self._storage.storage) > MOST:
            self._storage.storage.clear()
            self._storage.expirations.clear()
            self._storage.locks.clear()
            self._counts["rates_forgotten"] += 1
        if rate not in self._items:
            self._items[rate] = parse(rate)
        return self._limiter, self._items[rate]


def check_rate(text: str, field: str) -> str | None:
    """Return a rate that can be read, or None for `off`; raises `InvalidRequest` naming the `field`."""
    if text == OFF:
        return None
    if not _RATE.fullmatch(text):
        raise InvalidRequest(f"{field} is a rate such as 10/second or 300/minute, or off", field=field)
    return text


@lru_cache(maxsize=1024)
def network(address: str | None) -> str:
    """Give what is counted as one client: an IPv4 address, or the 64 bits that an IPv6 one begins with."""
    known = _address(address)
    if isinstance(known, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((known, 64), strict=False))
    return address or "" if known is None else str(known)


def _pair(address: str | None, token: str) -> tuple[str, str]:
    return network(address), hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache(maxsize=1024)
def is_local(address: str | None) -> bool:
    """Tell whether an address is this machine's own, or none at all, as over a Unix socket."""
    known = _address(address)
    return address is None if known is None else known.is_loopback


def _address(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        known = ipaddress.ip_address(text or "")
    except ValueError:
        return None
    return (known.ipv4_mapped or known) if isinstance(known, ipaddress.IPv6Address) else known
