"""`install` as its user meets it: another project gets the runner, a newer one, or none of it."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from config import RunnerError, load_config
from kinds.claude import ClaudeProfile
from testing.programs.runner_files import ROOT, RUNNER_FILES, copy_runner
from testing.programs.terminal import Terminal
from testing.waiting import eventually
from tools.install import Target, install

SECRET = "s3" * 16
WITHIN_S = 60.0


@dataclass
class _Copy:
    """A copy of the runner, from which it is installed into `project`."""

    root: Path
    project: Path
    # The shim sends bytecode to .data; a copy that is started without it leaves none.
    env: dict[str, str] = field(
        default_factory=lambda: {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    )

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.root / "claude_runner.py"), "install", *arguments]

    def use(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Install, or what the arguments say, without a terminal."""
        done = subprocess.run(
            self.argv(str(self.project), *arguments),
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
        )
        assert "Traceback" not in done.stderr
        return done

    def succeed(self, *arguments: str) -> str:
        """Return what it printed."""
        done = self.use(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fail(self, *arguments: str) -> str:
        """Return the one line that it fails with; the project is as before."""
        before = snapshot(self.project)
        done = self.use(*arguments)
        assert done.returncode == 1, done.stdout
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        assert snapshot(self.project) == before
        return done.stderr

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


@pytest.fixture
def copy(tmp_path: Path) -> _Copy:
    """A copy of the runner, and an empty project whose name has a blank."""
    root, project = tmp_path / "runner", tmp_path / "my project"
    copy_runner(root)
    project.mkdir()
    return _Copy(root, project)


# --- what is copied --------------------------------------------------------------------------


def test_the_copy_is_whole_and_works(copy: _Copy) -> None:
    """Every file of the list is there, with its mode, and the installed runner runs."""
    (copy.project / "wrapper").mkdir()
    (copy.project / "wrapper" / "theirs.txt").write_text("theirs")

    printed = copy.succeed()

    for name in RUNNER_FILES:
        assert (copy.project / name).read_bytes() == (copy.root / name).read_bytes()
        mode = 0o755 if os.access(copy.root / name, os.X_OK) else 0o644
        assert stat.S_IMODE((copy.project / name).stat().st_mode) == mode
    assert (copy.project / "wrapper" / "theirs.txt").read_text() == "theirs"
    assert f"{len(RUNNER_FILES)} files written" in printed
    shim = [str(copy.project / "wrapper" / "claude-runner"), "--version"]
    env = {**copy.env, "CLAUDE_RUNNER_PYTHON": sys.executable}
    done = subprocess.run(shim, env=env, capture_output=True, text=True, timeout=WITHIN_S)
    assert (done.returncode, done.stdout[:14]) == (0, "claude-runner ")


def test_a_second_time_changes_nothing(copy: _Copy) -> None:
    """Neither a file nor `.gitignore`, which gets no line twice."""
    (copy.project / ".gitignore").write_text("")
    copy.succeed()
    before = snapshot(copy.project)

    printed = copy.succeed()

    assert snapshot(copy.project) == before
    assert "already" in printed


def test_the_note_is_what_sha256sum_checks(copy: _Copy) -> None:
    """A user can see with a standard tool whether the copy is as it was installed."""
    copy.succeed()
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")

    check = ["sha256sum", "--quiet", "-c", "wrapper/INSTALLED"]
    done = subprocess.run(check, cwd=copy.project, capture_output=True, timeout=WITHIN_S)

    assert (done.returncode, done.stdout) == (0, b"")
    assert len((copy.project / "wrapper" / "INSTALLED").read_text().splitlines()) == len(
        RUNNER_FILES
    )


def test_a_copy_can_be_copied_on(copy: _Copy, tmp_path: Path) -> None:
    """What is installed can itself install."""
    copy.succeed()
    third = tmp_path / "third"
    third.mkdir()

    _Copy(copy.project, third).succeed()

    assert (third / "claude_runner.py").is_file()


# --- what is in the way ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_a_foreign_file_of_the_same_name_stops_it(kind: str, copy: _Copy, tmp_path: Path) -> None:
    """All of them are named, and nothing is written; a link is never followed."""
    (copy.project / "journal/spool.py").write_text("print('mine')\n")
    if kind == "file":
        (copy.project / "runner/poster.py").write_text("print('mine')\n")
    elif kind == "link":
        shutil.copy(copy.root / "runner/poster.py", tmp_path / "elsewhere.py")
        (copy.project / "runner/poster.py").symlink_to(tmp_path / "elsewhere.py")
    else:
        (copy.project / "runner/poster.py").mkdir()

    sentence = copy.fail()

    assert (
        "has files of its own where the runner's would go: runner/poster.py, journal/spool.py;"
        in sentence
    )
    assert "nothing was changed" in sentence


def test_an_example_of_the_projects_own_is_kept(copy: _Copy) -> None:
    """Many projects have a `.env.example`; nothing reads ours, so theirs stays."""
    (copy.project / ".env.example").write_text("DATABASE_URL=\n")

    printed = copy.succeed()

    assert (copy.project / ".env.example").read_text() == "DATABASE_URL=\n"
    assert "kept as they are, because they are not ours or were changed: .env.example" in printed
    assert "HMAC_SECRET=<must match gateway>" in (copy.project / ".env").read_text()
    copy.succeed("--uninstall")
    assert (copy.project / ".env.example").read_text() == "DATABASE_URL=\n"


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda project: project.rmdir(), "there is no folder"),
        (lambda project: (project.rmdir(), project.write_text("")), "is not a folder"),
        (lambda project: (project / "wrapper").write_text(""), "wrapper is not a folder"),
        (
            lambda project: (project / "wrapper").symlink_to(project.parent),
            "wrapper is not a folder",
        ),
    ],
    ids=["missing", "file", "wrapper-is-a-file", "wrapper-is-a-link"],
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

    assert "lies in this copy of the runner" in copy.fail()


