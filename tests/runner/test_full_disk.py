"""A disk that is full, read-only or not there: before the start, and in mid-run."""

from __future__ import annotations

import re
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from journal.reserve import RESERVE_BYTES
from testing.gateways.faults import Fault, Hang
from testing.gateways.strict_gateway import StrictGateway
from testing.programs import processes
from testing.programs.children.floods import line
from testing.programs.disk import Disk, forbid_writing, mount_disk
from testing.programs.runner import Launch, RunnerProcess, child, plan, program
from testing.programs.verdict import (
    ASKED_TWICE,
    committed,
    files_with,
    has_recorded_end,
    judge,
    start_sync,
    sync,
)
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

# Prints 100 lines, waits for `go` in the folder that argv names, and prints lines until `stop` is
# there; then it leaves the number of bytes in `printed`, and exits 0.
GOES_ON = """
import os, sys, time
from pathlib import Path
folder, size, number = Path(sys.argv[1]), 0, 0
while not (number > 100 and number % 50 == 0 and (folder / "stop").exists()):
    number += 1
    size += os.write(1, f"{number} {'.' * 500}\\n".encode())
    while number == 100 and not (folder / "go").exists():
        time.sleep(0.01)
    if number > 100:
        time.sleep(0.001)
(folder / "printed").write_text(str(size))
"""

