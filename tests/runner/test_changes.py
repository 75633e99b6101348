"""`changes.diff`: what a run has changed, with real git, and by the real runner."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable

import pytest

from kinds.claude_edits import EditWatch
from kinds.profile import Worktree
from redact import Rules
from runner import changes
from runner.changes import Changes, Pace, new_file_diff
from testing.gateways.strict_gateway import Artifact, StrictGateway
from testing.programs.runner import Launch, RunnerProcess, plan, program
from tests.test_git_hardening import TRAPS, Trap, trap

__all__ = ["trap"]  # a fixture

SECRET = "gh" + "p_" + "z9Y8" * 9
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=m")


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    """Run git as its user would, and return its output."""
    return subprocess.run(
        ["git", *IDENTITY, *arguments], cwd=folder, check=True, capture_output=True, input=stdin
    ).stdout.decode()


def run_program(
    argv: tuple[str, ...], cwd: str, env: Mapping[str, str], *takes: Callable[[bytes], None]
) -> str:
    """Run a program to its end, as the executor does."""
    done = subprocess.run(argv, cwd=cwd, env=dict(env), capture_output=True, check=False)
    for take, output in zip(takes, (done.stdout, done.stderr)):
        take(output)
    return f"exit code {done.returncode}" if done.returncode else ""


class Case:
    """The changes of a run that begins now in a folder."""

    def __init__(self, cwd: Path, folder: Path, worktree: Worktree | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.told: list[str] = []
        self.changes = Changes(
            Rules(),
            folder,
            is_on=True,
            began_at=time.time(),
            cwd=str(cwd),
            worktree=worktree,
            env=os.environ,
            tell=self.told.append,
        )
        self.changes.begin(run_program)

    def diff(self) -> str:
        """Make the diff, and return it."""
        assert self.changes.update(run_program), self.told
        return self.changes.path.read_text()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a commit."""
    top = tmp_path / "repository"
    top.mkdir()
    git(top, "init", "-q")
    for name in ("changed", "committed", "staged", "removed", "renamed"):
        (top / name).write_text("".join(f"{name} {number}\n" for number in range(9)))
    (top / ".gitignore").write_text("*.log\n")
    (top / "below").mkdir()
    (top / "below" / "image").write_bytes(b"\0\1\2")
    git(top, "add", ".")
    git(top, "commit", "-q", "-m", "the first commit")
    return top


def test_the_diff_is_what_leads_from_the_commit_to_now(repository: Path, tmp_path: Path) -> None:
    """Applied to that commit it gives the files as they are: git would write the same."""
    git(repository, "config", "diff.noprefix", "true")
    git(repository, "config", "color.ui", "always")
    old = git(repository, "rev-parse", "HEAD").strip()
    case = Case(repository / "below", tmp_path / "run")
    assert not case.changes.update(run_program)

    (repository / "changed").write_text("another\n")
    (repository / "committed").write_text("another\n")
    git(repository, "commit", "-q", "-am", "in the run")
    (repository / "staged").write_text("another\n")
    (repository / "removed").unlink()
    git(repository, "mv", "renamed", "elsewhere")
    git(repository, "add", "staged")
    (repository / "changed").write_text("and another\n")
    for name in ("one", "a b", 'quote"', "back\\slash", "line\nend", "tab\t", "é", "below/deep"):
        (repository / name).write_text(f"{name}\nsecond\n")
    (repository / "no end").write_text("no line end")
    (repository / "empty").touch()
    (repository / "script").write_text("#!/bin/sh\n")
    (repository / "script").chmod(0o755)
    (repository / "link").symlink_to("/etc/passwd")
    (repository / "ignored.log").write_text("not shown\n")
    (repository / "below" / "picture").write_bytes(b"PNG\0\1")
    os.mkfifo(repository / "pipe")
    diff = case.diff()

    assert "not shown" not in diff
    assert "root:" not in diff
    assert "Binary files /dev/null and b/below/picture differ" in diff
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    git(clone, "reset", "-q", "--hard", old)
    applied = "".join(
        f"diff --git {part}"
        for part in diff.split("diff --git ")[1:]
        if not part.startswith("a/below/picture")
    )
    git(clone, "apply", "-", stdin=applied.encode())
    (repository / "below" / "picture").unlink()
    (repository / "pipe").unlink()
    for top in (repository, clone):
        git(top, "add", "-A")
    assert git(clone, "write-tree") == git(repository, "write-tree")
    assert case.told == []