def test_a_link_to_the_project_is_the_project(copy: _Copy, tmp_path: Path) -> None:
    """Only what lies inside of it must not be a link."""
    link = tmp_path / "link"
    link.symlink_to(copy.project)

    _Copy(copy.root, link).succeed()

    assert (copy.project / "claude_runner.py").is_file()


def test_contradicting_options_are_refused(copy: _Copy) -> None:
    """And so is an upgrade or a removal where nothing was installed."""
    assert "not both" in copy.fail("--upgrade", "--uninstall")
    assert "has no wrapper/INSTALLED; install without --upgrade" in copy.fail("--upgrade")
    assert "has no wrapper/INSTALLED, so `install` wrote nothing" in copy.fail("--uninstall")


@pytest.mark.parametrize("line", ["0" * 64 + "  ../victim", "0" * 64 + "  /etc/passwd", "nonsense"])
def test_a_note_that_was_changed_is_not_believed(line: str, copy: _Copy) -> None:
    """It must not lead out of the project."""
    copy.succeed()
    (copy.project / "wrapper" / "INSTALLED").write_text(line + "\n")

    assert "was changed and cannot be read" in copy.fail("--uninstall")


def test_an_incomplete_copy_says_what_it_lacks(copy: _Copy) -> None:
    """Before it writes anything."""
    (copy.root / "journal/spool.py").rename(copy.root / "away.py")
    (copy.root / "journal/spool.py").symlink_to("nowhere")
    target = Target(copy.project)

    with pytest.raises(RunnerError, match=r"spool\.py is not there, so this copy cannot be"):
        install(copy.root, target)

    assert snapshot(copy.project) == {}


# --- upgrade ---------------------------------------------------------------------------------


