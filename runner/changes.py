"""What a run has changed: `git diff` against the commit that it began at, for `changes.diff`.

The tracked files are git's to compare, hardened as the operator's git commands are. New files,
which git does not track, are read here: a file whose inode was changed since the run began is the
run's. So nothing is added to the index, and no filter sees them.

What git would show of a tracked file that was changed before the run began, and not since, is left
out; one that was changed since as well is named in front, as nobody can tell the two apart.

During the run the executor calls, and the keeper starts git. At the end, when the keeper has swept
and starts nothing more, it is the main thread, and git is started from here, for a few seconds.
Both are bounded in time and in size; neither raises.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import select
import signal
import stat
import subprocess
import time
from typing import TYPE_CHECKING, Any, Callable, Final

from allowlist import PLACES_OF_GIT, AllowlistError
from places import program_to_start
from redact import Redactor
from runner.processes import describe_status
from runner.repository import find_work_tree, find_worktree
from runner.showing import ProgramFailedError, disarm, showing_command
from runner.upload import file_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from journal.spool import FilePart
    from kinds.profile import Worktree
    from redact import Rules
    from runner.showing import RunProgram, Take

NAME: Final = "changes.diff"
# How long all the git commands of one diff may take, during the run and at its end.
LIMIT_S: Final = 20.0
_LAST_LIMIT_S: Final = 10.0
# Of the raw diff. A page opens so much in a moment, and a person reads less.
MAX_BYTES: Final = 5 * 1_048_576
_MAX_NEW_FILES: Final = 2_000
# So many files that were changed before are left out: git gets their names as arguments.
_MAX_LEFT_OUT: Final = 500
_MAX_LEFT_OUT_BYTES: Final = 60_000
BEFORE: Final = b"changed before the run too: "
_BLOCK_BYTES: Final = 65_536
# An edit is often one of several.
_QUIET_S: Final = 2.0
# A gateway takes 100 requests a minute, and may keep no more than 1,000 files of a run: 200 a day.
_INTERVAL_S: Final = 30.0
_SHARE_OF_RUN: Final = 0.02
# Of one processor, for git in a large repository.
_SHARE_OF_TIME: Final = 0.05
# Clocks of file systems are coarse.
_COARSE_S: Final = 1.0
# git knows the empty tree in every repository; it stands for no commit at all.
_EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_EMPTY_TREE_OF_SHA256: Final = "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"
_COMMIT: Final = re.compile(rb"[0-9a-f]{40,64}\n?")
# What git looks at to call a file binary.
_BINARY_BYTES: Final = 8_000
# As git does with core.quotePath=false: bytes of other letters stand as they are.
_QUOTED: Final = re.compile(rb'[\x00-\x1f"\\\x7f]')
_ESCAPES: Final = {b"\t": b"\\t", b"\n": b"\\n", b'"': b'\\"', b"\\": b"\\\\"}

_DIFF: Final = ("git", "-c", "core.quotePath=false", "diff", "--no-color", "--no-relative")
_NAMES: Final = ("--name-only", "-z", "--no-renames")
_PREFIXES: Final = ("--src-prefix=a/", "--dst-prefix=b/", "--unified=3")


class Pace:
    """When the next diff may be made: soon after an edit, and rarely. Thread: any may note one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_at = clock()
        self._last_at = float("-inf")
        self._pause_s = 0.0
        self._due_at: float | None = None

    def note_work(self) -> bool:
        """Learn that files may have changed. Returns whether that makes a diff due."""
        if self._due_at is not None:
            return False
        self._due_at = max(self._clock() + _QUIET_S, self._last_at + self._pause_s)
        return True

    def due_in_s(self) -> float | None:
        """Return how long to wait for the next diff; None if there is none to make."""
        due_at = self._due_at
        return None if due_at is None else max(0.0, due_at - self._clock())

    def begin(self) -> None:
        """Note that the diff is being made: what is changed from now on needs another one."""
        self._due_at = None
        self._last_at = self._clock()

    def end(self) -> None:
        """Note that it was made, and sent."""
        now = self._clock()
        of_run_s = (now - self._began_at) * _SHARE_OF_RUN
        self._pause_s = max(_INTERVAL_S, of_run_s, (now - self._last_at) / _SHARE_OF_TIME)


