"""A disk that is full, read-only or not there: before the start, and in mid-run."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from journal.spool import Spool
from redact import RedactedText
from testing.gateways.faults import Fault, Hang
from testing.gateways.strict_gateway import StrictGateway
from testing.programs import processes
from testing.programs.children.floods import line
from testing.programs.disk import Disk, mount_disk
from testing.programs.runner import Launch, RunnerProcess, child, plan, program
from testing.programs.verdict import ASKED_TWICE, committed, files_with, judge, start_sync, sync
from testing.waiting import eventually

MIB = 1_048_576
# Creates the file that argv names first, so that a test sees whether it ran.
TELLS = """
import pathlib, sys
pathlib.Path(sys.argv[1]).touch()
print("1 1.000000", flush=True)
"""
# Prints 100 lines, waits for the file that argv names, and prints 100 more.
WAITS = """
import os, sys, time
for number in range(1, 201):
    print(f"{number} {time.monotonic():.6f}", "." * 200, flush=True)
    while number == 100 and not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
print("LAST", flush=True)
"""

# Says what `WAITS` prints, in the JSON stream that Claude Code is asked for.
SAYS = """#!{python} -IS
import json, os, sys, time
for number in range(1, 201):
    text = f"{{number}} {{time.monotonic():.6f}} " + "." * 200
    content = [{{"type": "text", "text": text}}]
    print(json.dumps({{"type": "assistant", "message": {{"content": content}}}}), flush=True)
    while number == 100 and not os.path.exists(sys.argv[-1]):
        time.sleep(0.01)
"""


@pytest.fixture
def gateway() -> Iterator[StrictGateway]:
    """A gateway without a rate limit."""
    with StrictGateway(rate_limit=None) as gw:
        yield gw


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 2 MiB; skips where nobody may mount one."""
    with mount_disk(tmp_path / "disk", megabytes=2) as disk:
        yield disk


def plan_on(disk: Disk, launch: Launch) -> Launch:
    """Return the same run with its data folder on that disk."""
    data_dir = disk.folder / "data"
    argv = [str(data_dir) if item == str(launch.data_dir) else item for item in launch.argv]
    return replace(launch, argv=argv, data_dir=data_dir)


def plan_waiting(
    gateway: StrictGateway, disk: Disk, folder: Path, *, drain_timeout_s: int
) -> Launch:
    """Plan a run on that disk whose child goes on when `go` is in the folder."""
    launch = plan(
        gateway,
        program(WAITS),
        folder,
        prompt=str(folder / "go"),
        env={"CLAUDE_RUNNER_DRAIN_TIMEOUT": str(drain_timeout_s)},
    )
    return plan_on(disk, launch)


def plan_telling(gateway: StrictGateway, folder: Path) -> tuple[Launch, Path]:
    """Plan a run whose child makes a file; return that file too."""
    ran = folder / "ran"
    return plan(gateway, program(TELLS), folder, prompt=str(ran)), ran


def assert_refuses_to_start(launch: Launch, ran: Path, pattern: str) -> None:
    """`start` fails with one clear sentence, starts no child and tells the gateway nothing."""
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 1

        assert re.search(pattern, runner.stderr), runner.stderr
        assert len(runner.stderr.splitlines()) == 1, runner.stderr
    assert not ran.exists()
    assert launch.gateway.events(launch.run.id) == []


def assert_runs(launch: Launch, ran: Path) -> None:
    """The same run id can be used now."""
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0
    assert ran.exists()
    assert judge(launch.gateway, launch.run.id, last=1).problems == []


# --- before the start -----------------------------------------------------------------------------


def test_full_disk_before_the_first_start(
    gateway: StrictGateway, tmp_path: Path, disk: Disk
) -> None:
    """On a disk that was always full there is a clear error, and later a run."""
    launch, ran = plan_telling(gateway, tmp_path)
    launch = plan_on(disk, launch)
    disk.fill()

    assert_refuses_to_start(launch, ran, "No space left on device.*CLAUDE_RUNNER_DATA_DIR")

    disk.make_room()
    assert_runs(launch, ran)
    assert (launch.data_dir / ".gitignore").read_text() == "*\n"


def test_full_disk_before_a_later_start(gateway: StrictGateway, tmp_path: Path, disk: Disk) -> None:
    """A disk that is full by now starts no child, and leaves no folder that spends the run id."""
    launch, ran = plan_telling(gateway, tmp_path)
    launch = plan_on(disk, launch)
    launch.data_dir.mkdir(0o700)
    (launch.data_dir / ".gitignore").write_text("*\n")
    disk.fill()

    assert_refuses_to_start(launch, ran, "(full|No space left).*CLAUDE_RUNNER_DATA_DIR")
    assert not launch.run_dir.exists()

    disk.make_room()
    assert_runs(launch, ran)


