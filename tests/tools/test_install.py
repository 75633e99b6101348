"""`install` as its user meets it: another project gets the runner, a newer one, or none of it."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import claude_runner
import config
from config import load_config
from kinds.claude import ClaudeProfile
from places import program_files
from testing.needs import needs
from testing.programs.runner_files import ROOT, RUNNER_FILES, copy_runner
from testing.programs.terminal import Terminal
from testing.waiting import eventually
from tools import command_line

SECRET = "s3" * 16
WITHIN_S = 60.0
# What most copies have of the program: `install` asks no more of it than that it has these names.
PROGRAM = [
    *("allowlist.py", "claude_runner.py", "journal/__init__.py", "journal/spool.py", "places.py"),
    *("redact.py", "redaction/__init__.py", "redaction/tokens.txt", "rev_runner.py"),
    *("runner/__init__.py", "tools/__init__.py"),
]
BESIDE = {".gitattributes", "INSTALLED", "LICENSE", "README", "requirements.txt"}
SHIMS = {"claude-runner", "rev-runner"}
_BESIDE_THE_PROGRAM = RUNNER_FILES[len(program_files(ROOT)) :]
INSTALLED = {f"wrapper/{name}" for name in (*BESIDE, *SHIMS, *(f"program/{n}" for n in PROGRAM))}


@dataclass
class _Copy:
    """A copy of the runner, from which it is installed into `project`."""

    root: Path
    project: Path
    monkeypatch: pytest.MonkeyPatch
    capfd: pytest.CaptureFixture[str]

    @property
    def program(self) -> Path:
        return self.project / "wrapper" / "program"

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.root / "claude_runner.py"), "install", *arguments]

    def use(self, *arguments: str) -> tuple[int, str, str]:
        """Install, or what the arguments say: the exit code, stdout and stderr.

        In this process: to start a Python for each of some hundred calls shows nothing more.
        """
        self.monkeypatch.setattr(command_line, "PROGRAM", self.root)
        self.capfd.readouterr()
        code = claude_runner.main(["install", str(self.project), *arguments])
        return (code, *self.capfd.readouterr())

    def succeed(self, *arguments: str) -> str:
        """Return what it printed."""
        code, printed, complaint = self.use(*arguments)
        assert code == 0, complaint
        return printed

    def fail(self, *arguments: str) -> str:
        """Return the one line that it fails with; the project is as before."""
        before = snapshot(self.project)
        code, printed, complaint = self.use(*arguments)
        assert (code, printed) == (1, "")
        assert complaint.count("\n") == 1, complaint
        assert snapshot(self.project) == before
        return complaint

    def age(self, name: str) -> None:
        """Make this copy another version, of which one file differs."""
        path = self.root / name
        path.write_text(path.read_text("utf-8") + "# another version\n", "utf-8")


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its content; a link with where it leads."""
    return {
        str(path.relative_to(folder)): os.readlink(path).encode()
        if path.is_symlink()
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def sums(files: dict[str, bytes]) -> str:
    """Return files as `sha256sum` writes them."""
    return "".join(f"{hashlib.sha256(text).hexdigest()}  {name}\n" for name, text in files.items())


@pytest.fixture
def copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> _Copy:
    """A copy of some of the runner, and an empty project whose name has a blank."""
    root, project = tmp_path / "runner", tmp_path / "my project"
    copy_runner(root, (*PROGRAM, *_BESIDE_THE_PROGRAM))
    project.mkdir()
    return _Copy(root, project, monkeypatch, capfd)


@pytest.fixture
def whole(copy: _Copy) -> _Copy:
    """A copy of the whole runner, which can be started."""
    copy_runner(copy.root)
    return copy


# --- what is written -------------------------------------------------------------------------


def test_one_folder_is_written_and_works(whole: _Copy) -> None:
    """The program as it is here, with its modes; in the root only `.env` and `.gitignore`."""
    (whole.project / "wrapper").mkdir()
    (whole.project / "wrapper" / "theirs.txt").write_text("theirs")

    printed = whole.succeed()

    assert set(os.listdir(whole.project)) == {"wrapper", ".env", ".gitignore"}
    program_of_all = program_files(ROOT)
    written = {*BESIDE, *SHIMS, *(f"program/{name}" for name in program_of_all)}
    assert set(snapshot(whole.project / "wrapper")) == written | {"theirs.txt"}
    for name in program_of_all:
        assert (whole.program / name).read_bytes() == (whole.root / name).read_bytes()
    for path in (whole.project / "wrapper").iterdir():
        mode = 0o755 if path.name in (*SHIMS, "program") else 0o644
        assert path.name == "theirs.txt" or stat.S_IMODE(path.stat().st_mode) == mode
    assert len((whole.project / "wrapper" / "README").read_text().splitlines()) == 5
    assert "LICENSE" in BESIDE
    assert f"{len(written) - 1} files written in {whole.project / 'wrapper'}\n" in printed
    program = [sys.executable, "-B", str(whole.program / "claude_runner.py"), "--version"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=WITHIN_S)
    assert (done.returncode, done.stdout[:14]) == (0, "claude-runner ")


def test_the_folder_may_have_another_name(copy: _Copy) -> None:
    """It is found again without its name, and a second one is refused."""
    copy.succeed("--folder", "tools")

    assert {path.name for path in copy.project.iterdir()} == {"tools", ".env", ".gitignore"}
    assert f"is in {copy.project / 'tools'} already; leave --folder out" in copy.fail(
        "--folder", "wrapper"
    )
    assert f"is in {copy.project / 'tools'} already" in copy.succeed("--upgrade")
    copy.succeed("--uninstall")
    assert snapshot(copy.project) == {}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", ".git", ".Env", ".data", ".gitignore", ".npmignore", "-x", "a b"]
)
def test_a_name_that_is_no_folder_of_ours_is_refused(name: str, copy: _Copy) -> None:
    """One part of a path, and none that means something else."""
    assert "--folder is " in copy.fail("--folder", name)


