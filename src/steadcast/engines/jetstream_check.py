"""The stream in JetStream: what it must be like, and whether it is still the one that a node knew."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from typing import TYPE_CHECKING, Any, Final

import structlog

from steadcast.engines.jetstream_link import NO_MESSAGE, Answered
from steadcast.engines.jetstream_records import ROLLUP, Kind
from steadcast.errors import EngineRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from steadcast.engines.jetstream_index import Index, LaneIndex
    from steadcast.engines.jetstream_link import Link
    from steadcast.engines.jetstream_records import Subjects
    from steadcast.engines.jetstream_url import Options

log = structlog.get_logger("steadcast.jetstream")

SPARE: Final = 16 * 1024
"""Bytes that a log has to spare, for the first steps that trim it when it is full …"""
SPARE_SHARE: Final = 16
"""… or this part of its own limit, where that is less."""
_NEEDED: Final = {
    "retention": "limits",
    "allow_direct": True,
    "allow_atomic": True,
    "allow_rollup_hdrs": True,
    "max_msgs": -1,
    "max_msgs_per_subject": -1,
    "max_age": 0,
    "max_msg_size": -1,
    "discard": "new",
}
"""A limit of JetStream's own would take events without a trim mark, so nobody would be told; one on their
size would refuse for ever what a publisher sends again and again."""


def stream_config(options: Options) -> dict[str, Any]:
    """Give the stream that a deployment's first node makes."""
    return {
        "name": options.stream,
        "description": "The log of a Steadcast deployment",
        "subjects": [f"steadcast.{options.stream}.>"],
        "storage": options.storage,
        "num_replicas": options.replicas,
        "duplicate_window": int(options.window * 1e9),
        "max_bytes": options.max_bytes,
        "deny_delete": True,
        **_NEEDED,
    }


def check_stream(config: Mapping[str, Any], options: Options) -> None:
    """Raise `EngineRefused` for a stream that can't be a log; warn of what is merely not as asked for."""
    for name, needed in _NEEDED.items():
        found = config.get(name, False if needed is True else needed)
        if found != needed:
            raise EngineRefused(
                f"the JetStream stream {options.stream} has {name}={found}, and a log needs {needed}"
                " (nats-server 2.12 or newer)",
                code="engine_invalid",
            )
    if config.get("subjects") != [f"steadcast.{options.stream}.>"]:
        raise EngineRefused(
            f"the JetStream stream {options.stream} is not a log: it holds {config.get('subjects')}",
            code="engine_invalid",
        )
    asked = {"num_replicas": options.replicas, "storage": options.storage}
    for name, wanted in asked.items():
        if config.get(name) != wanted:
            log.warning("the log is not as asked for", what=name, asked=wanted, found=config.get(name))


async def keep_spare(link: Link, subjects: Subjects, config: Mapping[str, Any]) -> None:
    """See that a log has spare room; one that is full already has to go without.

    One without a limit of its own may meet its account's, its server's or the disk's. Raises
    `EngineUnavailable`.
    """
    limit = int(config.get("max_bytes", -1))
    size = min(SPARE, limit // SPARE_SHARE) if limit > 0 else SPARE
    try:
        await link.api(f"STREAM.MSG.GET.{config['name']}", {"last_by_subj": subjects.spare})
    except Answered as error:
        if error.code != NO_MESSAGE:
            raise error.told() from error
    else:
        return
    try:
        await link.ask(subjects.spare, bytes(size), ROLLUP)
    except Answered as error:
        log.warning("no room is kept to trim the log when it is full", detail=str(error))


def window_of(config: Mapping[str, Any]) -> float:
    """Give the seconds for which JetStream itself knows message ids."""
    return float(config.get("duplicate_window", 0)) / 1e9


async def skew(link: Link, options: Options, now: float) -> float:
    """Give the seconds by which a wall clock that says `now` is ahead of the servers'.

    0 where the server doesn't tell. Raises `EngineUnavailable`.
    """
    try:
        told = (await link.api(f"STREAM.INFO.{options.stream}")).get("ts")
    except Answered as error:
        raise error.told() from error
    return now - _milliseconds(told) / 1000 if told else 0.0


async def is_same(
    link: Link, options: Options, subjects: Subjects, index: Index, info: Mapping[str, Any]
) -> bool:
    """Tell whether the last record that the index has seen still stands where it stood.

    Asks the stream's leader. A record that is gone is fine where its lane's mark says so, or a later one
    took its place.
    """
    witness = index.witness
    if witness is None:
        return True
    if int(info["state"]["last_seq"]) < index.seq:
        return False
    found = await _message(link, options, {"seq": witness.seq})
    if found is not None:
        return bool(found["subject"] == witness.subject) and _milliseconds(found["time"]) == witness.stored
    kind, stream, lane = subjects.parse(witness.subject)
    instead = subjects.mark(stream, lane) if kind is Kind.EVENT else witness.subject
    later = await _message(link, options, {"last_by_subj": instead})
    return later is not None and int(later["seq"]) > witness.seq


async def take_marks(
    link: Link, options: Options, subjects: Subjects, index: Index, lanes: Sequence[LaneIndex]
) -> None:
    """Have the index know some lanes' marks as the stream's leader has them. Raises `EngineUnavailable`."""
    hole = index.hole
    found = await asyncio.gather(
        *(_message(link, options, {"last_by_subj": subjects.mark(lane.stream, lane.lane)}) for lane in lanes)
    )
    for lane, mark in zip(lanes, found, strict=True):
        if mark is not None and int(mark["seq"]) > lane.mark_seq:
            index.take_mark(lane, int(mark["seq"]), b64decode(mark.get("data", "")))
        lane.sure = hole


async def _message(link: Link, options: Options, which: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        answer = await link.api(f"STREAM.MSG.GET.{options.stream}", which)
    except Answered as error:
        if error.code == NO_MESSAGE:
            return None
        raise error.told() from error
    message: dict[str, Any] = answer["message"]
    return message


def _milliseconds(time: str) -> int:
    """Read a time of JetStream's, which has up to nine digits behind the second."""
    from datetime import datetime

    whole, _, rest = time.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return seconds * 1000 + int(f"{rest:0<9}"[:3])
