"""The thread that lets the journal reach the disk, and use room that comes back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Callable, Final

from runner.mailbox import Worker, WorkerEnded, WorkerFailed

if TYPE_CHECKING:
    from journal.spool import Spool

_SYNC_INTERVAL_S: Final = 0.25


class Syncer(Worker):
    """The syncer thread. It syncs one last time after `stop`."""

    def __init__(
        self, spool: Spool, tell_owner: Callable[[WorkerFailed | WorkerEnded], object]
    ) -> None:
        super().__init__("syncer", tell_owner)
        self._spool = spool

    def _wake(self) -> None:
        self._spool.sync_due.set()
        self._spool.has_work.set()

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._spool.has_work.wait()
            self._spool.sync_due.wait(_SYNC_INTERVAL_S)
            self._spool.use_room()
            with contextlib.suppress(OSError):
                self._spool.sync_to_disk()
