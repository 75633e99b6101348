"""Prints its remaining arguments as one line, if any, and ends as it is told.

Usage: exits.py CODE_OR_SIGNAL_NAME [WORD]...

`exits.py 3` exits with 3; `exits.py SIGSEGV` ends by that signal, with its default action.
"""

import os
import signal
import sys

how = sys.argv[1]
if sys.argv[2:]:
    print(*sys.argv[2:], flush=True)
if how.startswith("SIG"):
    import resource

    # No core file, wherever the system would put it.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    number = getattr(signal, how)
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pause()
sys.exit(int(how))
