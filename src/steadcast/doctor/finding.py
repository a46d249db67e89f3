"""What a check gives, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from steadcast.client.address import Address
    from steadcast.config import Settings

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was looked at, how it is, and, unless it is well, what to do."""

    name: str
    state: State
    told: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at: the settings (None where they are wrong), the server's address, the token."""

    settings: Settings | None
    wrong: tuple[str, ...]
    address: Address
    token: str | None


Findings: TypeAlias = Iterator[Finding]
Check: TypeAlias = Callable[[Patient], Findings]


def size_words(count: float) -> str:
    """Say a number of bytes."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:  # noqa: PLR2004 - the step between the units
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def age_words(seconds: float) -> str:
    """Say a number of seconds."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def without_password(url: str) -> str:
    """Give a URL without its password."""
    parts = urlsplit(url)
    return url.replace(f"{parts.username}:{parts.password}@", "…@") if parts.password else url