def test_a_second_time_changes_nothing(copy: _Copy) -> None:
    """Neither a file nor `.gitignore`, which gets no line twice."""
    copy.succeed()
    before = {path: path.stat().st_mtime_ns for path in copy.project.rglob("*")}

    printed = copy.succeed()

    assert {path: path.stat().st_mtime_ns for path in copy.project.rglob("*")} == before
    assert "already" in printed


def test_a_second_time_heals_what_is_missing(copy: _Copy) -> None:
    """Files, the program, a lost mode, and CR LF that git has written."""
    copy.succeed()
    before = snapshot(copy.project)
    wrapper = copy.project / "wrapper"
    (wrapper / "LICENSE").unlink()
    (wrapper / "claude-runner").chmod(0o644)
    crlf = (wrapper / "rev-runner").read_bytes().replace(b"\n", b"\r\n")
    (wrapper / "rev-runner").write_bytes(crlf)
    (copy.program / PROGRAM[0]).unlink()
    (copy.program / "__pycache__").mkdir()
    (copy.program / "__pycache__" / "redact.cpython-39.pyc").write_bytes(b"")

    copy.succeed()

    assert snapshot(copy.project) == before
    assert os.access(wrapper / "claude-runner", os.X_OK)


@needs("sha256sum")
def test_the_note_is_what_sha256sum_checks(copy: _Copy) -> None:
    """A user can see with a standard tool whether the copy is as it was installed."""
    copy.succeed()

    check = ["sha256sum", "--strict", "--quiet", "-c", "INSTALLED"]
    wrapper = copy.project / "wrapper"
    done = subprocess.run(check, cwd=wrapper, capture_output=True, timeout=WITHIN_S)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert len((wrapper / "INSTALLED").read_text().splitlines()) == len(INSTALLED) - 1


def test_a_copy_can_be_copied_on(copy: _Copy, tmp_path: Path) -> None:
    """What is installed can itself install the same files, and not into itself."""
    copy.succeed()
    third = tmp_path / "third"
    third.mkdir()

    replace(copy, root=copy.program, project=third).succeed()

    assert snapshot(third / "wrapper") == snapshot(copy.project / "wrapper")
    assert "has this copy of the runner" in replace(copy, root=copy.program).fail()


@pytest.mark.parametrize("name", ["My-Notes.py", "tools/Übersicht.txt", "runner/to do/list.txt"])
def test_what_somebody_left_in_the_copy_does_not_travel(name: str, copy: _Copy) -> None:
    """A name that no file of ours has would stand in a note that nobody believes."""
    (copy.root / name).parent.mkdir(exist_ok=True)
    (copy.root / name).write_text("mine\n")

    copy.succeed()

    assert not (copy.program / name).exists()
    copy.succeed("--uninstall")
    assert snapshot(copy.project) == {}


@needs("git")
def test_git_keeps_the_files_as_they_are(copy: _Copy, tmp_path: Path) -> None:
    """A clone by git for Windows has shims that start, and an upgrade takes it as unchanged."""
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    copy.succeed()
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Begin"]):
        subprocess.run([*git, *arguments], cwd=copy.project, check=True)
    clone = tmp_path / "clone"

    subprocess.run(
        ["git", "clone", "-q", "-c", "core.autocrlf=true", str(copy.project), str(clone)],
        check=True,
    )

    for name in SHIMS:
        assert b"\r" not in (clone / "wrapper" / name).read_bytes()
    assert snapshot(clone / "wrapper") == snapshot(copy.project / "wrapper")
    (clone / "wrapper" / ".gitattributes").unlink()
    for path in (clone / "wrapper").rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    copy.age("redact.py")
    printed = replace(copy, project=clone).succeed("--upgrade")
    assert "kept" not in printed
    assert b"\r" not in (clone / "wrapper" / "program" / "redact.py").read_bytes()


