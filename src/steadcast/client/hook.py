"""`steadcast hook`: takes a coding agent's hook from standard input to the server; never disturbs the agent.

Whatever goes wrong, it exits 0 and prints nothing. The event is in the spool before the server is tried,
and the server gets at most 300 ms, less what the disk took. Only the standard library, and little of it:
this runs at every tool call.

Input that isn't a JSON object, or is nested deeper than the server takes, isn't lost in silence: it becomes a
bounded event of its own, with `hook_event_name` "hook.invalid", `reason`, `bytes` and the first characters as
`head`. A JSON object too large for the server is sent with its long strings cut, and says so in
`steadcast_truncated`. Secrets are masked before anything is kept, and `steadcast_masked` says how many texts
that changed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from _thread import start_new_thread  # threading's import would be paid at every call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from steadcast.client.post import Connection
    from steadcast.client.spool import Spool
    from steadcast.client.spooled import Request
    from steadcast.masking import Masking

PATH = "/v1/hooks/claude"

MAX_BODY = 248 * 1024
"""Bytes: the server's 256 KiB for an event, less 8 KiB for what it adds."""

MAX_INPUT = 8 * 1024 * 1024
"""Bytes that are read to be understood; what follows is read and thrown away, so that the agent can write."""

MAX_DEPTH = 128
"""Levels: arrays and objects in each other, as the server takes them."""

SEND_SECONDS = 0.3
"""From the end of the input on; what the imports and the spool take of it, the server doesn't get."""

_MIN_SEND_SECONDS = 0.1
_INPUT_SECONDS = 1.0
_LIFE_SECONDS = 2.5
_LEAVE_SECONDS = 0.1
"""An event that the server has is on its way out of the spool: it is counted before the process ends."""
_CHUNK = 256 * 1024
_HEAD = 2_000
_CUTS = (16_384, 4_096, 1_024, 256, 64)


def main() -> int:
    """Run the hook; the exit code is 0 whatever happens.

    The process ends here: no interpreter teardown delays the agent. SIGINT and SIGTERM wait until the event
    is in the spool. Should a disk or a name lookup hang, the process ends all the same: what is in the
    spool by then is sent later.
    """
    try:
        _be_quiet()
        _live_at_most(_LIFE_SECONDS)
        _run(os.environ)
    except BaseException:  # noqa: BLE001, S110 - an agent must never notice its watcher, whatever it is
        pass
    finally:
        os._exit(0)


def _run(environ: Mapping[str, str]) -> None:
    given = _read_input(0)
    end = time.monotonic() + SEND_SECONDS
    request = _request(*given, environ)
    if request is None:
        return
    from steadcast.client.address import DEFAULT_URL, parse_address
    from steadcast.client.spool import Spool
    from steadcast.client.spooled import spool_root

    try:
        address = parse_address(environ.get("STEADCAST_URL") or DEFAULT_URL)
    except Exception:  # noqa: BLE001 - a mistyped address must not cost the event: the local server has it then
        address = parse_address(DEFAULT_URL)
    spool: Spool | None = None
    try:
        spool = Spool(f"{spool_root(environ)}/{address.folder}")
        spool.put(request)
    except OSError:
        spool = None  # no disk: what remains is to send it at once
    _may_end()
    from steadcast.client.post import Connection

    left = max(end - time.monotonic(), _MIN_SEND_SECONDS)
    _live_at_most(left, spool)
    _send(request, spool, Connection(address.url, token=environ.get("STEADCAST_TOKEN")), left)


def _send(request: Request, spool: Spool | None, connection: Connection, seconds: float) -> None:
    from steadcast.client.drain import Drain

    if spool is None:
        connection.post(request.path, request.headers, request.body, timeout=seconds)
    else:
        # Ours is the youngest: it is sent directly if nothing older waits, and else after that.
        Drain(spool, connection).until(time.monotonic() + seconds)


def _be_quiet() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    void = os.open(os.devnull, os.O_RDWR)
    if void == 0:
        return _be_quiet_without_input()
    os.dup2(void, 1)
    os.dup2(void, 2)
    return None


