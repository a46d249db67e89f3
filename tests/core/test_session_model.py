"""Sessions, groups and a log against a model: a connection gets its log, whole, once, in order."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from hypothesis import given, note
from hypothesis import strategies as st

from steadcast.core.session import Flow, Group, Session, State, Window
from steadcast.event import Lane
from steadcast.wire import PAGE_BYTES, PAGE_EVENTS, Cursor

LANE = Lane.NORMAL
PORTIONS = ((1, 1), (1, 200_000), (2, PAGE_BYTES), (7, 40_000), (20, 700), (150, 100), (300, 1), (4, 9))


@dataclass
class Log:
    """One epoch of a lane: offsets (with holes) and sizes; what is trimmed stays known to the model."""

    epoch: str
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    head: int = 0
    trimmed: int = 0

    def append(self, count: int, size: int, step: int) -> None:
        for _ in range(count):
            self.head += step
            self.offsets.append(self.head)
            self.sizes.append(size)

    def span(self, after: int, upto: int) -> slice:
        return slice(bisect_right(self.offsets, after), bisect_right(self.offsets, upto))

    def page(self, after: int, limit: int) -> int:
        """Give the end of an honest page: at most `limit` events and 256 KiB, a larger event alone."""
        first = bisect_right(self.offsets, after)
        size = 0
        for index in range(first, min(first + limit, len(self.offsets))):
            size += self.sizes[index]
            if size > PAGE_BYTES and index > first:
                return self.offsets[index - 1]
        return self.head if first + limit >= len(self.offsets) else self.offsets[first + limit - 1]


@dataclass(eq=False)
class Client:
    """A connection: what was written to it, and what it acks."""

    session: Session
    end: tuple[str, int]
    last_ack: float = float("-inf")
    unacked: list[tuple[int, int, float]] = field(default_factory=list)

    @property
    def flow(self) -> Flow:
        return self.session.flows[LANE]


class House:
    """A hub in small: one lane, one group, some clients."""

    def __init__(self, window: Window, step: int) -> None:
        self.now = 0.0
        self.window = window
        self.step = step
        self.number = 1
        self.log = Log("e1")
        self.logs = {"e1": self.log}
        self.group = Group("s", LANE, "e1", 0)
        self.clients: list[Client] = []

    # Steps: each takes one number

    def rest(self, _n: int) -> None:
        """Do nothing: what a step shrinks to."""

    def enter(self, n: int) -> None:
        """Let a client subscribe from the start, the head, or somewhere between."""
        if len(self.clients) == 4:
            return
        span = self.log.head - self.log.trimmed
        offset = self.log.trimmed + span * (n % 3) // 2
        cursors = {lane: Cursor(self.log.epoch, offset) for lane in Lane}
        client = Client(Session("s", cursors, self.window), (self.log.epoch, offset))
        self.clients.append(client)
        self._pump(client)

    def leave(self, n: int) -> None:
        if self.clients:
            client = self.clients.pop(n % len(self.clients))
            client.session.close()

    def append(self, n: int) -> None:
        """Append, and let the watch bring it to the group."""
        after = self.log.head
        self.log.append(*PORTIONS[n % 8], self.step)
        while self.group.position < self.log.head and self.group.epoch == self.log.epoch:
            assert self.group.position >= after, "the group is not where the log was"
            self._spread(self.log.page(self.group.position, PAGE_EVENTS))

    def append_unseen(self, n: int) -> None:
        """Append while the watch is blind; the next batch shows the gap."""
        self.log.append(*PORTIONS[n % 8], self.step)
        self.log.append(1, 1, self.step)
        self._miss()

    def empty_batch(self, n: int) -> None:
        """Let offsets pass that hold no event."""
        self.log.head += 1 + n % 3
        self._spread(self.log.head)

    def recreate(self, n: int) -> None:
        if n < 24:
            return
        self.number += 1
        self.log = self.logs[f"e{self.number}"] = Log(f"e{self.number}")
        self.log.append(1 + n % 5, 10, self.step)
        self._miss()

    def trim(self, n: int) -> None:
        self.log.trimmed += (self.log.head - self.log.trimmed) * (n % 8) // 7

    def ack(self, n: int) -> None:
        """Ack something of what a client has: the first event, some, or (from 12 on) all."""
        if not self.clients:
            return
        client = self.clients[n % len(self.clients)]
        if not client.unacked:
            return
        index = (len(client.unacked) - 1) * (n >> 2 & 3) // 3
        offset = client.unacked[index][0]
        epoch = client.end[0]
        taken = client.flow.take_ack(self.now, epoch, offset)
        assert taken is (epoch == client.flow.epoch), "honest acks are taken, those of another epoch are not"
        client.last_ack = self.now
        del client.unacked[: index + 1]
        self._pump(client)

    def ack_wrongly(self, n: int) -> None:
        """Ack what is lower, equal, of another epoch, or was never sent: nothing may change."""
        if not self.clients:
            return
        client = self.clients[n % len(self.clients)]
        flow = client.flow
        before = (flow.acked, flow.unacked, flow.state)
        wrong = ((flow.epoch, flow.acked), (flow.epoch, flow.acked - 1), ("e0", flow.position))
        for epoch, offset in (*wrong, (flow.epoch, flow.position + 1)):
            assert not flow.take_ack(self.now, epoch, offset)
        assert (flow.acked, flow.unacked, flow.state) == before

    def pause(self, n: int) -> None:
        if self.clients:
            self.clients[n % len(self.clients)].session.pause()

    def resume(self, n: int) -> None:
        if self.clients:
            client = self.clients[n % len(self.clients)]
            client.session.resume()
            self._pump(client)

    def read(self, n: int) -> None:
        """Read the next page for a client, write it, and join in the same step where it ends there."""
        if not self.clients:
            return
        client = self.clients[n % len(self.clients)]
        flow = client.flow
        if not flow.wants_page:
            return
        if flow.epoch != self.log.epoch:
            flow.skip(self.log.epoch, self.log.trimmed)
        flow.skip(self.log.epoch, self.log.trimmed)
        assert flow.page_limit >= 1
        after = flow.sent
        upto = self.log.page(after, flow.page_limit)
        if upto > after:
            span = self.log.span(after, upto)
            sizes = self.log.sizes[span]
            flow.wrote(self.now, self.log.epoch, upto, len(sizes), sum(sizes))
            self._note(client, after, upto)
        self._pump(client)

    def wait(self, n: int) -> None:
        self.now += n

    # What they are made of

    def _pump(self, client: Client) -> None:
        stands = client.flow.state is State.REPLAYING and (client.flow.epoch, client.flow.sent) == (
            self.group.epoch,
            self.group.position,
        )
        assert client.flow.join(self.group) is stands, "joins exactly where the group stands"

    def _spread(self, upto: int) -> None:
        after = self.group.position
        sizes = self.log.sizes[self.log.span(after, upto)]
        lagging = self.group.room_for(len(sizes), sum(sizes))
        self.group.advance(self.now, upto, len(sizes), sum(sizes))
        for client in self.clients:
            if client.flow in self.group.flows:
                self._note(client, after, upto)
            if client.flow in lagging:
                self._pump(client)

    def _miss(self) -> None:
        changed = self.group.epoch != self.log.epoch
        for flow in self.group.miss(self.log.epoch, self.log.head):
            if changed:
                flow.restart(self.log.epoch, 0)
        assert not self.group.flows

    def _note(self, client: Client, after: int, upto: int) -> None:
        """Note what is written, and judge it: it follows what was written before, and nothing comes twice."""
        assert after < upto
        epoch, end = client.end
        if epoch != self.log.epoch:
            client.unacked.clear()
            client.last_ack = float("-inf")
            end = 0
        assert after >= end, "written twice on one connection"
        assert after in {end, self.log.trimmed}, "a gap that retention did not make"
        client.end = self.log.epoch, upto
        span = self.log.span(after, upto)
        # The last event's ack covers what the batch holds no event for, up to its end.
        ends = [*self.log.offsets[span][:-1], upto]
        sizes = self.log.sizes[span]
        client.unacked += [(end, size, self.now) for end, size in zip(ends, sizes, strict=False)]

    # Judgement

    def judge(self) -> None:
        for client in self.clients:
            self._judge_window(client)
            self._judge_overdue(client)
            live = client.flow.state is State.LIVE
            assert live is (client.flow in self.group.flows)
            assert not (live and client.session.paused), "a paused client is in the group"

    def _judge_window(self, client: Client) -> None:
        events, size = client.flow.unacked
        if client.end[0] == client.flow.epoch:
            true_events, true_size = len(client.unacked), sum(each[1] for each in client.unacked)
            assert true_events <= events, "less is counted as unacked than there is"
            assert true_size <= size, "fewer bytes are counted as unacked than there are"
        assert events <= max(self.window.events, 0), "more events are unacked than the window allows"
        allowed = max(self.window.bytes, PAGE_BYTES)  # with nothing unacked, one page goes in any case
        assert size <= allowed, "more bytes are unacked than the window allows"

    def _judge_overdue(self, client: Client) -> None:
        if client.end[0] != client.flow.epoch:
            return
        overdue = client.flow.overdue(self.now)
        if not client.unacked:
            assert not overdue, "nothing is unacked, and yet it is overdue"
            return
        since = max(client.unacked[0][2], client.last_ack)
        assert overdue is (self.now - since >= 40), "overdue is 40 s without an ack"

    # The end: clients ack, nothing is paused

    def settle(self) -> None:
        for client in self.clients:
            client.session.resume()
            for _ in range(2_000):
                if client.flow.state is State.LIVE:
                    break
                index = self.clients.index(client)
                if client.flow.wants_page:
                    self.read(index)
                elif client.unacked:
                    self.ack(index + 12)
                self.judge()
            assert client.flow.state is State.LIVE, "with a client that acks, every flow comes to be live"


OFTEN = ["append", "read", "ack"]
SELDOM = ["enter", "leave", "append_unseen", "empty_batch", "recreate", "trim", "ack_wrongly"]
SELDOM += ["pause", "resume", "wait"]
MENU = ["rest", "enter", *OFTEN * 4, *SELDOM]


def run(program: bytes, window: Window, step: int) -> House:
    house = House(window, step)
    steps = [
        (MENU[first % len(MENU)], second % 32)
        for first, second in zip(program[::2], program[1::2], strict=False)
    ]
    note(" ".join(f"{name}({n})" for name, n in steps if name != "rest"))
    for name, n in steps:
        getattr(house, name)(n)
        house.judge()
    house.settle()
    return house


windows = st.sampled_from([Window(), Window(300, 300_000), Window(10, PAGE_BYTES), Window(300, 1_000)])


@given(st.binary(min_size=160, max_size=240), windows, st.integers(1, 3))
def test_whatever_happens_a_connection_gets_its_log_once_in_order_and_never_more_than_the_window(
    program: bytes, window: Window, step: int
) -> None:
    run(program, window, step)
