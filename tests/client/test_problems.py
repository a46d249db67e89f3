"""Refusals become errors of the tree."""

from __future__ import annotations

import pytest

from steadcast.client.post import PERMANENT, TEMPORARY, Outcome
from steadcast.client.problems import error_of
from steadcast.errors import (
    EngineUnavailable,
    IdConflict,
    InvalidEvent,
    InvalidInput,
    NotAllowed,
    SteadcastError,
    TooLarge,
    Unavailable,
)


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (Outcome(PERMANENT, 409, code="id_conflict"), IdConflict),
        (Outcome(PERMANENT, 400, code="invalid_event"), InvalidEvent),
        (Outcome(PERMANENT, 413, code="batch_too_large"), TooLarge),
        (Outcome(PERMANENT, 401, code="unauthorized"), NotAllowed),
        (Outcome(TEMPORARY, 401, code="token_expired"), NotAllowed),
        (Outcome(TEMPORARY, 403), NotAllowed),
        (Outcome(TEMPORARY, 503, code="engine_full"), EngineUnavailable),
        (Outcome(TEMPORARY, code="timeout"), Unavailable),
        (Outcome(TEMPORARY), Unavailable),
        (Outcome(PERMANENT, 418), InvalidInput),
    ],
)
def test_each_outcome_is_an_error_of_its_class(outcome: Outcome, error: type[SteadcastError]) -> None:
    raised = error_of(outcome)
    assert type(raised) is error
    assert raised.temporary == (outcome.kind == TEMPORARY)
    assert raised.code == (outcome.code or error.code)


def test_the_problems_own_members_are_the_errors_fields() -> None:
    answer = {"type": "x", "title": "y", "code": "invalid_event", "field": "time", "index": 3, "message": "m"}
    raised = error_of(
        Outcome(PERMANENT, 400, code="invalid_event", detail="no", retry_after=2.0, answer=answer)
    )
    assert raised.fields == {"field": "time", "index": 3}
    assert (raised.retry_after, raised.message) == (2.0, "400 invalid_event no")
