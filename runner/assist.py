"""A terminal on this machine for a helper elsewhere: opened, posted to the gateway, ended.

Anyone with the address of an assist session can log in here. So it goes to the user's screen
and into the `assist` event, and nowhere else: it is never logged, traced, or written to a journal,
and what a gateway answers to it is not repeated, as that might hold it. A session whose
address cannot be posted is closed.

What shares the terminal is a `Provider`. The program that it names runs under the keeper, like
everything that the runner starts, so that nothing of a session outlives it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
import pwd
import queue
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Final, NamedTuple, Protocol

from config import RunnerError, read_text
from gateway_client import Outcome, Reply
from gateway_transport import GatewayError
from journal.events import encode_event
from places import find_program, program_to_start
from runner.attempts import Obstacle, Pacer, Policy, Sender, TellOnce
from runner.keeper import ASSIST, Keeper, Report
from runner.mailbox import Mailbox, Signal, Worker, WorkerEnded, WorkerFailed
from runner.processes import describe_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import BinaryIO

    from config import Config
    from gateway_client import GatewayClient
    from runner.console import Console

# How often the program is asked for its address: at first, and later for another one.
_OPENING_INTERVAL_S: Final = 0.25
_WATCHING_INTERVAL_S: Final = 2.0
# A program that was told to end gets this long before it is killed.
_CLOSE_S: Final = 3.0
# A frozen attempt may be repeated for 280 s; a helper does not wait that long for an address.
_MAX_PATIENCE_S: Final = 240.0
# So often the gateway may fail on the event before the session is closed.
_MAX_FAILURES: Final = 3
# A session that ends while an address is being sent waits this long for the answer to it.
_LAST_ANSWER_S: Final = 0.5
_JOIN_S: Final = 10.0
# The keeper's sweep, and some room.
_SWEEP_S: Final = 10.0
_MAX_OUTPUT_BYTES: Final = 65_536
# The longest folder for temporary files that leaves room for a socket's name, of 107 bytes at most
# (104 on macOS).
_LONGEST_TMPDIR_BYTES: Final = 70
_SHORT_TMPDIR: Final = "/tmp"  # noqa: S108 - only for a folder of our own in it, 0700
_FOLDER_PREFIX: Final = "cr-assist-"


class Preparation(NamedTuple):
    """How a provider's program is started."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


class Explanation(NamedTuple):
    """Why there is no session, and what to do. `is_final`: trying again would not help."""

    reason: str
    is_final: bool = False


class Provider(Protocol):
    """A program that shares a terminal. Thread: that of the session.

    `name` is the `type` of the event.
    """

    name: str

    def prepare(self, folder: Path) -> Preparation:
        """Write what the program needs into a private, empty folder. Raises RunnerError."""

    def address(self) -> str:
        """Ask for the address, as what one types to connect; empty as long as there is none.

        It has been checked to be that and nothing else. Raises RunnerError for any other.
        """

    def explain(self, output: str, *, has_ended: bool) -> Explanation:
        """Say why there is no session, from the program's output."""


class AssistPlan(NamedTuple):
    """How a session is to be opened. Units: `_s` is seconds; `patience_s` is for its delivery."""

    provider: Provider
    cwd: str
    timeout_s: float
    patience_s: float
    open_client: Callable[[], GatewayClient]


