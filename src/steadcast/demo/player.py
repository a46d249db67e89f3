"""Play the recorded session to a server, in its own time, through the door that real hooks use.

The recording is `session.jsonl`: on each line `at`, seconds from the beginning, and `hook`, a hook's JSON as
an agent gives it. What stands there as `<<kind-name>>` is an identifier, minted anew for each run, so that
two runs are two sessions.
"""

from __future__ import annotations

import json
import re
import secrets
import time
import uuid
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from steadcast.client.hook import PATH
from steadcast.client.ids import mint_id
from steadcast.client.outgoing import utc_now
from steadcast.client.post import ACCEPTED, TEMPORARY
from steadcast.core.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from steadcast.client.post import Connection, Outcome

PATIENCE: Final = 300.0
"""Seconds for which the player waits for a server that has gone away in the middle."""
REQUEST_TIMEOUT: Final = 10.0

_PLACEHOLDER = re.compile(r"<<([a-z]+)-([a-z0-9-]+)>>")


@dataclass(frozen=True, slots=True)
class Step:
    """One hook of the recording; `at` is in seconds from the beginning."""

    at: float
    hook: dict[str, Any]

    @property
    def line(self) -> str:
        """Say in a few words what happens, for whoever watches the player."""
        hook = self.hook
        tool = hook.get("tool_input", {})
        detail = (
            hook.get("prompt") or tool.get("command") or tool.get("file_path") or hook.get("message") or ""
        )
        parts = [hook["hook_event_name"], hook.get("tool_name"), hook.get("agent_type"), detail]
        return "  ".join(str(part) for part in parts if part)


class Unplayable(Exception):
    """The server refused a hook for good, or was away for too long; `outcome` says why."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


def recording() -> list[Step]:
    """Read the recording, with identifiers of this run alone."""
    text = files("steadcast.demo").joinpath("session.jsonl").read_text("utf-8")
    fresh: dict[str, str] = {}

    def mint(found: re.Match[str]) -> str:
        return fresh.setdefault(found[0], _identifier(found[1]))

    lines = _PLACEHOLDER.sub(mint, text).splitlines()
    return [Step(each["at"], each["hook"]) for each in map(json.loads, lines)]


def play(
    connection: Connection,
    steps: Sequence[Step],
    *,
    speed: float = 1.0,
    tell: Callable[[Step], None] = lambda _: None,
    away: Callable[[Outcome], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Play the steps and give how many the server has taken; a `speed` of 0 waits for nothing.

    A server that goes away in the middle is waited for (`away` is told), and then gets what it missed.
    Raises `Unplayable`.
    """
    began = clock()
    for step in steps:
        wait = began + step.at / speed - clock() if speed else 0.0
        if wait > 0:
            sleep(wait)
        _post(connection, step, away, sleep, clock)
        tell(step)
    return len(steps)


def _post(
    connection: Connection,
    step: Step,
    away: Callable[[Outcome], None],
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> None:
    headers = {"content-type": "application/json", "ce-id": mint_id(), "ce-time": utc_now()}
    body = json.dumps(step.hook, ensure_ascii=False, separators=(",", ":")).encode()
    backoff = Backoff(base=0.5, cap=4.0)
    tries = 0
    deadline = clock() + PATIENCE
    while (outcome := connection.post(PATH, headers, body, timeout=REQUEST_TIMEOUT)).kind != ACCEPTED:
        tries += 1
        if outcome.kind != TEMPORARY or outcome.status in {401, 403} or clock() > deadline:
            raise Unplayable(outcome)
        if tries == 1:
            away(outcome)
        # The id stays: what the server took before its answer was lost counts once.
        sleep(max(backoff.delay(tries, secrets.randbelow(1000) / 1000), outcome.retry_after or 0.0))


def _identifier(kind: str) -> str:
    match kind:
        case "tool":
            return f"toolu_{secrets.token_hex(12)}"
        case "agent":
            return f"a{secrets.token_hex(8)}"
        case _:
            return str(uuid.uuid4())
