"""The error tree: as it is drawn, and as it travels."""

from __future__ import annotations

import json
import re

import pytest

from steadcast import errors
from steadcast.errors import (
    EngineUnavailable,
    InvalidEvent,
    PositionLost,
    RateLimited,
    SteadcastError,
)

TREE = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, SteadcastError)]


def make(kind: type[SteadcastError]) -> SteadcastError:
    return kind("why", epoch="e") if kind is PositionLost else kind("why")


def drawn() -> dict[str, str]:
    """Read the tree of the docstring: each class with its parent."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([│ ]*)(?:[├└]── )?([A-Z]\w+)(?:\s{2,}|$)", line)
        if found and found[2] in vars(errors):
            depth = len(found[1]) // 4 + ("── " in line)
            del path[depth:]
            if path:
                parents[found[2]] = path[-1]
            path.append(found[2])
    return parents


def test_the_tree_is_drawn_as_it_is() -> None:
    real = {kind.__name__: (kind.__base__ or object).__name__ for kind in TREE if kind is not SteadcastError}
    assert drawn() == real


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_of_its_own_and_says_whether_a_retry_can_help(
    kind: type[SteadcastError],
) -> None:
    error = make(kind)
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", error.code)
    assert [other.code for other in TREE].count(kind.code) == 1
    assert error.temporary is kind.temporary
    assert str(error) == error.message == "why"


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_travels_as_json_with_the_four_named_members(kind: type[SteadcastError]) -> None:
    wire = make(kind).as_wire()
    assert json.loads(json.dumps(wire))["message"] == "why"
    assert {"code", "temporary", "message"} <= wire.keys()
    assert "retry_after" not in wire


def test_only_what_passes_with_nothing_changed_in_the_request_is_temporary() -> None:
    passing = {"RateLimited", "HandlerTimeout", "Unavailable", "EngineUnavailable", "EngineRefused"}
    passing |= {"BreakerOpen", "QueueFull", "Draining"}
    assert {kind.__name__ for kind in TREE if kind.temporary} == passing


def test_code_and_temporary_can_be_said_at_the_place_where_it_is_raised() -> None:
    error = EngineUnavailable("full", code="engine_full", temporary=False, retry_after=2.5)
    assert error.as_wire() == {
        "code": "engine_full",
        "temporary": False,
        "message": "full",
        "retry_after": 2.5,
    }
    assert (EngineUnavailable.code, EngineUnavailable.temporary) == ("engine_unavailable", True)


def test_a_wait_of_zero_seconds_is_still_said() -> None:
    assert RateLimited("slow down", retry_after=0.0).as_wire()["retry_after"] == 0.0


def test_fields_travel_beside_the_code() -> None:
    error = InvalidEvent("bad", field="type", index=3)
    assert error.fields == {"field": "type", "index": 3}
    assert error.as_wire()["index"] == 3


def test_a_lost_position_says_what_is_gone() -> None:
    error = PositionLost("gone", epoch="e", lost=(4, 9), maybe=True)
    assert (error.code, error.epoch, error.lost, error.maybe) == ("trimmed", "e", (4, 9), True)
    wire = error.as_wire()
    assert (wire["epoch"], wire["lost"], wire["maybe"]) == ("e", (4, 9), True)
    assert PositionLost("other", epoch="e", code="reset").code == "reset"
