"""The packages that the running Python lacks: found in the user's cache folder, or put there.

A set of packages is a folder of its own, named after everything that decides whether it fits: what
pip is asked for, the interpreter, its version and its ABI. It gets its name by a rename when it is
complete, so a build that fails, is killed or runs twice never touches one that is in use. The lock
saves a second download; nothing relies on it.

Only what pip installed is used: its folder goes onto `sys.path` of this process, after the standard
library. No file of it is run as a program, and no `.pth` file in it is read.

Where there is no cache folder, as with a home that cannot be written, `.data` of the project takes
its place, if git says that nothing below it came with the project.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Final

from config import RunnerError
from places import (
    CACHE_VARIABLE,
    PROGRAM,
    CacheFolderError,
    cache_folder,
    find_project,
    make_private,
    tracked_by_git,
)

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


@dataclass(frozen=True)
class PackageSet:
    """What pip gets, the modules by which it is known to be there, and what a person calls it."""

    requirements: str
    modules: tuple[str, ...]
    title: str

    @property
    def file(self) -> Path:
        """The list for pip."""
        if find_project() == PROGRAM:  # a clone
            return PROGRAM / self.requirements
        return PROGRAM.parent / Path(self.requirements).name

    @property
    def missing(self) -> list[str]:
        """The modules that this Python does not find."""
        found = ((name, PathFinder.find_spec(name)) for name in self.modules)
        return [name for name, spec in found if spec is None or spec.origin is None]


RUNNER: Final = PackageSet(
    "wrapper/requirements.txt", ("requests", "dotenv"), "requests and python-dotenv"
)
# One module for each line of the list. It is used together with RUNNER, and repeats nothing of it.
GATEWAY: Final = PackageSet(
    "requirements-gateway.txt",
    (
        "apprise",
        "cheroot",
        "cryptography",
        "flask",
        "markdown_it",
        "pyte",
        "segno",
        "sqlalchemy",
        "werkzeug",
    ),
    "the gateway's packages",
)


def use_what_is_there(packages: PackageSet = RUNNER) -> bool:
    """Use the packages if they are on this machine; install nothing. Raises nothing."""
    if packages.missing:
        with contextlib.suppress(CacheFolderError, OSError):
            found = os.path.join(_packages_folder(), _key(packages))
            if os.path.isdir(found):
                _add_to_path(found)
    return not packages.missing


def provide(console: Console, packages: PackageSet = RUNNER) -> None:
    """Use the packages, and install them first if they are nowhere. Raises RunnerError."""
    if use_what_is_there(packages):
        return
    if not packages.file.is_file():
        raise RunnerError(
            f"{sys.executable} has no {' and no '.join(packages.missing)}; install "
            f"{packages.title} there with pip"
        )
    try:
        folder = _packages_folder()
    except CacheFolderError as error:
        raise RunnerError(
            f"{packages.title} are missing, and cannot be installed: {error}; set "
            f"{CACHE_VARIABLE} to a folder of your own"
        ) from error
    if sys.version_info < (3, 10) and "$" in folder:
        # Its installer takes $NAME in a path for a variable, and would write to where that leads.
        raise RunnerError(
            f"Python 3.9 cannot install packages in {folder}, because of the $; set "
            f"{CACHE_VARIABLE} to another folder, or use Python 3.10 or newer"
        )
    _add_to_path(_Build(packages, folder, console).run())
    if packages.missing:
        raise RunnerError(
            f"{packages.title} were installed, but Python does not find "
            f"{' and '.join(packages.missing)}; remove {folder}, and try again"
        )


def _packages_folder() -> str:
    """Return the folder that holds sets of packages. Raises CacheFolderError."""
    try:
        return make_private(os.path.join(cache_folder(os.environ), "packages"))
    except CacheFolderError:
        project = find_project()
        # Never in place of a folder that the user has named, or that belongs to another user.
        if (
            os.environ.get(CACHE_VARIABLE)
            or project is None
            or tracked_by_git(project / ".data") is not False
        ):
            raise
        make_private(str(project / ".data"))
        return make_private(str(project / ".data" / "packages"))


def _key(packages: PackageSet) -> str:
    """Return the name of the folder that fits: another list or Python makes another one."""
    facts = [
        packages.file.read_bytes(),
        os.fsencode(os.path.realpath(sys.executable)),
        sys.version.encode(),
        EXTENSION_SUFFIXES[0].encode(),
    ]
    digest = hashlib.sha256(b"\0".join(facts)).hexdigest()
    return f"{sys.implementation.cache_tag}-{digest[:20]}"


def _add_to_path(folder: str) -> None:
    """Put a set before Python's own packages, which it is complete without: they may be too old."""
    if folder not in sys.path:
        is_package_folder = [path.endswith(("site-packages", "dist-packages")) for path in sys.path]
        at = is_package_folder.index(True) if any(is_package_folder) else len(sys.path)
        sys.path.insert(at, folder)


class _Build:
    """One installation of a set into `folder`, which is the user's alone."""

    def __init__(self, packages: PackageSet, folder: str, console: Console) -> None:
        self._packages = packages
        self._folder = folder
        self._console = console
        self._key = _key(packages)
        self._log = os.path.join(folder, f"{self._key}.log")

    def run(self) -> str:
        """Return where the packages are now. Raises RunnerError."""
        complete = os.path.join(self._folder, self._key)
        try:
            with self._locked():
                if not os.path.isdir(complete):
                    self._console.note(
                        f"first run: installing {self._packages.title} into {self._folder} "
                        "(this happens once)"
                    )
                    self._install(complete)
        except OSError as error:
            raise RunnerError(
                f"{self._packages.title} could not be installed in {self._folder}: {error.strerror}"
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
            pip += ["--disable-pip-version-check", "-r", str(self._packages.file)]
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
                f"{self._packages.title} are missing, and {sys.executable} has no venv module to "
                "install them with: on Debian or Ubuntu, apt install python3-venv"
            )
        return f"{sys.executable} could not make a Python environment; see {self._log}"

    def _explain_pip(self) -> str:
        said = Path(self._log).read_text("utf-8", "replace").lower()
        if any(words in said for words in _NO_NETWORK):
            what = "no network: pip could not download"
        else:
            what = "pip could not install"
        return f"{what} {self._packages.title}; see {self._log}"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