# --- what is in the way ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
@pytest.mark.parametrize("name", ["README", "program/mine.py"])
def test_a_foreign_file_stops_it(name: str, kind: str, copy: _Copy, tmp_path: Path) -> None:
    """It is named, and nothing is written; a link is never followed."""
    path = copy.project / "wrapper" / name
    path.parent.mkdir(parents=True)
    if kind == "link":
        path.symlink_to(tmp_path / "runner" / "LICENSE")
    elif kind == "folder":
        path.mkdir()
        (path / "theirs").write_text("theirs")
    else:
        path.write_text("print('mine')\n")

    sentence = copy.fail()

    assert f"files of its own where the runner's would go: wrapper/{name}" in sentence
    assert "with `install --folder`; nothing was changed" in sentence  # `up` has no such option
    assert "nothing was changed" in sentence


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda project: project.rmdir(), "does not exist"),
        (lambda project: (project.rmdir(), project.write_text("")), "is not a folder"),
        (lambda project: (project / "wrapper").write_text(""), "wrapper is not a folder"),
        (lambda project: (project / "wrapper").symlink_to(project.parent), "wrapper is a link"),
        (
            lambda project: (
                (project / "wrapper").mkdir(),
                (project / "wrapper" / "program").symlink_to(project.parent / "runner"),
            ),
            "wrapper/program is a link",
        ),
        (
            lambda project: (
                (project / "wrapper").mkdir(),
                (project / "wrapper" / "INSTALLED").symlink_to("/dev/zero"),
            ),
            "INSTALLED is not a file",
        ),
    ],
    ids=["missing", "file", "wrapper-is-a-file", "wrapper-is-a-link", "program-is-a-link", "note"],
)
def test_a_folder_of_no_use_is_one_sentence(
    prepare: Callable[[Path], object], words: str, copy: _Copy
) -> None:
    """It says what is wrong with which path."""
    prepare(copy.project)

    assert words in copy.fail()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_sentence(copy: _Copy) -> None:
    """Before anything is tried."""
    copy.project.chmod(0o500)

    assert "cannot be written; nothing was changed" in copy.fail()


@pytest.mark.parametrize("inside", [".", "wrapper"])
def test_into_itself_is_refused(inside: str, copy: _Copy) -> None:
    """The copy and what lies in it are no other project."""
    copy.project = copy.root / inside

    assert "has this copy of the runner; name another project" in copy.fail()


def test_a_link_to_the_project_is_the_project(copy: _Copy, tmp_path: Path) -> None:
    """Only what lies inside of it must not be a link."""
    link = tmp_path / "link"
    link.symlink_to(copy.project)

    replace(copy, project=link).succeed()

    assert (copy.program / "claude_runner.py").is_file()


def test_contradicting_options_are_refused(copy: _Copy) -> None:
    """And so is an upgrade or a removal where nothing was installed."""
    assert "not both" in copy.fail("--upgrade", "--uninstall")
    assert "--purge goes with --uninstall" in copy.fail("--purge")
    assert "INSTALLED is not there; install without --upgrade" in copy.fail("--upgrade")
    assert "INSTALLED is not there, so `install` wrote nothing" in copy.fail("--uninstall")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../victim",
            "/etc/passwd",
            "program/../../victim.py",
            "program/../victim.py",
            "setup.py",
        ),
        *("wrapper/../victim", "docs/.bashrc", "program/UPPER.py", "program/x.sh", "README/x", "."),
    ],
)
@pytest.mark.parametrize("option", ["--upgrade", "--uninstall"])
def test_a_note_names_only_what_a_version_wrote(name: str, option: str, copy: _Copy) -> None:
    """Whoever wrote it: it must not lead out of the project, nor to files of the project."""
    copy.succeed()
    for victim in (copy.project.parent / "victim", copy.project / "setup.py"):
        victim.write_text("precious")
    with (copy.project / "wrapper" / "INSTALLED").open("a") as note:
        note.write(sums({name: b"precious"}))

    assert "has a line that `install` did not write" in copy.fail(option)


@pytest.mark.parametrize("option", ["--upgrade", "--uninstall"])
def test_a_link_in_the_project_is_not_followed(option: str, copy: _Copy) -> None:
    """A folder of the program that leads elsewhere stops it, and is named."""
    copy.succeed()
    outside = copy.project.parent / "outside"
    outside.mkdir()
    (outside / "precious.py").write_text("precious")
    (copy.program / "linked").symlink_to(outside)
    with (copy.project / "wrapper" / "INSTALLED").open("a") as note:
        note.write(sums({"program/linked/precious.py": b"precious"}))
    copy.age("redact.py")

    assert f"{copy.program / 'linked'} is a link; move it away" in copy.fail(option)
    assert (outside / "precious.py").exists()


