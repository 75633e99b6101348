"""`wait`: offer a folder to the gateway, and start what its page sends, one run after another.

One thread, which waits in two places: for the gateway, in a long poll, and for the run that it has
started, a process of the same program that has the terminal as if the user had typed `start`. What
a signal means depends on that, see `_Signals`. A hand-out is written to disk before it is started,
and never started again; docs/decisions/0023 says what follows a crash at each point.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import select
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from config import RunnerError, build_rules, prepare_data_dir, write_private
from gateway_client import GatewayClient, Outcome, is_confidential
from gateway_transport import GatewayError
from places import PROGRAM, find_project, typed_name
from redact import printable
from runner.attempts import Pacer, Pauses, TellOnce
from runner.checks import check_health, check_secret, open_client
from runner.folder import RUN_ID, RunFolder
from runner.mailbox import WakePipe
from runner.plan import plan_job
from tools.options import handed_on

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from config import Config
    from gateway_client import Reply
    from kinds.profile import Profile
    from runner.console import Console
    from runner.plan import Job

EXTENSION: Final = "offers"
_LONG_POLL_S: Final = 20
_POLL_REPLY_S: Final = _LONG_POLL_S + 10.0
# A folder that is silent for 30 s is taken for gone.
_BUSY_EVERY_S: Final = 10.0
# While a run goes on, and at the end, do not wait for a gateway that hangs.
_SHORT_REPLY_S: Final = 3.0
# An answer that comes sooner than the poll's time without a run must not become a flood.
_EARLY_PAUSE_S: Final = 1.0
_PAUSES: Final = Pauses(first_s=0.5, last_s=10.0)
_MAX_NAME: Final = 60
# More than a gateway of ours sends; less than one argument may have.
_MAX_PROMPT_BYTES: Final = 100_000
_MAX_SHOWN: Final = 60
_SESSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}", re.ASCII)
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def wait(options: argparse.Namespace, config: Config, profile: Profile, console: Console) -> int:
    """Wait for runs until a signal ends it. Returns 128 and the signal's number."""
    config.require_secret()
    if not is_confidential(config.gateway_url):
        raise RunnerError(
            "`wait` lets the operator start runs here, and GATEWAY_URL "
            f"({config.gateway_url}) is not encrypted; use https"
        )
    job = _plan(options, config, profile, console)
    prepare_data_dir(config.data_dir)
    names = _names(options, job.cwd)
    try:
        with _Place(config.data_dir, job.cwd) as place:
            _look_for_extension(config, console)
            return _Waiting(options, config, job, console, place, names).run()
    except GatewayError as error:
        raise RunnerError(str(error)) from error


def _plan(options: argparse.Namespace, config: Config, profile: Profile, console: Console) -> Job:
    """Plan one run as a rehearsal: report errors before the folder is offered."""
    given = Namespace(**vars(options))
    given.run_id, given.cmd, given.mode, given.artifact = "planned", "look around", "print", []
    planned = config._replace(token=config.token or "planned")
    return plan_job(given, planned, profile, typed_name(profile.program), console)


def _names(options: argparse.Namespace, cwd: str) -> tuple[str, str]:
    """Return what the page is told of folder and machine. Raises RunnerError."""
    name = os.path.basename(cwd) if options.name is None else options.name.strip()
    machine = (options.machine or "").strip()
    for option, text in (("--name", name or " "), ("--machine", machine)):
        if len(text) > _MAX_NAME or not text.isprintable():
            raise RunnerError(f"{option} must be one line of at most {_MAX_NAME} characters")
    return name or "/", machine


def _look_for_extension(config: Config, console: Console) -> None:
    """Raise RunnerError unless the gateway accepts our signature and knows folders that wait."""
    with contextlib.closing(open_client(config, console)) as client:
        health = check_health(client, config).body
        extensions = health.get("extensions") if isinstance(health, dict) else None
        if not isinstance(extensions, list) or EXTENSION not in extensions:
            raise RunnerError(
                f"the gateway at {config.gateway_url} does not start runs in folders that wait; "
                "the gateway that comes with the runner does (`claude-runner gateway`)"
            )
        check_secret(client, config)


# === On disk ======================================================================================


