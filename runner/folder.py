"""The folder of one run, `.data/runs/<run-id>`: made once, locked while alive, stamped when done.

A run id names a folder for ever: what was started once is never started again. A folder without the
`delivered` stamp, whose run is not alive, still holds something for the gateway.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from config import RunnerError

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,50}")
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
        """Make and lock the folder. Raises RunnerError when the run id was used here before.

        An empty folder is that of a runner that died before it had a journal, and is taken over.
        """
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
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            if not self._is_empty():
                raise
        try:
            is_ours = self._lock()
        except OSError:
            self.remove()
            raise
        if not (is_ours and self._is_empty()):  # two runners may have come to this point
            self.close()
            raise FileExistsError

    def _is_empty(self) -> bool:
        return self.path.is_dir() and set(os.listdir(self.path)) <= {"lock"}

    def lock(self) -> bool:
        """Claim the folder for this process; False when its run is alive, or it is gone.

        Raises RunnerError when the folder cannot be used.
        """
        try:
            return self._lock()
        except FileNotFoundError:
            return False  # another process cleared it away
        except OSError as error:
            raise RunnerError(f"{self.path} cannot be used ({error.strerror})") from error

    def _lock(self) -> bool:
        fd = _open_own(self.path / "lock")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._lock_fd = fd
        return True

    @property
    def is_accessible(self) -> bool:
        """Whether it is this user's; a run that was started as root, say, is not."""
        return os.access(self.path, os.R_OK | os.W_OK | os.X_OK)

    @property
    def has_log(self) -> bool:
        """Whether the child was started, whatever the journal says."""
        return any(self.path.glob("*.log"))

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def remove(self) -> None:
        """Delete the folder and everything in it."""
        import shutil  # a start does without it

        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def is_delivered(self) -> bool:
        """Whether the gateway has everything."""
        return self._stamp.exists()

    def mark_delivered(self) -> None:
        """Note that the gateway has everything, unless the folder was deleted."""
        if self.path.exists():
            fd = _open_own(self._stamp)
            try:
                os.utime(fd)
            finally:
                os.close(fd)

    @property
    def delivered_days_ago(self) -> float:
        """How long ago the gateway got the last of it; 0 when it has not."""
        try:
            return (time.time() - self._stamp.stat().st_mtime) / _DAY_S
        except FileNotFoundError:
            return 0.0


def find_undelivered(data_dir: Path) -> Iterator[RunFolder]:
    """Yield the folders of runs that the gateway does not have whole, live ones included.

    A folder that cannot be read is among them.
    """
    for folder in all_folders(data_dir):
        if not folder.is_accessible or (not folder.is_delivered and folder.spool_path.exists()):
            yield folder


def prune_delivered(data_dir: Path, retention_days: float) -> int:
    """Remove the folders of runs that were delivered longer ago than that; return how many."""
    old = [
        folder
        for folder in all_folders(data_dir)
        if folder.is_accessible and folder.delivered_days_ago > retention_days
    ]
    for folder in old:
        folder.remove()
    return len(old)


def all_folders(data_dir: Path) -> Iterator[RunFolder]:
    """Yield the folders of all runs, by their ids."""
    runs = data_dir / "runs"
    for path in sorted(runs.iterdir()) if runs.is_dir() else ():
        if RUN_ID.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            yield RunFolder(data_dir, path.name)


def _open_own(path: Path) -> int:
    """Open or make a file of the folder. Raises OSError, also for a link: it may be planted."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
