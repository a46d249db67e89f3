"""Events to the server in order, each with its position as the answer, or to the spool while it is away."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec

from steadcast.client.address import parse_address
from steadcast.client.delivery import deliver
from steadcast.client.drain import BATCH_TYPE, EMPTY, EVENT_TYPE, Drain, batch_body
from steadcast.client.post import ACCEPTED, TEMPORARY, Connection, Outcome
from steadcast.client.spool import FULL, Spool
from steadcast.client.spooled import spool_root
from steadcast.commands.exits import Exit, code_for, leave, mute, tell, token_advice
from steadcast.commands.showing import write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steadcast.client.outgoing import Outgoing

_PAUSE = 2.0
"""Seconds for which a server that failed isn't tried again while there is a spool."""


class Sending:
    """Sends groups of events; what the server can't take now goes to the spool, behind what waits there."""

    def __init__(self, connection: Connection, spool: Spool | None, *, timeout: float, as_json: bool) -> None:
        self._connection = connection
        self._spool = spool
        self._timeout = timeout
        self._as_json = as_json
        self._drain = None if spool is None else Drain(spool, connection)
        self._away_until = 0.0
        self._trouble: Outcome | None = None
        self._failed = 0
        self._failure = Exit.FAILED
        self._spooled = 0
        self._dropped = 0
        if spool is not None:
            spool.watch = self._left_spool

    def send(self, items: Sequence[Outgoing]) -> None:
        """Send a group of one stream, in order; each event is printed with what became of it."""
        try:
            self._send(items)
        except KeyboardInterrupt:
            # What the server has taken already is known there by its id.
            self._trouble = Outcome(TEMPORARY, code="interrupted")
            self._spool_all(items)
            if self._spool is None:
                tell(
                    f"interrupted: of the last {len(items)} it isn't known whether the server has taken them"
                )
            raise

    def refused(self, what: str, why: str, code: Exit = Exit.FAILED) -> None:
        """Tell and count an event that nobody takes."""
        tell(f"{what} is refused: {why}")
        self._failed += 1
        self._failure = code

    def finish(self) -> Exit:
        """Tell what is spooled and why, and give the exit code."""
        self._connection.close()
        if self._spooled and self._spool is not None:
            reason = self._trouble.reason if self._trouble is not None else "older events wait there"
            tell(f"spooled {self._spooled} in {self._spool.folder}: {reason}")
        if self._dropped:
            tell(f"the spool is full: {self._dropped} of its oldest were dropped")
        if self._failed or self._dropped:
            return self._failure
        return Exit.SPOOLED if self._spooled else Exit.DONE

    def _send(self, items: Sequence[Outgoing]) -> None:
        if not items:
            return
        if not self._is_next():
            self._spool_all(items)
            return
        deadline = time.monotonic() + self._timeout
        delivery = deliver(lambda part: self._post(part, deadline), items)
        for item, outcome in delivery.refused:
            self.refused(f"event {item.id}", outcome.reason, code_for(outcome.code, outcome.status))
        if delivery.stopped is not None:
            self._stopped(delivery.stopped, delivery.left)

    def _is_next(self) -> bool:
        """Take what waits in the spool to the server first; False while something waits."""
        if self._drain is None:
            return True
        if time.monotonic() < self._away_until:
            return False
        try:
            step = self._drain.until(time.monotonic() + self._timeout)
        except OSError as error:
            tell(f"the spool can't be read: {error}")
            self._drain.forget()
            return True
        if step.kind == EMPTY:
            return True
        self._away(step.outcome)
        return False

    def _post(self, items: Sequence[Outgoing], deadline: float) -> Outcome:
        left = max(0.001, deadline - time.monotonic())
        single = len(items) == 1
        body = items[0].body if single else batch_body([item.body for item in items])
        headers = {"content-type": EVENT_TYPE if single else BATCH_TYPE}
        outcome = self._connection.post(items[0].path, headers, body, timeout=left)
        if outcome.kind != ACCEPTED:
            return outcome
        results = outcome.answer.get("results") if isinstance(outcome.answer, dict) else None
        if not isinstance(results, list) or len(results) != len(items):
            return Outcome(
                TEMPORARY, outcome.status, code="not_steadcast", detail="an answer without results"
            )
        for item, result in zip(items, results, strict=True):
            self._print({"stream": item.stream} | result, _line(result))
        return outcome

    def _stopped(self, outcome: Outcome, left: Sequence[Outgoing]) -> None:
        self._away(outcome)
        if self._spool is not None:
            self._spool_all(left)
            return
        tell(f"{len(left)} not sent to {self._connection.address.url}: {outcome.reason}")
        if code_for(outcome.code, outcome.status) is Exit.NOT_ALLOWED:
            leave(Exit.NOT_ALLOWED, *token_advice())
        leave(Exit.NO_SERVER)

    def _away(self, outcome: Outcome | None) -> None:
        self._trouble = outcome or self._trouble
        self._away_until = time.monotonic() + _PAUSE

    def _spool_all(self, items: Sequence[Outgoing]) -> None:
        if self._spool is None:
            return
        try:
            done = self._spool.put_many([(item.stamp, item.request) for item in items])
        except OSError as error:
            leave(Exit.FAILED, f"{len(items)} neither sent nor spooled: {self._spool.folder}: {error}")
        if done < len(items):
            leave(Exit.FAILED, f"{len(items) - done} neither sent nor spooled: the disk refuses them")
        self._spooled += done
        for item in items:
            told = {"stream": item.stream, "id": item.id, "spooled": self._spool.folder}
            self._print(told, f"spooled  {item.id}")

    def _left_spool(self, _name: str, outcome: str) -> None:
        self._dropped += outcome == FULL

    def _print(self, told: dict[str, Any], line: str) -> None:
        if sys.stdout is None:
            return  # it was closed before the start: nobody wants to know
        try:
            write(msgspec.json.encode(told).decode() if self._as_json else line)
        except OSError as error:
            mute()  # the events go on their way all the same
            if not isinstance(error, BrokenPipeError):
                tell(f"standard output can't be written: {error.strerror}")
                self._failed += 1


def open_sending(url: str, *, token: str | None, spools: bool, timeout: float, as_json: bool) -> Sending:
    """Get ready to send to a server; nothing is opened yet. Exits where the token can't be used."""
    address = parse_address(url)
    try:
        connection = Connection(address, token=token)
        spool = Spool(f"{spool_root()}/{address.folder}") if spools else None
    except ValueError as error:
        leave(Exit.USAGE, str(error))
    except OSError as error:
        tell(f"sending without a spool: {error}")
        spool = None
    return Sending(connection, spool, timeout=timeout, as_json=as_json)


def _line(result: dict[str, Any]) -> str:
    epoch, offset = result["position"]
    return f"{result['lane']}:{epoch}:{offset}  {result['id']}" + ("  duplicate" * bool(result["duplicate"]))
