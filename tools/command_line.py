"""The command line of every kind of runner: its subcommands, and what runs each of them.

A module of its own, although `claude_runner.py` is the program: Python compiles the file that it is
started with each time anew, and keeps what it imports.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import os
import resource
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from config import (
    VERSION,
    Config,
    RunnerError,
    absolute_path,
    build_rules,
    collect_secrets,
    load_config,
    read_text,
    write_private,
)
from places import PROGRAM, typed_name
from runner.console import Console, painted, print_out
from runner.plan import ARTIFACT_TYPES, read_prompt
from tools.options import CommandLine
from tools.packages import FILES, GATEWAY, POSTGRESQL, provide, use_what_is_there

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from config import Setting
    from kinds.profile import Profile


# === The program ==================================================================================


def main(argv: Sequence[str] | None, profile: Profile) -> int:
    """Run the command line. Returns the exit code; every error of the runner is 1."""
    _open_missing_descriptors()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a setting may hold any bytes
    console = Console(profile.program)
    before = signal.signal(signal.SIGINT, _interrupt)
    try:
        return _run_subcommand(sys.argv[1:] if argv is None else argv, profile, console)
    except KeyboardInterrupt:
        # Objects that were half made at that moment complain when they are collected.
        sys.unraisablehook = lambda _unraisable: None
        console.error("interrupted")
        return 130
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, before)


def _interrupt(_number: int, _frame: object) -> None:
    """Raise KeyboardInterrupt, once: a second one would break off what the first has begun.

    Also where SIGINT is ignored, as in a shell's background: a sent signal means this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run_subcommand(argv: Sequence[str], profile: Profile, console: Console) -> int:
    """Run what the command line says; whatever it raises becomes one sentence."""
    config: Config | None = None
    code = 1
    try:
        options = build_command_line(profile).parse(argv)
        console.verbosity = -1 if "quiet" in options else getattr(options, "verbose", 0)
        _require_descriptors()
        use_what_is_there() if options.needs_no_packages else provide(console)
        config = _load_config(options, profile) if options.needs_settings else None
        for sentence in () if config is None else config.oddities:
            console.warn(sentence)
        if not gc.isenabled():
            gc.freeze()  # imported modules stay: the collector need not look at them
            gc.enable()
        code = int(options.run(options, config, profile, console))
    except SystemExit:  # --help or --version
        code = 0
    except RunnerError as error:
        console.error(str(error))
    except BrokenPipeError:
        pass  # the reader of `info | head` has ended
    except Exception as error:  # noqa: BLE001 - the boundary: a bug is told, not shown as a traceback
        report = _report_crash(error, profile, config)
        console.error(f"an error in {profile.program} itself: {report}")
    return code


# A run with a session, a command and a question has some 40 open.
_DESCRIPTORS: Final = 64