def test_an_incomplete_copy_says_what_it_lacks(copy: _Copy) -> None:
    """Before it writes anything."""
    (copy.root / "LICENSE").unlink()

    assert "LICENSE cannot be read (No such file or directory), so this copy" in copy.fail()


# --- upgrade ---------------------------------------------------------------------------------


def test_an_upgrade_replaces_the_program(copy: _Copy) -> None:
    """Without `--upgrade` it says so; with it, new files come and dropped ones go."""
    copy.succeed()
    (copy.project / "wrapper" / "theirs.txt").write_text("theirs")
    copy.age("redact.py")
    (copy.root / "new_part.py").write_text("")
    (copy.root / "journal").mkdir(exist_ok=True)
    (copy.root / "journal" / "new_room.py").write_text("")

    assert "another version is installed in" in copy.fail()
    printed = copy.succeed("--upgrade")

    assert (copy.program / "redact.py").read_bytes() == (copy.root / "redact.py").read_bytes()
    assert (copy.program / "new_part.py").is_file()
    assert (copy.program / "journal" / "new_room.py").is_file()
    assert (copy.project / "wrapper" / "theirs.txt").read_text() == "theirs"
    assert "3 files written" in printed
    for name in ("new_part.py", "journal/new_room.py"):
        (copy.root / name).unlink()
    copy.succeed("--upgrade")
    assert not (copy.program / "new_part.py").exists()
    assert not (copy.program / "journal" / "new_room.py").exists()


def test_an_upgrade_keeps_what_the_user_changed_beside_the_program(copy: _Copy) -> None:
    """Each time, until the user has moved it away."""
    copy.succeed()
    copy.age("wrapper/claude-runner")
    copy.age("redact.py")
    (copy.project / "wrapper" / "claude-runner").write_text("# mine\n")

    printed = [copy.succeed("--upgrade"), copy.succeed("--upgrade")]

    assert (copy.project / "wrapper" / "claude-runner").read_text() == "# mine\n"
    assert (copy.program / "redact.py").read_bytes() == (copy.root / "redact.py").read_bytes()
    for each in printed:
        assert "kept, because they were changed: wrapper/claude-runner; to get this" in each
    (copy.project / "wrapper" / "claude-runner").unlink()
    copy.succeed("--upgrade")
    assert (copy.project / "wrapper" / "claude-runner").read_bytes() == (
        copy.root / "wrapper" / "claude-runner"
    ).read_bytes()


@pytest.mark.parametrize("name", ["redact.py", "mine.py", "journal/mine.txt"])
def test_an_upgrade_does_not_lose_what_is_in_the_program(name: str, copy: _Copy) -> None:
    """The folder goes as a whole, so a file that was changed, or is the user's, stops it."""
    copy.succeed()
    copy.age("allowlist.py")
    (copy.program / name).parent.mkdir(exist_ok=True)
    (copy.program / name).write_text("# mine\n")

    sentence = copy.fail("--upgrade")

    assert f"did not write them: wrapper/program/{name}; move them away" in sentence


# The modules that were in the root of a project when there was no folder for them.
FLAT_MODULES = """
    allowlist artifact_upload assist assist_tmate child_end child_events child_terminals
    claude_profile claude_runner claude_state claude_stream command_executor command_line delivery
    gateway_check gateway_client gateway_launch gateway_pacer gateway_transport keeper
    local_terminal process_tree project_install pty_pump redact redact_headers redact_json
    redact_judges redact_keys redact_known redact_layouts redact_names redact_shapes redact_tokens
    redact_values redact_view remote_control rev_runner run_files run_folder run_plan runner_config
    runner_doctor runner_mailbox runner_session session_terminal shell_completion spool
    spool_events spool_store spool_syncer sync_runs
"""
FLAT = [
    *(f"{name}.py" for name in FLAT_MODULES.split()),
    ".env.example",
    *(f"wrapper/{name}" for name in ("FILES", "claude-runner", "requirements.txt", "rev-runner")),
]


def install_flat(project: Path, names: list[str]) -> None:
    """Install these files, and the old shims, as versions did that had no folder of their own."""
    files = {name: f"# the old {name}\n".encode() for name in (*names, "wrapper/claude-runner")}
    (project / "wrapper").mkdir()
    for name, content in files.items():
        (project / name).write_bytes(content)
    (project / "wrapper" / "INSTALLED").write_text(sums(files))