def test_an_upgrade_replaces_what_is_unchanged(copy: _Copy) -> None:
    """Without `--upgrade` it says so; with it, new files come and dropped ones go."""
    copy.succeed()
    copy.age("redact.py")
    (copy.root / "new_part.py").write_text("")
    names = (copy.root / "wrapper" / "FILES").read_text().replace("tools/sync.py\n", "")
    (copy.root / "wrapper" / "FILES").write_text(names + "new_part.py\n")

    assert "redact.py, wrapper/FILES; use --upgrade" in copy.fail()
    printed = copy.succeed("--upgrade")

    assert (copy.project / "redact.py").read_bytes() == (copy.root / "redact.py").read_bytes()
    assert (copy.project / "new_part.py").is_file()
    assert not (copy.project / "tools/sync.py").exists()
    assert "3 files written" in printed
    assert "removed, because this version has no use for them: tools/sync.py" in printed


def test_an_upgrade_keeps_what_the_user_changed_and_says_so(copy: _Copy) -> None:
    """Each time, until the user has moved it away."""
    copy.succeed()
    copy.age("redact.py")
    copy.age("journal/spool.py")
    (copy.project / "redact.py").write_text("# mine\n")

    printed = [copy.succeed("--upgrade"), copy.succeed("--upgrade")]

    assert (copy.project / "redact.py").read_text() == "# mine\n"
    assert (copy.project / "journal/spool.py").read_bytes() == (
        copy.root / "journal/spool.py"
    ).read_bytes()
    for each in printed:
        assert "because they are not ours or were changed: redact.py; to take ours" in each
    assert f"is in {copy.project} already, but for what was kept\n" in printed[1]
    (copy.project / "redact.py").unlink()
    copy.succeed("--upgrade")
    assert (copy.project / "redact.py").read_bytes() == (copy.root / "redact.py").read_bytes()


def test_an_upgrade_does_not_run_over_a_new_neighbour(copy: _Copy) -> None:
    """A part that is new in this version may meet a file of the project's own."""
    copy.succeed()
    (copy.project / "new_part.py").write_text("mine")
    (copy.root / "new_part.py").write_text("")
    with (copy.root / "wrapper" / "FILES").open("a") as names:
        names.write("new_part.py\n")

    assert "has files of its own where the runner's would go: new_part.py" in copy.fail("--upgrade")


# --- uninstall -------------------------------------------------------------------------------


def test_uninstall_leaves_what_was_there_and_what_is_the_users(copy: _Copy) -> None:
    """The project is as before, but for the configuration, the data and `.gitignore`."""
    (copy.project / "README").write_text("theirs")
    (copy.project / ".gitignore").write_text("*.o\n")
    copy.succeed()
    (copy.project / ".data").mkdir()
    (copy.project / ".data" / "journal").write_text("kept")

    printed = copy.succeed("--uninstall")

    assert set(snapshot(copy.project)) == {".data/journal", ".env", ".gitignore", "README"}
    assert not (copy.project / "wrapper").exists()
    assert "kept, because they are yours: .env, .data/, .gitignore" in printed


def test_uninstall_keeps_changed_files_and_the_projects_own(copy: _Copy) -> None:
    """A changed file is named; a folder `wrapper` with other files stays."""
    (copy.project / "wrapper").mkdir()
    (copy.project / "wrapper" / "theirs.txt").write_text("theirs")
    copy.succeed()
    (copy.project / "redact.py").write_text("# mine\n")
    (copy.project / "journal/spool.py").unlink()

    printed = copy.succeed("--uninstall")

    assert set(snapshot(copy.project)) == {".env", "redact.py", "wrapper/theirs.txt"}
    assert "kept, because they were changed: redact.py" in printed


def test_a_copy_can_remove_itself(copy: _Copy) -> None:
    """From inside the project, as somebody would who has no clone."""
    copy.succeed()

    _Copy(copy.project, copy.project).succeed("--uninstall")

    assert set(snapshot(copy.project)) == {".env"}


