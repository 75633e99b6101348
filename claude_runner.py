"""Start Claude Code on this machine and connect the session to a gateway.

The command line is here: what the user asked for is read, checked and handed to `Run`. Every
worker has a module of its own.

    thread     owns                                     waits in             if it crashes
    main       the keeper's channel, the terminal's     select on signals,   -
               state, the exit code                     keeper and workers
    pty-pump   PTY masters, keyboard, redactors, log    select               ends the run, cleanly
    poster     its client, the delivery cursor          the journal, HTTP    output is kept
    poller     its client                               HTTP (long poll)     no remote control
    executor   one command of the operator              a queue, select      that command failed
    syncer     the journal's way to the disk            an event             a power cut loses more

The keeper (`keeper.py`) is a process of its own, forked while this one has a single thread.

Shutdown, producers before consumers: take no more commands and refuse the queued ones; let the
keeper end the child and everything below it; read what the terminals still hold; flush the
redactors; record the end in the journal; give the terminal back; deliver; send `finished`; upload.
What cannot be delivered stays in the journal, and the user is told.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import re
import shlex
import shutil
import stat
import sys
import time
import traceback
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Final, NoReturn, Protocol

from allowlist import Allowlist
from gateway_client import (
    MAX_ARTIFACT_BYTES,
    Credentials,
    GatewayClient,
    Outcome,
    Reply,
    is_confidential,
)
from gateway_transport import GatewayError, PinStore
from local_terminal import Console
from redact import PatternError, Rules, TokenShape, collect_known_values, parse_token_shapes
from run_folder import RunFolder, find_undelivered, prune_delivered
from runner_config import (
    SETTINGS,
    Config,
    RunnerError,
    absolute_path,
    load_config,
    prepare_data_dir,
    write_private,
)
from runner_session import Job, Run
from spool import SpoolError, encode_event
from sync_runs import SyncRun, count_leftovers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERSION: Final = "0.1.0"
ROOT: Final = Path(__file__).resolve().parent

RUN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,50}")
ARTIFACT_TYPES: Final = (".log", ".txt", ".json", ".diff", ".patch", ".md")
# Linux: MAX_ARG_STRLEN, the longest single argument.
MAX_ARGUMENT_BYTES: Final = 131_071
# How long to try a gateway that does not answer before the child is started.
CHECK_PATIENCE_S: Final = 10.0


# === What a run starts ============================================================================


@dataclass(frozen=True)
class Invocation:
    """How the child is started: its argv, and its stdin where the prompt is too long for that."""

    argv: tuple[str, ...]
    stdin_text: bytes | None = None
    session_id: str | None = None
    # Whether it prints Claude Code's JSON stream, which is shown as text.
    is_stream: bool = False


class Profile(Protocol):
    """What differs between two runner types; `rev_runner.py` shows that it is all that differs."""

    name: str
    program: str
    log_name: str

    def command(self, config: Config) -> tuple[str, ...]:
        """Return the program to run, with its first arguments."""

    def extra_allowed_commands(self, config: Config) -> tuple[str, ...]:
        """Return what the operator may run besides the documented commands."""

    def invocation(
        self,
        config: Config,
        prompt: str | None,
        mode: str,
        arguments: Sequence[str],
        output: str = "auto",
    ) -> Invocation:
        """Return how to start it with this prompt."""


class ClaudeProfile:
    """Claude Code, or any other program that takes a prompt as its last argument."""

    name = "claude"
    program = "claude-runner"
    log_name = "claude.log"

    def command(self, config: Config) -> tuple[str, ...]:
        """Return the program to run, with its first arguments."""
        return config.claude_command

    def extra_allowed_commands(self, config: Config) -> tuple[str, ...]:
        """Return what the operator may run besides the documented commands."""
        return config.extra_allowed_commands

    def invocation(
        self,
        config: Config,
        prompt: str | None,
        mode: str,
        arguments: Sequence[str],
        output: str = "auto",
    ) -> Invocation:
        """Return how to start it with this prompt.

        Source: how Claude Code reads its arguments. `--` goes before a prompt that begins with a
        dash; a single word that is the name of a subcommand is a prompt only with a blank after it.
        """
        command = self.command(config)
        is_claude = config.flavor == "claude" or (
            config.flavor == "auto" and is_claude_code(command)
        )
        if not is_claude:
            return Invocation((*command, *arguments, *(() if prompt is None else (prompt,))))
        added: list[str] = []
        session_id = None
        if mode == "print" and not _names_any(arguments, ("-p", "--print")):
            added.append("-p")
        if mode == "print" and not _names_any(arguments, _SESSION_ARGUMENTS):
            session_id = str(uuid.uuid4())
            added += ["--session-id", session_id]
        is_stream = (
            mode == "print" and output == "auto" and not _names_any(arguments, _FORMAT_ARGUMENTS)
        )
        if is_stream:
            added += ["--output-format", "stream-json"]
            added += [] if _names_any(arguments, ("--verbose",)) else ["--verbose"]
        argv = (*command, *added, *arguments)
        if prompt is None:
            return Invocation(argv, None, session_id, is_stream)
        if mode == "print" and len(os.fsencode(prompt)) > MAX_ARGUMENT_BYTES:
            return Invocation(argv, os.fsencode(prompt), session_id, is_stream)
        if mode == "interactive" and len(prompt.split()) == 1 and not prompt.endswith(" "):
            prompt += " "
        return Invocation((*argv, "--", prompt), None, session_id, is_stream)


# Arguments of Claude Code that choose the session themselves.
_SESSION_ARGUMENTS: Final = ("--session-id", "--resume", "-r", "--continue", "-c", "--from-pr")
# Arguments that choose what it prints, or that go with one format only.
_FORMAT_ARGUMENTS: Final = ("--output-format", "--input-format", "--json-schema")
_CLAUDE_NAMES: Final = frozenset({"claude", "claude-code"})
_CLAUDE_PACKAGE: Final = "@anthropic-ai/claude-code"
_LAUNCHERS: Final = frozenset({"npx", "node", "bunx", "env"})


def is_claude_code(command: Sequence[str]) -> bool:
    """Whether a command starts Claude Code, itself or through npx, node, bunx or env."""
    program = command[0]
    if Path(program).name in _LAUNCHERS:
        started = (item for item in command[1:] if not item.startswith("-") and "=" not in item)
        program = next(started, "")
    if program == _CLAUDE_PACKAGE or program.startswith(f"{_CLAUDE_PACKAGE}@"):
        return True
    return Path(program).name in _CLAUDE_NAMES or program.endswith(f"{_CLAUDE_PACKAGE}/cli.js")


def _names_any(arguments: Sequence[str], options: Sequence[str]) -> bool:
    return any(item.split("=", 1)[0] in options for item in arguments)


def plan_job(
    options: argparse.Namespace, config: Config, profile: Profile, console: Console
) -> Job:
    """Check what the user asked for. Raises RunnerError or ConfigError, each with a way out."""
    run_id = require_run(options.run_id, config)
    cwd = _existing_folder(options.cwd)
    prompt = _read_prompt(options.cmd)
    is_limited = options.max_time is not None
    mode = _choose_mode(options.mode or "auto", prompt, config, is_limited=is_limited)
    output = options.output or "auto"
    invocation = profile.invocation(config, prompt, mode, options.arguments, output)
    for item in invocation.argv:
        if len(os.fsencode(item)) > MAX_ARGUMENT_BYTES:
            raise RunnerError(
                f"the prompt is longer than the {MAX_ARGUMENT_BYTES} bytes that one argument may "
                "have; put it into a file and let the prompt name the file"
            )
    env = config.child_environment(os.environ)
    env.setdefault("TERM", "xterm-256color")
    _require_program(invocation.argv[0], cwd, env, config)
    shown = [*profile.command(config), *options.arguments, *([] if prompt is None else [prompt])]
    return Job(
        run_id=run_id,
        runner=profile.name,
        version=VERSION,
        mode=mode,
        argv=invocation.argv,
        stdin_text=invocation.stdin_text,
        session_id=invocation.session_id,
        is_stream=invocation.is_stream,
        resume_command=(
            shlex.join([*profile.command(config), "--resume", invocation.session_id])
            if invocation.session_id
            else None
        ),
        shown_command=shlex.join(shown),
        cwd=cwd,
        env=env,
        max_time_s=parse_duration(options.max_time),
        log_name=profile.log_name,
        artifacts=_check_artifacts(options.artifact, console),
        gateway_url=config.gateway_url,
        token=config.token,
        poll_interval_s=config.poll_interval_s,
        command_timeout_s=config.command_timeout_s,
        drain_timeout_s=config.drain_timeout_s,
        allow_remote_input=config.allow_remote_input and is_confidential(config.gateway_url),
    )


def require_run(run_id: str | None, config: Config) -> str:
    """Return the run id, checked before it meets the file system; the token must be there too."""
    if not run_id or not RUN_ID.fullmatch(run_id):
        raise RunnerError(
            "--run-id must be the id of a run: 1 to 50 letters, digits, dashes and underscores"
            if run_id
            else "--run-id is missing; create a run in the gateway's page and copy its id"
        )
    if not config.token and "CLAUDE_RUNNER_TOKEN" in config.placeholders:
        raise RunnerError(config.missing_sentence("CLAUDE_RUNNER_TOKEN", "the run's token"))
    if not config.token:
        raise RunnerError(
            "the run's token is missing; give it with --token, --token-file or CLAUDE_RUNNER_TOKEN"
        )
    return run_id


def _existing_folder(text: str | None) -> str:
    path = absolute_path(text or ".", "--cwd")
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(path, os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except FileNotFoundError:
        raise RunnerError(f"there is no folder {path}; correct --cwd") from None
    except OSError as error:
        raise RunnerError(
            f"{path} cannot be the working directory ({error.strerror}); correct --cwd"
        ) from error
    return str(path.resolve())


def _read_prompt(text: str | None) -> str | None:
    prompt = _read_stdin() if text == "-" else text
    if prompt is not None and not prompt.strip():
        raise RunnerError("the prompt is empty; write it after --cmd, or leave --cmd out")
    if prompt is not None and "\0" in prompt:
        raise RunnerError("the prompt contains a NUL character, which no argument can")
    return prompt


def _read_stdin() -> str:
    try:
        # Not sys.stdin, which is None where the caller has closed it.
        with open(0, "rb", closefd=False) as stdin:
            return os.fsdecode(stdin.read())
    except OSError as error:
        raise RunnerError(
            f"the prompt cannot be read from stdin ({error.strerror}); write it after --cmd"
        ) from error


def parse_duration(text: str | None) -> float | None:
    """Read a time such as 90s, 45m, 2h or 1h30m. Raises RunnerError."""
    if text is None:
        return None
    match = re.fullmatch(r"(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,7})s)?", text.strip())
    seconds = 0
    if match is not None:
        hours, minutes, rest = (int(number or 0) for number in match.groups())
        seconds = hours * 3_600 + minutes * 60 + rest
    if seconds <= 0:
        raise RunnerError(f"--max-time is {text!r}; write a time such as 90s, 45m, 2h or 1h30m")
    return float(seconds)


def _choose_mode(asked: str, prompt: str | None, config: Config, *, is_limited: bool) -> str:
    """With a prompt a run is a job that ends by itself; without one it is a session."""
    at_terminal = os.isatty(0) and os.isatty(1)
    if asked == "auto":
        if prompt is None and not at_terminal:
            raise RunnerError(
                "there is neither a prompt nor a terminal; give a prompt with --cmd, "
                "or start it in a terminal"
            )
        return "interactive" if prompt is None else "print"
    if asked == "print" and prompt is None:
        raise RunnerError("--mode print needs a prompt; give it with --cmd")
    may_end = at_terminal or is_limited or config.allow_remote_input
    if asked == "interactive" and not may_end:
        raise RunnerError(
            "--mode interactive without a terminal would wait for ever; start it in a terminal, "
            "limit it with --max-time, or let the operator type with "
            "CLAUDE_RUNNER_ALLOW_REMOTE_INPUT=true"
        )
    return asked


def _require_program(program: str, cwd: str, env: Mapping[str, str], config: Config) -> None:
    if "/" in program:
        path = Path(cwd, program)
        if not os.path.isfile(path):  # False where it may not be looked for, unlike Path's
            raise RunnerError(f"there is no program {path}; correct CLAUDE_COMMAND")
        if not os.access(path, os.X_OK):
            raise RunnerError(f"{path} is not executable; chmod +x it, or correct CLAUDE_COMMAND")
    elif shutil.which(program, path=env.get("PATH")) is None:
        raise RunnerError(
            f"{program!r} (CLAUDE_COMMAND, {config.sources['CLAUDE_COMMAND']}) was not found in "
            f"PATH{_found_elsewhere(program, env)}; install it, or set CLAUDE_COMMAND to its path "
            "(shell aliases do not count)"
        )


def _found_elsewhere(program: str, env: Mapping[str, str]) -> str:
    """Return where else a program was looked for, and whether it is there."""
    home = Path(env.get("HOME") or "~").expanduser()
    npm = [Path(folder, program) for folder in _npm_folders(home, env)]
    places = [home / ".claude" / "local" / program, home / ".local" / "bin" / program, *npm]
    found = next((place for place in places if os.access(place, os.X_OK)), None)
    if found is not None:
        return f", but it is there as {found}"
    return ", ~/.claude/local, ~/.local/bin and npm's global folders"


def _npm_folders(home: Path, env: Mapping[str, str]) -> list[Path]:
    """Return where npm puts global programs, by its usual settings; npm itself is not asked."""
    prefixes = [env.get("npm_config_prefix"), env.get("NPM_CONFIG_PREFIX")]
    folders = [Path(prefix, "bin") for prefix in prefixes if prefix]
    return [*folders, home / ".npm-global" / "bin", Path("/usr/local/bin"), Path("/usr/bin")]


def _check_artifacts(paths: Sequence[str], console: Console) -> tuple[Path, ...]:
    checked = []
    for text in paths:
        path = absolute_path(text, "--artifact")
        if path.suffix.lower() not in ARTIFACT_TYPES:
            raise RunnerError(
                f"--artifact {text} cannot be uploaded; the types are {', '.join(ARTIFACT_TYPES)}"
            )
        _check_artifact(text, path, console)
        checked.append(path)
    return tuple(checked)


def _check_artifact(text: str, path: Path, console: Console) -> None:
    try:
        status = path.stat()
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except FileNotFoundError:
        console.note(f"--artifact {text} is not there yet; it is looked for again at the end")
        return
    except OSError as error:
        raise RunnerError(f"--artifact {text} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise RunnerError(f"--artifact {text} is not a file")
    if status.st_size > MAX_ARTIFACT_BYTES:
        console.note(f"--artifact {text} is larger than 50 MiB and will be uploaded in parts")


# === The gateway, before anything is started ======================================================


def open_client(
    config: Config, console: Console, run_id: str = "", token: str = "", gateway_url: str = ""
) -> GatewayClient:
    """Return a client for the configured gateway, or another one. One for each thread."""
    pins = PinStore(config.data_dir / "pins.json", console.warn)
    return GatewayClient(
        gateway_url or config.gateway_url,
        Credentials(config.hmac_secret, run_id, token),
        pins=pins if config.allow_self_signed else None,
        allow_http=config.allow_http,
        watch=console.trace if console.verbosity >= 2 else None,
    )


def check_run(client: GatewayClient, run_id: str, config: Config, console: Console) -> None:
    """Ask the gateway whether it knows the run. Raises RunnerError with what to do.

    A rate limit is waited out; a gateway that does not answer is tried for `CHECK_PATIENCE_S`.
    """
    deadline = time.monotonic() + CHECK_PATIENCE_S
    while True:
        reply = client.send(client.commands())
        if reply.outcome is Outcome.ACCEPTED and isinstance(reply.body, list):
            return
        if reply.outcome is Outcome.LIMITED:
            wait_s = min(max(reply.retry_after_s or 1.0, 1.0), 60.0)
            console.note(f"the gateway asks for {wait_s:.0f} s of patience (too many requests)")
            time.sleep(wait_s)
        elif reply.outcome in (Outcome.UNKNOWN, Outcome.FAILED) and time.monotonic() < deadline:
            console.detail(f"the gateway does not answer yet: {reply.message}")
            time.sleep(0.5)
        else:
            raise RunnerError(explain(reply, config, run_id))


def explain(reply: Reply, config: Config, run_id: str = "") -> str:
    """Turn a gateway's refusal into a sentence that says what to do."""
    if reply.outcome is Outcome.WRONG_SECRET:
        return (
            "the gateway does not accept the signature; HMAC_SECRET "
            f"({config.sources['HMAC_SECRET']}) must be the gateway's own"
        )
    if reply.outcome is Outcome.WRONG_TOKEN:
        return (
            f"the gateway does not know run {run_id} with this token; copy both from the "
            "gateway's page, or create a new run"
        )
    if reply.outcome is Outcome.SKEWED:
        ahead_s = reply.clock_ahead_s or 0.0
        size = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the gateway's"
        return f"this machine's clock is {size}, and 300 s are accepted; set the clock"
    if reply.outcome is Outcome.UNKNOWN and reply.status:
        return (
            f"what answers at {config.gateway_url} is not the gateway, or is ill: {reply.message}; "
            f"check GATEWAY_URL ({config.sources['GATEWAY_URL']}), and what stands in between"
        )
    if reply.outcome is Outcome.UNKNOWN:
        return (
            f"the gateway at {config.gateway_url} cannot be reached: {reply.message}; check "
            f"GATEWAY_URL ({config.sources['GATEWAY_URL']}) and that the gateway runs"
            + ("" if "certificate" not in reply.message else ", or set ALLOW_SELF_SIGNED=true")
        )
    return f"the gateway at {config.gateway_url} refuses: {reply.message}"