# Says lines like those of `WAITS`, long and many, in the JSON stream of Claude Code.
SAYS = """#!{python} -IS
import json, os, sys, time
for number in range(1, 601):
    text = f"{{number}} {{time.monotonic():.6f}} " + "." * 9000
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
    """A disk of 8 MiB; skips where nobody may mount one."""
    with mount_disk(tmp_path / "disk", megabytes=8) as disk:
        yield disk


def plan_on(disk: Disk, launch: Launch) -> Launch:
    """Return the same run with its data folder on that disk."""
    data_dir = disk.folder / "data"
    argv = [str(data_dir) if item == str(launch.data_dir) else item for item in launch.argv]
    return replace(launch, argv=argv, data_dir=data_dir)


def plan_going_on(gateway: StrictGateway, disk: Disk, folder: Path) -> Launch:
    """Plan a run on that disk whose child goes on when `go` is in the folder, until `stop` is."""
    env = {"CLAUDE_RUNNER_DRAIN_TIMEOUT": "2"}
    return plan_on(disk, plan(gateway, program(GOES_ON), folder, prompt=str(folder), env=env))


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


def lost_bytes(launch: Launch) -> int:
    """Return what the notices in the stream say, each in its place, and `finished` says in all."""
    told = [each.data for each in launch.gateway.events(launch.run.id, "error")]
    notices = [each for each in told if each.endswith("are missing here: the disk was full")]
    lost = sum(int(each.split()[0]) for each in notices if "bytes of output" in each)
    (finished,) = launch.gateway.markers(launch.run.id, "finished")
    assert (finished["whole"], finished["lostBytes"]) == (not lost, lost)
    return lost


def assert_accounted(launch: Launch, printed: int, *, is_counted: bool = True) -> None:
    """What the gateway has is in order and there once, and what it lacks is told."""
    gateway, run_id = launch.gateway, launch.run.id
    text = gateway.text(run_id)
    numbers = [int(each) for each in re.findall(r"(?m)^(\d+) ", text)]
    assert numbers == sorted(set(numbers)), "doubled, or out of order"
    if is_counted:
        assert lost_bytes(launch) == printed - len(text)
    assert gateway.verify_finished(run_id) == []
    events = gateway.events(run_id)
    assert [each.sequence for each in events] == list(range(1, len(events) + 1))
    assert files_with(launch.data_dir, launch.run.token) == []


def assert_told(runner: RunnerProcess) -> None:
    """The user learns at the end that the disk was full, and what is missing."""
    assert re.search(r"; the run went on, and .* of output were not", runner.stderr), runner.stderr
    assert "claude.log lacks the last" in runner.stderr, runner.stderr


def assert_reserve(launch: Launch, *, is_whole: bool) -> None:
    """The journal draws on its reserve, or does not."""
    size = (launch.run_dir / "reserve").stat().st_size
    assert (size == RESERVE_BYTES) == is_whole, size


def let_the_disk_get_full(runner: RunnerProcess, disk: Disk, folder: Path) -> None:
    """Let the disk be full when the first output is there, and the journal meet that."""
    runner.launch.expect(r"(?m)^100 .*\n", within_s=30)
    disk.fill()
    (folder / "go").touch()
    eventually(lambda: assert_reserve(runner.launch, is_whole=False), 30)


def wait_for_lines(launch: Launch, count: int) -> None:
    """Wait until so many more have come."""
    before = launch.gateway.text(launch.run.id).count("\n")
    launch.gateway.wait_for(
        lambda: launch.gateway.text(launch.run.id).count("\n") >= before + count, 30
    )


def end(runner: RunnerProcess, folder: Path) -> int:
    """Let the child end by itself; return how many bytes it has printed."""
    (folder / "stop").touch()
    assert runner.wait(60) == 0, runner.stderr
    return int((folder / "printed").read_text())


@contextmanager
def greed(disk: Disk) -> Iterator[None]:
    """Take whatever becomes free of a full disk, as whoever has filled it may do."""
    is_over = threading.Event()

    def take() -> None:
        while not is_over.is_set():
            disk.fill()

    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(take)
        try:
            yield
        finally:
            is_over.set()
            taking.result(30)


def test_disk_gets_full(gateway: StrictGateway, tmp_path: Path, disk: Disk) -> None:
    """The session goes on to its own end; what is missing is counted, and no room stays taken."""
    launch = plan_on(disk, plan(gateway, child("floods.py", "6"), tmp_path))
    with RunnerProcess(launch) as runner:
        assert runner.wait(100) == 0

        assert_told(runner)
    assert lost_bytes(launch) > 0
    assert_accounted(launch, 6_000_000)
    assert gateway.status(launch.run.id) == "done"
    log = gateway.artifacts(launch.run.id)[0].data
    assert b"".join(line(number) for number in range(60_000)).startswith(log)
    assert not (launch.run_dir / "reserve").exists()
    assert sync(launch).stdout == "nothing is left to deliver\n"


def test_file_may_not_grow_any_more(gateway: StrictGateway, tmp_path: Path) -> None:
    """A limit on the size of files, against which no reserve helps, is survived as well."""
    env = {"CLAUDE_RUNNER_DRAIN_TIMEOUT": "2"}
    launch = plan(gateway, child("floods.py", "6"), tmp_path, env=env)
    with RunnerProcess(limited(launch, 2 * MIB)) as runner:
        assert runner.wait(90) == 0

        assert_told(runner)
    sync(launch)
    assert_accounted(launch, 6_000_000)
    assert lost_bytes(launch) > 0
    assert gateway.exit_code(launch.run.id) == 0


def test_disk_gets_full_under_messages(gateway: StrictGateway, tmp_path: Path, disk: Disk) -> None:
    """Claude Code's own messages are counted like any output."""
    claude = tmp_path / "claude"
    claude.write_text(SAYS.format(python=sys.executable))
    claude.chmod(0o755)
    launch = plan_on(disk, plan(gateway, [str(claude)], tmp_path, prompt=str(tmp_path / "go")))
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^100 .*\n", within_s=30)
        disk.fill()
        (tmp_path / "go").touch()
        assert runner.wait(60) == 0

        assert "claude.jsonl lacks the last messages" in runner.stderr
    numbers = re.findall(r"(?m)^(\d+) \d", gateway.text(launch.run.id))
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    assert len(numbers) < 600
    assert lost_bytes(launch) > 0
    assert gateway.verify_finished(launch.run.id) == []


def test_room_that_comes_back_is_used(gateway: StrictGateway, tmp_path: Path, disk: Disk) -> None:
    """Output is recorded and delivered again, behind a notice of what is missing; and so twice."""
    launch = plan_going_on(gateway, disk, tmp_path)
    with RunnerProcess(launch) as runner:
        for number in (1, 2):
            let_the_disk_get_full(runner, disk, tmp_path)
            disk.make_room()
            notices = rf"(?s)(missing here: the disk was full.*){{{number}}}"
            launch.expect(notices, "error", within_s=30)
            assert_reserve(launch, is_whole=True)
            wait_for_lines(launch, 100)
        printed = end(runner, tmp_path)

        assert_told(runner)
    assert_accounted(launch, printed)
    assert lost_bytes(launch) > 0


