"""A small disk that a test may fill."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest


class Disk:
    """A small file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave not one byte free."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (65_536, 1):
                try:
                    while file.write(b"x" * size) == size:
                        pass
                except OSError:
                    pass  # full

    def leave(self, free_bytes: int) -> None:
        """Free so much of what `fill` took."""
        os.truncate(self._filler, max(0, self._filler.stat().st_size - free_bytes))

    def make_room(self) -> None:
        """Free what `fill` took."""
        self._filler.unlink()

    def grow(self) -> None:
        """Let it be as large as anybody needs."""
        self.remount("size=256m")

    def remount(self, how: str) -> None:
        """Make it `ro` or `rw`, or change another option."""
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.folder)], check=True)


@contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[Disk]:
    """Mount one. Raises OSError where nobody may."""
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(argv, check=False, capture_output=True).returncode != 0:
        raise PermissionError("mounting a tmpfs is not permitted")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def mount_disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """Mount one; skips the test where nobody may."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(mounted(folder, megabytes))
        except OSError as error:
            pytest.skip(str(error))
        yield disk


@contextmanager
def nothing_is_written() -> Iterator[None]:
    """Let no file of this process be written, not even where it is long enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def forbid_writing(pid: int) -> Callable[[], object] | None:
    """Let another process write to no file; return what undoes that. None where that cannot be."""
    limit = getattr(resource, "prlimit", None)  # Linux
    if limit is None:
        return None
    soft, hard = limit(pid, resource.RLIMIT_FSIZE)
    limit(pid, resource.RLIMIT_FSIZE, (0, hard))
    return partial(limit, pid, resource.RLIMIT_FSIZE, (soft, hard))
