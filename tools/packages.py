"""The packages that the running Python lacks: found in the user's cache folder, or put there.

Each set of packages has its own folder, named after everything that decides whether it fits: what
pip is asked for, the interpreter, its version and its ABI. It is complete when it is there;
`tools.building` makes it.

Only what pip installed is used: its folder goes onto `sys.path` of this process, after the standard
library. No file of it is run as a program, and no `.pth` file in it is read.

Where there is no cache folder, as with a home that cannot be written, `.data` of the project takes
its place, if git says that nothing below it came with the project.
"""

from __future__ import annotations

import contextlib
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

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
    from runner.console import Console


class PackageSet(NamedTuple):
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
        "alembic",
        "apprise",
        "cheroot",
        "cryptography",
        "flask",
        "markdown_it",
        "prometheus_client",
        "pyte",
        "segno",
        "sqlalchemy",
        "werkzeug",
    ),
    "the gateway's packages",
)
# Besides both, for a gateway whose database is on PostgreSQL.
POSTGRESQL: Final = PackageSet(
    "requirements-postgresql.txt", ("psycopg",), "the driver for PostgreSQL"
)

# And for one whose files are in an object store.
FILES: Final = PackageSet("requirements-files.txt", ("obstore",), "the library for object stores")


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
    from tools.building import Build

    _add_to_path(Build(packages.file, packages.title, folder, _key(packages), console).run())
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
    import hashlib  # most Pythons have the packages

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