# === The commands =================================================================================


def command_start(
    options: argparse.Namespace, config: Config, profile: Profile, console: Console
) -> int:
    """Run the child, connected to the gateway. Returns its exit code."""
    config.require_secret()
    job = plan_job(options, config, profile, console)
    allowlist = Allowlist(profile.extra_allowed_commands(config))
    rules = build_rules(config)
    too_short = collect_known_values(os.environ, config.dotenv).too_short
    if too_short:
        console.detail(f"too short to be known as secrets: {', '.join(too_short)}")
    prepare_data_dir(config.data_dir)
    prune_delivered(config.data_dir, config.retention_days)
    leftovers = count_leftovers(config.data_dir)
    if leftovers:
        console.note(
            f"{leftovers} earlier {'run is' if leftovers == 1 else 'runs are'} not delivered "
            f"whole; `{profile.program} sync` sends what is left"
        )

    def client() -> GatewayClient:
        return open_client(config, console, job.run_id, config.token)

    checking_client = client()
    try:
        check_run(checking_client, job.run_id, config, console)
    finally:
        checking_client.close()
    folder = RunFolder(config.data_dir, job.run_id)
    folder.create()
    console.detail(f"{config.gateway_url} knows the run; its log is kept in {folder.path}")
    run = Run(job, folder, rules, allowlist, console, client)
    try:
        return run.execute()
    except BaseException:
        if not run.was_started:
            folder.remove()  # nothing ran and nothing was sent: the run may be tried again
        raise
    finally:
        folder.close()