class Assist(Worker):
    """The thread that holds one session open; `report` is what it has to be told meanwhile.

    `show` gets each address, `tell` sentences for the user. It ends without an error when the
    session was ended, by its user or by `stop`, else with what was wrong: a RunnerError, or a bug.
    """

    def __init__(
        self,
        plan: AssistPlan,
        keeper: Keeper,
        pacer: Pacer,
        *,
        show: Callable[[str], None],
        tell: Callable[[str], None],
        tell_owner: Callable[[WorkerFailed | WorkerEnded], object],
    ) -> None:
        super().__init__("assist", tell_owner)
        self._plan = plan
        self._provider = plan.provider
        self._keeper = keeper
        self._pacer = pacer
        self._show = show
        self._tell_once = TellOnce(tell)
        self._client = plan.open_client()
        self._reports: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
        # How the program ended: a wait status, or None while it runs or was never started.
        self._status: int | None = None
        self._is_running = False
        self.was_open = False

    def report(self, report: Report) -> None:
        """Take what the keeper says about the program. Thread: any."""
        self._reports.put(report)

    def join(self, timeout_s: float = _JOIN_S) -> None:
        """Wait for the end, which was asked for; no address is sent after it."""
        self._thread.join(_LAST_ANSWER_S)
        if self._thread.is_alive():
            self._client.abort()
        super().join(timeout_s)

    def _wake(self) -> None:
        self._reports.put(None)

    def _close(self) -> None:
        self._client.close()

    # --- the thread ------------------------------------------------------------------------------

    def _is_final(self, error: BaseException) -> bool:
        # It stays closed if it failed in a foreseen way, or if its address could not be sent.
        return isinstance(error, (RunnerError, BrokenPipeError)) or super()._is_final(error)

    def _work(self) -> None:
        self._status = None
        try:
            # The output holds the address, so it has no name on the disk.
            with tempfile.TemporaryFile() as output, _private_folder() as folder:
                try:
                    self._hold(Path(folder), output)
                finally:
                    self._end_program()
        except BrokenPipeError:  # the reader of the address has ended
            raise
        except OSError as failure:
            raise RunnerError(
                f"the session's files cannot be written ({failure.strerror}); make room, or set "
                "TMPDIR to another folder"
            ) from failure

    def _hold(self, folder: Path, output: BinaryIO) -> None:
        preparation = self._provider.prepare(folder)
        null_fd = os.open(os.devnull, os.O_RDONLY)
        try:
            self._is_running = True
            self._keeper.spawn(
                ASSIST,
                preparation.argv,
                cwd=self._plan.cwd,
                env=preparation.env,
                fds=(null_fd, output.fileno(), output.fileno()),
                on_terminal=False,
            )
        except OSError:
            self._is_running = False
            raise RunnerError(
                "the keeper process ended unexpectedly; start the session again"
            ) from None
        finally:
            os.close(null_fd)
        address = self._await_first(output)
        while address and self._publish(address):
            address = self._await_another(address)
        self._judge_end()

    def _await_first(self, output: BinaryIO) -> str:
        """Return the first address; empty if the session was stopped before there was one."""
        deadline = time.monotonic() + self._plan.timeout_s
        while self._wait(_OPENING_INTERVAL_S):
            address = self._provider.address() if self._is_running else ""
            if address:
                return address
            found = self._provider.explain(_read(output), has_ended=not self._is_running)
            name = self._provider.name
            if not self._is_running:
                raise RunnerError(f"{name} ended at once{self._how_it_ended}: {found.reason}")
            if found.is_final:
                raise RunnerError(f"no {name} session was opened: {found.reason}")
            if time.monotonic() >= deadline:
                raise RunnerError(
                    f"no {name} session after {self._plan.timeout_s:g} s: {found.reason}"
                )
        return ""

    def _await_another(self, address: str) -> str:
        """Return the next address, which comes after a reconnection; empty at the session's end."""
        while self._wait(_WATCHING_INTERVAL_S) and self._is_running:
            another = self._provider.address()
            if another not in ("", address):
                return another
        return ""

    def _judge_end(self) -> None:
        """Raise RunnerError unless the session was open, and ended as its user or owner wanted."""
        if self._stopping.is_set() or (self.was_open and self._status == 0):
            return
        raise RunnerError(
            f"the {self._provider.name} session was broken off{self._how_it_ended}; start a new one"
        )

    @property
    def _how_it_ended(self) -> str:
        return "" if self._status is None else f" ({describe_status(self._status)})"

    def _wait(self, seconds: float) -> bool:
        """Wait, or until the program ends. Returns whether the session is still wanted."""
        deadline = time.monotonic() + seconds
        while not self._stopping.is_set():
            try:
                report = self._reports.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if report is not None and self._note(report):
                break
        return not self._stopping.is_set()

    def _note(self, report: Report) -> bool:
        """Note what the keeper says; returns whether the program has ended."""
        if report.event == "exited":
            self._status = report.number
        elif report.event == "failed":
            self._is_running = False
            if not self._stopping.is_set():
                raise RunnerError(f"{self._provider.name} cannot be started: {report.text}")
        else:
            return False
        self._is_running = False
        return True

    def _end_program(self) -> None:
        """Wait until the keeper has seen its end, which it is asked for."""
        for end in (self._keeper.terminate, self._keeper.kill):
            if not self._is_running:
                return
            end(ASSIST)
            deadline = time.monotonic() + _CLOSE_S
            while self._is_running and time.monotonic() < deadline:
                try:
                    report = self._reports.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    break
                if report is not None and report.event in ("exited", "failed"):
                    self._is_running = False

    # --- telling ---------------------------------------------------------------------------------

    def _publish(self, address: str) -> bool:
        """Send the address to the gateway, then show it. False if the session was stopped.

        Raises RunnerError if the gateway does not take it.
        """
        data = json.dumps(
            {"type": self._provider.name, "url": address}, ensure_ascii=False, separators=(",", ":")
        )
        if not self._send(encode_event("assist", data)):
            return False
        self.was_open = True
        self._show(address)
        return True

    def _send(self, body: bytes) -> bool:
        policy = Policy(
            max_failures=_MAX_FAILURES,
            patience_s=min(self._plan.patience_s, _MAX_PATIENCE_S),
            ends_on_rejection=True,
        )
        sender = Sender(self._client, self._pacer, self._is_over, policy, explain=self._explain)
        try:
            reply = sender.send(lambda: self._client.event(body))
        except GatewayError as error:  # nothing was sent: another certificate
            raise RunnerError(f"the session was closed, because {error}") from error
        if reply is None:
            return False
        if reply.outcome in (Outcome.UNKNOWN, Outcome.LIMITED):
            raise RunnerError(
                "the session's address could not be sent to the gateway, so the session was "
                "closed; start it again when the gateway answers"
            )
        if not reply.outcome.is_taken:
            raise RunnerError(
                f"the gateway did not take the session's address ({reply.outcome.value}), so the "
                "session was closed; run `test-connection` for the reason"
            )
        self._tell_once.forget("unreachable")
        return True

    def _is_over(self, seconds: float) -> bool:
        """Wait. Returns whether there is no session any more that the gateway could be told of."""
        return not (self._wait(seconds) and self._is_running)

    def _explain(self, obstacle: Obstacle) -> None:
        if isinstance(obstacle, Reply) and obstacle.outcome is Outcome.UNKNOWN:
            self._tell_once(
                "unreachable", "the gateway does not answer; sending the session's address again"
            )


