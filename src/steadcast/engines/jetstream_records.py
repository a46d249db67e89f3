"""The records of a JetStream log: their subjects, headers and bodies. Every node folds the same.

    steadcast.NAME.event.LANE.STREAM      an event: its JSON; its id's key and fingerprint in headers
    steadcast.NAME.meta.mark.LANE.STREAM  a lane's trim mark; only the last is kept
    steadcast.NAME.meta.ids               the ids of events that are about to be trimmed
    steadcast.NAME.meta.epoch             the log's epoch; only the last is kept
    steadcast.NAME.meta.probe             nothing: a write that shows that writes work; only the last is kept
    steadcast.NAME.meta.probe.spare       zeros: the room to trim the log when it is full

A stream's dots are commas in a subject: names may have dots side by side, tokens may not be empty.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from steadcast.errors import EngineRefused
from steadcast.event import Event, Lane
from steadcast.wire import whole_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from nats.aio.msg import Msg

    from steadcast.engines.page import Prepared

MSG_ID: Final = "Nats-Msg-Id"
PRINT: Final = "Steadcast-Print"
"""Header: the fingerprint, as hex digits."""
AT: Final = "Steadcast-At"
"""Header: when the event was appended by the appending node's clock, in milliseconds."""
ROLLUP: Final = {"Nats-Rollup": "sub"}
"""Headers of a record that takes the place of those before it on its subject."""
KEY_BYTES: Final = 16
_ID: Final = struct.Struct(f">{KEY_BYTES}s{KEY_BYTES}sqq")
_LATEST: Final = 2**53
_METADATA: Final = 9
"""Tokens of a delivery's reply subject, where it names no domain."""


class Kind(StrEnum):
    """What a record is."""

    EVENT = "event"
    MARK = "mark"
    IDS = "ids"
    EPOCH = "epoch"
    PROBE = "probe"


class Record(NamedTuple):
    """A record as it was delivered.

    `at` is in milliseconds. `size` counts the body's bytes, also where only its headers were asked for.
    `sent` is the record's number in its consumer; `pending` tells how many more there are for now.
    """

    kind: Kind
    subject: str
    stream: str
    lane: Lane
    seq: int
    sent: int
    pending: int
    stored: int
    headers: Mapping[str, str]
    body: bytes
    size: int

    @property
    def key(self) -> bytes:
        """The id's key: a forgotten id that is used again has a suffix in its message id."""
        return bytes.fromhex(self.headers[MSG_ID][: 2 * KEY_BYTES])

    @property
    def fingerprint(self) -> bytes:
        """The fingerprint of the event's body."""
        return bytes.fromhex(self.headers[PRINT])

    @property
    def at(self) -> int:
        """When the event was appended: a node whose clock is behind can't make its events look old.

        Raises ValueError where the header is none of ours.
        """
        return max(_number(self.headers.get(AT, "0"), _LATEST), self.stored)


def _number(text: str, most: int) -> int:
    number = whole_number(text, most)
    if number is None:
        raise ValueError("no number, or one that is too large")
    return number


class KeptId(NamedTuple):
    """An id that outlives its event."""

    key: bytes
    fingerprint: bytes
    seq: int
    at: int


class IdsHead(msgspec.Struct, frozen=True, array_like=True):
    """The first line of a record of ids: whose they are."""

    stream: str
    lane: Lane


class EpochBody(msgspec.Struct, frozen=True):
    """The body of an epoch record; `was` is the epoch that it replaces."""

    epoch: str
    was: str | None = None


