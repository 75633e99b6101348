"""Where things are: the program's files, the project, the user's cache folder, other programs.

The program. There are three homes for one and the same tree of files. In a clone of the repository
the program and the project are one folder. `install` writes the program into a folder of somebody's
project: `wrapper/program/`, with the shims beside it. pip puts it among a Python's packages, into
`claude_runner_program/program/`, where it serves no project, and its files are those of the user.

The cache folder is the one place that code is loaded from besides the program and Python. Who can
write there decides what the next start executes. So it is the user's own and no other user may
write to it, or it is not used. It never lies in a project, where its files could have come with a
clone.

Imported first, before compiled files are kept: of the cheapest modules alone.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM: Final = Path(__file__).resolve().parent
CACHE_VARIABLE: Final = "CLAUDE_RUNNER_CACHE_DIR"


# The folders of the program. What else lies in a clone (the gateway, tests, …) stays there.
PACKAGES: Final = ("gateway_transport", "journal", "kinds", "redaction", "runner", "tools")

# What `install` needs besides the program. The shims find their program by where they lie: so pip's
# are in a folder from where they find none, and the program there is not taken for a project's.
COMPANIONS: Final = ("LICENSE", "claude-runner", "requirements.txt", "rev-runner")

_BUILDS_THE_PACKAGE: Final = "setup.py"


def find_project(program: Path = PROGRAM) -> Path | None:
    """Return the folder that has `.env` and `.data`; None for a program that pip installed."""
    if (program / "wrapper" / "claude-runner").is_file():
        return program
    if program.name == "program" and (program.parent / "claude-runner").is_file():
        return program.parent.parent
    return None


def typed_name(name: str, program: Path = PROGRAM) -> str:
    """Return what the user types to start `claude-runner` or `rev-runner`."""
    project = find_project(program)
    if project is None:
        return name
    return f"./wrapper/{name}" if project == program else f"./{program.parent.name}/{name}"


def companion(name: str, program: Path = PROGRAM) -> Path:
    """Return where one of COMPANIONS lies."""
    project = find_project(program)
    if project is None:
        return program.parent / "wrapper" / name
    if project == program:
        return program / name if name == "LICENSE" else program / "wrapper" / name
    return program.parent / name


def program_files(program: Path = PROGRAM) -> list[str]:
    """Return the program's files, sorted, by their paths relative to it."""
    modules = [path for path in program.glob("*.py") if path.name != _BUILDS_THE_PACKAGE]
    rooms = [path for name in PACKAGES for path in (program / name).rglob("*")]
    files = [path for path in rooms if path.suffix in (".py", ".txt")]
    return sorted(
        path.relative_to(program).as_posix()
        for path in (*modules, *files)
        if path.is_file() and all(map(_is_name, path.relative_to(program).with_suffix("").parts))
    )


def _is_name(part: str) -> bool:
    """Whether a file or folder of ours may have this name, without what a suffix adds."""
    return part.isascii() and part.isidentifier() and part.islower()


# --- the user's cache folder ----------------------------------------------------------------------


class CacheFolderError(Exception):
    """The folder must not be used, or cannot be; the message is a sentence that says why."""


def _cache_path(environ: Mapping[str, str]) -> str:
    """Return where the cache folder is or would be. Raises CacheFolderError."""
    own = environ.get(CACHE_VARIABLE, "")
    if own:
        if not os.path.isabs(own):
            raise CacheFolderError(f"{CACHE_VARIABLE} is {own!r}; write an absolute path")
        return own
    base = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # a relative one is to be ignored: XDG Base Directory
        base = os.path.expanduser("~/.cache")
    if not os.path.isabs(base):
        raise CacheFolderError("this user has no home folder")
    path, project = os.path.join(base, "claude-runner"), find_project()
    if project and f"{os.path.realpath(path)}/".startswith(f"{project}/"):
        raise CacheFolderError(f"{path} lies in the project")
    return path


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
    return make_private(_cache_path(environ))


def state_path(environ: Mapping[str, str]) -> str | None:
    """Return where what outlasts a run and belongs to no project is kept; None without a home."""
    base = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.local/state")
    return os.path.join(base, "claude-runner") if os.path.isabs(base) else None


def pointer_to_gateway(environ: Mapping[str, str]) -> Path | None:
    """Return the file that names the data of the gateway that this user started last."""
    state = state_path(environ)
    return None if state is None else Path(state, "gateway")


def keep_compiled_files() -> None:
    """Let Python keep compiled files in the cache folder, or nowhere: never in the project."""
    try:
        sys.pycache_prefix = os.path.join(cache_folder(os.environ), "pycache")
    except CacheFolderError:
        # What is beside Python's library may be read. In a project, somebody put it beside ours.
        folders = (os.path.join(PROGRAM, name, "__pycache__") for name in ("", *PACKAGES))
        is_planted = find_project() is not None and any(map(os.path.lexists, folders))
        sys.pycache_prefix = os.devnull if is_planted else None
    else:
        sys.dont_write_bytecode = False


# --- other programs -------------------------------------------------------------------------------


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


def is_in_repository(path: Path) -> bool:
    """Whether a file lies in a folder that git would take for its own, or below one."""
    return _find_repository(path.parent.resolve()) is not None


def _find_repository(folder: Path) -> Path | None:
    places = (folder, *folder.parents)
    return next((each for each in places if os.path.lexists(each / ".git")), None)


def tracked_by_git(path: Path) -> bool | None:
    """Whether git has a file, or anything below a folder; None where it cannot say.

    In any spelling: on some disks that is the same file.
    """
    git = find_program("git", os.environ.get("PATH"))
    folder = path.parent.resolve()
    top = _find_repository(folder)
    if git is None or top is None:
        return None
    import subprocess

    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # The project's own settings must not start a program. From the top: below it, git would take a
    # folder for a repository that has the files of a bare one, and those can come with a clone.
    name = os.path.relpath(folder / path.name, top)
    argv = [git, "-C", str(top), "-c", "core.fsmonitor=false", "-c", "safe.directory=*"]
    argv += ["-c", "safe.bareRepository=explicit"]
    try:
        listing = subprocess.run(
            [*argv, "ls-files", "-z", "--", f":(icase,literal){name}"],
            env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=20,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if listing.returncode else listing.stdout != b""


def _is_program(file: str) -> bool:
    return os.path.isfile(file) and os.access(file, os.X_OK)