@contextlib.contextmanager
def _private_folder() -> Iterator[str]:
    """Make a folder for this user alone, whose path leaves room for a socket's name.

    It is locked for as long as this process lives: `remove_stale_folders` tells by that.
    """
    is_short = len(os.fsencode(tempfile.gettempdir())) <= _LONGEST_TMPDIR_BYTES
    parent = None if is_short else _SHORT_TMPDIR
    with tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX, dir=parent) as folder:
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(fd)


def remove_stale_folders() -> int:
    """Remove what sessions have left behind whose runner was killed. Returns how many."""
    parents = {_SHORT_TMPDIR}
    with contextlib.suppress(FileNotFoundError):  # no folder can be written
        parents.add(tempfile.gettempdir())
    removed = 0
    for folder in (each for parent in parents for each in Path(parent).glob(f"{_FOLDER_PREFIX}*")):
        with contextlib.suppress(OSError):  # another user's, in use, or gone meanwhile
            removed += _remove_if_stale(folder)
    return removed


def _remove_if_stale(folder: Path) -> bool:
    """Remove a session's folder unless it is in use. Raises OSError, also when it is."""
    # Not followed where it is a link, which anybody may make there.
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # An empty one may be so new that it is not locked yet.
        if os.fstat(fd).st_uid != os.getuid() or not os.listdir(fd):
            return False
        shutil.rmtree(folder)
    finally:
        os.close(fd)
    return True


