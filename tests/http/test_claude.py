"""Coding agents' hooks as events, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadcast.errors import InvalidRequest
from steadcast.event import Lane
from steadcast.http.claude import hook_event, mpm_event
from steadcast.wire import check_event

NOW = "2026-01-31T12:00:00Z"
HOOKS = [
    "PreToolUse",
    "PostToolUse",
    "PostToolUseFailure",
    "PostToolBatch",
    "PermissionRequest",
    "PermissionDenied",
    "UserPromptSubmit",
    "UserPromptExpansion",
    "SessionStart",
    "SessionEnd",
    "Stop",
    "StopFailure",
    "SubagentStart",
    "SubagentStop",
    "Notification",
    "PreCompact",
    "PostCompact",
    "PreModelSwitch",
    "PostModelSwitch",
    "TaskCreated",
    "TaskCompleted",
    "TeammateIdle",
    "Setup",
    "ConfigChange",
    "InstructionsLoaded",
    "CwdChanged",
    "FileChanged",
    "DirectoryAdded",
    "WorktreeCreate",
    "WorktreeRemove",
    "Elicitation",
    "ElicitationResult",
    "MessageDisplay",
    "SomethingNew",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def hooked(body: object) -> dict[str, Any]:
    return hook_event(body, event_id="i", time=NOW)


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_known_or_not_has_its_name_as_its_type(name: str) -> None:
    body = {"hook_event_name": name, "session_id": "abc", "notification_type": "auth_success"}
    event = hooked(body)
    assert (event["type"], event["source"]) == (f"claude.{name}", "claude-code/abc")
    assert event["data"] is body
    waits = name in {"PermissionRequest", "Elicitation", "StopFailure"}
    assert event["priority"] == ("critical" if waits else "normal")


@pytest.mark.parametrize("name", [None, 1, "", "a b", "x" * 200, "a\n", [], {}])
def test_a_hook_without_a_name_is_unknown(name: object) -> None:
    assert hooked({"hook_event_name": name})["type"] == "claude.unknown"
    assert hooked({})["type"] == "claude.unknown"


@pytest.mark.parametrize(
    ("kind", "priority"),
    [
        (None, "critical"),
        ("permission_prompt", "critical"),
        ("idle_prompt", "critical"),
        ("elicitation_dialog", "critical"),
        ("auth_success", "normal"),
        ([], "normal"),
    ],
)
def test_a_notification_is_critical_where_it_asks_for_a_person(kind: object, priority: str) -> None:
    body = {"hook_event_name": "Notification"} | ({} if kind is None else {"notification_type": kind})
    assert hooked(body)["priority"] == priority


@pytest.mark.parametrize(
    ("body", "subject"),
    [
        ({"tool_name": "Bash", "agent_type": "Explore"}, "Bash"),
        ({"agent_type": "Explore"}, "Explore"),
        ({"notification_type": "idle_prompt"}, "idle_prompt"),
        ({"tool_name": 7, "agent_type": "a\x00"}, None),
        ({}, None),
    ],
)
def test_the_subject_is_what_a_dashboard_filters_by(body: dict[str, Any], subject: str | None) -> None:
    assert hooked(body)["subject"] == subject


@pytest.mark.parametrize("session", [None, "", 5, "a\n", "x" * 2_000])
def test_a_session_that_is_no_label_is_left_out_of_the_source(session: object) -> None:
    assert hooked({"session_id": session})["source"] == "claude-code"


@pytest.mark.parametrize("body", [None, 1, "x", []])
def test_a_hook_that_is_no_object_is_refused(body: object) -> None:
    with pytest.raises(InvalidRequest):
        hooked(body)


def test_claude_mpms_body_becomes_an_event() -> None:
    inner = {
        "event": "claude_event",
        "source": "mpm_hook",
        "type": "hook",
        "subtype": "pre_tool",
        "timestamp": "2026-01-01T00:00:00+00:00",
        "data": {"tool_name": "Bash"},
        "session_id": "abc",
        "correlation_id": "c",
        "cwd": "/",
    }
    body = {"namespace": "/hook", "event": "claude_event", "data": inner}
    assert mpm_event(body, event_id="i", now=NOW) == {
        "id": "i",
        "source": "claude-mpm/abc",
        "type": "hook.pre_tool",
        "time": "2026-01-01T00:00:00+00:00",
        "subject": "Bash",
        "data": inner,
    }


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ({"type": "hook"}, "hook"),
        ({"subtype": "stop"}, "stop"),
        ({}, "claude_event"),
        ({"type": 3, "subtype": "a b"}, "claude_event"),
    ],
)
def test_claude_mpms_type_is_what_there_is_of_it(inner: dict[str, Any], expected: str) -> None:
    assert mpm_event({"event": "claude_event", "data": inner}, event_id="i", now=NOW)["type"] == expected
    assert mpm_event({"data": {}}, event_id="i", now=NOW)["type"] == "unknown"


@pytest.mark.parametrize("body", [None, [], "x", {}, {"data": None}, {"data": [1]}])
def test_claude_mpms_body_without_an_inner_object_is_refused(body: object) -> None:
    with pytest.raises(InvalidRequest):
        mpm_event(body, event_id="i", now=NOW)


FIELDS = st.sampled_from(
    [
        "hook_event_name",
        "session_id",
        "tool_name",
        "agent_type",
        "notification_type",
        "type",
        "subtype",
        "data",
    ]
)


@given(st.dictionaries(FIELDS, JSON))
def test_every_object_becomes_an_event_that_is_accepted(body: dict[str, Any]) -> None:
    event = check_event(hooked(body), now=NOW)
    assert event.priority in set(Lane)
    inner = mpm_event({"data": body}, event_id="i", now=NOW)
    inner["time"] = NOW
    assert check_event(inner, now=NOW).type