def _require_descriptors() -> None:
    """Raise RunnerError where so few files may be open that a run would fail in the middle."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= allowed < _DESCRIPTORS:
        raise RunnerError(
            f"only {allowed} files may be open at once here, and a run needs {_DESCRIPTORS}; raise "
            "the limit: `ulimit -n 256`"
        )


def _load_config(options: argparse.Namespace, profile: Profile) -> Config:
    return load_config(
        PROGRAM,
        os.environ,
        own=profile.settings,
        options=_given_settings(options),
        env_file=_given_path(options.env_file, "--env-file"),
    )


def _given_path(text: str | None, name: str) -> Path | None:
    """Return the path of an option; an empty value usually means an unset shell variable."""
    if text == "":
        raise RunnerError(f"{name} is empty; name a path, or leave it out")
    return None if text is None else absolute_path(text, name)


def _given_settings(options: argparse.Namespace) -> dict[str, str]:
    """Return the settings that the command line names, by their variables."""
    _given_path(options.data_dir, "--data-dir")
    given = {"CLAUDE_RUNNER_DATA_DIR": options.data_dir}
    token_file = getattr(options, "token_file", None)
    given["CLAUDE_RUNNER_TOKEN"] = getattr(options, "token", None)
    if given["CLAUDE_RUNNER_TOKEN"] == "-" and token_file is None:  # noqa: S105 - where it is
        from tools.token_input import read_token

        if getattr(options, "cmd", None) == "-":
            raise RunnerError("only one of --token and --cmd can be read from stdin")
        # Asked for once, however often the settings are read.
        options.token = given["CLAUDE_RUNNER_TOKEN"] = read_token()
    if token_file is not None:
        if given["CLAUDE_RUNNER_TOKEN"] is not None:
            raise RunnerError("give the token with --token or with --token-file, not with both")
        token = read_text(Path(token_file), f"--token-file {token_file}")
        given["CLAUDE_RUNNER_TOKEN"] = token.strip()
    return {variable: value for variable, value in given.items() if value is not None}


def leave(code: int) -> NoReturn:
    """End the process as Python does, but without taking its modules down one by one.

    That takes as long as an eighth of a short run, and nothing is left to be done in it.
    """
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except (OSError, ValueError):
        sys.exit(code)
    os._exit(code)


def _open_missing_descriptors() -> None:
    """Give 0, 1 and 2 to nothing where the caller closed them, before a file gets their number."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def _report_crash(error: Exception, profile: Profile, config: Config | None) -> str:
    """Write a redacted report that can be sent to the maintainers. Returns what to tell."""
    import traceback

    from redact import Rules

    rules = build_rules(config, os.environ) if config is not None else Rules()
    summary = rules.redact(f"{type(error).__name__}: {error}")
    report = rules.redact("".join(traceback.format_exception(None, error, error.__traceback__)))
    if config is None:
        return summary
    path = config.data_dir / "crash.txt"
    try:
        write_private(path, f"{profile.program} {VERSION}, Python {sys.version}\n{report}")
    except (OSError, ValueError):
        return summary
    return f"{summary}; please report it, with {path}"


# === The command line =============================================================================


def build_command_line(profile: Profile) -> CommandLine:
    """Return the subcommands of this kind of runner."""
    typed = typed_name(profile.program)
    line = CommandLine(
        profile.program,
        typed,
        VERSION,
        f"Run {profile.title} on this machine, connected to a gateway.",
        title=profile.title,
        arguments=profile.example_arguments,
    )

    def add_subcommand(
        name: str, run: Callable[..., int], summary: str, *, hands_on: bool = False
    ) -> Callable[..., None]:
        add_option = line.add_subcommand(name, run, summary, hands_on=hands_on)
        add_option("--env-file", metavar="FILE", help="read this file instead of .env")
        add_option("--data-dir", metavar="DIR", help="folder for logs and journals")
        return add_option

    add_option = add_subcommand(
        "start", _later("start", "tools.start"), f"run {profile.title}", hands_on=True
    )
    _add_run_options(add_option)
    _add_start_options(add_option)
    profile.add_start_options(add_option)
    add_option = add_subcommand(
        "wait", _run_wait, "start runs here that the gateway's page sends", hands_on=True
    )
    _add_wait_options(add_option, profile)
    add_option = add_subcommand(
        "assist", _later("assist"), "share a terminal on this machine with a helper"
    )
    _add_run_options(add_option)
    add_option("--cwd", metavar="DIR", help="where the terminal begins (default: here)")
    add_option("--timeout", metavar="TIME", help="how long to wait for the session (default: 30s)")
    add_option("--max-time", metavar="TIME", help="end the session after this (default: 1h)")
    _add_keys_option(add_option)
    add_option = add_subcommand(
        "test-connection", _later("try_connection"), "try the gateway, the secret, and a run"
    )
    _add_run_options(add_option)
    add_option = add_subcommand("sync", _later("sync"), "deliver what earlier runs could not")
    _add_run_options(add_option)
    add_option(
        "--discard", metavar="ID", help="give up on this run: delete it, undelivered output too"
    )
    add_option(
        "--gateway", metavar="URL", help="send output recorded for this gateway, not GATEWAY_URL"
    )
    add_option = add_subcommand(
        "status", _run_status, "show what runs here, what is undelivered, and the gateway"
    )
    add_option("--json", action="store_true", help="as JSON")
    add_option = add_subcommand("info", _run_info, "show the configuration, without secrets")
    add_option("--json", action="store_true", help="as JSON")
    add_option = add_subcommand(
        "gateway", _run_gateway, "start a gateway of your own, with its page"
    )
    _add_gateway_options(add_option)
    add_option = add_subcommand(
        "demo", _run_demo, "show the whole loop on this machine: a gateway, a run, its page"
    )
    if profile.runs_in_demo:
        add_option(
            "--cmd",
            metavar="PROMPT",
            help=f"run {profile.program_variable} with this prompt, not the bundled session",
        )
    add_option("--no-open", action="store_true", help="open no browser")
    add_option = add_subcommand(
        "up", _run_up, "set up a project and its gateway, and start a run there", hands_on=True
    )
    _add_up_options(add_option)
    profile.add_start_options(add_option)
    add_option = add_subcommand("doctor", _run_doctor, "check everything that a run needs")
    _add_run_options(add_option)
    add_option("--json", action="store_true", help="as JSON")
    add_option("--fix", action="store_true", help="mend what can be mended, and say what")
    line.needs_no_settings("doctor")
    line.needs_no_packages("doctor", "info", "status")
    _add_file_subcommands(line)
    return line


