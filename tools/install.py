"""Write the runner into one folder of a project, bring it up to date, and take it out again.

    wrapper/  claude-runner  rev-runner  program/  requirements.txt
              LICENSE  README  INSTALLED  .gitattributes

`INSTALLED` has the sum of each file that was written, as `sha256sum` writes it. A file with another
sum is the user's: it is neither replaced nor removed. `program/` is replaced as a whole, by two
renames; the shim repairs a start between the two. The sums that are to come are written to
`INSTALLED.new` before the first change, and become `INSTALLED` after the last one, so that what was
broken off can be repeated or taken back.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from config import DRAFT_SUFFIX, VERSION, RunnerError, load_config, write_whole
from places import COMPANIONS, companion, program_files
from runner.console import print_out
from runner.folder import find_undelivered
from tools.hosts import IGNORE_FILES, add_ignores, ask_git, find_hints, remove_ignores
from tools.project_env import format_settings, is_written_by_install

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from config import Setting

_DEFAULT_FOLDER: Final = "wrapper"
_NOTE: Final = "INSTALLED"
_COMING: Final = "INSTALLED.new"
_PROGRAM: Final = "program"
_SHIM: Final = "claude-runner"
_GENERATED: Final = {
    "README": f"""\
This folder is claude-runner {VERSION}, which connects Claude Code to a gateway; its licence is MIT.
`claude-runner install`, typed in a clone of its repository or as a package, wrote it.
Do not edit it: `sha256sum -c INSTALLED`, typed here, shows what was changed.
With --upgrade, `install` brings a newer version; with --uninstall, it removes this one.
The settings are in .env beside this folder, and the data of its runs is in .data.
""",
    # An upgrade collapses in a diff, and git for Windows does not change the ends of lines.
    ".gitattributes": """\
* text=auto eol=lf
*-runner text eol=lf
program/** linguist-generated linguist-vendored
""",
}
_NOTE_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *](\S+)")
_PROGRAM_FILE: Final = re.compile(r"program/(?:[a-z_][a-z0-9_]*/)*[a-z_][a-z0-9_]*\.(?:py|txt)")

# What earlier versions wrote into the root of a project, and into `wrapper/`. Their `INSTALLED` was
# in `wrapper/` too, and named files by their paths in the project.
_FLAT_MODULES: Final = """
    allowlist artifact_upload assist assist_tmate child_end child_events child_terminals
    claude_profile claude_runner claude_state claude_stream command_executor command_line delivery
    gateway_check gateway_client gateway_launch gateway_pacer gateway_transport keeper
    local_terminal process_tree project_install pty_pump redact redact_headers redact_json
    redact_judges redact_keys redact_known redact_layouts redact_names redact_shapes redact_tokens
    redact_values redact_view remote_control rev_runner run_files run_folder run_plan runner_config
    runner_doctor runner_mailbox runner_session session_terminal shell_completion spool spool_events
    spool_store spool_syncer sync_runs
"""
_FLAT_FILES: Final = frozenset(
    {
        *(f"{name}.py" for name in _FLAT_MODULES.split()),
        *(f"wrapper/{name}" for name in ("FILES", *COMPANIONS) if name != "LICENSE"),
        ".env.example",
    }
)


@dataclass
class Changes:
    """What was done in the project, by path relative to it."""

    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    # Files of the user: changed since they were installed, or theirs from the beginning.
    kept: list[str] = field(default_factory=list)
    # What else the user should know, a sentence each.
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _File:
    content: bytes
    mode: int

    @property
    def digest(self) -> str:
        return _digest(self.content)


