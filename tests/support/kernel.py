"""What a test needs of the kernel."""

from __future__ import annotations

from typing import Final

import pytest

from steadcast.socketio.aio import Aio

needs_aio: Final = pytest.mark.skipif(
    not Aio().ready(), reason="this kernel, or a sandbox, gives no AIO context: writes go one by one"
)