class Changes:
    """The changes of one run. `cwd` is its folder, `env` what git gets, `tell` for details.

    `began_at` is Unix time from before the child: older files are not the run's.
    """

    def __init__(
        self,
        rules: Rules,
        folder: Path,
        *,
        is_on: bool,
        began_at: float,
        cwd: str,
        worktree: Worktree | None,
        env: Mapping[str, str],
        tell: Callable[[str], None],
    ) -> None:
        self.pace = Pace()
        self._rules = rules
        self._folder = folder
        self._is_on = is_on
        self._cwd = cwd
        self._worktree = worktree
        self._env = {name: value for name, value in env.items() if name not in PLACES_OF_GIT}
        self._tell_detail = tell
        self._began_at = began_at
        # By the folder of the repository: a run may go on in a worktree of its own.
        self._bases: dict[str, str] = {}
        # What was changed there before the run began.
        self._before: dict[str, frozenset[bytes]] = {}
        self._made = self._sent = b""

    @property
    def path(self) -> Path:
        """Where the diff is, once there is one."""
        return self._folder / NAME

    def begin(self, run: RunProgram) -> None:
        """Note which commit the run begins at. May be called again."""
        if not (self._is_on and not self._bases):
            return
        top = find_work_tree(self._cwd)
        if top is None:
            self._is_on = False
            self._tell(f"{NAME} is not made: {self._cwd} is in no git repository")
        else:
            self._attempt(lambda: self._note_before(top, run))

    def update(self, run: RunProgram) -> bool:
        """Make the diff. Returns whether it is to be sent: it is another one than the gateway has.

        An empty one too, where the run has taken back what was sent.
        """
        if not self._is_on:
            return False
        deadline = time.monotonic() + LIMIT_S
        self._attempt(lambda: self._make(run, self.path, lambda: None, deadline))
        return self._made != self._sent

    def note_sent(self) -> None:
        """Note that the gateway has what was made last."""
        self._sent = self._made

    def finish(self, on_wait: Callable[[], None]) -> list[FilePart]:
        """Make the last diff. Returns the parts to upload, none if there is nothing new.

        `on_wait` is called often, and may break it off with an OSError. Thread: main.
        """
        deadline = time.monotonic() + _LAST_LIMIT_S

        def run(argv: tuple[str, ...], cwd: str, env: Mapping[str, str], *takes: Take) -> str:
            return _run_here(argv, cwd, env, takes, deadline, on_wait)

        self.begin(run)
        if not self._is_on:
            return []
        # The executor may still be sending the one before.
        last = self._folder / f"last-{NAME}"
        self._attempt(lambda: self._make(run, last, on_wait, deadline))
        with contextlib.suppress(OSError):
            if self._made != self._sent:
                # Without a new one, the executor has made this one and could not send it.
                if last.exists():
                    last.replace(self.path)
                return list(file_parts(self._folder, NAME, NAME))
        return []

    # --- one diff ----------------------------------------------------------------------------

    def _attempt(self, task: Callable[[], object]) -> None:
        try:
            task()
        except (OSError, ValueError, AllowlistError, ProgramFailedError) as error:
            self._tell(f"{NAME} is not made: {error}")

    def _tell(self, sentence: str) -> None:
        self._tell_detail(self._rules.redact(sentence))

    def _make(
        self, run: RunProgram, path: Path, on_block: Callable[[], None], deadline: float
    ) -> None:
        """Write the diff, redacted, if it is another one than the last."""
        place = self._cwd
        if self._worktree is not None:
            place = find_worktree(self._cwd, self._worktree, self._began_at) or place
        top = find_work_tree(place)
        if top is None:
            return
        raw = _Gathered(MAX_BYTES)
        base, left_out = self._base_of(top, run), list[str]()
        try:
            for name in self._names_before(top, run, base):
                is_untouched = _is_untouched(top, name, self._began_at - _COARSE_S)
                if is_untouched and _have_room(left_out):
                    left_out.append(os.fsdecode(b":(top,exclude,literal)" + name))
                else:
                    raw.add(BEFORE + _quoted(name) + b"\n")
            paths = (":/", *left_out) if left_out else ()
            self._show(run, top, raw.add, *_DIFF[1:], *_PREFIXES, base, "--", *paths)
            for block in self._new_files(run, top, raw, deadline):
                raw.add(block)
                on_block()
        except _FullError as error:
            raw.note(f"\n{NAME} ends here: {error}.\n")
        digest = hashlib.sha256(raw.content).digest() if raw.content else b""
        if digest == self._made:
            return
        draft = path.with_name(f"{path.name}.new")
        redactor = Redactor(rules=self._rules)
        try:
            with draft.open("wb") as file:
                for at in range(0, len(raw.content), _BLOCK_BYTES):
                    file.write(redactor.feed(bytes(raw.content[at : at + _BLOCK_BYTES])))
                    on_block()
                file.write(redactor.flush())
            draft.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()  # what was written of it takes the room for the end
            raise
        self._made = digest

    def _note_before(self, top: str, run: RunProgram) -> None:
        """Note what differs from the commit that the run begins at, and is older than the run."""
        names = self._names(top, run, self._base_of(top, run))
        self._before[top] = frozenset(
            name for name in names if _is_untouched(top, name, self._began_at)
        )

    def _names_before(self, top: str, run: RunProgram, base: str) -> list[bytes]:
        """Return what still differs of that."""
        before = self._before.get(top)
        return [each for each in self._names(top, run, base) if each in before] if before else []

    def _names(self, top: str, run: RunProgram, base: str) -> list[bytes]:
        found = _Gathered(MAX_BYTES)
        self._show(run, top, found.keep, *_DIFF[1:], *_NAMES, base, "--")
        return [name for name in bytes(found.content).split(b"\0") if name]

    def _base_of(self, top: str, run: RunProgram) -> str:
        """Return the commit that the run began at in this repository, or the empty tree."""
        if top not in self._bases:
            # A worktree is made after the run began, and its own log begins with that; a commit of
            # the same second must not count as older.
            is_own = top == find_work_tree(self._cwd)
            name = "HEAD" if is_own else f"HEAD@{{{int(self._began_at) - 1}}}"
            found = _Gathered(_BLOCK_BYTES)
            try:
                self._show(run, top, found.add, "log", "-1", "--format=%H", name, "--")
            except ProgramFailedError as error:
                self._tell(f"{top} has no commit yet: {error}")
            last = bytes(found.content)
            has_one = _COMMIT.fullmatch(last)
            self._bases[top] = last.strip().decode() if has_one else self._empty_tree(top, run)
        return self._bases[top]

    def _empty_tree(self, top: str, run: RunProgram) -> str:
        try:
            self._show(run, top, lambda _: None, "cat-file", "-t", _EMPTY_TREE_OF_SHA256)
        except ProgramFailedError:
            return _EMPTY_TREE  # it has SHA-1 names
        return _EMPTY_TREE_OF_SHA256

    def _show(self, run: RunProgram, top: str, take: Take, *arguments: str) -> None:
        """Run a git command in this folder. Raises ProgramFailedError."""
        errors = _Gathered(_BLOCK_BYTES)
        command = showing_command("git", *arguments)
        env = {**self._env, "PWD": top}
        argv, env = disarm(command, top, env, run, errors.keep)
        problem = run(argv, top, env, take, errors.keep)
        if problem:
            said = bytes(errors.content).decode("utf-8", "replace").strip()
            raise ProgramFailedError(f"git {arguments[0]}: {problem} {said}".strip())

    def _new_files(
        self, run: RunProgram, top: str, raw: _Gathered, deadline: float
    ) -> Iterator[bytes]:
        """Yield the diffs of the files that git does not track and the run has made or changed."""
        names = _Gathered(MAX_BYTES)
        self._show(run, top, names.add, "ls-files", "-z", "--others", "--exclude-standard")
        count = 0
        for name in bytes(names.content).split(b"\0"):
            diff = b""
            if name and not name.endswith(b"/"):
                with contextlib.suppress(OSError):
                    diff = new_file_diff(top, name, self._began_at - _COARSE_S, raw.room)
            count += bool(diff)
            if count > _MAX_NEW_FILES:
                raise _FullError(f"there are more than {_MAX_NEW_FILES} new files")
            yield diff
            if time.monotonic() > deadline:
                raise _FullError("it would take too long")