def _read(output: BinaryIO) -> str:
    """Return what the program has printed of late. It shares the file's position: hands off."""
    fd = output.fileno()
    size = os.fstat(fd).st_size
    start = max(0, size - _MAX_OUTPUT_BYTES)
    return os.pread(fd, size - start, start).decode("utf-8", "replace")


# === A session by itself ==========================================================================


class AssistAlone:
    """The `assist` subcommand: a session without a run beside it. Thread: the main thread."""

    def __init__(self, plan: AssistPlan, max_time_s: float, console: Console) -> None:
        self._plan = plan
        self._max_time_s = max_time_s
        self._console = console
        self._has_ended = False
        self._error: BaseException | None = None

    def execute(self, show: Callable[[str], None]) -> int:
        """Hold the session until its end. Returns 0, or 130 if it was ended before it was open.

        Raises RunnerError when there is no session, or it was broken off.
        """
        self._keeper = Keeper()
        try:
            with Mailbox() as self._mailbox:
                self._assist = Assist(
                    self._plan,
                    self._keeper,
                    Pacer(),
                    show=show,
                    tell=self._console.warn,
                    tell_owner=self._mailbox.post,
                )
                self._assist.start()
                self._watch()
                self._assist.join()
                self._sweep()
        finally:
            self._keeper.close()
        if self._error is not None:
            raise self._error
        if not self._assist.was_open:
            self._console.note("ended before there was a session")
        return 0 if self._assist.was_open else 130

    def _watch(self) -> None:
        """Wait for the session's end, a signal, or the time limit."""
        limit_at: float | None = time.monotonic() + self._max_time_s
        while not self._has_ended:
            self._wait(limit_at)
            if limit_at is not None and time.monotonic() >= limit_at and not self._has_ended:
                limit_at = None
                self._console.note("the time limit was reached; ending the session")
                self._assist.stop()

    def _sweep(self) -> None:
        """Let the keeper kill processes that were started inside and left its terminal."""
        self._keeper.halt_run()
        deadline = time.monotonic() + _SWEEP_S
        while not self._keeper.has_swept and time.monotonic() < deadline:
            self._wait(deadline)

    def _wait(self, deadline: float | None) -> None:
        for news in self._keeper.wait(self._mailbox, deadline):
            if isinstance(news, Report):
                self._take_report(news)
            elif isinstance(news, Signal) and news.number != signal.SIGWINCH:
                self._assist.stop()
            elif isinstance(news, WorkerFailed):
                self._error = news.error
                self._assist.stop()  # its user is here, and starts another
            elif isinstance(news, WorkerEnded):
                self._has_ended = True
                self._error = self._error or news.error

    def _take_report(self, report: Report) -> None:
        if report.event == "gone":
            self._assist.report(Report("exited", ASSIST, signal.SIGKILL))
        elif report.key == ASSIST:
            self._assist.report(report)


# === tmate as the provider ========================================================================
#
# tmate as the provider of an assist session.
#
# tmate's own word counts for little. It exits with 0 whether it ever connected or not, its `wait`
# may wait for ever or return at once without a session, and an unreachable server is tried again
# without limit or complaint. So the only proof of a session is an address that is one, asked for
# with `display`; and why there is none is read from what the foreground mode (`-F`) prints.
#
# Source: tmate 2.4.0 (Debian), its manual page and https://tmate.io