def test_an_upgrade_takes_the_modules_out_of_the_root(copy: _Copy) -> None:
    """Those that are as they were installed; the others are named, and theirs is not touched."""
    install_flat(copy.project, FLAT)
    (copy.project / "delivery.py").write_text("# mine\n")
    (copy.project / "spool.py").unlink()
    (copy.project / "theirs.py").write_text("theirs")
    assert "another version is installed" in copy.fail()

    printed = copy.succeed("--upgrade")

    assert set(snapshot(copy.project)) == INSTALLED | {
        *(".env", ".gitignore", "delivery.py", "theirs.py")
    }
    assert "kept, because they were changed: delivery.py;" in printed
    assert copy.succeed("--upgrade").startswith("claude-runner 0.1.0 is in ")


def test_the_modules_in_the_root_can_be_removed(copy: _Copy) -> None:
    """Without an upgrade before."""
    install_flat(copy.project, FLAT)
    (copy.project / "theirs.py").write_text("theirs")

    copy.succeed("--uninstall")

    assert snapshot(copy.project) == {"theirs.py": b"theirs"}


# --- uninstall -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before",
    [
        {},
        {".gitignore": b""},
        {".gitignore": b"*.o\n", ".npmignore": b"", "README": b"theirs"},
        {".gitignore": b"*.o", ".dockerignore": b"a\r\nb\r\n"},
        {".gitignore": b"*.o\r\nlast", ".hgignore": b"syntax: glob\n*.o"},
        {".gitignore": b".env\n.data/\n", ".env": b"DATABASE_URL=x\n"},
    ],
    ids=["empty", "empty-file", "three", "unended", "crlf-unended", "ignored-already"],
)
def test_uninstall_leaves_the_tree_as_it_was(before: dict[str, bytes], copy: _Copy) -> None:
    """Byte for byte, in a project that started no run."""
    for name, content in before.items():
        (copy.project / name).write_bytes(content)
    copy.succeed()

    printed = copy.succeed("--uninstall")

    assert snapshot(copy.project) == before
    assert {path.name for path in copy.project.iterdir()} == set(before)
    assert "the cache folder of claude-runner stays" in printed


def test_uninstall_keeps_what_is_the_users(copy: _Copy) -> None:
    """Settings that were filled in, data, changed files and files of theirs; all are named."""
    (copy.project / ".gitignore").write_text("*.o\n")
    copy.succeed()
    (copy.project / ".env").write_text((copy.project / ".env").read_text() + "X=1\n")
    (copy.project / ".data").mkdir()
    (copy.project / ".data" / "journal").write_text("kept")
    (copy.project / "wrapper" / "LICENSE").write_text("mine")
    (copy.project / "wrapper" / "notes.txt").write_text("mine")
    (copy.program / "mine.py").write_text("mine")
    (copy.program / "__pycache__").mkdir()

    printed = copy.succeed("--uninstall")

    theirs = {"wrapper/LICENSE", "wrapper/notes.txt", "wrapper/program/mine.py"}
    assert set(snapshot(copy.project)) == {".data/journal", ".env", ".gitignore", *theirs}
    assert (
        "kept, because they are yours: .env, .data, wrapper/LICENSE, wrapper/notes.txt, "
        "wrapper/program/mine.py\n"
    ) in printed
    # The secret must not be committed now.
    assert ".env" in (copy.project / ".gitignore").read_text().split()
    assert "the lines in ignore files stay, because" in printed


def test_purge_removes_the_settings_and_the_data_too(copy: _Copy) -> None:
    """Only in the project: a link is removed, and not what it leads to."""
    copy.succeed()
    (copy.project / ".env").write_text(f"HMAC_SECRET={SECRET}\n")
    outside = copy.project.parent / "data"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    (copy.project / ".data").symlink_to(outside)

    copy.succeed("--uninstall", "--purge")

    assert snapshot(copy.project) == {}
    assert (outside / "precious").exists()


@pytest.mark.parametrize("options", [("--uninstall",), ("--uninstall", "--purge")])
def test_uninstall_waits_for_what_is_not_delivered(options: tuple[str, ...], copy: _Copy) -> None:
    """It names the run, and both commands; nothing is removed."""
    copy.succeed()
    for run, names in (("run-7", ["spool.db"]), ("run-8", ["spool.db", "delivered"])):
        folder = copy.project / ".data" / "runs" / run
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()

    sentence = copy.fail(*options)

    assert "does not have everything of run-7 yet; `" in sentence
    assert "wrapper/claude-runner sync` sends it" in sentence
    assert "sync --discard ID` deletes it" in sentence


