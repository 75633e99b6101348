"""Copy the runner's files into another project, bring them up to date, and take them out again.

`wrapper/FILES` is the one list of what is copied. `wrapper/INSTALLED` notes in the target what was
written there, as `sha256sum` writes it; a file whose content it does not know is the user's own and
is neither replaced nor removed. Nothing is written before everything has been looked at. Each file
is replaced at once or not at all, and the note is there before the first of them, so that what was
broken off can be repeated or taken back.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import getpass
import hashlib
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from config import SETTINGS, VERSION, RunnerError, is_in_project, load_config
from tools.options import print_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runner.terminal import Console

LIST_NAME: Final = "wrapper/FILES"
NOTE_NAME: Final = "wrapper/INSTALLED"
# The one file that a project's own of the same name does not stop: nothing reads it.
EXAMPLE_NAME: Final = ".env.example"
# What holds secrets and output must not be committed by accident.
IGNORED: Final = (".env", ".data/")

_NOTE_LINE: Final = re.compile(r"([0-9a-f]{64})  ([^/\s][^\s]*)")
_DRAFT_SUFFIX: Final = ".claude-runner-new"


@dataclass
class Changes:
    """What was done in the target, by path relative to it."""

    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    # Of the user: changed since they were installed, or of the same name all along.
    kept: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    is_ignore_file_a_link: bool = False


class Target:
    """A folder that the runner's files are copied into. Raises RunnerError for one of no use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            is_folder = path.is_dir()
        except OSError as error:
            raise RunnerError(f"{path} cannot be used: {error.strerror}") from error
        if not is_folder:
            is_there = os.path.lexists(path)
            reason = f"{path} is not a folder" if is_there else f"there is no folder {path}"
            raise RunnerError(f"{reason}; name the folder of a project")
        self.path = path.resolve()
        self.known = self._read_note()

    @property
    def is_installed(self) -> bool:
        """Whether `install` has written here before."""
        return bool(self.known)

    def digest(self, name: str) -> str | None:
        """Return the SHA-256 of a file; None if there is nothing, "" for what is no plain file."""
        path = self.path / name
        if not os.path.lexists(path):
            return None
        if path.is_symlink() or not path.is_file():
            return ""
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def is_ours(self, name: str) -> bool:
        """Whether a file is there as it was installed."""
        return self.digest(name) in self.known.get(name, frozenset())

    def check_folders(self, names: Sequence[str]) -> None:
        """Raise RunnerError unless files of these names can be written without following a link."""
        for folder in sorted({(self.path / name).parent for name in names}):
            if folder.is_symlink() or (os.path.lexists(folder) and not folder.is_dir()):
                raise RunnerError(f"{folder} is not a folder; move it away")
            if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
                raise RunnerError(f"{folder} cannot be written; nothing was changed")

    def write(self, name: str, content: bytes, mode: int) -> None:
        """Write a file so that it is there whole, or as it was before."""
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        self.remove_draft(name)
        draft = path.with_name(path.name + _DRAFT_SUFFIX)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(content)
                os.fchmod(fd, mode)
            draft.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise

    def remove_draft(self, name: str) -> None:
        """Remove what a `write` that was killed has left behind."""
        draft = self.path / f"{name}{_DRAFT_SUFFIX}"
        if os.path.lexists(draft):
            draft.unlink()

    def note(self, known: Mapping[str, frozenset[str]]) -> None:
        """Note which content of which file is ours; what has two may be either."""
        if known == self.known:
            return
        lines = [f"{digest}  {name}\n" for name in sorted(known) for digest in sorted(known[name])]
        self.write(NOTE_NAME, "".join(lines).encode(), 0o644)
        self.known = dict(known)

    def _read_note(self) -> dict[str, frozenset[str]]:
        path = self.path / NOTE_NAME
        try:
            lines = path.read_text("utf-8").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:
            raise RunnerError(f"{path} cannot be read: {error}") from error
        known: dict[str, frozenset[str]] = {}
        for line in lines:
            match = _NOTE_LINE.fullmatch(line)
            if match is None or ".." in Path(match.group(2)).parts:
                raise RunnerError(
                    f"{path} was changed and cannot be read; remove it, and what it names by hand"
                )
            known[match.group(2)] = known.get(match.group(2), frozenset()) | {match.group(1)}
        return known


