"""What makes two publishes the same event: (source, id) names it, type, subject and data are its body."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from steadcast.event import Event

_SIZE = 16


def identity(source: str, event_id: str) -> bytes:
    """Give 16 bytes that name an event within its stream.

    The lengths keep ("a", "bc") and ("ab", "c") apart; 128 bits keep chance collisions below one in 10^18
    at the largest retention.
    """
    text = f"{len(source)}:{source}{event_id}"
    return blake2b(text.encode(), digest_size=_SIZE).digest()


def fingerprint(event: Event) -> bytes:
    """Give 16 bytes that two events share when type, subject and data are equal.

    Equal as JSON values: neither the order of keys nor white space counts, so that a retry which
    travelled by another way is still the same. `priority` and `time` may differ.
    """
    data = event.data
    value = msgspec.json.decode(data) if isinstance(data, msgspec.Raw) else data
    body = msgspec.json.encode((event.type, event.subject, value), order="sorted")
    return blake2b(body, digest_size=_SIZE).digest()