def test_read_only_disk(gateway: StrictGateway, tmp_path: Path, disk: Disk) -> None:
    """On a read-only disk there is a clear error; with a writable one the run id is good."""
    launch, ran = plan_telling(gateway, tmp_path)
    launch = plan_on(disk, launch)
    disk.remount("ro")

    assert_refuses_to_start(launch, ran, "Read-only file system.*CLAUDE_RUNNER_DATA_DIR")

    disk.remount("rw")
    assert_runs(launch, ran)


def test_data_dir_is_a_file(gateway: StrictGateway, tmp_path: Path) -> None:
    """A file in the place of the data folder is named in the error."""
    launch, ran = plan_telling(gateway, tmp_path)
    launch.data_dir.write_text("a file")

    assert_refuses_to_start(launch, ran, f"{launch.data_dir} cannot be written.*CLAUDE_RUNNER_DATA")

    launch.data_dir.unlink()
    assert_runs(launch, ran)


def test_runs_is_a_file(gateway: StrictGateway, tmp_path: Path) -> None:
    """A file in the place of the folder of all runs is a clear error too."""
    launch, ran = plan_telling(gateway, tmp_path)
    launch.data_dir.mkdir(0o700)
    (launch.data_dir / "runs").write_text("a file")

    assert_refuses_to_start(launch, ran, "cannot be made.*CLAUDE_RUNNER_DATA_DIR")

    (launch.data_dir / "runs").unlink()
    assert_runs(launch, ran)


def test_no_file_may_grow(gateway: StrictGateway, tmp_path: Path) -> None:
    """A limit on the size of files is refused at the start like a full disk."""
    launch, ran = plan_telling(gateway, tmp_path)
    # Coverage could not write its own file either, and would say so.
    unmeasured = {name: launch.env[name] for name in launch.env if not name.startswith("COVERAGE_")}
    small = limited(replace(launch, env=unmeasured), 16_384)

    assert_refuses_to_start(small, ran, "(journal|cannot be).*CLAUDE_RUNNER_DATA_DIR")
    assert not launch.run_dir.exists()

    assert_runs(launch, ran)


# --- in mid-run -----------------------------------------------------------------------------------


def limited(launch: Launch, size_bytes: int) -> Launch:
    """Let the runner write no file beyond that size."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    source = (
        "import os, resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size_bytes}, {hard}))\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return replace(launch, argv=[sys.executable, "-c", source, *launch.argv])


def expected(megabytes: int) -> str:
    """Return what `floods.py` prints."""
    return b"".join(line(number) for number in range(megabytes * 10_000)).decode()


def assert_told(runner: RunnerProcess) -> None:
    """The user learns at the end that the disk failed."""
    assert "went on in memory" in runner.stderr, runner.stderr
    assert "claude.log lacks the last" in runner.stderr, runner.stderr


def test_disk_gets_full(gateway: StrictGateway, tmp_path: Path, disk: Disk) -> None:
    """When the disk gets full the session goes on to its end, and every byte is delivered."""
    launch = plan_on(disk, plan(gateway, child("floods.py", "6"), tmp_path))
    with RunnerProcess(launch) as runner:
        assert runner.wait(60) == 0

        assert_told(runner)
    assert gateway.text(launch.run.id) == expected(6)
    assert gateway.verify_finished(launch.run.id) == []
    assert gateway.status(launch.run.id) == "done"
    log = gateway.artifacts(launch.run.id)[0].data
    assert expected(6).encode().startswith(log)
    assert files_with(launch.data_dir, launch.run.token) == []
    assert sync(launch).stdout == "nothing is left to deliver\n"


def test_file_may_not_grow_any_more(gateway: StrictGateway, tmp_path: Path) -> None:
    """A limit on the size of files in mid-run is survived like a full disk."""
    launch = plan(gateway, child("floods.py", "6"), tmp_path)
    with RunnerProcess(limited(launch, 2 * MIB)) as runner:
        assert runner.wait(60) == 0

        assert_told(runner)
    assert gateway.text(launch.run.id) == expected(6)
    assert gateway.verify_finished(launch.run.id) == []
    assert files_with(launch.data_dir, launch.run.token) == []


def test_gap(gateway: StrictGateway, tmp_path: Path, disk: Disk) -> None:
    """What fits neither on the disk nor in memory is told in its place and at the end, by size."""
    launch = plan_on(disk, plan(gateway, child("floods.py", "24"), tmp_path))
    with RunnerProcess(launch) as runner:
        gateway.wait_for(lambda: gateway.status(launch.run.id) == "running")
        gateway.pause()

        def has_ended() -> None:
            assert "went on in memory" in runner.stderr

        eventually(has_ended, 40)
        gateway.resume()
        assert runner.wait(60) == 0

        told_at_the_end = re.search(r"and (\S+ \S+) of output were lost", runner.stderr)
        assert told_at_the_end is not None
        assert not told_at_the_end.group(1).startswith("0 ")
    run_id = launch.run.id
    notices = [each.data for each in gateway.events(run_id, "error")]
    missing = sum(int(re.findall("^([0-9]+) bytes of output are missing", n)[0]) for n in notices)
    assert 1 <= len(notices) <= 5
    assert missing > 0
    assert len(gateway.text(run_id)) + missing == 24 * 1_000_000
    whole = expected(24)
    position = 0
    for each in gateway.events(run_id, "stdout"):
        position = whole.find(each.data, position)
        assert position >= 0, "out of order, or doubled"
        position += len(each.data)
    assert gateway.verify_finished(run_id) == []


def test_disk_gets_full_under_messages(gateway: StrictGateway, tmp_path: Path, disk: Disk) -> None:
    """Claude Code's own messages are delivered like any output when no file can be written."""
    claude = tmp_path / "claude"
    claude.write_text(SAYS.format(python=sys.executable))
    claude.chmod(0o755)
    launch = plan_on(disk, plan(gateway, [str(claude)], tmp_path, prompt=str(tmp_path / "go")))
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^100 .*\n")
        disk.fill()
        (tmp_path / "go").touch()
        assert runner.wait(30) == 0

        assert_told(runner)
        assert "claude.jsonl lacks the last messages" in runner.stderr
    numbers = re.findall(r"(?m)^(\d+) \d", gateway.text(launch.run.id))
    assert numbers == [str(number) for number in range(1, 201)]
    assert gateway.verify_finished(launch.run.id) == []


