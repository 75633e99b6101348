"""The thread that lets a journal reach the disk, so that no commit has to wait for it."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from spool import Spool

SYNC_INTERVAL_S: Final = 0.25
# How often a disk that was full is looked at again.
RETURN_INTERVAL_S: Final = 5.0


class Syncer:
    """The thread that lets the journal reach the disk, again if need be.

    Lifecycle: start, stop, join.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="runner-syncer", daemon=True)

    def start(self) -> None:
        """Begin to sync."""
        self._thread.start()

    def stop(self) -> None:
        """End after one last time."""
        self._stopping.set()
        self._spool.sync_due.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        return_at = 0.0
        while not self._stopping.is_set():
            self._spool.sync_due.wait(SYNC_INTERVAL_S)
            if time.monotonic() >= return_at:
                self._spool.return_to_disk(when_there_is_room=True)
                return_at = time.monotonic() + RETURN_INTERVAL_S
            with contextlib.suppress(OSError):
                self._spool.sync_to_disk()
