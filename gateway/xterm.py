"""xterm.js for the page: from the npm registry, once, into the user's cache folder.

Whatever goes wrong here is no reason not to start: the page then shows plain text.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Callable, Final

from places import CacheFolderError, cache_folder, find_program

VERSION: Final = "6.0.0"
PACKAGE: Final = f"@xterm/xterm@{VERSION}"
FILES: Final = ("lib/xterm.js", "css/xterm.css")
# npm itself gives up on a network that answers nothing after 30 s.
_TIMEOUT_S: Final = 120.0


def folder() -> Path:
    """Return where the two files are, or would be."""
    try:
        return Path(cache_folder(os.environ), f"xterm-{VERSION}")
    except CacheFolderError:
        return Path(os.devnull, "xterm")


def fetch(tell: Callable[[str], None]) -> None:
    """Put the files there, unless they are there. Raises nothing."""
    target = folder()
    if target.is_dir():
        return
    without = "the gateway draws the screen of a session itself"
    npm = find_program("npm", os.environ.get("PATH"))
    if npm is None:
        tell(f"npm is not there: {without}")
        return
    tell("first run: getting xterm.js for the page (this happens once)")
    try:
        _install(npm, Path(cache_folder(os.environ)), target)
    except (CacheFolderError, OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or b""
        reason = said.decode("utf-8", "replace").strip().splitlines()
        tell(f"xterm.js could not be had, so {without}: {reason[-1] if reason else error}")


def _install(npm: str, cache: Path, target: Path) -> None:
    """Fetch into a folder of its own, which gets its name when it is complete."""
    with tempfile.TemporaryDirectory(prefix="xterm.new-", dir=cache) as draft:
        # No script of a package is run, and a network that is not there is noticed at once.
        subprocess.run(
            [
                *(npm, "install", "--prefix", draft, "--ignore-scripts", "--no-audit", "--no-fund"),
                *("--no-save", "--fetch-retries=0", "--fetch-timeout=30000", PACKAGE),
            ],
            cwd=draft,  # npm reads the settings of the project that it is started in
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
            timeout=_TIMEOUT_S,
        )
        complete = Path(draft, "complete")
        complete.mkdir()
        for name in FILES:
            shutil.move(Path(draft, "node_modules", "@xterm", "xterm", name), complete)
        with contextlib.suppress(FileExistsError, OSError if target.is_dir() else FileExistsError):
            complete.rename(target)
