"""The user's cache folder: the one place that code is loaded from besides the program and Python.

Whoever can write there decides what the next start executes. So it is the user's own and nobody
else may write to it, or it is not used. Nothing below a project is asked for at this place: what
lies there may have come with a clone.

Imported first, before compiled files are kept: small, and of the cheapest modules alone.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE: Final = "CLAUDE_RUNNER_CACHE_DIR"


class CacheFolderError(Exception):
    """The folder must not be used, or cannot be; the message is a sentence that says why."""


def cache_path(environ: Mapping[str, str]) -> str:
    """Return where the cache folder is or would be. Raises CacheFolderError."""
    own = environ.get(VARIABLE, "")
    if own:
        if not os.path.isabs(own):
            raise CacheFolderError(f"{VARIABLE} is {own!r}; write an absolute path")
        return own
    base = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # a relative one is to be ignored: XDG Base Directory
        base = os.path.expanduser("~/.cache")
    if not os.path.isabs(base):
        raise CacheFolderError("this user has no home folder")
    return os.path.join(base, "claude-runner")


def make_private(path: str) -> str:
    """Make a folder, or see that it is the user's alone. Raises CacheFolderError."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        status = os.stat(path)
    except OSError as error:
        raise CacheFolderError(f"{path} cannot be made ({error.strerror})") from error
    if not stat.S_ISDIR(status.st_mode):
        raise CacheFolderError(f"{path} is not a folder")
    if status.st_uid != os.geteuid():
        raise CacheFolderError(f"{path} belongs to another user")
    if status.st_mode & 0o022:
        raise CacheFolderError(f"{path} can be written by other users; chmod go-w it")
    if not os.access(path, os.W_OK | os.X_OK):
        raise CacheFolderError(f"{path} cannot be written")
    return path


def cache_folder(environ: Mapping[str, str]) -> str:
    """Return the cache folder, made and looked at. Raises CacheFolderError."""
    return make_private(cache_path(environ))


def keep_compiled_files() -> None:
    """Let Python keep compiled files in the cache folder, or nowhere: never in the project."""
    sys.dont_write_bytecode = True
    try:
        sys.pycache_prefix = os.path.join(cache_folder(os.environ), "pycache")
    except CacheFolderError:
        return  # what is beside Python's own library is still read
    sys.dont_write_bytecode = False
