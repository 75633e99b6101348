"""A repository whose configuration names programs: the operator's git commands start none of them.

Each case is tried with real git, first as its user would run it, which shows that the trap works,
and then as the runner does. At the end all of them at once go through the real runner.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import pytest

from allowlist import (
    PLACES_OF_GIT,
    SHOWING_ENVIRONMENT,
    Allowed,
    Allowlist,
    AllowlistError,
    override_git_config,
)
from runner.repository import find_work_tree
from testing.gateways.strict_gateway import StrictGateway
from testing.programs.runner import RunnerProcess, child, plan, program

COMMANDS = ("git diff", "git diff --cached", "git status", "git log --oneline -10")
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=m")


def git(folder: Path, *arguments: str, **environment: str) -> str:
    """Run git as its user would, and return its output."""
    return subprocess.run(
        ["git", *IDENTITY, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    ).stdout


def allowed(command: str) -> Allowed:
    """Return what may run, in the allowlist of a user who allows it."""
    decision = Allowlist([command]).check(command)
    assert isinstance(decision, Allowed)
    return decision


def run_as_the_runner_does(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run an allowed command; git is asked for the configuration first."""
    decision = allowed(command)
    places = PLACES_OF_GIT & os.environ.keys()
    environment = {name: value for name, value in os.environ.items() if name not in places}
    environment.update(SHOWING_ENVIRONMENT)
    listing = subprocess.run(
        decision.git_query, cwd=folder, env=environment, check=True, capture_output=True
    ).stdout
    return subprocess.run(
        override_git_config(decision.argv, listing, find_work_tree(str(folder))),
        cwd=folder,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@dataclass(frozen=True)
class Trap:
    """A repository with changes, and a program that leaves the file `proof` when it is started."""

    folder: Path
    proof: Path
    program: Path

    def set(self, *settings: str, file: str = "") -> None:
        """Set `key=value` in the repository's configuration, or in another file."""
        where = ("--file", file) if file else ("--local",)
        for setting in settings:
            key, _, value = setting.rpartition("=")
            git(
                self.folder,
                "config",
                *where,
                "--add",
                key,
                value.replace("EVIL", str(self.program)),
            )

    def attributes(self, line: str) -> None:
        """Give all files an attribute, by a file that git status does not show."""
        (self.folder / ".git" / "info" / "attributes").write_text(line + "\n")

    def hook(self, path: Path) -> None:
        """Put the program where a hook is looked for."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(self.program)

    def touch(self) -> None:
        """Make git look into the files again: their times are no longer those of the index."""
        for path in self.folder.rglob("*.txt"):
            os.utime(path, ns=(1, 1))


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    """A trap that nothing leads to as yet."""
    folder = tmp_path / "repository"
    proof = tmp_path / "proof"
    evil = tmp_path / "evil"
    # Whatever it is called as, it passes on what it is given.
    evil.write_text(f'#!/bin/sh\necho "$0 $*" >> {proof}\nexec cat\n')
    evil.chmod(0o755)
    folder.mkdir()
    git(folder, "init", "-q")
    for name in ("changed.txt", "staged.txt", "same.txt"):
        (folder / name).write_text(f"{name}\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "the first commit")
    (folder / "staged.txt").write_text("staged\n")
    git(folder, "add", ".")
    (folder / "changed.txt").write_text("changed\n")
    (folder / "untracked.txt").write_text("untracked\n")
    return Trap(folder, proof, evil)


def _set_pager(trap: Trap) -> None:
    trap.set("core.pager=EVIL", "pager.diff=EVIL", "pager.status=EVIL", "pager.log=EVIL")


def _set_external_diff(trap: Trap) -> None:
    trap.set("diff.external=EVIL")


def _set_diff_driver(trap: Trap) -> None:
    trap.set("diff.x.command=EVIL")
    trap.attributes("* diff=x")


def _set_textconv(trap: Trap) -> None:
    trap.set("diff.x.textconv=EVIL", "diff.x.cachetextconv=true")
    trap.attributes("* diff=x")


def _set_clean_filter(trap: Trap) -> None:
    trap.set("filter.x.clean=EVIL", "filter.x.smudge=EVIL")
    trap.attributes("* filter=x")


def _set_required_filter(trap: Trap) -> None:
    trap.set("filter.x.clean=EVIL", "filter.x.required=true")
    trap.attributes("* filter=x")


def _set_process_filter(trap: Trap) -> None:
    trap.set("filter.x.process=EVIL", "filter.x.required=true")
    trap.attributes("* filter=x")


def _set_filter_with_odd_name(trap: Trap) -> None:
    like_a_secret = "gh" + "p_" + 36 * "a"
    for name in ("a.b", "é", "x'y\"z", "$(x)", "clean", "[x]", "#", "X", "-c", like_a_secret):
        trap.set(f"filter.{name}.clean=EVIL")
    trap.attributes(f"changed.txt filter=é\nsame.txt filter=a.b\nstaged.txt filter={like_a_secret}")


def _set_filter_without_name(trap: Trap) -> None:
    with (trap.folder / ".git" / "config").open("a") as config:
        config.write(f'[filter ""]\n\tclean = {trap.program}\n')
    trap.attributes("* filter=")


def _set_filter_that_is_no_utf8(trap: Trap) -> None:
    with (trap.folder / ".git" / "config").open("ab") as config:
        config.write(b'[filter "\xff\xfe"]\n\tclean = ' + os.fsencode(trap.program) + b"\n")
    (trap.folder / ".git" / "info" / "attributes").write_bytes(b"* filter=\xff\xfe\n")


def _set_filter_by_include(trap: Trap) -> None:
    trap.set("filter.x.clean=EVIL", "core.fsmonitor=EVIL", file=".git/more")
    trap.set("include.path=more", "includeIf.gitdir:**.path=more")
    trap.attributes("* filter=x")


def _set_filter_of_the_worktree(trap: Trap) -> None:
    trap.set("extensions.worktreeConfig=true")
    trap.set("filter.x.clean=EVIL", "core.fsmonitor=EVIL", file=".git/config.worktree")
    trap.attributes("* filter=x")


def _set_users_filter_to_evil(trap: Trap) -> None:
    git(trap.folder, "config", "--global", "filter.lfs.clean", "cat")
    trap.set("filter.lfs.clean=EVIL")
    trap.attributes("* filter=lfs")


def _set_extension_of_lfs(trap: Trap) -> None:
    # As git-lfs does: the user's filter starts what the repository's configuration names.
    lfs = trap.program.with_name("lfs")
    lfs.write_text('#!/bin/sh\nexec sh -c "$(git config lfs.extension.x.clean)"\n')
    lfs.chmod(0o755)
    git(trap.folder, "config", "--global", "filter.lfs.clean", str(lfs))
    trap.set("lfs.extension.x.clean=EVIL", "lfs.extension.x.smudge=EVIL")
    trap.attributes("* filter=lfs")


def _set_monitor(trap: Trap) -> None:
    trap.set("core.fsmonitor=EVIL", "core.fsmonitorHookVersion=1")


def _set_hooks(trap: Trap) -> None:
    # git diff and git status write the index once they have seen that nothing has changed.
    for name in ("post-index-change", "reference-transaction", "fsmonitor-watchman"):
        trap.hook(trap.folder / ".git" / "hooks" / name)


def _set_hooks_path(trap: Trap) -> None:
    trap.set("core.hooksPath=hooks-elsewhere")
    trap.hook(trap.folder / "hooks-elsewhere" / "post-index-change")
    (trap.folder / ".git" / "info" / "exclude").write_text("hooks-elsewhere\n")


def _set_signature(trap: Trap) -> None:
    git(trap.folder, "stash", "-q")
    commit = git(trap.folder, "cat-file", "commit", "HEAD").replace(
        "\n\n", "\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\n", 1
    )
    made = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"],
        cwd=trap.folder, input=commit, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    git(trap.folder, "update-ref", "HEAD", made)
    git(trap.folder, "stash", "pop", "-q", "--index")
    trap.set("log.showSignature=true", "gpg.program=EVIL", "gpg.ssh.program=EVIL")
    trap.set("gpg.openpgp.program=EVIL", "gpg.x509.program=EVIL", "format.pretty=%G? %h")


def _set_missing_objects(trap: Trap) -> None:
    # git would wait for ever for an answer from a program that echoes.
    trap.program.write_text(f'#!/bin/sh\necho "$0 $*" >> {trap.proof}\nexit 1\n')
    _remove_object(trap, "HEAD:changed.txt")
    _remove_object(trap, "HEAD:staged.txt")
    trap.set("core.repositoryFormatVersion=1", "extensions.partialClone=origin")
    trap.set("remote.origin.promisor=true", "remote.origin.partialCloneFilter=blob:none")
    trap.set("protocol.allow=always", "protocol.ssh.allow=always", "protocol.file.allow=always")


def _remove_object(trap: Trap, name: str) -> None:
    digest = git(trap.folder, "rev-parse", name).strip()
    (trap.folder / ".git" / "objects" / digest[:2] / digest[2:]).unlink()


def _set_promisor_by_ssh(trap: Trap) -> None:
    _set_missing_objects(trap)
    trap.set("remote.origin.url=ssh://127.0.0.1/x", "core.sshCommand=EVIL", "core.askPass=EVIL")


def _set_promisor_by_upload_pack(trap: Trap) -> None:
    _set_missing_objects(trap)
    trap.set(f"remote.origin.url={trap.folder}", "remote.origin.uploadpack=EVIL")


def _set_promisor_by_ext(trap: Trap) -> None:
    _set_missing_objects(trap)
    trap.set("remote.origin.url=ext::EVIL", "protocol.ext.allow=always")


def _set_promisor_by_http(trap: Trap) -> None:
    _set_missing_objects(trap)
    trap.set(
        "remote.origin.url=http://127.0.0.1:9/x", "credential.helper=!EVIL", "core.askPass=EVIL"
    )
    trap.set("protocol.http.allow=always", "remote.origin.vcs=ext", "protocol.ext.allow=always")


def _set_aliases(trap: Trap) -> None:
    trap.set(*(f"alias.{name}=!EVIL" for name in ("diff", "status", "log", "config")))
    trap.set("core.editor=EVIL", "sequence.editor=EVIL", "interactive.diffFilter=EVIL")
    trap.set("credential.helper=!EVIL", "core.askPass=EVIL", "trailer.x.command=EVIL")
    trap.set("core.alternateRefsCommand=EVIL", "core.gitProxy=EVIL", "diff.tool=x")
    trap.set("difftool.x.cmd=EVIL", "merge.x.driver=EVIL", "uploadpack.packObjectsHook=EVIL")


def add_submodule(trap: Trap, *settings: str) -> Path:
    """Add a submodule with a change inside and a commit more, whose configuration is as given."""
    sub = trap.folder / "sub"
    sub.mkdir()
    git(sub, "init", "-q")
    (sub / "inside.txt").write_text("inside\n")
    git(sub, "add", ".")
    git(sub, "commit", "-q", "-m", "in the submodule")
    git(trap.folder, "update-index", "--add", "--cacheinfo", f"160000,{_head(sub)},sub")
    git(trap.folder, "commit", "-q", "-m", "a submodule", "--", "sub")
    git(sub, "commit", "-q", "--allow-empty", "-m", "one more")
    (sub / "inside.txt").write_text("INSIDE\n")
    Trap(sub, trap.proof, trap.program).set(*settings)
    return sub


def _head(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD").strip()


def _set_submodule_monitor(trap: Trap) -> None:
    add_submodule(trap, "core.fsmonitor=EVIL", "core.fsmonitorHookVersion=1")


def _set_submodule_filter(trap: Trap) -> None:
    sub = add_submodule(trap, "filter.x.clean=EVIL", "filter.y.process=EVIL")
    (sub / ".git" / "info" / "attributes").write_text("* filter=x\n")


def _set_submodule_diff(trap: Trap) -> None:
    trap.set("diff.submodule=diff", "status.submoduleSummary=true", "diff.ignoreSubmodules=none")
    trap.set("submodule.sub.ignore=none", "submodule.recurse=true")
    add_submodule(trap, "diff.external=EVIL", "core.pager=EVIL", "log.showSignature=true")


# --- each by itself ---------------------------------------------------------------------------

# The trap, and whether plain git with these commands walks into it: a few are there only because a
# later git might.
TRAPS: list[tuple[Callable[[Trap], None], bool]] = [
    (_set_pager, False),  # only with a terminal
    (_set_external_diff, True),
    (_set_diff_driver, True),
    (_set_textconv, True),
    (_set_clean_filter, True),
    (_set_required_filter, True),
    (_set_process_filter, True),
    (_set_filter_with_odd_name, True),
    (_set_filter_without_name, True),
    (_set_filter_that_is_no_utf8, True),
    (_set_filter_by_include, True),
    (_set_filter_of_the_worktree, True),
    (_set_users_filter_to_evil, True),
    (_set_extension_of_lfs, True),
    (_set_monitor, True),
    (_set_hooks, True),
    (_set_hooks_path, True),
    (_set_signature, True),
    (_set_promisor_by_ssh, True),
    (_set_promisor_by_upload_pack, True),
    (_set_promisor_by_ext, True),
    (_set_promisor_by_http, False),
    (_set_aliases, False),  # a builtin cannot be an alias
    (_set_submodule_monitor, True),
    (_set_submodule_filter, True),
    (_set_submodule_diff, True),
]


@pytest.mark.parametrize(
    ("set_trap", "works"), TRAPS, ids=[set_trap.__name__[5:] for set_trap, _ in TRAPS]
)
def test_no_program_of_the_repository_is_started(
    trap: Trap,
    monkeypatch: pytest.MonkeyPatch,
    set_trap: Callable[[Trap], None],
    works: bool,
) -> None:
    """What the trap starts under plain git the runner does not start, and the output is right."""
    # Many a git does not know it yet; it must not be all that there is.
    monkeypatch.delitem(SHOWING_ENVIRONMENT, "GIT_NO_LAZY_FETCH")
    set_trap(trap)
    index = trap.folder / ".git" / "index"
    before = index.read_bytes()

    for command in COMMANDS:
        trap.touch()
        done = run_as_the_runner_does(trap.folder, command)

        assert not trap.proof.exists(), f"{command} started {trap.proof.read_text()}"
        expected = {
            "git diff": "+changed",
            "git diff --cached": "+staged",
            "git status": "untracked.txt",
            "git log --oneline -10": "the first commit",
        }[command]
        if "promisor" in set_trap.__name__ and "diff" in command:
            assert done.returncode != 0  # the object is not there, and not fetched
        else:
            assert (done.returncode, done.stderr) == (0, "")
            assert expected in done.stdout
    trap.touch()
    for command in COMMANDS:
        index.write_bytes(before)
        subprocess.run(
            command.split(),
            cwd=trap.folder,
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
        )
    assert trap.proof.exists() == works


def test_a_filter_that_cannot_be_named_lets_nothing_run(trap: Trap) -> None:
    """For a name with `=` git has no override on its command line, so the command is refused."""
    with (trap.folder / ".git" / "config").open("a") as config:
        config.write(f'[filter "a=b"]\n\tclean = {trap.program}\n')
    trap.attributes("* filter=a=b")
    trap.touch()

    for command in COMMANDS:
        with pytest.raises(AllowlistError, match="cannot be switched off"):
            run_as_the_runner_does(trap.folder, command)

    git(trap.folder, "status")
    assert trap.proof.exists()


def test_the_users_own_filter_works(trap: Trap) -> None:
    """A filter of the user's configuration, such as git-lfs, is used as ever."""
    git(trap.folder, "config", "--global", "filter.upper.clean", "tr a-z A-Z")
    git(trap.folder, "config", "--global", "filter.upper.required", "true")
    trap.set("filter.upper.clean=EVIL", "filter.upper.smudge=EVIL")
    trap.attributes("changed.txt filter=upper")
    trap.touch()

    assert "\n+CHANGED\n" in run_as_the_runner_does(trap.folder, "git diff").stdout
    assert not trap.proof.exists()


def test_the_users_own_environment_counts(
    trap: Trap, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """GIT_* variables come from the user, not from the repository; diffs are plain all the same."""
    settings = {"filter.upper.clean": "tr a-z A-Z", "core.pager": str(trap.program)}
    monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(settings)))
    for number, (key, value) in enumerate(settings.items()):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", f"'filter.other.clean={trap.program}'")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(trap.program))
    monkeypatch.setenv("GIT_PAGER", str(trap.program))
    trap.set("filter.upper.clean=EVIL")
    trap.attributes("changed.txt filter=upper")
    trap.touch()

    assert "\n+CHANGED\n" in run_as_the_runner_does(trap.folder, "git diff").stdout
    assert not trap.proof.exists()


