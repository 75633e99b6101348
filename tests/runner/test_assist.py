"""An assist session: the address is told, everything else is not, and nothing of it stays.

With the real tmate against a server of its own, where it is installed. Else, and for failures that
the real one cannot be made to have, with a program that stands in for it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Union

import pytest

from config import RunnerError
from runner.assist import read_public_keys
from testing.gateways.faults import Action, DropAfter, DropBefore, Fault, JsonError
from testing.gateways.proxy import LoopbackProxy
from testing.gateways.strict_gateway import StrictGateway
from testing.needs import needs
from testing.programs import processes
from testing.programs.runner import ROOT, Launch, RunnerProcess, child, plan, program
from testing.programs.shared_terminal import (
    FakeTmate,
    RealTmate,
    SharedTerminal,
    TmateServer,
    find_tmate,
    public_key,
)
from testing.programs.verdict import sync
from testing.waiting import eventually

Tmate = Union[type[RealTmate], type[FakeTmate]]

# As long as a person waits who wants to be gone.
GONE_WITHIN_S = 8.0
FAR_NAME = "gateway.test"


@pytest.fixture
def gw() -> Iterator[StrictGateway]:
    """A gateway without a rate limit; what it objects to fails the test."""
    with StrictGateway(rate_limit=None, long_poll=True) as gateway:
        yield gateway


TMATE: Tmate = RealTmate if shutil.which("tmate") else FakeTmate


@pytest.fixture(scope="session", autouse=True)
def tmate_server() -> Iterator[None]:
    """The server of the real tmate, once for all tests of this process."""
    with ExitStack() as stack:
        if TMATE is RealTmate:
            RealTmate.server = stack.enter_context(TmateServer())
        yield


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[SharedTerminal]:
    """A tmate that works."""
    with TMATE(tmp_path) as shared:
        yield shared


def plan_assist(
    gateway: StrictGateway,
    terminal_env: Mapping[str, str],
    folder: Path,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Launch:
    """Prepare an `assist` command; its settings come from the environment."""
    start = plan(gateway, ["true"], folder, env={**terminal_env, **(env or {})})
    data = ["--data-dir", str(start.data_dir), "--env-file", str(folder / "settings.env")]
    argv = [sys.executable, str(ROOT / "claude_runner.py"), "assist", "--run-id", start.run.id]
    return Launch(gateway, start.run, [*argv, *data, *options], start.env, start.data_dir)


def addresses(launch: Launch) -> list[str]:
    """Return the addresses that the gateway was told, in order."""
    return [json.loads(each.data)["url"] for each in launch.gateway.events(launch.run.id, "assist")]


def await_address(launch: Launch, number: int = 1) -> str:
    """Wait until the gateway has been told so many addresses, and return the last of them."""
    launch.gateway.wait_for(lambda: len(addresses(launch)) >= number, 20.0)
    return addresses(launch)[-1]


def await_text(path: Path) -> str:
    """Wait until a file is there, and return what it says."""

    def read() -> str:
        assert path.exists()
        return path.read_text()

    return eventually(read, 20.0)


def session_folder(launch: Launch) -> Path:
    """Return the folder with the files of the session. Raises AssertionError if there is none."""
    pids = find_tmate(launch.env)
    assert len(pids) == 1
    words = processes.command_line(pids[0]).split()
    return Path(words[words.index("-f") + 1]).parent


def secret_of(address: str) -> str:
    """Return the part of an address that lets one in."""
    return address.split()[-1].partition("@")[0]


@contextmanager
def opened(launch: Launch) -> Iterator[tuple[RunnerProcess, str]]:
    """Run it until the address has been told and shown, and to its end after the test."""
    with RunnerProcess(launch) as runner:
        address = await_address(launch)

        def is_shown() -> None:
            assert runner.stdout.decode() == f"{address}\n"

        eventually(is_shown, 20.0)
        yield runner, address
        runner.signal(signal.SIGTERM)  # if the test has not ended it
        runner.wait()


def assert_failed(launch: Launch, sentence: str) -> str:
    """Run it; it must end with 1 and this sentence last, having told no address.

    Returns all that it told.
    """
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 1
        stderr = runner.stderr
        assert re.search(sentence, stderr.splitlines()[-1]), stderr
        assert runner.stdout == b""
    assert addresses(launch) == []
    assert find_tmate(launch.env) == []
    return stderr


# --- a session, and its end --------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_session_is_told_of_and_gone_with_a_signal(
    number: int, gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path
) -> None:
    """The event is the documented one; the end takes moments and leaves nothing."""
    launch = plan_assist(gw, terminal.env, tmp_path)
    with opened(launch) as (runner, address):
        (event,) = gw.events(launch.run.id)
        tmate, folder = find_tmate(launch.env), session_folder(launch)

        runner.signal(number)
        code = runner.wait(GONE_WITHIN_S)

    assert event.data == json.dumps({"type": "tmate", "url": address}, separators=(",", ":"))
    assert re.fullmatch(r"ssh -p\d+ \w+@127\.0\.0\.1", address)
    assert code == 0
    assert len(tmate) == 1
    processes.assert_gone(tmate, 0.0)
    assert not folder.exists()


def test_leaving_its_shell_ends_it(
    gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path
) -> None:
    """The guest types exit, and the session is over."""
    with opened(plan_assist(gw, terminal.env, tmp_path)) as (runner, _):
        terminal.type("exit\n")

        assert runner.wait() == 0


def test_its_time_is_limited(gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path) -> None:
    """--max-time ends a session that was forgotten."""
    with opened(plan_assist(gw, terminal.env, tmp_path, ["--max-time", "3s"])) as (runner, _):
        assert runner.wait(3 + GONE_WITHIN_S) == 0
        assert "the time limit was reached" in runner.stderr


def test_another_address_is_told_too(
    gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path
) -> None:
    """A server gives another address after a reconnection; the old one leads nowhere."""
    launch = plan_assist(gw, terminal.env, tmp_path)
    with opened(launch) as (runner, first):
        terminal.drop()
        second = await_address(launch, 2)
        runner.signal(signal.SIGTERM)

        assert runner.wait(GONE_WITHIN_S) == 0
        assert runner.stdout.decode().splitlines() == [first, second]
    assert first != second


def test_what_was_started_inside_goes_too(
    gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path
) -> None:
    """Neither setsid nor nohup lets a guest leave something behind."""
    note = tmp_path / "pid"
    with opened(plan_assist(gw, terminal.env, tmp_path)) as (runner, _):
        terminal.type(f"setsid nohup sh -c 'echo $$ >{note}.new; mv {note}.new {note}; ")
        terminal.type("exec sleep 600' >/dev/null 2>&1 &\n")
        pid = int(await_text(note))
        runner.signal(signal.SIGTERM)

        assert runner.wait(GONE_WITHIN_S) == 0
    processes.assert_gone([pid], 0.0)


def test_a_killed_runner_leaves_no_session(
    gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path
) -> None:
    """The keeper outlives a kill -9, and ends what it watches over."""
    launch = plan_assist(gw, terminal.env, tmp_path)
    with opened(launch) as (runner, address):
        tmate, folder = find_tmate(launch.env), session_folder(launch)
        runner.signal(signal.SIGKILL)
        runner.wait()

        processes.assert_gone(tmate, GONE_WITHIN_S)
    # Nobody is left to remove it; it holds nothing, and `sync` does.
    left = [path.read_text() for path in folder.iterdir() if path.is_file()]
    assert secret_of(address) not in "".join(left)
    assert sync(launch).code == 0
    assert not folder.exists()


def test_sync_removes_no_folder_of_a_session_that_lives(gw: StrictGateway, tmp_path: Path) -> None:
    """Nor what only looks like one."""
    foreign = Path(tempfile.gettempdir(), f"cr-assist-{tmp_path.name}")
    foreign.symlink_to(tmp_path, target_is_directory=True)
    with FakeTmate(tmp_path) as fake, ExitStack() as stack:
        stack.callback(foreign.unlink)
        launch = plan_assist(gw, fake.env, tmp_path)
        runner, _ = stack.enter_context(opened(launch))
        folder = session_folder(launch)

        assert sync(launch).code == 0

        assert (folder / "conf").is_file()
        assert any(tmp_path.iterdir())
        runner.signal(signal.SIGTERM)
        assert runner.wait(GONE_WITHIN_S) == 0


def test_the_session_knows_no_secret_of_the_runner(
    gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path
) -> None:
    """Its shell has neither the secret nor the token, nor a session around it."""
    told = tmp_path / "environment"
    env = {"TMUX": "/tmp/outer,1,0", "OF_THE_USER": "kept"}
    with opened(plan_assist(gw, terminal.env, tmp_path, env=env)) as (runner, _):
        terminal.type(f"env >{told}.new; mv {told}.new {told}\n")
        inside = await_text(told)
        runner.signal(signal.SIGTERM)
        runner.wait(GONE_WITHIN_S)

    assert "OF_THE_USER=kept" in inside
    assert "/tmp/outer" not in inside
    assert "HMAC_SECRET" not in inside
    assert "CLAUDE_RUNNER_TOKEN" not in inside


def test_the_address_is_nowhere_else(
    gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path
) -> None:
    """Not in what -vv tells, and not in any file while the session lives."""
    launch = plan_assist(gw, terminal.env, tmp_path, ["-vv"])
    with opened(launch) as (runner, address):
        secret = secret_of(address).encode()
        folders = (session_folder(launch), tmp_path)
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        holding = [path for path in files if secret in path.read_bytes()]
        runner.signal(signal.SIGTERM)
        runner.wait(GONE_WITHIN_S)

        assert secret not in runner.stderr.encode()
    assert any(path.name == "conf" for path in files)
    assert holding == []


# --- who may enter -------------------------------------------------------------------------------


def test_without_keys_the_user_is_warned(gw: StrictGateway, tmp_path: Path) -> None:
    """Whoever holds the address is in, and that is said."""
    with FakeTmate(tmp_path) as fake, opened(plan_assist(gw, fake.env, tmp_path)) as (runner, _):
        assert "anyone with the address of the assist session can log in" in runner.stderr


def test_keys_are_handed_on(gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path) -> None:
    """With --authorized-keys tmate is told whom to let in, and there is no warning."""
    keys = tmp_path / "friends"
    keys.write_text(f"# a friend\n\n{public_key()} friend@home\n")
    launch = plan_assist(gw, terminal.env, tmp_path, ["--authorized-keys", str(keys)])
    with opened(launch) as (runner, _):
        (pid,) = find_tmate(launch.env)
        words = processes.command_line(pid).split()

        assert Path(words[words.index("-a") + 1]).read_text() == f"{public_key()}\n"
        assert "anyone with the address" not in runner.stderr


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "contains no public keys; add at least one"),
        ("# nothing\n", "contains no public keys; add at least one"),
        (f"no-pty {public_key()}\n", "line 1 of .* is not a plain public key"),
        (
            f"{public_key()}\nssh-rsa {public_key().split()[1]}\n",
            "line 2 of .* is not a plain public",
        ),
        ("ssh-ed25519 AAAA\n", "line 1 of .* is not a plain public key"),
        ("ssh-ed25519 A\n", "line 1 of .* is not a plain public key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "line 1 of .* is not a plain public key"),
    ],
)
def test_a_file_of_keys_is_checked(text: str, sentence: str, tmp_path: Path) -> None:
    """tmate would drop what it does not understand, and lock everybody out without a word."""
    file = tmp_path / "keys"
    file.write_text(text)

    with pytest.raises(RunnerError, match=sentence):
        read_public_keys(file, "--authorized-keys")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--timeout", "0"), ("--timeout", "soon"), ("--timeout", "3x"), ("--max-time", "60")],
)
def test_a_time_that_is_none_is_told(
    option: str, value: str, gw: StrictGateway, tmp_path: Path
) -> None:
    """Only --timeout may be a bare number, of seconds; nothing else is told besides."""
    launch = plan_assist(gw, {}, tmp_path, [option, value])

    stderr = assert_failed(
        launch, rf"{option} is '{value}s?'; write a time such as 90s, 45m, 2h or 1h30m"
    )
    assert stderr.count("\n") == 1


def test_a_missing_file_of_keys_opens_nothing(gw: StrictGateway, tmp_path: Path) -> None:
    """It is told before anything is started."""
    launch = plan_assist(gw, {}, tmp_path, ["--authorized-keys", "none"])

    assert_failed(launch, r"--authorized-keys .*none cannot be read: No such file")


# --- no session ----------------------------------------------------------------------------------

PUBLIC_SERVICE = r"name a server of your own with CLAUDE_RUNNER_TMATE_HOST \(the public tmate\.io"
FAILURES = {
    "mute": rf"no tmate session after 3 s: the server does not answer; .*{PUBLIC_SERVICE}",
    "refused": r"no tmate session after 3 s: Error connecting: Connection refused; check the net",
    "fingerprint": r"no tmate session was opened: the server's fingerprint is not the one that is "
    r"configured \(.*\); correct CLAUDE_RUNNER_TMATE_ED25519_FINGERPRINT",
    "configuration": r"tmate ended at once \(exit code 1\): /.*:\d+: unknown option: "
    r"extended-keys; correct that file",
}
FAKE_FAILURES = {
    "lookup": r"no tmate session after 3 s: ssh\.tmate\.io lookup failure\. .*; check the network",
    "silent": r"tmate ended at once \(exit code 1\): it printed nothing; check whether `tmate -F` "
    "works",
    "imposter": r"is not tmate, as its answer to -V shows; install tmate \(apt install tmate",
    "old": r"tmate 2\.2 is too old; install tmate 2\.4 or newer",
}
CASES = [
    *(pytest.param(TMATE, mode, sentence, id=mode) for mode, sentence in FAILURES.items()),
    *(pytest.param(FakeTmate, mode, sentence, id=mode) for mode, sentence in FAKE_FAILURES.items()),
]


@pytest.mark.parametrize(("tmate", "mode", "sentence"), CASES)
def test_no_session_is_told_with_a_way_out(
    tmate: Tmate,
    mode: str,
    sentence: str,
    gw: StrictGateway,
    tmp_path: Path,
) -> None:
    """Exit code 1, the reason that tmate gave last, and what to do; nothing is told or left."""
    with tmate(tmp_path, mode) as terminal:
        assert_failed(plan_assist(gw, terminal.env, tmp_path, ["--timeout", "3"]), sentence)


@pytest.mark.parametrize(
    ("tmate", "address"),
    [
        # CI installs tmate, and does not allow this to be skipped.
        pytest.param(RealTmate, "ssh a@b; touch /tmp/x", marks=needs("tmate")),
        (FakeTmate, "ssh a@b; touch /tmp/x"),
        (FakeTmate, "ssh -oProxyCommand=id a@b"),
        (FakeTmate, "curl x | sh"),
        (FakeTmate, "ssh a@-b"),
        (FakeTmate, "ssh -p2200 a@b\nssh a@b"),
    ],
)
def test_an_address_that_is_none_is_told_to_nobody(
    address: str, tmate: Tmate, gw: StrictGateway, tmp_path: Path
) -> None:
    """A server chooses it and a person will paste it into a shell."""
    with tmate(tmp_path, address=address) as terminal:
        assert_failed(
            plan_assist(gw, terminal.env, tmp_path),
            "the tmate server's address is not an ssh command, so it was not passed on",
        )


def test_tmate_that_is_not_there_is_told_with_the_install_line(
    gw: StrictGateway, tmp_path: Path
) -> None:
    """The line to install it, and the setting for one elsewhere."""
    env = {"CLAUDE_RUNNER_TMATE_COMMAND": "no-such-tmate"}

    assert_failed(
        plan_assist(gw, env, tmp_path),
        r"tmate is not installed \('no-such-tmate' was not found\); install it \(apt install "
        r"tmate, or brew install tmate\), or set CLAUDE_RUNNER_TMATE_COMMAND",
    )


def test_a_disk_that_takes_nothing_is_told(gw: StrictGateway, tmp_path: Path) -> None:
    """The session has a few small files."""
    with FakeTmate(tmp_path) as fake:
        launch = plan_assist(gw, fake.env, tmp_path)
        launch.data_dir.mkdir()
        (launch.data_dir / ".gitignore").write_text("*\n")
        limited = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *launch.argv]
        done = subprocess.run(
            limited, env=launch.env, capture_output=True, text=True, timeout=60, check=False
        )

    assert done.returncode == 1
    assert re.search(
        r"the session's files cannot be written \(.*\); make room, or set", done.stderr
    )


def test_one_that_does_not_obey_is_killed(gw: StrictGateway, tmp_path: Path) -> None:
    """SIGTERM is asked for first, and not waited for long."""
    with FakeTmate(tmp_path, "stubborn") as fake:
        launch = plan_assist(gw, fake.env, tmp_path)
        with opened(launch) as (runner, _):
            pids = find_tmate(launch.env)
            runner.signal(signal.SIGTERM)

            assert runner.wait(3 + GONE_WITHIN_S) == 0
    processes.assert_gone(pids, 0.0)


def test_a_session_that_is_broken_off_is_a_failure(
    gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path
) -> None:
    """Somebody kills tmate: the user is told, and the exit code is 1."""
    launch = plan_assist(gw, terminal.env, tmp_path)
    with opened(launch) as (runner, _):
        (pid,) = find_tmate(launch.env)
        os.kill(pid, signal.SIGKILL)

        assert runner.wait() == 1
        assert "the tmate session was broken off (killed by SIGKILL); " in runner.stderr


def test_a_killed_keeper_ends_the_session(
    gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path
) -> None:
    """Nobody would watch over it any more."""
    launch = plan_assist(gw, terminal.env, tmp_path)
    with opened(launch) as (runner, _):
        tmate, folder = find_tmate(launch.env), session_folder(launch)
        (keeper,) = [
            pid
            for pid in processes.descendants(runner.pid)
            if tmate[0] in (processes.descendants(pid))
        ]
        os.kill(keeper, signal.SIGKILL)

        assert runner.wait() == 1
        assert "the tmate session was broken off" in runner.stderr
    processes.assert_gone(tmate, 0.0)
    assert not folder.exists()


def test_a_bug_closes_the_session_and_its_report_lacks_the_address(
    gw: StrictGateway, tmp_path: Path
) -> None:
    """Whatever fails in the runner, the login goes, and nobody reads it in what is sent to us."""
    source = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import claude_runner\n"
        "from runner import assist\n"
        "def fail(self, address): raise ValueError('a bug')\n"
        "assist.Assist._await_another = fail\n"
        "sys.exit(claude_runner.main())"
    )
    with FakeTmate(tmp_path) as fake:
        launch = plan_assist(gw, fake.env, tmp_path)
        launch.argv[1:2] = ["-c", source]
        with RunnerProcess(launch) as runner:
            assert runner.wait() == 1
            assert "an error in claude-runner itself: ValueError: a bug" in runner.stderr
        address = await_address(launch)
        assert find_tmate(launch.env) == []
    report = (launch.data_dir / "crash.txt").read_text()
    assert "a bug" in report
    assert secret_of(address) not in report


def test_a_stop_before_there_is_a_session(gw: StrictGateway, tmp_path: Path) -> None:
    """Nobody has to wait for a server that does not answer."""
    with FakeTmate(tmp_path, "mute") as fake:
        launch = plan_assist(gw, fake.env, tmp_path)
        with RunnerProcess(launch) as runner:

            def is_started() -> None:
                assert find_tmate(launch.env)

            eventually(is_started, 20.0)
            runner.signal(signal.SIGINT)

            assert runner.wait(GONE_WITHIN_S) == 130


# --- the gateway ---------------------------------------------------------------------------------


def test_an_answer_that_is_lost_does_not_double_the_event(
    gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path
) -> None:
    """The frozen attempt is repeated, and its used nonce says that the first copy was accepted."""
    gw.faults.add(Fault("event", DropAfter(), times=2))
    launch = plan_assist(gw, terminal.env, tmp_path)
    with opened(launch) as (runner, _):
        runner.signal(signal.SIGTERM)
        runner.wait(GONE_WITHIN_S)

        assert "the gateway does not answer; sending the session's address again" in runner.stderr
    assert len(addresses(launch)) == 1


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (JsonError(400, "it is not what I take"), "(the request is wrong and will not"),
        (JsonError(500), "(the gateway failed to process it)"),
    ],
    ids=["refused", "failing"],
)
def test_a_session_that_cannot_be_told_of_is_closed(
    action: Action, sentence: str, gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path
) -> None:
    """Nobody could know its address, so nobody should be able to use it."""
    gw.faults.add(Fault("event", action, every=1))
    launch = plan_assist(gw, terminal.env, tmp_path, ["-vv"])

    assert_failed(launch, re.escape(f"the gateway did not take the session's address {sentence}"))


def test_a_gateway_that_goes_away_is_not_waited_for_without_end(
    gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path
) -> None:
    """The session is closed when its address could not be delivered in the time of a drain."""
    gw.faults.add(Fault("event", DropBefore(), every=1))
    launch = plan_assist(gw, terminal.env, tmp_path, env={"CLAUDE_RUNNER_DRAIN_TIMEOUT": "1"})

    assert_failed(
        launch,
        "the session's address could not be sent to the gateway, so the session was closed; start",
    )


def test_a_wrong_token_starts_nothing(gw: StrictGateway, tmp_path: Path) -> None:
    """The gateway is asked first."""
    with FakeTmate(tmp_path) as fake:
        launch = plan_assist(gw, fake.env, tmp_path, ["--token", "wrong"])
        gw.allow("an unknown run or a token not the run's")

        assert_failed(launch, "the gateway does not know run")
        assert not fake.log.exists()


def test_plain_http_never_carries_an_address(gw: StrictGateway, tmp_path: Path) -> None:
    """Everybody on the way would be in, whatever the user has allowed for the rest."""
    env = {"CLAUDE_RUNNER_ALLOW_HTTP": "true", "GATEWAY_URL": f"http://{FAR_NAME}"}
    with FakeTmate(tmp_path) as fake:
        launch = plan_assist(gw, fake.env, tmp_path, env=env)

        assert_failed(launch, r"is a login to this machine, and GATEWAY_URL .* is not encrypted")
        assert not fake.log.exists()


# --- beside a run --------------------------------------------------------------------------------


def test_beside_a_run_it_ends_with_the_run(
    gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path
) -> None:
    """The run's events, digest and end are as without it; the address is in the page alone."""
    waits = child("ready.py", "7")
    options = ["--assist", "--mode", "interactive", "--max-time", "60s"]
    launch = plan(gw, waits, tmp_path, prompt=None, options=options, env=terminal.env)
    with ExitStack() as stack:
        stdin_r, stdin_w = os.pipe()
        stack.callback(os.close, stdin_r)
        runner = stack.enter_context(RunnerProcess(launch, stdin=stdin_r))
        launch.expect_pid()
        address = await_address(launch)
        tmate = find_tmate(launch.env)
        gw.stop(launch.run.id)
        code = runner.wait()
        os.close(stdin_w)

        assert "an assist session is open; the gateway's page has its address" in runner.stderr
        assert secret_of(address) not in runner.stderr + runner.stdout.decode()
    assert code == 130
    assert len(tmate) == 1
    processes.assert_gone(tmate, 0.0)
    assert gw.verify_finished(launch.run.id) == []
    files = [path for path in launch.data_dir.rglob("*") if path.is_file()]
    assert [path for path in files if secret_of(address).encode() in path.read_bytes()] == []