# --- broken off ------------------------------------------------------------------------------


@pytest.mark.parametrize("repair", [(), ("--uninstall",)], ids=["repeated", "taken-back"])
def test_what_was_killed_halfway_can_be_repeated_or_taken_back(
    repair: tuple[str, ...], copy: _Copy
) -> None:
    """Every file is whole or not there, whenever it happens; the note knows what is ours."""
    names = [f"wrapper/{number}" for number in range(3_000)]  # so that there is time for a kill
    for name in names:
        (copy.root / name).write_text(name * 100)
    with (copy.root / "wrapper" / "FILES").open("a") as listed:
        listed.write("\n".join(names))
    note = copy.project / "wrapper" / "INSTALLED"

    def has_begun() -> None:
        assert note.exists()

    with subprocess.Popen(
        copy.argv(str(copy.project)), env=copy.env, stdin=subprocess.DEVNULL
    ) as process:
        eventually(has_begun)
        process.send_signal(signal.SIGKILL)
    for name, content in snapshot(copy.project).items():
        if name in (*RUNNER_FILES, *names):
            assert content == (copy.root / name).read_bytes()

    copy.succeed(*repair)

    left = set(snapshot(copy.project)) - {".env"}
    assert left == (set() if repair else {*RUNNER_FILES, *names, "wrapper/INSTALLED"})


def test_an_upgrade_that_was_broken_off_can_be_repeated(copy: _Copy) -> None:
    """In between, a file may be of either version, and both are ours."""
    copy.succeed()
    old = (copy.project / "redact.py").read_bytes()
    copy.age("redact.py")
    copy.age("journal/spool.py")
    (copy.project / "journal/spool.py.claude-runner-new").mkdir()  # what stops it there
    done = copy.use("--upgrade")
    assert done.returncode == 1
    assert "could not be changed" in done.stderr
    assert "no file is damaged: mend that, and repeat" in done.stderr
    assert (copy.project / "redact.py").read_bytes() != old
    (copy.project / "journal/spool.py.claude-runner-new").rmdir()

    printed = copy.succeed("--upgrade")

    assert "kept" not in printed.replace(".env was there and is kept", "")
    assert (copy.project / "journal/spool.py").read_bytes() == (
        copy.root / "journal/spool.py"
    ).read_bytes()


# --- .gitignore ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ".env\n.data/\n"),
        ("*.o", "*.o\n.env\n.data/\n"),
        ("*.o\r\nbuild/\r\n", "*.o\r\nbuild/\r\n.env\r\n.data/\r\n"),
        ("/.env\n.data\n", "/.env\n.data\n"),
        (".env\n", ".env\n.data/\n"),
        ("# .env\n.env.local\n", "# .env\n.env.local\n.env\n.data/\n"),
        (".env\n!.env\n/.data/\n", ".env\n!.env\n/.data/\n.env\n"),
    ],
    ids=["empty", "no-line-end", "crlf", "both", "one", "look-alikes", "taken-back"],
)
def test_gitignore_gets_what_it_lacks(before: str, after: str, copy: _Copy) -> None:
    """In its own line ends, and what was there stays as it is."""
    (copy.project / ".gitignore").write_bytes(before.encode())

    copy.succeed()

    assert (copy.project / ".gitignore").read_bytes() == after.encode()


@pytest.mark.parametrize("is_inside", [False, True], ids=["repository", "folder-of-one"])
def test_a_repository_without_gitignore_gets_one(is_inside: bool, copy: _Copy) -> None:
    """git itself then ignores the secret and the data."""
    where = copy.project.parent if is_inside else copy.project
    subprocess.run(["git", "init", "-q", str(where)], check=True, timeout=WITHIN_S)

    copy.succeed()

    ignored = subprocess.run(
        ["git", "check-ignore", ".env", ".data/x"],
        cwd=copy.project,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    ).stdout
    assert ignored.split() == [".env", ".data/x"]


