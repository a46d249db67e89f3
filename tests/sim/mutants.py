"""Mutants: the house with one thing made wrong, which the simulation must notice.

A mutant is applied while its module is imported, in a process of its own; no file is changed. Its text
must stand in the module exactly once: where the module was rewritten, the mutant has to be as well.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from importlib.machinery import PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import NamedTuple


class Mutant(NamedTuple):
    """What is wrong: in `module`, `right` was replaced by `wrong`."""

    module: str
    right: str
    wrong: str


class NotFound(LookupError):
    """The text that a mutant replaces doesn't stand in its module once."""


MUTANTS = {
    # The receiver's rule
    "an ack for what is still in hand": Mutant(
        "steadcast.core.cursor",
        "state.cursor.epoch, state.cursor.offset))\n\n    def _judge_tail",
        "state.cursor.epoch, state.reach))\n\n    def _judge_tail",
    ),
    "the event at the cursor counts as new": Mutant(
        "steadcast.core.cursor",
        "if entry.offset > cursor.offset)",
        "if entry.offset >= cursor.offset)",
    ),
    "a gap of one is none": Mutant(
        "steadcast.core.cursor", "batch.after > cursor.offset:", "batch.after > cursor.offset + 1:"
    ),
    "a head in a ping is not looked at": Mutant(
        "steadcast.core.cursor", "elif head.offset > state.offset:", "elif head.offset < 0:"
    ),
    "an answer moves the cursor back": Mutant(
        "steadcast.core.cursor",
        "        if state.cursor is None:\n            state.cursor = told\n",
        '        if state.cursor is None or answer.status == "resumed":\n            state.cursor = told\n',
    ),
    "what is in hand is told to be lost": Mutant(
        "steadcast.core.cursor", "first, last = state.reach + 1,", "first, last = state.offset + 1,"
    ),
    "a loss is passed over in silence": Mutant(
        "steadcast.core.cursor",
        'self._effects.append(Told(kind="trimmed", lane=state.lane,',
        'str(Told(kind="trimmed", lane=state.lane,',
    ),
    # The answer to a subscribe
    "another epoch is not noticed": Mutant(
        "steadcast.core.answer", "cursor.epoch != epoch or cursor.offset > head", "cursor.offset > head"
    ),
    "the trim mark is ignored": Mutant(
        "steadcast.core.answer", "if cursor.offset < trimmed:", "if cursor.offset < 0:"
    ),
    "the trim mark is off by one": Mutant(
        "steadcast.core.answer",
        "cursor=Position(epoch, trimmed),",
        "cursor=Position(epoch, min(trimmed + 1, head)),",
    ),
    # Sessions and groups
    "the ack window is ignored by the live": Mutant(
        "steadcast.core.session",
        "full = [flow for flow in self.flows if not flow.allows(total, total_bytes)]",
        "full: list[Flow] = []",
    ),
    "an ack frees the batch behind it": Mutant(
        "steadcast.core.session", "marks[0].upto <= offset:", "marks[0].upto <= offset + 4:"
    ),
    "a flow joins before its group's position": Mutant(
        "steadcast.core.session",
        "(group.epoch, group.position) != (self.epoch, self.sent)",
        "(group.epoch, group.position >= self.sent) != (self.epoch, True)",
    ),
    "a flow that leaves its group forgets where it stood": Mutant(
        "steadcast.core.session", "        self.sent = group.position\n", ""
    ),
    # The hub
    "a page is written after its reader has joined": Mutant(
        "steadcast.hub.replay",
        "way.write(frame, (target,))",
        "asyncio.get_running_loop().call_later(0.002, way.write, frame, (target,))",
    ),
    "a hole in the watch is not noticed": Mutant(
        "steadcast.hub.live", " or batch.after > group.position:", ":"
    ),
    "a second subscribe leaves the first session in place": Mutant(
        "steadcast.hub.hub",
        "            self.unsubscribe(conn, stream)\n            for group",
        "            for group",
    ),
    "a group is moved to the head under its members": Mutant(
        "steadcast.hub.groups", "(not group.flows and group.epoch", "(group.epoch"
    ),
    "an ack frees the wrong stream": Mutant(
        "steadcast.hub.hub",
        "session = self.sessions(conn).get(ack.stream)\n        if",
        "session = next(iter(self.sessions(conn).values()), None)\n        if",
    ),
    # Who may
    "a token outlives its end": Mutant(
        "steadcast.http.tokens", "expires=end + leeway,", "expires=end + leeway + 60,"
    ),
    "a token that was taken back holds on": Mutant(
        "steadcast.core.scopes", "self.grant is not None and self.grant.revoked:", "self.grant is None:"
    ),
    "a token covers every stream": Mutant(
        "steadcast.core.scopes", "and not self.covers(stream):", "and not self.streams:"
    ),
    "whoever may read may publish": Mutant(
        "steadcast.core.scopes", "if scope not in self.scopes:", "if not self.scopes:"
    ),
    "nobody looks when a token is taken back": Mutant(
        "steadcast.http.tokens",
        "            if grant is not None:\n                grant.revoke()\n",
        "            str(grant)\n",
    ),
    # The log and the spool
    "a trimmed id is forgotten": Mutant(
        "steadcast.engines.memory",
        "        if first is not None:\n            self._counts.duplicates",
        "        if first is not None and first.offset > log.lanes[first.lane].trimmed:\n"
        "            self._counts.duplicates",
    ),
    "a restored file keeps its epoch": Mutant(
        "steadcast.engines.sqlite_schema", "WHERE key = 'epoch'\", (epoch,))", "WHERE key = ''\", (epoch,))"
    ),
    "a file's trim mark is not told": Mutant(
        "steadcast.engines.sqlite_read",
        "LaneState(head=head, trimmed=trimmed,",
        "LaneState(head=head, trimmed=0,",
    ),
    "what waits in a spool counts as sent": Mutant(
        "steadcast.client.delivery",
        "            delivery.stopped = outcome\n",
        "            delivery.stopped = outcome\n            delivery.accepted += entries\n",
    ),
}


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, mutant: Mutant) -> None:
        super().__init__(name, path)
        self.mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        if source.count(self.mutant.right) != 1:
            raise NotFound(f"{source.count(self.mutant.right)} times in {self.path}: {self.mutant.right!r}")
        code = self.source_to_code(source.replace(self.mutant.right, self.mutant.wrong), self.path)
        assert isinstance(code, CodeType), fullname
        return code


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(
        self, fullname: str, path: object, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.mutant.module:
            return None
        spec = PathFinder.find_spec(fullname, path, target)  # type: ignore[arg-type]  # as the protocol has it
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(fullname, spec.origin, self.mutant)
        return spec


def apply(name: str) -> None:
    """Make the mutant of that name, in this process; before its module is imported."""
    mutant = MUTANTS[name]
    assert mutant.module not in sys.modules, f"{mutant.module} is imported already"
    sys.meta_path.insert(0, _Finder(mutant))