@pytest.mark.parametrize("named", ["../elsewhere", "{}/elsewhere"])
def test_uninstall_waits_for_what_lies_elsewhere(named: str, copy: _Copy) -> None:
    """The folder of the runs is what `.env` says; it stays, and is named."""
    copy.succeed()
    elsewhere = copy.project.parent / "elsewhere"
    with (copy.project / ".env").open("a") as lines:
        lines.write(f"CLAUDE_RUNNER_DATA_DIR='{named.format(copy.project.parent)}'\n")
    (elsewhere / "runs" / "run-7").mkdir(parents=True)
    (elsewhere / "runs" / "run-7" / "spool.db").touch()
    assert "does not have everything of run-7 yet; `" in copy.fail("--uninstall", "--purge")
    (elsewhere / "runs" / "run-7" / "delivered").touch()

    assert "elsewhere, with the data of runs, stays\n" in copy.succeed("--uninstall", "--purge")

    assert snapshot(copy.project) == {}
    assert (elsewhere / "runs" / "run-7" / "delivered").exists()


def test_a_copy_can_remove_itself(copy: _Copy) -> None:
    """From inside the project, as somebody would who has no clone."""
    copy.succeed()

    replace(copy, root=copy.program).succeed("--uninstall")

    assert snapshot(copy.project) == {}


# --- broken off ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["install", "upgrade", "flat", "uninstall"])
def test_what_was_killed_at_any_step_can_be_repeated(kind: str, tmp_path: Path) -> None:
    """The program is whole, or set aside whole, at each moment; the same command then heals it."""
    modules = ("claude_runner.py", "redact.py", "journal/spool.py")
    for version in ("old", "new"):
        root = tmp_path / version
        copy_runner(root, _BESIDE_THE_PROGRAM)
        for name in (*modules, *(f"modules/{name}" for name in modules)):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(f"# the {version} version of {Path(name).name}\n")
    (tmp_path / "flat").mkdir()
    install_flat(tmp_path / "flat", FLAT[-3:])
    argv = [sys.executable, "-m", "testing.broken_off"]

    done = subprocess.run(
        [*argv, kind, *(str(tmp_path / name) for name in ("old", "new", "."))],
        cwd=ROOT,
        env={**os.environ, "PATH": ""},  # git has nothing to say here, and takes time
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


# --- ignore files ----------------------------------------------------------------------------

HEADING = "# claude-runner keeps its secrets and output out:\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"{HEADING}.env\n.data/\n"),
        ("*.o\r\nx/\r\n", f"*.o\r\nx/\r\n{HEADING[:-1]}\r\n.env\r\n.data/\r\n"),
        ("/.env\n.data\n", "/.env\n.data\n"),
        (".env\n", f".env\n{HEADING}.data/\n"),
        ("# .env\n.env.local\n", f"# .env\n.env.local\n{HEADING}.env\n.data/\n"),
        (".env\n!.env\n/.data/\n", f".env\n!.env\n/.data/\n{HEADING}.env\n"),
    ],
    ids=["empty", "crlf", "both", "one", "look-alikes", "taken-back"],
)
@pytest.mark.parametrize("name", [".gitignore", ".npmignore", ".dockerignore"])
def test_ignore_files_get_what_they_lack(name: str, before: str, after: str, copy: _Copy) -> None:
    """In their own line ends, and what was there stays as it is; `--uninstall` takes it out."""
    (copy.project / name).write_bytes(before.encode())

    copy.succeed()

    assert (copy.project / name).read_bytes() == after.encode()
    copy.succeed("--uninstall")
    assert (copy.project / name).read_bytes() == before.encode()


def test_lines_without_an_end_and_lines_that_came_later_stay(copy: _Copy) -> None:
    """What the user wrote below our lines is theirs."""
    (copy.project / ".gitignore").write_text("*.o")
    copy.succeed()
    assert (copy.project / ".gitignore").read_text().endswith("):\n.env\n.data/\n")
    with (copy.project / ".gitignore").open("a") as lines:
        lines.write("later\n")

    copy.succeed("--uninstall")

    assert (copy.project / ".gitignore").read_text() == "*.o\nlater\n"


@pytest.mark.parametrize(
    ("before", "missing"),
    [
        (b"\\.o$\n", [b"glob:.env", b"glob:.data"]),
        (b"syntax: glob\n.env\n", [b"glob:.data"]),
        (b"syntax: regexp\n.env\n", [b"glob:.env", b"glob:.data"]),
    ],
)
def test_mercurials_ignore_file_gets_patterns_for_any_syntax(
    before: bytes, missing: list[bytes], copy: _Copy
) -> None:
    """Its lines are regular expressions unless it says otherwise."""
    (copy.project / ".hgignore").write_bytes(before)

    copy.succeed()

    added = (copy.project / ".hgignore").read_bytes()[len(before) :].splitlines()
    assert added[1:] == missing


