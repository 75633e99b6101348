"""What is kept for a full disk, beside the journal: room, and notes that need none.

`reserve` is given free slice by slice, so that another process that fills the disk cannot take all
of it at once. It is shortened before any output is left out. A journal without an end whose reserve
is short may therefore lack output.

`end` is written over with the end of the run when the database cannot take it.

`taken` and `spent` are empty files. They say what the gateway's answer to the event in flight was
when the database cannot take that: it has the event, or it has refused this attempt.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

# Twice what the journal's log may need to be folded into its file.
RESERVE_BYTES: Final = 2 * 1_048_576
_SLICE_BYTES: Final = 262_144
_END_BYTES: Final = 65_536
TAKEN: Final = "taken"
SPENT: Final = "spent"


class Reserve:
    """The room: two files that are held open, so that they help after the folder was deleted, too.

    Raises OSError from the constructor. Not thread-safe.
    """

    def __init__(self, folder: Path) -> None:
        with contextlib.ExitStack() as undo:
            self._fd = _open(folder / "reserve", undo)
            self._end_fd = _open(folder / "end", undo)
            _allocate(self._fd, RESERVE_BYTES)
            _allocate(self._end_fd, _END_BYTES)
            undo.pop_all()
        self._left_bytes = RESERVE_BYTES

    def close(self) -> None:
        """Close the files."""
        os.close(self._fd)
        os.close(self._end_fd)

    @property
    def is_whole(self) -> bool:
        """Whether none of it is in use."""
        return self._left_bytes == RESERVE_BYTES

    def release(self) -> bool:
        """Give a slice free. False when none is left."""
        if not self._left_bytes:
            return False
        try:
            os.ftruncate(self._fd, self._left_bytes - _SLICE_BYTES)
        except OSError:
            return False
        self._left_bytes -= _SLICE_BYTES
        with contextlib.suppress(OSError):
            os.fsync(self._fd)  # a mark that a power cut must not take back
        return True

    def has_room(self) -> bool:
        """Whether the disk has twice its size free: others need some, too."""
        disk = os.fstatvfs(self._fd)
        return disk.f_bavail * disk.f_frsize >= 2 * RESERVE_BYTES

    def restore(self) -> bool:
        """Take all of it again. False if the disk has no room."""
        try:
            _allocate(self._fd, RESERVE_BYTES)
        except OSError:
            return False
        self._left_bytes = RESERVE_BYTES
        return True

    def write_end(self, end: Any) -> None:
        """Write this over what is in its file. Raises OSError, ValueError if it is too long."""
        text = json.dumps(end).encode("utf-8") + b"\0"
        if len(text) > _END_BYTES:
            raise ValueError(f"{len(text)} bytes do not fit")
        if os.pwrite(self._end_fd, text, 0) < len(text):
            raise OSError("it was not written whole")
        os.fsync(self._end_fd)


def _open(path: Path, undo: contextlib.ExitStack) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    undo.callback(os.close, fd)
    return fd


def _allocate(fd: int, size_bytes: int) -> None:
    """Let a file have this size, and room for all of it. Raises OSError."""
    before = os.fstat(fd).st_size
    try:
        if not _is_allocated(fd, size_bytes):
            _write_random(fd, before, size_bytes)
    except OSError:
        os.ftruncate(fd, before)
        raise


def _is_allocated(fd: int, size_bytes: int) -> bool:
    """Allocate without writing. False where that cannot be: on macOS, and on some file systems."""
    allocate = getattr(os, "posix_fallocate", None)
    try:
        if allocate is not None:
            allocate(fd, 0, size_bytes)
    except OSError:
        return False
    return allocate is not None


def _write_random(fd: int, start: int, end: int) -> None:
    """Write what no file system compresses."""
    while start < end:
        start += os.pwrite(fd, os.urandom(end - start), start)


def bytes_left(folder: Path) -> int:
    """Return the size of what another process has left of its reserve."""
    try:
        return (folder / "reserve").lstat().st_size
    except OSError:
        return 0


def read_end(folder: Path) -> Any:
    """Return the end that another process has written; None if there is none."""
    try:
        fd = os.open(folder / "end", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(fd, "rb") as file:
        try:
            return json.loads(file.read(_END_BYTES).partition(b"\0")[0])
        except (OSError, ValueError):
            return None


def put_mark(folder: Path, mark: str) -> None:
    """Note an answer of the gateway in an empty file, as far as that is possible."""
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(folder / mark, flags, 0o600))


def find_mark(folder: Path) -> str | None:
    """Return the answer that was noted last."""
    return next((mark for mark in (TAKEN, SPENT) if os.path.lexists(folder / mark)), None)


def remove(folder: Path, *names: str) -> None:
    """Delete files of these names."""
    for name in names:
        with contextlib.suppress(OSError):
            os.unlink(folder / name)
