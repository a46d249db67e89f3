"""The OpenAPI 3.1 document of this interface. A test holds it against the routes and their answers."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from steadcast.event import Receipt  # noqa: TC001 - msgspec reads the annotations at run time
from steadcast.http.clients import LISTED, ClientListing, Pinged
from steadcast.http.dead import DeadListing, Redriven
from steadcast.http.problems import MEDIA_TYPE as PROBLEM
from steadcast.http.reads import NDJSON, Page, Streams
from steadcast.http.sse import MEDIA_TYPE as EVENTS
from steadcast.http.trim import Trimmed
from steadcast.wire import MAX_BATCH_EVENTS, MAX_EVENT_BYTES, PAGE_EVENTS

JSON: Final = "application/json"
Spec = dict[str, Any]


class Results(msgspec.Struct, frozen=True):
    """What was published, in the order sent: each event's position, and whether it was there before."""

    results: list[Receipt]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Problem details (RFC 9457). `code` names the error; `temporary` says whether a retry can help.

    `index` and `field` name the bad event of a batch; `lost` the offsets that are gone, `epoch` the log's;
    `next` where to read on; `retry_after` is in seconds.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    temporary: bool
    index: int | None = None
    field: str | None = None
    limit: int | None = None
    id: str | None = None
    scope: str | None = None
    epoch: str | None = None
    lost: tuple[int, int] | None = None
    maybe: bool | None = None
    next: str | None = None
    event: str | None = None
    timeout: float | None = None
    retry_after: float | None = None
    reasons: list[str] | None = None


_EVENT: Final[Spec] = {
    "type": "object",
    "required": ["id", "source", "type"],
    "description": "A CloudEvents 1.0 event in JSON. Attributes that are not listed are left out.",
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1, "maxLength": 256},
        "source": {"type": "string", "minLength": 1, "maxLength": 1024},
        "type": {"type": "string", "minLength": 1, "maxLength": 256},
        "time": {"type": ["string", "null"], "format": "date-time"},
        "subject": {"type": ["string", "null"], "minLength": 1, "maxLength": 1024},
        "priority": {"enum": ["critical", "normal"], "default": "normal"},
        "data": {"description": f"Any JSON value; an event has at most {MAX_EVENT_BYTES} bytes."},
        "data_base64": {
            "type": "string",
            "contentEncoding": "base64",
            "description": 'Kept as data {"datacontenttype", "data_base64"}.',
        },
    },
}
_BATCH: Final[Spec] = {
    "type": "array",
    "maxItems": MAX_BATCH_EVENTS,
    "items": {"$ref": "#/components/schemas/Event"},
}
_STREAM: Final[Spec] = {
    "name": "stream",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"},
}
_ID: Final[Spec] = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_CE_ID: Final[Spec] = {
    "name": "ce-id",
    "in": "header",
    "description": "The event's id; without it one is minted, and a bare retry is another event.",
    "schema": {"type": "string"},
}
_CE_TIME: Final[Spec] = {
    "name": "ce-time",
    "in": "header",
    "description": "The event's time (RFC 3339); now where it is missing or not valid.",
    "schema": {"type": "string"},
}
_WORDS: Final = {
    "304": "The browser has the file.",
    "400": "Something in the request is not valid; `code` and `field` say what.",
    "401": "The token is missing, wrong (`unauthorized`), too old (`token_expired`) or `token_revoked`.",
    "403": "The token doesn't allow this (`forbidden`, `scope` is missing), or another origin's page asks.",
    "404": "There is none with this id, or of this name.",
    "408": "The body did not come in time.",
    "409": "The id was used for another event (`id_conflict`).",
    "410": "The position can't be read: `trimmed` with the range `lost`, or `reset` with the new epoch.",
    "413": "Too large: `event_too_large`, `batch_too_large` or `body_too_large`.",
    "415": "The content type, its charset or its encoding is not taken.",
    "421": "The Host header names another server.",
    "429": "Over a rate; `Retry-After` says when to come again.",
    "500": "An unforeseen error; the server's log has it.",
    "503": "Away for now; `Retry-After` says when to come again.",
}
_RETRYING: Final = {"429", "503"}