def test_a_full_disk_stops_no_command(gateway: StrictGateway, tmp_path: Path, disk: Disk) -> None:
    """The operator's commands are executed, told of and acknowledged, and so is a stop."""
    launch = plan_going_on(gateway, disk, tmp_path)
    with RunnerProcess(launch) as runner:
        let_the_disk_get_full(runner, disk, tmp_path)
        command_id = gateway.queue_command(launch.run.id, "pwd")
        launch.expect("Executing command: pwd", "info", within_s=30)
        gateway.wait_for(lambda: gateway.acks(launch.run.id).get(command_id), 30)
        gateway.stop(launch.run.id)
        assert runner.wait(60) == 130
    assert gateway.acks(launch.run.id)[command_id][0].error is None
    assert lost_bytes(launch) > 0
    assert gateway.verify_finished(launch.run.id) == []


def test_killed_on_a_full_disk(gateway: StrictGateway, tmp_path: Path, disk: Disk) -> None:
    """The next process delivers what there is, and does not say that this is all."""
    launch = plan_going_on(gateway, disk, tmp_path)
    with RunnerProcess(launch) as runner:
        let_the_disk_get_full(runner, disk, tmp_path)
        runner.signal(signal.SIGKILL)
        runner.wait()
    disk.make_room()
    gateway.allow(ASKED_TWICE)

    assert sync(launch).code == 0

    (finished,) = gateway.markers(launch.run.id, "finished")
    assert (finished["reason"], finished["whole"]) == ("runner died", False)
    assert finished["lostBytes"] is None
    assert "output may be missing here" in gateway.text(launch.run.id, "error")
    assert_accounted(launch, 0, is_counted=False)


@pytest.mark.parametrize("is_killed", [False, True], ids=["ended", "killed after its end"])
@pytest.mark.parametrize("is_greedy", [False, True], ids=["reserve", "reserve gone"])
def test_neither_disk_nor_gateway(
    is_greedy: bool, is_killed: bool, gateway: StrictGateway, tmp_path: Path, disk: Disk
) -> None:
    """A run that ended with 0 has ended with 0, also when nothing but its end could be kept."""
    launch = plan_going_on(gateway, disk, tmp_path)
    if is_killed:
        launch.env["CLAUDE_RUNNER_DRAIN_TIMEOUT"] = "60"
    with ExitStack() as stack:
        runner = stack.enter_context(RunnerProcess(launch))
        let_the_disk_get_full(runner, disk, tmp_path)
        gateway.pause()
        if is_greedy:
            stack.enter_context(greed(disk))
        if is_killed:
            (tmp_path / "stop").touch()
            eventually(lambda: assert_ended(launch), 60)
            runner.signal(signal.SIGKILL)
            runner.wait()
            printed = int((tmp_path / "printed").read_text())
        else:
            printed = end(runner, tmp_path)
            assert "not delivered, but kept in" in runner.stderr, runner.stderr
    disk.make_room()
    gateway.resume()
    gateway.allow(ASKED_TWICE)

    assert sync(launch).code == 0

    assert_accounted(launch, printed)
    assert lost_bytes(launch) > 0
    assert gateway.exit_code(launch.run.id) == 0
    assert sync(launch).stdout == "nothing is left to deliver\n"


def assert_ended(launch: Launch) -> None:
    """The end is kept somewhere."""
    written = (launch.run_dir / "end").read_bytes()
    assert b'"exitCode"' in written or has_recorded_end(launch)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
@pytest.mark.parametrize("is_away", [False, True], ids=["gateway there", "gateway away"])
def test_nothing_can_be_written(is_away: bool, gateway: StrictGateway, tmp_path: Path) -> None:
    """The end goes out from memory, or is lost; either way nothing stale is sent later."""
    env = {"CLAUDE_RUNNER_DRAIN_TIMEOUT": "2"}
    launch = plan(gateway, program(GOES_ON), tmp_path, prompt=str(tmp_path), env=env)
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^100 .*\n", within_s=30)
        assert forbid_writing(runner.pid) is not None
        if is_away:
            gateway.pause()
        (tmp_path / "go").touch()
        eventually(lambda: assert_reserve(launch, is_whole=False), 30)
        printed = end(runner, tmp_path)
    gateway.resume()
    requests = len(gateway.requests)
    assert sync(launch).stdout == "nothing is left to deliver\n"
    assert len(gateway.requests) == requests
    assert not list(launch.run_dir.glob("spool.db*"))
    assert files_with(launch.data_dir, launch.run.token) == []
    if not is_away:
        (finished,) = gateway.markers(launch.run.id, "finished")
        assert (finished["exitCode"], finished["whole"]) == (0, False)
        assert finished["lostBytes"] == printed - len(gateway.text(launch.run.id))
        assert_accounted(launch, printed, is_counted=False)


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
        code, told = syncing.wait(30), syncing.stderr

    assert code == 1, told
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
