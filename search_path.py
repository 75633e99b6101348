"""Where a program is that is called by its name alone."""

from __future__ import annotations

import errno
import os


def find_program(name: str, path: str | None) -> str | None:
    """Return the program's file, from the absolute folders of `path`; None if there is none.

    What a relative or an empty entry of PATH names depends on the current folder, and that is the
    project: a `git` that lies there must not be what the runner starts. A name with a slash is a
    path already.
    """
    if "/" in name:
        return name if _is_program(name) else None
    for folder in (os.defpath if path is None else path).split(os.pathsep):
        file = os.path.join(folder, name)
        if os.path.isabs(folder) and _is_program(file):
            return file
    return None


def program_to_start(name: str, path: str | None) -> str:
    """Return the file to start. Raises FileNotFoundError, as starting it would.

    A path is left as it is: it may be relative to another folder than the current one.
    """
    found = name if "/" in name else find_program(name, path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return found


def _is_program(file: str) -> bool:
    return os.path.isfile(file) and os.access(file, os.X_OK)
