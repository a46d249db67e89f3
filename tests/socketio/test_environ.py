"""What handlers and `authorize` are told of a request."""

from __future__ import annotations

from typing import Any

import pytest

from steadcast.socketio.environ import translate_request


async def told(begun: dict[str, Any] | None = None, *more: dict[str, Any], **scope: Any) -> dict[str, Any]:
    coming = iter([begun or {"type": "websocket.connect"}, *more])

    async def receive() -> Any:
        return next(coming)

    async def send(_: Any) -> None:
        """Nothing is answered here."""

    request: dict[str, Any] = {"type": "http", "path": "/socket.io/", "query_string": b"", "headers": []}
    return await translate_request(request | scope, receive, send)


async def test_what_a_request_said_is_named_as_wsgi_does() -> None:
    environ = await told(
        method="POST",
        query_string=b"EIO=4&transport=polling",
        client=("192.0.2.7", 4711),
        server=("127.0.0.1", 8765),
        headers=[(b"host", b"localhost"), (b"content-type", b"text/plain"), (b"x-user-name", b"J\xf6rg")],
    )
    said = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/socket.io/",
        "QUERY_STRING": "EIO=4&transport=polling",
        "RAW_URI": "/socket.io/?EIO=4&transport=polling",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "4711",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8765",
        "HTTP_HOST": "localhost",
        "CONTENT_TYPE": "text/plain",
        "HTTP_X_USER_NAME": "Jörg",
    }
    assert said.items() <= environ.items()
    assert environ["asgi.scope"]["client"] == ("192.0.2.7", 4711)


async def test_fields_that_come_twice_stand_beside_each_other() -> None:
    environ = await told(headers=[(b"cookie", b"a=1"), (b"cookie", b"b=2")])
    assert environ["HTTP_COOKIE"] == "a=1,b=2"


async def test_a_request_without_an_address_has_none() -> None:
    environ = await told(client=None, server=("/run/steadcast.sock", None))
    assert (environ["REMOTE_ADDR"], environ["SERVER_NAME"], environ["SERVER_PORT"]) == (
        "",
        "/run/steadcast.sock",
        "",
    )


@pytest.mark.parametrize(
    ("scheme", "headers", "expected"),
    [
        ("http", [], "http"),
        ("wss", [], "https"),
        ("ws", [(b"x-forwarded-proto", b"https")], "https"),
    ],
)
async def test_the_scheme_is_the_one_that_the_client_used(scheme: str, headers: Any, expected: str) -> None:
    assert (await told(scheme=scheme, headers=headers))["wsgi.url_scheme"] == expected


async def test_a_body_is_read_in_all_its_parts_and_no_further_than_asked() -> None:
    parts = [{"type": "http.request", "body": body, "more_body": True} for body in (b"abc", b"def", b"ghi")]
    environ = await told(*parts)
    assert await environ["wsgi.input"].read(5) == b"abcde"


async def test_a_body_ends_where_its_client_leaves() -> None:
    begun = {"type": "http.request", "body": b"abc", "more_body": True}
    environ = await told(begun, {"type": "http.disconnect"})
    assert await environ["wsgi.input"].read(100) == b"abc"
