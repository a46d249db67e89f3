"""HTTP to this machine's own servers, without TLS."""

from __future__ import annotations

import ssl
from typing import Final

PLAIN: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For httpx's `verify`: without it each call reads the machine's certificates, 30 ms of processor time."""