def test_without_a_repository_no_gitignore_is_made(copy: _Copy) -> None:
    """It would be one more file to wonder about."""
    copy.succeed()

    assert not (copy.project / ".gitignore").exists()


def test_a_gitignore_that_is_a_link_is_left_alone(copy: _Copy, tmp_path: Path) -> None:
    """What it leads to belongs to others as well, so the user is told the lines."""
    (tmp_path / "shared-ignore").write_text("*.o\n")
    (copy.project / ".gitignore").symlink_to(tmp_path / "shared-ignore")

    printed = copy.succeed()

    assert (tmp_path / "shared-ignore").read_text() == "*.o\n"
    assert ".gitignore is a link and was left alone; add .env and .data/ yourself" in printed


# --- .env ------------------------------------------------------------------------------------


def test_env_is_made_private_with_the_secret_still_to_come(copy: _Copy) -> None:
    """Without a terminal nothing is asked."""
    printed = copy.succeed()

    env = copy.project / ".env"
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    assert "HMAC_SECRET=<must match gateway>" in env.read_text()
    assert ".env is made; put the gateway's own secret into it" in printed


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

    config = load_config(copy.project, {}, own=ClaudeProfile().settings)
    assert config.gateway_url == "https://gw.example:3100"
    assert config.hmac_secret == secret
    assert config.own["command"] == ("claude", "--model", "opus")
    assert not config.allow_self_signed
    assert "taken over from" in printed
    assert secret not in printed
    assert "not-yours" not in (copy.project / ".env").read_text()
    assert "nor-this" not in (copy.project / ".env").read_text()


def test_an_env_of_the_projects_own_is_kept(copy: _Copy) -> None:
    """And the user is told what it lacks."""
    (copy.project / ".env").write_text("DATABASE_URL=x\n")

    done = copy.use()

    assert done.returncode == 0
    assert (copy.project / ".env").read_text() == "DATABASE_URL=x\n"
    assert ".env was there and is kept, but HMAC_SECRET is not set" in done.stderr


def test_at_a_terminal_it_asks(copy: _Copy) -> None:
    """A wrong address is asked for again, and the secret is not shown."""
    with Terminal(copy.argv(str(copy.project)), env=copy.env) as terminal:
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

    config = load_config(copy.project, {})
    assert (config.gateway_url, config.hmac_secret) == ("https://gw.example:3100", SECRET)


@pytest.mark.parametrize("key", [b"\x03", b"\x04"], ids=["ctrl-c", "ctrl-d"])
def test_whoever_does_not_answer_gets_the_example(key: bytes, copy: _Copy) -> None:
    """The files are there, and the values can be filled in later."""
    with Terminal(copy.argv(str(copy.project)), env=copy.env) as terminal:
        terminal.expect(b"address of the gateway [https://localhost:3100]: ")

        def press() -> None:
            # A signal between the prompt and the read that follows it is seen after the read.
            terminal.send(key)
            terminal.expect(b".env is made; put the gateway's own secret into it", 2.0)

        eventually(press)
        assert terminal.wait() == 0

    assert "HMAC_SECRET=<must match gateway>" in (copy.project / ".env").read_text()


@pytest.mark.parametrize("lines", [b".env/\n.data\n", b".env\n.env*\n!.env*\n", b" .env\n"])
def test_git_does_not_see_the_secret_whatever_was_ignored_before(
    tmp_path: Path, lines: bytes
) -> None:
    """A pattern for folders, one that is taken back, and one of another name do not count."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_bytes(lines)

    subprocess.run(
        [sys.executable, str(ROOT / "claude_runner.py"), "install", str(tmp_path)],
        stdin=subprocess.DEVNULL,
        check=True,
    )

    for name in (".env", ".data/x"):
        subprocess.run(["git", "-C", str(tmp_path), "check-ignore", "-q", name], check=True)
