"""Whose repository git shows: this folder's own, and the worktree in which the run works."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from kinds.claude import _worktree
from kinds.profile import Worktree
from runner.repository import find_branch, find_worktree, leads_to
from testing.gateways.strict_gateway import StrictGateway
from testing.programs.runner import RunnerProcess, plan, program

IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=m")
FILES = ("-c", "protocol.file.allow=always")
SECRET = "of the other repository"


def git(folder: Path, *arguments: str) -> str:
    """Run git as its user would, and return its output."""
    return subprocess.run(
        ["git", *IDENTITY, *FILES, *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def make(folder: Path, subject: str = "of this repository") -> Path:
    """Make a repository with a file and a commit."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "file.txt").write_text(f"{subject}\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", subject)
    return folder


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A private repository, which nobody but its owner should see."""
    return make(tmp_path / "private", SECRET)


def _file(here: Path, other: Path) -> None:
    (here / ".git").write_text(f"gitdir: {other}/.git\n")


def _relative_file(here: Path, other: Path) -> None:
    (here / ".git").write_text(f"gitdir: ../{other.name}/.git\n")


def _link(here: Path, other: Path) -> None:
    (here / ".git").symlink_to(other / ".git")


def _file_to_a_link(here: Path, other: Path) -> None:
    (here / "git").symlink_to(other / ".git")
    (here / ".git").write_text("gitdir: git\n")


def _common_folder(here: Path, other: Path) -> None:
    git(here, "init", "-q")
    (here / ".git" / "commondir").write_text(f"{other}/.git\n")


def _claims_to_be_a_worktree(here: Path, other: Path) -> None:
    own = here / "x" / "worktrees" / "y"
    own.mkdir(parents=True)
    (own / "HEAD").write_text("ref: refs/heads/m\n")
    (own / "commondir").write_text(f"{other}/.git\n")
    (own / "gitdir").write_text(f"{here}/.git\n")
    (here / ".git").write_text(f"gitdir: {own}\n")


def _takes_over_a_worktree(here: Path, other: Path) -> None:
    git(other, "worktree", "add", "-q", str(other.parent / "worktree"))
    (here / ".git").write_text(f"gitdir: {other}/.git/worktrees/worktree\n")


def _links_inside(here: Path, other: Path) -> None:
    git(here, "init", "-q")
    own = here / ".git"
    (own / "objects" / "info").rmdir()
    (own / "objects" / "pack").rmdir()
    (own / "objects").rmdir()
    (own / "objects").symlink_to(other / ".git" / "objects")
    (own / "refs" / "heads" / "m").symlink_to(other / ".git" / "refs" / "heads" / "m")


FOREIGN: dict[str, Callable[[Path, Path], None]] = {
    "file": _file,
    "relative file": _relative_file,
    "link": _link,
    "file to a link": _file_to_a_link,
    "common folder": _common_folder,
    "claims to be a worktree": _claims_to_be_a_worktree,
    "takes over a worktree": _takes_over_a_worktree,
    "links inside": _links_inside,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_another_repository_is_seen(tmp_path: Path, other: Path, name: str) -> None:
    """Each way works for git, which would show the history of the other one."""
    here = tmp_path / "unpacked"
    here.mkdir()
    FOREIGN[name](here, other)
    assert SECRET in git(here, "log", "--format=%s", "-1")

    place = leads_to(str(here))

    assert place is not None
    assert place.startswith(str(other))


def test_the_branch_is_that_of_the_folders_own_repository(tmp_path: Path, other: Path) -> None:
    """Also below it and in a worktree; none of another repository, and none while detached."""
    plain = make(tmp_path / "plain")
    (plain / "below").mkdir()
    git(plain, "worktree", "add", "-q", "-b", "feature/x", str(tmp_path / "beside"))
    (tmp_path / "pointed").mkdir()
    _file(tmp_path / "pointed", other)
    (tmp_path / "linked" / ".git").mkdir(parents=True)
    (tmp_path / "linked" / ".git" / "HEAD").symlink_to(other / ".git" / "HEAD")

    assert [find_branch(str(tmp_path / each)) for each in ("plain/below", "beside")] == [
        "m",
        "feature/x",
    ]
    assert [find_branch(str(tmp_path / each)) for each in (".", "pointed", "linked")] == [None] * 3
    git(plain, "checkout", "-q", "--detach")
    assert find_branch(str(plain)) is None


def test_a_repository_that_knows_the_folder_is_its_own(tmp_path: Path, other: Path) -> None:
    """A plain one, its worktrees wherever they are, submodules, and a chosen place."""
    plain = make(tmp_path / "plain")
    git(plain, "worktree", "add", "-q", str(tmp_path / "beside"))
    git(plain, "worktree", "add", "-q", str(plain / "below" / "tree"))
    git(plain, "submodule", "add", "-q", str(other), "deep/sub")
    separate = tmp_path / "separate"
    subprocess.run(
        ["git", "init", "-q", f"--separate-git-dir={tmp_path / 'store'}", str(separate)], check=True
    )
    assert leads_to(str(separate)) == str(tmp_path / "store")
    git(separate, "config", "core.worktree", str(separate))
    (tmp_path / "nothing").mkdir()
    (plain / ".git" / "hooks" / "post-commit").symlink_to("/bin/true")

    for folder in (
        *(plain, tmp_path / "beside", plain / "below" / "tree", plain / "deep" / "sub"),
        *(separate, tmp_path / "nothing"),
    ):
        assert leads_to(str(folder)) is None, folder


@pytest.mark.parametrize("text", [b"gitdir: /a\0b", b"gitdir: \xff\xfe", b"gitdir: ", b"\0", b""])
def test_a_pointer_of_any_bytes_is_read(tmp_path: Path, text: bytes) -> None:
    """What it leads to is foreign, or nothing, and never an exception."""
    (tmp_path / ".git").write_bytes(text)
    (tmp_path / ".claude" / "worktrees" / "a").mkdir(parents=True)
    (tmp_path / ".claude" / "worktrees" / "a" / ".git").write_bytes(text)

    assert leads_to(str(tmp_path)) in (None, "/a", f"{tmp_path}/\udcff\udcfe")
    for names in ((), ("a",)):
        assert find_worktree(str(tmp_path), Worktree(".claude/worktrees", names), 0) is None


@pytest.mark.parametrize("name", [".git", ".git/commondir", ".git/config", ".git/gitdir"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    """A pipe in the place of a file would keep the operator's commands waiting for ever."""
    if name != ".git":
        git(tmp_path, "init", "-q")
        (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    assert leads_to(str(tmp_path)) is None

    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    assert leads_to(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--worktree", "feature"), ("feature",)),
        (("--model", "opus", "-w", "a/b"), ("a/b", "a+b")),
        (("--worktree=x.y",), ("x.y",)),
        (("--worktree",), ()),
        (("-w", "--model", "opus"), ()),
        (("--worktree", "../../other"), ()),
        (("--worktree", "#123"), ()),
    ],
)
def test_the_worktree_is_known_by_its_option(
    arguments: tuple[str, ...], names: tuple[str, ...]
) -> None:
    """Claude Code makes it below `.claude/worktrees`; without a plain name it is looked for."""
    assert _worktree(arguments) == Worktree(".claude/worktrees", names)
    assert _worktree(("--model", "opus")) is None


