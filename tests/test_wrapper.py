"""The shims: they find a Python and isolate it, and the program notices nothing.

The program that they start is a probe here, which tells what reached it. The Pythons are real ones;
one that is too old or has no venv module is the real one with something changed in it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import pytest

from testing.installed import SHIMS, lay_out
from testing.needs import needs
from testing.once import build_once
from testing.programs.runner_files import ROOT

SHELLS = [
    pytest.param(tuple(command.split()), id=command.split()[0], marks=needs(command.split()[0]))
    for command in ("dash", "bash", "busybox sh")
]
SHIM_TEXT = (ROOT / "wrapper" / "claude-runner").read_text("utf-8")
# A Python of no virtual environment, which the shim may find by itself.
PYTHON = Path(sys.base_prefix, "bin", "python3")

PROBE = """\
import json, os, sys
told = {
    "argv": sys.argv[1:],
    "file": __file__,
    "python": sys.executable,
    "path": sys.path,
    "flags": [sys.flags.isolated, sys.flags.no_user_site, sys.flags.ignore_environment],
    "environ": dict(os.environ),
    "options": sys._xoptions,
    "cwd": os.getcwd(),
    "pid": os.getpid(),
}
told["stdin"] = sys.stdin.buffer.read().decode("latin-1")
print(json.dumps(told))
sys.exit(int(os.environ.get("PROBE_EXIT", "0")))
"""

Argument = Union[str, bytes]


@dataclass(frozen=True)
class Project:
    """A folder with the shims in it, and how to call them."""

    root: Path
    pythons: Path

    @property
    def shim(self) -> Path:
        """The shim's own file."""
        return self.root / "wrapper" / "claude-runner"

    @property
    def program(self) -> Path:
        """The folder of the program, which is a probe."""
        return self.root / "wrapper" / "program"

    def environ(self, *path: Path | str, **more: str) -> dict[str, str]:
        """Return an environment with these folders on PATH alone, by default that of a Python."""
        # By this name conftest finds a process that a test has left behind.
        guard = {name: os.environ[name] for name in os.environ if name.startswith("TEST_GUARD_")}
        names = os.pathsep.join(map(str, path or (self.pythons,)))
        return {"PATH": names, "LC_ALL": "C.UTF-8", **guard, **more}

    def run(
        self,
        shell: Sequence[str],
        *arguments: Argument,
        env: Mapping[str, str] | None = None,
        shim: Path | str | None = None,
        cwd: Path | None = None,
        stdin: bytes = b"",
    ) -> subprocess.CompletedProcess[bytes]:
        """Call the shim, as `shell` if there is one, else as the kernel starts it."""
        where = [shutil.which(shell[0]) or shell[0], *shell[1:]] if shell else []
        return subprocess.run(
            [*where, str(shim or self.shim), *arguments],
            env=self.environ() if env is None else env,
            cwd=cwd,
            input=stdin,
            capture_output=True,
            timeout=100,
            check=False,
        )