def test_beside_a_run_its_end_costs_the_run_nothing(
    gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path
) -> None:
    """A run that ends by itself ends as itself."""
    waits = program(
        "import sys, time, pathlib\n"
        "while not pathlib.Path('go').exists(): time.sleep(0.02)\n"
        "print('done'); sys.exit(3)"
    )
    launch = plan(gw, waits, tmp_path, options=["--assist"], env=terminal.env)
    with RunnerProcess(launch) as runner:
        await_address(launch)
        tmate = find_tmate(launch.env)
        (tmp_path / "go").touch()

        assert runner.wait() == 3
    processes.assert_gone(tmate, 0.0)
    assert gw.text(launch.run.id) == "done\n"
    assert gw.verify_finished(launch.run.id) == []
    assert [event.sequence for event in gw.events(launch.run.id) if event.type != "assist"] == [
        1,
        2,
        3,
    ]


@pytest.mark.parametrize("mode", ["silent", "configuration", "fingerprint"])
def test_beside_a_run_no_session_is_a_warning(mode: str, gw: StrictGateway, tmp_path: Path) -> None:
    """The run is what counts: it goes on, and its exit code is its own."""
    waits = program(
        "import sys, time, pathlib\n"
        "while not pathlib.Path('go').exists(): time.sleep(0.02)\n"
        "sys.exit(4)"
    )
    with FakeTmate(tmp_path, mode) as fake:
        launch = plan(gw, waits, tmp_path, options=["--assist"], env=fake.env)
        with RunnerProcess(launch) as runner:

            def is_told() -> None:
                assert "; the run continues without it" in runner.stderr

            eventually(is_told, 20.0)
            (tmp_path / "go").touch()

            assert runner.wait() == 4
    assert addresses(launch) == []
    assert gw.verify_finished(launch.run.id) == []