def test_only_a_worktree_of_the_repository_is_found(tmp_path: Path, other: Path) -> None:
    """By its name, or as the only one that is new; never one that leads elsewhere."""
    top = make(tmp_path / "plain")
    folder = top / ".claude" / "worktrees"
    since = time.time()

    def find(*names: str, at: float = since) -> str | None:
        return find_worktree(str(top), Worktree(".claude/worktrees", names), at)

    assert find("one") is None
    assert find() is None
    git(top, "worktree", "add", "-q", str(folder / "one"))
    (folder / "planted").mkdir()
    (folder / "planted" / ".git").write_text(f"gitdir: {other}/.git\n")
    (folder / "linked").symlink_to(other)
    assert find("one") == str(folder / "one")
    assert find("planted") is None
    assert find("linked") is None
    assert find() == str(folder / "one")
    assert find(at=since + 3_600) is None
    git(top, "worktree", "add", "-q", str(folder / "two"))
    assert find() is None
    (top / "below").mkdir()
    worktree = Worktree(".claude/worktrees", ("one",))
    assert find_worktree(str(top / "below"), worktree, since) == str(folder / "one")


@pytest.fixture
def gw() -> Iterator[StrictGateway]:
    """A gateway with long polls and no rate limit."""
    with StrictGateway(rate_limit=None, long_poll=True) as gateway:
        yield gateway