def _add_run_options(add_option: Callable[..., None]) -> None:
    add_option("--run-id", metavar="ID", help="the run's id, from the gateway's page")
    add_option(
        "--token",
        metavar="TOKEN",
        help="the run's capability token; - asks, or reads it from stdin",
    )
    add_option("--token-file", metavar="FILE", help="a file that holds the token")


def _add_start_options(add_option: Callable[..., None]) -> None:
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
        "--assist",
        action="store_true",
        help="open an assist session beside the run, which ends with it",
    )
    _add_keys_option(add_option)
    add_option(
        "--artifact",
        metavar="PATH",
        action="append",
        default=[],
        help=f"upload this file at the end, redacted ({' '.join(ARTIFACT_TYPES)}); repeatable",
    )


def _add_wait_options(add_option: Callable[..., None], profile: Profile) -> None:
    add_option("--name", metavar="NAME", help="what the page calls this folder (default: its name)")
    add_option("--machine", metavar="NAME", help="what the page calls this machine (default: none)")
    add_option("--cwd", metavar="DIR", help="the folder to offer (default: the current one)")
    add_option("--max-time", metavar="TIME", help="stop each run after this time")
    profile.add_start_options(add_option)


def _add_keys_option(add_option: Callable[..., None]) -> None:
    add_option(
        "--authorized-keys",
        metavar="FILE",
        help="let only the owners of these public keys into the assist session",
    )


def _add_gateway_options(add_option: Callable[..., None]) -> None:
    add_option(
        "action",
        nargs="?",
        choices=("migrate", "people"),
        help="migrate: take a gateway on SQLite over to PostgreSQL, and start none; "
        "people: who has a token",
    )
    add_option(
        "words",
        metavar="WORD",
        nargs="*",
        help="of people: add NAME, list, remove NAME or sign-out NAME",
    )
    add_option("--from", metavar="DIR", help="with migrate: the data folder of the old gateway")
    add_option("--to", metavar="URL", help="with migrate: postgresql://user@host/name")
    add_option("--files", metavar="URL", help="with migrate: where its files go, if elsewhere")
    add_option("--host", metavar="ADDRESS", help="where to listen (default: 127.0.0.1)")
    add_option("--port", metavar="PORT", help="the port (default: 3100; 0 is any free one)")
    add_option(
        "--public-url", metavar="URL", help="the address that others use, if something is in front"
    )
    add_option("--http", action="store_true", help="no TLS: for this machine, or behind a proxy")
    add_option("--no-open", action="store_true", help="open no browser")
    add_option("--ready-file", metavar="FILE", help="write there, for scripts, where it listens")
    add_option("--stop", action="store_true", help="end the gateway that runs with this data")
    add_option("--login", action="store_true", help="print a login for it, which works once")
    add_option(
        "--role",
        metavar="ROLE",
        choices=("viewer", "operator", "admin"),
        help="with people add: viewer sees, operator acts, admin decides",
    )
    add_option("--until", metavar="DATE", help="with people add: the last day of the token")
    add_option("--own", action="store_true", help="with people add: sees own runs alone")
    add_option(
        "--folders",
        metavar="PATTERN",
        action="append",
        default=[],
        help="with people add: sees runs in these folders alone, and own ones; repeatable",
    )