def new_file_diff(top: str, name: bytes, since: float, max_bytes: int) -> bytes:
    """Return a new file as git would show it; nothing if it is older than that, or no file.

    Of a longer one than `max_bytes` the beginning. Raises OSError.
    """
    path = os.path.join(os.fsencode(top), name)
    status = os.lstat(path)
    is_link = stat.S_ISLNK(status.st_mode)
    if status.st_ctime < since or not (is_link or stat.S_ISREG(status.st_mode)):
        return b""
    mode = b"120000" if is_link else b"100755" if status.st_mode & 0o100 else b"100644"
    content = os.readlink(path) if is_link else _read(path, max_bytes + 1)
    theirs, ours = _quoted(b"a/" + name), _quoted(b"b/" + name)
    head = b"diff --git %s %s\nnew file mode %s\n" % (theirs, ours, mode)
    if not content:
        return head
    if b"\0" in content[:_BINARY_BYTES]:
        return head + b"Binary files /dev/null and %s differ\n" % ours
    lines = content.split(b"\n")
    end = b"" if lines[-1] == b"" else b"\n\\ No newline at end of file\n"
    lines = lines[:-1] if lines[-1] == b"" else lines
    extent = b"1" if len(lines) == 1 else b"1,%d" % len(lines)
    blank = b"\t" if b" " in ours and not ours.startswith(b'"') else b""
    return b"%s--- /dev/null\n+++ %s%s\n@@ -0,0 +%s @@\n+%s%s" % (
        *(head, ours, blank, extent, b"\n+".join(lines)),
        end or b"\n",
    )


