"""Where the files of runs lie: what a place for them has to do, and the folder that is the default.

A file has the id of its run and one of its own, and never a name that somebody sent. It is there
whole or not at all, and when it has been written it survives a loss of power.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

_PARTIAL = ".partial"
# What a full disk says; everything else means that the folder is not there.
_FULL = (errno.ENOSPC, errno.EDQUOT)


class FilesAwayError(Exception):
    """The place of the files does not answer; the message is a reason for the log."""


class Sink(Protocol):
    """What a new file is written to."""

    def write(self, data: bytes) -> object:
        """Write some more. Raises: FilesAwayError; OSError on a full disk."""


class Content(Protocol):
    """A file that is being read. Its methods raise FilesAwayError."""

    @property
    def size(self) -> int:
        """How many bytes it has."""

    def read(self, size: int = -1) -> bytes:
        """Return some of the next bytes, none at the end."""

    def seek(self, offset: int) -> int:
        """Go to a place."""

    def tell(self) -> int:
        """Return the place."""

    def seekable(self) -> bool:
        """It is."""

    def close(self) -> None:
        """Let go of it."""


class Entry(NamedTuple):
    """A file that is there, and when it was written."""

    run_id: str
    file_id: str
    modified_at: float


class FileStore(Protocol):
    """A place for files. Thread: any. Its methods raise FilesAwayError."""

    def writing(self, run_id: str, file_id: str) -> AbstractContextManager[Sink]:
        """Make a file, which is there when the block has ended, unless it raised."""

    def open(self, run_id: str, file_id: str) -> Content:
        """Read a file. Raises: FileNotFoundError."""

    def remove(self, run_id: str, file_id: str) -> None:
        """Remove a file, if it is there."""

    def remove_run(self, run_id: str) -> None:
        """Remove all files of a run."""

    def remove_half(self, before: float) -> None:
        """Remove what began to be written before then, and never was."""

    def entries(self) -> Iterator[Entry]:
        """Yield all files, those of a run together."""

    def check(self) -> None:
        """Look whether it answers."""


@contextmanager
def _as_away() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise FilesAwayError(error.strerror or str(error)) from None


class _Sink:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        """Write some more."""
        with _as_away():
            self._file.write(data)


class _Content:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self.close = file.close

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        with _as_away():
            return self._file.read(size)


class FolderStore:
    """A folder, which several gateways may share over a network file system.

    `is_ours`: it is made if it is missing. Another one has to be there: where a file system is not
    mounted, nothing may be written.
    """

    def __init__(self, folder: Path, *, is_ours: bool) -> None:
        self._folder = folder
        self._is_ours = is_ours
        if is_ours:
            folder.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def writing(self, run_id: str, file_id: str) -> Iterator[Sink]:
        """Make a file."""
        folder = self._folder / run_id
        path = folder / file_id
        partial = path.with_suffix(_PARTIAL)
        with _as_away():
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
                _sync_folder(self._folder)
            # Half of it may be there: a move that was killed begins again with the same id.
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            file = open(os.open(partial, flags, 0o600), "wb")  # noqa: SIM115 - closed below
        try:
            with file:
                yield _Sink(file)
                with _as_away():
                    file.flush()
                    os.fsync(file.fileno())
            with _as_away():
                os.replace(partial, path)
                _sync_folder(folder)
        finally:
            with _as_away():
                partial.unlink(missing_ok=True)

    def open(self, run_id: str, file_id: str) -> Content:
        """Read a file."""
        try:
            return _Content((self._folder / run_id / file_id).open("rb"))
        except FileNotFoundError:
            self.check()
            raise
        except OSError as error:
            raise FilesAwayError(error.strerror) from None

    def remove(self, run_id: str, file_id: str) -> None:
        """Remove a file."""
        with _as_away():
            (self._folder / run_id / file_id).unlink(missing_ok=True)

    def remove_run(self, run_id: str) -> None:
        """Remove a run's folder, with what is half written there."""
        self.check()
        with _as_away(), suppress(FileNotFoundError):
            shutil.rmtree(self._folder / run_id)

    def remove_half(self, before: float) -> None:
        """Remove old partial files; younger ones may be another gateway's."""
        for entry in self._everything():
            if entry.file_id.endswith(_PARTIAL) and entry.modified_at < before:
                self.remove(entry.run_id, entry.file_id)

    def entries(self) -> Iterator[Entry]:
        """Yield all files."""
        return (each for each in self._everything() if not each.file_id.endswith(_PARTIAL))

    def _everything(self) -> Iterator[Entry]:
        with _as_away():
            runs = os.listdir(self._folder)
        for run_id in runs:
            # What is removed meanwhile, or is no folder of a run.
            with (
                suppress(FileNotFoundError, NotADirectoryError),
                os.scandir(self._folder / run_id) as files,
            ):
                for file in files:
                    yield Entry(run_id, file.name, file.stat().st_mtime)

    def check(self) -> None:
        """Look whether the folder is there, and can be written."""
        with _as_away():
            if self._is_ours:
                self._folder.mkdir(mode=0o700, exist_ok=True)
            os.listdir(self._folder)
            if not os.access(self._folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "the folder cannot be written")


def _sync_folder(folder: Path) -> None:
    """Wait until what was made in a folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
