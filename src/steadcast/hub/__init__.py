"""Sessions, groups, engine and clock: the only scheduler. `Hub` is the door; the other rooms are its own."""

from steadcast.hub.frame import Connection, Frame, Way
from steadcast.hub.hub import Hub, Timing

__all__ = ["Connection", "Frame", "Hub", "Timing", "Way"]
