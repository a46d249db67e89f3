"""A question to a server over HTTP: never through a proxy, and over in time."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steadcast.client.token import checked
from steadcast.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from steadcast.client.address import Address

MAX_ANSWER = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said; `headers` have lower-case names, `began` and `ended` are Unix time."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    began: float
    ended: float

    def json(self) -> dict[str, Any]:
        """Give the body where it is a JSON object, else an empty one."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}  # no JSON is an answer too: somebody else's
        return found if isinstance(found, dict) else {}


class NoAnswer(Exception):
    """Nobody answered, or in no way that HTTP knows; says why."""


def ask(
    address: Address,
    path: str,
    *,
    token: str | None = None,
    timeout: float = 3.0,
    method: str = "GET",
    largest: int = MAX_ANSWER,
) -> Answer:
    """Ask for a path under the server's base, and read at most `largest` bytes.

    Raises `NoAnswer`, and `InvalidRequest` for a token that no header takes.
    """
    secure = address.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(address.host, address.port, timeout=timeout)
    headers = {"Accept": "application/json"} | _shown(token)
    began = time.time()
    try:
        connection.request(method, address.base + path, headers=headers)
        response = connection.getresponse()
        body = response.read(largest)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(str(error) or type(error).__name__) from error
    finally:
        connection.close()
    told = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, told, body, began, time.time())


def _shown(token: str | None) -> dict[str, str]:
    try:
        told = checked(token or "")
    except ValueError as error:
        # `http.client` would say so with the token in its words.
        raise InvalidRequest(str(error), field="token") from error
    return {"Authorization": f"Bearer {told}"} if told else {}