def _have_room(names: list[str]) -> bool:
    return len(names) < _MAX_LEFT_OUT and sum(map(len, names)) < _MAX_LEFT_OUT_BYTES


def _is_untouched(top: str, name: bytes, since: float) -> bool:
    """Whether a file is as it was then, as far as its inode tells; one that is not there is.

    Of a folder, such as a submodule, nothing is known.
    """
    try:
        status = os.lstat(os.path.join(os.fsencode(top), name))
    except OSError:
        return True
    return status.st_ctime < since and not stat.S_ISDIR(status.st_mode)


def _read(path: bytes, max_bytes: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        begun = file.read(min(_BINARY_BYTES, max_bytes))
        # Nothing else is shown of a binary file, and each may be long.
        return begun if b"\0" in begun else begun + file.read(max_bytes - len(begun))


def _quoted(name: bytes) -> bytes:
    def escape(match: re.Match[bytes]) -> bytes:
        return _ESCAPES.get(match[0]) or b"\\%03o" % match[0][0]

    return b'"%s"' % _QUOTED.sub(escape, name) if _QUOTED.search(name) else name


class _FullError(Exception):
    """There is more than is wanted, as the message says; the program that prints it is ended."""


class _Gathered:
    """What a program prints, raw, up to a limit."""

    def __init__(self, max_bytes: int) -> None:
        self.content = bytearray()
        self.is_full = False
        self._max_bytes = max_bytes

    @property
    def room(self) -> int:
        """How much more it takes."""
        return self._max_bytes - len(self.content)

    def keep(self, raw: bytes) -> None:
        """Take what fits."""
        self.is_full = self.is_full or len(raw) > self.room
        self.content += raw[: max(0, self.room)]

    def add(self, raw: bytes) -> None:
        """Take what was read. Raises _FullError."""
        self.keep(raw)
        if self.is_full:
            raise _FullError(f"it would be longer than {self._max_bytes} bytes")

    def note(self, sentence: str) -> None:
        """End it with a sentence, behind the last whole line."""
        del self.content[self.content.rfind(b"\n") + 1 :]
        self.content += sentence.encode()


def _run_here(
    argv: tuple[str, ...],
    cwd: str,
    env: Mapping[str, str],
    takes: Sequence[Take],
    deadline: float,
    on_wait: Callable[[], None],
) -> str:
    """Run a program to its end, or kill it at the deadline. Returns why it failed."""
    with subprocess.Popen(
        argv,
        executable=program_to_start(argv[0], env.get("PATH")),
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            is_read = _take_all((process.stdout, process.stderr), takes, deadline, on_wait)
            left_s = max(0.1, deadline - time.monotonic())
            status = process.wait(left_s) if is_read else None
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.returncode is None:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
    if status is None:
        return "it took too long and was killed"
    # As a wait status has it.
    return describe_status(status << 8 if status > 0 else -status) if status else ""


def _take_all(
    pipes: Sequence[Any], takes: Sequence[Take], deadline: float, on_wait: Callable[[], None]
) -> bool:
    """Read all that a program writes. Returns False at the deadline."""
    sinks = {pipe.fileno(): take for pipe, take in zip(pipes, takes)}
    while sinks:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return False
        readable, _, _ = select.select(list(sinks), [], [], min(0.1, left_s))
        on_wait()
        for fd in readable:
            block = os.read(fd, _BLOCK_BYTES)
            if block:
                sinks[fd](block)
            else:
                del sinks[fd]
    return True
