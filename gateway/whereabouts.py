"""The lock of a gateway's data, whose file says where the gateway is: for the runner's tools.

While a gateway holds the lock, the file names its process, its addresses and its files. If the lock
is free, no gateway runs with this data, whatever the file says. `tools/local_gateway.py` reads it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path
from typing import IO, Any, Final

from config import write_private
from places import pointer_to_gateway

# Somebody who looks whether the lock is free has it for a moment.
_PATIENCE_S: Final = 0.5
_INTERVAL_S: Final = 0.1


class TakenError(Exception):
    """Another gateway has this data; the message is its process."""


class Whereabouts:
    """The lock of one gateway, which has it until `with` is left. Raises: TakenError, OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Whereabouts:
        self._file: IO[str] = open(self._folder / "lock", "a+", encoding="utf-8")
        try:
            self._lock()
            self._write(f"{os.getpid()}\n")
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file.close()

    def _lock(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() >= deadline:
                    self._file.seek(0)
                    raise TakenError(self._file.readline().strip()) from None
            time.sleep(_INTERVAL_S)

    def _write(self, text: str) -> None:
        self._file.seek(0)
        self._file.truncate(0)
        self._file.write(text)
        self._file.flush()

    def tell(self, facts: dict[str, Any], *, is_shared: bool) -> None:
        """Say where the gateway is; `is_shared`: its secret is in a file that others may read.

        Such a gateway is the one that a runner of the same user, which has no secret, looks for.
        """
        self._write(f"{os.getpid()}\n{json.dumps(facts)}\n")
        pointer = pointer_to_gateway(os.environ)
        if is_shared and pointer is not None:
            with contextlib.suppress(OSError):  # a home that cannot be written
                pointer.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                partial = pointer.with_name(f"{pointer.name}.partial")
                write_private(partial, f"{self._folder}\n")
                partial.replace(pointer)
