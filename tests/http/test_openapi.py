"""The OpenAPI document against the routes; every answer in this folder's tests is held against it as well."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from steadcast.errors import SteadcastError
from steadcast.http.app import ENDPOINTS, OPEN
from steadcast.http.openapi import Problem, Results
from steadcast.http.problems import STATUS_BY_CLASS, STATUS_BY_CODE, problem_of
from steadcast.http.reads import Page, Streams
from tests.support.http_serving import DOCUMENT, Client


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(each) for each in value.values()))
    if isinstance(value, list):
        return set().union(*(references(each) for each in value))
    return set()


def test_every_route_is_in_the_document_and_nothing_else_is() -> None:
    documented = {
        (method.upper(), path)
        for path, item in DOCUMENT["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert documented == {(each.method, each.path) for each in ENDPOINTS} | {("GET", "/")}


def test_open_routes_are_documented_as_open_and_the_others_answer_401() -> None:
    for endpoint in ENDPOINTS:
        operation = DOCUMENT["paths"][endpoint.path][endpoint.method.lower()]
        assert (operation.get("security") == []) is (endpoint.scope is OPEN), endpoint
        if endpoint.scope is not OPEN:
            assert {"401", "403", "429"} <= operation["responses"].keys(), endpoint


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        assert reference.removeprefix("#/components/schemas/") in DOCUMENT["components"]["schemas"]


def test_every_path_parameter_is_declared() -> None:
    for path, item in DOCUMENT["paths"].items():
        names = set(re.findall(r"\{(\w+)\}", path))
        declared = {each["name"] for each in item.get("parameters", ()) if each["in"] == "path"}
        assert names == declared


def test_every_error_status_is_a_problem_and_every_status_of_the_tree_is_known() -> None:
    known = set()
    for item in DOCUMENT["paths"].values():
        for method, operation in item.items():
            for status, answer in operation["responses"].items() if method != "parameters" else ():
                assert answer["description"]
                if int(status) >= 400:
                    known.add(int(status))
                    assert list(answer["content"]) == ["application/problem+json"]
    tree = {int(status) for status in STATUS_BY_CODE.values()} | {
        int(status) for _, status in STATUS_BY_CLASS
    }
    assert tree - known == {405}, "which is about methods that the document doesn't have"


def test_what_is_served_is_this_document(client: Client) -> None:
    served = client.ask("GET", "/openapi.json").json
    assert served["openapi"] == "3.1.0"
    assert served["paths"] == json.loads(msgspec.json.encode(DOCUMENT["paths"]))


@pytest.mark.parametrize("kind", [Page, Streams, Results, Problem])
def test_every_struct_has_its_schema(kind: type) -> None:
    schema = DOCUMENT["components"]["schemas"][kind.__name__]
    assert set(schema["properties"]) == {field.name for field in msgspec.structs.fields(kind)}


def test_a_problem_of_any_error_has_the_members_that_are_documented() -> None:
    error = SteadcastError("words", code="x", index=0, field="id", retry_after=2.0)
    problem = msgspec.convert(problem_of(error), Problem, strict=True)
    assert (problem.index, problem.field, problem.retry_after, problem.status) == (0, "id", 2.0, 500)