def _be_quiet_without_input() -> None:
    # Standard input was closed, and the null device has taken its place: it reads as empty.
    os.dup2(0, 1)
    os.dup2(0, 2)


def _may_end() -> None:
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)


def _live_at_most(seconds: float, spool: Spool | None = None) -> None:
    # A thread, not an alarm: signal handlers of Python don't run while a name lookup or an fsync hangs.
    start_new_thread(_end_after, (seconds, spool))


def _end_after(seconds: float, spool: Spool | None) -> None:
    time.sleep(seconds)
    if spool is not None:
        spool.end(_LEAVE_SECONDS)
    os._exit(0)


def _end(_number: int, _frame: object) -> None:
    os._exit(0)


def _read_input(source: int) -> tuple[bytes, int]:
    """Give the input (at most MAX_INPUT) and how many bytes it was.

    Over at its end, after a second of silence, or when what came is a whole JSON object: an agent may leave
    the pipe open.
    """
    held = bytearray()
    count = 0
    while True:
        ready, _, _ = select.select([source], [], [], _INPUT_SECONDS)
        part = os.read(source, _CHUNK) if ready else b""
        if not part:
            break
        count += len(part)
        held += part[: MAX_INPUT - len(held)]
        if part.rstrip().endswith(b"}") and count == len(held) and _pause(source) and _is_whole(held):
            break
    return bytes(held), count


def _pause(source: int) -> bool:
    return not select.select([source], [], [], 0)[0]


def _is_whole(held: bytearray) -> bool:
    try:
        json.loads(held)
    except (ValueError, RecursionError):
        return False
    return True


def _request(held: bytes, count: int, environ: Mapping[str, str]) -> Request | None:
    if count == 0 and os.isatty(0):
        return None  # a person has typed the command: nothing happened
    from steadcast.client.ids import mint_id
    from steadcast.client.spooled import Request
    from steadcast.masking import of_environment

    headers = {"content-type": "application/json", "ce-id": mint_id(), "ce-time": _now()}
    return Request(PATH, headers, _body(held, count, of_environment(environ)))


def _body(held: bytes, count: int, masking: Masking) -> bytes:
    if count == 0:
        return _invalid("empty", held, count, masking)
    if count > len(held):
        return _invalid("too_large", held, count, masking)
    try:
        value = json.loads(held, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        return _invalid("too_deep", held, count, masking)
    except ValueError:
        return _invalid("not_json", held, count, masking)
    if not isinstance(value, dict):
        return _invalid("not_an_object", held, count, masking)
    if held.count(b"[") + held.count(b"{") > MAX_DEPTH and _is_deep(value):
        return _invalid("too_deep", held, count, masking)
    # Masked before it is cut: half a secret looks like none.
    return _fitting(masking.body(value), held, count, masking)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
    return bool(level)


def _fitting(value: dict[str, Any], held: bytes, count: int, masking: Masking) -> bytes:
    body = _encode(value)
    if len(body) <= MAX_BODY:
        return body
    for longest in _CUTS:
        told = {"bytes": count, "strings_over": longest}
        body = _encode(_cut(value, longest) | {"steadcast_truncated": told})
        if len(body) <= MAX_BODY:
            return body
    return _invalid("too_large", held, count, masking)


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= longest else f"{value[:longest]}…"
    if isinstance(value, dict):
        return {key: _cut(each, longest) for key, each in value.items()}
    if isinstance(value, list):
        return [_cut(each, longest) for each in value]
    return value


def _invalid(reason: str, held: bytes, count: int, masking: Masking) -> bytes:
    head = masking.text(held[: 2 * _HEAD].decode("utf-8", "replace"))[:_HEAD]
    return _encode({"hook_event_name": "hook.invalid", "reason": reason, "bytes": count, "head": head})


def _encode(value: dict[str, Any]) -> bytes:
    # Lone surrogates, which JSON's escapes can spell, have no UTF-8 (RFC 8259, section 8.2).
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _no_number(_name: str) -> None:
    # NaN and the infinities are Python's own additions to JSON; the server would refuse all of it.
    return None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if abs(number) != float("inf") else None


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds // 1000:06d}Z"
