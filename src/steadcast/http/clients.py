"""The connected clients, for whoever runs the server: listed, pinged, disconnected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec
from starlette.responses import Response

from steadcast.errors import InvalidRequest, Unavailable
from steadcast.event import Lane, Position
from steadcast.http.reads import json_response, parse_limit

if TYPE_CHECKING:
    from starlette.requests import Request

    from steadcast.errors import SteadcastError
    from steadcast.http.context import Context
    from steadcast.http.given import Connections

LISTED: Final = 1_000
"""The most clients that one answer tells of."""
PONG_PATIENCE: Final = 3.0
"""Seconds for which a client's pong is waited for."""

LaneState = Literal["replaying", "live", "lagging"]
ClientState = Literal["replaying", "live", "lagging", "plain", "leaving"]
_WORST_FIRST: Final[tuple[LaneState, ...]] = ("lagging", "replaying", "live")


class Connected(Protocol):
    """One connected client."""

    id: str

    def kick(self, error: SteadcastError) -> None:
        """Tell the client why, and disconnect it; returns at once."""
        ...


class ClientLane(msgspec.Struct, frozen=True):
    """How far a client is in a lane: what was written and acked up to where, and what lies before the head.

    `unacked` and `lag` are in events; `lag` is None where it can't be counted yet.
    """

    state: LaneState
    position: Position
    acked: int
    unacked: int
    unacked_bytes: int
    lag: int | None


class ConnectedClient(msgspec.Struct, frozen=True, kw_only=True):
    """A connected client. Times are in seconds; `reconnects` and `failures` are its `client_id`'s.

    `state` is that of the lane that is furthest from live; `plain` follows no stream, `leaving` was told to
    go. `lag` is all lanes' together. `window` is the share of its ack window that the fullest lane uses, from
    0 to 1; more where one event is larger than the window. `queued` counts packets in its transport.
    """

    id: str
    client_id: str | None
    transport: Literal["websocket", "polling"]
    state: ClientState
    uptime: float
    reconnects: int
    failures: int
    round_trip: float | None
    lag: int | None
    window: float
    queued: int
    streams: dict[str, dict[Lane, ClientLane]]


class ClientListing(msgspec.Struct, frozen=True):
    """The clients in the order of their connects, at most 1,000; `total` is how many there are."""

    total: int
    clients: list[ConnectedClient]


class Pinged(msgspec.Struct, frozen=True):
    """A ping's round trip in seconds; None where no pong came in time, as from a plain Socket.IO client."""

    round_trip: float | None


async def listing(context: Context, request: Request) -> Response:
    """Answer `GET /v1/clients`."""
    connections = context.connections
    if connections is None:
        return json_response(ClientListing(0, []))
    limit = parse_limit(request.query_params.get("limit"), LISTED, "an answer has at most 1000 clients")
    told = [
        _told(context, connections.metrics(each)) for each, _ in zip(connections, range(limit), strict=False)
    ]
    return json_response(ClientListing(len(connections), told))


async def ping(context: Context, request: Request) -> Response:
    """Answer `POST /v1/clients/{id}/ping` once the pong is there, or isn't after three seconds."""
    connections, client = _find(context, request)
    round_trip = await context.within("ping", connections.ping(client, PONG_PATIENCE))
    return json_response(Pinged(round_trip))


async def disconnect(context: Context, request: Request) -> Response:
    """Disconnect a client, which may come back: `POST /v1/clients/{id}/disconnect`."""
    _, client = _find(context, request)
    context.counts["clients_disconnected"] += 1
    client.kick(Unavailable("an operator disconnected this client; it may come back", code="disconnected"))
    return Response(status_code=204)


def _find(context: Context, request: Request) -> tuple[Connections, Connected]:
    name = request.path_params["id"]
    client = None if context.connections is None else context.connections.get(name)
    if context.connections is None or client is None:
        raise InvalidRequest("no client with this id is connected", code="not_found", id=name[:128])
    return context.connections, client


def _told(context: Context, metrics: dict[str, Any]) -> ConnectedClient:
    streams = {
        stream: {
            Lane(lane): ClientLane(**{**told, "position": Position(*told["position"])})
            for lane, told in lanes.items()
        }
        for stream, lanes in metrics["streams"].items()
    }
    lanes = [lane for by_lane in streams.values() for lane in by_lane.values()]
    lags = [lane.lag for lane in lanes if lane.lag is not None]
    window = context.hub.window
    return ConnectedClient(
        id=metrics["sid"],
        client_id=metrics["client_id"],
        transport=metrics["transport"],
        state="leaving" if metrics["leaving"] else _state(lanes),
        uptime=metrics["uptime"],
        reconnects=metrics["reconnects"],
        failures=metrics["failures"],
        round_trip=metrics["round_trip"],
        lag=sum(lags) if len(lags) == len(lanes) else None,
        window=max((_share(lane, window.events, window.bytes) for lane in lanes), default=0.0),
        queued=metrics["queued"],
        streams=streams,
    )


def _state(lanes: list[ClientLane]) -> ClientState:
    states = {lane.state for lane in lanes}
    return next((state for state in _WORST_FIRST if state in states), "plain")


def _share(lane: ClientLane, events: int, size: int) -> float:
    return max(lane.unacked / events, lane.unacked_bytes / size)
