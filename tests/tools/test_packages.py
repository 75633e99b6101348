"""Packages that Python lacks: installed once below the user's cache folder, and nowhere else.

A small program of the runner's own modules asks for them; they come from wheels made on the spot,
so that pip really installs by the real lists, without network.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import places
from testing.installed import lay_out
from testing.once import build_once
from testing.programs.terminal import Terminal
from tools.packages import FILES, GATEWAY, POSTGRESQL, RUNNER

# A build takes seconds, and minutes on a machine with much other work.
pytestmark = pytest.mark.timeout(400)

# A Python of no virtual environment. Like Debian's own it has no requests.
PYTHON = Path(sys.base_prefix, "bin", "python3")

PROGRAM = """\
import json, os, sys
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
sys.dont_write_bytecode = True
import places
places.keep_compiled_files()
sys.version += os.environ.get("OTHER_VERSION", "")
from tools import packages
from runner.console import Console
from config import RunnerError
console = Console("claude-runner")
try:
    packages.provide(console)
    if "gateway" in sys.argv:
        packages.provide(console, packages.GATEWAY)
        packages.provide(console, packages.POSTGRESQL)
        packages.provide(console, packages.FILES)
except RunnerError as error:
    console.error(str(error))
    sys.exit(1)
except KeyboardInterrupt:
    sys.exit(130)