def lose_gateway_and_disk(runner: RunnerProcess, disk: Disk, go: Path) -> None:
    """Let the gateway go away and the disk be full when half of the output is there."""
    runner.launch.expect(r"(?m)^100 .*\n")
    gateway = runner.launch.gateway
    assert isinstance(gateway, StrictGateway)
    gateway.pause()
    disk.fill()
    go.touch()

    def is_told() -> None:
        assert "went on in memory" in runner.stderr

    eventually(is_told)


def test_disk_recovers(gateway: StrictGateway, tmp_path: Path, disk: Disk) -> None:
    """What was kept in memory goes back to a disk that has room again, and sync delivers it."""
    launch = plan_waiting(gateway, disk, tmp_path, drain_timeout_s=3)
    with RunnerProcess(launch) as runner:
        lose_gateway_and_disk(runner, disk, tmp_path / "go")
        disk.make_room()
        assert runner.wait(30) == 0

        assert "claude-runner sync" in runner.stderr
    gateway.resume()

    assert sync(launch).code == 0
    assert judge(gateway, launch.run.id, last=200).problems == []


def test_killed_after_the_disk_recovered(
    gateway: StrictGateway, tmp_path: Path, disk: Disk
) -> None:
    """What was kept in memory is on the disk soon after it has room, and outlives the runner."""
    launch = plan_on(disk, plan(gateway, program(WAITS), tmp_path, prompt=str(tmp_path / "go")))
    with RunnerProcess(launch) as runner:
        lose_gateway_and_disk(runner, disk, tmp_path / "go")
        assert "\n200 " not in committed(launch)
        disk.make_room()
        eventually(lambda: _assert_committed(launch, "\n200 "), 20)
        runner.signal(signal.SIGKILL)
        runner.wait()
    gateway.resume()

    assert sync(launch).code == 0
    assert judge(gateway, launch.run.id, last=200).problems == []


