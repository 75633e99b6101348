"""Check everything that a run needs, one line each, without starting a run.

Starts nothing but Claude Code's own `--version`, and asks the gateway what `test-connection` asks.
A check that fails says what to do; the others are still made.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Final

from config import (
    SAFE_SECRET_BYTES,
    RunnerError,
    build_rules,
    prepare_data_dir,
    private_paths,
    tell_open_modes,
)
from journal.spool import Spool, SpoolError
from places import find_program, find_project, program_to_start
from redact import printable
from runner.console import shown_size
from runner.plan import require_program
from runner.terminal import window_size
from tools.hosts import find_unignored
from tools.mending import find_own_gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from config import Config
    from kinds.profile import Profile
    from redact import Rules
    from runner.console import Console

_OLDEST_PYTHON: Final = (3, 9)
# As in wrapper/requirements.txt; a test compares them.
PACKAGES: Final = {"requests": "2.28", "python-dotenv": "0.21"}
MODULES: Final = {"requests": "requests", "python-dotenv": "dotenv"}
_FIX: Final = "`doctor --fix` mends it"
_INSTALLS: Final = "`start` and `test-connection` install it"
# A start of Claude Code takes 1 s; npx, which may download it, takes longer.
VERSION_PATIENCE_S: Final = 30.0
# A run's journal and log are seldom larger; with less, a long one would lack output.
_ENOUGH_DISK_BYTES: Final = 200_000_000


@dataclass(frozen=True)
class Finding:
    """The result of one check. `status` is `ok`, `fail`, or `note`: a run works without it."""

    check: str
    status: str
    text: str


class Doctor:
    """Makes one check after the other. Thread: one. A failed check raises nothing."""

    def __init__(self, profile: Profile, console: Console, load: Callable[[], Config]) -> None:
        self._profile = profile
        self._console = console
        self._load = load

    def look(self, run_id: str | None = None) -> Iterator[Finding]:
        """Yield each finding as soon as it is there; the gateway may take a while to answer."""
        yield self._check("Python", _check_python)
        yield self._check("packages", _check_packages)
        yield self._check("terminal", _check_terminal)
        try:
            config = self._load()
        except RunnerError as error:
            yield Finding("configuration", "fail", f"{error}; the other checks were not made")
            return
        yield self._check("configuration", lambda: _check_configuration(config))
        project = find_project()
        unignored = [] if project is None else find_unignored(project)
        if unignored:
            yield Finding("ignore files", "note", f"{'; '.join(unignored)}; {_FIX}")
        yield self._check("program", lambda: self._check_program(config))
        yield self._check("tmate", lambda: _check_tmate(config))
        yield self._check("data folder", lambda: _check_folder(config))
        yield self._check("journal", lambda: _check_journal(config))
        yield self._check("operator", lambda: _check_operator(config))
        if config.is_env_file_unread:
            yield Finding(
                "gateway", "note", "not asked: its address may be in .env, which was not read"
            )
            return
        try:
            from runner.checks import ask_gateway
        except ImportError:
            yield Finding("gateway", "note", f"not asked: requests is not installed; {_INSTALLS}")
            return
        yield from ask_gateway(config, run_id, self._console, self._check)

    def _check(self, name: str, check: Callable[[], tuple[str, str]]) -> Finding:
        self._console.progress(f"{name} …")
        try:
            return Finding(name, *check())
        except (RunnerError, SpoolError) as error:
            return Finding(name, "fail", str(error))
        finally:
            self._console.progress("")

    def _check_program(self, config: Config) -> tuple[str, str]:
        argv = self._profile.argv(config)
        env = config.child_environment(os.environ)
        # Not the current folder, which may be gone.
        require_program(argv[0], ".", env, self._profile, config)
        found = find_program(argv[0], env.get("PATH")) or argv[0]
        if not self._profile.answers_version(config):
            title = self._profile.title
            return "ok", f"{found}; it is not known to be {title}, so its version was not asked"
        rules = build_rules(config, os.environ)
        lines = ask_version([*argv, "--version"], env, rules)
        version = printable(rules.redact(lines[0]), 80) if lines else "no version reported"
        return "ok", f"{found}: {version}"


# --- this machine ---------------------------------------------------------------------------------


def _check_python() -> tuple[str, str]:
    shown = f"{sys.version.split()[0]} ({sys.executable})"
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return "fail", f"{shown} is too old; set CLAUDE_RUNNER_PYTHON to Python 3.9 or newer"
    return "ok", shown


def _check_packages() -> tuple[str, str]:
    shown, missing = [], []
    for name, least in PACKAGES.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if find_spec(MODULES[name]) is None:
                missing.append(name)
            else:
                shown.append(name)  # put there by hand
            continue
        if _numbers(version) < _numbers(least):
            return "fail", f"{name} {version} is too old; install {least} or newer with pip"
        shown.append(f"{name} {version}")
    if missing:
        return "note", f"{' and '.join(missing)}: not installed; {_INSTALLS}"
    return "ok", ", ".join(shown)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _check_terminal() -> tuple[str, str]:
    size = window_size(0)
    if not (os.isatty(0) and os.isatty(1)):
        return "note", "no terminal (only interactive sessions need one)"
    shown = f"{size.columns} x {size.lines}" if size is not None else "of unknown size"
    return "ok", f"{shown}, TERM={os.environ.get('TERM') or '(not set)'}"


def _check_tmate(config: Config) -> tuple[str, str]:
    program, variable = config.tmate_command[0], "CLAUDE_RUNNER_TMATE_COMMAND"
    found = find_program(program, config.child_environment(os.environ).get("PATH"))
    if found is None:
        return "note", (
            f"{program!r} ({variable}, {config.sources[variable]}) was not found; only assist "
            f"sessions need it: apt or brew install tmate, or correct {variable}"
        )
    return "ok", found


def _check_configuration(config: Config) -> tuple[str, str]:
    if config.is_env_file_unread:
        return "note", f"{config.sources['.env']} not read: without python-dotenv; {_INSTALLS}"
    if not config.hmac_secret and config.oddities:
        return "fail", "; ".join(config.oddities)
    if not config.hmac_secret and find_own_gateway(config) is not None:
        return "fail", f"HMAC_SECRET is not set; {_FIX}: the gateway on this machine has it"
    config.require_secret()
    build_rules(config, os.environ)  # whether the user's own token shapes can be read
    if config.oddities:
        return "note", "; ".join(config.oddities)
    shown = f"HMAC_SECRET is set ({config.sources['HMAC_SECRET']})"
    if config.is_secret_short:
        return "note", (
            f"{shown}, but is too short to be safe; give the gateway one of "
            f"{SAFE_SECRET_BYTES} characters or more, and copy it here"
        )
    return "ok", shown


def _check_operator(config: Config) -> tuple[str, str]:
    """Say what the gateway's page may do beyond the allowlist."""
    granted = []
    if config.allow_remote_answers:
        granted.append(
            "approve what Claude Code asks to do, in a run with a prompt "
            f"(CLAUDE_RUNNER_ALLOW_REMOTE_ANSWERS, {_source(config, 'ANSWERS')})"
        )
    if config.allow_remote_input:
        granted.append(
            "type into a session, and write to a run that asks or stays "
            f"(CLAUDE_RUNNER_ALLOW_REMOTE_INPUT, {_source(config, 'INPUT')})"
        )
    if granted:
        return "note", f"anyone who can open the gateway's page may {'; and '.join(granted)}"
    return "ok", "may stop a run and run the allowed commands; `info` lists them"