# What a person will paste into a shell, and a server has chosen: `ssh`, a port, a name, a host.
_ADDRESS: Final = re.compile(
    r"ssh(?: -p ?[0-9]{1,5})? [A-Za-z0-9][A-Za-z0-9_./-]{0,200}@[A-Za-z0-9][A-Za-z0-9.-]{0,252}"
)
# The foreground mode came with 2.4.
_VERSION: Final = re.compile(r"tmate (\d+)\.(\d+)")
_OLDEST: Final = (2, 4)
# An answer comes in some 10 ms; an end must not wait for one that hangs.
_ANSWER_TIMEOUT_S: Final = 2.0
# Would make tmate refuse to start, as if it were started inside itself.
_OUTER_SESSION: Final = ("TMUX", "TMUX_PANE", "TMATE")
# Lines of its output that explain no failure.
_NO_REASON: Final = (
    "To connect to the session locally",
    "Connecting to",
    "Reconnecting",
    "Reconnected",
    "Note:",
    "Session closed",
    "Session shell restarted",
    "setsockopt(",
    "Using",
    "ssh session",
    "web session",
)
_WRONG_FINGERPRINT: Final = ("Cannot authenticate server", "Server fingerprint not recognized")
_IN_A_FILE: Final = re.compile(r"/.*:\d+: ")
_MAX_REASON_CHARS: Final = 300
# One public key: its type, itself, and a comment.
_KEY_LINE: Final = re.compile(r"([a-z][a-z0-9@.-]+)[ \t]+([A-Za-z0-9+/]+={0,2})(?:[ \t].*)?")

_OWN_SERVER: Final = (
    "check the network, or name a server of your own with CLAUDE_RUNNER_TMATE_HOST "
    "(the public tmate.io service has been reported closed)"
)