# Stands in for Claude Code, which makes the worktree when it starts.
WORKS = """
import os, signal, subprocess, sys
assert "--worktree" in sys.argv, sys.argv
place = ".claude/worktrees/feature"
subprocess.run(["git", "worktree", "add", "-q", place], check=True)
with open(f"{place}/file.txt", "a") as file:
    file.write("the work\\n")
print("READY", os.getpid(), flush=True)
signal.pause()
"""


@pytest.mark.parametrize("name", [("feature",), ()], ids=["named", "unnamed"])
def test_git_diff_shows_where_the_work_is(
    gw: StrictGateway, tmp_path: Path, name: tuple[str, ...]
) -> None:
    """With `--worktree` the commands that show look there, and say so; others stay."""
    top = make(tmp_path / "project")
    (tmp_path / "run").mkdir()
    launch = plan(
        gw, program(WORKS), tmp_path / "run", cwd=top, arguments=("--worktree", *name),
        env={"CLAUDE_RUNNER_FLAVOR": "claude"},
    )  # fmt: skip
    with RunnerProcess(launch) as runner:
        launch.expect_pid()
        diff, pwd = (gw.queue_command(launch.run.id, each) for each in ("git diff", "pwd"))
        gw.wait_for(lambda: not gw.pending(launch.run.id), 30)
        gw.queue_command(launch.run.id, "__HALT__")
        runner.wait()

    acks = gw.acks(launch.run.id)
    assert "+the work" in (acks[diff][-1].result or ""), acks[diff]
    assert acks[pwd][-1].result == f"{top}\n"
    info = gw.text(launch.run.id, "info")
    assert "Executing command: git diff (in .claude/worktrees/feature)" in info
    assert any(b"+the work" in each.data for each in gw.artifacts(launch.run.id))


def test_another_repository_is_not_shown(gw: StrictGateway, tmp_path: Path, other: Path) -> None:
    """The refusal says where it leads, and two ways in which it works."""
    here = tmp_path / "unpacked"
    here.mkdir()
    _file(here, other)
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "run").mkdir()
    launch = plan(
        gw, program("import signal; print('READY 1', flush=True); signal.pause()"),
        tmp_path / "run", cwd=here, env={"HOME": str(home), "XDG_CONFIG_HOME": str(home)},
    )  # fmt: skip
    with RunnerProcess(launch) as runner:
        launch.expect_pid()

        def ask(command: str) -> tuple[str, str]:
            command_id = gw.queue_command(launch.run.id, command)
            gw.wait_for(lambda: command_id in gw.acks(launch.run.id), 30)
            ack = gw.acks(launch.run.id)[command_id][-1]
            return ack.result or "", ack.error or ""

        for command in ("git log --oneline -10", "git diff", "git status"):
            result, error = ask(command)
            assert result == ""
            assert f"leads to {other}/.git, which does not know it" in error
            assert SECRET not in error
        (home / ".gitconfig").write_text(f"[safe]\n\tdirectory = {here}\n")
        result, _ = ask("git log --oneline -10")
        assert SECRET in result
        gw.queue_command(launch.run.id, "__HALT__")
        runner.wait()
    assert os.listdir(here) == [".git"]