def _source(config: Config, what: str) -> str:
    return config.sources[f"CLAUDE_RUNNER_ALLOW_REMOTE_{what}"]


def _check_folder(config: Config) -> tuple[str, str]:
    prepare_data_dir(config.data_dir)
    try:
        free_bytes = shutil.disk_usage(config.data_dir).free
    except OSError as error:
        return "fail", f"the free space of {config.data_dir} cannot be read: {error.strerror}"
    shown = f"{config.data_dir} can be written, {shown_size(free_bytes)} free"
    if free_bytes < _ENOUGH_DISK_BYTES:
        return "fail", f"{shown}; make room, or set CLAUDE_RUNNER_DATA_DIR to another folder"
    is_open = "; ".join(tell_open_modes(config))
    if not is_open:
        return "ok", shown
    is_mended = not any(path.is_symlink() for path in private_paths(config))
    return "note", f"{is_open}, and so does `doctor --fix`" if is_mended else is_open


def _check_journal(config: Config) -> tuple[str, str]:
    try:
        with tempfile.TemporaryDirectory(prefix="doctor-", dir=config.data_dir) as folder:
            spool = Spool(Path(folder, "spool.db"), redact=build_rules(config, os.environ).redact)
            try:
                spool.put_fact("doctor", "was here")
                spool.sync_to_disk()
            finally:
                spool.close()
    except (OSError, SpoolError) as error:
        if isinstance(error, SpoolError) and not error.is_disk_failure:
            raise  # it says itself what to do
        reason = error.strerror if isinstance(error, OSError) else error
        return "fail", (
            f"{config.data_dir} cannot hold a journal ({reason}); make room, or set "
            "CLAUDE_RUNNER_DATA_DIR to another folder"
        )
    return "ok", "it can be written and synced to disk"


def ask_version(argv: list[str], env: dict[str, str], rules: Rules) -> list[str]:
    """Return what a program prints when asked for its version, line by line.

    Blocks for `VERSION_PATIENCE_S` at most; then it is killed, with its process group. Raises
    RunnerError when it cannot be started, fails, or hangs; `rules` redact what it tells of `argv`.
    """
    shown = printable(rules.redact(shlex.join(argv)))
    try:
        process = subprocess.Popen(
            argv,
            executable=program_to_start(argv[0], env.get("PATH")),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise RunnerError(f"{argv[0]} cannot be started: {error.strerror}") from error
    try:
        output, _ = process.communicate(timeout=VERSION_PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise RunnerError(
            f"`{shown}` did not end within {VERSION_PATIENCE_S:.0f} s; try it by hand"
        ) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if process.returncode != 0:
        raise RunnerError(f"`{shown}` failed with {process.returncode}; try it by hand")
    return output.decode("utf-8", "replace").splitlines()
