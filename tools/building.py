"""The installation of packages that the running Python lacks, as `tools.packages` uses them.

A set gets its name by a rename when it is complete, so a build that fails, is killed or runs twice
never touches one that is in use. The lock saves a second download; nothing relies on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Final

from config import RunnerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.console import Console

# A build takes 10 s; on a slow line a few minutes.
_LOCK_TIMEOUT_S: Final = 300.0
_LOCK_INTERVAL_S: Final = 0.2
# What no process is still at work on.
_LEFT_FOR_S: Final = 86_400.0
_TELL_FOLDER: Final = "import sysconfig; print(end=sysconfig.get_path('purelib'))"
_NO_NETWORK: Final = (
    *("name resolution", "newconnectionerror", "unreachable", "connection refused", "timed out"),
    *("proxyerror", "not known", "nameresolutionerror"),
)


class Build:
    """One installation of a set into `folder`, which is the user's alone."""

    def __init__(
        self, requirements: Path, title: str, folder: str, key: str, console: Console
    ) -> None:
        self._requirements = requirements
        self._title = title
        self._folder = folder
        self._console = console
        self._key = key
        self._log = os.path.join(folder, f"{self._key}.log")

    def run(self) -> str:
        """Return where the packages are now. Raises RunnerError."""
        complete = os.path.join(self._folder, self._key)
        try:
            with self._locked():
                if not os.path.isdir(complete):
                    self._console.note(
                        f"first run: installing {self._title} into {self._folder} "
                        "(this happens once)"
                    )
                    self._install(complete)
        except OSError as error:
            raise RunnerError(
                f"{self._title} could not be installed in {self._folder}: {error.strerror}"
            ) from error
        return complete

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one build run at a time; the ones that waited find its result."""
        path = os.path.join(self._folder, f"{self._key}.lock")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        is_told = False
        try:
            while time.monotonic() < deadline:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not is_told:
                        self._console.note("another first run is installing them; waiting for it")
                    is_told = True
                    time.sleep(_LOCK_INTERVAL_S)
                except OSError:
                    break  # a file system without locks: two may build, and both will be right
            yield
        finally:
            os.close(fd)

    def _install(self, complete: str) -> None:
        self._remove_leftovers()
        draft = tempfile.mkdtemp(prefix=f"{self._key}.new-", dir=self._folder)
        try:
            environment = os.path.join(draft, "environment")
            python = os.path.join(environment, "bin", "python")
            # -I: neither PYTHONPATH nor the current folder lends a module.
            if self._call([sys.executable, "-I", "-m", "venv", environment]):
                raise RunnerError(self._explain_venv())
            pip = [python, "-I", "-m", "pip", "install", "--quiet", "--no-input"]
            pip += ["--disable-pip-version-check", "-r", str(self._requirements)]
            if self._call(pip):
                raise RunnerError(self._explain_pip())
            where = subprocess.run(
                [python, "-I", "-c", _TELL_FOLDER],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
            ).stdout
            packages = os.fsdecode(where)
            for name in os.listdir(packages):  # it has done its work, and is three quarters of it
                if name == "pip" or name.startswith("pip-"):
                    shutil.rmtree(os.path.join(packages, name), ignore_errors=True)
            with contextlib.suppress(FileExistsError, IsADirectoryError):
                os.rename(packages, complete)
            with contextlib.suppress(OSError):
                os.unlink(self._log)
        except subprocess.CalledProcessError as error:
            raise RunnerError(f"the new Python environment does not run: {error}") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _call(self, argv: list[str]) -> int:
        """Run one step of the installation, and show a person that it goes on."""
        # pip honours the user's settings, but for user = true, which it refuses in an environment.
        # Python's are left out: `venv` starts one that is not isolated.
        kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
        env = {**kept, "PIP_USER": "0"}
        began = time.monotonic()
        with open(self._log, "ab", opener=_private) as log:
            process = subprocess.Popen(
                argv, env=env, umask=0o077, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            try:
                while True:
                    try:
                        return process.wait(1)
                    except subprocess.TimeoutExpired:
                        seconds = time.monotonic() - began
                        self._console.progress(f"installing, {seconds:.0f} s")
            finally:
                self._console.progress("")
                if process.returncode is None:
                    process.kill()
                    process.wait()

    def _remove_leftovers(self) -> None:
        """Remove what killed builds left: those of this set, and the old ones of all."""
        for entry in os.scandir(self._folder):
            is_left = ".new-" in entry.name and (
                entry.name.startswith(self._key)
                or time.time() - entry.stat(follow_symlinks=False).st_mtime > _LEFT_FOR_S
            )
            if is_left:
                shutil.rmtree(entry.path, ignore_errors=True)

    def _explain_venv(self) -> str:
        if PathFinder.find_spec("venv") is None or PathFinder.find_spec("ensurepip") is None:
            return (
                f"{self._title} are missing, and {sys.executable} has no venv module to "
                "install them with: on Debian or Ubuntu, apt install python3-venv"
            )
        return f"{sys.executable} could not make a Python environment; see {self._log}"

    def _explain_pip(self) -> str:
        said = Path(self._log).read_text("utf-8", "replace").lower()
        if any(words in said for words in _NO_NETWORK):
            what = "no network: pip could not download"
        else:
            what = "pip could not install"
        return f"{what} {self._title}; see {self._log}"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
