"""What the user asked for, checked, as a `Job`: before anything is started or sent.

Every refusal is a RunnerError with one sentence that says what to do. `Profile` is all that differs
between two kinds of runner.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from gateway_client import MAX_ARTIFACT_BYTES, is_confidential
from runner_config import VERSION, RunnerError, absolute_path
from runner_session import Job

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from local_terminal import Console
    from runner_config import Config

RUN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,50}")
ARTIFACT_TYPES: Final = (".log", ".txt", ".json", ".diff", ".patch", ".md")
# Linux: MAX_ARG_STRLEN, the longest single argument.
MAX_ARGUMENT_BYTES: Final = 131_071


_DURATION: Final = re.compile(r"(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,7})s)?", re.ASCII)


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


def plan_job(
    options: argparse.Namespace, config: Config, profile: Profile, program: str, console: Console
) -> Job:
    """Check what the user asked for. Raises RunnerError or ConfigError, each with a way out.

    `program` is what the user types to start this runner.
    """
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
    require_program(invocation.argv[0], cwd, env, config)
    shown = [*profile.command(config), *options.arguments, *([] if prompt is None else [prompt])]
    return Job(
        run_id=run_id,
        program=program,
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
    match = _DURATION.fullmatch(text.strip())
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


def require_program(program: str, cwd: str, env: Mapping[str, str], config: Config) -> None:
    """Raise RunnerError, with what to do, unless `program` can be started in `cwd`."""
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
