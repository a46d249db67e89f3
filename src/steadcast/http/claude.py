"""Coding agents' hooks as events. Pure: a hook's JSON and Claude MPM's body to what `wire.check_event` takes.

| Claude Code's hook | event |
|---|---|
| `hook_event_name` | `type` = `claude.` + the name as it is; `claude.unknown` without one |
| `session_id` | `source` = `claude-code/` + the id; `claude-code` where it is missing |
| `tool_name`, else `agent_type`, else `notification_type` | `subject`, what a dashboard filters by |
| the whole body | `data`, unchanged |

`critical` is what a person must see to, because the agent waits or has stopped: `CRITICAL`, and a
`Notification` that asks for something (`ASKING`) or, from versions that don't say, any.

Claude MPM's body is `{namespace, event, data: {event, source, type, subtype, timestamp, data, session_id,
correlation_id, cwd}}`: `type` and `subtype` joined by a dot are the type, `claude-mpm/` + `session_id` is the
source, `timestamp` the time where it is RFC 3339, and the inner `data` object, as it is, the data.
"""

from __future__ import annotations

import re
from typing import Any, Final

from steadcast.errors import InvalidRequest

STREAM: Final = "claude"
CRITICAL: Final = frozenset({"PermissionRequest", "Elicitation", "StopFailure"})
ASKING: Final = frozenset({"permission_prompt", "idle_prompt", "elicitation_dialog", "agent_needs_input"})
UNKNOWN: Final = "unknown"

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,120}")
_LABEL = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,512}")
_SUBJECTS = ("tool_name", "agent_type", "notification_type")


def hook_event(body: object, *, event_id: str, time: str) -> dict[str, Any]:
    """Turn a Claude Code hook's JSON into an event; raises `InvalidRequest` where it is no object."""
    if not isinstance(body, dict):
        raise InvalidRequest("a hook's body is a JSON object", field="body")
    name = _name(body.get("hook_event_name")) or UNKNOWN
    return {
        "id": event_id,
        "source": _source("claude-code", body.get("session_id")),
        "type": f"claude.{name}",
        "time": time,
        "priority": "critical" if _is_critical(name, body) else "normal",
        "subject": _subject(body),
        "data": body,
    }


def mpm_event(body: object, *, event_id: str, now: str) -> dict[str, Any]:
    """Turn the body of Claude MPM's hooks into an event; raises `InvalidRequest` where it isn't one.

    The caller checks `time`: it is the body's own `timestamp`, or `now` where there is none.
    """
    inner = body.get("data") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(inner, dict):
        raise InvalidRequest("the body is an object whose data is an object", field="data")
    names = [name for name in (_name(inner.get("type")), _name(inner.get("subtype"))) if name]
    detail = inner.get("data")
    return {
        "id": event_id,
        "source": _source("claude-mpm", inner.get("session_id")),
        "type": ".".join(names) or _name(body.get("event")) or UNKNOWN,
        "time": inner.get("timestamp") or now,
        "subject": _subject(detail) if isinstance(detail, dict) else None,
        "data": inner,
    }


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None


def _label(value: object) -> str | None:
    return value if isinstance(value, str) and _LABEL.fullmatch(value) else None


def _source(program: str, session: object) -> str:
    label = _label(session)
    return program if label is None else f"{program}/{label}"


def _subject(body: dict[str, Any]) -> str | None:
    return next((label for label in (_label(body.get(name)) for name in _SUBJECTS) if label), None)


def _is_critical(name: str, body: dict[str, Any]) -> bool:
    if name == "Notification":
        kind = body.get("notification_type")
        return kind is None or (isinstance(kind, str) and kind in ASKING)
    return name in CRITICAL