class _Meeting(Spool):
    """A journal that two threads must have failed on before either goes on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, redact=RedactedText)
        self.both_failed = threading.Barrier(2)

    def go_on_in_memory(self, reason: str) -> bool:
        self.both_failed.wait(10)
        return super().go_on_in_memory(reason)


def test_threads_that_fail_together_all_go_on_in_memory(disk: Disk) -> None:
    """Who takes the output and who sends it meet the full disk at once: both go on."""
    spool = _Meeting(disk.folder / "spool.db")
    with closing(spool), ThreadPoolExecutor(2) as pool:
        spool.append("stdout", RedactedText("answered\n"))
        assert spool.cut(1, "nonce") is not None
        disk.fill()
        appended = pool.submit(spool.append, "stdout", RedactedText("printed meanwhile\n"))
        accepted = pool.submit(spool.accept)
        appended.result(20)
        accepted.result(20)

        assert spool.disk_failure is not None
        assert spool.totals().events == 1
        event = spool.cut(2, "another nonce")
        assert event is not None
        assert json.loads(event.body)["data"] == "printed meanwhile\n"


def test_neither_disk_nor_gateway(gateway: StrictGateway, tmp_path: Path, disk: Disk) -> None:
    """When neither takes the rest, the user is told that it is lost, and how much."""
    launch = plan_waiting(gateway, disk, tmp_path, drain_timeout_s=1)
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^100 .*\n")
        gateway.pause()
        disk.fill()
        (tmp_path / "go").touch()
        assert runner.wait(30) == 0

        assert re.search(r"\d+ KB of output are lost: neither", runner.stderr), runner.stderr
    assert "100 " in committed(launch)
    gateway.resume()


# --- in `sync` ------------------------------------------------------------------------------------


def leave_behind_on(disk: Disk, gateway: StrictGateway, folder: Path) -> Launch:
    """Let a runner be killed in mid-run, with output that the gateway does not have."""
    launch = plan(gateway, program(WAITS), folder, prompt=str(folder / "go"))
    launch = plan_on(disk, launch)
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^100 .*\n")
        gateway.pause()
        (folder / "go").touch()
        eventually(lambda: _assert_committed(launch, "\n200 "))
        pids = processes.descendants(runner.pid)
        runner.signal(signal.SIGKILL)
        runner.wait()
        processes.assert_gone(pids)
    gateway.resume()
    return launch


def _assert_committed(launch: Launch, text: str) -> None:
    assert text in committed(launch)


def test_full_disk_before_a_sync(gateway: StrictGateway, tmp_path: Path, disk: Disk) -> None:
    """A sync on a full disk sends nothing twice: it says why, and the next one does the rest."""
    launch = leave_behind_on(disk, gateway, tmp_path)
    gateway.allow(ASKED_TWICE)
    disk.fill()

    done = sync(launch)

    assert done.code == 1, done
    assert "the disk is full" in done.stderr or "No space left" in done.stderr
    disk.make_room()
    assert sync(launch).code == 0
    assert judge(gateway, launch.run.id).problems == []
    assert files_with(launch.data_dir, launch.run.token) == []


def test_disk_gets_full_in_a_sync(gateway: StrictGateway, tmp_path: Path, disk: Disk) -> None:
    """What was sent and could not be noted is repeated with its own nonce, and so stored once."""
    launch = leave_behind_on(disk, gateway, tmp_path)
    gateway.allow(ASKED_TWICE)
    hang = gateway.faults.add(Fault("event", Hang(after="stored")))

    with start_sync(launch) as syncing:
        gateway.wait_for(lambda: hang.applied)
        disk.fill()
        gateway.faults.clear()
        _, told = syncing.communicate(timeout=30)

    assert syncing.returncode == 1, told
    assert "the disk is full" in told
    disk.make_room()
    assert sync(launch).code == 0
    assert judge(gateway, launch.run.id).problems == []
    assert files_with(launch.data_dir, launch.run.token) == []


# --- the folder is deleted ------------------------------------------------------------------------


def test_the_folder_is_deleted_in_mid_run(gateway: StrictGateway, tmp_path: Path) -> None:
    """The session goes on to its own end, the gateway gets all of it, and the user is told."""
    launch = plan(gateway, program(WAITS), tmp_path, prompt=str(tmp_path / "go"))
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^100 .*\n")
        shutil.rmtree(launch.run_dir)
        (tmp_path / "go").touch()
        assert runner.wait(30) == 0

        assert "Traceback" not in runner.stderr
        assert "claude.log is not uploaded: No such file" in runner.stderr, runner.stderr
        assert runner.stderr.count("\n") == 1, runner.stderr
    run_id = launch.run.id
    assert gateway.text(run_id).count("\n") == 201
    assert gateway.verify_finished(run_id) == []
    assert gateway.status(run_id) == "done"
    assert sync(launch).stdout == "nothing is left to deliver\n"


def test_the_folder_is_deleted_and_the_gateway_is_away(
    gateway: StrictGateway, tmp_path: Path
) -> None:
    """Nobody is told that what is lost was kept."""
    env = {"CLAUDE_RUNNER_DRAIN_TIMEOUT": "1"}
    launch = plan(gateway, program(WAITS), tmp_path, prompt=str(tmp_path / "go"), env=env)
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^100 .*\n")
        gateway.pause()
        shutil.rmtree(launch.run_dir)
        (tmp_path / "go").touch()
        assert runner.wait(30) == 0

        assert re.search(r"\d+ KB of output are lost: neither", runner.stderr), runner.stderr
    gateway.resume()
