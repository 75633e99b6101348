"""The package as pip, pipx and uv install it: built, put into a fresh environment, and used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from config import VERSION
from places import COMPANIONS, companion, program_files
from testing.gateways.strict_gateway import StrictGateway
from testing.once import build_once
from testing.programs.runner import REV, child, plan
from testing.programs.runner_files import ROOT

WITHIN_S = 100.0
HOME = "claude_runner_program"
# Like pip, but with the environment's own setuptools, because tests do not reach the network.
BUILD = "import setuptools.build_meta as b; b.build_{}('..')"
CHOSEN_PYTHON = {"CLAUDE_RUNNER_PYTHON": sys.executable}
NOT_COPIED = (".git", ".venv*", ".data", ".env", "build", "*.egg-info", "__pycache__", ".*_cache")


@dataclass(frozen=True)
class _Built:
    sdist: Path
    wheel: Path
    wheel_of_the_sdist: Path


def build(what: str, source: Path) -> None:
    """Build an `sdist` or a `wheel` beside a folder of sources."""
    subprocess.run(
        [sys.executable, "-c", BUILD.format(what)],
        cwd=source,
        capture_output=True,
        check=True,
        timeout=WITHIN_S,
    )


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> _Built:
    """The package, built from a copy of the sources so that nothing is left in them."""
    folder = build_once(tmp_path_factory, "built-package", build_all)
    unpacked = next((folder / "unpacked").glob("*.whl"))
    return _Built(next(folder.glob("*.tar.gz")), next(folder.glob("*.whl")), unpacked)


def build_all(folder: Path) -> None:
    """Build an sdist and a wheel into a folder, and a wheel of the sdist into one in it."""
    source = folder / "source"
    shutil.copytree(
        ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED, ".hypothesis")
    )
    # What must not get into a package: an older build's modules, and secrets.
    for name in ("build/lib/delivery.py", f"build/lib/{HOME}/program/old.py", "docs/.env"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("left\n")
    build("sdist", source)
    build("wheel", source)
    sdist = next(folder.glob("*.tar.gz"))
    (folder / "unpacked").mkdir()
    subprocess.run(["tar", "-xzf", str(sdist), "-C", str(folder / "unpacked")], check=True)
    build("wheel", folder / "unpacked" / sdist.name[: -len(".tar.gz")])


@pytest.fixture(scope="session")
def installed(built: _Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it; the two packages it needs are the test's own."""

    def install(folder: Path) -> None:
        venv.create(folder, symlinks=True, with_pip=False)
        (site_packages(folder) / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
        pip += ["--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
        subprocess.run([*pip, "--no-cache-dir", str(built.wheel)], check=True, timeout=WITHIN_S)

    return build_once(tmp_path_factory, "package-environment", install) / "bin" / "claude-runner"


def site_packages(environment: Path) -> Path:
    """Return where an environment has its packages."""
    return next(environment.glob("lib/python3*/site-packages"))


def use(
    program: Path, *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the installed program to its end."""
    return subprocess.run(
        [str(program), *arguments],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )


def contents(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel, without what describes it."""
    with zipfile.ZipFile(wheel) as packed:
        names = [name for name in packed.namelist() if ".dist-info/" not in name]
        return {name: packed.read(name) for name in names}


def test_the_package_is_one_folder_with_the_program_and_no_other_file(built: _Built) -> None:
    """`program_files` is the one list, and what `install` needs lies beside; nothing older."""
    program = {f"{HOME}/program/{name}": (ROOT / name).read_bytes() for name in program_files()}
    beside = {f"{HOME}/wrapper/{name}": companion(name).read_bytes() for name in COMPANIONS}
    entry = {f"{HOME}/__init__.py": (ROOT / HOME / "__init__.py").read_bytes()}

    assert contents(built.wheel) == {**entry, **program, **beside}
    assert f"-{VERSION}-" in built.wheel.name


def test_the_sources_build_the_same_package_and_hold_no_secret(built: _Built) -> None:
    """pip takes either. Who gets the sources gets the tests too."""
    with tarfile.open(built.sdist) as sdist:
        packed = {name.partition("/")[2] for name in sdist.getnames()}

    assert contents(built.wheel_of_the_sdist) == contents(built.wheel)
    assert not [name for name in packed if Path(name).name == ".env"]
    assert packed >= {"tests/test_package.py", "requirements-gateway.txt", "Makefile"}


@pytest.mark.parametrize("name", ["claude-runner", "rev-runner"])
def test_the_installed_commands_say_their_version(installed: Path, name: str) -> None:
    """Both entry points are there and work."""
    done = use(installed.with_name(name), "--version")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name} {VERSION}\n", "")


def test_pip_adds_one_name_to_the_pythons_packages(installed: Path) -> None:
    """No module of ours can be imported in place of somebody's `assist` or `delivery`."""
    names = {path.name for path in site_packages(installed.parent.parent).iterdir()}

    assert names == {HOME, f"claude_runner-{VERSION}.dist-info", "packages.pth"}


def test_without_its_environment_it_finds_the_packages_beside_it(
    built: _Built, tmp_path: Path
) -> None:
    """`pip install --user` and `--target` fill a folder that `-I` leaves out."""
    with zipfile.ZipFile(built.wheel) as packed:
        packed.extractall(tmp_path)
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        (tmp_path / path.name).symlink_to(path)
    start = tmp_path / "start"
    python = Path(sys.base_prefix, "bin", "python3")
    start.write_text(f"#!{python}\nimport {HOME}\n{HOME}.claude_runner()\n")
    start.chmod(0o755)
    done = use(start, "info", "--json", env={"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)})

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] == str(tmp_path / HOME / "program")


def test_its_folders_and_its_name_are_the_users(installed: Path, tmp_path: Path) -> None:
    """No message and no help names a `wrapper/` that is not there."""
    env = {"XDG_CONFIG_HOME": str(tmp_path / "conf"), "XDG_STATE_HOME": str(tmp_path / "state")}
    told = json.loads(use(installed, "info", "--json", env=env).stdout)
    helped = use(installed, "--help", env=env).stdout
    rev_helped = use(installed.with_name(REV.program), "--help", env=env).stdout
    failed = use(installed, "test-connection", env=env).stderr

    values = {row["variable"]: row["value"] for row in told["settings"]}
    assert told["envFile"] == str(tmp_path / "conf" / "claude-runner" / ".env")
    assert values["CLAUDE_RUNNER_DATA_DIR"] == str(tmp_path / "state" / "claude-runner")
    assert "\n  claude-runner start --run-id" in helped
    assert "\n  rev-runner start --run-id" in rev_helped
    assert "wrapper/" not in helped + rev_helped
    assert f"put the gateway's own secret into {told['envFile']}" in failed


def test_a_whole_run(installed: Path, tmp_path: Path) -> None:
    """Start, output, log and end, with the settings from the user's own folder."""
    env_file = tmp_path / "conf" / "claude-runner" / ".env"
    env_file.parent.mkdir(parents=True)
    with StrictGateway() as gateway:
        launch = plan(gateway, child("exits.py", "3"), tmp_path)
        env_file.write_text(f"HMAC_SECRET={gateway.secret}\nGATEWAY_URL={gateway.url}\n")
        env = {
            name: launch.env[name]
            for name in launch.env
            if name not in ("HMAC_SECRET", "GATEWAY_URL")
        }
        env |= {"XDG_CONFIG_HOME": str(tmp_path / "conf"), "XDG_STATE_HOME": str(tmp_path / "st")}
        run = ("--run-id", launch.run.id, "--cmd", "go", "--cwd", str(tmp_path))
        done = use(installed, "start", *run, env=env)

        assert done.returncode == 3, done.stderr
        assert gateway.exit_code(launch.run.id) == 3
        assert gateway.verify_finished(launch.run.id) == []
        assert [each.name for each in gateway.artifacts(launch.run.id)] == ["claude.log"]
    assert (tmp_path / "st" / "claude-runner" / "runs" / launch.run.id / "delivered").exists()


def test_the_smoke_run_of_a_release(installed: Path) -> None:
    """What `.ci/release` does with a wheel and an sdist that pip has installed."""
    smoke = [sys.executable, str(ROOT / ".ci" / "smoke.py"), str(installed)]
    done = subprocess.run(smoke, capture_output=True, text=True, timeout=WITHIN_S)

    assert (done.returncode, done.stdout) == (0, f"{installed}: ok\n"), done.stdout + done.stderr


def trap_names() -> set[str]:
    """Return what the program may import, but for what Python and pip's script do before it."""
    loaded = [sys.executable, "-I", "-S", "-c", "import re, site, sys; print(*sys.modules)"]
    early = subprocess.run(loaded, capture_output=True, text=True, check=True, timeout=WITHIN_S)
    ours = {Path(name).parts[0].partition(".")[0] for name in program_files()}
    sources = [(ROOT / name).read_text("utf-8") for name in program_files() if name[-3:] == ".py"]
    imported = re.findall(r"^\s*(?:import|from) (\w+)", "\n".join(sources), re.MULTILINE)
    return ({*ours, *imported} | {"urllib3", "idna", "certifi", "http", "ssl"}) - {
        *early.stdout.split(),
        "__future__",
    }


@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py"], ids=["files", "folders"])
def test_nothing_of_the_callers_is_imported(installed: Path, tmp_path: Path, form: str) -> None:
    """A whole run, with a trap for every import in PYTHONPATH and in the current folder.

    The run's child has the variable.
    """
    caught = tmp_path / "caught"
    traps = tmp_path / "traps"
    for name in trap_names():
        trap = traps / form.format(name)
        trap.parent.mkdir(parents=True, exist_ok=True)
        trap.write_text(f"open({str(caught)!r}, 'a').write({name + ' '!r})\n")
    with StrictGateway() as gateway:
        launch = plan(gateway, ["sh", "-c", 'echo "<$PYTHONPATH>"'], tmp_path)
        env = {**launch.env, "PYTHONPATH": str(traps)}
        done = use(installed, *launch.argv[2:], env=env, cwd=traps)

        assert done.returncode == 0, done.stderr
        assert f"<{traps}>" in gateway.text(launch.run.id)
        assert gateway.verify_finished(launch.run.id) == []
    assert not caught.exists(), caught.read_text()


def test_what_could_not_be_delivered_names_this_program(installed: Path, tmp_path: Path) -> None:
    """The user types `claude-runner sync` here, and not the path of a shim."""
    go = tmp_path / "go"
    with StrictGateway() as gateway:
        launch = plan(
            gateway,
            ["sh", "-c", f"until test -e '{go}'; do sleep 0.05; done; echo end"],
            tmp_path,
            env={"CLAUDE_RUNNER_DRAIN_TIMEOUT": "0.2"},
        )
        with subprocess.Popen(
            [str(installed), *launch.argv[2:], "--mode", "print"],
            env=launch.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            gateway.wait_for(lambda: gateway.markers(launch.run.id, "started"), 60)
            gateway.pause()
            go.touch()
            _, told = process.communicate(timeout=WITHIN_S)

    assert "; `claude-runner sync` sends what is left" in told


def test_it_installs_into_a_project(installed: Path, tmp_path: Path) -> None:
    """All that a project needs is in the package, the shims included."""
    done = use(installed, "install", str(tmp_path))

    assert done.returncode == 0, done.stderr
    wrapper = tmp_path / "wrapper"
    for name in program_files():
        assert (wrapper / "program" / name).read_bytes() == (ROOT / name).read_bytes()
    told = use(wrapper / "claude-runner", "info", "--json", env=CHOSEN_PYTHON)
    assert json.loads(told.stdout)["envFile"] == str(tmp_path / ".env")
    for name in ("claude-runner", "rev-runner"):
        assert use(wrapper / name, "--version", env=CHOSEN_PYTHON).stdout == f"{name} {VERSION}\n"