def _add_up_options(add_option: Callable[..., None]) -> None:
    add_option("project", metavar="DIR", help="the project's folder")
    add_option("--cmd", metavar="PROMPT", help="the prompt; without one you are asked")
    add_option(
        "--port", metavar="PORT", help="the gateway's port, if it is started (default: 3100)"
    )
    add_option("--no-start", action="store_true", help="print the line that starts the run")
    add_option("--no-open", action="store_true", help="open no browser")


_SHELLS: Final = ("bash", "fish", "zsh")


def _add_file_subcommands(line: CommandLine) -> None:
    add_option = line.add_subcommand(
        "install", _run_install, "copy the runner into another project"
    )
    add_option("project", metavar="DIR", help="the project's folder")
    add_option("--upgrade", action="store_true", help="replace an older version")
    add_option("--uninstall", action="store_true", help="remove the installed files")
    add_option("--purge", action="store_true", help="with --uninstall: remove .env and .data too")
    add_option("--folder", metavar="NAME", help="the folder to write (default: wrapper)")
    add_option = line.add_subcommand(
        "completion", _run_completion, "print what makes a shell complete this command line"
    )
    add_option("shell", choices=_SHELLS, help="the shell")
    line.needs_no_settings("install", "completion")
    line.needs_no_packages("install", "completion")


# === The subcommands ==============================================================================


def _later(name: str, module: str = "tools.online") -> Callable[..., int]:
    """Return a subcommand of a module that is imported when it is called."""

    def run(*arguments: Any) -> int:
        return int(getattr(importlib.import_module(module), name)(*arguments))

    return run


def _run_wait(
    options: argparse.Namespace, config: Config, profile: Profile, console: Console
) -> int:
    """Offer this folder to the gateway, and start what its page sends, until Ctrl-C."""
    return int(importlib.import_module("tools.waiting").wait(options, config, profile, console))


def _run_status(
    options: argparse.Namespace, config: Config, profile: Profile, console: Console
) -> int:
    """Show the runs of this project, undelivered output, and the gateway."""
    return int(importlib.import_module("tools.status").status(options, config, profile, console))


def _run_doctor(
    options: argparse.Namespace, _config: None, profile: Profile, console: Console
) -> int:
    """Check everything that a run needs. Returns 1 if a check fails."""
    import json
    from dataclasses import asdict

    from tools.doctor import Doctor

    doctor = Doctor(profile, console, lambda: _load_config(options, profile))
    mended = list(_mend(options, profile, console)) if options.fix else []
    for is_done, sentence in () if options.json else mended:
        print_out(f"{'fix   ' if is_done else 'left  '}{sentence}")
    findings = []
    # A token is checked too; without its run, that is what fails.
    has_token = options.token is not None or options.token_file is not None
    for finding in doctor.look(options.run_id or ("" if has_token else None)):
        findings.append(finding)
        if not options.json:
            status = {"note": painted("note", "33"), "fail": painted("FAIL", "31")}
            print_out(f"{status.get(finding.status, 'ok  ')}  {finding.check}: {finding.text}")
    failed = sum(finding.status == "fail" for finding in findings)
    if options.json:
        rows = [asdict(finding) for finding in findings]
        answer = {"ok": failed == 0, "version": VERSION, "findings": rows}
        if options.fix:
            answer["fixes"] = [sentence for is_done, sentence in mended if is_done]
            answer["left"] = [sentence for is_done, sentence in mended if not is_done]
        print_out(json.dumps(answer, indent=2))
    elif failed:
        console.error(f"{failed} of {len(findings)} checks failed")
    return 1 if failed else 0