class Target:
    """A project to install the runner in. Raises RunnerError for a folder of no use."""

    def __init__(self, path: Path, folder: str | None = None) -> None:
        try:
            is_folder = path.is_dir()
        except OSError as error:
            raise RunnerError(f"{path} cannot be used: {error.strerror}") from error
        if not is_folder:
            is_there = os.path.lexists(path)
            reason = f"{path} is not a folder" if is_there else f"{path} does not exist"
            raise RunnerError(f"{reason}; name the folder of a project")
        self.path = path.resolve()
        self.folder = self._choose_folder(folder)
        self.note_path = self.path / self.folder / _NOTE
        self.noted = self._read_note(_NOTE)
        # Both are ours: a change that was broken off has left some files of each.
        self.known = {name: {digest} for name, digest in self.noted.items()}
        for name, digest in self._read_note(_COMING).items():
            self.known.setdefault(name, set()).add(digest)

    @property
    def is_installed(self) -> bool:
        """Whether `install` has written here before, or has begun to."""
        return bool(self.known)

    def _choose_folder(self, wanted: str | None) -> str:
        if wanted is not None and not re.fullmatch(r"\.?[A-Za-z0-9_][A-Za-z0-9._-]*", wanted):
            raise RunnerError(
                f"--folder is {wanted!r}; write one name of letters, digits, dots, dashes and _"
            )
        if wanted and wanted.lower() in (".env", ".data", ".git", *IGNORE_FILES):
            raise RunnerError(f"--folder is {wanted!r}, which has another use; choose another name")
        found = [
            path.parent.name
            for path in self.path.glob(f"*/{_NOTE}")
            if (path.parent / _SHIM).is_file() and not path.parent.is_symlink()
        ]
        if len(found) == 1 and wanted not in (None, found[0]):
            raise RunnerError(
                f"claude-runner is in {self.path / found[0]} already; leave --folder out, or "
                "use --uninstall first"
            )
        return wanted or (found[0] if len(found) == 1 else _DEFAULT_FOLDER)

    def _read_note(self, name: str) -> dict[str, str]:
        """Return the sums of the files that a note names, by path relative to the project."""
        path = self.path / self.folder / name
        if not os.path.lexists(path):
            return {}
        self.check_folders([f"{self.folder}/{name}"])
        try:
            if path.is_symlink() or not path.is_file():
                raise RunnerError(f"{path} is not a file; move it away")
            text = path.read_text("utf-8")
        except (OSError, ValueError) as error:
            raise RunnerError(f"{path} cannot be read: {error}") from error
        sums: dict[str, str] = {}
        for line in text.splitlines():
            match = _NOTE_LINE.fullmatch(line)
            where = self._locate(match.group(2)) if match else None
            if match is None or where is None:
                raise RunnerError(
                    f"{path} has a line that `install` did not write: {line!r}; remove the line"
                )
            sums[where] = match.group(1)
        return sums

    def _locate(self, name: str) -> str | None:
        """Return the path in the project of what a note names; None if no version wrote that."""
        if name in COMPANIONS or name in _GENERATED or _PROGRAM_FILE.fullmatch(name):
            return f"{self.folder}/{name}"
        return name if name in _FLAT_FILES and self.folder == _DEFAULT_FOLDER else None

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if there is nothing, or something else than a file."""
        path = self.path / name
        is_file = path.is_file() and not path.is_symlink()
        return path.read_bytes() if is_file else None

    def digest(self, name: str) -> str:
        """Return the checksum of a file; "" if the path is not a file."""
        content = self.read(name)
        return "" if content is None else _digest(content)

    def is_ours(self, name: str) -> bool:
        """Whether a file is as it was installed."""
        return self.digest(name) in self.known.get(name, ())

    def has(self, name: str, file: _File) -> bool:
        """Whether a file is as it should be, and a program can be started."""
        is_program = bool(file.mode & 0o100)
        return self.read(name) == file.content and (
            not is_program or os.access(self.path / name, os.X_OK)
        )

    def is_in_program(self, name: str) -> bool:
        """Whether a file is one of the program, which is replaced as a whole."""
        return name.startswith(f"{self.folder}/{_PROGRAM}/")

    def find_program(self) -> set[str]:
        """Return all that is in the program's folder, but for what Python compiled."""
        found: set[str] = set()
        for folder, folders, files in os.walk(self.path / self.folder / _PROGRAM):
            folders[:] = [name for name in folders if name != "__pycache__"]
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            found.update(
                Path(folder, name).relative_to(self.path).as_posix() for name in (*files, *links)
            )
        return found

    def check_folders(self, names: Iterable[str]) -> None:
        """Raise RunnerError unless these files can be written without following a link."""
        folders = {parent for name in names for parent in PurePosixPath(name).parents}
        for folder in (self.path / each for each in sorted(folders)):
            if folder.is_symlink() or (os.path.lexists(folder) and not folder.is_dir()):
                what = "a link" if folder.is_symlink() else "not a folder"
                raise RunnerError(f"{folder} is {what}; move it away; nothing was changed")
            if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
                raise RunnerError(f"{folder} cannot be written; nothing was changed")


def install(program: Path, target: Target, *, upgrade: bool = False) -> Changes:
    """Write the files of `program`. Raises RunnerError; only a full disk leaves a change."""
    new = {f"{target.folder}/{name}": file for name, file in _read_source(program).items()}
    note = {name: file.digest for name, file in new.items()}
    home = program.parent if program.name == _PROGRAM else program
    if home in (target.path, target.path / target.folder, *target.path.parents):
        raise RunnerError(f"{target.path} has this copy of the runner; name another project")
    if upgrade and not target.is_installed:
        raise RunnerError(f"{target.note_path} is not there; install without --upgrade")
    target.check_folders({**new, **target.known})
    _refuse_if_in_the_way(target, theirs := _find_theirs(target, note))
    if target.noted and target.noted != note and not upgrade:
        raise RunnerError(
            f"another version is installed in {target.path / target.folder}; use --upgrade to "
            "replace it; nothing was changed"
        )
    changes = Changes(kept=theirs)
    with _telling_what_to_do(target):
        _write_all(target, new, note, changes)
        changes.notes += add_ignores(target.path)
    changes.notes += ask_git(target.path, target.folder, sorted(note))
    changes.notes += find_hints(target.path, target.folder)
    return changes