def document(*, version: str, server: str) -> Spec:
    """Give the document; `server` is the URL that the paths stand under."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Steadcast",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server}],
        "security": [{}, {"token": []}, {"cookie": []}],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "steadcast_session",
                    "description": "Where the Host has a port, that follows: `steadcast_session_8765`.",
                },
            },
        },
    }


def _paths() -> Spec:
    return {
        "/v1/streams/{stream}/events": {"parameters": [_STREAM], "post": _publish(), "get": _page()},
        "/v1/streams/{stream}/sse": {"parameters": [_STREAM], "get": _feed()},
        "/v1/streams/{stream}/trim": {"parameters": [_STREAM], "post": _trim()},
        "/v1/streams": {"get": _read("The streams: heads, sizes, retention", _ref(JSON, "Streams"))},
        "/v1/clients": {"get": _clients()},
        "/v1/clients/{id}/ping": {"parameters": [_ID], "post": _ping()},
        "/v1/clients/{id}/disconnect": {
            "parameters": [_ID],
            "post": _operation(
                "Disconnect a client, which may come back", {"204": "It is told to go."}, *_CLIENT_ERRORS
            ),
        },
        "/v1/dead": {"get": _read("What was given up after its retries", _ref(JSON, "DeadListing"))},
        "/v1/dead/{id}/redrive": {"parameters": [_ID], "post": _redrive()},
        "/v1/dead/{id}": {
            "parameters": [_ID],
            "delete": _operation("Forget a dead event", {"204": "It is gone."}, *_DEAD_ERRORS),
        },
        "/v1/hooks/claude": {"post": _hook()},
        "/api/events": {"post": _mpm()},
        "/v1/login": {"post": _login()},
        "/v1/logout": {
            "post": _operation(
                "Take the login cookie back", {"204": "The cookie is gone."}, "403", security=[]
            )
        },
        "/v1/stats": {"get": _read("Statistics, for people", _content(JSON, {"type": "object"}))},
        "/metrics": {"get": _read("Metrics, for Prometheus", _content("text/plain", {"type": "string"}))},
        "/healthz": {"get": _probe("Whether the event loop runs")},
        "/readyz": {"get": _probe("Whether events can be published and read", "503")},
        "/openapi.json": {"get": _open("This document", _content(JSON, {"type": "object"}))},
        "/": {"get": _open("The dashboard", _content("text/html", {"type": "string"}))},
    }


def _publish() -> Spec:
    body = {
        "application/cloudevents+json": {"schema": _schema_ref("Event")},
        "application/cloudevents-batch+json": {"schema": _BATCH},
        JSON: {"schema": {"anyOf": [_schema_ref("Event"), _BATCH]}},
        "*/*": {"schema": {}, "x-mode": "binary: attributes in ce-* headers, the body is the data"},
    }
    return _operation(
        "Publish events: CloudEvents 1.0.2, binary, structured or batched; all or nothing",
        {"200": ("All are durable.", _ref(JSON, "Results"))},
        *_INGEST,
        body=body,
    )


def _page() -> Spec:
    answers = _ref(JSON, "Page") | _content(NDJSON, {"type": "string", "description": "One event a line."})
    parameters = [
        _query("lane", {"enum": ["critical", "normal"], "default": "normal"}),
        _query("after", {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}:[0-9]{1,16}$"}),
        _query("from", {"type": "string", "pattern": "^(start|end|last:[0-9]{1,16})$", "default": "start"}),
        _query(
            "limit",
            {
                "type": "integer",
                "minimum": 1,
                "maximum": 2**53 - 1,
                "description": f"At most {PAGE_EVENTS} are given.",
            },
        ),
    ]
    return _read("Read a page of a lane", answers, "400", "410", parameters=parameters)


def _feed() -> Spec:
    parameters = [
        _query("from", {"type": "string", "pattern": "^(start|end|last:[0-9]{1,16})$", "default": "end"}),
        _query("last_event_id", {"type": "string"}),
        {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}},
    ]
    answers = _content(EVENTS, {"type": "string", "description": "id: EPOCH:CRITICAL:NORMAL"})
    return _read("Follow both lanes by server-sent events", answers, "400", parameters=parameters)


def _trim() -> Spec:
    offset = {"type": "string", "pattern": "^([A-Za-z0-9_-]{1,64}:)?[0-9]{1,16}$"}
    return _operation(
        "Drop a lane's events up to and with an offset, for good",
        {"200": ("What is gone, or with `dry_run` would be.", _ref(JSON, "Trimmed"))},
        *("400", "401", "403", "404", "410", "429", "503"),
        parameters=[
            _query("lane", {"enum": ["critical", "normal"]}) | {"required": True},
            _query("upto", offset) | {"required": True},
            _query("dry_run", {"type": "boolean", "default": False}),
        ],
    )


def _hook() -> Spec:
    return _operation(
        "Take a Claude Code hook's JSON as it is, into the stream claude",
        {"200": ("It is durable.", _ref(JSON, "Results"))},
        *_INGEST,
        body={"*/*": {"schema": {"type": "object"}}},
        parameters=[_CE_ID, _CE_TIME],
    )


def _mpm() -> Spec:
    schema = {"type": "object", "required": ["data"], "properties": {"data": {"type": "object"}}}
    return _operation(
        "Take the body of Claude MPM's hooks, into the stream claude",
        {"204": "It is durable."},
        *_INGEST,
        body={"*/*": {"schema": schema}},
        parameters=[_CE_ID],
    )


def _login() -> Spec:
    schema = {"type": "object", "required": ["token"], "properties": {"token": {"type": "string"}}}
    return _operation(
        "Give the token once, for a cookie",
        {"204": "The cookie is set."},
        *("400", "401", "403", "408", "413", "415", "429"),
        body={JSON: {"schema": schema}},
        security=[],
    )


def _redrive() -> Spec:
    answers = {"200": ("It is durable.", _ref(JSON, "Redriven"))}
    return _operation("Append a dead event to its stream again", answers, *_DEAD_ERRORS)


def _clients() -> Spec:
    limit = {
        "type": "integer",
        "minimum": 1,
        "maximum": 2**53 - 1,
        "description": f"At most {LISTED} are given.",
    }
    return _read(
        "The connected clients, and how far each is",
        _ref(JSON, "ClientListing"),
        "400",
        parameters=[_query("limit", limit)],
    )


def _ping() -> Spec:
    answers = {"200": ("The pong came, or none did in three seconds.", _ref(JSON, "Pinged"))}
    return _operation("Ping a client now", answers, *_CLIENT_ERRORS, "503")


_CLIENT_ERRORS: Final = ("400", "401", "403", "404", "429")
_DEAD_ERRORS: Final = ("400", "401", "403", "404", "409", "429", "503")
_INGEST: Final = ("400", "401", "403", "408", "409", "413", "415", "429", "503")


def _read(summary: str, content: Spec, *errors: str, parameters: list[Spec] | None = None) -> Spec:
    return _operation(
        summary, {"200": ("OK", content)}, "401", "403", "429", "503", *errors, parameters=parameters
    )


def _open(summary: str, content: Spec) -> Spec:
    answers: dict[str, Any] = {"200": ("OK", content)}
    return _operation(summary, answers, security=[])


def _probe(summary: str, *errors: str) -> Spec:
    answers: dict[str, Any] = {"200": ("OK", _content(JSON, {"type": "object"}))}
    return _operation(summary, answers, *errors, security=[])


def _operation(
    summary: str,
    answers: dict[str, Any],
    *errors: str,
    body: Spec | None = None,
    parameters: list[Spec] | None = None,
    security: list[Spec] | None = None,
) -> Spec:
    operation: Spec = {"summary": summary, "responses": {}}
    for status, answer in answers.items():
        words, content = answer if isinstance(answer, tuple) else (answer, None)
        operation["responses"][status] = {"description": words} | ({"content": content} if content else {})
    for status in sorted({*errors, "421", "500"}):
        operation["responses"][status] = _error(status)
    if body is not None:
        operation["requestBody"] = {"required": True, "content": body}
    if parameters:
        operation["parameters"] = parameters
    if security is not None:
        operation["security"] = security
    return operation


def _error(status: str) -> Spec:
    answer: Spec = {"description": _WORDS[status], "content": _ref(PROBLEM, "Problem")}
    if status in _RETRYING:
        answer["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    return answer


def _schemas() -> Spec:
    _, schemas = msgspec.json.schema_components(
        [Page, Streams, Results, ClientListing, Pinged, DeadListing, Redriven, Trimmed, Problem],
        ref_template="#/components/schemas/{name}",
    )
    return {"Event": _EVENT, **schemas}


def _schema_ref(name: str) -> Spec:
    return {"$ref": f"#/components/schemas/{name}"}


def _ref(media_type: str, name: str) -> Spec:
    return _content(media_type, _schema_ref(name))


def _content(media_type: str, schema: Spec) -> Spec:
    return {media_type: {"schema": schema}}


def _query(name: str, schema: Spec) -> Spec:
    return {"name": name, "in": "query", "schema": schema}