@dataclass(frozen=True)
class _NewFile:
    content: bytes
    mode: int

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def install(source: Path, target: Target, *, upgrade: bool = False) -> Changes:
    """Copy the files of `source`. Raises RunnerError, with nothing changed but for a full disk.

    Without `upgrade` a file that differs from ours stops it; with it, one that is as it was
    installed is replaced, and one that the user has changed is kept, and named in what is returned.
    """
    new = _read_source(source)
    if target.path == source or source in target.path.parents:
        raise RunnerError(f"{target.path} lies in this copy of the runner; name another folder")
    if upgrade and not target.is_installed:
        raise RunnerError(f"{target.path} has no {NOTE_NAME}; install without --upgrade")
    target.check_folders([*new, NOTE_NAME])
    found = {name: target.digest(name) for name in new}
    theirs = [name for name, digest in found.items() if digest not in (None, new[name].digest)]
    foreign = [name for name in theirs if name not in target.known and name != EXAMPLE_NAME]
    if foreign:
        raise RunnerError(
            f"{target.path} has files of its own where the runner's would go: {', '.join(foreign)};"
            " move them away, or use another folder; nothing was changed"
        )
    older = [name for name in theirs if name in target.known]
    if older and not upgrade:
        raise RunnerError(
            f"another version is installed in {target.path}, or its files were changed: "
            f"{', '.join(older)}; use --upgrade; nothing was changed"
        )
    kept = [name for name in theirs if not target.is_ours(name)]
    dropped = [name for name in target.known if name not in new and target.digest(name)]
    changes = Changes(kept=kept + [name for name in dropped if not target.is_ours(name)])
    with _telling_what_to_do(target):
        _write_all(target, {name: new[name] for name in new if name not in kept}, found, changes)
        for name in dropped:
            if target.is_ours(name):
                (target.path / name).unlink()
                changes.removed.append(name)
        still = {name: target.known[name] for name in kept if name in target.known}
        target.note(
            {**still, **{name: frozenset({new[name].digest}) for name in new if name not in kept}}
        )
        _ignore(target, changes)
    return changes


def uninstall(target: Target) -> Changes:
    """Remove what was installed and is unchanged. Raises RunnerError if nothing ever was."""
    if not target.is_installed:
        raise RunnerError(f"{target.path} has no {NOTE_NAME}, so `install` wrote nothing there")
    target.check_folders([*target.known, NOTE_NAME])
    changes = Changes()
    with _telling_what_to_do(target):
        for name in sorted(target.known):
            target.remove_draft(name)
            if target.is_ours(name):
                (target.path / name).unlink()
                changes.removed.append(name)
            elif target.digest(name) is not None:
                changes.kept.append(name)
        (target.path / NOTE_NAME).unlink()
        with contextlib.suppress(OSError):  # it has files of the project's own
            (target.path / NOTE_NAME).parent.rmdir()
    return changes


def _read_source(source: Path) -> dict[str, _NewFile]:
    try:
        names = _find(source, LIST_NAME).read_text("utf-8").split()
        return {name: _read_file(name, _find(source, name)) for name in names}
    except FileNotFoundError as error:
        raise RunnerError(
            f"{error.filename} is not there, so this copy cannot be copied on; use a clone of the "
            "repository"
        ) from error
    except OSError as error:
        raise RunnerError(f"{error.filename} cannot be read: {error.strerror}") from error


def _find(source: Path, name: str) -> Path:
    """Return where a file of this copy is; a package installer puts some into a folder of ours."""
    path = source / name
    shared = Path(sys.prefix, "share", "claude-runner", name)
    return shared if not is_in_project(source) and shared.exists() else path


def _read_file(name: str, path: Path) -> _NewFile:
    # A package installer keeps no modes, and programs are in one folder only.
    is_program = name.startswith("wrapper/") and path.name.endswith("-runner")
    return _NewFile(path.read_bytes(), 0o755 if is_program else 0o644)


def _write_all(
    target: Target, new: Mapping[str, _NewFile], found: Mapping[str, str | None], changes: Changes
) -> None:
    coming = {name: frozenset({file.digest}) for name, file in new.items()}
    both = {
        name: target.known.get(name, frozenset()) | coming.get(name, frozenset())
        for name in {**target.known, **coming}
    }
    target.note(both)
    for name, file in new.items():
        if found[name] != file.digest:
            target.write(name, file.content, file.mode)
            changes.written.append(name)


@contextlib.contextmanager
def _telling_what_to_do(target: Target) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = error.filename or target.path
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise RunnerError(
            f"{what} could not be changed ({reason}); no file is damaged: mend that, and repeat"
        ) from error


# --- what git ignores -----------------------------------------------------------------------------


def _ignore(target: Target, changes: Changes) -> None:
    """Add what is missing to `.gitignore`, in its own line ends."""
    path = target.path / ".gitignore"
    is_there = os.path.lexists(path)
    if not (is_there or any((folder / ".git").exists() for folder in _upwards(target.path))):
        return
    before = path.read_bytes() if is_there else b""
    missing = [entry for entry in IGNORED if not _ignores(before, entry)]
    if missing and path.is_symlink():
        changes.is_ignore_file_a_link = True  # what it leads to belongs to others as well
    elif missing:
        end = b"\r\n" if b"\r\n" in before else b"\n"
        gap = end if before and not before.endswith(b"\n") else b""
        added = b"".join(entry.encode() + end for entry in missing)
        mode = path.stat().st_mode & 0o777 if is_there else 0o644
        target.write(".gitignore", before + gap + added, mode)
        changes.ignored = missing


def _upwards(path: Path) -> tuple[Path, ...]:
    return (path, *path.parents)


