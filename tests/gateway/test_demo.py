"""`claude-runner demo`: the whole loop with one command, as its user starts it."""

from __future__ import annotations

import functools
import html
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway import xterm
from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.embedded_record import EmbeddedRecord
from testing.programs import processes
from testing.programs.runner import ROOT, program
from testing.programs.runner_files import copy_runner
from testing.programs.terminal import Terminal
from testing.waiting import eventually

ADDRESS = re.compile(r"http://localhost:\d+/login\?code=[\w-]+&next=/runs/(run_\w+)")
# The gateway and two Pythons more; on a machine with other work.
DEMO_TIMEOUT_S = 100.0


class Demo:
    """One start of `demo`, with its data in a folder of the test's own."""

    def __init__(
        self, folder: Path, cache: Path, *options: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.env_file = folder / "settings.env"
        self.argv = [sys.executable, str(ROOT / "claude_runner.py"), "demo", "--no-open", *options]
        # Nothing is asked of the npm registry.
        (cache / f"xterm-{xterm.VERSION}").mkdir(exist_ok=True)
        self.env = {
            **os.environ,
            "CLAUDE_RUNNER_CACHE_DIR": str(cache),
            "CLAUDE_RUNNER_DATA_DIR": str(self.data_dir),
            "TMPDIR": str(folder),
            **(env or {}),
        }

    @contextmanager
    def started(self, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
        """Start it without a terminal; it is killed when the block is left."""
        with subprocess.Popen(
            self.argv,
            env=self.env,
            cwd=cwd or self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C of whoever runs the tests is not for it
        ) as process:
            try:
                yield process
            finally:
                for pid in (process.pid, *processes.descendants(process.pid)):
                    if process.poll() is None or pid != process.pid:
                        os.kill(pid, signal.SIGKILL)

    def run(self, cwd: Path | None = None) -> tuple[int, str, str]:
        """Let it come to its end; return exit code and output."""
        with self.started(cwd) as process:
            stdout, stderr = process.communicate(timeout=DEMO_TIMEOUT_S)
        return process.returncode, stdout, stderr

    @contextmanager
    def looked_at(self) -> Iterator[tuple[EmbeddedGateway, EmbeddedRecord]]:
        """Start a gateway on the same data afterwards."""
        gateway = EmbeddedGateway(self.folder)
        gateway.data_dir = self.data_dir
        with gateway:
            yield gateway, EmbeddedRecord(gateway)


@pytest.fixture
def new_demo(tmp_path: Path, compiled: Path) -> Iterator[Callable[..., Demo]]:
    """Prepare a start; the project's own `.env` is neither there before nor made by the test."""
    assert not (ROOT / ".env").exists(), "this test needs a checkout without a .env"
    yield functools.partial(Demo, tmp_path, compiled)
    assert not (ROOT / ".env").exists()


def test_the_bundled_session(tmp_path: Path, new_demo: Callable[..., Demo]) -> None:
    """It ends well, names its page first and last, and what it did can be looked at afterwards.

    The browser gets no login as an argument but a file of its owner, which leads to the run's page
    and is gone at the end.
    """
    browser, argument, copy = (tmp_path / name for name in ("browser", "argument", "copy"))
    browser.write_text(
        f'#!/bin/sh\nprintf %s "$1" >"{argument}"\ncp -p "${{1#file://}}" "{copy}"\n'
    )
    browser.chmod(0o755)
    demo = new_demo(env={"DISPLAY": ":0", "BROWSER": str(browser)})
    demo.argv.remove("--no-open")

    code, stdout, stderr = demo.run()

    assert code == 0, stderr
    lines = stdout.splitlines()
    first, last = ADDRESS.search(lines[0]), ADDRESS.search(lines[-1])
    opened = ADDRESS.search(html.unescape(copy.read_text()))
    assert first is not None
    assert last is not None
    assert opened is not None
    assert len({each.group(0) for each in (first, last, opened)}) == 3  # a code works once
    assert "Traceback" not in stderr
    assert "code=" not in argument.read_text()
    assert copy.stat().st_mode & 0o777 == 0o600
    assert not Path(argument.read_text().partition("file://")[2]).exists()
    run_id = first.group(1)
    with demo.looked_at() as (gateway, record):
        for secret in (gateway.admin_token, gateway.secret):
            assert secret not in stdout + stderr
        assert not re.search(r"ghp_\w|[0-9a-f]{32}", stdout + stderr)
        assert "token = [REDACTED]" in stdout
        assert record.verify_finished(run_id) == []
        assert (record.status(run_id), record.exit_code(run_id)) == ("done", 0)
        text = record.text(run_id)
        assert "**Done.** The greeting is friendlier now.\n\n■ Done" in text
        assert "● Edit: greeting.py\n⎿ 1 line added, 1 removed\n▏ @@ -1,2 +1,2 @@\n" in text
        assert "told apart" in record.text(run_id, "stderr")
        (command,) = gateway.api("GET", f"/api/runs/{run_id}/history").json()["commands"]
        assert (command["command"], command["status"]) == ("git diff", "done")
        assert "+    return f" in command["result"]
        files = {each.name: each.data for each in record.artifacts(run_id)}
        assert sorted(files) == [
            "changes.diff",
            "claude.jsonl",
            "claude.log",
            "latest.diff",
            "summary.md",
        ]
        assert b"friendlier" in files["summary.md"]
        assert b"greeting.py" in files["latest.diff"]
    assert list(tmp_path.glob("claude-runner-demo-*")) == []


def test_the_own_command(tmp_path: Path, new_demo: Callable[..., Demo]) -> None:
    """`--cmd` runs CLAUDE_COMMAND with the prompt in the current folder; its code is passed on.

    In a terminal the last address works until somebody has looked, and pressed Enter.
    """
    project = tmp_path / "a project"
    project.mkdir()
    source = "import os, sys; print(os.getcwd(), sys.argv[1:]); sys.exit(3)"
    prompt = "--mend 'it' $HOME"
    demo = new_demo(f"--cmd={prompt}", env={"CLAUDE_COMMAND": shlex.join(program(source))})

    with Terminal(demo.argv, env=demo.env, cwd=project, columns=200) as terminal:
        terminal.expect(b"press Enter", DEMO_TIMEOUT_S)
        terminal.expect(b"/runs/run_")
        pids = processes.descendants(terminal.pid)
        assert pids
        terminal.send(b"\n")
        assert terminal.wait() == 3
        shown = terminal.output.decode()

    processes.assert_gone(pids)
    assert f"{project} {[prompt]!r}" in shown
    found = ADDRESS.search(shown)
    assert found is not None
    with demo.looked_at() as (gateway, record):
        run = gateway.api("GET", f"/api/runs/{found.group(1)}").json()
        assert (run["exit_code"], run["mode"], run["working_dir"]) == (3, "print", str(project))
        assert record.verify_finished(found.group(1)) == []


def test_another_gateway_holds_the_data(tmp_path: Path, new_demo: Callable[..., Demo]) -> None:
    """A gateway that cannot start is one sentence, and exit code 1."""
    with EmbeddedGateway(tmp_path) as gateway:
        code, stdout, stderr = new_demo().run()

        assert gateway.request("GET", "/api/health").status == 200
    assert (code, stdout) == (1, "")
    assert stderr.count("\n") == 1
    assert stderr.startswith("claude-runner: the gateway did not start: a gateway is already")


def test_a_signal_ends_run_and_gateway(new_demo: Callable[..., Demo]) -> None:
    """Both end in order, the child tidies up, and nothing is left; for another signal see below."""
    tidies = program(
        "import os, signal\n"
        "signal.signal(2, lambda *_: (os.write(1, b'tidied\\n'), os._exit(0)))\n"
        "print('READY', os.getpid(), flush=True)\n"
        "while True: signal.pause()"
    )
    demo = new_demo("--cmd=x", env={"CLAUDE_COMMAND": shlex.join(tidies)})

    with demo.started() as process:
        assert process.stdout is not None
        shown = ""
        while "READY" not in shown:
            line = process.stdout.readline()
            assert line, process.communicate()
            shown += line
        pids = processes.descendants(process.pid)
        process.send_signal(signal.SIGINT)
        rest, stderr = process.communicate(timeout=DEMO_TIMEOUT_S)

    assert process.returncode == 130
    assert "tidied" in rest
    assert "Traceback" not in stderr
    processes.assert_gone(pids)
    assert ADDRESS.search(rest.splitlines()[-1])


def test_a_signal_before_the_run_ends_the_gateway(new_demo: Callable[..., Demo]) -> None:
    """In the moment between the two the gateway is not left behind either."""
    demo = new_demo()
    with demo.started() as process:

        def gateway_is_there() -> list[int]:
            found = processes.descendants(process.pid)
            assert found
            return found

        pids = eventually(gateway_is_there, DEMO_TIMEOUT_S)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=DEMO_TIMEOUT_S)

    processes.assert_gone(pids)
    assert process.returncode in (128 + signal.SIGTERM, 130)
    assert "Traceback" not in stderr


def test_an_empty_prompt_starts_nothing(new_demo: Callable[..., Demo]) -> None:
    """It is refused as `start` does, before there is a gateway or any data."""
    demo = new_demo("--cmd", " ")

    assert demo.run() == (
        1,
        "",
        "claude-runner: the prompt is empty; write it after --cmd, or leave --cmd out\n",
    )
    assert not demo.data_dir.exists()


def test_a_folder_without_the_gateway(tmp_path: Path) -> None:
    """Where only the runner's files were copied there is no demo, and one sentence says so."""
    copy_runner(tmp_path)
    argv = [sys.executable, str(tmp_path / "claude_runner.py"), "demo", "--no-open"]

    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=30)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"claude-runner: this copy has no gateway ({tmp_path} ")
    assert done.stderr.count("\n") == 1
