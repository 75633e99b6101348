"""What the user asked for, checked, as a `Job`: before anything is started or sent.

Every refusal is a RunnerError with one sentence that says what to do.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable, Final, NamedTuple

from config import RunnerError, absolute_path, build_rules
from kinds.profile import DENIAL_EXIT_CODE, MAX_ARGUMENT_BYTES
from places import find_program
from runner.folder import RUN_ID

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from config import Config
    from gateway_client import GatewayClient
    from kinds.profile import Invocation, Profile
    from runner.assist import AssistPlan
    from runner.console import Console
    from runner.conversation import Asking

ARTIFACT_TYPES: Final = (".log", ".txt", ".json", ".diff", ".patch", ".md")
# A healthy server of the other end of the world takes a few seconds.
_ASSIST_TIMEOUT_S: Final = 30.0
# A login that was forgotten ends by itself.
ASSIST_MAX_TIME_S: Final = 3_600.0

_DURATION: Final = re.compile(r"(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,7})s)?", re.ASCII)


class Job(NamedTuple):
    """One run, checked: everything that is needed to start the child.

    `program` is what the user types to start this runner, for messages; `shown_argv` what the
    operator is shown as the child's command line. Units: `_s` is seconds.
    """

    run_id: str
    program: str
    profile: Profile
    config: Config
    invocation: Invocation
    mode: str
    shown_argv: tuple[str, ...]
    prompt: str | None
    cwd: str
    env: Mapping[str, str]
    max_time_s: float | None
    # What is typed must not be read on its way.
    allows_remote_input: bool
    artifacts: tuple[Path, ...]
    assist: AssistPlan | None = None
    # Who may answer and talk, in a run that listens.
    asking: Asking | None = None
    # The exit code of a run in which the child was refused something, if that is a failure.
    denial_exit_code: int | None = None
    # What another run may be started with as well, as the marker `started` names it.
    options: Mapping[str, Any] = MappingProxyType({})

    def __repr__(self) -> str:
        return object.__repr__(self)  # without its values, which may be secrets

    @property
    def is_interactive(self) -> bool:
        """Whether a person or the operator types into the session."""
        return self.mode == "interactive"

    @property
    def log_name(self) -> str:
        """The file that keeps the child's output."""
        return f"{self.profile.name}.log"

    @property
    def messages_name(self) -> str:
        """The file that keeps the child's messages, if it prints any."""
        return f"{self.profile.name}.jsonl"


def plan_job(
    options: argparse.Namespace, config: Config, profile: Profile, program: str, console: Console
) -> Job:
    """Check what the user asked for. Raises RunnerError or ConfigError, each with a way out.

    `program` is what the user types to start this runner.
    """
    from gateway_client import is_confidential

    run_id = require_run(options.run_id, config)
    cwd = _existing_folder(options.cwd)
    prompt = read_prompt(options.cmd)
    is_limited = options.max_time is not None
    mode = _choose_mode(options.mode or "auto", prompt, config, is_limited=is_limited)
    asking = _plan_asking(options, config, profile, mode, console)
    if asking is None:
        invocation = profile.invocation(config, prompt, mode, options)
    else:
        asks = asking.remote or asking.local
        invocation = profile.listening_invocation(config, prompt or "", options, asks=asks)
    if invocation.cannot_ask is not None:
        console.warn(f"this run does not ask: {invocation.cannot_ask}")
    if asking is not None:
        asking = asking._replace(modes=invocation.modes) if invocation.dialogue else None
    for item in invocation.argv:
        if len(os.fsencode(item)) > MAX_ARGUMENT_BYTES:
            raise RunnerError(
                f"the prompt is longer than the {MAX_ARGUMENT_BYTES} bytes that one argument may "
                "have; put it into a file and let the prompt name the file"
            )
    env = config.child_environment(os.environ)
    env.setdefault("TERM", "xterm-256color")
    for name in invocation.withheld_variables:
        env.pop(name, None)
    env.update(invocation.added_variables)
    env["PWD"] = _name_of_folder(cwd, env.get("PWD", ""))
    require_program(invocation.argv[0], cwd, env, profile, config)
    prompts = () if prompt is None else (prompt,)
    return Job(
        run_id=run_id,
        program=program,
        profile=profile,
        config=config,
        invocation=invocation,
        mode=mode,
        shown_argv=(*profile.argv(config), *options.arguments, *prompts),
        prompt=prompt,
        cwd=cwd,
        env=env,
        max_time_s=parse_duration(options.max_time, "--max-time"),
        allows_remote_input=config.allow_remote_input and is_confidential(config.gateway_url),
        artifacts=_check_artifacts(options.artifact, console),
        asking=asking,
        denial_exit_code=DENIAL_EXIT_CODE if getattr(options, "fail_on_denial", False) else None,
        options=_repeatable(options, asking, profile, may_ask=mode == "print"),
    )


