"""Guards around every test: a clean environment, no way out of the machine, nothing left behind."""

from __future__ import annotations

import fcntl
import gc
import itertools
import os
import signal
import sys
import threading
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from testing.once import folder_of_all
from testing.programs import processes
from testing.programs.starter import Starter, starters
from testing.waiting import eventually

pytest_plugins = ["testing.gateways.both_gateways"]

# How long a thread, process or descriptor may take to go after its test has ended.
GONE_WITHIN_S = 10.0

# What a developer's own shell may have set that would change what a test sees.
_UNWANTED_NAMES = {
    "GATEWAY_URL",
    "HMAC_SECRET",
    "ALLOW_SELF_SIGNED",
    "EXTRA_ALLOWED_COMMANDS",
    "REV_COMMAND",
    "ALL_PROXY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NO_COLOR",
    "FORCE_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLUMNS",
    "LINES",
    "NETRC",
    "CDPATH",
    "ENV",
    "BASH_ENV",
}
_UNWANTED_PREFIXES = ("CLAUDE", "ANTHROPIC_", "XDG_", "GIT_", "TMUX", "TMATE", "STY")

# Every process that a test starts inherits this name, and is found by its value.
_MARKER_NAME = "TEST_GUARD_MARKER"


# A shell lets its background jobs ignore these, and so would every program that a test starts.
for _number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(
            _number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        )

# A busy machine is no failure: no test here judges how long something takes.
# Each run tries other examples; `make properties` tries many at once, the oldest Python a few.
hypothesis.settings.register_profile("any-machine", deadline=None, max_examples=50)
hypothesis.settings.register_profile("few", deadline=None, max_examples=10)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("any-machine")

# Without bytecode each runner that a test starts compiles all its modules again: half of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


# --- all processes begin at once ---------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect garbage neither meanwhile, which took a third of the time, nor ever among these."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Let one process compile a file of a new checkout, and the others read what it has written.

    All begin at once with the same file, so each of them would compile all of them.
    """
    if not isinstance(collector, pytest.Module) or "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    with collector.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return (yield)


# --- nothing is left behind ------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def starter() -> Iterator[tuple[Starter, str]]:
    """What forks the runners of this test process, and the mark by which those are found."""
    mark = f"test-guard-{uuid.uuid4().hex}"
    starter = Starter({_MARKER_NAME: mark})
    starters.append(starter)
    yield starter, mark
    starters.remove(starter)
    starter.close()


@pytest.fixture(autouse=True)
def nothing_left_behind(
    starter: tuple[Starter, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """After the test there is no thread, child process or descriptor that was not there before."""
    own_pid = os.getpid()
    marker = f"test-guard-{uuid.uuid4().hex}"
    monkeypatch.setenv(_MARKER_NAME, marker)
    threads = set(threading.enumerate())
    others = processes.all_pids()
    descriptors = set(_open_descriptors().items())

    yield

    if os.getpid() != own_pid:
        # A fork that did not exec came out of the test: it must not go on as a second pytest.
        os.write(2, b"a forked copy of the test process returned from its test\n")
        os._exit(70)

    def started() -> list[int]:
        """What the test started: with its own mark, or, if it was forked, with the starter's."""
        return processes.find_by_marker(marker, starter[1], but=others)

    def nothing_is_left() -> None:
        left = [f"thread {each.name}" for each in threading.enumerate() if each not in threads]
        if processes.all_pids() - others:  # mostly there are none, and nothing more to look at
            left += [f"process {processes.describe(each)}" for each in started()]
            left += [f"child process {each}" for each in processes.children(own_pid, but=others)]
        opened = set(_open_descriptors().items()) - descriptors
        left += [f"descriptor {number} -> {target}" for number, target in sorted(opened)]
        assert not left, f"the test left behind: {left}"

    try:
        eventually(nothing_is_left, GONE_WITHIN_S)
    except BaseException:
        _kill(started())
        raise


def _open_descriptors() -> dict[int, str]:
    """Return this process's open descriptors and what they refer to; nothing if that is unknown."""
    found = {}
    folder = "/proc/self/fd"  # no Path: each test reads dozens of these twice
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        try:
            found[int(name)] = os.readlink(f"{folder}/{name}")
        except OSError:
            pass  # the descriptor of the listing itself
    return found


def _kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass  # it went by itself


# --- a clean environment ---------------------------------------------------------------------


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of the runner for all test processes.

    An isolated runner compiles all that it imports, Python's own modules too, into its user's cache
    folder: seconds in an empty home, and of no interest to most tests.
    """
    folder = folder_of_all(tmp_path_factory) / "cache-of-all"
    (folder / "pycache").mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Paths for homes. `mktemp` looks each time through all that it has made."""
    folder = tmp_path_factory.mktemp("homes")
    return (f"{folder}/{number}" for number in itertools.count())


@pytest.fixture(autouse=True)
def clean_environment(
    nothing_left_behind: None,
    monkeypatch: pytest.MonkeyPatch,
    homes: Iterator[str],
    compiled: Path,
) -> None:
    """Tests see no configuration of whoever runs them, and a home with nothing but `compiled`."""
    for name in list(os.environ):
        if name.upper() in _UNWANTED_NAMES or name.upper().startswith(_UNWANTED_PREFIXES):
            monkeypatch.delenv(name)
    home = next(homes)
    os.mkdir(home, 0o700)
    os.mkdir(f"{home}/.cache")
    os.mkdir(f"{home}/.cache/claude-runner", 0o700)
    os.symlink(f"{compiled}/pycache", f"{home}/.cache/claude-runner/pycache")
    monkeypatch.setenv("HOME", home)


# --- no way out of the machine ---------------------------------------------------------------


class OutsideSocketError(Exception):
    """A test tried to reach something beyond this machine."""


def _refuse_outside(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in ("socket.connect", "socket.sendto"):
        return
    address = arguments[1]
    if not isinstance(address, tuple):
        return  # AF_UNIX, or a socket that is already connected
    host = str(address[0])
    if not (host.startswith("127.") or host in ("::1", "localhost")):
        raise OutsideSocketError(f"{event} to {address}")


# An audit hook cannot be removed; it holds for the whole test process, and for nothing else.
sys.addaudithook(_refuse_outside)


# --- which tests were skipped, and why -------------------------------------------------------


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note a skipped test; an expected failure is none."""
    if report.skipped and not hasattr(report, "wasxfail"):
        _note_skip(report.nodeid, report.longrepr)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note a file that was skipped as a whole."""
    if report.skipped:
        _note_skip(report.nodeid, report.longrepr)


def _note_skip(nodeid: str, longrepr: Any) -> None:
    """Append one line to the file that SKIP_REPORT names, if it does."""
    path = os.environ.get("SKIP_REPORT")
    if not path:
        return
    reason = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    line = f"{nodeid}\t{' '.join(reason.split())}\n".replace("\tSkipped: ", "\t")
    # One write to a file opened for appending: several runs at once do not mix their lines.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