class Subjects:
    """The subjects of one deployment."""

    def __init__(self, name: str) -> None:
        """Name them below `steadcast.NAME`."""
        self.root = f"steadcast.{name}"
        self.everything = f"{self.root}.>"
        self.events = f"{self.root}.event.>"
        self.meta = f"{self.root}.meta.>"
        self.ids = f"{self.root}.meta.ids"
        self.epoch = f"{self.root}.meta.epoch"
        self.probe = f"{self.root}.meta.probe"
        self.spare = f"{self.probe}.spare"

    def event(self, stream: str, lane: Lane) -> str:
        """Give the subject of a lane's events."""
        return f"{self.root}.event.{lane}.{stream.replace('.', ',')}"

    def mark(self, stream: str, lane: Lane) -> str:
        """Give the subject of a lane's trim mark."""
        return f"{self.root}.meta.mark.{lane}.{stream.replace('.', ',')}"

    def parse(self, subject: str) -> tuple[Kind, str, Lane]:
        """Tell what a subject names. Raises `EngineRefused` for one that this version doesn't know."""
        parts = subject.removeprefix(f"{self.root}.").removeprefix("meta.").split(".")
        try:
            kind = Kind(parts[0])
            if kind in {Kind.EVENT, Kind.MARK}:
                _, lane, stream = parts
                return kind, stream.replace(",", "."), Lane(lane)
        except ValueError as error:
            raise EngineRefused(
                f"the log has a record that this version doesn't know: {subject}", code="engine_newer"
            ) from error
        return kind, "", Lane.NORMAL

    def record(self, message: Msg) -> Record:
        """Read a delivered message. Raises `EngineRefused` for one that this version doesn't know."""
        kind, stream, lane = self.parse(message.subject)
        tokens = message.reply.split(".")
        if len(tokens) > _METADATA:
            tokens = tokens[2:]  # a domain and an account come first
        _, seq, sent, stored, pending = (int(token) for token in tokens[4:_METADATA])
        headers = message.headers or {}
        size = int(headers.get("Nats-Msg-Size", len(message.data)))
        return Record(
            kind, message.subject, stream, lane, seq, sent, pending, stored // 1_000_000, headers,
            message.data, size,
        )  # fmt: skip


def key_of(stream: str, item: Prepared) -> bytes:
    """Give the 16 bytes that name an event in the whole log."""
    return blake2b(stream.encode() + b"\0" + item.identity, digest_size=KEY_BYTES).digest()


def event_headers(key: bytes, item: Prepared, at: int, salt: str) -> dict[str, str]:
    """Give an event's headers; `salt` sets an id that was forgotten apart from its first use."""
    return {MSG_ID: key.hex() + salt, PRINT: item.fingerprint.hex(), AT: str(at)}


class _Stored(msgspec.Struct):
    id: str
    source: str
    type: str
    time: str
    data: msgspec.Raw
    priority: Lane = Lane.NORMAL
    subject: str | None = None


_stored = msgspec.json.Decoder(_Stored).decode
_ids_head = msgspec.json.Decoder(IdsHead).decode
_epoch_body = msgspec.json.Decoder(EpochBody).decode


def decode_event(body: bytes) -> Event:
    """Read an event's body. Raises `EngineRefused` where it is none."""
    try:
        stored = _stored(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineRefused("the log has a record that is no event", code="engine_invalid") from error
    return Event(
        stored.id, stored.source, stored.type, stored.time, stored.data, stored.priority, stored.subject
    )


def encode_ids(stream: str, lane: Lane, ids: Iterable[KeptId]) -> bytes:
    """Give the body of a record of ids: a line of JSON, then 48 bytes for each."""
    head = msgspec.json.encode(IdsHead(stream, lane))
    return head + b"\n" + b"".join(_ID.pack(*one) for one in ids)


def decode_ids(body: bytes) -> tuple[IdsHead, Iterator[KeptId]]:
    """Read the body of a record of ids; raises ValueError where it is none."""
    head, _, rest = body.partition(b"\n")
    if len(rest) % _ID.size:
        raise ValueError("half an id")
    return _ids_head(head), map(KeptId._make, _ID.iter_unpack(rest))


def decode_mark(body: bytes, seq: int) -> int:
    """Read the body of the trim mark that stands at `seq`; raises ValueError where it is none.

    A lane is trimmed up to an event of it, which stands before its mark.
    """
    return _number(body.decode("ascii"), seq - 1)


def decode_epoch(body: bytes) -> EpochBody:
    """Read the body of an epoch record; raises ValueError where it is none."""
    return _epoch_body(body)
