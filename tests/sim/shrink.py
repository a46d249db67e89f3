"""Makes a failing history short, and tells it in words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.sim.world import plan_of, play
from tests.support.promises import Violation
from tests.support.record import in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sim.plan import Plan
    from tests.sim.world import World

TRIES = 150
"""Histories that are played at most to make one short."""
_BEFORE = 12


def shrink(plan: Plan, promise: str, tries: int = TRIES) -> Plan:
    """Take things out of a plan for as long as the same promise is broken without them."""
    found = True
    while found and tries > 0:
        found = False
        for smaller in plan.smaller():
            tries -= 1
            if any(violation.promise == promise for violation in play(smaller)[1]):
                plan, found = smaller, True
                break
            if tries <= 0:
                break
    return plan


def story(seed: int, tries: int = TRIES) -> str:
    """Play a seed again, shrink it, and tell what happened; says so where nothing is broken."""
    _, violations = play(plan_of(seed))
    if not violations:
        return f"seed {seed}: no promise is broken"
    plan = shrink(plan_of(seed), violations[0].promise, tries)
    return "\n".join(_lines(plan, *play(plan)))


def _lines(plan: Plan, world: World, violations: list[Violation]) -> Iterator[str]:
    yield (
        f"seed {plan.seed}, shrunk: {plan.publishers} publishers{' and a hook' * plan.spooling}, "
        f"{plan.subscribers} subscribers, {plan.streams} streams on {'SQLite' if plan.sqlite else 'memory'}, "
        f"{plan.seconds:.1f} s, faults {len(plan.faults)}, {plan.limits}"
    )
    first = violations[0]
    entries = world.record.entries
    happened = [at for at, entry in enumerate(entries[: first.at]) if entry[1] in {"fault", "note", "opened"}]
    about = [at for at, entry in enumerate(entries[: first.at]) if _concerns(first, entry)][-_BEFORE:]
    yield from (in_words(entries[at]) for at in sorted({*happened, *about}))
    for violation in violations[:3]:
        at = entries[min(violation.at, len(entries) - 1)]
        yield f"{at[0]:8.3f}  ** {violation}"


def _concerns(violation: Violation, entry: tuple[object, ...]) -> bool:
    """Tell whether an entry is about somebody whom the violation names first."""
    who = _participant(violation.text.split(" ", 1)[0])
    return who in map(_participant, entry[2:4])


def _participant(name: object) -> str:
    """Give whose connection (`sub0.3`) or stream (`sub0:s1`) this is."""
    return re.split(r"[.:]", str(name), maxsplit=1)[0]
