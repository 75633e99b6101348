"""`claude-runner up`, as its user types it: from a clone to a run in a project of one's own."""

from __future__ import annotations

import html
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from config import load_config
from gateway import xterm
from gateway.whereabouts import Whereabouts
from testing.programs.runner import ROOT, program
from testing.programs.starter import fork
from testing.programs.terminal import Terminal
from testing.waiting import eventually
from tools.local_gateway import LocalGateway, find_gateway, find_pointed

WITHIN_S = 100.0
PAGE = re.compile(r"^page: (https://localhost:\d+/login\?code=[\w-]+&next=/runs/(run_\w+))$", re.M)
# What every process on the machine is called, and whether the child has the token.
SPIES = (
    "import os, subprocess, sys\n"
    "args = subprocess.run(['ps', '-axww', '-o', 'args='], capture_output=True).stdout\n"
    "print(sys.argv[1:], os.getcwd(), os.environ.get('CLAUDE_RUNNER_TOKEN'))\n"
    "open('args', 'wb').write(args)\n"
    "sys.exit(3)\n"
)


class _Clone:
    """The clone, whose settings and data are in a folder of the test's own."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        (cache / f"xterm-{xterm.VERSION}").mkdir(exist_ok=True)  # nothing is asked of npm
        self.data_dir = folder / "data"
        self.env_file = folder / "settings.env"
        self.env_file.touch()
        self.env = {**os.environ, "CLAUDE_RUNNER_CACHE_DIR": str(cache), "TMPDIR": str(folder)}
        self.env["CLAUDE_RUNNER_PYTHON"] = sys.executable  # it has the packages
        self.env["CLAUDE_COMMAND"] = shlex.join(program(SPIES))

    def project(self, name: str, env: str | None = None) -> Path:
        """Return a new project, with a `.env` that anybody can read if it is to have one."""
        project = self.folder / name
        project.mkdir()
        if env is not None:
            (project / ".env").write_text(env)
            (project / ".env").chmod(0o644)
        return project

    def argv(self, *arguments: str) -> list[str]:
        subcommand, *rest = arguments
        files = ["--env-file", str(self.env_file), "--data-dir", str(self.data_dir)]
        return [sys.executable, str(ROOT / "claude_runner.py"), subcommand, *files, *rest]

    def type(self, *arguments: str, code: int = 0, fresh: bool = False) -> str:
        """Type it without a terminal; return what it printed, both streams in one.

        `fresh` is for who looks at its command line: it is no fork.
        """
        with tempfile.TemporaryFile() as said:
            stdio = (subprocess.DEVNULL, said, said)
            process = None if fresh else fork(self.argv(*arguments), self.env, stdio)
            ended_with = (
                process
                or subprocess.Popen(
                    self.argv(*arguments),
                    env=self.env,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                )
            ).wait(WITHIN_S)
            printed = os.pread(said.fileno(), 1 << 20, 0).decode()
        assert ended_with == code, printed
        return printed

    @property
    def gateway(self) -> LocalGateway | None:
        return find_gateway(self.data_dir / "gateway")


@pytest.fixture
def clone(tmp_path: Path, compiled: Path) -> Iterator[_Clone]:
    """A clone, whose gateway is ended in the end."""
    clone = _Clone(tmp_path, compiled)
    yield clone
    clone.type("gateway", "--stop")


def test_from_nothing_to_a_run(clone: _Clone) -> None:
    """Everything is made, the page is opened, and the run is the user's own command.

    Again, for another project, after a kill, and at a terminal, each finds what is there and
    repairs what is not.
    """
    browser, argument, page = (clone.folder / name for name in ("browser", "argument", "page"))
    browser.write_text(
        f'#!/bin/sh\nprintf %s "$1" >"{argument}"\ncp -p "${{1#file://}}" "{page}"\n'
    )
    browser.chmod(0o755)
    clone.env |= {"DISPLAY": ":0", "BROWSER": str(browser)}
    first = clone.project("first project")

    with taken(3100):
        printed = clone.type("up", str(first), "--cmd", "mend it", "--", "-x", code=3, fresh=True)
        assert "port 3100 is taken by another program, so the gateway uses 31" in printed

    gateway = clone.gateway
    shown = PAGE.search(printed)
    opened = html.unescape(page.read_text())
    assert gateway is not None
    assert shown is not None
    assert f"{['mend it', '-x']} {first} None\n" in printed.replace(
        "'-x', 'mend it'", "'mend it', '-x'"
    )
    assert f"gateway: {gateway.url} (started; it goes on when this ends)\n" in printed
    assert f" gateway --stop --data-dir {clone.data_dir}` ends it\n" in printed
    assert f"next=/runs/{shown[2]}" in opened
    assert shown[1] not in opened  # a code works once
    assert "code=" not in argument.read_text()
    assert stat.S_IMODE((first / ".env").stat().st_mode) == 0o600
    assert f"GATEWAY_URL={gateway.runner_url}\n" in clone.env_file.read_text()  # not the usual port
    settings = load_config(first, {}, env_file=first / ".env")
    assert (settings.gateway_url, settings.allow_self_signed) == (gateway.runner_url, True)
    arguments = (first / "args").read_text()
    for secret in (settings.hmac_secret, (gateway.folder / "admin-token").read_text().strip()):
        assert secret not in printed + arguments
    ours = [each for each in arguments.splitlines() if str(clone.folder) in each]
    assert "--run-id" in str(ours)
    assert not re.search(r"\b[0-9a-f]{64}\b|code=", str(ours))  # the token, or a login

    second = clone.project("second", "DATABASE_URL=x")
    del clone.env["BROWSER"], clone.env["DISPLAY"]
    printed = clone.type("up", str(second), "--cmd", "x", "--no-start", "--ask", "never")
    assert clone.gateway == gateway
    assert f"gateway: {gateway.url} (it runs already)\n" in printed
    assert (second / ".env").read_text().startswith("DATABASE_URL=x\n")
    assert stat.S_IMODE((second / ".env").stat().st_mode) == 0o600
    line = printed.splitlines()[-1]
    assert re.match(
        rf" cd {second} && CLAUDE_RUNNER_TOKEN=\w+ \./wrapper/claude-runner start ", line
    )
    assert line.endswith(" --cmd=x --ask=never")
    pasted = subprocess.run(
        ["sh"], input=f"{line}\n", env=clone.env, capture_output=True, text=True, check=False
    )
    assert (pasted.returncode, "['x']" in pasted.stdout) == (3, True), pasted.stderr
    assert line.partition("TOKEN=")[2].split()[0] not in (second / "args").read_text()

    os.kill(gateway.pid, signal.SIGKILL)
    eventually(lambda: _assert_none(clone.gateway))
    question = b"what should Claude Code do? (Enter alone opens a session at the keyboard) "
    with Terminal(clone.argv("up", str(first)), env=clone.env) as terminal:
        terminal.expect(question)

        def press() -> None:
            # A signal between the prompt and the read that follows it is seen after the read.
            terminal.send(b"\x03")
            terminal.expect(b"^C\r\n", 2.0)

        eventually(press)
        assert terminal.wait() == 130
    logged = f"{shlex.join(clone.argv('up', str(first)))} | cat"  # no session without a terminal
    with Terminal(["sh", "-c", logged], env=clone.env) as terminal:
        terminal.expect(b"no run is started: give its prompt with --cmd, or use a terminal")
        assert b"page: " not in terminal.output
    with Terminal(clone.argv("up", str(first)), env=clone.env) as terminal:
        terminal.expect(question)
        terminal.send(b"go on\n")
        terminal.expect(b"['go on']")
        assert terminal.wait() == 3
        assert b"wrapper/program" not in terminal.output  # what is there is not written again
    again = clone.gateway
    assert again is not None
    assert again.pid != gateway.pid
    assert load_config(first, {}, env_file=first / ".env").gateway_url == again.runner_url
    assert find_pointed(clone.env) == again

    code = clone.type("gateway", "--login").strip().partition("/login?")[2]
    assert re.fullmatch(r"code=[\w-]{20,}&next=/", code)
    assert clone.type("gateway", "--stop") == f"the gateway at {again.url} has ended\n"
    assert clone.type("gateway", "--stop") == "no gateway runs here\n"
    assert "no gateway runs here; start it" in clone.type("gateway", "--login", code=1)


def _assert_none(found: object) -> None:
    assert found is None


def test_what_stands_in_the_way_is_one_sentence(clone: _Clone) -> None:
    """Before anything is installed or started; nothing is left behind."""
    clone.env["CLAUDE_COMMAND"] = "no-such-claude"
    project = clone.project("new", "DATABASE_URL=x")
    (clone.folder / "file").touch()

    for directory, words in (
        (project, "'no-such-claude' (CLAUDE_COMMAND, environment) was not found in PATH"),
        (clone.folder / "gone", "does not exist; name the folder of a project"),
        (clone.folder / "file", "is not a folder; name the folder of a project"),
        ("", "DIR is empty; name the folder of a project"),
    ):
        told = clone.type("up", str(directory), "--cmd", "x", code=1)
        assert told.count("\n") == 1
        assert words in told
    clone.env |= {"CLAUDE_COMMAND": "true", "GATEWAY_URL": "https://gw.example"}
    assert "GATEWAY_URL (environment) is https://gw.example, and `up` starts a gateway on this" in (
        clone.type("up", str(project), "--cmd", "x", code=1)
    )
    del clone.env["GATEWAY_URL"]
    clone.env["HMAC_SECRET"] = "s" * 40  # a gateway that has it from there gives it to no project
    told = clone.type("up", str(project), "--cmd", "x", code=1)
    assert "HMAC_SECRET (environment) would be the secret of the gateway" in told
    assert told.count("\n") == 1
    del clone.env["HMAC_SECRET"]
    (clone.data_dir / "gateway").mkdir(parents=True)
    with Whereabouts(clone.data_dir / "gateway") as whereabouts:  # `demo`, in another terminal
        facts = {"url": "http://x", "runnerUrl": "http://x", "certificate": None, "envFile": None}
        whereabouts.tell(facts, is_shared=False)
        told = clone.type("up", str(project), "--cmd", "x", code=1)
    assert told.count("\n") == 1
    assert "has its secret in no file, as that of `demo`; end it, with Enter in its" in told
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        told = clone.type("up", str(project), "--cmd", "x", "--port", str(port), code=1)
        assert f"the gateway did not start: cannot listen on 127.0.0.1, port {port} (" in told
    assert clone.gateway is None


@contextmanager
def taken(port: int) -> Iterator[None]:
    """Let another program have a port, if none has it already."""
    with ExitStack() as stack:
        with suppress(OSError):
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        yield
