"""The shim wrapper/claude-runner: it finds or builds a Python, and the program notices nothing.

The program that it starts is a probe here, which tells what reached it. Packages come from two
wheels made on the spot, so that pip really installs by the real list, without network.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import pytest

from testing.needs import needs
from testing.programs.runner_files import ROOT, RUNNER_FILES, copy_runner
from testing.programs.terminal import Terminal

pytestmark = pytest.mark.once

SHELLS = [
    pytest.param(
        tuple(command.split()),
        id=command.split()[0],
        marks=needs(command.split()[0]),
    )
    for command in ("dash", "bash", "busybox sh")
]

# All that the shim and pip may need; a PATH made of these alone has no Python on it.
TOOLS = (
    *("cat", "cksum", "find", "grep", "mkdir", "mktemp"),
    *("mv", "readlink", "rm", "sleep", "tr", "uname"),
)

PROBE = """\
import json, os, sys
told = {
    "argv": sys.argv[1:],
    "python": sys.executable,
    "path": sys.path,
    "environ": dict(os.environ),
    "pid": os.getpid(),
    "pycache_prefix": sys.pycache_prefix,
}
told["stdin"] = sys.stdin.buffer.read().decode("latin-1")
print(json.dumps(told))
sys.exit(int(os.environ.get("PROBE_EXIT", "0")))
"""

# Stands where a module of that name might be looked for, and tells if it was run.
TRAP = "import pathlib; pathlib.Path({marker!r}).touch(); raise SystemExit('trapped')\n"

Argument = Union[str, bytes]


@dataclass(frozen=True)
class Project:
    """A folder with the shim in it, and how to call it."""

    root: Path
    tools: Path

    @property
    def shim(self) -> Path:
        """The shim's own file."""
        return self.root / "wrapper" / "claude-runner"

    @property
    def data(self) -> Path:
        """The folder that the shim may write to."""
        return self.root / ".data"

    def environ(self, *path: Path, **more: str) -> dict[str, str]:
        """Return an environment with these folders and the tools on PATH."""
        names = os.pathsep.join(map(str, [*path, self.tools]))
        # By this name conftest finds a process that a test has left behind.
        guard = {name: os.environ[name] for name in os.environ if name.startswith("TEST_GUARD_")}
        return {"PATH": names, "LC_ALL": "C.UTF-8", **guard, **more}

    def run(
        self,
        shell: Sequence[str],
        *arguments: Argument,
        env: Mapping[str, str],
        shim: Path | None = None,
        cwd: Path | None = None,
        stdin: bytes = b"",
    ) -> subprocess.CompletedProcess[bytes]:
        """Call the shim, as `shell` if there is one, else as the kernel starts it."""
        where = [shutil.which(shell[0]) or shell[0], *shell[1:]] if shell else []
        return subprocess.run(
            [*where, str(shim or self.shim), *arguments],
            env=env,
            cwd=cwd,
            input=stdin,
            capture_output=True,
            timeout=100,
            check=False,
        )

    def environments(self) -> list[Path]:
        """Return the private environments, complete or not."""
        return sorted(self.data.glob("venv/env.*"))


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


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH with the tools and nothing else."""
    folder = tmp_path_factory.mktemp("tools")
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a real Python without packages."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return folder / "bin"


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a real Python that has the packages; the shim must not import them."""
    folder = tmp_path_factory.mktemp("ready")
    venv.create(folder, symlinks=True)
    (site_packages,) = folder.glob("lib/python3*/site-packages")
    for name in ("requests", "dotenv"):
        (site_packages / name).mkdir()
        (site_packages / name / "__init__.py").write_text("raise SystemExit('imported')\n")
    return folder / "bin"


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel for each line of both files of requirements."""
    folder = tmp_path_factory.mktemp("wheels")
    for name, version, module in (
        ("requests", "2.99", "requests"),
        ("python_dotenv", "1.99", "dotenv"),
        ("cheroot", "11.99", "cheroot"),
        ("cryptography", "99.0", "cryptography"),
        ("flask", "3.99", "flask"),
        ("segno", "1.99", "segno"),
        ("sqlalchemy", "2.99", "sqlalchemy"),
        ("werkzeug", "3.99", "werkzeug"),
    ):
        info = f"{name}-{version}.dist-info"
        files = {
            f"{module}/__init__.py": "",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            for path, text in {**files, f"{info}/RECORD": record}.items():
                wheel.writestr(path, text)
    return folder


@pytest.fixture
def offline(wheels: Path, tmp_path: Path) -> dict[str, str]:
    """The variables with which pip installs from the wheels, whatever this machine's settings."""
    return {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_NO_CACHE_DIR": "1",
        "HOME": str(tmp_path),
    }