# What else a user may allow that only shows, and what it prints of the trap's repository.
SHOWING = {
    "git annotate same.txt": "same.txt",
    "git archive HEAD": "same.txt",
    "git blame changed.txt": "changed",
    "git cat-file -p HEAD:same.txt": "same.txt",
    "git describe --always --dirty": "-dirty",
    "git diff-files -p": "+changed",
    "git diff-index -p HEAD": "+changed",
    "git diff-tree -p --root HEAD": "+changed.txt",
    "git grep --cached changed": "changed.txt:changed",
    "git log -p --remerge-diff": "+changed.txt",
    "git ls-files -m": "changed.txt",
    "git reflog -p": "+changed.txt",
    "git reflog show -p": "+changed.txt",
    "git shortlog HEAD": "the first commit",
    "git show --format=%G?%s": "the first commit",
    "git stash list -p": "+stashed",
    "git stash show -p": "+stashed",
    "git -p diff": "+changed",
}


def test_no_showing_command_starts_a_program_of_the_repository(trap: Trap) -> None:
    """What a user allows besides the documented commands is disarmed as they are."""
    (trap.folder / "same.txt").write_text("stashed\n")
    git(trap.folder, "stash", "push", "-q", "same.txt")
    _set_signature(trap)
    for set_trap, _ in TRAPS:
        if not any(word in set_trap.__name__ for word in ("submodule", "promisor", "signature")):
            set_trap(trap)
    trap.set("merge.x.driver=EVIL", "log.diffMerges=remerge", "tar.tar.command=EVIL")
    trap.attributes("* filter=x diff=x merge=x\nsame.txt filter=lfs")
    trap.proof.unlink(missing_ok=True)

    for command, shown in SHOWING.items():
        trap.touch()
        done = run_as_the_runner_does(trap.folder, command)

        assert not trap.proof.exists(), (command, trap.proof.read_text())
        assert shown in done.stdout, (command, done.stderr)


