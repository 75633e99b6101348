"""`up`: from a clone of this repository to a run in a project of one's own, with its page.

Each step is one that a user can take alone, finds what is there, and repairs what is missing:
`install`, `gateway` (which goes on when this ends), the project's `.env`, `doctor`, a run, `start`.
The last one takes the place of this process. It is the clone's own program: of the project's folder
nothing is started, and its `.env` counts as it does for every run there.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Final
from urllib.parse import urlsplit

from config import RunnerError, absolute_path, load_config, prepare_data_dir
from places import PROGRAM, typed_name
from runner.console import print_out
from runner.plan import read_prompt, require_program
from tools.doctor import Doctor
from tools.install import Target, install, tell_installed
from tools.local_gateway import (
    data_option,
    find_gateway,
    gateway_folder,
    is_loopback,
    is_port_free,
    login_address,
    post,
    start_gateway,
)
from tools.options import handed_on
from tools.project_env import connect

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from config import Config
    from kinds.profile import Profile
    from runner.console import Console
    from tools.local_gateway import LocalGateway

    # Opens a browser with an address, by a file in a folder; False where there is no screen.
    ShowPage = Callable[[Path, str], bool]

_USUAL_PORT: Final = 3100
# How many are tried if another program has the first one.
_PORTS: Final = 50
_QUESTION: Final = "what should {title} do? (Enter alone opens a session at the keyboard) "


@dataclass(frozen=True)
class _Project:
    """The project: where it is, and what its own program would be configured with."""

    target: Target
    profile: Profile

    def load(self) -> Config:
        """Read its settings, as its own program would. Raises RunnerError."""
        program = self.target.path / self.target.folder / "program"
        return load_config(program, os.environ, own=self.profile.settings)

    def require_program(self, clone: Config) -> None:
        """Raise RunnerError if there is nothing to run: before minutes of preparations."""
        file = self.target.path / ".env"
        own = self.profile.settings
        there = os.path.isfile(file)
        config = load_config(PROGRAM, os.environ, own=own, env_file=file) if there else clone
        env = config.child_environment(os.environ)
        require_program(self.profile.argv(config)[0], ".", env, self.profile, config)

    @property
    def shim(self) -> str:
        """The command that starts the runner from inside that folder."""
        return f"./{self.target.folder}/{self.profile.program}"


def up(
    options: argparse.Namespace,
    config: Config,
    profile: Profile,
    console: Console,
    prepare_gateway: Callable[[], None],
    show_page: ShowPage,
) -> int:
    """Set a project up and start a run in it. Returns only where none is started.

    `prepare_gateway` is called before one is started: it may have to install packages.
    """
    if not options.project:
        raise RunnerError("DIR is empty; name the folder of a project")
    if options.cmd != "-":  # `start` reads that one
        read_prompt(options.cmd)
    project = _Project(Target(absolute_path(options.project, "DIR")), profile)
    os.chdir(project.target.path)  # a relative path of a program is that of the project
    project.require_program(config)
    running = find_gateway(gateway_folder(config.data_dir))
    if running is not None:
        running.settings()  # that of `demo` has none for others
    elif config.sources["HMAC_SECRET"] == "environment":  # noqa: S105 - where it is
        raise RunnerError(
            "HMAC_SECRET (environment) would be the secret of the gateway, which `up` takes from a "
            f"file; unset it, and to keep it write it into {config.sources['.env']}"
        )
    _install(project)
    gateway = _provide_gateway(options, config, console, prepare_gateway)
    for sentence in connect(
        project.target.path / ".env", gateway.settings(), profile.settings, console
    ):
        print_out(sentence)
    _see_doctor(project, console)
    prompt = _ask_prompt(options, profile)
    if prompt is None and not (os.isatty(0) and os.isatty(1)) and not options.no_start:
        print_out("no run is started: give its prompt with --cmd, or use a terminal")
        return 0
    return _run(options, prompt, project, gateway, show_page)


def _install(project: _Project) -> None:
    target = project.target
    changes = install(PROGRAM, target, upgrade=target.is_installed)
    if changes.written or changes.removed or changes.kept or changes.notes:
        tell_installed(changes, target)


# --- the gateway ---------------------------------------------------------------------------------


def _provide_gateway(
    options: argparse.Namespace, config: Config, console: Console, prepare: Callable[[], None]
) -> LocalGateway:
    """Return the gateway of this clone, started if it does not run. Raises RunnerError."""
    source = config.sources["GATEWAY_URL"]
    if not is_loopback(config.gateway_url):
        raise RunnerError(
            f"GATEWAY_URL ({source}) is {config.gateway_url}, and `up` starts a gateway on this "
            "machine; unset it, or use the other gateway with `install` and `start`"
        )
    prepare_data_dir(config.data_dir)
    folder = gateway_folder(config.data_dir)
    gateway = find_gateway(folder)
    if gateway is None:
        prepare()
        gateway = _start_gateway(options, config, console)
        how = "started; it goes on when this ends"
    else:
        how = "it runs already"
    if source == "environment" and config.gateway_url != gateway.runner_url:
        raise RunnerError(
            f"GATEWAY_URL (environment) is {config.gateway_url}, and the gateway is at "
            f"{gateway.runner_url}; unset it"
        )
    if gateway.env_file is not None and config.gateway_url != gateway.runner_url:
        # The next start, and `install`, find it there.
        connect(gateway.env_file, gateway.settings(), (), console)
    print_out(f"gateway: {gateway.url} ({how})")
    ends = f"gateway --stop{f' {data_option(gateway)}' if options.data_dir else ''}"
    print_out(
        f"  process {gateway.pid}, data and log in {folder}; "
        f"`{typed_name('claude-runner')} {ends}` ends it"
    )
    return gateway


def _start_gateway(options: argparse.Namespace, config: Config, console: Console) -> LocalGateway:
    """Start it where `.env` says, or on a port beside that one if another program has it.

    Raises RunnerError, also for a port that the user has chosen and another program has.
    """
    parts = urlsplit(config.gateway_url)
    noted = parts.port or _USUAL_PORT
    may_move = options.port is None and config.sources["GATEWAY_URL"] != "environment"
    fixed = ["--data-dir", str(config.data_dir), *(["--http"] if parts.scheme == "http" else [])]
    fixed += ["--env-file", config.sources[".env"]] if options.env_file else []
    port, last = noted, min(noted + _PORTS, 65_535)
    while True:
        while may_move and port < last and not is_port_free(port):
            port += 1
        try:
            chosen = ["--port", options.port or str(port)]
            gateway = start_gateway(gateway_folder(config.data_dir), [*chosen, *fixed], console)
        except RunnerError:
            if not may_move or port >= last or is_port_free(port):
                raise
            continue  # another program was faster
        if port != noted:
            console.warn(
                f"port {noted} is taken by another program, so the gateway uses {port}; repeat "
                "`up` for projects that have the other one"
            )
        return gateway


# --- the project ---------------------------------------------------------------------------------


def _see_doctor(project: _Project, console: Console) -> None:
    """Check everything that a run needs. Raises RunnerError when something is not well."""
    doctor = Doctor(project.profile, console, project.load)
    findings = list(doctor.look())
    failed = [each for each in findings if each.status == "fail"]
    for each in failed:
        print_out(f"FAIL  {each.check}: {each.text}")
    if failed:
        raise RunnerError(
            f"{len(failed)} of {len(findings)} checks failed; correct that, and repeat"
        )
    notes = sum(each.status == "note" for each in findings)
    more = f", {notes} with a note (`{project.shim} doctor` there shows it)" if notes else ""
    print_out(f"doctor: {len(findings)} checks passed{more}")


def _ask_prompt(options: argparse.Namespace, profile: Profile) -> str | None:
    """Return what the run is for; None for a session at the keyboard, or without a terminal."""
    given: str | None = options.cmd
    if given is not None or options.no_start or not (os.isatty(0) and os.isatty(1)):
        return given
    try:
        answer = input(_QUESTION.format(title=profile.title)).strip()
    except EOFError:
        print_out("")
        answer = ""
    except KeyboardInterrupt:
        print_out("")  # what follows gets a line of its own
        raise
    return answer or None


# --- the run -------------------------------------------------------------------------------------


def _run(
    options: argparse.Namespace,
    prompt: str | None,
    project: _Project,
    gateway: LocalGateway,
    show_page: ShowPage,
) -> int:
    """Make a run and become its runner. Returns only where it is for the user to start."""
    config = project.load()
    command = {} if prompt in (None, "-") else {"command": prompt}
    made = post(gateway, "/api/runs", {**command, "metadata": {"source": "up"}})
    run_id, token = str(made["id"]), str(made["capabilityToken"])
    print_out(f"page: {login_address(gateway, f'/runs/{run_id}')}")
    warned = "; a browser asks once about the certificate, which this machine made itself"
    print_out(f"  this login works once{warned if gateway.certificate is not None else ''}")
    if not options.no_open:
        show_page(gateway.folder, login_address(gateway, f"/runs/{run_id}"))
    where = shlex.quote(str(project.target.path))
    arguments = [] if prompt is None else [f"--cmd={prompt}"]
    arguments += handed_on(options, project.profile)
    if options.no_start:
        words = [project.shim, "start", "--run-id", run_id, *arguments]
        words += ["--", *options.arguments] if options.arguments else []
        print_out("start it with this line; its leading blank keeps it out of many histories:")
        print_out(f" cd {where} && CLAUDE_RUNNER_TOKEN={shlex.quote(token)} {shlex.join(words)}")
        return 0
    print_out(f"next time: this command again, or `{project.shim} wait` in {where}")
    # `load` has judged the file as that of a project; named, it counts as it is.
    arguments += ["--env-file", config.sources[".env"], "--data-dir", str(config.data_dir)]
    arguments += ["--cwd", str(project.target.path), "--run-id", run_id]
    _become(["start", *arguments, "--", *options.arguments], token, project.profile)
    return 0


def _become(arguments: Sequence[str], token: str, profile: Profile) -> None:
    """Go on as another start of this program, which has the token in its environment alone."""
    given = [item for name, value in sys._xoptions.items() for item in ("-X", f"{name}={value}")]
    script = f"{profile.program.replace('-', '_')}.py"
    argv = [sys.executable, "-I", *given, str(PROGRAM / script), *arguments]
    sys.stdout.flush()
    env = {**os.environ, "CLAUDE_RUNNER_TOKEN": token}
    os.execve(argv[0], argv, env)  # noqa: S606 - a list of arguments, and this same Python