class _Place:
    """The state of one waiting folder: its key, a lock, and each hand-out that was begun."""

    def __init__(self, data_dir: Path, cwd: str) -> None:
        self._data_dir = data_dir
        self._folder = data_dir / "wait" / hashlib.sha256(os.fsencode(cwd)).hexdigest()[:16]
        self._cwd = cwd
        self._lock_fd = -1
        self._claims: list[str] = []

    def __enter__(self) -> _Place:
        try:
            for folder in (self._folder.parent, self._folder):
                folder.mkdir(mode=0o700, exist_ok=True)
            self._lock_fd = _open_own(self._folder / "lock", os.O_RDWR)
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunnerError(
                    f"another `wait` offers {self._cwd} already; end it first"
                ) from None
            self.key = self._read_key()
            self._claims = self._read_claims()
            self._require_ended()
        except OSError as error:
            raise RunnerError(f"{self._folder} cannot be used ({error.strerror})") from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another `wait` have the folder."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    @property
    def id(self) -> str:
        """The folder's id. It derives from the key, so no other folder can claim it."""
        return f"wait_{hashlib.sha256(self.key.encode()).hexdigest()[:32]}"

    def is_claimed(self, run_id: str, handout: int) -> bool:
        """Whether this hand-out was begun before."""
        return f"{run_id} {handout}" in self._claims

    def claim(self, run_id: str, handout: int) -> None:
        """Note, on disk, that this hand-out is begun. Raises OSError."""
        line = f"{run_id} {handout}"
        fd = _open_own(self._folder / "claims", os.O_WRONLY | os.O_APPEND)
        try:
            # In front of it too: a line that a power cut has left half is none.
            os.write(fd, f"\n{line}\n".encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        self._claims.append(line)

    def last_claim(self) -> dict[str, Any] | None:
        """Return the record of the last hand-out that an earlier process began."""
        if not self._claims:
            return None
        run_id, handout = self._claims[-1].split()
        return self.outcome(run_id, int(handout), None)

    def outcome(self, run_id: str, handout: int, code: int | None) -> dict[str, Any]:
        """Return what the gateway is told of a run that has ended. Its folder says if it began."""
        began = (self._data_dir / "runs" / run_id).is_dir()
        return {"run": run_id, "handout": handout, "exitCode": code, "began": began}

    def _read_key(self) -> str:
        path = self._folder / "key"
        with contextlib.suppress(FileNotFoundError):
            key = path.read_text("ascii", "replace").strip()
            if re.fullmatch("[0-9a-f]{64}", key):
                return key
        key = secrets.token_hex(32)
        write_private(path, key)
        return key

    def _read_claims(self) -> list[str]:
        try:
            text = (self._folder / "claims").read_text("ascii", "replace")
        except FileNotFoundError:
            return []
        return [each for each in text.split("\n") if re.fullmatch(r"[\w-]{1,50} \d{1,9}", each)]

    def _require_ended(self) -> None:
        """Raise RunnerError while a run goes on whose `wait` was killed."""
        run_id = self._claims[-1].split()[0] if self._claims else ""
        if not run_id:
            return
        folder = RunFolder(self._data_dir, run_id)
        if folder.path.is_dir() and not folder.lock():
            raise RunnerError(
                f"run {run_id} of an earlier `wait` still goes on here; stop it in the gateway's "
                "page, or wait until it has ended"
            )
        folder.close()


def _open_own(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


# === What comes from the page =====================================================================


class _Order(NamedTuple):
    """A run that the page has sent. `mode` and `ask` are None where the owner has chosen.

    `resume` is a session that it goes on with, in this `folder`; both are None for a new one.
    """

    run_id: str
    handout: int
    prompt: str
    mode: str | None
    ask: bool | None
    resume: str | None
    folder: str | None


def _parse_order(sent: Any) -> _Order | None:
    """Return the run that the gateway offers; None if it says nothing that could be one."""
    fields = sent if isinstance(sent, dict) else {}
    values: list[Any] = [fields.get(each) for each in _Order._fields]
    values[0] = fields.get("id")
    is_run = isinstance(values[0], str) and RUN_ID.fullmatch(values[0])
    is_handout = type(values[1]) is int and 0 < values[1] < 10**9
    return _Order(*values) if is_run and is_handout else None


def _why_not(order: _Order, job: Job) -> str | None:
    """Return what the owner has not allowed, of what the gateway offers; None if all is well."""
    prompt: Any = order.prompt
    if not isinstance(prompt, str) or prompt.strip() in ("", "-") or "\0" in prompt:
        return "its prompt is empty or not text"
    if _SURROGATES.search(prompt):
        return "its prompt holds half a character"
    if len(prompt.encode()) > _MAX_PROMPT_BYTES:
        return "its prompt is too long"
    asks, modes = _allowed(job)
    if order.ask not in (None, False) and not (order.ask is True and asks):
        return "questions to the page are not allowed here"
    if order.mode is not None and (order.ask is False or order.mode not in modes):
        return "this mode is not allowed here"
    return _why_not_resumed(order, job)


def _why_not_resumed(order: _Order, job: Job) -> str | None:
    session: Any = order.resume
    if session is None:
        return None
    if not isinstance(session, str) or not _SESSION.fullmatch(session):
        return "its session has no id"
    return None if order.folder == job.cwd else "its session is of another folder"


def _allowed(job: Job) -> tuple[bool, tuple[str, ...]]:
    """Return whether a run may ask the page, and the modes that the page may choose."""
    asking = job.asking
    if asking is None or not asking.remote:
        return False, ()
    return True, asking.modes


# === Signals ======================================================================================


class _Ended(BaseException):
    """A signal has come while nothing but the gateway's answer was waited for."""


class _Signals:
    """Notes what ends `wait`, and wakes it. Thread: main."""

    def __init__(self) -> None:
        self.number = 0
        self._is_idle = False
        self._pipe = WakePipe()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (*_ENDING, signal.SIGCHLD):
            self._before[number] = signal.signal(number, self._note)
        self._pipe.wake_by_signals()
        return self

    def __exit__(self, *_exc: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._pipe.close()

    def _note(self, number: int, _frame: object) -> None:
        if number == signal.SIGCHLD:
            return
        self.number = self.number or number
        if self._is_idle:
            self._is_idle = False
            raise _Ended

    @contextlib.contextmanager
    def may_end(self) -> Iterator[None]:
        """Let a signal break off what is inside. Raises _Ended."""
        self._is_idle = True
        try:
            if self.number:
                raise _Ended
            yield
        finally:
            self._is_idle = False

    @contextlib.contextmanager
    def may_break_off(self) -> Iterator[None]:
        """Let one more signal break off what is inside. Raises nothing."""
        try:
            self._is_idle = True
            yield
        except _Ended:
            pass
        finally:
            self._is_idle = False

    def wait(self, seconds: float) -> list[int]:
        """Wait so long, or until signals come; return those that end."""
        select.select([self._pipe], [], [], max(0.0, seconds))
        return [number for number in self._pipe.take() if number in _ENDING]


def _has_foreground() -> bool:
    """Whether a key at the terminal signals this process, and with it the run."""
    for fd in (0, 1, 2):
        with contextlib.suppress(OSError):
            return os.tcgetpgrp(fd) == os.getpgrp()
    return False


# === Waiting ======================================================================================


class _Waiting:
    """One `wait`, from its first word to the gateway to its last. `run` is called once."""

    def __init__(
        self,
        options: argparse.Namespace,
        config: Config,
        job: Job,
        console: Console,
        place: _Place,
        names: tuple[str, str],
    ) -> None:
        self._options = options
        self._config = config
        self._job = job
        self._console = console
        self._place = place
        self._name, self._machine = names
        self._rules = build_rules(config, os.environ)
        self._session = secrets.token_hex(16)
        self._begins = True
        self._running = ""
        self._ended = place.last_claim()
        self._code: str | None = None
        self._failures = 0
        self._pacer = Pacer()
        self._tell_once = TellOnce(console.warn)
        self._signals = _Signals()
        self._client = self._open()

    def _open(self) -> GatewayClient:
        return open_client(self._config, self._console, self._place.id, self._place.key)

    def run(self) -> int:
        """Wait, and start what comes, until a signal ends it. Returns the exit code."""
        with self._signals:
            try:
                self._wait()
            except _Ended:
                pass
            finally:
                self._leave()
        return 128 + self._signals.number

    def _wait(self) -> None:
        while not self._signals.number:
            asked_at = time.monotonic()
            with self._signals.may_end():
                answer = self._ask(_LONG_POLL_S, _POLL_REPLY_S)
            if answer is None:
                self._pause()
                continue
            order = _parse_order(answer.get("run"))
            if order is not None:
                self._begin(order)
            elif time.monotonic() - asked_at < _LONG_POLL_S * 0.9:
                self._rest(_EARLY_PAUSE_S)

    def _rest(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._signals.number and (left_s := deadline - time.monotonic()) > 0:
            self._signals.wait(left_s)

    def _pause(self) -> None:
        self._failures += 1
        self._rest(max(_PAUSES.backoff_s(self._failures), self._pacer.blocked_s()))

    # --- requests to the gateway ---

    def _said(self, *, leaves: bool = False) -> dict[str, Any]:
        """Return what the gateway is told with each request."""
        asks, modes = _allowed(self._job)
        return {
            "session": self._session,
            "begins": self._begins,
            "leaves": leaves,
            "name": self._rules.redact(self._name),
            "machine": self._rules.redact(self._machine),
            "asks": asks,
            "modes": modes,
            "resumes": hasattr(self._options, "resume"),
            "running": self._running,
            "code": self._code,
            "ended": self._ended,
        }

    def _ask(self, wait_s: int, timeout_s: float) -> dict[str, Any] | None:
        """Say that this folder waits, or is at a run; return the answer, None for none."""
        reply = self._send("/api/offers", self._said(), timeout_s, wait_s)
        if reply is None or reply.outcome is not Outcome.ACCEPTED:
            return None
        answer: dict[str, Any] = reply.body
        self._ended = None
        if answer.get("replaced") is True:
            raise RunnerError("another `wait` has taken the place of this one at the gateway")
        self._tell_code(answer.get("code"))
        self._begins = False
        return answer

    def _send(
        self, path: str, content: dict[str, Any], timeout_s: float, wait_s: int = 0
    ) -> Reply | None:
        """Send one request; report a failure once, and the recovery once."""
        query = f"wait={wait_s}" if wait_s else ""
        try:
            reply = self._client.send(self._client.post(path, content, query), timeout_s)
        except GatewayError as error:  # nothing was sent: another certificate
            self._tell_once("away", f"nothing is asked of the gateway: {error}")
            return None
        self._pacer.note(reply)
        if reply.outcome is Outcome.ACCEPTED:
            self._failures = 0
            if self._tell_once.forget_all():
                self._console.note("the gateway answers again")
        elif reply.outcome.is_rejection or reply.outcome is Outcome.REFUSED:
            self._tell_once("away", f"the gateway refuses this folder ({reply.message})")
        elif self._failures:  # one answer that was lost is not worth a word
            self._tell_once("away", f"the gateway does not answer ({reply.message}); asking again")
        return reply

    def _tell_code(self, code: Any) -> None:
        """Tell the code, or that none is needed (any more)."""
        is_code = isinstance(code, str) and re.fullmatch("[A-Z0-9]{4,12}", code)
        shown = code if is_code else None
        if self._begins:
            where = f"{self._name} on {self._machine}" if self._machine else self._name
            self._console.note(
                f"{where} waits for runs from {self._config.gateway_url}; Ctrl-C ends it"
            )
        if shown is not None and shown != self._code:
            half = len(shown) // 2
            self._console.show(
                f"{self._job.profile.program}: let it in once: press New Run in the gateway's "
                f"page, and enter the code {shown[:half]}-{shown[half:]}"
            )
        elif shown is None and self._code is not None:
            self._console.note("the operator has let this folder in")
        self._code = shown

    def _leave(self) -> None:
        """Tell the gateway that nothing is waited for any more, if it answers soon."""
        if self._begins:
            self._client.close()
            return
        with self._signals.may_break_off():
            self._client.close()  # a signal may have broken an exchange off
            with contextlib.suppress(GatewayError), contextlib.closing(self._open()) as client:
                client.send(client.post("/api/offers", self._said(leaves=True)), _SHORT_REPLY_S)

    # --- a run ---

    def _begin(self, order: _Order) -> None:
        """Take a run, start it, and wait for its end."""
        refusal = _why_not(order, self._job)
        if refusal is None and self._place.is_claimed(order.run_id, order.handout):
            refusal = "it was taken here before"
        if refusal is not None:
            self._console.warn(f"{order.run_id} from the page is not started: {refusal}")
            self._ended = {"run": order.run_id, "handout": order.handout, "refused": refusal}
            return
        token = secrets.token_hex(32)
        if not self._take(order, token):
            return
        try:
            self._place.claim(order.run_id, order.handout)
        except OSError as error:
            self._console.error(f"{order.run_id} is not started: it cannot be noted ({error})")
            self._ended = self._place.outcome(order.run_id, order.handout, None)
            return
        code = None if self._signals.number else self._run(order, token)
        self._ended = self._place.outcome(order.run_id, order.handout, code)

    def _take(self, order: _Order, token: str) -> bool:
        """Ask for a run until the gateway says whether we have it. Asking twice does no harm."""
        content = {
            "session": self._session,
            "run": order.run_id,
            "handout": order.handout,
            "token": token,
        }
        while not self._signals.number:
            reply = self._send("/api/offers/take", content, _POLL_REPLY_S)
            if reply is not None and reply.outcome is Outcome.ACCEPTED:
                if reply.body.get("taken") is True:
                    return True
                reason = printable(self._rules.redact(str(reply.body.get("reason"))), 100)
                self._console.note(f"{order.run_id} is not started: {reason}")
                return False
            if reply is not None and reply.outcome is Outcome.REFUSED:
                return False
            self._pause()
        return False

    def _run(self, order: _Order, token: str) -> int | None:
        """Start a run and wait for its end. Returns its exit code; None if it was not started."""
        said = " ".join(order.prompt.split())
        shown = printable(self._rules.redact(said), _MAX_SHOWN)
        self._console.note(f"{order.run_id} from the page: {shown}")
        try:
            process = subprocess.Popen(
                self._command(order), env={**os.environ, "CLAUDE_RUNNER_TOKEN": token}
            )
        except OSError as error:
            self._console.error(f"it cannot be started: {error.strerror}")
            return None
        if self._signals.number:  # a key at the terminal may have come too early for the run
            process.terminate()
        self._running = order.run_id
        try:
            code = self._wait_for(process)
        finally:
            self._running = ""
        after = "" if self._signals.number else "; waiting for the next one"
        self._console.note(f"{order.run_id} has ended with exit code {code}{after}")
        return code

    def _wait_for(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the end of a run, and say meanwhile that this folder is at it."""
        say_at = time.monotonic()
        while process.poll() is None:
            if time.monotonic() >= say_at and not self._signals.number:
                with contextlib.suppress(RunnerError):  # replaced: told when the run has ended
                    self._ask(0, _SHORT_REPLY_S)
                say_at = time.monotonic() + _BUSY_EVERY_S
            for number in self._signals.wait(say_at - time.monotonic()):
                # A key at the terminal is for the run as well, and twice it would kill it.
                if number != signal.SIGINT or not _has_foreground():
                    process.send_signal(number)
                self._console.note("waiting ends with this run")
            if self._signals.number:
                say_at = time.monotonic() + _BUSY_EVERY_S
        code: int = process.returncode
        return code if code >= 0 else 128 - code

    def _command(self, order: _Order) -> list[str]:
        """Return the command line of a run: what the user would type, but for its token."""
        options = self._options
        argv = [*_this_program(self._job.profile.program), "start", f"--run-id={order.run_id}"]
        argv += ["--mode=print", f"--cwd={self._job.cwd}", f"--cmd={order.prompt}"]
        argv += [f"--data-dir={self._config.data_dir}"]
        if options.env_file is not None:
            argv.append(f"--env-file={self._config.sources['.env']}")
        argv += ["-q"] if "quiet" in options else ["-v"] * getattr(options, "verbose", 0)
        chosen = (_ASKING if order.ask is False else ()) + (_SESSIONS if order.resume else ())
        argv += handed_on(options, self._job.profile, but=chosen)
        argv += [f"--resume={order.resume}"] if order.resume else []
        argv += [] if options.max_time is None else [f"--max-time={options.max_time}"]
        argv += ["--ask=never"] if order.ask is False else []
        arguments = tuple(options.arguments)
        if order.mode is not None:
            arguments = self._job.profile.in_mode(arguments, order.mode)
            argv.append(f"--remote-max-mode={_allowed(self._job)[1][-1]}")
        return [*argv, *(("--", *arguments) if arguments else ())]


# The options that go with questions.
_ASKING: Final = ("--ask", "--ask-timeout", "--remote-max-mode")
_SESSIONS: Final = ("--resume", "--continue")


def _this_program(name: str) -> list[str]:
    """Return what starts the program that is running here once more."""
    module = name.replace("-", "_")
    argv = [sys.executable, *(["-I"] if sys.flags.isolated else [])]
    if find_project() is None:  # what pip installed starts by way of its package
        return [*argv, str(PROGRAM.parent / "__init__.py"), module]
    return [*argv, str(PROGRAM / f"{module}.py")]