def test_a_folder_that_is_a_bare_repository_is_not_obeyed(trap: Trap) -> None:
    """Such a folder comes with a clone, its configuration with it: git has no part in it."""
    bare = trap.folder / "docs"
    bare.mkdir()
    for name in ("HEAD", "config", "index"):
        (bare / name).write_bytes((trap.folder / ".git" / name).read_bytes())
    for name in ("objects", "refs"):
        (bare / name).symlink_to(trap.folder / ".git" / name)
    trap.set("core.bare=false", "core.worktree=..", "diff.external=EVIL", file="docs/config")
    trap.set("core.fsmonitor=EVIL", "core.fsmonitorHookVersion=1", file="docs/config")

    for command in COMMANDS:
        decision = allowed(command)
        done = subprocess.run(
            decision.argv, cwd=bare, check=False, capture_output=True, text=True,
            env={**os.environ, **SHOWING_ENVIRONMENT},
        )  # fmt: skip
        assert done.returncode != 0
        assert "diff --no-index" in done.stderr or "cannot use bare repository" in done.stderr
    assert not trap.proof.exists()


def test_nothing_outside_the_working_tree_is_shown(trap: Trap, tmp_path: Path) -> None:
    """`core.worktree` could make git show any folder; the repository's own is what is shown."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "notes.txt").write_text("the plans for monday\n")
    blob = git(trap.folder, "rev-parse", "HEAD:same.txt").strip()
    git(trap.folder, "update-index", "--add", "--cacheinfo", f"100644,{blob},notes.txt")
    trap.set(f"core.worktree={home}")
    inside = trap.folder / "inside"
    inside.mkdir()

    assert "+the plans" in git(trap.folder, "diff")
    for folder in (trap.folder, inside):
        shown = run_as_the_runner_does(folder, "git diff").stdout
        assert "+changed" in shown
        assert "plans" not in shown
    with pytest.raises(AllowlistError, match="another working tree"):
        run_as_the_runner_does(inside, "git -C .. diff")


@pytest.mark.parametrize(
    ("setting", "command", "quoted"),
    [
        ("core.attributesFile", "git diff", "not a valid attribute name"),
        ("core.attributesFile", "git log -p", "not a valid attribute name"),
        ("mailmap.file", "git log --format=%aN", "Private Name"),
    ],
)
def test_no_file_outside_the_working_tree_is_quoted(
    trap: Trap, tmp_path: Path, setting: str, command: str, quoted: str
) -> None:
    """git quotes what it cannot read as what the repository says that it is."""
    private = tmp_path / "private"
    private.write_text("* pa$$word@host\nPrivate Name <p@example.org> <t@example.org>\n")
    trap.set(f"{setting}={private}")
    plain = subprocess.run(
        command.split(), cwd=trap.folder, capture_output=True, text=True, check=False
    )
    assert quoted in plain.stdout + plain.stderr

    done = run_as_the_runner_does(trap.folder, command)

    assert done.returncode == 0, done.stderr
    for word in ("pa$$word", "Private Name"):
        assert word not in done.stdout + done.stderr


def test_a_list_of_commits_is_not_quoted(trap: Trap, tmp_path: Path) -> None:
    """`git blame` with a file of the repository's choice says its first line; it is refused."""
    private = tmp_path / "private"
    private.write_text("pa$$word\n")
    trap.set(f"blame.ignoreRevsFile={private}")

    with pytest.raises(AllowlistError, match="unset it there"):
        run_as_the_runner_does(trap.folder, "git blame changed.txt")
    assert "+changed" in run_as_the_runner_does(trap.folder, "git diff").stdout


