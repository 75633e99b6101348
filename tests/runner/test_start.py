"""What a start imports before its child runs, and what comes of an import behind it that fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from testing.gateways.strict_gateway import StrictGateway
from testing.programs.runner import ROOT, Launch, child, plan

# Runs the program, and does something before and after the child is started.
AT_THE_SPAWN = """
import sys
sys.path.insert(0, {root!r})
import claude_runner, runner.keeper
def spawn(*given, spawn=runner.keeper.Keeper.spawn, **options):
    if given[1] == runner.keeper.CHILD:
        {before}
    spawn(*given, **options)
    if given[1] == runner.keeper.CHILD:
        {after}
runner.keeper.Keeper.spawn = spawn
raise SystemExit(claude_runner.main())
"""
# The runner's own rooms for this: what a run needs until its child is there.
OF_RUNNER = (
    "checks console folder keeper live_text mailbox parts plan processes progress project pump "
    "repository sequences session terminal"
)


@pytest.fixture
def gateway() -> Iterator[StrictGateway]:
    """A gateway that accepts the run."""
    with StrictGateway(rate_limit=None) as gateway:
        yield gateway


def start(
    launch: Launch, before: str = "pass", after: str = "pass"
) -> subprocess.CompletedProcess[str]:
    """Run the program to its end, in a process that has imported nothing before."""
    source = AT_THE_SPAWN.format(root=str(ROOT), before=before, after=after)
    return subprocess.run(
        [sys.executable, "-c", source, *launch.argv[2:]], env=launch.env, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def sync(launch: Launch) -> subprocess.CompletedProcess[str]:
    """Deliver what a run has left."""
    argv = [*launch.argv[:2], "sync", *launch.argv[5:9]]
    return subprocess.run(argv, env=launch.env, capture_output=True, text=True, timeout=60)


def test_what_is_imported_before_the_child_runs(gateway: StrictGateway, tmp_path: Path) -> None:
    """Neither requests, nor what of the runner only a child that runs needs."""
    listing = tmp_path / "modules"
    statement = f"open({str(listing)!r}, 'w').write(chr(10).join(sys.modules))"

    done = start(plan(gateway, child("exits.py", "5", "done"), tmp_path), statement)

    assert done.returncode == 5, done.stderr
    loaded = listing.read_text().split()
    rooms = {name.partition(".")[0] for name in loaded}
    assert rooms.isdisjoint({"requests", "urllib3", "certifi", "ssl", "http", "email", "dotenv"})
    assert rooms.isdisjoint({"traceback", "tempfile", "random", "uuid", "difflib", "shutil"})
    assert rooms.isdisjoint({"dataclasses", "inspect"})
    assert [name for name in sorted(loaded) if name.startswith("runner.")] == [
        f"runner.{name}" for name in OF_RUNNER.split()
    ]
    assert [name for name in sorted(loaded) if name.startswith("tools.")] == [
        "tools.command_line",
        "tools.options",
        "tools.packages",
        "tools.start",
    ]


def test_an_import_that_fails_behind_the_start_loses_nothing(
    gateway: StrictGateway, tmp_path: Path
) -> None:
    """Without `requests` the child runs to its end, and `sync` delivers what it printed."""
    launch = plan(gateway, child("exits.py", "5", "done"), tmp_path)
    impatient = replace(launch, env={**launch.env, "CLAUDE_RUNNER_DRAIN_TIMEOUT": "1"})

    done = start(impatient, "sys.modules['requests'] = None")

    assert done.returncode == 5, done.stderr
    assert "delivery failed" in done.stderr
    assert "`claude-runner sync`" in done.stderr.replace("./wrapper/", "")
    assert gateway.text(launch.run.id) == ""
    synced = sync(launch)
    assert synced.returncode == 0, synced.stderr
    assert gateway.text(launch.run.id) == "done go\n"
    assert gateway.markers(launch.run.id, "finished")[0]["exitCode"] == 5


def test_what_a_child_writes_at_once_is_among_its_changes(
    gateway: StrictGateway, tmp_path: Path
) -> None:
    """Also where the imports behind the start take long: here, the clock jumps in their place."""
    subprocess.run(["git", "init", "-q", "repository"], cwd=tmp_path, check=True)
    command = ["sh", "-c", "echo written >new.txt"]
    launch = plan(gateway, command, tmp_path, cwd=tmp_path / "repository")
    slow = "import time; now = time.time; time.time = lambda: now() + 9"

    done = start(launch, after=slow)

    assert done.returncode == 0, done.stderr
    diffs = [x.data for x in gateway.artifacts(launch.run.id) if x.name == "changes.diff"]
    assert [b"+written\n" in each for each in diffs] == [True]


def test_killed_right_behind_the_start(gateway: StrictGateway, tmp_path: Path) -> None:
    """Before anything is in the journal: the run has begun, and is not to be started again."""
    launch = plan(gateway, child("exits.py", "5", "done"), tmp_path)

    killed = start(launch, after="import os; os.kill(os.getpid(), 9)")

    assert killed.returncode == -9
    synced = sync(launch)
    assert synced.returncode == 0, synced.stderr
    assert "may be started" not in synced.stdout
    assert gateway.markers(launch.run.id, "finished")[0]["reason"] == "runner died"