@pytest.fixture
def project(tmp_path: Path, tools: Path) -> Project:
    """The shim in a project whose name wants to be misread."""
    root = tmp_path / "my 'own' *project"
    copy_runner(root, ("wrapper/claude-runner", "wrapper/requirements.txt"))
    (root / "claude_runner.py").write_text(PROBE)
    return Project(root, tools)


def fake_python(folder: Path, prelude: str) -> Path:
    """Make a python3 that is this Python, but for what the prelude changes in it."""
    folder.mkdir()
    script = folder / "python3"
    script.write_text(
        "#!/bin/sh\n"
        '[ "$1" = -c ] || exit 99\n'
        f"exec '{sys.executable}' -c 'import sys; {prelude}; exec(sys.argv[1])' \"$2\"\n"
    )
    script.chmod(0o755)
    return folder


# What passes through


@pytest.mark.parametrize("shell", SHELLS)
def test_arguments_pass_through_byte_for_byte(
    shell: Sequence[str], project: Project, ready: Path
) -> None:
    """Quotes, newlines, empty strings, options and bytes that are no UTF-8 arrive as they were."""
    arguments: list[Argument] = [
        *("a b", "", "it's", '"quoted"', "two\nlines\n", "*", "$HOME `id` $(id)"),
        *("--", "-c", "\\n\\", b"\xff\xfe"),
    ]

    result = project.run(shell, *arguments, env=project.environ(ready))

    assert told(result)["argv"] == [os.fsdecode(argument) for argument in arguments]
    assert result.stderr == b""


@pytest.mark.parametrize("shell", SHELLS)
def test_exit_code_and_stdin_pass_through(
    shell: Sequence[str], project: Project, ready: Path
) -> None:
    """The program reads the shim's stdin from its first byte, and its exit code is the shim's."""
    stdin = bytes(range(256))

    result = project.run(shell, env=project.environ(ready, PROBE_EXIT="37"), stdin=stdin)

    assert result.returncode == 37
    assert json.loads(result.stdout)["stdin"].encode("latin-1") == stdin


@pytest.mark.parametrize("shell", SHELLS)
def test_environment_passes_through(shell: Sequence[str], project: Project, ready: Path) -> None:
    """Nothing is added or changed, whatever names the user's own variables have."""
    own = {"root": "1", "name": "2", "python": "3", "PYTHONPATH": "/nowhere", "CDPATH": "/"}
    env = project.environ(ready, **own)

    seen = told(project.run(shell, env=env))["environ"]

    # These belong to the shell itself, some of which set them.
    for name in ("PWD", "OLDPWD", "SHLVL", "_"):
        seen.pop(name, None)
    assert seen == env