@pytest.mark.parametrize("name", [".gitignore", ".npmignore"])
def test_an_ignore_file_that_is_a_link_is_left_alone(
    name: str, copy: _Copy, tmp_path: Path
) -> None:
    """What it leads to belongs to others as well, so the user is told the lines."""
    (tmp_path / "shared-ignore").write_text("*.o\n")
    (copy.project / name).symlink_to(tmp_path / "shared-ignore")

    printed = copy.succeed()

    assert (tmp_path / "shared-ignore").read_text() == "*.o\n"
    assert f"{name} is a link and was not changed; add .env and .data/ yourself" in printed


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
@pytest.mark.parametrize("name", [".gitignore", ".dockerignore"])
def test_an_ignore_file_that_is_no_file_is_left_alone(
    name: str, make: Callable[[Path], None], copy: _Copy
) -> None:
    """A pipe would be read for ever."""
    make(copy.project / name)

    printed = copy.succeed()

    assert f"{name} is not a file and was not changed; add .env and .data/ yourself" in printed


@needs("git")
@pytest.mark.parametrize(
    "lines",
    [
        *(None, b".env/\n.data\n", b".env\n.env*\n!.env*\n", b" .env\n"),
        # What is no end of a line to git, no blank that it drops, and what takes a line back.
        *(b".env\r.data/\r", b".env\x0b\n.data/\x0c\n", b".env\t\n", ".env\u2028\n".encode()),
        *(b".env\n!**/.env\n", b".env\n!\\.env\n", b".env\n![^a]env\n", b".env\n!**/.e*\n"),
    ],
)
def test_git_does_not_see_the_secret_whatever_was_ignored_before(
    lines: bytes | None, copy: _Copy
) -> None:
    """Also when the project becomes a repository later."""
    if lines is not None:
        (copy.project / ".gitignore").write_bytes(lines)

    printed = copy.succeed()

    subprocess.run(["git", "init", "-q"], cwd=copy.project, check=True)
    for name in (".env", ".data/x"):
        subprocess.run(["git", "check-ignore", "-q", name], cwd=copy.project, check=True)
    assert "git tracks" not in printed
    assert "git ignores" not in printed


@needs("git")
def test_what_git_tracks_and_ignores_is_told(copy: _Copy) -> None:
    """A secret that is committed already, and files of ours that a commit would leave out."""
    (copy.project / ".env").write_text("X=1\n")
    (copy.project / ".data").mkdir()
    (copy.project / ".data" / "x").touch()
    (copy.project / ".gitignore").write_text("*.pyc\n/wrapper/*\n")
    for arguments in (["init", "-q"], ["add", "-f", "."]):
        subprocess.run(["git", *arguments], cwd=copy.project, check=True)

    printed = copy.succeed()

    assert "git tracks .data: `git rm -r --cached .data` takes it out" in printed
    assert "git tracks .env: `git rm -r --cached .env` takes it out" in printed
    assert (
        "change line 2 of .gitignore, which is /wrapper/*, or choose a folder other than" in printed
    )


def test_only_git_of_an_absolute_folder_is_asked(copy: _Copy) -> None:
    """A program of the project is not started, and without git nothing is said."""
    (copy.project / "git").write_text("#!/bin/sh\ntouch started\n")
    (copy.project / "git").chmod(0o755)
    copy.monkeypatch.setenv("PATH", ".::bin")
    copy.monkeypatch.chdir(copy.project)

    copy.succeed()

    assert not (copy.project / "started").exists()


# --- .env ------------------------------------------------------------------------------------


def test_env_is_made_private_with_the_secret_still_to_come(copy: _Copy) -> None:
    """Without a terminal nothing is asked; the lines are those of the documentation."""
    printed = copy.succeed()

    env = copy.project / ".env"
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    lines = [line for line in env.read_text().splitlines() if line and line[0] != "#"]
    assert lines == [
        "GATEWAY_URL=https://localhost:3100",
        "HMAC_SECRET=<must match gateway>",
        "ALLOW_SELF_SIGNED=true",
        "CLAUDE_COMMAND=claude",
    ]
    assert ".env is made; put the gateway's own secret into it" in printed


def test_what_is_no_file_is_no_env(copy: _Copy) -> None:
    """A pipe that came with an archive keeps nobody waiting."""
    os.mkfifo(copy.project / ".env")

    code, _, complaint = copy.use()

    assert (code, f"{copy.project}/.env is not a file; move it away" in complaint) == (1, True)


@pytest.mark.parametrize("secret", [SECRET, 'it\'s # a \\ "secret" ${HOME}'], ids=["hex", "odd"])
def test_settings_of_the_same_gateway_are_taken_over(secret: str, copy: _Copy) -> None:
    """From this copy's own `.env`, and no more of it than is the gateway's; never printed."""
    written = secret.replace("\\", "\\\\").replace("'", "\\'")
    (copy.root / ".env").write_text(
        f"GATEWAY_URL=https://gw.example:3100\nHMAC_SECRET='{written}'\nALLOW_SELF_SIGNED=false\n"
        "CLAUDE_COMMAND='claude --model opus'\n"
        "DB_PASSWORD=not-yours\nCLAUDE_RUNNER_TOKEN=nor-this\n"
    )

    printed = copy.succeed()

    config = load_config(
        copy.project, {}, own=ClaudeProfile().settings, env_file=copy.project / ".env"
    )
    assert config.gateway_url == "https://gw.example:3100"
    assert config.hmac_secret == secret
    assert config.own["program"] == ("claude", "--model", "opus")
    assert not config.allow_self_signed
    assert "taken over from" in printed
    assert secret not in printed
    assert "not-yours" not in (copy.project / ".env").read_text()
    assert "nor-this" not in (copy.project / ".env").read_text()


