"""Nothing of the project, of a variable or of the current folder is imported or started.

A real run in an installed project, against a gateway, tells which modules it has loaded. Each of
their names is then planted everywhere, as a file and as a folder, and leaves a mark when it is
imported.
"""

from __future__ import annotations

import json
import os
import py_compile
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from testing.gateways.strict_gateway import StrictGateway
from testing.installed import lay_out
from testing.programs.runner import Launch, RunnerProcess, child, plan

# Put at the end of a copy of the program, it tells at the end of a run what was loaded.
TELL_MODULES = """
import atexit as _atexit
_atexit.register(lambda: open({file!r}, "w").write(chr(10).join(sys.modules)))
"""
PLANTED = "with open({mark!r}, 'a') as mark: mark.write(__name__ + chr(10))\nraise SystemExit(99)\n"


@pytest.fixture
def gateway() -> Iterator[StrictGateway]:
    """A gateway that accepts the run."""
    with StrictGateway(rate_limit=None) as gateway:
        yield gateway


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the runner in it."""
    root = tmp_path / "the project"
    lay_out(root)
    return root


def planned(gateway: StrictGateway, project: Path, folder: Path, **env: str) -> Launch:
    """Return a run of the installed runner, by its shim, from the project's root."""
    folder.mkdir(exist_ok=True)
    launch = plan(gateway, child("exits.py", "5", "done"), folder, cwd=project)
    argv = [str(project / "wrapper" / "claude-runner"), *launch.argv[2:]]
    given = {"CLAUDE_RUNNER_PYTHON": sys.executable}
    return replace(launch, argv=argv, env={**launch.env, **given, **env})