def told(result: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """Return what the probe said; nothing else may be on stdout."""
    assert result.returncode == 0, result.stderr.decode()
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def one_line(result: subprocess.CompletedProcess[bytes]) -> str:
    """Return the one line on stderr with which the shim gave up."""
    assert result.returncode == 1
    assert result.stdout == b""
    lines = result.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("claude-runner: ")
    return lines[0]


def stand_in(folder: Path, line: str, name: str = "python3") -> Path:
    """Make a program of a line of shell, which needs no other program; return its folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{line}\n")
    (folder / name).chmod(0o755)
    return folder


def changed_python(folder: Path, prelude: str) -> Path:
    """Make a python3 that is the real one, but for what the prelude changes in its judgement."""
    code = f"import sys; {prelude}; exec(sys.argv.pop(1))"
    check = '[ "$1 $2 $3" = "-I -S -c" ] || exit 99'
    return stand_in(folder, f'{check}\nshift 3\nexec "{PYTHON}" -I -S -c \'{code}\' "$@"')


def trap(folder: Path) -> Path:
    """Make a python3 that is none and leaves a mark; return the mark."""
    mark = folder / "was-run"
    stand_in(folder, f": >'{mark}'; exit 1")
    return mark


@pytest.fixture(scope="session")
def pythons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH with a Python and nothing else."""
    return stand_in(tmp_path_factory.mktemp("pythons"), f'exec "{PYTHON}" "$@"')


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a virtual environment."""
    return build_once(tmp_path_factory, "an-environment", make_environment) / "bin"


def make_environment(folder: Path) -> None:
    """Make a virtual environment, whose packages leave a mark where PLANTED says."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    line = "import os; 'PLANTED' in os.environ and open(os.environ['PLANTED'], 'a').close()"
    (packages / "planted.pth").write_text(f"{line}\n")


@pytest.fixture
def project(tmp_path: Path, pythons: Path) -> Project:
    """The shims in a project whose name wants to be misread."""
    root = tmp_path / "my 'own' *project\n"
    folder = lay_out(root, with_program=False)
    for script in ("claude_runner.py", "rev_runner.py"):
        (folder / "program" / script).write_text(PROBE)
    return Project(root, pythons)


# What passes through


@pytest.mark.parametrize("shell", SHELLS)
def test_everything_passes_through(shell: Sequence[str], project: Project, tmp_path: Path) -> None:
    """Arguments and stdin byte for byte, the environment, the folder, and the exit code."""
    arguments: list[Argument] = [
        *("a b", "", "it's", '"quoted"', "two\nlines\n", "*", "$HOME `id` $(id)"),
        *("--", "-c", "\\n\\", b"\xff\xfe"),
    ]
    own = {
        "root": "1",
        "name": "2",
        "python": "3",
        "CDPATH": "/",
        "VIRTUAL_ENV": "/nowhere",
        "PYTHONPATH": "/nowhere",
        "PYTHONHOME": "/nowhere",
        "PYTHONSAFEPATH": "1",
        "PWD": str(tmp_path),
        "OLDPWD": "/",
        "PROBE_EXIT": "37",
    }
    env = project.environ(**own)
    stdin = bytes(range(256))

    result = project.run(shell, *arguments, env=env, cwd=tmp_path, stdin=stdin)

    answer = json.loads(result.stdout)
    assert (result.returncode, result.stderr) == (37, b"")
    assert answer["argv"] == [os.fsdecode(argument) for argument in arguments]
    assert answer["stdin"].encode("latin-1") == stdin
    assert answer["cwd"] == str(tmp_path)
    # These belong to the shell itself, some of which set them.
    seen = {name: value for name, value in answer["environ"].items() if name not in ("SHLVL", "_")}
    assert seen == env


def test_the_shim_becomes_the_program(project: Project) -> None:
    """A signal to the shim reaches the program: they are one process, isolated from the rest."""
    with subprocess.Popen(
        [project.shim], env=project.environ(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        answer = json.loads(process.stdout.read())

    assert answer["pid"] == process.pid
    assert answer["flags"] == [1, 1, 1]
    assert answer["file"] == str(project.program / "claude_runner.py")


@pytest.mark.parametrize("name", ["PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__"])
@pytest.mark.parametrize("shell", SHELLS)
def test_no_variable_says_where_python_is(
    shell: Sequence[str], name: str, project: Project, environment: Path, tmp_path: Path
) -> None:
    """An environment's Python leaves such a one behind; another Python then takes its packages."""
    mark = tmp_path / "mark"
    value = str(environment / "python3")
    planted = {"PLANTED": str(mark)}
    subprocess.run([value, "-c", ""], env=planted, check=True)
    mark.unlink()

    answer = told(project.run(shell, "a b", env=project.environ(**{name: value}, **planted)))

    assert not mark.exists()
    assert answer["argv"] == ["a b"]
    assert not answer["python"].startswith(str(environment))
    assert (answer["options"], name in answer["environ"]) == ({name: value}, False)


def test_the_two_shims_are_one_text() -> None:
    """Neither is a link, which a checkout without links would make a broken file of."""
    files = [ROOT / "wrapper" / name for name in SHIMS]

    assert files[0].read_bytes() == files[1].read_bytes()
    assert not any(file.is_symlink() for file in files)


# Where it is called from


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", SHIMS)
def test_called_through_links(
    shell: Sequence[str], name: str, project: Project, tmp_path: Path
) -> None:
    """It follows an absolute link to a relative one to itself, through folders with odd names."""
    links = tmp_path / "-bin $HOME `id` \n"
    links.mkdir()
    (links / "near").symlink_to(f"../{project.root.name}/wrapper/{name}")
    (links / "far").symlink_to(links / "near")

    answer = told(project.run(shell, shim=links / "far", cwd=links))

    assert answer["file"] == str(project.program / f"{name.replace('-', '_')}.py")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("shim", ["claude-runner", "./claude-runner", "../wrapper/claude-runner"])
def test_called_by_a_relative_path(shell: Sequence[str], shim: str, project: Project) -> None:
    """The folder that it is called from decides nothing."""
    answer = told(project.run(shell or ("sh",), shim=shim, cwd=project.root / "wrapper"))

    assert answer["file"] == str(project.program / "claude_runner.py")


@pytest.mark.parametrize("words", ["claude-runner here", "bash claude-runner here"])
def test_called_from_path(words: str, project: Project, tmp_path: Path) -> None:
    """A linked folder on PATH is enough to call it by its name."""
    (tmp_path / "bin").symlink_to(project.shim.parent)
    shell = shutil.which("bash") or "bash"
    stand_in(tmp_path / "tools", f'exec {shell} "$@"', "bash")
    env = project.environ(tmp_path / "bin", tmp_path / "tools", project.pythons)

    result = subprocess.run(
        [shell, "-c", words],
        env=env, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip

    assert told(result)["argv"] == ["here"]


def test_in_a_clone_the_program_is_the_folder_above(tmp_path: Path, pythons: Path) -> None:
    """There is no `program` there."""
    clone = Project(tmp_path / "clone", pythons)
    lay_out(clone.root, with_program=False)
    clone.program.rmdir()
    (clone.root / "claude_runner.py").write_text(PROBE)

    assert told(clone.run(()))["file"] == str(clone.root / "claude_runner.py")


def test_a_missing_program_is_told(project: Project) -> None:
    """A shim copied alone says what is not there."""
    (project.program / "claude_runner.py").unlink()

    result = project.run(())

    assert result.returncode == 1
    assert b"claude_runner.py is not there: copy the runner's whole folder" in result.stderr


@pytest.mark.parametrize("left", [("new", "old"), ("new",)], ids="-".join)
def test_an_upgrade_that_was_broken_off_is_completed(
    left: tuple[str, ...], project: Project
) -> None:
    """Between its two renames; a first installation that was broken off is left to `install`."""
    for name in left:
        shutil.copytree(project.program, f"{project.program}.{name}")
    shutil.rmtree(project.program)

    result = project.run(())

    assert (result.returncode == 0) == (left == ("new", "old"))
    assert project.program.is_dir() == (left == ("new", "old"))


# Which Python


@pytest.mark.parametrize("shell", SHELLS)
def test_no_python(shell: Sequence[str], project: Project, tmp_path: Path) -> None:
    """Without any Python it says so in one line; and no other program is needed for that."""
    env = project.environ(tmp_path / "nothing")

    assert "there is no Python 3 on PATH" in one_line(project.run(shell, env=env))


@pytest.mark.parametrize("shell", SHELLS)
def test_a_python_that_is_too_old(shell: Sequence[str], project: Project, tmp_path: Path) -> None:
    """Python itself says which version it is, and the message names it."""
    old = changed_python(tmp_path / "old", "sys.version_info = (3, 6, 9)")

    line = one_line(project.run(shell, env=project.environ(old)))

    assert "Python 3.9 or newer is needed" in line
    assert f"Python 3.6.9 ({old}/python3)" in line


def test_a_python_without_a_venv_module_is_the_last_choice(
    project: Project, environment: Path, tmp_path: Path
) -> None:
    """Debian's without python3-venv is passed over for another one, and is better than none."""
    hide = (
        'import os.path as p; there = p.isdir; p.isdir = lambda f: f[-5:] != "/venv" and there(f)'
    )
    bare = changed_python(tmp_path / "bare", f'{hide}; sys.executable = "/bin/echo"')

    alone = project.run((), "x", env=project.environ(bare))
    with_another = project.run((), "x", env=project.environ(bare, project.pythons))

    assert alone.stdout.decode() == f"-I {project.program}/claude_runner.py x\n"
    assert told(with_another)["argv"] == ["x"]


def test_a_stand_in_that_does_not_run_is_passed_over(project: Project, tmp_path: Path) -> None:
    """What a version manager leaves on PATH for a version that is not there stops nothing."""
    broken = stand_in(tmp_path / "broken", "echo good 3.11.2//a//b//; exit 127")
    noisy = stand_in(tmp_path / "noisy", "echo nonsense")

    result = project.run((), env=project.environ(broken, noisy, project.pythons))

    assert told(result)["argv"] == []
    assert result.stderr == b""


def test_behind_a_stand_in_the_real_python_is_used(project: Project, tmp_path: Path) -> None:
    """A version manager's stand-in is asked once and not run again: it is slow and changes PATH."""
    calls = tmp_path / "calls"
    shims = stand_in(tmp_path / "shims", f'echo >>{calls}; PATH=changed exec "{PYTHON}" "$@"')
    env = project.environ(shims)

    answer = told(project.run((), env=env))

    assert calls.read_text() == "\n"
    assert answer["environ"]["PATH"] == env["PATH"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_python_is_not_judged_twice(
    shell: Sequence[str], project: Project, tmp_path: Path
) -> None:
    """While the note about it is newer. A note about another file, or a strange one, is none."""
    calls, cache = tmp_path / "calls", tmp_path / "cache"
    cache.mkdir(mode=0o700)
    python = stand_in(tmp_path / "bin", f'echo "$2" >>{calls}; exec "{PYTHON}" "$@"') / "python3"
    env = project.environ(python.parent, CLAUDE_RUNNER_CACHE_DIR=str(cache))
    for note, age_s, is_judged in (
        (f"{python}/{python}\n", 0, False),
        (f"{python}/{python}\n", 9_000, True),
        (f"{PYTHON}/{PYTHON}\n", 0, True),
        (f"{python}/{PYTHON}\n", 0, True),  # as after a switch of what the name leads to
        (f"{python}/\n", 0, True),
        (f"{python}/../python3/{python}\n", 0, True),
        ("", 0, True),
    ):
        (cache / "python").write_text(note)
        then = time.time() + 3_600 - age_s
        os.utime(cache / "python", (then, then))
        calls.unlink(missing_ok=True)

        answer = told(project.run(shell, env=env))

        assert answer["file"] == str(project.program / "claude_runner.py")
        # Another Python stands behind this one, so that it is judged, and that one is started.
        assert calls.read_text() == ("-S\n" if is_judged else f"{answer['file']}\n"), note


def test_the_note_about_a_python_is_for_its_user_alone(project: Project, tmp_path: Path) -> None:
    """Written where no other user can write, about a file that is a Python and no stand-in."""
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    link = tmp_path / "bin" / "python3"
    link.parent.mkdir()
    link.symlink_to(PYTHON)
    notes = []
    for folder, mode in ((link.parent, 0o777), (project.pythons, 0o700), (link.parent, 0o700)):
        cache.chmod(mode)

        told(project.run((), env=project.environ(folder, CLAUDE_RUNNER_CACHE_DIR=str(cache))))

        notes.append([each.read_text() for each in cache.iterdir()])
    assert notes == [[], [], [f"{link}/{PYTHON.resolve()}\n"]]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("entry", ["", ".", "bin", "./bin", "{root}/bin", "{link}/bin"])
def test_a_folder_of_the_project_on_path_is_not_searched(
    shell: Sequence[str], entry: str, project: Project, tmp_path: Path
) -> None:
    """Relative and empty entries never, absolute ones not if they are in the project."""
    marks = [trap(project.root), trap(project.root / "bin")]
    (tmp_path / "link").symlink_to(project.root)
    entry = entry.format(root=project.root, link=tmp_path / "link")

    env = project.environ(entry, project.pythons, entry)
    result = project.run(shell, env=env, cwd=project.root)

    assert told(result)["environ"]["PATH"] == env["PATH"]
    assert not any(mark.exists() for mark in marks)


@pytest.mark.parametrize("mark", ["bin/activate_this.py", "pyvenv.cfg", "bin/pyvenv.cfg"])
def test_the_python_of_a_virtual_environment_is_passed_over(
    mark: str, project: Project, tmp_path: Path
) -> None:
    """Wherever it lies, it is not even run: what it does at its start is its owner's choice."""
    (tmp_path / "env").mkdir()
    was_run = trap(tmp_path / "env" / "bin")
    (tmp_path / "env" / mark).touch()
    variable = {"VIRTUAL_ENV": str(tmp_path / "env")}
    activated = project.environ(tmp_path / "env" / "bin", project.pythons, **variable)

    found = project.run((), env=activated)
    line = one_line(project.run((), env=project.environ(tmp_path / "env" / "bin", **variable)))

    assert told(found)["environ"]["VIRTUAL_ENV"] == activated["VIRTUAL_ENV"]
    assert f"a virtual environment's or the project's ({tmp_path}/env/bin/python3)" in line
    assert not was_run.exists()


def test_a_stand_in_for_a_virtual_environment_is_passed_over(
    project: Project, environment: Path, tmp_path: Path
) -> None:
    """Python itself says where it belongs."""
    shims = stand_in(tmp_path / "shims", f'exec "{environment}/python3" "$@"')

    assert "a virtual environment's" in one_line(project.run((), env=project.environ(shims)))


@pytest.mark.parametrize("how", ["path", "name"])
def test_the_given_python_is_used(
    how: str, project: Project, environment: Path, tmp_path: Path
) -> None:
    """CLAUDE_RUNNER_PYTHON comes before everything else, and may be a virtual environment's."""
    given = str(environment / "python3")
    own = stand_in(tmp_path / "own", f'exec "{given}" "$@"', "my-python")
    given_as = {"path": given, "name": "my-python"}[how]

    answer = told(project.run((), env=project.environ(own, CLAUDE_RUNNER_PYTHON=given_as)))

    assert answer["python"] == given
    assert str(environment.parent) in "".join(answer["path"])


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("{tmp}/no such\nfile", "does not run as a Python"),
        ("no-such-name", "does not run as a Python"),
        ("/bin/true", "does not run as a Python"),
        ("{tmp}/old/python3", "is Python 3.6.9, but 3.9 or newer is needed"),
    ],
    ids=["missing", "no-name", "no-python", "too-old"],
)
def test_a_given_python_that_will_not_do(
    shell: Sequence[str], given: str, says: str, project: Project, tmp_path: Path
) -> None:
    """It is refused in one line, not replaced by another one."""
    changed_python(tmp_path / "old", "sys.version_info = (3, 6, 9)")
    env = project.environ(CLAUDE_RUNNER_PYTHON=given.format(tmp=tmp_path))

    line = one_line(project.run(shell, env=env))

    assert line.startswith("claude-runner: CLAUDE_RUNNER_PYTHON ")
    assert says in line


def test_the_shim_needs_no_shell_newer_than_that_of_macos() -> None:
    """It is `sh` there, bash 3.2, and BSD's programs: none of its words is newer, or a program."""
    text = SHIM_TEXT.partition("cr_judge='")[0] + SHIM_TEXT.partition("\n'\n")[2]
    code = re.sub(r"(?m)^\s*#.*$|\"[^\"]*\"", "", text)

    assert not re.search(r"\[\[|<<<|&>|\|&|\$\{\w+(?:,|\^|@|/)|<\(|\bfunction\b", code)
    assert not re.search(r"\b(declare|local|mapfile|readarray|source|coproc)\b", code)
    assert not re.search(r"\b(readlink|realpath|mktemp|date|stat|sed|awk|grep|tr|cut)\b", code)


# Line ends


def test_a_clone_by_git_for_windows_has_the_line_ends_of_unix(tmp_path: Path) -> None:
    """Its shims start in WSL and in containers, and all text is as it is here."""
    source, clone = tmp_path / "source", tmp_path / "clone"
    lay_out(source, with_program=False)
    for name in (".gitattributes", "README.md"):
        shutil.copy(ROOT / name, source)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], cwd=source, check=True, capture_output=True)

    subprocess.run([*git, "clone", "-q", "-c", "core.autocrlf=true", source, clone], check=True)

    for name in ("wrapper/claude-runner", "wrapper/rev-runner", "README.md"):
        assert (clone / name).read_bytes() == (ROOT / name).read_bytes()