def command_sync(
    options: argparse.Namespace, config: Config, profile: Profile, console: Console
) -> int:
    """Deliver what earlier runs could not. Returns 1 if something is still left."""
    if options.discard is not None:
        return _discard(options.discard, config)
    config.require_secret()
    folders = list(find_undelivered(config.data_dir))
    if options.run_id is not None:
        folders = [folder for folder in folders if folder.run_id == options.run_id]
    elif options.token is not None or options.token_file is not None:
        raise RunnerError("a token is one run's; give --run-id with it")
    if not folders:
        _print("nothing is left to deliver")
    left = sum(not _sync_one(folder, options, config, console) for folder in folders)
    if left:
        console.note(f"`{profile.program} sync --discard ID` gives up on a run and deletes it")
    return 1 if left else 0


def _sync_one(
    folder: RunFolder, options: argparse.Namespace, config: Config, console: Console
) -> bool:
    """Deliver one run's leftovers; False when they are still there."""
    try:
        if not folder.lock():
            _print(f"{folder.run_id}: it is still running")
            return True
        done = SyncRun(
            folder,
            config.token if options.run_id is not None else "",
            build_rules(config),
            console,
            open_client=lambda url, run_id, token: open_client(config, console, run_id, token, url),
            check=lambda client, run_id: check_run(client, run_id, config, console),
            drain_timeout_s=config.drain_timeout_s,
        ).deliver()
    except (RunnerError, GatewayError, SpoolError) as error:
        console.error(f"{folder.run_id}: not delivered: {error}")
        return False
    finally:
        folder.close()
    _print(f"{folder.run_id}: {done}")
    return True


