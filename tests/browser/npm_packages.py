"""What the page's tests need from the npm registry, installed once into .data/."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_FOLDER: Final = ROOT / ".data" / "browser-tests"
# Exact, as in requirements-dev.txt: a new release is taken by a commit.
XTERM: Final = "@xterm/xterm@6.0.0"
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


def put_xterm() -> None:
    """Put xterm.js where wrapper/claude-runner puts it, unless it is there already."""
    target = ROOT / ".data" / "gateway" / "vendor" / "xterm"
    package = install(XTERM)
    if target.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix="new."))
    for file in (package / "lib" / "xterm.js", package / "css" / "xterm.css"):
        shutil.copy2(file, partial)
    try:
        partial.rename(target)
    except OSError:
        shutil.rmtree(partial)  # another worker was faster