def test_a_search_does_not_follow_links_out_of_the_working_tree(trap: Trap, tmp_path: Path) -> None:
    """A folder that became a link is read through by git, unless only what is tracked is read."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "same.txt").write_text("the plans for monday\n")
    (trap.folder / "docs").mkdir()
    (trap.folder / "docs" / "same.txt").write_text("tracked\n")
    git(trap.folder, "add", "docs")
    (trap.folder / "docs" / "same.txt").unlink()
    (trap.folder / "docs").rmdir()
    (trap.folder / "docs").symlink_to(tmp_path / "home")
    assert "plans" in git(trap.folder, "grep", "the plans")

    with pytest.raises(AllowlistError, match="write git grep --cached"):
        allowed("git grep plans")
    assert run_as_the_runner_does(trap.folder, "git grep --cached plans").stdout == ""
    for command in COMMANDS:
        assert "plans" not in run_as_the_runner_does(trap.folder, command).stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_the_output_is_that_of_plain_git(trap: Trap, command: str) -> None:
    """Without a trap nothing is different from what the user sees."""
    add_submodule(trap)
    git(trap.folder / "sub", "checkout", "-q", "--", ".")

    done = run_as_the_runner_does(trap.folder, command)

    assert done.stdout == git(trap.folder, *command.split()[1:])
    assert "Subproject commit" in done.stdout or command != "git diff"


# --- all at once, through the runner ----------------------------------------------------------


@pytest.fixture
def gw() -> Iterator[StrictGateway]:
    """A gateway that knows no rate limit."""
    with StrictGateway(rate_limit=None) as gateway:
        yield gateway


def test_the_runner_starts_no_program_of_the_repository(
    gw: StrictGateway, trap: Trap, tmp_path: Path
) -> None:
    """With every trap set at once, each command is answered with what git has to show."""
    _set_signature(trap)
    for set_trap, _ in TRAPS:
        if not any(word in set_trap.__name__ for word in ("submodule", "promisor", "signature")):
            set_trap(trap)
    attributes = (
        "* filter=x diff=x\nchanged.txt filter=lfs\nstaged.txt filter=\nsame.txt filter=a.b\n"
    )
    (trap.folder / ".git" / "info" / "attributes").write_text(attributes)
    _set_submodule_filter(trap)
    # So much configuration that it does not fit into an acknowledgement.
    with (trap.folder / ".git" / "config").open("a") as config:
        for number in range(3_000):
            config.write(f'[branch "{number:050}"]\n\tremote = origin\n')
    trap.touch()
    trap.proof.unlink(missing_ok=True)
    folder = tmp_path / "run"
    folder.mkdir()
    launch = plan(
        gw, program("import signal; print('READY 1', flush=True); signal.pause()"), folder,
        cwd=trap.folder,
    )  # fmt: skip

    with RunnerProcess(launch) as runner:
        launch.expect_pid()
        ids = [gw.queue_command(launch.run.id, command) for command in COMMANDS]
        gw.wait_for(lambda: not gw.pending(launch.run.id), 20)
        gw.wait_for(lambda: len(gw.artifacts(launch.run.id)) == 2)
        gw.queue_command(launch.run.id, "__HALT__")
        runner.wait()

    assert not trap.proof.exists(), trap.proof.read_text()
    acks = [gw.acks(launch.run.id)[each][-1] for each in ids]
    assert [ack.error for ack in acks] == [None] * 4
    shown = ("+changed", "+staged", "untracked.txt", "the first commit")
    results = [ack.result or "" for ack in acks]
    assert [result for words, result in zip(shown, results) if words not in result] == []
    assert [b"+changed" in each.data for each in gw.artifacts(launch.run.id)[:2]] == [True, False]


def test_a_broken_configuration_lets_nothing_run(
    gw: StrictGateway, trap: Trap, tmp_path: Path
) -> None:
    """What git says about it is the error; a name that cannot be switched off is one too."""
    folder = tmp_path / "run"
    folder.mkdir()
    launch = plan(gw, child("leaves_grandchild.py", "--stay"), folder, cwd=trap.folder)
    config = trap.folder / ".git" / "config"
    good = config.read_text()

    with RunnerProcess(launch) as runner:
        launch.expect_pid()
        errors = []
        for text in ("[broken\n", f'[filter "a=b"]\n\tclean = {trap.program}\n'):
            config.write_text(good + text)
            command_id = gw.queue_command(launch.run.id, "git status")
            gw.wait_for(lambda command_id=command_id: command_id in gw.acks(launch.run.id))  # type: ignore[misc]
            errors.append(gw.acks(launch.run.id)[command_id][-1].error or "")
        gw.queue_command(launch.run.id, "__HALT__")
        runner.wait()

    assert errors[0].startswith("exit code 128\n")
    assert "bad config line" in errors[0]
    assert errors[1] == "its configuration names a program that cannot be switched off"
    assert not trap.proof.exists()


def test_commands_see_the_runs_folder_and_no_other_repository(
    gw: StrictGateway, trap: Trap, tmp_path: Path
) -> None:
    """A runner that a hook of git starts has GIT_DIR, and PWD is its caller's: neither counts."""
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "of the other repository")
    (tmp_path / "run").mkdir()
    source = (
        "import os, signal; print('READY 1', os.environ['PWD'] == os.getcwd(), flush=True); "
        "signal.pause()"
    )
    launch = plan(
        gw, program(source), tmp_path / "run", cwd=trap.folder,
        env={
            "EXTRA_ALLOWED_COMMANDS": "printenv PWD,printenv GIT_DIR,printenv GIT_CONFIG",
            "GIT_CONFIG": os.devnull,
            "GIT_DIR": str(other / ".git"),
            "GIT_INDEX_FILE": str(other / ".git" / "index"),
            "PWD": str(tmp_path),
        },
    )  # fmt: skip

    with RunnerProcess(launch) as runner:
        launch.expect("READY 1 True")
        commands = ("git log --oneline -10", "git diff", "printenv PWD")
        ids = [gw.queue_command(launch.run.id, command) for command in commands]
        unset = [
            gw.queue_command(launch.run.id, f"printenv {each}")
            for each in ("GIT_DIR", "GIT_CONFIG")
        ]
        gw.wait_for(lambda: not gw.pending(launch.run.id), 20)
        gw.queue_command(launch.run.id, "__HALT__")
        runner.wait()

    log, diff, pwd = (gw.acks(launch.run.id)[each][-1].result or "" for each in ids)
    assert "the first commit" in log
    assert "+changed" in diff
    assert pwd == f"{trap.folder}\n"
    assert [gw.acks(launch.run.id)[each][-1].error for each in unset] == ["exit code 1"] * 2
