"""Every route of the OpenAPI document, with what fits its schema or does not: no 5xx, all as described."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from schemathesis.checks import not_a_server_error
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi import schemas  # noqa: F401 - loaded here: within a test, pytest may fail to
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from steadcast.http.openapi import document
from tests.support.http_serving import Server

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]
DOCUMENT = document(version="0", server="/")
FEED = "/v1/streams/{stream}/sse"
"""Its answer never ends; the tests of feeds read it."""
OPERATIONS = [
    (method, path)
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
    if path != FEED and method in {"get", "post", "delete", "put"}
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def check_schema(method: str, path: str, status: int, media_type: str, body: object) -> None:
    """Hold an answer against its schema: JSON Schema 2020-12, as OpenAPI 3.1 has it."""
    contents = DOCUMENT["paths"][path][method]["responses"][str(status)]["content"]
    schema = contents[media_type.partition(";")[0]].get("schema", {})
    Draft202012Validator(schema | {"components": DOCUMENT["components"]}).validate(body)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_route_keeps_to_its_description_whatever_it_is_sent(server: Server, method: str, path: str) -> None:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    operation = schema[path][method]
    cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))

    @settings(
        max_examples=20,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def fuzz(case: Any) -> None:
        answer = case.call_and_validate(checks=CHECKS, timeout=20)
        if answer.content and "json" in answer.headers["content-type"][0].partition(";")[0].split("+")[-1]:
            check_schema(method, path, answer.status_code, answer.headers["content-type"][0], answer.json())

    fuzz()
