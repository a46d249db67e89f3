"""Whether a client still answers: pings out, pongs back. Pure; the shell sends what is due.

Only a client that has subscribed or ponged is judged, counted from the first ping that was sent to it after
that; others are plain Socket.IO clients, and Engine.IO looks after them.
"""

from __future__ import annotations

import msgspec


class Health(msgspec.Struct):
    """One client's liveness; times are monotonic seconds."""

    since: float
    judged: bool = False
    judged_since: float | None = None
    pinged_at: float | None = None
    ponged_at: float | None = None
    unanswered: int = 0
    round_trip: float | None = None

    def judge(self) -> None:
        """Begin to judge this client: it speaks the protocol."""
        self.judged = True

    def pinged(self, now: float) -> None:
        """Note that a ping was sent."""
        self.pinged_at = now
        self.unanswered += 1
        if self.judged and self.judged_since is None:
            self.judged_since = now

    def ponged(self, now: float, *, sent_at: float | None) -> None:
        """Note a pong; `sent_at` is the time of the ping that it answers, where it says so."""
        self.judge()
        self.ponged_at = now
        self.unanswered = 0
        if sent_at is not None and sent_at <= now:
            self.round_trip = now - sent_at

    def stale(self, now: float, limit: float) -> bool:
        """Tell whether a judged client gave no pong for `limit` seconds."""
        if self.judged_since is None:
            return False
        last = self.judged_since if self.ponged_at is None else max(self.judged_since, self.ponged_at)
        return self.unanswered > 0 and now - last >= limit

    def uptime(self, now: float) -> float:
        """Give the seconds since the connect."""
        return now - self.since