@pytest.mark.parametrize("how", ["__STOP__", "__HALT__"])
def test_beside_a_run_that_is_ended_before_there_is_a_session(
    how: str, gw: StrictGateway, tmp_path: Path
) -> None:
    """It goes with the run, and that is no failure to tell."""
    with FakeTmate(tmp_path, "mute") as fake:
        waits = program("import signal; signal.pause()")
        launch = plan(gw, waits, tmp_path, options=["--assist"], env=fake.env)
        with RunnerProcess(launch) as runner:
            eventually(lambda: session_folder(launch), 20.0)
            folder = session_folder(launch)
            gw.queue_command(launch.run.id, how)
            runner.wait()

            assert "assist:" not in runner.stderr
    assert find_tmate(launch.env) == []
    assert not folder.exists()
    assert gw.verify_finished(launch.run.id) == []


def test_beside_a_run_a_lost_answer_is_settled_before_the_end(
    gw: StrictGateway, tmp_path: Path
) -> None:
    """A run that ends while the address is being sent sends nothing after `finished`."""
    gw.faults.add(Fault(lambda request: b'"assist"' in request.body, DropAfter(), every=1))
    with FakeTmate(tmp_path) as fake:
        launch = plan(gw, child("exits.py", "0"), tmp_path, options=["--assist"], env=fake.env)
        with RunnerProcess(launch) as runner:
            assert runner.wait() == 0
    assert len(addresses(launch)) <= 1
    assert gw.verify_finished(launch.run.id) == []


