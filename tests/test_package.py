"""The package as pip, pipx and uv install it: built, put into a fresh environment, and used."""

from __future__ import annotations

import json
import os
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
from testing.gateways.strict_gateway import StrictGateway
from testing.programs.runner import child, plan
from testing.programs.runner_files import ROOT, RUNNER_FILES

WITHIN_S = 100.0
# What a build reads besides the runner's files.
BUILT_FROM = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
MODULES = {name for name in RUNNER_FILES if name.endswith(".py")}
# Like pip, but with the environment's own setuptools, because tests do not reach the network.
BUILD = "import setuptools.build_meta as b; print(b.build_sdist('dist'), b.build_wheel('dist'))"


@dataclass(frozen=True)
class _Built:
    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> _Built:
    """The package, built from a copy of the sources so that nothing is left in them."""
    source = tmp_path_factory.mktemp("source")
    for name in (*RUNNER_FILES, *BUILT_FROM):
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    done = subprocess.run(
        [sys.executable, "-c", BUILD],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )
    assert done.returncode == 0, done.stderr
    dist = source / "dist"
    return _Built(next(dist.glob("*.tar.gz")), next(dist.glob("*.whl")))


@pytest.fixture(scope="module")
def installed(built: _Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it; the two packages it needs are the test's own."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True, with_pip=False)
    python = folder / "bin" / "python"
    site_packages = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
            timeout=WITHIN_S,
        ).stdout.strip()
    )
    (site_packages / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-index", "--no-deps", "--no-cache-dir", str(built.wheel)],
        check=True,
        timeout=WITHIN_S,
    )
    return folder / "bin" / "claude-runner"


def use(
    program: Path, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the installed program to its end."""
    return subprocess.run(
        [str(program), *arguments],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )


def test_the_package_holds_the_runners_files_and_no_others(built: _Built) -> None:
    """`wrapper/FILES` is the one list; the version is that of the program."""
    with zipfile.ZipFile(built.wheel) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    with tarfile.open(built.sdist) as sdist:
        packed = {name.partition("/")[2] for name in sdist.getnames()}

    data = f"claude_runner-{VERSION}.data/data/share/claude-runner/"
    assert {name for name in names if "/" not in name} == MODULES
    assert {name[len(data) :] for name in names if "/" in name} == set(RUNNER_FILES) - MODULES
    assert packed >= {*RUNNER_FILES, *BUILT_FROM}
    assert f"-{VERSION}-" in built.wheel.name


def test_the_installed_program_says_its_version(installed: Path) -> None:
    """The entry point is there and works."""
    done = use(installed, "--version")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"claude-runner {VERSION}\n", "")


def test_its_folders_and_its_name_are_the_users(installed: Path, tmp_path: Path) -> None:
    """No message and no help names a `wrapper/` that is not there."""
    env = {"XDG_CONFIG_HOME": str(tmp_path / "conf"), "XDG_STATE_HOME": str(tmp_path / "state")}
    told = json.loads(use(installed, "info", "--json", env=env).stdout)
    helped = use(installed, "--help", env=env).stdout
    failed = use(installed, "test-connection", env=env).stderr

    values = {row["variable"]: row["value"] for row in told["settings"]}
    assert told["envFile"] == str(tmp_path / "conf" / "claude-runner" / ".env")
    assert values["CLAUDE_RUNNER_DATA_DIR"] == str(tmp_path / "state" / "claude-runner")
    assert "\n  claude-runner start --run-id" in helped
    assert "wrapper/" not in helped
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
        done = use(installed, "start", "--run-id", launch.run.id, "--cmd", "go", env=env)

        assert done.returncode == 3, done.stderr
        assert gateway.exit_code(launch.run.id) == 3
        assert gateway.verify_finished(launch.run.id) == []
        assert [each.name for each in gateway.artifacts(launch.run.id)] == ["claude.log"]
    assert (tmp_path / "st" / "claude-runner" / "runs" / launch.run.id / "delivered").exists()


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
            gateway.wait_for(lambda: gateway.markers(launch.run.id, "started"))
            gateway.pause()
            go.touch()
            _, told = process.communicate(timeout=WITHIN_S)

    assert "; `claude-runner sync` sends what is left" in told


def test_it_installs_into_a_project(installed: Path, tmp_path: Path) -> None:
    """All that a project needs is in the package, the shim and the example included."""
    done = use(installed, "install", str(tmp_path))

    assert done.returncode == 0, done.stderr
    for name in RUNNER_FILES:
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()
    shim = tmp_path / "wrapper" / "claude-runner"
    told = use(shim, "info", "--json", env={"CLAUDE_RUNNER_PYTHON": sys.executable})
    assert json.loads(told.stdout)["files"] == str(tmp_path)