def _ignores(content: bytes, entry: str) -> bool:
    """Whether these lines ignore the entry by its name; the last line that says so counts.

    In doubt they do not: a line more does no harm. `.env/` is about folders alone.
    """
    name = entry.rstrip("/")
    is_ignored = False
    for line in content.decode("utf-8", "replace").splitlines():
        pattern = line.rstrip()
        bare = pattern.lstrip("!").lstrip("/")
        if pattern.startswith("!"):
            is_ignored = is_ignored and not fnmatch.fnmatchcase(name, bare.rstrip("/"))
        elif bare in (name, entry):
            is_ignored = True
    return is_ignored


# --- what the user is asked and told --------------------------------------------------------------


def tell_installed(changes: Changes, target: Target) -> None:
    """Print what `install` has done."""
    count = len(changes.written)
    print_out(
        f"claude-runner {VERSION}: {count} file{'s' * (count != 1)} written in {target.path}"
        if count or changes.removed
        else f"claude-runner {VERSION} is in {target.path} already"
        f"{', but for what was kept' if changes.kept else ''}"
    )
    if changes.removed:
        print_out(
            f"removed, because this version has no use for them: {', '.join(changes.removed)}"
        )
    if changes.kept:
        names = ", ".join(changes.kept)
        print_out(
            f"kept as they are, because they are not ours or were changed: {names}; to take ours, "
            "move them away and repeat"
        )
    if changes.ignored:
        print_out(f".gitignore: {' and '.join(changes.ignored)} added")
    if changes.is_ignore_file_a_link:
        print_out(f".gitignore is a link and was left alone; add {' and '.join(IGNORED)} yourself")


def tell_uninstalled(changes: Changes, target: Target) -> None:
    """Print what `uninstall` has done."""
    count = len(changes.removed)
    print_out(f"removed {count} file{'s' * (count != 1)} from {target.path}")
    if changes.kept:
        print_out(f"kept, because they were changed: {', '.join(changes.kept)}")
    left = [name for name in (*IGNORED, ".gitignore") if os.path.lexists(target.path / name)]
    if left:
        print_out(f"kept, because they are yours: {', '.join(left)}")


def configure(source: Path, target: Target, console: Console) -> None:
    """Make the target's `.env` of the example, with what can be taken over or asked for.

    One that is there is the user's own and is kept. Private: 0600. Raises RunnerError.
    """
    if os.path.lexists(target.path / ".env"):
        try:
            load_config(target.path, {}).require_secret()
        except RunnerError as error:
            console.warn(f".env was there and is kept, but {error}; see {EXAMPLE_NAME}")
        return
    values = _take_over(source) or _ask(console)
    with _telling_what_to_do(target):
        target.write(".env", _fill_in(source, values).encode("utf-8"), 0o600)
    missing = "" if "HMAC_SECRET" in values else "; put the gateway's own secret into it"
    print_out(f"{target.path / '.env'} is made{missing}")


def _take_over(source: Path) -> dict[str, str]:
    """Return what this copy's own `.env` says of the gateway; nothing if it has no secret."""
    try:
        config = load_config(source, {})
    except RunnerError:
        return {}  # it serves nobody, so there is nothing to take over
    if not config.hmac_secret:
        return {}
    print_out(f"the gateway's address and secret are taken over from {config.sources['.env']}")
    # What the example sets is what the projects of one gateway have in common.
    example = _read_source(source)[EXAMPLE_NAME].content.decode("utf-8")
    common = re.findall(r"^([A-Z_]+)=", example, re.MULTILINE)
    return {name: config.dotenv[name] for name in common if name in config.dotenv}


def _ask(console: Console) -> dict[str, str]:
    """Ask for what only the user knows; nothing where nobody can answer."""
    if not (os.isatty(0) and os.isatty(2)):
        return {}
    console.note("an empty answer leaves the value to be filled in later")
    try:
        return {**_ask_one("GATEWAY_URL", input), **_ask_one("HMAC_SECRET", getpass.getpass)}
    except (EOFError, KeyboardInterrupt):
        print_out("")
        return {}


def _ask_one(variable: str, read: Callable[[str], str]) -> dict[str, str]:
    setting = next(each for each in SETTINGS if each.variable == variable)
    shown = " (it is not shown)" if setting.secret else f" [{setting.default}]"
    while True:
        answer = read(f"{setting.meaning}{shown}: ").strip()
        try:
            return {variable: str(setting.parse(answer, variable))} if answer else {}
        except RunnerError as error:
            print_out(str(error))


def _fill_in(source: Path, values: Mapping[str, str]) -> str:
    """Return the example with these values in the place of its own."""
    example = _read_source(source)[EXAMPLE_NAME].content.decode("utf-8")
    lines = [f"# The settings of claude-runner, made from {EXAMPLE_NAME}."]
    for line in example.splitlines()[1:]:
        variable = line.partition("=")[0]
        lines.append(f"{variable}={_quoted(values[variable])}" if variable in values else line)
    return "\n".join([*lines, ""])


def _quoted(value: str) -> str:
    """Return a value as `.env` wants it written."""
    if re.fullmatch(r"[A-Za-z0-9_./:@%+,=-]*", value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
