"""What the page's tests need from the npm registry, installed once into .data/."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from gateway import xterm

ROOT: Final = Path(__file__).resolve().parents[2]
_FOLDER: Final = ROOT / ".data" / "browser-tests"
# Exact, as in requirements-dev.txt: a new release is taken by a commit.
AXE: Final = "axe-core@4.14.1"
_INSTALL_TIMEOUT_S: Final = 120.0


def install(package: str) -> Path:
    """Return the package's folder, fetched if it is not there yet. A failure is none of a skip."""
    name, _, version = package.rpartition("@")
    folder = _FOLDER / f"{name.replace('/', '-')}-{version}"
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with (_FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "node_modules" / name).is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            subprocess.run(
                ["npm", "install", "--prefix", folder, "--ignore-scripts", "--no-audit", package],
                check=True,
                capture_output=True,
                timeout=_INSTALL_TIMEOUT_S,
            )
    return folder / "node_modules" / name


def xterm_environment() -> dict[str, str]:
    """Put xterm.js into a cache folder, unless it is there; return the setting that names it."""
    cache = _FOLDER / "cache"
    target = cache / f"xterm-{xterm.VERSION}"
    package = install(xterm.PACKAGE)
    cache.mkdir(mode=0o700, exist_ok=True)
    if not target.is_dir():
        partial = Path(tempfile.mkdtemp(dir=cache, prefix="new."))
        for file in xterm.FILES:
            shutil.copy2(package / file, partial)
        try:
            partial.rename(target)
        except OSError:
            shutil.rmtree(partial)  # another worker was faster
    return {"CLAUDE_RUNNER_CACHE_DIR": str(cache)}