def test_beside_a_run_over_plain_http_there_is_none(gw: StrictGateway, tmp_path: Path) -> None:
    """The run itself was allowed to go that way."""
    gw.long_poll = False  # the proxy would wait for the end of the last one
    with LoopbackProxy(hosts={FAR_NAME: gw.port}) as proxy, FakeTmate(tmp_path) as fake:
        env = {
            **fake.env,
            "HTTP_PROXY": proxy.url,
            "http_proxy": proxy.url,
            "CLAUDE_RUNNER_ALLOW_HTTP": "true",
            "GATEWAY_URL": f"http://{FAR_NAME}",
        }
        launch = plan(gw, child("exits.py", "0"), tmp_path, options=["--assist"], env=env)
        with RunnerProcess(launch) as runner:
            assert runner.wait() == 0
            assert "assist disabled: GATEWAY_URL must be https" in runner.stderr
        assert not fake.log.exists()


def test_keys_without_a_session_are_a_mistake(gw: StrictGateway, tmp_path: Path) -> None:
    """Who names keys wants a session."""
    launch = plan(gw, ["true"], tmp_path, options=["--authorized-keys", "keys"])
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 1
        assert "--authorized-keys says who may enter an assist session; add --assist" in (
            runner.stderr
        )


def test_a_long_temporary_folder_is_no_obstacle(
    gw: StrictGateway, terminal: SharedTerminal, tmp_path: Path
) -> None:
    """The name of a socket is short; a folder that leaves no room for it is not used."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    launch = plan_assist(gw, terminal.env, tmp_path, env={"TMPDIR": str(long)})
    with opened(launch) as (runner, _):
        folder = session_folder(launch)
        runner.signal(signal.SIGTERM)

        assert runner.wait(GONE_WITHIN_S) == 0
    assert folder.parent == Path("/tmp")
    assert not folder.exists()