def _read_source(program: Path) -> dict[str, _File]:
    """Return what is written into the folder, by path relative to it."""
    where = {f"{_PROGRAM}/{name}": program / name for name in program_files(program)}
    where.update({name: companion(name, program) for name in COMPANIONS})
    try:
        # A package installer keeps no modes.
        copied = {
            name: _File(path.read_bytes(), 0o755 if name.endswith("-runner") else 0o644)
            for name, path in where.items()
        }
    except OSError as error:
        raise RunnerError(
            f"{error.filename} cannot be read ({error.strerror}), so this copy cannot be copied; "
            "use a clone of the repository"
        ) from error
    return {**copied, **{name: _File(t.encode(), 0o644) for name, t in _GENERATED.items()}}


def _find_theirs(target: Target, note: Mapping[str, str]) -> list[str]:
    """Return the paths, where our files go or in `program/`, that no known version installed."""
    names = {*note, *target.known, *target.find_program()}
    there = (name for name in sorted(names) if os.path.lexists(target.path / name))
    return [
        name
        for name in there
        if target.digest(name) not in (note.get(name), *target.known.get(name, ()))
    ]


def _refuse_if_in_the_way(target: Target, theirs: Sequence[str]) -> None:
    if theirs and not target.is_installed:
        raise RunnerError(
            f"{target.path} has files of its own where the runner's would go: {', '.join(theirs)}; "
            "move them away, or choose another folder with `install --folder`; nothing was changed"
        )
    inside = [name for name in theirs if target.is_in_program(name)]
    if inside:
        raise RunnerError(
            f"these files were changed, or `install` did not write them: {', '.join(inside)}; "
            "move them away and repeat; nothing was changed"
        )


def _write_all(
    target: Target, new: Mapping[str, _File], note: Mapping[str, str], changes: Changes
) -> None:
    """Write missing files, and remove files that this version no longer has."""
    home = target.path / target.folder
    inside = {name for name in new if target.is_in_program(name)}
    ours = [name for name in new if name not in changes.kept]
    changes.written = [name for name in ours if not target.has(name, new[name])]
    changes.removed = [
        name
        for name in target.known
        if name not in new and target.is_ours(name) and not target.is_in_program(name)
    ]
    is_program_whole = target.find_program() == inside and not inside & {*changes.written}
    if changes.written or changes.removed or not is_program_whole or target.noted != note:
        home.mkdir(exist_ok=True)
        write_whole(home / _COMING, _format_note(target, note), 0o644)
        if not is_program_whole:
            start = len(f"{target.folder}/{_PROGRAM}/")
            _swap_program(home, {name[start:]: new[name] for name in inside})
        for name in changes.written:
            if name not in inside:
                write_whole(target.path / name, new[name].content, new[name].mode)
        for name in changes.removed:
            (target.path / name).unlink()
        (home / _COMING).replace(home / _NOTE)
    _remove_leftovers(target)


def _format_note(target: Target, note: Mapping[str, str]) -> bytes:
    start = len(target.folder) + 1
    return "".join(f"{note[name]}  {name[start:]}\n" for name in sorted(note)).encode()


def _swap_program(home: Path, files: Mapping[str, _File]) -> None:
    """Replace the program. Whenever there is none, there is a whole one called `program.old`."""
    program, new, old = home / _PROGRAM, home / f"{_PROGRAM}.new", home / f"{_PROGRAM}.old"
    if not program.exists() and old.exists():
        old.rename(program)
    _remove(new)
    for name, file in files.items():
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(new / name, file.content, file.mode)
    if program.exists():
        _remove(old)
        program.rename(old)
    new.rename(program)
    _remove(old)


