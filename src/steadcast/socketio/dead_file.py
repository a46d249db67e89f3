"""Dead events as lines of a file, and as records in the log: how they are encoded, and kept on disk."""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog

from steadcast.event import Event, Lane

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

log = structlog.get_logger("steadcast.dead")


class Dead(msgspec.Struct, frozen=True, kw_only=True):
    """A dead event: why and when (RFC 3339) it was given up, after how many attempts, and the event itself.

    `id` names the event by stream, source and id, so an event that dies twice is still one. `error` is the
    last failure. `garbled` says that the event couldn't be encoded: its data is lost, it can't be re-driven.
    """

    id: str
    stream: str
    reason: str
    at: str
    attempts: int
    error: str | None
    event: Event
    garbled: bool = False


class Why(NamedTuple):
    """Why an event is given up: see `Dead`."""

    reason: str
    at: str
    attempts: int
    error: str | None


class _Original(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event inside a record; its data stays the bytes that it was."""

    id: str
    source: str
    type: str
    time: str
    priority: Lane
    subject: str | None = None
    data: msgspec.Raw


class _Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    stream: str
    reason: str
    at: str
    attempts: int
    error: str | None
    event: _Original
    garbled: bool = False


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(_Record)


def dead_id(stream: str, source: str, event_id: str) -> str:
    """Give the id of a dead event: 32 hexadecimal digits made of stream, source and id."""
    parts = [part.encode() for part in (stream, source, event_id)]
    return blake2b(b"".join(b"%d:%b" % (len(part), part) for part in parts), digest_size=16).hexdigest()


class DeadFile:
    """The file of dead events that wait to be moved: a JSON text per line, fsynced.

    One server's own, but another may wait for it to end, and then goes on with what it left (`changed`).
    Without a path nothing is written, and what is here is lost with the process. Raises OSError.
    """

    def __init__(self, path: Path | None) -> None:
        """Touch nothing on disk yet."""
        self.path = path
        self.lines = 0
        self.bytes = 0
        self._left: tuple[int, int] | None = None

    def changed(self) -> bool:
        """Tell whether somebody else has written since `load`, or since what was written from here."""
        return self._now() != self._left

    def _now(self) -> tuple[int, int] | None:
        if self.path is None or not self.path.exists():
            return None
        found = self.path.stat()
        return found.st_ino, found.st_size

    def load(self) -> tuple[list[bytes], int]:
        """Read the lines that are whole, and how many aren't: a crash tears at most the last one."""
        self._left = self._now()
        if self.path is None or self._left is None:
            return [], 0
        lines = self.path.read_bytes().split(b"\n")
        whole = [line for line in lines[:-1] if _is_record(line)]
        torn = len(lines) - 1 - len(whole) + bool(lines[-1])
        if torn:
            self.replace(whole)
        self.lines = len(whole)
        self.bytes = sum(map(len, whole))
        return whole, torn

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines durably, all or none."""
        if self.path is None:
            return
        content = _joined(lines)
        file = self._open(self.path, os.O_APPEND)
        try:
            before = os.fstat(file).st_size
            try:
                _write(file, content)
            except OSError:
                os.ftruncate(file, before)  # half a line would spoil the next one
                raise
        finally:
            os.close(file)
        if before == 0:
            self._sync_folder(self.path)
        self._left = self._now()
        self.lines += len(lines)
        self.bytes += len(content)

    def replace(self, lines: Sequence[bytes]) -> None:
        """Let the file hold just these lines, durably."""
        if self.path is None:
            return
        beside = self.path.with_name(self.path.name + ".new")
        file = self._open(beside, os.O_TRUNC)
        try:
            _write(file, _joined(lines))
        finally:
            os.close(file)
        beside.replace(self.path)
        self._sync_folder(self.path)
        self._left = self._now()
        self.lines = len(lines)
        self.bytes = sum(map(len, lines))

    @staticmethod
    def _open(path: Path, flag: int) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600)

    @staticmethod
    def _sync_folder(path: Path) -> None:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def encode(stream: str, event: Event, why: Why) -> bytes:
    """Encode a record as one line; an event that no JSON can hold is kept without its data."""
    try:
        content = _encode(_record(stream, _original(event), why))
        decode(content)
        content.decode()  # the decoder passes `data` over, and it may hold any bytes
    except (msgspec.DecodeError, UnicodeError, TypeError, ValueError) as error:
        log.warning("a dead event that is no JSON lost its data", stream=_clean(stream), error=str(error))
        return _encode(_record(_clean(stream), _remains(event), why, garbled=True))
    # `data` is the publisher's own text, and may be spread over lines.
    return msgspec.json.format(content, indent=-1) if b"\n" in content else content


def decode(content: bytes | msgspec.Raw) -> Dead:
    """Turn a record's JSON into what it tells; raises msgspec's DecodeError where it is none."""
    record = _decoder.decode(content)
    its = record.event
    return Dead(
        id=dead_id(record.stream, its.source, its.id),
        stream=record.stream,
        reason=record.reason,
        at=record.at,
        attempts=record.attempts,
        error=record.error,
        event=Event(
            its.id, its.source, its.type, its.time, msgspec.Raw(bytes(its.data)), its.priority, its.subject
        ),
        garbled=record.garbled,
    )


def _record(stream: str, original: _Original, why: Why, *, garbled: bool = False) -> _Record:
    return _Record(
        stream=stream,
        reason=why.reason,
        at=why.at,
        attempts=why.attempts,
        error=None if why.error is None else _clean(why.error),
        event=original,
        garbled=garbled,
    )


def _original(event: Event) -> _Original:
    data = event.data if isinstance(event.data, msgspec.Raw) else msgspec.Raw(_encode(event.data))
    return _Original(
        id=event.id,
        source=event.source,
        type=event.type,
        time=event.time,
        priority=event.priority,
        subject=event.subject,
        data=data,
    )


def _remains(event: Event) -> _Original:
    return _Original(
        id=_clean(event.id),
        source=_clean(event.source),
        type=_clean(event.type),
        time=_clean(event.time),
        priority=event.priority,
        data=msgspec.Raw(b"null"),
    )


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _is_record(line: bytes) -> bool:
    try:
        decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Counted by `load` among the torn ones.
        return False
    return True


def _joined(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _write(file: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]
    os.fsync(file)