def _mend(
    options: argparse.Namespace, profile: Profile, console: Console
) -> Iterator[tuple[bool, str]]:
    """Mend what can be mended; a configuration that cannot be read is the findings' business."""
    from tools.mending import mend

    try:
        config = _load_config(options, profile)
    except RunnerError:
        return
    yield from mend(config, profile, console)


def _run_info(
    options: argparse.Namespace, config: Config, profile: Profile, console: Console
) -> int:
    """Show the configuration and where each value comes from, without a secret."""
    import json

    from allowlist import Allowlist

    if config.is_env_file_unread:
        console.note(
            f"{config.sources['.env']} was not read, because python-dotenv is not installed; "
            "`start` and `test-connection` install it"
        )
    known = collect_secrets(config, os.environ)
    rules = build_rules(config, os.environ)
    rows = [
        {
            "variable": setting.variable,
            "value": rules.redact(_shown_value(value, setting, config)),
            "source": config.sources[setting.variable],
            "meaning": setting.meaning,
        }
        for setting, value in config.values(profile.settings)
    ]
    allowed = Allowlist(profile.extra_allowed_commands(config)).commands
    facts = {
        "version": VERSION,
        "python": f"{sys.version.split()[0]} ({sys.executable})",
        "files": str(PROGRAM),
        "envFile": config.sources[".env"],
        "knownSecrets": len(known.values),
        "notProtected": list(known.unprotected),
        "allowedCommands": list(allowed),
    }
    if options.json:
        print_out(json.dumps({**facts, "settings": rows}, indent=2))
        return 0
    lines = [f"{profile.program} {VERSION}, Python {facts['python']}, files in {PROGRAM}", ""]
    lines += [
        f"{_label(row['variable'])}: {row['value']}  ({row['variable']}, {row['source']})"
        for row in rows
    ]
    lines += ["", f"known secret values: {len(known.values)} (removed wherever they appear)"]
    if known.unprotected:
        lines.append(_UNPROTECTED + ", ".join(known.unprotected))
    lines += ["", "the operator may run:", *(f"  {name}" for name in allowed)]
    print_out("\n".join(lines))
    return 0


_UNPROTECTED: Final = "not redacted, because too short or an ordinary word: "


def _shown_value(value: Any, setting: Setting, config: Config) -> str:
    if setting.variable == "HMAC_SECRET" and config.is_secret_short:
        return "(set, but too short to be safe)"
    if setting.secret:
        return "(set)" if value else "(not set)"
    if value in ((), None, ""):
        return "(none)"
    if isinstance(value, tuple):
        return shlex.join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _label(variable: str) -> str:
    """Return a variable's name as a person writes it: `HMAC_SECRET` is the `HMAC secret`."""
    words = variable.replace("CLAUDE_RUNNER_", "").split("_")
    spoken = [word if word in _ACRONYMS else word.lower() for word in words]
    return " ".join([spoken[0][0].upper() + spoken[0][1:], *spoken[1:]])


_ACRONYMS: Final = frozenset({"HMAC", "URL", "HTTP", "RSA"})


def _run_install(
    options: argparse.Namespace, _config: None, profile: Profile, console: Console
) -> int:
    """Copy the runner into another project, or take it out of one."""
    from tools.install import Target, install, tell_installed, tell_uninstalled, uninstall
    from tools.project_env import configure

    if options.upgrade and options.uninstall:
        raise RunnerError("give --upgrade or --uninstall, not both")
    if options.purge and not options.uninstall:
        raise RunnerError("--purge goes with --uninstall; give both")
    if not options.project:
        raise RunnerError("DIR is empty; name the folder of a project")
    target = Target(absolute_path(options.project, "DIR"), options.folder)
    if options.uninstall:
        tell_uninstalled(uninstall(target, profile.settings, purge=options.purge), target)
        return 0
    tell_installed(install(PROGRAM, target, upgrade=options.upgrade), target)
    configure(PROGRAM, target.path, profile.settings, console, is_known=options.upgrade)
    shim = f"./{target.folder}/{profile.program}"
    print_out(f"next: cd {shlex.quote(str(target.path))} && {shim} doctor")
    return 0


