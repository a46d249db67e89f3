"""The error tree as problem details."""

from __future__ import annotations

import json

import pytest

from steadcast import errors
from steadcast.http.problems import problem, problem_of, status_of


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidInput("x"), 400),
        (errors.InvalidStream("x"), 400),
        (errors.InvalidEvent("x"), 400),
        (errors.InvalidRequest("x"), 400),
        (errors.InvalidRequest("x", code="unsupported_media_type"), 415),
        (errors.TooLarge("x"), 413),
        (errors.TooLarge("x", code="batch_too_large"), 413),
        (errors.IdConflict("x"), 409),
        (errors.PositionLost("x", epoch="e", lost=(1, 2)), 410),
        (errors.PositionLost("x", epoch="e", code="reset"), 410),
        (errors.NotAllowed("x"), 403),
        (errors.NotAllowed("x", code="unauthorized"), 401),
        (errors.NotAllowed("x", code="token_expired", temporary=True), 401),
        (errors.NotAllowed("x", code="wrong_host"), 421),
        (errors.RateLimited("x"), 429),
        (errors.Unavailable("x"), 503),
        (errors.EngineUnavailable("x", code="engine_locked"), 503),
        (errors.BreakerOpen("x"), 503),
        (errors.QueueFull("x"), 503),
        (errors.Draining("x"), 503),
        (errors.HandlerTimeout("x"), 503),
        (errors.Abandoned("x"), 503),
        (errors.EngineRefused("x"), 503),
        (errors.IllegalInput("x"), 500),
        (errors.SteadcastError("x"), 500),
    ],
)
def test_every_error_of_the_tree_has_its_status(error: errors.SteadcastError, status: int) -> None:
    assert status_of(error) == status
    answer = problem(error)
    body = json.loads(bytes(answer.body))
    assert answer.status_code == body["status"] == status
    assert (body["code"], body["temporary"], body["detail"]) == (error.code, error.temporary, "x")
    assert ("retry-after" in answer.headers) is (status in {429, 503} and error.temporary)
    assert ("www-authenticate" in answer.headers) is (status == 401)


def test_fields_are_kept_but_never_replace_the_members() -> None:
    error = errors.InvalidEvent("words", index=0, field="id", status=1, type="x", gone=None, maybe=False)
    body = problem_of(error)
    assert body == {
        "index": 0,
        "field": "id",
        "type": "urn:steadcast:problem:invalid_event",
        "title": "An event is not valid",
        "status": 400,
        "detail": "words",
        "code": "invalid_event",
        "temporary": False,
    }


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (2.1, "3"), (60, "60")])
def test_retry_after_is_whole_seconds_and_never_too_short(seconds: float, header: str) -> None:
    answer = problem(errors.Unavailable("x", retry_after=seconds))
    assert answer.headers["retry-after"] == header
