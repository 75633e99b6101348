"""The thread that removes old nonces and sessions, and runs and notes past the retention.

Also what an operator has deleted, at once, and files that were broken off.
"""

from __future__ import annotations

import logging
import threading
import time
from itertools import groupby
from typing import Callable

from gateway.listing.runs import Listing
from gateway.listing.text_index import TextIndex
from gateway.storage.file_store import FileStore
from gateway.storage.retention import Periods, Retention
from gateway.storage.store import Store
from gateway.storage.writer import StoreClosedError

logger = logging.getLogger(__name__)

ROUND_S = 60.0
# Removed at once; more would keep the writer from what runners send.
_RUNS_A_ROUND = 20
# An upload that began before has ended, also by the clock of another machine.
_UPLOADS_END_S = 86_400
_SWEEPS_S = 43_200.0


class Housekeeping:
    """The thread. `forget` is called with runs that are removed."""

    def __init__(
        self,
        store: Store,
        listing: Listing,
        index: TextIndex,
        files: FileStore,
        retention: Retention,
        periods: Periods,
        forget: Callable[[list[str]], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._listing = listing
        self._index = index
        self._files = files
        self._retention = retention
        self._periods = periods
        self._forget = forget
        self._ended = threading.Event()
        self._woken = threading.Event()
        self._leads = False
        self._swept_at = -_SWEEPS_S
        self._thread = threading.Thread(target=self._run, name="gateway-housekeeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End. Blocks until then."""
        self._ended.set()
        self._woken.set()
        self._thread.join(2)

    def wake(self) -> None:
        """Remove now what an operator has deleted. Thread: any; does not block."""
        self._woken.set()

    def lead(self, *, leads: bool) -> None:
        """Begin with it, or leave it to another gateway on the same database."""
        self._leads = leads
        self._woken.set()

    def _run(self) -> None:
        while True:
            self._woken.clear()
            if self._ended.is_set():
                return
            try:
                if self._leads:
                    self._tidy_up()
            except StoreClosedError:
                return
            except Exception as error:  # noqa: BLE001 - it is tried again in the next round
                logger.warning("could not tidy up: %s", error)
            self._woken.wait(ROUND_S)

    def _tidy_up(self) -> None:
        self._store.forget_expired()
        is_any = False
        while deleted := self._listing.removed(_RUNS_A_ROUND):
            is_any = True
            self._remove(deleted)
        is_any |= self._remove_old()
        if is_any:
            self._index.forget_removed()
            self._store.settle()
        # In the end: their place may be away.
        self._remove_files()

    def _remove_old(self) -> bool:
        """Remove what is past its period; return whether there was anything."""
        now, periods = time.time(), self._periods
        if periods.audit_s:
            self._store.forget_notes_before(now - periods.audit_s)
        old: list[str] = []
        if periods.run_s:
            old = self._retention.old_runs(now - periods.run_s, _RUNS_A_ROUND)
            self._remove(old)
        if periods.output_s:
            before = now - periods.output_s
            for run_id in self._retention.runs_with_old_output(before, _RUNS_A_ROUND):
                old.append(run_id)
                self._step_by_step(self._retention.remove_some_output, run_id)
        return bool(old)

    def _remove(self, run_ids: list[str]) -> None:
        for run_id in run_ids:
            self._step_by_step(self._store.remove_some_of, run_id)
        if run_ids:
            self._forget(run_ids)

    def _step_by_step(self, work: Callable[[str], bool], run_id: str) -> None:
        while work(run_id):
            if self._ended.is_set():
                raise StoreClosedError

    def _remove_files(self) -> None:
        for run_id in self._store.leftovers():
            self._files.remove_run(run_id)
            self._store.note_files_removed(run_id, _UPLOADS_END_S)
        if self._periods.files_s:
            before = time.time() - self._periods.files_s
            for run_id in self._retention.runs_with_old_files(before, _RUNS_A_ROUND):
                for each in self._store.artifacts(run_id):
                    self._files.remove(run_id, each["id"])
                    self._retention.forget_file(each["id"])
        now = time.monotonic()
        if now >= self._swept_at + _SWEEPS_S:
            self._sweep()
            self._swept_at = now

    def _sweep(self) -> None:
        """Remove files that no row tells of: what was broken off, a day ago or before.

        Of runs that are not known here nothing is removed: they may be those of other gateways.
        """
        before = time.time() - _UPLOADS_END_S
        self._files.remove_half(before)
        for run_id, entries in groupby(self._files.entries(), lambda entry: entry.run_id):
            old = [each.file_id for each in entries if each.modified_at < before]
            known = self._store.artifact_ids(run_id) if old else None
            if known is not None:
                for file_id in set(old) - known:
                    self._files.remove(run_id, file_id)
            if self._ended.is_set():
                raise StoreClosedError