def test_only_another_diff_is_made(repository: Path, tmp_path: Path) -> None:
    """The same changes are sent once, after a failed upload again, and that they are gone."""
    case = Case(repository, tmp_path / "run")
    (repository / "changed").write_text("another\n")

    assert case.changes.update(run_program)
    assert case.changes.update(run_program)  # not sent
    case.changes.note_sent()
    assert not case.changes.update(run_program)
    assert case.changes.finish(lambda: None) == []
    (repository / "changed").write_text("and another\n")

    def give_up() -> None:
        if list(tmp_path.glob("run/*.new")):  # it is being written
            raise OSError("it was broken off")

    assert case.changes.finish(give_up) == []
    assert [each.name for each in (tmp_path / "run").iterdir()] == ["changes.diff"]
    assert [part.name for part in case.changes.finish(lambda: None)] == ["changes.diff"]
    assert "+and another" in case.changes.path.read_text()

    git(repository, "checkout", "-q", ".")
    assert case.diff() == ""
    assert [part.size for part in case.changes.finish(lambda: None)] == [0]  # not sent
    case.changes.note_sent()
    assert not case.changes.update(run_program)


def test_what_was_changed_before_is_not_the_runs(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tracked file too; one that the run has changed further is shown, and named as such."""
    monkeypatch.setattr(changes, "_COARSE_S", 0.0)
    for name in ("changed", "committed"):
        (repository / name).write_text("mine, not committed\n")
    (repository / "staged").write_text("mine, staged\n")
    git(repository, "add", "staged")
    (repository / "removed").unlink()
    case = Case(repository, tmp_path / "run")
    time.sleep(0.05)  # clocks of file systems are coarse
    assert not case.changes.update(run_program), case.changes.path.read_text()

    (repository / "changed").write_text("mine, not committed\nand the run's\n")
    (repository / "renamed").write_text("the run's\n")

    head, _, rest = case.diff().partition("\ndiff --git ")
    assert head == "changed before the run too: changed"
    assert re.findall(r"^a/(\S+)|^diff --git a/(\S+)", rest, re.MULTILINE) == [
        ("changed", ""),
        ("", "renamed"),
    ]
    # As a reader takes it, who undoes what is in front.
    git(repository, "stash", "-q")
    git(repository, "apply", "--check", "-", stdin=case.changes.path.read_bytes())


def test_what_was_there_before_is_not_the_runs(repository: Path) -> None:
    """A file that git does not track belongs to the run if it was changed since its beginning."""
    (repository / "notes").write_text("mine\n")
    changed_at = (repository / "notes").stat().st_ctime

    assert new_file_diff(str(repository), b"notes", changed_at + 1, 1_000) == b""
    assert b"+mine" in new_file_diff(str(repository), b"notes", changed_at, 1_000)


@pytest.mark.parametrize("names", ["sha1", "sha256"])
def test_a_repository_without_a_commit(tmp_path: Path, names: str) -> None:
    """Everything in it is new; a folder without a repository is told, and has no diff."""
    top = tmp_path / "new"
    top.mkdir()
    outside = Case(top, tmp_path / "outside")
    assert not outside.changes.update(run_program)
    assert outside.told == [f"changes.diff is not made: {top} is in no git repository"]
    git(top, "init", "-q", f"--object-format={names}")
    case = Case(top, tmp_path / "run")
    (top / "first").write_text("one\n")
    git(top, "add", "first")
    (top / "second").write_text("two\n")

    diff = case.diff()

    assert "+one" in diff
    assert "+two" in diff


def test_a_worktree_begins_where_it_was_made(repository: Path, tmp_path: Path) -> None:
    """The commits of a run in a worktree of its own are in its diff, also the first ones."""
    git(repository, "branch", "old")
    (repository / "changed").write_text("on the branch of the user\n")
    git(repository, "commit", "-q", "-am", "second")
    case = Case(repository, tmp_path / "run", Worktree(".claude/worktrees", ("one",)))
    place = repository / ".claude" / "worktrees" / "one"
    git(repository, "worktree", "add", "-q", str(place), "old")
    (place / "committed").write_text("the work\n")
    git(place, "commit", "-q", "-am", "in the run")

    diff = case.diff()

    assert "+the work" in diff
    assert "of the user" not in diff


def test_a_large_diff_is_cut(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a line, with a sentence; git is not waited for, nor a new file read to its end."""
    monkeypatch.setattr(changes, "MAX_BYTES", 100_000)
    case = Case(repository, tmp_path / "run")
    (repository / "changed").write_text("some line\n" * 5_000)
    (repository / "new").write_text("a new line\n" * 50_000)

    lines = case.diff().splitlines()

    assert lines[-1] == "changes.diff ends here: it would be longer than 100000 bytes."
    assert set(lines[-1_000:-2]) == {"+a new line"}
    assert case.changes.path.stat().st_size < 101_000


def test_many_new_files_are_cut_too(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a sentence, at a number and when the time is over; a binary one is not read whole."""
    monkeypatch.setattr(changes, "_MAX_NEW_FILES", 3)
    case = Case(repository, tmp_path / "run")
    with (repository / "a").open("wb") as file:
        file.truncate(1 << 40)
    since = case.changes._began_at - 1
    assert b"Binary files" in new_file_diff(str(repository), b"a", since, 1 << 41)
    for number in range(3):
        (repository / f"new {number}").write_text("a new line\n")
    said = case.diff()
    assert said.count("new file mode") == 3
    assert said.endswith("\nchanges.diff ends here: there are more than 3 new files.\n")

    monkeypatch.setattr(changes, "LIMIT_S", 0.0)
    said = case.diff()
    assert said.count("new file mode") == 1
    assert said.endswith("\nchanges.diff ends here: it would take too long.\n")


@pytest.mark.parametrize("kind", ["plain", "submodule", "promisor"])
def test_no_program_of_the_repository_is_started(trap: Trap, tmp_path: Path, kind: str) -> None:
    """A configuration full of programs starts none, during the run and at its end."""
    apart = {
        "submodule": "_set_submodule_diff",
        "promisor": "_set_promisor_by_upload_pack",
    }
    for set_trap, _ in TRAPS:
        name = set_trap.__name__
        is_apart = any(word in name for word in ("submodule", "promisor", "signature"))
        if name == apart[kind] if kind in apart else not is_apart:
            set_trap(trap)
    if kind == "submodule":
        sub = trap.folder / "sub"
        Trap(sub, trap.proof, trap.program).set("core.fsmonitor=EVIL", "filter.x.clean=EVIL")
        (sub / ".git" / "info" / "attributes").write_text("* filter=x\n")
    trap.attributes("* filter=x diff=x")
    trap.proof.unlink(missing_ok=True)
    case = Case(trap.folder, tmp_path / "run")
    trap.touch()
    (trap.folder / "new.txt").write_text("new\n")

    case.changes.update(run_program)
    (trap.folder / "new.txt").write_text("newer\n")
    case.changes.finish(lambda: None)

    assert not trap.proof.exists(), trap.proof.read_text()
    if kind != "promisor":  # whose objects are not there
        assert "+newer" in case.changes.path.read_text()
        assert case.told == []


def test_another_repository_is_not_shown(repository: Path, tmp_path: Path) -> None:
    """A `.git` that leads to one which does not know the folder has no diff, and that is told."""
    here = tmp_path / "unpacked"
    here.mkdir()
    (here / ".git").write_text(f"gitdir: {repository}/.git\n")
    case = Case(here, tmp_path / "run")

    assert not case.changes.update(run_program)
    assert case.changes.finish(lambda: None) == []
    assert "which does not know it" in case.told[-1]


def test_the_last_diff_waits_for_no_git_that_hangs(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed when its time is over, or when the user does not wait any more."""
    monkeypatch.setattr(changes, "_LAST_LIMIT_S", 0.5)
    case = Case(repository, tmp_path / "run")
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "git").write_text("#!/bin/sh\nexec sleep 600\n")
    (slow / "git").chmod(0o755)
    case.changes._env["PATH"] = f"{slow}{os.pathsep}{os.environ['PATH']}"

    began_at = time.monotonic()
    assert case.changes.finish(lambda: None) == []
    assert time.monotonic() - began_at < 20
    assert "took too long" in case.told[-1]

    def give_up() -> None:
        raise OSError("it was broken off")

    assert case.changes.finish(give_up) == []
    assert "it was broken off" in case.told[-1]
    assert list((tmp_path / "run").iterdir()) == []


def test_diffs_are_rare() -> None:
    """Two seconds after an edit, then every 30 s at most, and ever more rarely."""
    now = 1_000.0
    pace = Pace(lambda: now)
    assert pace.due_in_s() is None
    assert [pace.note_work() for _ in range(3)] == [True, False, False]
    assert pace.due_in_s() == 2.0
    now += 3
    assert pace.due_in_s() == 0.0
    pace.begin()
    assert pace.due_in_s() is None
    pace.note_work()  # while it is made
    now += 1
    pace.end()
    pace.note_work()
    assert pace.due_in_s() == 1.0  # noted before: soon
    made = []
    while now < 1_000 + 86_400:
        pace.begin()
        pace.end()
        pace.note_work()
        made.append(now)
        now += pace.due_in_s() or 0.0
    pauses = [later - earlier for earlier, later in zip(made, made[1:])]
    assert min(pauses) == 30.0
    assert len(made) < 300


def test_results_of_tools_that_change_files_are_seen() -> None:
    """Reading is no change; a result of any shape is taken."""
    watch = EditWatch()

    def used(name: Any, key: Any) -> bool:
        block = {"type": "tool_use", "id": key, "name": name, "input": {}}
        return watch.feed({"type": "assistant", "message": {"content": [block]}})

    def result(key: Any) -> bool:
        block = {"type": "tool_result", "tool_use_id": key, "content": "ok"}
        return watch.feed({"type": "user", "message": {"content": ["x", None, block]}})

    assert not any(used(*each) for each in (("Edit", "a"), ("Read", "b"), ("mcp__x__y", "c")))
    assert (result("a"), result("b"), result("c"), result("a")) == (True, False, True, False)
    assert not any([used(1, "a"), used("Edit", []), used(None, None)])
    assert not any([result(None), result([]), result(1), result("unknown")])
    odd: list[dict[str, object]] = [{}, {"message": 1}, {"message": {"content": {"a": 1}}}]
    assert not any(watch.feed(each) for each in odd)


# --- by the real runner -------------------------------------------------------------------------

# Writes a file as Claude Code would, and says so; then does one more thing when it is told to.
EDITS = f"""
import json, os, sys, time
def say(kind, block):
    message = {{"role": kind, "content": [block]}}
    print(json.dumps({{"type": kind, "message": message, "session_id": "s"}}), flush=True)
def edit(key, text):
    given = {{"file_path": "new.txt", "content": text}}
    say("assistant", {{"type": "tool_use", "id": key, "name": "Write", "input": given}})
    with open("new.txt", "w") as file:
        file.write(text)
    say("user", {{"type": "tool_result", "tool_use_id": key, "content": "ok"}})
print(json.dumps({{"type": "system", "subtype": "init", "session_id": "s"}}), flush=True)
edit("a", "first\\n{SECRET}\\n")
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
edit("b", "second\\n")
"""


@pytest.fixture
def gw() -> Iterator[StrictGateway]:
    """A gateway with long polls and no rate limit."""
    with StrictGateway(rate_limit=None, long_poll=True) as gateway:
        yield gateway


def start(gw: StrictGateway, cwd: Path, folder: Path, **environment: str) -> Launch:
    """Prepare a run that edits a file, and one more when `<folder>/go` is there."""
    folder.mkdir()
    script = folder / "edits.py"
    script.write_text(EDITS)
    command = [sys.executable, "-I", "-S", str(script), str(folder / "go")]
    env = {"CLAUDE_RUNNER_FLAVOR": "claude", **environment}
    return plan(gw, command, folder, cwd=cwd, env=env)


def diffs(gw: StrictGateway, launch: Launch) -> list[Artifact]:
    """Return the diffs that have come."""
    return [each for each in gw.artifacts(launch.run.id) if each.name == "changes.diff"]


def test_a_run_sends_its_changes_while_it_runs_and_at_its_end(
    gw: StrictGateway, repository: Path, tmp_path: Path
) -> None:
    """Soon after an edit, redacted, and again before the end is recorded; off means none."""
    launch = start(gw, repository, tmp_path / "run")
    with RunnerProcess(launch) as runner:
        first = gw.wait_for(lambda: diffs(gw, launch), 30)[0]
        (tmp_path / "run" / "go").touch()
        assert runner.wait(60) == 0
    last = diffs(gw, launch)[-1]

    assert b"+++ b/new.txt\n@@ -0,0 +1,2 @@\n+first\n+[REDACTED]\n" in first.data
    assert b"@@ -0,0 +1 @@\n+second\n" in last.data
    assert len(diffs(gw, launch)) == 2
    assert not any(SECRET.encode() in each.data for each in gw.artifacts(launch.run.id))

    off = start(gw, repository, tmp_path / "off", CLAUDE_RUNNER_CHANGES="false")
    (tmp_path / "off" / "go").touch()
    with RunnerProcess(off) as runner:
        assert runner.wait(60) == 0
    assert diffs(gw, off) == []


def test_a_run_without_messages_sends_its_changes_at_its_end(
    gw: StrictGateway, repository: Path, tmp_path: Path
) -> None:
    """Whatever kind of run it is; outside a repository there is one detail, and no file."""
    (tmp_path / "run").mkdir()
    source = "open('changed', 'a').write('more\\n')"
    silent = plan(gw, program(source), tmp_path / "run", cwd=repository)
    (tmp_path / "outside").mkdir()
    outside = plan(gw, program(source), tmp_path / "outside")
    outside.argv.insert(3, "-v")
    with RunnerProcess(silent) as runner:
        assert runner.wait(60) == 0
    with RunnerProcess(outside) as runner:
        assert runner.wait(60) == 0
        said = runner.stderr

    assert b"+more\n" in diffs(gw, silent)[-1].data
    assert diffs(gw, outside) == []
    assert said.count("is in no git repository") == 1