def test_an_env_of_the_projects_own_is_kept(copy: _Copy) -> None:
    """And the user is told what it lacks."""
    (copy.project / ".env").write_text("DATABASE_URL=x\n")

    code, _, complaint = copy.use()

    assert code == 0
    assert (copy.project / ".env").read_text() == "DATABASE_URL=x\n"
    assert ".env was there and is kept, but HMAC_SECRET is not set" in complaint


def test_it_works_without_python_dotenv(copy: _Copy) -> None:
    """And says which file it could not read."""
    (copy.root / ".env").write_text(f"HMAC_SECRET={SECRET}\n")
    copy.monkeypatch.setattr(config, "_find_dotenv_parser", lambda: None)

    first, second = copy.use(), copy.use()

    assert first[0] == second[0] == 0
    missing = "because python-dotenv is not installed"
    assert f"{copy.root / '.env'} was not taken over, {missing}" in first[2]
    assert f".env was there and is kept; it was not read, {missing}" in second[2]


PLANTED = "export CLAUDE_COMMAND=./tools/claude\nDATABASE_URL=x\nEXTRA_ALLOWED_COMMANDS=sh\n"


def test_an_env_file_that_was_there_is_shown(copy: _Copy) -> None:
    """Its names, never its values; where nobody can be asked, what to look at is said."""
    env = copy.project / ".env"
    env.write_text(PLANTED)

    _, _, complaint = copy.use()

    assert (
        f"{env} was there, and sets EXTRA_ALLOWED_COMMANDS, CLAUDE_COMMAND: see that you wrote it "
        "before you start anything"
    ) in complaint
    assert "tools/claude" not in complaint
    _, _, complaint = copy.use("--upgrade")
    assert "was there, and sets" not in complaint


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"\n", 1), (b"\x04", 1)])
def test_at_a_terminal_it_asks_whose_env_file_it_is(whole: _Copy, answer: bytes, code: int) -> None:
    """Only a yes is one; the file stays as it is."""
    env = whole.project / ".env"
    env.write_text(PLANTED + f"HMAC_SECRET={SECRET}\n")

    with Terminal(whole.argv(str(whole.project))) as terminal:
        terminal.expect(b"sets HMAC_SECRET, EXTRA_ALLOWED_COMMANDS, CLAUDE_COMMAND")
        terminal.expect(b"did you write it? [y/N] ")
        terminal.send(answer)
        assert terminal.wait() == code
        assert (b"is not trusted; move it away, and repeat" in terminal.output) == bool(code)

    assert env.read_text().startswith(PLANTED)


def test_at_a_terminal_it_asks(whole: _Copy) -> None:
    """A wrong address is asked for again, and the secret is not shown."""
    with Terminal(whole.argv(str(whole.project))) as terminal:
        terminal.expect(b"address of the gateway [https://localhost:3100]: ")
        terminal.send(b"gw.example\n")
        terminal.expect(b"write an address such as https://localhost:3100")
        terminal.expect(b"address of the gateway [https://localhost:3100]: ")
        terminal.send(b"https://gw.example:3100\n")
        terminal.expect(b"(it is not shown): ")
        terminal.send(SECRET.encode() + b"\n")
        terminal.expect(b".env is made\r\n")
        assert terminal.wait() == 0
        assert SECRET.encode() not in terminal.output

    config = load_config(whole.project, {}, env_file=whole.project / ".env")
    assert (config.gateway_url, config.hmac_secret) == ("https://gw.example:3100", SECRET)


@pytest.mark.parametrize("key", [b"\x03", b"\x04"], ids=["ctrl-c", "ctrl-d"])
def test_whoever_does_not_answer_gets_the_example(key: bytes, whole: _Copy) -> None:
    """The files are there, and the values can be filled in later."""
    with Terminal(whole.argv(str(whole.project))) as terminal:
        terminal.expect(b"address of the gateway [https://localhost:3100]: ")

        def press() -> None:
            # A signal between the prompt and the read that follows it is seen after the read.
            terminal.send(key)
            terminal.expect(b".env is made; put the gateway's own secret into it", 2.0)

        eventually(press)
        assert terminal.wait() == 0

    assert "HMAC_SECRET=<must match gateway>" in (whole.project / ".env").read_text()