import dotenv, requests
print(json.dumps({"requests": requests.__file__, "path": sys.path, "python": sys.executable}))
"""


# The environment with pip in it, the same each time, is copied, with the times of its files:
# they say whether what Python has compiled is right. One test makes its own, which takes seconds.
PREPARED = """\
import subprocess
popen = subprocess.Popen
subprocess.Popen = lambda argv, **how: popen(
    ["/bin/cp", "-RPp", {ready!r}, argv[-1]] if "venv" in argv else argv, **how
)
"""

# What Debian leaves out: ensurepip is not found, and `-m venv` fails.
NO_VENV = """\
import importlib.machinery, subprocess, sys
find, call = importlib.machinery.PathFinder.find_spec, subprocess.Popen
importlib.machinery.PathFinder.find_spec = lambda n, *a: None if n == "ensurepip" else find(n, *a)
subprocess.Popen = lambda argv, **how: call(["/bin/false"] if "venv" in argv else argv, **how)
"""


@dataclass(frozen=True)
class Home:
    """A project, a home, and how to start the program there."""

    project: Path
    home: Path
    env: Mapping[str, str]

    @property
    def cache(self) -> Path:
        """The user's cache folder."""
        return self.home / ".cache" / "claude-runner"

    @property
    def sets(self) -> list[Path]:
        """The sets of packages, complete or not."""
        return sorted(path for path in self.cache.glob("packages/*") if path.is_dir())

    @property
    def argv(self) -> list[str]:
        """The command line."""
        return [str(self.project / "wrapper" / "claude-runner")]

    def run(
        self, *arguments: str, cwd: Path | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Start it and wait for its end."""
        return subprocess.run(
            [*self.argv, *arguments], env={**self.env, **more}, cwd=cwd or self.project,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    def refusal(self, **more: str) -> str:
        """Return the one sentence with which it gives up."""
        done = self.run(cwd=None, **more)
        assert (done.returncode, done.stdout) == (1, "")
        assert "Traceback" not in done.stderr
        return done.stderr.splitlines()[-1]


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return what the program said."""
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


# What a package is imported as, where that is not its name.
_MODULES = {"python_dotenv": "dotenv", "markdown_it_py": "markdown_it"}


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel for each line of the lists."""
    folder = tmp_path_factory.mktemp("wheels")
    lists = (
        "wrapper/requirements.txt",
        "requirements-gateway.txt",
        "requirements-postgresql.txt",
        "requirements-files.txt",
    )
    for line in "".join((places.PROGRAM / each).read_text("utf-8") for each in lists).splitlines():
        wanted = re.fullmatch(r"([\w-]+)(?:\[binary\])?>=[\d.]+(?:,<([\d.]*?)(\d+))?", line)
        if wanted is None:
            assert line.startswith("#"), line
            continue
        name = wanted[1].lower().replace("-", "_")
        version = f"{wanted[2]}{int(wanted[3]) - 1}.99" if wanted[3] else "99"
        module = _MODULES.get(name, name)
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


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a program does first that gets its environments from a copy."""

    def make(folder: Path) -> None:
        environment = folder / "environment"
        subprocess.run([PYTHON, "-I", "-m", "venv", "--without-pip", environment], check=True)
        packages = next(environment.glob("lib/python3*/site-packages"))
        # The pip of the tests' environment, compiled as it is; ensurepip would compile it anew.
        for path in Path(sysconfig.get_path("purelib")).glob("pip*"):
            shutil.copytree(path, packages / path.name)

    folder = build_once(tmp_path_factory, "environment-with-pip", make)
    return PREPARED.format(ready=str(folder / "environment"))


@pytest.fixture
def home(wheels: Path, prepared: str, compiled: Path, tmp_path: Path) -> Home:
    """A user who has installed nothing yet, and whose pip gets the wheels."""
    folder = lay_out(tmp_path / "my project")
    (folder / "program" / "claude_runner.py").write_text(prepared + PROGRAM)
    (tmp_path / "home" / ".cache" / "claude-runner").mkdir(mode=0o700, parents=True)
    (tmp_path / "home" / ".cache" / "claude-runner" / "pycache").symlink_to(compiled / "pycache")
    guard = {name: os.environ[name] for name in os.environ if name.startswith("TEST_GUARD_")}
    env = {
        **guard,
        "PATH": f"{PYTHON.parent}:/usr/bin:/bin",
        "HOME": str(tmp_path / "home"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_NO_CACHE_DIR": "1",
    }
    return Home(tmp_path / "my project", tmp_path / "home", env)


@pytest.fixture(scope="session")
def complete(
    wheels: Path, prepared: str, compiled: Path, tmp_path_factory: pytest.TempPathFactory
) -> Home:
    """A user who has started it once: built once, and used by tests that change nothing of it."""
    folder = tmp_path_factory.mktemp("complete")
    made: Home = home.__wrapped__(wheels, prepared, compiled, folder)  # type: ignore[attr-defined]
    told(made.run())
    return made


@contextlib.contextmanager
def silent_index(home: Home) -> Iterator[tuple[Home, socket.socket]]:
    """An index that takes connections and answers nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(60)
        env = {**home.env, "PIP_INDEX_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/simple"}
        del env["PIP_NO_INDEX"], env["PIP_FIND_LINKS"]
        yield replace(home, env=env), silent


def test_built_once_and_then_used(home: Home, tmp_path: Path) -> None:
    """After the standard library, from a folder of the user's alone; nothing is in the project."""
    (home.project / "wrapper" / "program" / "claude_runner.py").write_text(PROGRAM)
    shutil.rmtree(home.home / ".cache")
    before = sorted(home.project.rglob("*"))
    traps = tmp_path / "traps"
    traps.mkdir()
    for name in ("os", "site", "requests", "dotenv", "venv", "ensurepip", "pip", "json"):
        (traps / f"{name}.py").write_text(f"open({str(tmp_path / 'trapped')!r}, 'w')\n")
    env = {"PYTHONPATH": str(traps), "PIP_USER": "1", "PIP_REQUIRE_VIRTUALENV": "1"}
    env["PYTHONPLATLIBDIR"] = "nowhere"  # where a Python that is not isolated has its library

    first = home.run(cwd=traps, **env)
    second = home.run(cwd=traps, PATH=f"{PYTHON.parent}")

    (packages,) = home.sets
    answer = told(first)
    assert answer["requests"] == str(packages / "requests" / "__init__.py")
    path = answer["path"]
    assert path[0] == str(home.project / "wrapper" / "program")
    assert path.index(str(packages)) > path.index(os.path.dirname(os.__file__))
    assert first.stderr == (
        "claude-runner: first run: installing requests and python-dotenv into "
        f"{home.cache}/packages (this happens once)\n"
    )
    assert told(second) == answer
    assert second.stderr == ""
    assert not (tmp_path / "trapped").exists()
    assert home.cache.stat().st_mode & 0o777 == 0o700
    assert sorted(home.project.rglob("*")) == before
    assert list(home.cache.glob("pycache/**/packages.*.pyc"))
    assert not list(packages.glob("pip*"))


def test_projects_share_and_pythons_do_not(complete: Home, wheels: Path, tmp_path: Path) -> None:
    """Another project finds what is there; other requirements or another Python do not."""
    other = lay_out(tmp_path / "other")
    shutil.copy(complete.project / "wrapper" / "program" / "claude_runner.py", other / "program")
    second = replace(complete, project=tmp_path / "other")
    assert second.run().stderr == ""

    newer = second.run(OTHER_VERSION=" (another build)")
    with (other / "requirements.txt").open("a") as list_for_pip:
        list_for_pip.write("# changed\n")
    changed = second.run()

    assert "installing requests" in newer.stderr
    assert "installing requests" in changed.stderr
    assert len({told(each)["requests"] for each in (complete.run(), newer, changed)}) == 3


def test_the_gateway_gets_what_it_lacks(complete: Home) -> None:
    """A second set, without what the first one has, and others for PostgreSQL and object stores."""
    every = (RUNNER, GATEWAY, POSTGRESQL, FILES)
    for each in every[1:]:
        shutil.copy(each.file, complete.project / "wrapper")

    answer = told(complete.run("gateway"))

    sets = [folder for folder in answer["path"] if "/packages/" in folder]
    names = [name for each in every for name in each.modules]
    assert sorted(
        name for folder in sets for name in names if Path(folder, name).is_dir()
    ) == sorted(names)  # fmt: skip


def test_two_first_runs_at_once(home: Home) -> None:
    """Both work, and only one of them builds."""
    with contextlib.ExitStack() as stack:
        both = [
            stack.enter_context(subprocess.Popen(
                home.argv, env=home.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True,
            ))
            for _ in range(2)
        ]  # fmt: skip
        outputs = [process.communicate(timeout=300) for process in both]

    assert [process.returncode for process in both] == [0, 0], outputs
    assert len({json.loads(out)["requests"] for out, _ in outputs}) == 1
    assert "".join(err for _, err in outputs).count("installing requests") == 1
    assert len(home.sets) == 1


def test_a_failed_install_leaves_nothing_but_its_log(home: Home) -> None:
    """The sentence names the log, and the next start begins anew."""
    line = home.refusal(PIP_FIND_LINKS=str(home.project))

    assert line.startswith("claude-runner: pip could not install requests and python-dotenv; see ")
    (log,) = home.cache.glob("packages/*.log")
    assert line.endswith(f"; see {log}")
    assert home.sets == []


def test_no_network(home: Home) -> None:
    """A package index that cannot be reached is told as such."""
    with silent_index(home) as (offline, silent):
        silent.close()
        line = offline.refusal(PIP_RETRIES="1")

    assert "no network: pip could not download requests and python-dotenv" in line
    assert home.sets == []


def test_interrupted_while_building(home: Home) -> None:
    """Ctrl-C ends pip too and leaves nothing; at a terminal the seconds are shown until then."""
    with contextlib.ExitStack() as stack:
        waiting, silent = stack.enter_context(silent_index(home))
        argv, env = waiting.argv, dict(waiting.env)
        terminal = stack.enter_context(Terminal(argv, env=env, columns=200))
        terminal.expect(b"(this happens once)\r\n")
        connection, _ = silent.accept()
        stack.callback(connection.close)
        terminal.expect(b"installing, ")
        terminal.send(b"\x03")
        assert terminal.wait() == 130

    assert home.sets == []


def test_a_killed_build_is_not_trusted(home: Home) -> None:
    """What it left is not used, and goes with the next build, as does what others left long ago."""
    with silent_index(home) as (waiting, silent), subprocess.Popen(
        waiting.argv, env=waiting.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        connection, _ = silent.accept()
        os.killpg(process.pid, signal.SIGKILL)
        connection.close()
    (left,) = home.sets
    assert ".new-" in left.name
    (home.cache / "packages" / "other.new-1").mkdir()
    os.utime(home.cache / "packages" / "other.new-1", (1, 1))

    told(home.run())

    assert [".new-" in path.name for path in home.sets] == [False]


@pytest.mark.parametrize("fault", ["others", "writable", "file", "relative"])
def test_a_cache_folder_that_is_not_the_users_alone_is_refused(
    fault: str, home: Home, tmp_path: Path
) -> None:
    """Whoever can write there would decide what is executed; a better place is asked for."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    if fault == "others":
        if os.geteuid() != 0:
            pytest.skip("only root may give a folder away")
        os.chown(folder, 12345, 12345)
    elif fault == "writable":
        folder.chmod(0o777)
    elif fault == "file":
        folder.rmdir()
        folder.touch()
    name = "cache" if fault == "relative" else str(folder)

    line = home.refusal(CLAUDE_RUNNER_CACHE_DIR=name)

    reason = {
        "others": "belongs to another user",
        "writable": "can be written by other users; chmod go-w it",
        "file": "cannot be made (",
        "relative": "write an absolute path",
    }[fault]
    assert reason in line or "is not a folder" in line
    assert line.endswith("; set CLAUDE_RUNNER_CACHE_DIR to a folder of your own")
    assert fault in ("file", "relative") or list(folder.iterdir()) == []
    assert not list(home.project.rglob("*.pyc"))


@pytest.mark.parametrize("project_is", ["clean", "tracked", "no-repository"])
def test_without_a_home_git_decides_whether_data_is_the_users(project_is: str, home: Home) -> None:
    """In `.data`, if git says that nothing of it came with the project; else it is told."""
    git = ["git", "-C", str(home.project), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    (home.project / ".gitignore").write_text(".data/\n")
    if project_is != "no-repository":
        subprocess.run([*git, "init", "-q"], check=True)
    if project_is == "tracked":
        (home.project / ".DATA").mkdir()
        (home.project / ".DATA" / "planted").touch()
        subprocess.run([*git, "add", "-f", ".DATA"], check=True)
    shutil.rmtree(home.home)
    home.home.touch()  # nothing can be made below it, whoever asks

    done = home.run()

    if project_is == "clean":
        assert told(done)["requests"].startswith(f"{home.project}/.data/packages/")
        assert (home.project / ".data").stat().st_mode & 0o777 == 0o700
    else:
        assert (done.returncode, done.stdout) == (1, "")
        assert "are missing, and cannot be installed: " in done.stderr
        assert "set CLAUDE_RUNNER_CACHE_DIR to a folder of your own" in done.stderr
        assert not (home.project / ".data").exists()


def test_no_venv_module(home: Home) -> None:
    """Debian's Python without python3-venv: the sentence names the package."""
    program = home.project / "wrapper" / "program" / "claude_runner.py"
    program.write_text(NO_VENV + PROGRAM)

    assert home.refusal().endswith("on Debian or Ubuntu, apt install python3-venv")
