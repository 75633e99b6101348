"""The thread that removes what is over: nonces and sessions; past the retention, runs and notes."""

from __future__ import annotations

import logging
import threading
import time

from gateway.artifacts import ArtifactFiles
from gateway.store import Store

logger = logging.getLogger(__name__)

ROUND_S = 60.0
# Removed at once; more would keep the writer from what runners send.
_RUNS_A_ROUND = 20


class Housekeeping:
    """The thread. `retention_days` 0 keeps runs, and the audit table, for ever."""

    def __init__(self, store: Store, files: ArtifactFiles, retention_days: float) -> None:
        self._store = store
        self._files = files
        self._retention_s = retention_days * 86_400
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateway-housekeeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End. Blocks until then."""
        self._ended.set()
        self._thread.join(2)

    def _run(self) -> None:
        while True:
            try:
                self._tidy_up()
            except Exception as error:  # noqa: BLE001 - it is tried again in the next round
                logger.warning("could not tidy up: %s", error)
            if self._ended.wait(ROUND_S):
                return

    def _tidy_up(self) -> None:
        self._store.forget_expired()
        if not self._retention_s:
            return
        kept_since = time.time() - self._retention_s
        self._store.forget_notes_before(kept_since)
        for run_id in self._store.runs_last_active_before(kept_since, _RUNS_A_ROUND):
            # First, and so again after a crash: without its row nobody would look for the folder.
            self._files.remove_run(run_id)
            while not self._ended.is_set() and self._store.remove_some_of(run_id):
                pass