def _discard(run_id: str, config: Config) -> int:
    if not RUN_ID.fullmatch(run_id):
        raise RunnerError("--discard takes the id of a run")
    folder = RunFolder(config.data_dir, run_id)
    if not folder.path.is_dir():
        raise RunnerError(f"there is no run {run_id} in {config.data_dir}")
    if not folder.lock():
        raise RunnerError(f"run {run_id} is still running; stop it first")
    folder.remove()
    folder.close()
    if folder.path.exists():
        raise RunnerError(f"{folder.path} cannot be deleted whole; delete it by hand")
    _print(f"{run_id}: deleted, with everything that was not delivered")
    return 0


def build_rules(config: Config) -> Rules:
    """Return what is secret here: shapes, and the values that this machine knows as secrets."""
    known = collect_known_values(os.environ, config.dotenv)
    own = [value.encode("utf-8") for value in (config.hmac_secret, config.token) if value]
    return Rules([*known.values, *own], _read_token_shapes(config.redact_patterns))


def _read_token_shapes(path: Path | None) -> tuple[TokenShape, ...]:
    if path is None:
        return ()
    try:
        return parse_token_shapes(path.read_text("utf-8"))
    except PatternError as error:
        raise RunnerError(f"{path}, line {error.line_number}: {error.message}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise RunnerError(f"{path} cannot be read: {reason}") from error


def command_test_connection(
    options: argparse.Namespace, config: Config, _profile: Profile, console: Console
) -> int:
    """Try the gateway step by step: reachable, secret, and the run if one is given."""
    config.require_secret()
    prepare_data_dir(config.data_dir)
    run_id = require_run(options.run_id, config) if options.run_id or options.token else ""
    client = open_client(config, console)
    reply = client.is_healthy()
    if reply.outcome is not Outcome.ACCEPTED:
        raise RunnerError(explain(reply, config))
    _print(f"ok: {config.gateway_url} answers")
    # A signed event without a run is refused for the missing run only if the signature is right.
    reply = client.send(client.event(encode_event("info", "", 0)))
    if not (reply.outcome is Outcome.REFUSED and reply.status == 400):
        raise RunnerError(explain(reply, config))
    client.close()
    _print("ok: HMAC_SECRET is the gateway's")
    if run_id:
        run_client = open_client(config, console, run_id, config.token)
        check_run(run_client, run_id, config, console)
        run_client.close()
        _print(f"ok: run {run_id} is there, and the token is right")
    return 0


def command_info(
    options: argparse.Namespace, config: Config, profile: Profile, _console: Console
) -> int:
    """Show the configuration and where each value comes from, without a secret."""
    known = collect_known_values(os.environ, config.dotenv)
    rows = [
        {
            "variable": setting.variable,
            "value": _shown_value(getattr(config, setting.name), secret=setting.secret),
            "source": config.sources[setting.variable],
            "meaning": setting.meaning,
        }
        for setting in SETTINGS
    ]
    allowed = Allowlist(profile.extra_allowed_commands(config)).commands
    facts = {
        "version": VERSION,
        "python": f"{sys.version.split()[0]} ({sys.executable})",
        "files": str(ROOT),
        "envFile": config.sources[".env"],
        "knownSecrets": len(known.values),
        "tooShortToProtect": list(known.too_short),
        "allowedCommands": list(allowed),
    }
    if options.json:
        _print(json.dumps({**facts, "settings": rows}, indent=2))
        return 0
    lines = [f"claude-runner {VERSION}, Python {facts['python']}, files in {ROOT}", ""]
    lines += [
        f"{_label(row['variable'])}: {row['value']}  ({row['variable']}, {row['source']})"
        for row in rows
    ]
    lines += ["", f"known secret values: {len(known.values)} (removed wherever they appear)"]
    if known.too_short:
        lines.append(f"too short to protect: {', '.join(known.too_short)}")
    lines += ["", "the operator may run:", *(f"  {name}" for name in allowed)]
    _print("\n".join(lines))
    return 0


def _label(variable: str) -> str:
    """Return a variable's name as a person writes it: `HMAC_SECRET` is the `HMAC secret`."""
    words = variable.replace("CLAUDE_RUNNER_", "").split("_")
    spoken = [word if word in _ACRONYMS else word.lower() for word in words]
    return " ".join([spoken[0][0].upper() + spoken[0][1:], *spoken[1:]])


def _print(text: str) -> None:
    """Print what was asked for, at once. Raises BrokenPipeError and RunnerError."""
    try:
        print(text, flush=True)  # noqa: T201
    except OSError as error:
        # Or Python would try once more when it exits, and complain in words of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):
            raise
        raise RunnerError(f"stdout cannot be written: {error.strerror}") from error


_ACRONYMS: Final = frozenset({"HMAC", "URL", "HTTP"})


def _shown_value(value: Any, *, secret: bool) -> str:
    if secret:
        return "(set)" if value else "(not set)"
    if value in ((), None):
        return "(none)"
    if isinstance(value, tuple):
        return shlex.join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


# === The command line =============================================================================

_EXAMPLES: Final = """examples:
  ./wrapper/claude-runner start --run-id ID --token TOKEN --cmd "fix the failing test"
  ./wrapper/claude-runner start --run-id ID --token TOKEN            # a session at the keyboard
  ./wrapper/claude-runner start --run-id ID --token TOKEN --cmd - < prompt.txt
  ./wrapper/claude-runner start --run-id ID --token TOKEN --cmd "..." -- --model opus
  ./wrapper/claude-runner test-connection
  ./wrapper/claude-runner sync                                       # after an outage or a crash
  ./wrapper/claude-runner info
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence and exit code 1."""

    def error(self, message: str) -> NoReturn:
        raise RunnerError(f"{message}; see {self.prog} --help")

    def _print_message(self, message: str, file: Any = None) -> None:
        del file  # help and version go to stdout, and errors do not come here
        _print(message.rstrip("\n"))


Command = Callable[[argparse.Namespace, Config, Profile, Console], int]


def build_parser(program: str) -> tuple[argparse.ArgumentParser, frozenset[str]]:
    """Return the parser, and the options that take a value."""
    with_value: set[str] = set()
    common = _Parser(add_help=False)
    common.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=argparse.SUPPRESS,
        help="tell more; -vv tells most",
    )
    common.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=argparse.SUPPRESS,
        help="tell only warnings and errors",
    )
    parser = _Parser(
        prog=program,
        parents=[common],
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run Claude Code on this machine, connected to a gateway.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"{program} {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add_command(name: str, run: Command, summary: str) -> Callable[..., None]:
        sub = commands.add_parser(
            name,
            parents=[common],
            allow_abbrev=False,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=_EXAMPLES,
        )
        sub.set_defaults(run=run)

        def add_option(*names: str, **kwargs: Any) -> None:
            if "metavar" in kwargs:
                with_value.update(names)
                kwargs["type"] = _unmarked
            sub.add_argument(*names, **kwargs)

        add_option("--env-file", metavar="FILE", help="read this file instead of .env")
        add_option("--data-dir", metavar="DIR", help="folder for logs and journals")
        return add_option

    add_option = add_command("start", command_start, "run Claude Code")
    _add_run_options(add_option)
    add_option("--cmd", metavar="PROMPT", help="the prompt; - reads it from stdin")
    add_option("--cwd", metavar="DIR", help="the working directory (default: the current one)")
    add_option(
        "--mode",
        metavar="MODE",
        choices=("auto", "interactive", "print"),
        help="auto (default), interactive or print: with a prompt, auto means print",
    )
    add_option(
        "--max-time",
        metavar="TIME",
        help="stop the run after this time, such as 90s, 45m, 2h or 1h30m",
    )
    add_option(
        "--output",
        metavar="FORM",
        choices=("auto", "text"),
        help="auto (default): print mode shows what Claude Code does while it does it; "
        "text: Claude Code's own output, at its end",
    )
    add_option(
        "--artifact",
        metavar="PATH",
        action="append",
        default=[],
        help=f"upload this file at the end, redacted ({' '.join(ARTIFACT_TYPES)}); repeatable",
    )
    add_option = add_command(
        "test-connection", command_test_connection, "try the gateway, the secret, and a run"
    )
    _add_run_options(add_option)
    add_option = add_command("sync", command_sync, "deliver what earlier runs could not")
    _add_run_options(add_option)
    add_option(
        "--discard", metavar="ID", help="give up on this run: delete it, undelivered output too"
    )
    add_option = add_command("info", command_info, "show the configuration, without secrets")
    add_option("--json", action="store_true", help="as JSON")
    return parser, frozenset(with_value)


def _add_run_options(add_option: Callable[..., None]) -> None:
    add_option("--run-id", metavar="ID", help="the run's id, from the gateway's page")
    add_option("--token", metavar="TOKEN", help="the run's capability token")
    add_option("--token-file", metavar="FILE", help="a file that holds the token")


# Before every value, so that argparse takes none for an option, nor drops one that is "--".
_VALUE_MARK: Final = "="


def _unmarked(value: str) -> str:
    return value[len(_VALUE_MARK) :]


def parse_arguments(program: str, argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line. Raises RunnerError.

    The item after an option that takes a value is its value, whatever it begins with; what follows
    `--` goes to the child as it is.
    """
    parser, with_value = build_parser(program)
    ours: list[str] = []
    items = iter(argv)
    for item in items:
        if item == "--":
            break
        name, has_value, value = item.partition("=")
        if name in with_value:
            given = value if has_value else next(items, None)
            if given is None:
                raise RunnerError(f"{name} needs a value; see {program} --help")
            item = f"{name}={_VALUE_MARK}{given}"
        ours.append(item)
    options, unknown = parser.parse_known_args(ours)
    if unknown:
        # Without its value, which may be a token that the command does not take.
        name = unknown[0].partition("=")[0]
        raise RunnerError(f"unrecognized argument: {name}; see {program} {options.command} --help")
    options.arguments = list(items)
    if options.arguments and options.command != "start":
        raise RunnerError(f"nothing may follow -- with {options.command}")
    return options


def _given_settings(options: argparse.Namespace) -> dict[str, str]:
    """Return the settings that the command line names, by their variables."""
    given = {"CLAUDE_RUNNER_DATA_DIR": options.data_dir}
    token_file = getattr(options, "token_file", None)
    given["CLAUDE_RUNNER_TOKEN"] = getattr(options, "token", None)
    if token_file is not None:
        if given["CLAUDE_RUNNER_TOKEN"] is not None:
            raise RunnerError("give the token with --token or with --token-file, not with both")
        try:
            given["CLAUDE_RUNNER_TOKEN"] = Path(token_file).read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise RunnerError(f"--token-file {token_file} cannot be read: {reason}") from error
    return {variable: value for variable, value in given.items() if value is not None}


def main(argv: Sequence[str] | None = None, profile: Profile | None = None) -> int:
    """Run the command line. Returns the exit code; every error of the runner is 1."""
    profile = profile or ClaudeProfile()
    _open_missing_descriptors()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a setting may hold any bytes
    console = Console()
    config: Config | None = None
    code = 1
    try:
        options = parse_arguments(profile.program, sys.argv[1:] if argv is None else argv)
        console.verbosity = -1 if "quiet" in options else getattr(options, "verbose", 0)
        config = load_config(
            ROOT,
            os.environ,
            options=_given_settings(options),
            env_file=absolute_path(options.env_file, "--env-file") if options.env_file else None,
        )
        code = int(options.run(options, config, profile, console))
    except SystemExit:  # --help or --version
        code = 0
    except (RunnerError, GatewayError, SpoolError) as error:
        console.error(str(error))
    except KeyboardInterrupt:
        console.error("interrupted")
        code = 130
    except BrokenPipeError:
        pass  # the reader of `info | head` is gone
    except Exception as error:  # noqa: BLE001 - the boundary: a bug is told, not shown as a traceback
        console.error(f"an error in claude-runner itself: {_report_crash(error, config)}")
    return code


def _open_missing_descriptors() -> None:
    """Give 0, 1 and 2 to nothing where the caller closed them, before a file gets their number."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def _report_crash(error: Exception, config: Config | None) -> str:
    """Write a redacted report that can be sent to the maintainers. Returns what to tell."""
    rules = build_rules(config) if config is not None else Rules()
    summary = rules.redact(f"{type(error).__name__}: {error}")
    report = rules.redact("".join(traceback.format_exception(None, error, error.__traceback__)))
    if config is None:
        return summary
    path = config.data_dir / "crash.txt"
    try:
        write_private(path, f"claude-runner {VERSION}, Python {sys.version}\n{report}")
    except (OSError, ValueError):
        return summary
    return f"{summary}; please report it, with {path}"


if __name__ == "__main__":
    sys.exit(main())