def _remove_leftovers(target: Target) -> None:
    """Remove what a change that was broken off has left behind."""
    home = target.path / target.folder
    drafts = [f"{name}{DRAFT_SUFFIX}" for name in (*COMPANIONS, *_GENERATED, _COMING)]
    for name in (*drafts, _COMING, f"{_PROGRAM}.new", f"{_PROGRAM}.old"):
        _remove(home / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def _digest(content: bytes) -> str:
    # git may have changed the ends of lines; ours have no CR.
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


@contextlib.contextmanager
def _telling_what_to_do(target: Target) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = error.filename or target.path
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise RunnerError(
            f"{what} could not be changed ({reason}); no file is half-written: correct that, and "
            "repeat"
        ) from error


# --- going ---------------------------------------------------------------------------------------


def uninstall(target: Target, settings: Sequence[Setting], *, purge: bool = False) -> Changes:
    """Remove the installed files that are unchanged; with `purge` also `.env` and `.data`.

    Raises RunnerError, with nothing changed, if nothing was installed or a run is not delivered.
    """
    if not target.is_installed:
        raise RunnerError(f"{target.note_path} is not there, so `install` wrote nothing there")
    _refuse_if_undelivered(target, elsewhere := _find_data_elsewhere(target))
    target.check_folders(target.known)
    changes = Changes(notes=[f"{path}, with the data of runs, stays" for path in elsewhere])
    with _telling_what_to_do(target):
        for name in sorted(target.known):
            if target.is_ours(name):
                (target.path / name).unlink()
                changes.removed.append(name)
        _remove_settings_and_data(target, settings, changes, purge=purge)
        _remove_leftovers(target)
        _remove_empty_folders(target.path / target.folder / _PROGRAM)
        target.note_path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it has files of the user's
            target.note_path.parent.rmdir()
    home = target.path / target.folder
    beside = {f"{target.folder}/{path.name}" for path in home.glob("*") if path.name != _PROGRAM}
    names = {*target.known, *target.find_program(), *beside}
    changes.kept += sorted(name for name in names if os.path.lexists(target.path / name))
    return changes


def _find_data_elsewhere(target: Target) -> list[Path]:
    """Return the folder of the runs if `.env` names another one than `.data`."""
    try:
        named = load_config(target.path, {}, env_file=target.path / ".env").dotenv
        path = target.path / Path(named.get("CLAUDE_RUNNER_DATA_DIR", "")).expanduser()
    except (RunnerError, RuntimeError):
        return []  # there is none, or it cannot be used
    return [path] if path not in (target.path, target.path / ".data") and path.is_dir() else []


def _refuse_if_undelivered(target: Target, elsewhere: Sequence[Path]) -> None:
    folders = (target.path / ".data", *elsewhere)
    runs = [run.run_id for folder in folders for run in find_undelivered(folder)]
    if runs:
        sync = f"{target.path / target.folder / _SHIM} sync"
        raise RunnerError(
            f"the gateway does not have everything of {', '.join(runs)} yet; `{sync}` sends it, "
            f"and `{sync} --discard ID` deletes it; nothing was changed"
        )


def _remove_empty_folders(root: Path) -> None:
    for folder, _, _ in os.walk(root, topdown=False):
        if os.path.basename(folder) == "__pycache__":
            shutil.rmtree(folder)
        else:
            with contextlib.suppress(OSError):  # it has files of the user's
                os.rmdir(folder)


def _remove_settings_and_data(
    target: Target, settings: Sequence[Setting], changes: Changes, *, purge: bool
) -> None:
    env, data = target.path / ".env", target.path / ".data"
    content = target.read(".env") or b""
    if purge or content == format_settings(settings, {}).encode():
        changes.removed += [".env"] * os.path.lexists(env)
        _remove(env)
    if purge:
        changes.removed += [".data"] * os.path.lexists(data)
        _remove(data)
    changes.kept += [path.name for path in (env, data) if os.path.lexists(path)]
    # As long as there is a secret, or output, it has to stay out of what leaves the project.
    if data.exists() or (env.exists() and is_written_by_install(content)):
        changes.notes.append("the lines in ignore files stay, because .env or .data does")
    else:
        changes.notes += remove_ignores(target.path)


# --- what the user is asked and told -------------------------------------------------------------


def tell_installed(changes: Changes, target: Target) -> None:
    """Print what `install` has done."""
    home, count = target.path / target.folder, len(changes.written)
    print_out(
        f"claude-runner {VERSION}: {count} file{'s' * (count != 1)} written in {home}"
        if count or changes.removed
        else f"claude-runner {VERSION} is in {home} already"
    )
    if changes.removed:
        print_out(f"removed, because this version does not use them: {', '.join(changes.removed)}")
    if changes.kept:
        print_out(
            f"kept, because they were changed: {', '.join(changes.kept)}; to get this version's, "
            "move them away and repeat"
        )
    for sentence in changes.notes:
        print_out(sentence)


def tell_uninstalled(changes: Changes, target: Target) -> None:
    """Print what `uninstall` has done."""
    count = len(changes.removed)
    print_out(f"removed {count} file{'s' * (count != 1)} from {target.path}")
    if changes.kept:
        print_out(f"kept, because they are yours: {', '.join(changes.kept)}")
    for sentence in changes.notes:
        print_out(sentence)
    print_out("the cache folder of claude-runner stays, because all projects share its packages")