def _run_completion(
    options: argparse.Namespace, _config: None, profile: Profile, _console: Console
) -> int:
    """Print what makes a shell complete this command line."""
    from tools.completion import SHELLS

    print_out(SHELLS[options.shell](build_command_line(profile)).rstrip("\n"))
    return 0


def _run_gateway(
    options: argparse.Namespace, config: Config, _profile: Profile, console: Console
) -> int:
    """Run the embedded gateway, until a signal ends it, or see to the one that runs."""
    if options.action == "people":
        people = importlib.import_module("tools.people").people
        print_out(people(["people", *options.words], options, config.data_dir))
        return 0
    if options.words or options.role or options.until or options.own or options.folders:
        raise RunnerError("--role, --until, --own and --folders go with `gateway people add`")
    migration = _migration(options)
    if options.action == "migrate":
        return _start_gateway("gateway.command_line", ["migrate", *migration], console)
    if migration:
        raise RunnerError("--from, --to and --files go with `gateway migrate`")
    if options.stop or options.login:
        local = importlib.import_module("tools.local_gateway")
        print_out((local.stop if options.stop else local.log_in)(config.data_dir))
        return 0
    arguments = _handed_on(options, config, _GATEWAY_OPTIONS)
    return _start_gateway("gateway.command_line", arguments, console)


def _migration(options: argparse.Namespace) -> list[str]:
    given = {name: getattr(options, name) for name in ("from", "to", "files")}
    if options.action is not None:
        given["env-file"] = options.env_file
    return [f"--{name}={value}" for name, value in given.items() if value is not None]


def _run_demo(
    options: argparse.Namespace, config: Config, _profile: Profile, console: Console
) -> int:
    """Run the demo, which starts a gateway and a runner. Raises RunnerError for no prompt."""
    if options.cmd != "-":  # the runner reads that one
        read_prompt(options.cmd)
    arguments = ["--cwd", os.getcwd(), *_handed_on(options, config, _DEMO_OPTIONS)]
    return _start_gateway("gateway.demo", arguments, console)


def _run_up(options: argparse.Namespace, config: Config, profile: Profile, console: Console) -> int:
    """Set a project up, with a gateway that goes on, and start a run there."""
    _require_gateway()

    def prepare() -> None:
        provide(console, GATEWAY)
        importlib.import_module("gateway.xterm").fetch(console.note)

    show_page = importlib.import_module("gateway.opener").show_page
    run = importlib.import_module("tools.up").up
    return int(run(options, config, profile, console, prepare, show_page))


def _start_gateway(module: str, arguments: Sequence[str], console: Console) -> int:
    """Run a module of the gateway in this process. Raises RunnerError when that cannot be."""
    _require_gateway()
    provide(console, GATEWAY)
    xterm = importlib.import_module("gateway.xterm")

    def prepare(database_url: str, files_url: str) -> None:
        if database_url.startswith("postgres"):
            provide(console, POSTGRESQL)
        if files_url.startswith("s3:"):
            provide(console, FILES)
        if "migrate" not in arguments:
            xterm.fetch(console.note)

    return int(importlib.import_module(module).main(arguments, prepare))


def _require_gateway() -> None:
    if not (PROGRAM / "gateway" / "__main__.py").is_file():
        raise RunnerError(
            f"this copy has no gateway ({PROGRAM} holds only the runner's files); start it in a "
            "clone of claude-runner, and set GATEWAY_URL to its address"
        )


_GATEWAY_OPTIONS: Final = ("host", "port", "public-url", "http", "no-open", "ready-file")
_DEMO_OPTIONS: Final = ("cmd", "no-open")


def _handed_on(options: argparse.Namespace, config: Config, names: Sequence[str]) -> list[str]:
    """Return options as another program takes them, with the files that are used here."""
    handed = ["--data-dir", str(config.data_dir)]
    handed += ["--env-file", config.sources[".env"]] if options.env_file else []
    for name in names:
        value = getattr(options, name.replace("-", "_"), None)
        if value is True:
            handed.append(f"--{name}")
        elif value not in (None, False):
            handed.append(f"--{name}={value}")
    return handed
