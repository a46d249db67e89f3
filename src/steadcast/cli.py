"""The command line: the hook's short way, and the way to everything else.

| exit code | meaning |
|---|---|
| 0 | done; a server that was asked to stop has drained |
| 1 | refused or failed: an event was refused, `doctor` found a problem |
| 2 | wrong usage: an option, a setting, or input that is no JSON |
| 3 | no server: none answers, or it can't take anything for now; `serve` couldn't start |
| 4 | spooled: every event is on disk, and is sent when the server is back |
| 5 | not allowed: no token, or a wrong one |
| 130 | interrupted by Ctrl-C |

`hook` alone always exits 0, since an agent takes another code for an instruction.
"""

from __future__ import annotations

import gc
import os
import sys

COLLECT = 100_000
"""So many more containers are there before garbage in circles is searched for (`gc.set_threshold`). Python's
700 are met hundreds of times by the imports of a command, which leave none: a tenth of what it takes."""


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["hook"] and sys.argv[2:] != ["--help"]:
        # An agent waits for this at each of its steps: nothing else is imported, no option is refused.
        from steadcast.client.hook import main as hook

        sys.exit(hook())
    if os.name == "nt":
        sys.exit("steadcast: it runs on Linux and macOS; on Windows, in its Linux subsystem (WSL)")
    gc.set_threshold(COLLECT)
    if sys.argv[1:2] == ["serve"] and any(each.startswith("--config") for each in sys.argv):
        _hold_hangups_back()
    if sys.argv[1:] == ["serve"]:
        from steadcast.commands.running import run_plainly

        run_plainly()
    from steadcast.commands.tree import run

    run()


def _hold_hangups_back() -> None:
    """Have SIGHUP wait until the server can read its tokens anew: it would end a process that only begins."""
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
