"""The thread that lets the journal reach the disk, again if need be."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Callable, Final

from runner.mailbox import Worker, WorkerEnded, WorkerFailed

if TYPE_CHECKING:
    from journal.spool import Spool

_SYNC_INTERVAL_S: Final = 0.25
# How often a disk that was full is looked at again.
_RETURN_INTERVAL_S: Final = 5.0


class Syncer(Worker):
    """The syncer thread. It syncs one last time after `stop`."""

    def __init__(
        self, spool: Spool, tell_owner: Callable[[WorkerFailed | WorkerEnded], object]
    ) -> None:
        super().__init__("syncer", tell_owner)
        self._spool = spool

    def _wake(self) -> None:
        self._spool.sync_due.set()

    def _work(self) -> None:
        return_at = 0.0
        while not self._stopping.is_set():
            self._spool.sync_due.wait(_SYNC_INTERVAL_S)
            if time.monotonic() >= return_at:
                self._spool.return_to_disk(when_there_is_room=True)
                return_at = time.monotonic() + _RETURN_INTERVAL_S
            with contextlib.suppress(OSError):
                self._spool.sync_to_disk()