def run(launch: Launch, cwd: Path) -> tuple[int, str]:
    """Let a run come to its end; return its exit code and what it said."""
    done = subprocess.run(
        launch.argv, env=launch.env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def loaded_modules(gateway: StrictGateway, tmp_path: Path) -> list[str]:
    """Return the top-level names of every module that a run has loaded when it ends."""
    root = tmp_path / "watched"
    lay_out(root)
    listing = tmp_path / "modules"
    script = root / "wrapper" / "program" / "claude_runner.py"
    text = script.read_text()
    marker = 'if __name__ == "__main__":\n    command_line.leave'
    assert text.count(marker) == 1
    script.write_text(text.replace(marker, TELL_MODULES.format(file=str(listing)) + marker))
    assert run(planned(gateway, root, tmp_path / "first"), root)[0] == 5
    names = {name.partition(".")[0] for name in listing.read_text().split()}
    return sorted(name for name in names if name.isidentifier() and not name.startswith("__"))


def plant(folder: Path, names: list[str], mark: Path, *, as_folder: bool) -> None:
    """Plant modules of these names, and what Python starts by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    text = PLANTED.format(mark=str(mark))
    for name in (*names, "sitecustomize", "usercustomize"):
        file = folder / name / "__init__.py" if as_folder else folder / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)


def test_no_module_of_the_project_is_imported(
    gateway: StrictGateway, project: Path, tmp_path: Path
) -> None:
    """Whatever its name, wherever it lies: in the root, the current folder, or PYTHONPATH."""
    names = [*loaded_modules(gateway, tmp_path), "dotenv"]  # which an empty .env does not need
    assert {"queue", "secrets", "hmac", "requests", "dotenv", "redact", "journal", "email"} <= {
        *names
    }
    for as_folder in (False, True):
        mark, here = tmp_path / f"mark-{as_folder}", tmp_path / f"here-{as_folder}"
        for folder in (project, here, tmp_path / f"path-{as_folder}"):
            plant(folder, names, mark, as_folder=as_folder)
        plant(project / "wrapper", names, mark, as_folder=as_folder)
        env = {
            "PYTHONPATH": f"{tmp_path / f'path-{as_folder}'}:.",
            "PYTHONHOME": str(tmp_path / "nowhere"),
            "PYTHONSTARTUP": str(project / "queue.py"),
            "PYTHONSAFEPATH": "1",
        }

        launch = planned(gateway, project, tmp_path / f"run-{as_folder}", **env)
        code, said = run(launch, here)

        imported = mark.read_text().split() if mark.exists() else []
        assert imported == []
        assert code == 5, said
        assert gateway.text(launch.run.id) == "done go\n"


def test_nothing_of_the_users_packages_or_an_activated_environment(
    project: Path, tmp_path: Path
) -> None:
    """Neither ~/.local nor the `.venv` that is first on PATH, nor a `.data/venv` of a clone."""
    mark = tmp_path / "mark"
    python = Path(sys.base_prefix, "bin", "python3")
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    home = Path.home()
    environment = project / ".venv"
    venv.create(environment, symlinks=True, with_pip=False)
    (packages,) = environment.glob("lib/python3*/site-packages")
    users = home / ".local" / "lib" / version / "site-packages"
    for folder in (packages, users):
        plant(folder, ["requests", "argparse"], mark, as_folder=False)
        (folder / "planted.pth").write_text(f"import os; open({str(mark)!r}, 'a').write('pth')\n")
    planted = project / ".data" / "venv" / "env.aaaaaa" / "bin"
    planted.mkdir(parents=True)
    (planted / "python").write_text(f"#!/bin/sh\n: >>'{mark}'\n")
    (planted / "python").chmod(0o755)
    (planted.parent / "stamp").write_text("anything\n")
    env = {
        "PATH": f"{environment}/bin:{python.parent}:/usr/bin:/bin",
        "VIRTUAL_ENV": str(environment),
        "HOME": str(home),
    }

    done = subprocess.run(
        [project / "wrapper" / "claude-runner", "info", "--json"],
        env=env, cwd=project, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert f"({python}" in json.loads(done.stdout)["python"]
    assert not mark.exists()


@pytest.mark.parametrize("words", [("--version",), ("--help",), ("completion", "bash"), ("info",)])
def test_without_packages(words: tuple[str, ...], project: Path) -> None:
    """These work on a fresh clone, say what they could not read, and install nothing."""
    (project / ".env").write_text("GATEWAY_URL=http://127.0.0.1:1\n")
    env = {"PATH": f"{Path(sys.base_prefix, 'bin')}", "HOME": os.environ["HOME"]}

    done = subprocess.run(
        [project / "wrapper" / "claude-runner", *words],
        env=env, cwd=project, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert ("was not read" in done.stderr) == (words == ("info",))
    assert "python-dotenv" in done.stderr or words != ("info",)
    assert not list(Path.home().glob(".cache/claude-runner/packages/*"))


def plant_compiled_files(program: Path, mark: Path) -> None:
    """Put a compiled file beside each module, of the kind that is not compared with its source."""
    for source in program.rglob("*.py"):
        planted = program / "planted"
        planted.write_text(PLANTED.format(mark=str(mark)))
        py_compile.compile(
            str(planted),
            cache_from_source(str(source)),
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        planted.unlink()


@pytest.mark.parametrize("name", ["claude-runner", "rev-runner"])
@pytest.mark.parametrize("cache", ["own", "none", "planted"])
def test_no_compiled_file_of_the_project_is_loaded(
    cache: str, name: str, project: Path, tmp_path: Path
) -> None:
    """Neither from beside the modules, nor from a cache folder in the project, as of its home."""
    mark = tmp_path / "mark"
    program = project / "wrapper" / "program"
    plant_compiled_files(program, mark)
    home = {"planted": project, "none": tmp_path / "file"}.get(cache, Path.home())
    (tmp_path / "file").touch()
    if cache == "planted":
        planted = home / ".cache" / "claude-runner" / "pycache"
        for file in program.rglob("*.pyc"):
            module = file.name.partition(".")[0]
            there = f"{file.parent.parent}/{module}.{sys.implementation.cache_tag}.pyc"
            target = Path(f"{planted}{there}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, target)
        (home / ".cache" / "claude-runner").chmod(0o755)
    env = {"PATH": "/nowhere", "HOME": str(home), "CLAUDE_RUNNER_PYTHON": sys.executable}

    done = subprocess.run(
        [project / "wrapper" / name, "info", "--json"],
        env=env, cwd=project, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert not mark.exists()
    assert done.returncode == 0, done.stderr


# What is started


PLANTED_PROGRAM = "#!/bin/sh\necho \"$0\" >>'{mark}'\nexit 99\n"


def plant_programs(folder: Path, mark: Path, names: tuple[str, ...]) -> None:
    """Plant programs that leave a mark."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(PLANTED_PROGRAM.format(mark=mark))
        (folder / name).chmod(0o755)


def planted_path(before: str | None) -> str:
    """Return a PATH that names the current folder in every way, in front of the real one."""
    return f":.:bin:./bin:{before or os.defpath}"


def test_no_program_of_the_current_folder_is_started(
    gateway: StrictGateway, project: Path, tmp_path: Path
) -> None:
    """Not for the child, git, tmate, the operator's commands; and PATH is handed on as it is."""
    mark = tmp_path / "mark"
    names = (
        "claude",
        "rev",
        "git",
        "tmate",
        "ssh",
        "ps",
        "npm",
        "python3",
        "sh",
        "env",
        "my-tests",
    )
    for folder in (project, project / "bin"):
        plant_programs(folder, mark, names)
    real = tmp_path / "real"
    real.mkdir()
    source = "import os, sys, time; print(os.environ['PYTHONEXECUTABLE']); "
    source += "print('PATH', os.environ['PATH']); time.sleep(60)"
    (real / "claude-like").write_text(f"#!{sys.executable}\n{source.replace('; ', chr(10))}\n")
    (real / "my-tests").write_text("#!/bin/sh\necho the real one\n")
    for program in real.iterdir():
        program.chmod(0o755)
    path = planted_path(f"{real}:{os.environ['PATH']}")
    folder = tmp_path / "run"
    launch = planned(gateway, project, folder, PATH=path, EXTRA_ALLOWED_COMMANDS="my-tests")
    # The shim takes this one out, and the child gets it nevertheless.
    given = {"CLAUDE_COMMAND": "claude-like", "PYTHONEXECUTABLE": sys.executable}
    launch = replace(launch, env={**launch.env, **given}, argv=[*launch.argv, "--assist"])
    before = Path.cwd()
    os.chdir(project)
    try:
        with RunnerProcess(launch) as runner:
            launch.expect(r"PATH (.*)\r?\n")
            text = gateway.text(launch.run.id).replace("\r", "")
            assert f"{sys.executable}\nPATH {path}\n" in text
            ids = [
                gateway.queue_command(launch.run.id, each) for each in ("git status", "my-tests")
            ]
            gateway.wait_for(lambda: set(ids) <= set(gateway.acks(launch.run.id)), 30)
            gateway.queue_command(launch.run.id, "__STOP__")
            runner.wait()
    finally:
        os.chdir(before)

    started = mark.read_text().split() if mark.exists() else []
    assert started == []


def test_doctor_starts_no_program_of_the_current_folder(project: Path, tmp_path: Path) -> None:
    """It looks for the same programs as a run."""
    mark = tmp_path / "mark"
    plant_programs(project, mark, ("claude", "tmate", "git", "python3"))

    done = look(project, {"PATH": planted_path("/nowhere")})

    assert "'claude'" in done.stdout
    assert "'tmate'" in done.stdout
    assert not mark.exists()


def look(project: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `doctor` in the project."""
    given = {"CLAUDE_RUNNER_PYTHON": sys.executable, "HOME": os.environ["HOME"]}
    return subprocess.run(
        [project / "wrapper" / "claude-runner", "doctor"],
        env={**given, **env}, cwd=project, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


# A program that is replaced while it runs


def test_a_run_outlives_its_program(gateway: StrictGateway, project: Path, tmp_path: Path) -> None:
    """An upgrade puts another program there: the run keeps its own to the end, and delivers."""
    cache = tmp_path / "cache"
    launch = planned(gateway, project, tmp_path / "run", CLAUDE_RUNNER_CACHE_DIR=str(cache))
    script = tmp_path / "child.py"
    script.write_text(
        "import pathlib, time\nprint('READY', flush=True)\n"
        f"while not pathlib.Path({str(tmp_path / 'go-on')!r}).exists(): time.sleep(0.05)\n"
        "print('END')\nraise SystemExit(4)\n"
    )
    env = {**launch.env, "CLAUDE_COMMAND": f"{sys.executable} -I -S {script}"}
    launch = replace(launch, env=env)

    with RunnerProcess(launch) as runner:
        launch.expect("READY")
        program = project / "wrapper" / "program"
        program.rename(program.with_name("program.old"))
        program.mkdir()
        for file in (program.with_name("program.old")).glob("*.py"):
            (program / file.name).write_text("raise SystemExit('another version')\n")
        shutil.rmtree(program.with_name("program.old"))
        shutil.rmtree(cache)
        (tmp_path / "go-on").touch()
        assert runner.wait() == 4, runner.stderr

    assert "END" in gateway.text(launch.run.id)
    assert gateway.markers(launch.run.id, "finished")[0]["exitCode"] == 4
    assert [each.name for each in gateway.artifacts(launch.run.id)] == ["claude.log"]