class Tmate:
    """One session of tmate. `keys` is what `read_public_keys` returned; None lets everybody in."""

    name = "tmate"

    def __init__(self, config: Config, env: Mapping[str, str], keys: str | None) -> None:
        self._command = config.tmate_command
        self._server = {
            "tmate-server-host": config.tmate_host,
            "tmate-server-port": config.tmate_port,
            "tmate-server-rsa-fingerprint": config.tmate_rsa_fingerprint,
            "tmate-server-ed25519-fingerprint": config.tmate_ed25519_fingerprint,
        }
        self._env = _environment(env)
        self._keys = keys
        self._socket = ""

    def prepare(self, folder: Path) -> Preparation:
        """Check that it is there and is tmate; write its configuration. Raises RunnerError."""
        self._require_tmate()
        self._socket = str(folder / "s")
        conf = folder / "conf"
        conf.write_text("\n".join(self._configuration()) + "\n", "utf-8", "surrogateescape")
        argv = [*self._command, "-S", self._socket, "-f", str(conf)]
        if self._keys is not None:
            keys = folder / "keys"
            keys.write_text(self._keys, "ascii")
            argv += ["-a", str(keys)]
        return Preparation((*argv, "-F"), self._env)

    def address(self) -> str:
        """Ask for the ssh line to type; empty until there is a session."""
        answer = self._ask("-S", self._socket, "display", "-p", "#{tmate_ssh}").strip()
        if answer and not _ADDRESS.fullmatch(answer):
            raise RunnerError(
                "the tmate server's address is not an ssh command, so it was not passed on; use "
                "another server (CLAUDE_RUNNER_TMATE_HOST)"
            )
        return answer

    def explain(self, output: str, *, has_ended: bool) -> Explanation:
        """Say why there is no session, in tmate's own last words, and what to do."""
        lines = [line.strip() for line in output.splitlines()]
        reasons = [line for line in lines if line and not line.startswith(_NO_REASON)]
        reason = reasons[-1][:_MAX_REASON_CHARS] if reasons else ""
        if reason.startswith(_WRONG_FINGERPRINT):
            return Explanation(
                f"the server's fingerprint is not the one that is configured ({reason}); correct "
                "CLAUDE_RUNNER_TMATE_ED25519_FINGERPRINT and CLAUDE_RUNNER_TMATE_RSA_FINGERPRINT, "
                "or ~/.tmate.conf",
                is_final=True,
            )
        if not has_ended:
            return Explanation(f"{reason or 'the server does not answer'}; {_OWN_SERVER}")
        if _IN_A_FILE.match(reason):
            return Explanation(f"{reason}; correct that file")
        return Explanation(
            f"{reason or 'it printed nothing'}; check whether `tmate -F` works by itself"
        )

    def _require_tmate(self) -> None:
        program = self._command[0]
        if find_program(program, self._env.get("PATH")) is None:
            raise RunnerError(
                f"tmate is not installed ({program!r} was not found); install it (apt install "
                "tmate, or brew install tmate), or set CLAUDE_RUNNER_TMATE_COMMAND to its path"
            )
        answer = self._ask("-V")
        version = _VERSION.match(answer)
        if not answer:
            return  # too busy to tell; its session will
        if version is None:
            raise RunnerError(
                f"{program!r} is not tmate, as its answer to -V shows; install tmate (apt install "
                "tmate, or brew install tmate), or correct CLAUDE_RUNNER_TMATE_COMMAND"
            )
        if tuple(map(int, version.groups())) < _OLDEST:
            raise RunnerError(f"{version[0]} is too old; install tmate 2.4 or newer")

    def _ask(self, *arguments: str) -> str:
        """Return what tmate answers; nothing if it does not."""
        try:
            return subprocess.run(
                [*self._command, *arguments],
                executable=program_to_start(self._command[0], self._env.get("PATH")),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_ANSWER_TIMEOUT_S,
                env=self._env,
                check=False,
            ).stdout.decode("utf-8", "replace")
        except (OSError, subprocess.TimeoutExpired):
            return ""

    def _configuration(self) -> list[str]:
        users = Path(self._env["HOME"], ".tmate.conf")
        # With -f tmate does not read it by itself.
        lines = [f"source-file {shlex.quote(str(users))}"] if os.path.isfile(users) else []
        # Leaving the shell is leaving the session; tmate would start another shell.
        lines += ["set -g tmate-foreground-restart 0"]
        lines += [f"set -g default-shell {shlex.quote(self._env['SHELL'])}"]
        return lines + [f"set -g {name} {value}" for name, value in self._server.items() if value]


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return tmate's environment: no outer tmux or tmate variables, a valid HOME and SHELL.

    `env` is already without the runner's own secrets. A service's user may have no shell, or one
    that ends at once.
    """
    kept = {name: value for name, value in env.items() if name not in _OUTER_SESSION}
    if not kept.get("HOME"):
        try:
            kept["HOME"] = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            kept["HOME"] = "/"
    shell = kept.get("SHELL", "")
    is_shell = Path(shell).name not in ("", "false", "true", "nologin")
    if not (is_shell and shell.startswith("/") and os.access(shell, os.X_OK)):
        kept["SHELL"] = "/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh"
    return kept


def read_public_keys(path: Path, option: str) -> str:
    """Return the public keys of a file, one a line, as tmate understands them. Raises RunnerError.

    tmate drops every line that it does not understand without a word, and of a file without any key
    it makes a session that cannot be entered.
    """
    keys = []
    lines = map(str.strip, read_text(path, f"{option} {path}").splitlines())
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        match = _KEY_LINE.fullmatch(line)
        if match is None or not _is_key(match[1], match[2]):
            raise RunnerError(
                f"line {number} of {path} is not a plain public key; write its type, the key, and "
                "nothing else (tmate takes no options before them)"
            )
        keys.append(f"{match[1]} {match[2]}\n")
    if not keys:
        raise RunnerError(f"{path} contains no public keys; add at least one")
    return "".join(keys)


def _is_key(kind: str, encoded: str) -> bool:
    """Whether a key is of the type that stands before it, which it begins with: RFC 4253, 6.6."""
    try:
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return False
    name = kind.encode()
    return (
        len(raw) > 4 + len(name)
        and raw[:4] == len(name).to_bytes(4, "big")
        and (raw[4 : 4 + len(name)] == name)
    )