def _repeatable(
    options: argparse.Namespace, asking: Asking | None, profile: Profile, *, may_ask: bool
) -> dict[str, Any]:
    """Return what a run that is started again is to be started with, without its prompt."""
    whom = {(True, True): "both", (True, False): "remote", (False, True): "local"}
    found: dict[str, Any] = {
        name: getattr(options, dest, None)
        for name, dest in (
            ("askTimeout", "ask_timeout"),
            ("stay", "stay"),
            ("remoteMaxMode", "remote_max_mode"),
            ("output", "output"),
            ("failOnDenial", "fail_on_denial"),
            ("maxTime", "max_time"),
        )
    }
    if may_ask and hasattr(options, "ask"):
        asks = (False, False) if asking is None else (asking.remote, asking.local)
        found["ask"] = whom.get(asks, "never")
    found.update(profile.repeatable_arguments(options.arguments))
    return {name: value for name, value in found.items() if value not in (None, False)}


def _plan_asking(
    options: argparse.Namespace, config: Config, profile: Profile, mode: str, console: Console
) -> Asking | None:
    """Return who may answer and talk; None for a run that does not listen. Raises RunnerError."""
    reason = None
    if mode != "print":
        reason = "a session asks at the keyboard"
    elif not profile.can_ask(config):
        reason = f"{profile.program_variable} does not start a program that can be asked"
    given = [name for name in _TALKING if getattr(options, name, None) not in (None, "never")]
    if reason is not None and given:
        raise RunnerError(f"--{given[0].replace('_', '-')} does not apply: {reason}; leave it out")
    if reason is not None:
        return None
    from gateway_client import is_confidential
    from runner.conversation import Asking

    whom = _choose_whom(getattr(options, "ask", None), config, console)
    asking = Asking(
        remote=whom in ("remote", "both"),
        local=whom in ("local", "both"),
        remote_input=config.allow_remote_input and is_confidential(config.gateway_url),
        timeout_s=parse_duration(getattr(options, "ask_timeout", None), "--ask-timeout"),
        stay_s=parse_duration(getattr(options, "stay", None), "--stay"),
    )
    asks = asking.remote or asking.local
    if asking.timeout_s is not None and not asks:
        raise RunnerError("--ask-timeout is for a run that asks; add --ask remote or --ask local")
    return asking if asks or asking.stay_s is not None else None


def _choose_whom(asked: str | None, config: Config, console: Console) -> str:
    """Return who answers: remote, local, both or never. Raises RunnerError."""
    from gateway_client import is_confidential

    is_safe = is_confidential(config.gateway_url)
    if asked in ("remote", "both") and not is_safe:
        raise RunnerError(
            f"--ask {asked} lets the operator approve what runs here, and GATEWAY_URL "
            f"({config.gateway_url}) is not encrypted; use https"
        )
    if asked in ("local", "both") and not (os.isatty(0) and os.isatty(2)):
        if asked == "local":
            raise RunnerError("--ask local needs a terminal; start it in one, or use --ask remote")
        console.note("there is no terminal, so only the operator is asked")
        return "remote"
    if asked is not None:
        return asked
    if config.allow_remote_answers and not is_safe:
        console.warn(
            "this run does not ask, because answers from the page need https and GATEWAY_URL is "
            "http; use https, or --ask local"
        )
    return "remote" if config.allow_remote_answers and is_safe else "never"


# The options of a run that listens, as argparse names them.
_TALKING: Final = ("ask", "ask_timeout", "stay", "remote_max_mode")


