"""A server whose SQLite file may have so many pages and no more, until it is sent SIGUSR1.

SQLite's own limit (`max_page_count`) is a connection's, and can't be set from outside: this stands before
`steadcast serve` in the same process. Arguments: the number of pages, then the server's.
"""

from __future__ import annotations

import signal
import sys

import apsw

from steadcast.cli import main

PLENTY = 1_000_000


def limit(pages: int) -> None:
    """Hold every connection that is opened from now on to so many pages."""
    apsw.connection_hooks[:] = [lambda conn: conn.pragma("max_page_count", pages)]


def lift(*_: object) -> None:
    """Give room: to those that are open, and to those that come."""
    limit(PLENTY)
    for conn in apsw.connections():
        conn.pragma("max_page_count", PLENTY)


if __name__ == "__main__":
    limit(int(sys.argv.pop(1)))
    signal.signal(signal.SIGUSR1, lift)
    main()