def test_the_shim_becomes_the_program(project: Project, ready: Path) -> None:
    """A signal to the shim reaches the program: they are one process."""
    with subprocess.Popen(
        [project.shim], env=project.environ(ready), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        answer = json.loads(process.stdout.read())

    assert answer["pid"] == process.pid


# Where it is called from


@pytest.mark.parametrize("shell", SHELLS)
def test_called_through_links(
    shell: Sequence[str], project: Project, ready: Path, tmp_path: Path
) -> None:
    """It follows an absolute link to a relative one to itself, through folders with odd names."""
    links = tmp_path / "-bin $HOME `id` \n"
    links.mkdir()
    (links / "near").symlink_to(f"../{project.root.name}/wrapper/claude-runner")
    (links / "far").symlink_to(links / "near")

    answer = told(project.run(shell, env=project.environ(ready), shim=links / "far", cwd=links))

    assert answer["path"][0] == str(project.root)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("shim", ["claude-runner", "./claude-runner", "../wrapper/claude-runner"])
def test_called_by_a_relative_path(
    shell: Sequence[str], shim: str, project: Project, ready: Path
) -> None:
    """The folder that it is called from decides nothing."""
    cwd = project.root / "wrapper"

    answer = told(project.run(shell, env=project.environ(ready), shim=Path(shim), cwd=cwd))

    assert answer["path"][0] == str(project.root)


def test_called_from_path(project: Project, ready: Path, tmp_path: Path) -> None:
    """A linked folder on PATH is enough to call it by its name."""
    (tmp_path / "bin").symlink_to(project.shim.parent)
    env = project.environ(ready, tmp_path / "bin")

    result = subprocess.run(
        [shutil.which("sh") or "sh", "-c", "claude-runner here"],
        env=env, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip

    assert told(result)["argv"] == ["here"]


@pytest.mark.parametrize("is_link", [True, False], ids=["link", "copy"])
def test_the_name_rev_runner_runs_rev_runner(
    is_link: bool, project: Project, ready: Path, tmp_path: Path
) -> None:
    """The second shim is the first one by another name, also through a link with a third."""
    (project.root / "rev_runner.py").write_text(PROBE.replace("told = {", 'told = {"rev": True,'))
    rev = project.shim.with_name("rev-runner")
    if is_link:
        rev.symlink_to("claude-runner")
    else:
        shutil.copy2(project.shim, rev)
    (tmp_path / "short").symlink_to(rev)

    answer = told(project.run((), env=project.environ(ready), shim=tmp_path / "short"))

    assert answer["rev"] is True


def test_a_missing_program_is_told(project: Project, ready: Path) -> None:
    """A shim copied alone says what is not there."""
    (project.root / "claude_runner.py").unlink()

    assert "claude_runner.py is not in" in one_line(project.run((), env=project.environ(ready)))


# Which Python


@pytest.mark.parametrize("shell", SHELLS)
def test_no_python(shell: Sequence[str], project: Project) -> None:
    """Without any Python it says so in one line."""
    assert "there is no Python on PATH" in one_line(project.run(shell, env=project.environ()))


@pytest.mark.parametrize("shell", SHELLS)
def test_a_python_that_is_too_old(shell: Sequence[str], project: Project, tmp_path: Path) -> None:
    """Python itself says which version it is, and the message names it."""
    old = fake_python(tmp_path / "old", "sys.version_info = (3, 6, 9)")

    line = one_line(project.run(shell, env=project.environ(old)))

    assert "Python 3.9 or newer is needed" in line
    assert f"Python 3.6.9 ({old}/python3)" in line


@pytest.mark.parametrize("shell", SHELLS)
def test_no_venv_module(shell: Sequence[str], project: Project, tmp_path: Path) -> None:
    """Debian's Python without python3-venv: the message names the package, and nothing is left."""
    hide = (
        "import importlib.util as u; find = u.find_spec; "
        'u.find_spec = lambda n: None if n in ("ensurepip", "requests") else find(n)'
    )
    novenv = fake_python(tmp_path / "novenv", hide)

    line = one_line(project.run(shell, env=project.environ(novenv)))

    assert line.endswith("apt install python3-venv")
    assert not project.data.exists()


def test_a_stand_in_that_does_not_run_is_passed_over(
    project: Project, ready: Path, tmp_path: Path
) -> None:
    """What a version manager leaves on PATH for a version that is not there stops nothing."""
    broken = fake_python(tmp_path / "broken", 'sys.exit("python3: command not found")')

    result = project.run((), env=project.environ(broken, ready))

    assert Path(told(result)["python"]).parent == ready
    assert result.stderr == b""


def test_behind_a_stand_in_the_real_python_is_used(
    project: Project, ready: Path, tmp_path: Path
) -> None:
    """A version manager's stand-in is asked once and not run again: it is slow and changes PATH."""
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "python3").write_text(f'#!/bin/sh\nPATH=changed exec "{ready}/python3" "$@"\n')
    (shims / "python3").chmod(0o755)
    env = project.environ(shims)

    answer = told(project.run((), env=env))

    assert answer["python"] == f"{ready}/python3"
    assert answer["environ"]["PATH"] == env["PATH"]


def test_a_later_python_with_the_packages_is_found(
    project: Project, bare: Path, ready: Path, tmp_path: Path
) -> None:
    """A Python without packages does not end the search: nothing is built."""
    first = tmp_path / "first"
    first.mkdir()
    (first / "python3").write_text(f'#!/bin/sh\nexec "{bare}/python3" "$@"\n')
    (first / "python3").chmod(0o755)

    answer = told(project.run((), env=project.environ(first, ready)))

    assert Path(answer["python"]).parent == ready
    assert project.environments() == []


def test_the_given_python_is_used(project: Project, ready: Path, tmp_path: Path) -> None:
    """CLAUDE_RUNNER_PYTHON comes before everything else."""
    old = fake_python(tmp_path / "old", "sys.version_info = (3, 6, 9)")
    env = project.environ(old, CLAUDE_RUNNER_PYTHON=f"{ready}/python3")

    assert told(project.run((), env=env))["python"] == f"{ready}/python3"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("{tmp}/no such\nfile", "does not run as a Python"),
        ("{tools}/cat", "does not run as a Python"),
        ("{tmp}/old/python3", "which is Python 3.6.9, but 3.9 or newer is needed"),
        ("{bare}/python3", "lacks the packages of"),
    ],
    ids=["missing", "no-python", "too-old", "bare"],
)
def test_a_given_python_that_will_not_do(
    shell: Sequence[str],
    given: str,
    says: str,
    project: Project,
    bare: Path,
    ready: Path,
    tmp_path: Path,
) -> None:
    """It is refused in one line, not replaced by another one."""
    fake_python(tmp_path / "old", "sys.version_info = (3, 6, 9)")
    given = given.format(tmp=tmp_path, tools=project.tools, bare=bare)

    line = one_line(project.run(shell, env=project.environ(ready, CLAUDE_RUNNER_PYTHON=given)))

    assert line.startswith("claude-runner: CLAUDE_RUNNER_PYTHON is ")
    assert says in line