def plan_assist(
    options: argparse.Namespace,
    config: Config,
    console: Console,
    open_client: Callable[[], GatewayClient],
) -> AssistPlan:
    """Check how an assist session is to be opened. Raises RunnerError.

    Whether tmate is there is looked at when it is started.
    """
    from gateway_client import is_confidential
    from runner.assist import AssistPlan, Tmate, read_public_keys

    if not is_confidential(config.gateway_url):
        raise RunnerError(
            "an assist session is a login to this machine, and GATEWAY_URL "
            f"({config.gateway_url}) is not encrypted; use https"
        )
    # What is wrong is told before what is only to be known.
    cwd = _existing_folder(options.cwd)
    timeout = getattr(options, "timeout", None)  # `start` waits for nothing
    if timeout is not None and re.fullmatch("[0-9]+", timeout):
        timeout += "s"  # as it is documented: --timeout 30
    timeout_s = parse_duration(timeout, "--timeout") or _ASSIST_TIMEOUT_S
    keys = None
    if options.authorized_keys is not None:
        option = "--authorized-keys"
        keys = read_public_keys(absolute_path(options.authorized_keys, option), option)
    else:
        console.warn(
            "anyone with the address of the assist session can log in; --authorized-keys FILE "
            "admits only the owners of the keys in FILE"
        )
    return AssistPlan(
        Tmate(config, config.child_environment(os.environ), keys),
        cwd=cwd,
        timeout_s=timeout_s,
        patience_s=config.drain_timeout_s,
        open_client=open_client,
    )


def _name_of_folder(cwd: str, caller: str) -> str:
    """Return the PWD of what starts in `cwd`: as the caller spells it, if it is the same folder."""
    is_spelled_well = os.path.isabs(caller) and os.path.normpath(caller) == caller
    try:
        is_same = is_spelled_well and os.path.samefile(caller, cwd)
    except OSError:
        is_same = False
    return caller if is_same else cwd


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
            "the run's token is missing; `--token -` asks for it, and --token-file or "
            "CLAUDE_RUNNER_TOKEN gives it"
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
        raise RunnerError(f"{path} does not exist; correct --cwd") from None
    except OSError as error:
        raise RunnerError(
            f"{path} cannot be the working directory ({error.strerror}); correct --cwd"
        ) from error
    return str(path.resolve())


def read_prompt(text: str | None) -> str | None:
    """Return the prompt that --cmd gives, from stdin for `-`. Raises RunnerError."""
    prompt = _read_stdin() if text == "-" else text
    if prompt is not None and not prompt.strip():
        raise RunnerError("the prompt is empty; write it after --cmd, or leave --cmd out")
    if prompt is not None and "\0" in prompt:
        raise RunnerError("the prompt contains a NUL character; remove it")
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


def parse_duration(text: str | None, option: str) -> float | None:
    """Read a time such as 90s, 45m, 2h or 1h30m. Raises RunnerError."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text.strip())
    seconds = 0
    if match is not None:
        hours, minutes, rest = (int(number or 0) for number in match.groups())
        seconds = hours * 3_600 + minutes * 60 + rest
    if seconds <= 0:
        raise RunnerError(f"{option} is {text!r}; write a time such as 90s, 45m, 2h or 1h30m")
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


def require_program(
    program: str, cwd: str, env: Mapping[str, str], profile: Profile, config: Config
) -> None:
    """Raise RunnerError, with what to do, unless `program` can be started in `cwd`."""
    variable = profile.program_variable
    if "/" in program:
        path = Path(cwd, program)
        if not os.path.isfile(path):  # False where it may not be looked for, unlike Path's
            shown = build_rules(config, env).redact(str(path))
            raise RunnerError(f"{shown} does not exist; correct {variable}")
        if not os.access(path, os.X_OK):
            raise RunnerError(f"{path} is not executable; chmod +x it, or correct {variable}")
    elif find_program(program, env.get("PATH")) is None:
        home = Path(env.get("HOME") or "~").expanduser()
        places = profile.program_folders(home, env)
        shown = build_rules(config, env).redact(program)  # `API_KEY=… claude` is a usual mistake
        raise RunnerError(
            f"{shown!r} ({variable}, {config.sources[variable]}) was not found in PATH"
            f"{_found_elsewhere(program, places)}; install it, or set {variable} to its path "
            "(shell aliases do not count)"
        )


def _found_elsewhere(program: str, places: Mapping[str, Sequence[Path]]) -> str:
    """Return where else a program was looked for, and whether it is there."""
    candidates = [folder / program for folders in places.values() for folder in folders]
    found = next((place for place in candidates if os.access(place, os.X_OK)), None)
    if found is not None:
        return f", but it is there as {found}"
    return "".join(f", {name}" for name in list(places)[:-1]) + f" and {list(places)[-1]}"


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
    from gateway_client import MAX_ARTIFACT_BYTES

    try:
        status = path.stat()
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except FileNotFoundError:
        console.note(
            f"--artifact {text} does not exist yet; the runner looks for it again at the end"
        )
        return
    except OSError as error:
        raise RunnerError(f"--artifact {text} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise RunnerError(f"--artifact {text} is not a file")
    if status.st_size > MAX_ARTIFACT_BYTES:
        console.note(f"--artifact {text} is larger than 50 MiB and will be uploaded in parts")
