"""The whole loop on one machine: `claude-runner demo`.

Starts a gateway on a free loopback port, creates a run, starts the runner on it, and plays the
operator who sends it a command. What runs is a small bundled session (`demo_session.py`) in a
folder of its own, or with `--cmd` the user's own `CLAUDE_COMMAND`. Three processes, each as its
user would start it; this one only introduces them to each other.

The gateway listens on loopback alone and speaks plain http, so that no browser warns about a
certificate that this machine made for itself. Its store is that of `claude-runner gateway`, where
the run can be looked at afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import requests

from gateway.opener import has_display, open_browser
from places import PROGRAM, find_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SESSION: Final = Path(__file__).resolve().with_name("demo_session.py")
PROMPT: Final = "make the greeting friendlier"
COMMAND: Final = "git diff"

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 6.0
_API_TIMEOUT_S: Final = 10.0
# The operator's command is a show; a session that ended before it is no failure.
_COMMAND_TIMEOUT_S: Final = 20.0
POLL_INTERVAL_S: Final = 0.2
_ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoError(Exception):
    """Something that ends the demo with exit code 1; the message is one plain sentence."""


class EndedError(Exception):
    """A signal asked for the end while there was no runner to pass it on to."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Gateway:
    """The API of the gateway that was started, as its operator uses it. Thread: any."""

    def __init__(self, url: str, admin_token: str) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {admin_token}"}

    def get(self, path: str) -> dict[str, Any]:
        """Ask. Raises requests.RequestException."""
        return self._ask("GET", path, None)

    def post(self, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Tell. Raises requests.RequestException."""
        return self._ask("POST", path, content)

    def _ask(self, method: str, path: str, content: Mapping[str, Any] | None) -> dict[str, Any]:
        with requests.Session() as session:
            session.trust_env = False  # a proxy is not for loopback
            reply = session.request(
                method, self.url + path, json=content, headers=self._headers, timeout=_API_TIMEOUT_S
            )
        reply.raise_for_status()
        body: dict[str, Any] = reply.json()
        return body

    def login_address(self, run_id: str) -> str:
        """Return an address that opens the run's page once, without a password."""
        code = self.post("/api/login-codes", {})["code"]
        return f"{self.url}/login?code={code}&next=/runs/{run_id}"


@contextlib.contextmanager
def _running_gateway(arguments: Sequence[str], secret: str) -> Iterator[Gateway]:
    """Start a gateway on a free port, and end it when the block is left. Raises DemoError."""
    with tempfile.TemporaryDirectory(prefix="claude-runner-demo-") as folder:
        ready_file, log_file = Path(folder, "ready.json"), Path(folder, "log")
        argv = [sys.executable, "-I", str(PROGRAM / "claude_runner.py"), "gateway"]
        argv += ["--http", "--port", "0", "--no-open"]
        argv += [*arguments, "--ready-file", str(ready_file)]
        process = None
        try:
            with log_file.open("wb") as log, _putting_off():
                process = subprocess.Popen(
                    argv,
                    env={**os.environ, "HMAC_SECRET": secret},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for the run; the gateway outlives it
                )
            ready = _wait_until_ready(process, ready_file, log_file)
            token = Path(ready["admin_token_file"]).read_text("ascii").strip()
            yield Gateway(ready["url"], token)
        finally:
            if process is not None:
                _end(process)


@contextlib.contextmanager
def _putting_off() -> Iterator[None]:
    """Let a signal wait: in the middle of a start, it would leave a process that nobody knows."""
    came: list[int] = []
    before = {each: signal.signal(each, lambda *a: came.append(a[0])) for each in _ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        _raise_ended(came[0], None)


def _wait_until_ready(
    process: subprocess.Popen[bytes], ready_file: Path, log_file: Path
) -> dict[str, Any]:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, ValueError):
            ready: dict[str, Any] = json.loads(ready_file.read_text("utf-8"))
            return ready
        if process.poll() is not None:
            break
        time.sleep(0.05)
    told = log_file.read_text("utf-8", "replace").strip().splitlines()
    reason = told[-1].replace("claude-runner: ", "", 1) if told else "it printed nothing"
    raise DemoError(f"the gateway did not start: {reason}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it, whatever else is asked for meanwhile: it must not be left behind."""
    for number in _ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# --- what is run ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Show:
    """What the runner is started on: its arguments, and what it finds in its environment."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


def _own_command(options: argparse.Namespace) -> Show:
    """Return how to run the user's own CLAUDE_COMMAND."""
    return Show((f"--cmd={options.cmd}", "--mode=print", f"--cwd={options.cwd}"), {})


def _bundled_session(gateway: Gateway, run: Mapping[str, Any], stack: contextlib.ExitStack) -> Show:
    """Return how to run the bundled session, in a small project that is made for it."""
    folder = Path(tempfile.mkdtemp(prefix="claude-runner-demo-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    threading.Thread(target=_play_operator, args=(gateway, run["id"], folder), daemon=True).start()
    (folder / "greeting.py").write_text('def greet(name):\n    return "Hello " + name\n', "utf-8")
    # Nothing of the user's own settings: no hook, no signature, and never another repository.
    git = [find_program("git", os.environ.get("PATH")) or "/no/git"]
    git += ["-c", "user.name=demo", "-c", "user.email=demo@localhost"]
    git += ["-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for words in (["init", "-q"], ["add", "greeting.py"], ["commit", "-q", "-m", "A greeting"]):
        # Without git there is no diff to show, and nothing else is missing.
        with contextlib.suppress(OSError):
            subprocess.run(
                [*git, *words], cwd=folder, env=env, check=False, stderr=subprocess.DEVNULL
            )
    summary = folder / "summary.md"
    summary.touch()
    return Show(
        (
            f"--cmd={PROMPT}",
            "--mode=print",
            f"--cwd={folder}",
            f"--artifact={summary}",
        ),
        {
            # No session is kept that could be resumed.
            "CLAUDE_COMMAND": shlex.join(
                [sys.executable, "-I", str(SESSION), "--no-session-persistence"]
            ),
            "CLAUDE_RUNNER_FLAVOR": "claude",
            "CLAUDE_RUNNER_ALLOW_REMOTE_ANSWERS": "false",
            "CLAUDE_RUNNER_ALLOW_REMOTE_INPUT": "false",
        },
    )


def _play_operator(gateway: Gateway, run_id: str, folder: Path) -> None:
    """Send a command once the session has changed a file, and let it go on when it is answered.

    Thread: one of its own, which ends with the run at the latest.
    """
    deadline = time.monotonic() + _COMMAND_TIMEOUT_S
    with contextlib.suppress(requests.RequestException, OSError):
        while not (folder / "changed").exists() and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL_S)
        gateway.post(f"/api/runs/{run_id}/command", {"command": COMMAND})
        while time.monotonic() < deadline:
            history = gateway.get(f"/api/runs/{run_id}/history")["commands"]
            if all(command["status"] != "pending" for command in history):
                break
            time.sleep(POLL_INTERVAL_S)
        (folder / "go-on").touch()


def _run_runner(
    gateway: Gateway, secret: str, run: Mapping[str, Any], show: Show, files: Sequence[str]
) -> int:
    """Start the runner on a run, at this terminal, and return its exit code."""
    with _passing_on() as runner:
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", str(PROGRAM / "claude_runner.py"), "start"),
                f"--run-id={run['id']}",
                *show.arguments,
                *files,
            ],
            env={
                **os.environ,
                **show.environment,
                "GATEWAY_URL": gateway.url,
                "HMAC_SECRET": secret,
                "CLAUDE_RUNNER_TOKEN": run["capabilityToken"],
            },
        )
        runner.begin(process)
        code = process.wait()
    return code if code >= 0 else 128 - code


class _Runner:
    """The runner, and the signals that are for it and not for the demo."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def begin(self, process: subprocess.Popen[bytes]) -> None:
        """Take the process, and pass on what came before it was there."""
        self._process = process
        for number in self._early:
            process.send_signal(number)

    def take(self, number: int, _frame: object) -> None:
        """Pass a signal on; the terminal itself sends Ctrl-C to the runner too."""
        if number == signal.SIGINT and _is_in_foreground():
            return
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)


@contextlib.contextmanager
def _passing_on() -> Iterator[_Runner]:
    runner = _Runner()
    before = {number: signal.signal(number, runner.take) for number in _ENDING_SIGNALS}
    try:
        yield runner
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_in_foreground() -> bool:
    """Whether a terminal sends what is typed there to this process and its runner."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


# --- the demo -------------------------------------------------------------------------------------


def main(
    argv: Sequence[str] | None = None, before: Callable[[str, str], None] | None = None
) -> int:
    """Run the demo to its end; returns the exit code of the child. `before` is called first."""
    options = _parse(argv)
    if before is not None:
        before("", "")
    for number in _ENDING_SIGNALS:
        signal.signal(number, _raise_ended)
    try:
        return _show(options)
    except requests.RequestException as error:
        _complain(f"the gateway does not answer as it should: {error}")
    except (DemoError, OSError) as error:
        _complain(str(error))
    except EndedError as error:
        _complain(f"ended by {signal.Signals(error.number).name}")
        return 128 + error.number
    return 1


def _raise_ended(number: int, _frame: object) -> None:
    for each in _ENDING_SIGNALS:  # a second one in the same moment would break off the tidying up
        signal.signal(each, signal.SIG_IGN)
    raise EndedError(number)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="claude-runner demo", allow_abbrev=False)
    parser.add_argument("--cmd", metavar="PROMPT")
    parser.add_argument("--cwd", metavar="DIR", default=os.getcwd())
    parser.add_argument("--no-open", action="store_true")
    parser.add_argument("--data-dir", metavar="DIR")
    parser.add_argument("--env-file", metavar="FILE")
    return parser.parse_args(argv)


def _show(options: argparse.Namespace) -> int:
    secret = secrets.token_hex(32)
    files = [
        f"--{name}={value}"
        for name, value in (("data-dir", options.data_dir), ("env-file", options.env_file))
        if value is not None
    ]
    prompt = PROMPT if options.cmd is None else options.cmd
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(_running_gateway(files, secret))
        run = gateway.post("/api/runs", {"command": prompt, "metadata": {"source": "demo"}})
        _tell(f"watch it here: {gateway.login_address(run['id'])}")
        is_open = not options.no_open and has_display()
        if is_open:
            opener = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="claude-runner-")))
            open_browser(opener, gateway.login_address(run["id"]))
        if options.cmd is None:
            show = _bundled_session(gateway, run, stack)
        else:
            show = _own_command(options)
        code = _run_runner(gateway, secret, run, show, files)
        _tell("to look at it later: ./wrapper/claude-runner gateway")
        if os.isatty(0) and os.isatty(1):
            _tell("the page is there until you press Enter")
        _tell(f"the run, its result and its artifacts: {gateway.login_address(run['id'])}")
        if os.isatty(0) and os.isatty(1):
            sys.stdin.readline()
    return code


def _tell(sentence: str) -> None:
    print(f"demo: {sentence}", flush=True)


def _complain(sentence: str) -> None:
    print(f"claude-runner: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
