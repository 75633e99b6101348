"""The folder of one run, `.data/runs/<run-id>`: made once, locked while alive, stamped when done.

A run id names a folder for ever: what was started once is never started again. A folder without the
`delivered` stamp, whose run is not alive, still holds something for the gateway.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runner_config import RunnerError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DAY_S = 86_400


class RunFolder:
    """One run's folder. Private: 0700, and every file in it 0600."""

    def __init__(self, data_dir: Path, run_id: str) -> None:
        self.path = data_dir / "runs" / run_id
        self.run_id = run_id
        self.spool_path = self.path / "spool.db"
        self._stamp = self.path / "delivered"
        self._lock_fd = -1

    def create(self) -> None:
        """Make and lock the folder. Raises RunnerError when the run id was used here before."""
        try:
            self._make()
        except FileExistsError:
            raise RunnerError(
                f"run {self.run_id} was started here before, and a run is started only once; "
                "create a new run"
            ) from None
        except OSError as error:
            raise RunnerError(
                f"{self.path} cannot be made ({error.strerror}); "
                "set CLAUDE_RUNNER_DATA_DIR to another folder"
            ) from error

    def _make(self) -> None:
        if not self.path.parent.exists():
            self.path.parent.mkdir(mode=0o700, parents=True)
        self.path.mkdir(mode=0o700)
        try:
            self.lock()
        except OSError:
            self.remove()
            raise

    def lock(self) -> bool:
        """Claim the folder for this process; False when its run is alive."""
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._lock_fd = fd
        return True

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def remove(self) -> None:
        """Delete the folder and everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def is_delivered(self) -> bool:
        """Whether the gateway has everything."""
        return self._stamp.exists()

    def mark_delivered(self) -> None:
        """Note that the gateway has everything."""
        self._stamp.touch(mode=0o600)

    @property
    def delivered_days_ago(self) -> float:
        """How long ago the gateway got the last of it; 0 when it has not."""
        try:
            return (time.time() - self._stamp.stat().st_mtime) / _DAY_S
        except FileNotFoundError:
            return 0.0


def find_undelivered(data_dir: Path) -> Iterator[RunFolder]:
    """Yield the folders of runs that the gateway does not have whole, live ones included."""
    for folder in _all_folders(data_dir):
        if not folder.is_delivered and folder.spool_path.exists():
            yield folder


def prune_delivered(data_dir: Path, retention_days: float) -> int:
    """Remove the folders of runs that were delivered longer ago than that; return how many."""
    old = [f for f in _all_folders(data_dir) if f.delivered_days_ago > retention_days]
    for folder in old:
        folder.remove()
    return len(old)


def _all_folders(data_dir: Path) -> Iterator[RunFolder]:
    runs = data_dir / "runs"
    for path in sorted(runs.iterdir()) if runs.is_dir() else ():
        if path.is_dir():
            yield RunFolder(data_dir, path.name)
