"""What `sync` does and says, and what `start` says about what is left."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from testing.gateways.faults import Fault, Hang, Html, JsonError
from testing.gateways.gateway_records import AnyGateway, Run
from testing.gateways.strict_gateway import StrictGateway
from testing.programs import processes
from testing.programs.runner import ROOT, Launch, RunnerProcess, child, plan, program
from testing.programs.verdict import ASKED_TWICE, files_with, judge, start_sync, sync

DAY_S = 86_400
# Goes on when the file that argv names is there.
WAITS = """
import os, sys, time
print("1 1.000000", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
"""


pytestmark = [pytest.mark.gateway_pairs, pytest.mark.gateway_options(long_poll=False)]

LOCAL = pytest.mark.strict_only("it is about this machine's files, whichever the gateway is")
FAULTS = pytest.mark.strict_only("it needs the fault script")
REQUESTS = pytest.mark.strict_only("it looks at each request")
OWN_RUNS = pytest.mark.strict_only("it chooses the run's id and token")


@pytest.fixture
def gateway(gw: AnyGateway) -> AnyGateway:
    """A gateway whose clients may be killed before they note an answer."""
    if isinstance(gw, StrictGateway):
        gw.allow(ASKED_TWICE)
    return gw


def leave_behind(gateway: AnyGateway, folder: Path, run: Run | None = None) -> Launch:
    """Let a runner be killed in mid-run; `folder` may hold other runs already."""
    launch = plan(gateway, child("lines.py", "4000", "400"), folder, run=run)
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^20 .*\n")
        pids = processes.descendants(runner.pid)
        runner.signal(signal.SIGKILL)
        runner.wait()
        processes.assert_gone(pids)
    return launch


def deliver(gateway: AnyGateway, folder: Path) -> Launch:
    """Let a short run be delivered whole."""
    launch = plan(gateway, child("lines.py", "3", "0"), folder)
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0
    return launch


# --- what it says --------------------------------------------------------------------------------


@REQUESTS
def test_nothing_is_left(gateway: StrictGateway, tmp_path: Path) -> None:
    """Without leftovers sync says so, asks the gateway nothing, and succeeds."""
    launch = deliver(gateway, tmp_path)
    requests = len(gateway.requests)

    done = sync(launch)

    assert (done.code, done.stdout, done.stderr) == (0, "nothing is left to deliver\n", "")
    assert len(gateway.requests) == requests


@pytest.mark.both_gateways
def test_says_what_it_did(gateway: AnyGateway, tmp_path: Path) -> None:
    """Each run is told by its id, with what was delivered and where to."""
    launch = leave_behind(gateway, tmp_path)

    done = sync(launch)

    assert done.code == 0
    assert done.stdout.startswith(f"{launch.run.id}: delivered ")
    assert gateway.url in done.stdout


def test_live_run_is_skipped(gateway: AnyGateway, tmp_path: Path) -> None:
    """A run that is alive is not touched, and is no failure."""
    launch = plan(gateway, program(WAITS), tmp_path, prompt=str(tmp_path / "go"))
    with RunnerProcess(launch) as runner:
        launch.expect("1 1.0")
        done = sync(launch)
        (tmp_path / "go").touch()
        assert runner.wait() == 0

    assert (done.code, done.stdout) == (0, f"{launch.run.id}: it is still running\n")
    assert judge(gateway, launch.run.id, last=1).problems == []


@OWN_RUNS
def test_refused_run_is_reported_and_skipped(gateway: StrictGateway, tmp_path: Path) -> None:
    """A run that the gateway does not know is reported with exit code 1, and others are sent."""
    gone = leave_behind(gateway, tmp_path, gateway.create_run(run_id="run_a"))
    kept = leave_behind(gateway, tmp_path, gateway.create_run(run_id="run_b"))
    gateway.allow("an unknown run or a token not the run's")
    gateway.create_run(run_id="run_a")  # the same id with another token

    done = sync(kept)

    assert done.code == 1
    assert "run_a: not delivered: the gateway does not know run run_a" in done.stderr
    assert "--discard" in done.stderr
    assert done.stdout.startswith("run_b: delivered ")
    assert judge(gateway, kept.run.id).problems == []
    assert gateway.events(gone.run.id) == []


@REQUESTS
def test_wrong_secret(gateway: StrictGateway, tmp_path: Path) -> None:
    """With a wrong HMAC_SECRET sync delivers nothing, says why, and keeps everything."""
    launch = leave_behind(gateway, tmp_path)
    gateway.allow("a bad signature")

    done = sync(launch, env={"HMAC_SECRET": "x" * 40})

    assert done.code == 1
    assert "HMAC_SECRET" in done.stderr
    assert sync(launch).code == 0
    assert judge(gateway, launch.run.id).problems == []


# --- where to, and what --------------------------------------------------------------------------


@REQUESTS
def test_the_gateway_of_the_journal(gateway: StrictGateway, tmp_path: Path) -> None:
    """Leftovers for another gateway than the configured one stay, unless the user names it too."""
    launch = leave_behind(gateway, tmp_path)
    with StrictGateway(secret=gateway.secret) as other:
        elsewhere = {"GATEWAY_URL": other.url}
        requests = len(gateway.requests)
        refused = sync(launch, env=elsewhere)
        named_wrongly = sync(launch, "--gateway", other.url)
        assert len(gateway.requests) == requests
        done = sync(launch, "--gateway", gateway.url + "/", env=elsewhere)

        assert other.requests == []
    for each in (refused, named_wrongly):
        assert each.code == 1
        assert f"{launch.run.id}: not delivered: it is for {gateway.url}" in each.stderr
        assert f"`sync --gateway {gateway.url}`" in each.stderr
    assert done.code == 0
    assert judge(gateway, launch.run.id).problems == []


def test_one_run_alone(gateway: AnyGateway, tmp_path: Path) -> None:
    """With --run-id only that run is sent."""
    first = leave_behind(gateway, tmp_path)
    second = leave_behind(gateway, tmp_path)

    done = sync(first, "--run-id", second.run.id, "--token", second.run.token)

    assert done.code == 0
    assert judge(gateway, second.run.id).problems == []
    assert gateway.markers(first.run.id, "finished") == []
    assert sync(first).code == 0
    assert judge(gateway, first.run.id).problems == []


@OWN_RUNS
def test_a_new_token(gateway: StrictGateway, tmp_path: Path) -> None:
    """A token that is given replaces the one in the journal; without a run id it is refused."""
    launch = leave_behind(gateway, tmp_path)
    gateway.allow("an unknown run or a token not the run's")
    renewed = gateway.create_run(run_id=launch.run.id)
    gateway.allow("a nonce used for two different requests")  # by the signature, not the body

    without_id = sync(launch, "--token", renewed.token)
    with_old = sync(launch)
    done = sync(launch, "--run-id", renewed.id, "--token", renewed.token)

    assert without_id.code == 1
    assert "--run-id" in without_id.stderr
    assert with_old.code == 1
    assert done.code == 0
    assert len(gateway.markers(renewed.id, "finished")) == 1
    assert files_with(launch.data_dir, launch.run.token) == []


@REQUESTS
def test_discard(gateway: StrictGateway, tmp_path: Path) -> None:
    """--discard deletes one run for good and asks the gateway nothing."""
    first = leave_behind(gateway, tmp_path)
    second = leave_behind(gateway, tmp_path)
    requests = len(gateway.requests)

    done = sync(first, "--discard", first.run.id)

    assert done.code == 0
    assert first.run.id in done.stdout
    assert not first.run_dir.exists()
    assert second.run_dir.exists()
    assert len(gateway.requests) == requests
    assert sync(first, "--discard", first.run.id).code == 1
    assert sync(first, "--discard", "../..").code == 1


@LOCAL
def test_discard_spares_a_live_run(gateway: StrictGateway, tmp_path: Path) -> None:
    """--discard does not delete a run that is alive."""
    launch = plan(gateway, program(WAITS), tmp_path, prompt=str(tmp_path / "go"))
    with RunnerProcess(launch) as runner:
        launch.expect("1 1.0")
        done = sync(launch, "--discard", launch.run.id)
        (tmp_path / "go").touch()
        assert runner.wait() == 0

    assert done.code == 1
    assert "still running" in done.stderr
    assert judge(gateway, launch.run.id, last=1).problems == []


def leave_command_behind(gateway: AnyGateway, folder: Path) -> tuple[Launch, str]:
    """Let a runner be killed while `sleep 77` is executed; return the command's id too."""
    launch = plan(
        gateway,
        child("lines.py", "4000", "400"),
        folder,
        env={"EXTRA_ALLOWED_COMMANDS": "sleep 77"},
    )
    with RunnerProcess(launch) as runner:
        launch.expect(r"(?m)^20 .*\n")
        command_id = gateway.queue_command(launch.run.id, "sleep 77")
        launch.expect("Executing command: sleep 77", "info")
        pids = processes.descendants(runner.pid)
        runner.signal(signal.SIGKILL)
        runner.wait()
        processes.assert_gone(pids)
    return launch, command_id


def test_interrupted_command(gateway: AnyGateway, tmp_path: Path) -> None:
    """A command that was being executed is reported as interrupted, and is not run again."""
    launch, command_id = leave_command_behind(gateway, tmp_path)

    assert sync(launch).code == 0

    acks = gateway.acks(launch.run.id)[command_id]
    assert len(acks) == 1
    assert "interrupted" in str(acks[0].error)
    assert gateway.text(launch.run.id, "error").count("sleep 77: interrupted") == 1
    assert gateway.text(launch.run.id, "info").count("Executing command") == 1
    assert judge(gateway, launch.run.id).problems == []


@FAULTS
def test_acknowledgement_through_faults(gateway: StrictGateway, tmp_path: Path) -> None:
    """An acknowledgement that meets a bad proxy is repeated until the gateway has it."""
    launch, command_id = leave_command_behind(gateway, tmp_path)
    gateway.faults.add(Fault("ack", Html(502), times=2))

    assert sync(launch).code == 0

    assert list(gateway.acks(launch.run.id)) == [command_id]


@FAULTS
def test_acknowledgement_that_failed_is_signed_afresh(
    gateway: StrictGateway, tmp_path: Path
) -> None:
    """After a 500 the nonce is spent: a copy would be answered as one that was accepted."""
    launch = plan(gateway, child("lines.py", "4000", "400"), tmp_path)
    fault = gateway.faults.add(Fault("ack", Html(502), every=1))
    with RunnerProcess(launch) as runner:
        command_id = gateway.queue_command(launch.run.id, "never allowed")
        gateway.wait_for(lambda: fault.applied)
        pids = processes.descendants(runner.pid)
        runner.signal(signal.SIGKILL)
        runner.wait()
        processes.assert_gone(pids)
    gateway.faults.clear()
    gateway.faults.add(Fault("ack", JsonError(500, after="nonce")))

    assert sync(launch).code == 0

    assert list(gateway.acks(launch.run.id)) == [command_id]


@FAULTS
def test_a_late_acknowledgement(gateway: StrictGateway, tmp_path: Path) -> None:
    """One that is answered when all else was delivered is still noted, and leaves nothing over."""
    launch = plan(gateway, program(WAITS), tmp_path, prompt=str(tmp_path / "go"))
    with RunnerProcess(launch) as runner:
        launch.expect("1 1.0")
        hang = gateway.faults.add(Fault("ack", Hang()))
        command_id = gateway.queue_command(launch.run.id, "pwd")
        gateway.wait_for(lambda: hang.applied)
        (tmp_path / "go").touch()
        gateway.wait_for(lambda: gateway.artifacts(launch.run.id))
        gateway.faults.clear()
        assert runner.wait() == 0

        assert runner.stderr == ""
    assert list(gateway.acks(launch.run.id)) == [command_id]
    assert files_with(launch.data_dir, launch.run.token) == []
    assert sync(launch).stdout == "nothing is left to deliver\n"


@FAULTS
def test_an_acknowledgement_that_is_left(gateway: StrictGateway, tmp_path: Path) -> None:
    """A delivered run keeps its token as long as the gateway waits for the end of a command."""
    launch = plan(gateway, program(WAITS), tmp_path, prompt=str(tmp_path / "go"))
    with RunnerProcess(launch) as runner:
        launch.expect("1 1.0")
        fault = gateway.faults.add(Fault("ack", Html(502), every=1))
        command_id = gateway.queue_command(launch.run.id, "pwd")
        gateway.wait_for(lambda: fault.applied)
        (tmp_path / "go").touch()
        assert runner.wait() == 0

        assert "the gateway did not acknowledge every command's result" in runner.stderr
        assert "`./wrapper/claude-runner sync` tries again" in runner.stderr
    assert judge(gateway, launch.run.id, last=1).problems == []
    gateway.faults.clear()

    done = sync(launch)

    assert (done.code, done.stderr) == (0, "")
    assert list(gateway.acks(launch.run.id)) == [command_id]
    assert gateway.acks(launch.run.id)[command_id][0].error is None
    assert len(gateway.markers(launch.run.id, "finished")) == 1
    assert files_with(launch.data_dir, launch.run.token) == []
    assert sync(launch).stdout == "nothing is left to deliver\n"


# --- what is found there -------------------------------------------------------------------------


@LOCAL
def test_a_runner_that_died_without_a_journal(gateway: StrictGateway, tmp_path: Path) -> None:
    """The folder of a runner that died before it had a journal does not use up the run id."""
    launch = plan(gateway, child("lines.py", "3", "0"), tmp_path)
    launch.run_dir.mkdir(parents=True)
    (launch.run_dir / "lock").touch()

    assert sync(launch).stdout == "nothing is left to deliver\n"
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0

    assert judge(gateway, launch.run.id, last=3).problems == []


@LOCAL
def test_an_empty_journal_is_no_reason_to_delete_a_log(
    gateway: StrictGateway, tmp_path: Path
) -> None:
    """A journal that a power cut has emptied is told, and what is left of the run stays."""
    launch = leave_behind(gateway, tmp_path)
    for path in launch.run_dir.glob("spool.db*"):
        path.unlink()
    (launch.run_dir / "spool.db").touch()
    log = launch.log

    done = sync(launch)

    assert done.code == 1
    assert "its journal is empty" in done.stderr
    assert str(launch.run_dir) in done.stderr
    assert launch.log == log
    assert sync(launch, "--discard", launch.run.id).code == 0
    assert not launch.run_dir.exists()


@LOCAL
def test_foreign_things_among_the_runs(gateway: StrictGateway, tmp_path: Path) -> None:
    """Files, links and folders that are no run's are left alone, by start and by sync."""
    launch = leave_behind(gateway, tmp_path)
    runs = launch.data_dir / "runs"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "spool.db").touch()
    (elsewhere / "delivered").touch()
    age(elsewhere, 400)
    (runs / "notes.txt").write_text("mine")
    (runs / "a_folder").mkdir()
    (runs / "a_link").symlink_to(elsewhere)
    (runs / "a_loop").symlink_to(runs / "a_loop")
    for name in ("no\nrun", "linked_lock", "linked_journal"):
        (runs / name).mkdir()
    (runs / "no\nrun" / "spool.db").touch()
    (runs / "linked_lock" / "spool.db").touch()
    (runs / "linked_lock" / "lock").symlink_to(elsewhere / "lock")
    (runs / "linked_journal" / "spool.db").symlink_to(elsewhere / "spool.db")

    deliver(gateway, tmp_path)
    done = sync(launch)

    assert (done.code, done.stdout.count("\n")) == (1, 1)
    for name in ("linked_lock", "linked_journal"):
        assert f"claude-runner: {name}: not delivered: " in done.stderr
    assert "x0arun" not in done.stderr
    assert (elsewhere / "spool.db").stat().st_size == 0
    names = {"notes.txt", "a_folder", "a_link", "a_loop", "no\nrun", "linked_lock"}
    assert names <= {path.name for path in runs.iterdir()}
    assert {path.name for path in elsewhere.iterdir()} == {"spool.db", "delivered"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
@LOCAL
def test_a_folder_of_another_user(gateway: StrictGateway) -> None:
    """A run that was once started as root keeps nobody from starting others; sync names it."""
    # Not below tmp_path, whose parents only their owner may enter.
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        folder.chmod(0o755)
        theirs = leave_behind(gateway, folder)
        ours = as_nobody(plan(gateway, ["/bin/echo", "1", "1.000000"], folder))
        for path in (ours.data_dir, ours.data_dir / "runs"):
            os.chown(path, 65_534, 65_534)
        with RunnerProcess(ours) as runner:
            assert runner.wait() == 0
            assert "earlier" not in runner.stderr
        options = ["--env-file", str(folder / "settings.env"), "--data-dir", str(ours.data_dir)]
        with RunnerProcess(replace(ours, argv=[*ours.argv[:4], "sync", *options])) as syncing:
            assert syncing.wait() == 1
            assert f"{theirs.run_dir} cannot be used" in syncing.stderr

        assert gateway.status(ours.run.id) == "done"
        refused = sync(theirs)
        assert refused.code == 1
        assert f"{ours.data_dir} belongs to another user" in refused.stderr
        os.chown(ours.data_dir, 0, 0)
        assert sync(theirs).code == 0
        assert judge(gateway, theirs.run.id).problems == []


def as_nobody(launch: Launch) -> Launch:
    """Let the runner give up its rights when it has loaded its files, which may be root's."""
    source = (
        "import os, sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "import claude_runner, tools.start, tools.online, runner.conduct, kinds.launchers, shutil\n"
        "import gateway_transport.adapter, email.utils, encodings.idna, encodings.utf_8_sig\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(claude_runner.main())\n"
    )
    return replace(launch, argv=[launch.argv[0], "-c", source, str(ROOT), *launch.argv[2:]])


@FAULTS
def test_two_syncs_at_once(gateway: StrictGateway, tmp_path: Path) -> None:
    """Two at once deliver each run once: the one that comes second leaves it to the first."""
    launch = leave_behind(gateway, tmp_path)
    hang = gateway.faults.add(Fault("event", Hang(after="stored")))
    with start_sync(launch) as first:
        gateway.wait_for(lambda: hang.applied)
        second = sync(launch)
        gateway.faults.clear()
        assert first.wait(30) == 0

    assert (second.code, second.stdout) == (0, f"{launch.run.id}: it is still running\n")
    assert judge(gateway, launch.run.id).problems == []


@REQUESTS
def test_a_journal_of_another_release(gateway: StrictGateway, tmp_path: Path) -> None:
    """A journal that this release does not understand is named and not touched."""
    launch = leave_behind(gateway, tmp_path)
    with closing(sqlite3.connect(launch.run_dir / "spool.db")) as database:
        database.execute("PRAGMA user_version = 99")
    requests = len(gateway.requests)

    done = sync(launch)

    assert done.code == 1
    assert "another version of claude-runner" in done.stderr
    assert len(gateway.requests) == requests
    with closing(sqlite3.connect(launch.run_dir / "spool.db")) as database:
        database.execute("PRAGMA user_version = 1")
    assert sync(launch).code == 0
    assert judge(gateway, launch.run.id).problems == []


@pytest.mark.parametrize("keep", [0.5, 100 / 4096], ids=["half a file", "a hundred bytes"])
@LOCAL
def test_a_damaged_journal(gateway: StrictGateway, tmp_path: Path, keep: float) -> None:
    """A journal that is not whole is told by sync, delays no other run, and can be discarded."""
    damaged = leave_behind(gateway, tmp_path)
    whole = leave_behind(gateway, tmp_path)
    with closing(sqlite3.connect(damaged.run_dir / "spool.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = (damaged.run_dir / "spool.db").stat().st_size
    os.truncate(damaged.run_dir / "spool.db", int(size * keep if keep == 0.5 else 100))
    log = damaged.log

    done = sync(whole)

    assert done.code == 1
    assert re.search(rf"{damaged.run.id}: not delivered: the journal .* is damaged", done.stderr)
    assert damaged.log == log
    assert judge(gateway, whole.run.id).problems == []
    assert sync(damaged, "--discard", damaged.run.id).code == 0


@LOCAL
def test_an_address_that_is_refused_now(gateway: StrictGateway, tmp_path: Path) -> None:
    """A far http address in a journal gets nothing without the consent that it once had."""
    launch = leave_behind(gateway, tmp_path)
    with closing(sqlite3.connect(launch.run_dir / "spool.db")) as database:
        database.execute(
            "UPDATE facts SET value = '\"http://gateway.example\"' WHERE name = 'gateway_url'"
        )
        database.commit()

    done = sync(launch, "--gateway", "http://gateway.example")

    assert done.code == 1
    assert "http://gateway.example is not encrypted" in done.stderr


@LOCAL
def test_a_planted_journal_sends_no_file_of_the_users(
    gateway: StrictGateway, tmp_path: Path
) -> None:
    """Of what a journal names only regular files of the run's folder are sent, redacted again."""
    launch = leave_behind(gateway, tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    (home / "key.txt").write_text("the private key\n")
    password = "".join(["hunter", "2", "x" * 12])
    files = {
        str(home / "key.txt"): "absolute.txt",
        "../../../home/key.txt": "above.txt",
        "link.txt": "link.txt",
        "artifacts/key.txt": "linked-folder.txt",
        "spool.db/../key.txt": "odd.txt",
        "fifo": "fifo.txt",
        "good.txt": "good.txt",
    }
    (launch.run_dir / "link.txt").symlink_to(home / "key.txt")
    (launch.run_dir / "artifacts").symlink_to(home)
    os.mkfifo(launch.run_dir / "fifo")
    (launch.run_dir / "good.txt").write_text(f"a line\nDB_PASSWORD={password}\nanother\n")
    with closing(sqlite3.connect(launch.run_dir / "spool.db")) as database:
        for path, name in files.items():
            database.execute(
                "INSERT INTO uploads (path, name, start, size) VALUES (?, ?, 0, 16)", (path, name)
            )
        database.commit()

    done = sync(launch)

    assert done.code == 0, done.stderr
    sent = {each.name: each.data for each in gateway.artifacts(launch.run.id)}
    assert {*files.values()} & sent.keys() == {"good.txt"}
    assert [data for data in sent.values() if b"the private key" in data] == []
    assert sent["good.txt"].startswith(b"a line\nDB_PASSWORD=")
    assert password.encode() not in sent["good.txt"]
    assert b"another\n" in sent["good.txt"]
    for name in set(files.values()) - {"good.txt"}:
        assert f"{name} is not uploaded: it is not a file of the run" in done.stderr


# --- start, and old runs -------------------------------------------------------------------------


@LOCAL
def test_start_mentions_leftovers(gateway: StrictGateway, tmp_path: Path) -> None:
    """`start` tells how many earlier runs are left, and by which command they are sent."""
    leave_behind(gateway, tmp_path)
    leave_behind(gateway, tmp_path)
    launch = plan(gateway, child("lines.py", "3", "0"), tmp_path)
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0

        told = runner.stderr
        assert "2 earlier runs are not delivered whole; `./wrapper/claude-runner sync`" in told
    assert sync(launch).code == 0


@LOCAL
def test_a_run_id_is_used_once(gateway: StrictGateway, tmp_path: Path) -> None:
    """A run that was started is not started again, delivered or not."""
    launch = deliver(gateway, tmp_path)
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 1

        assert "is started only once" in runner.stderr
    assert judge(gateway, launch.run.id, last=3).problems == []


@LOCAL
def test_retention(gateway: StrictGateway, tmp_path: Path) -> None:
    """Only folders of runs that were delivered long enough ago are removed."""
    old = deliver(gateway, tmp_path)
    young = deliver(gateway, tmp_path)
    left = leave_behind(gateway, tmp_path)
    live = plan(gateway, child("lines.py", "1600", "400"), tmp_path)
    age(old.run_dir, 31)
    age(young.run_dir, 29)
    age(left.run_dir, 400)
    with RunnerProcess(live) as runner:
        live.expect(r"(?m)^20 .*\n")
        age(live.run_dir, 400)
        new = deliver(gateway, tmp_path)

        folders = {path.name for path in (live.data_dir / "runs").iterdir()}
        assert folders == {each.run.id for each in (young, left, live, new)}
        assert runner.wait(30) == 0
    assert judge(gateway, live.run.id, last=1600).problems == []
    assert sync(left).code == 0
    assert judge(gateway, left.run.id).problems == []


@LOCAL
def test_retention_is_configurable(gateway: StrictGateway, tmp_path: Path) -> None:
    """CLAUDE_RUNNER_RETENTION_DAYS says how long delivered runs are kept."""
    old = deliver(gateway, tmp_path)
    age(old.run_dir, 3)
    launch = plan(gateway, child("lines.py", "3", "0"), tmp_path)
    launch = replace(launch, env={**launch.env, "CLAUDE_RUNNER_RETENTION_DAYS": "2"})
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0

    assert not old.run_dir.exists()


def age(folder: Path, days: float) -> None:
    """Make everything in a folder look so many days old."""
    at = time.time() - days * DAY_S
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (at, at))