# What is left on the disk


def test_compiled_files_stay_out_of_the_project(project: Project, ready: Path) -> None:
    """They go to .data, which is the user's alone and which git does not see."""
    (project.root / "claude_runner.py").write_text(f"import beside\n{PROBE}")
    (project.root / "beside.py").write_text("")

    answer = told(project.run((), env=project.environ(ready)))

    assert answer["pycache_prefix"] == f"{project.data}/pycache"
    assert list(project.data.glob("pycache/**/beside.*.pyc"))
    assert not (project.root / "__pycache__").exists()
    assert project.data.stat().st_mode & 0o777 == 0o700
    assert (project.data / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("name", ["PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE"])
def test_the_users_own_word_on_compiled_files_counts(
    name: str, project: Project, ready: Path, tmp_path: Path
) -> None:
    """Without a cache that is written, an empty one would slow every start down."""
    env = project.environ(ready, **{name: str(tmp_path / "own")})

    prefix = told(project.run((), env=env))["pycache_prefix"]

    assert prefix == (env[name] if name == "PYTHONPYCACHEPREFIX" else None)


@contextlib.contextmanager
def read_only(root: Path) -> Iterator[tuple[str, ...]]:
    """Take the right to write away; yield how to start a program for which that counts."""
    # Root writes everywhere unless it gives that power up.
    drop = ("--bounding-set", "-dac_override", "--inh-caps", "-dac_override")
    root.chmod(0o555)
    try:
        yield ("setpriv", *drop, "/bin/sh") if os.geteuid() == 0 else ("/bin/sh",)
    finally:
        root.chmod(0o755)


def test_a_read_only_project_works(project: Project, ready: Path) -> None:
    """A Python with the packages is all that is needed."""
    with read_only(project.root) as shell:
        result = project.run(shell, env=project.environ(ready))

    assert told(result)["pycache_prefix"] is None
    assert result.stderr == b""
    assert not project.data.exists()


def test_a_read_only_project_without_packages_is_told(project: Project, bare: Path) -> None:
    """It says where it would have had to write."""
    with read_only(project.root) as shell:
        line = one_line(project.run(shell, env=project.environ(bare)))

    assert f"{project.data}, where they would go, cannot be written" in line


# The private environment


@pytest.mark.parametrize("shell", SHELLS)
def test_builds_a_private_environment(
    shell: Sequence[str], project: Project, bare: Path, offline: dict[str, str], tmp_path: Path
) -> None:
    """Built once, then used without a Python on PATH; the current folder lends no module."""
    cwd = tmp_path / "traps"
    cwd.mkdir()
    marker = tmp_path / "trapped"
    for name in (
        "os",
        "site",
        "requests",
        "dotenv",
        "venv",
        "ensurepip",
        "pip",
        "importlib",
        "json",
    ):
        (cwd / f"{name}.py").write_text(TRAP.format(marker=str(marker)))

    env = project.environ(bare, **offline, PIP_USER="1", PIP_REQUIRE_VIRTUALENV="1")
    first = project.run(shell, "one", env=env, cwd=cwd, stdin=b"typed")
    second = project.run(shell, "two", env=project.environ(), cwd=cwd)

    (environment,) = project.environments()
    answer = told(first)
    assert answer["python"] == f"{environment}/bin/python"
    assert (answer["argv"], answer["stdin"]) == (["one"], "typed")
    assert answer["environ"]["PIP_USER"] == "1"
    assert b"first run: installing requests and python-dotenv" in first.stderr
    assert len(first.stderr.splitlines()) == 1
    assert told(second)["python"] == f"{environment}/bin/python"
    assert second.stderr == b""
    assert not marker.exists()
    assert not (project.data / "venv" / "lock").exists()
    assert project.data.stat().st_mode & 0o777 == 0o700


def test_a_folder_named_like_a_variable(
    project: Project, bare: Path, offline: dict[str, str]
) -> None:
    """Python 3.9 would install where the variable leads: that is refused; others build as ever."""
    odd = Project(project.root.rename(project.root.with_name("my $HOME")), project.tools)

    result = odd.run((), env=odd.environ(bare, **offline))

    if sys.version_info >= (3, 10):
        assert told(result)["python"] == f"{odd.environments()[0]}/bin/python"
    else:
        assert "because of the $" in one_line(result)
    assert [path.name for path in odd.root.parent.glob("my *")] == ["my $HOME"]


@pytest.mark.parametrize("change", ["requirements", "python"])
def test_an_environment_that_no_longer_fits_is_not_used(
    change: str, project: Project, bare: Path, ready: Path, offline: dict[str, str]
) -> None:
    """Other requirements or another Python make another environment; one in use is left alone."""
    before = project.data / "venv" / "env.before"
    before.parent.mkdir(parents=True)
    shutil.copytree(ready.parent, before, symlinks=True)
    requirements = project.root / "wrapper" / "requirements.txt"
    with requirements.open("rb") as file:
        sums = subprocess.run(["cksum"], stdin=file, capture_output=True, check=True).stdout.strip()
    stamp = f"{sums.decode()} {sys.implementation.cache_tag}\n"
    (before / "stamp").write_text(stamp)
    fitting = told(project.run((), env=project.environ(bare)))
    if change == "requirements":
        requirements.write_text(requirements.read_text() + "# changed\n")
    else:
        (before / "stamp").write_text(stamp.replace("cpython-3", "cpython-2"))

    answer = told(project.run((), env=project.environ(bare, **offline)))

    (after,) = set(project.environments()) - {before}
    assert fitting["python"] == f"{before}/bin/python"
    assert answer["python"] == f"{after}/bin/python"
    assert (before / "stamp").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_two_first_runs_at_once(
    shell: Sequence[str], project: Project, bare: Path, offline: dict[str, str]
) -> None:
    """Both work, and only one of them builds."""
    where = [shutil.which(shell[0]) or shell[0], *shell[1:], str(project.shim)]
    env = project.environ(bare, **offline)
    pipe = subprocess.PIPE

    with contextlib.ExitStack() as stack:
        both = [
            stack.enter_context(subprocess.Popen(
                where, env=env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
            ))
            for _ in range(2)
        ]  # fmt: skip
        outputs = [process.communicate(timeout=100) for process in both]

    (environment,) = project.environments()
    assert [process.returncode for process in both] == [0, 0], outputs
    assert [json.loads(out)["python"] for out, _ in outputs] == [f"{environment}/bin/python"] * 2
    messages = b"".join(err for _, err in outputs)
    assert messages.count(b"installing requests") == 1
    assert not (project.data / "venv" / "lock").exists()


def test_a_failed_install_leaves_nothing_behind(
    project: Project, bare: Path, offline: dict[str, str]
) -> None:
    """It names the log, and the next run, with the cause removed, starts from the beginning."""
    nothing = {**offline, "PIP_FIND_LINKS": str(project.root)}

    failed = project.run((), env=project.environ(bare, **nothing))
    left = project.environments()
    worked = project.run((), env=project.environ(bare, **offline))

    log = project.data / "setup.log"
    assert failed.returncode == 1
    assert failed.stdout == b""
    assert failed.stderr.decode().splitlines()[1:] == [
        f"claude-runner: pip could not install requests and python-dotenv: {log} says more"
    ]
    assert left == []
    assert told(worked)


def test_no_network(project: Project, bare: Path, offline: dict[str, str]) -> None:
    """A package index that cannot be reached is told as such."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
        env = {**offline, "PIP_INDEX_URL": index, "PIP_RETRIES": "1"}
        del env["PIP_NO_INDEX"], env["PIP_FIND_LINKS"]

        result = project.run((), env=project.environ(bare, **env))

    assert result.returncode == 1
    assert "no network: pip could not download" in result.stderr.decode().splitlines()[-1]
    assert project.environments() == []


@pytest.mark.parametrize("shell", SHELLS)
def test_interrupted_while_building(
    shell: Sequence[str], project: Project, bare: Path, offline: dict[str, str]
) -> None:
    """Ctrl-C while pip waits for an answer ends both and leaves neither lock nor environment."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(60)
        env = {**offline, "PIP_INDEX_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/simple"}
        del env["PIP_NO_INDEX"], env["PIP_FIND_LINKS"]
        with subprocess.Popen(
            [shutil.which(shell[0]) or shell[0], *shell[1:], str(project.shim)],
            env=project.environ(bare, **env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            connection, _ = silent.accept()
            with connection:
                os.killpg(process.pid, signal.SIGINT)
                out, _ = process.communicate(timeout=60)

    assert process.returncode in (130, -signal.SIGINT)
    assert out == b""
    assert project.environments() == []
    assert not (project.data / "venv" / "lock").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_person_sees_that_it_goes_on(
    shell: Sequence[str], project: Project, bare: Path, offline: dict[str, str]
) -> None:
    """At a terminal the seconds are counted, in one line that goes when it is over."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        env = {**offline, "PIP_INDEX_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/simple"}
        del env["PIP_NO_INDEX"], env["PIP_FIND_LINKS"]
        argv = [shutil.which(shell[0]) or shell[0], *shell[1:], str(project.shim)]
        with Terminal(argv, env=project.environ(bare, **env), columns=200) as terminal:
            terminal.expect(b"(this happens once)\r\n")
            terminal.expect(b"\rclaude-runner: installing, 1 s ")
            terminal.expect(b"\rclaude-runner: installing, 2 s ")
            terminal.send(b"\x03")
            terminal.expect(b"\r\x1b[K")
            assert terminal.wait() in (130, -signal.SIGINT)


def dead_process() -> str:
    """Return the owner line of a lock whose owner is gone."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return f"{process.pid} {os.uname().nodename}\n"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("owner", ["dead", "none", "alive", "elsewhere"])
def test_a_lock_that_stays_stops_nobody(
    shell: Sequence[str], owner: str, project: Project, bare: Path, tmp_path: Path
) -> None:
    """A dead owner's lock is taken over, any other is waited for until the deadline.

    The build itself is a failing one here: that it begins is the point.
    """
    lock = project.data / "venv" / "lock"
    lock.mkdir(parents=True)
    lines = {
        "dead": dead_process(),
        "alive": f"{os.getpid()} {os.uname().nodename}\n",
        "elsewhere": "1 another.host\n",
    }
    if owner in lines:
        (lock / "owner").write_text(lines[owner])
    quick = tmp_path / "quick"  # the shim's clock is its sleeps, so that nobody has to wait here
    quick.mkdir()
    (quick / "sleep").write_text("#!/bin/sh\n")
    (quick / "mktemp").write_text("#!/bin/sh\nexit 1\n")
    for script in quick.iterdir():
        script.chmod(0o755)

    lines_told = project.run(shell, env=project.environ(quick, bare)).stderr.decode().splitlines()

    said = [line.split(": ", 1)[1].split(";")[0].split(":")[0] for line in lines_told]
    build = ["first run", f"cannot make a folder in {lock.parent}"]
    waited = "another first run is at it"
    gave_up = "another first run has not come to an end"
    waiting = {"dead": [], "none": [waited]}.get(owner, [waited, gave_up])
    assert said == [*waiting, *build]
    assert lock.exists() == (owner in ("alive", "elsewhere"))


def test_a_half_made_environment_is_never_trusted(
    project: Project, ready: Path, bare: Path, offline: dict[str, str]
) -> None:
    """What a killed build left has no stamp: it is not used, and goes when it is a day old."""
    young, old = (project.data / "venv" / f"env.{name}" for name in ("young", "old"))
    for folder in (young, old):
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").symlink_to(ready / "python3")
    os.utime(old, (1, 1))

    answer = told(project.run((), env=project.environ(bare, **offline)))

    (built,) = set(project.environments()) - {young}
    assert answer["python"] == f"{built}/bin/python"
    assert (built / "stamp").exists()


# The gateway


NPM = """\
#!/bin/sh
# Does what the shim wants of npm: install --prefix FOLDER ... PACKAGE...
[ "$1 $2" = "install --prefix" ] || exit 9
for file in xterm/lib/xterm.js xterm/css/xterm.css; do
    mkdir -p "$3/node_modules/@xterm/${file%/*}" && echo "$*" >"$3/node_modules/@xterm/$file"
done
"""


@pytest.fixture
def gateway_project(project: Project) -> Project:
    """The project with a gateway in it."""
    (project.root / "gateway").mkdir()
    copy_runner(project.root, ("requirements-gateway.txt",))
    return project


def npm_in(folder: Path, script: str) -> Path:
    """Make a folder with an npm of ours."""
    folder.mkdir()
    (folder / "npm").write_text(script)
    (folder / "npm").chmod(0o755)
    return folder


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("command", ["gateway", "demo"])
def test_the_gateway_gets_its_packages(
    shell: Sequence[str],
    command: str,
    gateway_project: Project,
    ready: Path,
    bare: Path,
    offline: dict[str, str],
    tmp_path: Path,
) -> None:
    """A Python that is good enough for the runner is not for the gateway; the second start builds
    nothing, and the runner goes on with what it has.
    """
    project = gateway_project
    npm = npm_in(tmp_path / "npm", NPM)
    env = project.environ(ready, bare, npm, **offline)

    first = project.run(shell, command, "--no-open", env=env)
    again = project.run(shell, command, "--no-open", env=env)
    runner = project.run(shell, "start", command, env=env)

    assert told(first)["argv"] == [command, "--no-open"]
    assert b"first run: installing the gateway's packages" in first.stderr
    assert b"first run: getting xterm.js" in first.stderr
    assert told(again)["python"] == told(first)["python"]
    assert again.stderr == b""
    assert told(runner)["python"] == str(ready / "python3")
    (environment,) = project.environments()
    assert list(environment.glob("lib/python3*/site-packages/sqlalchemy"))
    vendor = project.data / "gateway" / "vendor"
    assert [path.name for path in vendor.iterdir()] == ["xterm"]
    files = sorted(path.name for path in (vendor / "xterm").iterdir())
    assert files == ["xterm.css", "xterm.js"]
    assert "@xterm/xterm@6.0.0" in (vendor / "xterm" / "xterm.js").read_text()


@pytest.mark.parametrize("npm", [None, "#!/bin/sh\nexit 1\n", "#!/bin/sh\nexit 0\n"], ids=repr)
def test_the_gateway_starts_without_xterm(
    npm: str | None,
    gateway_project: Project,
    bare: Path,
    offline: dict[str, str],
    tmp_path: Path,
) -> None:
    """Without npm, or when it fails, one line says what the page will do without."""
    project = gateway_project
    folders = [bare] if npm is None else [bare, npm_in(tmp_path / "npm", npm)]

    result = project.run((), "gateway", env=project.environ(*folders, **offline))

    assert told(result)["argv"] == ["gateway"]
    assert b"plain text instead of a terminal" in result.stderr.splitlines()[-1]
    assert not list(project.data.glob("gateway/vendor/*"))


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("words", [("gateway", "--help"), ("demo", "--no-open", "-h")], ids=str)
def test_help_waits_for_nothing(
    shell: Sequence[str],
    words: tuple[str, ...],
    gateway_project: Project,
    ready: Path,
    offline: dict[str, str],
    tmp_path: Path,
) -> None:
    """Who only asks what there is gets neither the gateway's packages nor xterm.js."""
    project = gateway_project
    npm = npm_in(tmp_path / "npm", NPM)

    result = project.run(shell, *words, env=project.environ(ready, npm, **offline))

    assert told(result)["argv"] == [*words]
    assert told(result)["python"] == str(ready / "python3")
    assert result.stderr == b""
    assert not project.environments()
    assert not list(project.data.glob("gateway/vendor/*"))


def test_without_a_gateway_nothing_is_different(project: Project, ready: Path) -> None:
    """In a project that got the runner's files alone, the program itself says what is missing."""
    result = project.run((), "gateway", env=project.environ(ready))

    assert told(result)["argv"] == ["gateway"]
    assert result.stderr == b""
    assert not project.environments()


# The real files


def test_the_runners_files_work_in_another_project(tmp_path: Path) -> None:
    """The files of the one list are a whole runner: nothing else of this repository is needed."""
    copy_runner(tmp_path / "project")

    result = subprocess.run(
        [tmp_path / "project" / "wrapper" / "claude-runner", "--version"],
        env={"PATH": os.environ["PATH"], "CLAUDE_RUNNER_PYTHON": sys.executable},
        cwd="/", stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


@pytest.mark.parametrize("name", [name for name in RUNNER_FILES if name.endswith(".py")])
def test_the_list_holds_every_module_that_the_runner_imports(name: str) -> None:
    """Also one that is imported late, which a first try of a copy would not miss."""
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {
        a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names
    }

    own = {f"{module}.py" for module in imported if module and (ROOT / f"{module}.py").exists()}

    assert own <= set(RUNNER_FILES)
