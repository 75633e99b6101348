"""`wait`: runs come from the page, one after another; each is started once, whatever dies when."""

from __future__ import annotations

import http.client
import shutil
import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.embedded_record import free_port
from testing.gateways.strict_gateway import StrictGateway
from testing.programs import processes
from testing.programs.claude_standin import StandIn, bash, say
from testing.programs.runner import ROOT, RunnerProcess, run_to_end
from testing.programs.terminal import Terminal
from testing.programs.waiter import WITHIN_S, Waiting
from testing.waiting import eventually
from tools import waiting as waiting_tool


@pytest.fixture(scope="module")
def gw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    """One gateway for all that do not end it: each test has a folder of its own."""
    with EmbeddedGateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


def expect(process: RunnerProcess, text: str) -> None:
    """Wait until it has said this."""

    def is_said() -> None:
        assert text in process.stderr, process.stderr

    eventually(is_said, WITHIN_S)


# --- as it should be -----------------------------------------------------------------------------


def test_two_runs_in_a_row(gw: EmbeddedGateway, tmp_path: Path) -> None:
    """Each has its id and token and ends before the next begins; Ctrl-C in between ends it all."""
    waiting = Waiting(gw, tmp_path, "--machine", "laptop")
    with waiting.start() as process:
        expect(process, f"shop on laptop waits for runs from {gw.url}; Ctrl-C ends it")
        waiter_id = waiting.pair(process)
        expect(process, "the operator has let this folder in")
        first = waiting.send(waiter_id, "wait, then fix it")
        waiting.wait_for(first, "running")
        second = waiting.send(waiter_id, "fail")
        offer = waiting.offer(waiter_id)
        assert (offer["name"], offer["machine"], offer["running"]) == ("shop", "laptop", first)
        assert waiting.order(second)["state"] == "queued"
        # What the system shows of a process is for every user of the machine.
        shown = [processes.command_line(pid) for pid in processes.descendants(process.pid)]
        assert any(first in each for each in shown)
        assert not any("token" in each.lower() for each in shown)
        waiting.go_on()
        waiting.wait_for(first, "done")
        waiting.wait_for(second, "failed")

        expect(process, f"{first} from the page: wait, then fix it")
        expect(process, f"{first} has ended with exit code 0; waiting for the next one")
        expect(process, f"{second} has ended with exit code 3; waiting for the next one")
        assert process.stdout.count(b"READY") == 2
        process.signal(signal.SIGINT)
        assert process.wait() == 130
        said = process.stderr

    assert waiting.started == ["wait, then fix it", "fail"]
    assert waiting.offer(waiter_id) is None
    # Who has the key can take the folder's runs.
    kept = [waiting.data_dir / "wait", *(waiting.data_dir / "wait").rglob("*")]
    assert {each.name for each in kept} >= {"key", "claims", "lock"}
    assert [each for each in kept if each.stat().st_mode & 0o077] == []
    key = next(each for each in kept if each.name == "key").read_text()
    assert key not in said
    assert key.encode() not in gw.database_file.read_bytes()


def test_ctrl_c_in_a_run_ends_it_and_waiting_too(gw: EmbeddedGateway, tmp_path: Path) -> None:
    """At a terminal the key is for both. What is queued stays so, and comes when it waits again."""
    waiting = Waiting(gw, tmp_path)
    with Terminal(waiting.launch.argv, env=waiting.launch.env, cwd=tmp_path) as terminal:
        waiter_id = waiting.pair(terminal)
        first = waiting.send(waiter_id, "wait")
        terminal.expect(b"READY")
        second = waiting.send(waiter_id, "next")
        terminal.send(b"\x03")
        assert terminal.wait(WITHIN_S) == 130

    run = gw.api("GET", f"/api/runs/{first}").json()
    assert (run["status"], run["reason"], run["exit_code"]) == ("failed", "stopped", 130)
    waiting.wait_for_order(second, state="queued", is_here=False)
    assert waiting.started == ["wait"]
    with waiting.start() as process:
        waiting.wait_for(second, "done")
        process.signal(signal.SIGTERM)
        assert process.wait() == 143
        assert "enter the code" not in process.stderr
    assert waiting.started == ["wait", "next"]


def test_the_page_chooses_within_what_the_owner_allowed(
    gw: EmbeddedGateway, tmp_path: Path
) -> None:
    """The mode and whether to ask; the owner's own options and arguments go with every run."""
    standin = StandIn(tmp_path, [[bash("make"), say("Made.")]])
    options = ["--ask", "remote", "--remote-max-mode", "acceptEdits", "--max-time", "5m"]
    arguments = ["--", "--permission-mode", "default", "--model", "opus"]
    waiting = Waiting(gw, tmp_path, *options, *arguments)
    waiting.run_program(standin.command)
    with waiting.start() as process:
        waiter_id = waiting.pair(process)
        offer = waiting.offer(waiter_id)
        assert (offer["asks"], offer["modes"]) == (True, ["plan", "default", "acceptEdits"])
        asking = waiting.send(waiter_id, "make it", mode="plan")
        waiting.wait_for(asking, "running")

        def answered() -> None:
            cards = gw.api("GET", f"/api/runs/{asking}/conversation").json()["open"]
            assert cards, process.stderr
            (card,) = cards
            body = {"id": card["id"], "digest": card["digest"], "decision": "allow"}
            assert gw.api("POST", f"/api/runs/{asking}/answer", body).status == 202

        eventually(answered, WITHIN_S)
        waiting.wait_for(asking, "done")
        quiet = waiting.send(waiter_id, "make it again", ask=False)
        waiting.wait_for(quiet, "done", "failed")
        on = waiting.send(waiter_id, "and go on", ask=False, resume=asking)
        waiting.wait_for(on, "done", "failed")
        process.signal(signal.SIGINT)
        process.wait()

    first, second, third = (each["argv"] for each in standin.all("started"))
    session = gw.api("GET", f"/api/runs/{asking}").json()["session_id"]
    assert f"--resume {session}" in " ".join(third)
    assert "--session-id" not in third
    assert " ".join(first).endswith("--model opus --permission-mode plan")
    assert "--permission-prompt-tool" in first
    assert "--permission-mode default --model opus" in " ".join(second)
    assert "--permission-prompt-tool" not in second
    assert gw.api("GET", f"/api/runs/{asking}").json()["modes"] == [
        *("plan", "default", "acceptEdits")
    ]


# --- what is refused -----------------------------------------------------------------------------


def test_where_it_does_not_wait(gw: EmbeddedGateway, tmp_path: Path) -> None:
    """Each is one sentence, before anything is offered."""
    before = gw.api("GET", "/api/offers").json()["unpaired"]

    def said(*options: str, **env: str) -> str:
        waiting = Waiting(gw, tmp_path, *options)
        done = run_to_end(waiting.launch.argv, {**waiting.launch.env, **env})
        assert done.returncode == 1
        return done.stderr.decode()

    plain = {"GATEWAY_URL": "http://192.0.2.1:3100", "CLAUDE_RUNNER_ALLOW_HTTP": "true"}
    assert "is not encrypted; use https" in said(**plain)
    assert "was not found" in said(CLAUDE_COMMAND="no-such-program")
    assert "one line of at most 60 characters" in said("--name", "n" * 61)
    assert "does not apply" in said("--ask", "remote", CLAUDE_RUNNER_FLAVOR="plain")
    assert "HMAC_SECRET" in said(HMAC_SECRET="of another gateway, and as long as that")
    with StrictGateway() as other:
        settings = {"GATEWAY_URL": other.url, "HMAC_SECRET": other.secret}
        assert "does not start runs in folders that wait" in said(**settings)
    assert gw.api("GET", "/api/offers").json()["unpaired"] <= before


def test_two_that_wait_in_one_folder(gw: EmbeddedGateway, tmp_path: Path) -> None:
    """The second is refused. One with a copied key takes the place of the first, which ends."""
    waiting = Waiting(gw, tmp_path)
    copied = tmp_path / "copied"
    with waiting.start() as process:
        waiting.pair(process)
        second = run_to_end(waiting.launch.argv, waiting.launch.env)
        assert second.returncode == 1
        assert b"offers" in second.stderr
        assert b"already; end it first" in second.stderr
        shutil.copytree(waiting.data_dir, copied)
        waiting.launch.argv[waiting.launch.argv.index(str(waiting.data_dir))] = str(copied)
        with waiting.start() as other:
            expect(other, "waits for runs")
            assert process.wait(WITHIN_S) == 1
            assert "another `wait` has taken the place of this one" in process.stderr
            assert "enter the code" not in other.stderr
            other.signal(signal.SIGINT)
            assert other.wait() == 130


def test_a_gateway_that_sends_more_than_was_allowed(gw: EmbeddedGateway, tmp_path: Path) -> None:
    """The folder's owner has the last word: nothing is started, and the page is told why."""
    waiting = Waiting(gw, tmp_path)
    with waiting.start() as process:
        waiter_id = waiting.pair(process)
        held = waiting.send(waiter_id, "wait")
        waiting.wait_for(held, "running")
        changes = ["mode = 'bypassPermissions'", "ask = 1"]
        runs = [waiting.send(waiter_id, "more") for _ in changes]
        with closing(sqlite3.connect(gw.database_file)) as database:
            for run_id, change in zip(runs, changes):
                database.execute(f"UPDATE orders SET {change} WHERE run_id = ?", (run_id,))
            database.commit()
        waiting.go_on()
        waiting.wait_for_order(runs[0], state="refused", reason="this mode is not allowed here")
        reason = "questions to the page are not allowed here"
        waiting.wait_for_order(runs[1], state="refused", reason=reason)
        # An old hand-out, as from a copy of the database that was put back.
        with closing(sqlite3.connect(gw.database_file)) as database:
            database.execute("UPDATE runs SET status = 'pending' WHERE id = ?", (held,))
            database.execute("UPDATE orders SET state = 'queued' WHERE run_id = ?", (held,))
            database.commit()
        last = waiting.send(waiter_id, "last")  # which wakes the folder
        waiting.wait_for_order(held, state="refused", reason="it was taken here before")
        waiting.wait_for(last, "done")
        process.signal(signal.SIGINT)
        process.wait()
    assert waiting.started == ["wait", "last"]


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [(7, "not text"), ("-", "empty"), ("a\0b", "not text"), ("\ud800", "half a character"),
     ("x\udc80", "half a character"), ("é" * 50_001, "too long"), ("é" * 50_000, None)],
)  # fmt: skip
def test_a_prompt_that_is_none(prompt: Any, reason: str | None) -> None:
    """Whatever a gateway sends, `wait` goes on."""
    order = waiting_tool._Order("run_1", 1, prompt, None, None, None, None)
    refusal = waiting_tool._why_not(order, HERE)
    assert refusal is None if reason is None else reason in str(refusal)


HERE = cast("Any", SimpleNamespace(asking=None, cwd="/srv/shop"))


@pytest.mark.parametrize(
    ("resume", "folder", "reason"),
    [("5e55", "/srv/shop", None), ("5e55", "/srv/other", "another folder"),
     ("5e55", None, "another folder"), ("--model", "/srv/shop", "no id"),
     (7, "/srv/shop", "no id")],
)  # fmt: skip
def test_a_session_goes_on_where_it_was(resume: Any, folder: Any, reason: str | None) -> None:
    """Elsewhere Claude Code would not find it, and begin nothing."""
    order = waiting_tool._Order("run_1", 1, "go on", None, None, resume, folder)
    refusal = waiting_tool._why_not(order, HERE)
    assert refusal is None if reason is None else reason in str(refusal)


# --- what goes wrong -----------------------------------------------------------------------------


def test_the_gateway_goes_and_comes_back(tmp_path: Path) -> None:
    """Killed while it waits, and while a run goes on: the folder is there again by itself."""
    with EmbeddedGateway(tmp_path / "gateway", "--port", str(free_port())) as own:
        waiting = Waiting(own, tmp_path)
        with waiting.start() as process:
            waiter_id = waiting.pair(process)
            own.kill()
            expect(process, "the gateway does not answer")
            own.start()
            first = waiting.send(waiter_id, "wait")
            waiting.wait_for(first, "running")
            second = waiting.send(waiter_id, "wait again")
            own.kill()
            own.start()
            waiting.go_on()
            waiting.wait_for(first, "done")
            (waiting.folder / "go on").unlink()
            waiting.wait_for(second, "running")
            eventually(lambda: _is(waiting.started == ["wait", "wait again"]), WITHIN_S)
            # Without a terminal no key is for both: the signal goes on to the run.
            process.signal(signal.SIGINT)
            assert process.wait(WITHIN_S) == 130
            assert own.api("GET", f"/api/runs/{second}").json()["reason"] == "stopped"
            assert "the gateway answers again" in process.stderr
        assert waiting.started == ["wait", "wait again"]


def _is(condition: object) -> None:
    assert condition


class Relay:
    """Stands between a folder and its gateway, and loses the answers to the first requests."""

    def __init__(self, gw: EmbeddedGateway, **lost: int) -> None:
        self.lost = lost
        self.open: list[socket.socket] = []
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._pass_on(body)

            def do_GET(self) -> None:
                self._pass_on(b"")

            def _pass_on(self, body: bytes) -> None:
                headers = {**self.headers, "Host": f"127.0.0.1:{gw.port}"}
                with closing(http.client.HTTPConnection("127.0.0.1", gw.port)) as upstream:
                    upstream.connect()
                    relay.open.append(upstream.sock)
                    upstream.request(self.command, self.path, body, headers)
                    try:
                        answer = upstream.getresponse()
                        content = answer.read()
                    except (OSError, http.client.HTTPException):
                        self.close_connection = True
                        return
                if relay.loses(self.path):
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def loses(self, path: str) -> bool:
        """Whether this answer is one of those that are lost."""
        name = path.partition("?")[0].rpartition("/")[2]
        self.lost[name] = self.lost.get(name, 0) - 1
        return self.lost[name] >= 0

    @contextmanager
    def running(self) -> Iterator[str]:
        """Listen inside the block; yield the address."""
        thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{self.server.server_address[1]}"
        finally:
            self.server.shutdown()
            thread.join()
            for each in self.open:
                with suppress(OSError):  # a long poll that nobody waits for
                    each.shutdown(socket.SHUT_RDWR)
            self.server.server_close()


def test_answers_are_lost(gw: EmbeddedGateway, tmp_path: Path) -> None:
    """Those that let it in, that offer a run, and that hand it out: it is started once."""
    with Relay(gw, offers=2, take=2).running() as url:
        waiting = Waiting(gw, tmp_path, url=url)
        with waiting.start() as process:
            run_id = waiting.send(waiting.pair(process), "once")
            waiting.wait_for(run_id, "done")
            expect(process, "has ended with exit code 0")
            process.signal(signal.SIGINT)
            assert process.wait(WITHIN_S) == 130
    assert waiting.started == ["once"]


# Kills `wait` before or after one of its steps, the first time.
KILLED_AT = """
import os, sys
sys.path.insert(0, sys.argv.pop(1))
owner, name, moment = sys.argv.pop(1), sys.argv.pop(1), sys.argv.pop(1)
import claude_runner, tools.waiting, subprocess
holder = getattr(tools.waiting, owner, subprocess)
step = getattr(holder, name)
def killing(*values, **named):
    if moment == "before":
        os.kill(os.getpid(), 9)
    step(*values, **named)
    os.kill(os.getpid(), 9)
setattr(holder, name, killing)
sys.exit(claude_runner.main())
"""
BEFORE_IT_IS_TAKEN = ("_Waiting", "_take", "before")
AFTER_IT_IS_TAKEN = ("_Waiting", "_take", "after")
AFTER_IT_IS_NOTED = ("_Place", "claim", "after")
AFTER_IT_IS_STARTED = ("subprocess", "Popen", "after")


def test_it_is_killed_at_each_step(gw: EmbeddedGateway, tmp_path: Path) -> None:
    """`kill -9`, again and again: nothing is started twice, and nothing restarts by itself.

    What was not taken is still queued. What was handed out and did not begin is shown so, until a
    person sends it again. What began goes on, and nothing is started beside it.
    """
    waiting = Waiting(gw, tmp_path)
    argv = list(waiting.launch.argv)

    def be_killed(*where: str, sends: str = "") -> str:
        waiting.launch.argv[:] = [argv[0], "-c", KILLED_AT, str(ROOT), *where, *argv[2:]]
        with waiting.start() as process:
            run_id = waiting.send(waiter_id, sends) if sends else ""
            assert process.wait(WITHIN_S) == -signal.SIGKILL, process.stderr
        waiting.launch.argv[:] = argv
        return run_id

    with waiting.start() as process:
        waiter_id = waiting.pair(process)
        process.signal(signal.SIGINT)
        process.wait()
    taken = be_killed(*BEFORE_IT_IS_TAKEN, sends="first")
    assert waiting.order(taken)["state"] == "queued"
    be_killed(*AFTER_IT_IS_TAKEN)
    noted = be_killed(*AFTER_IT_IS_NOTED, sends="second")
    waiting.launch.argv[:] = [argv[0], "-c", KILLED_AT, str(ROOT), *AFTER_IT_IS_STARTED, *argv[2:]]
    with waiting.start() as process:
        started = waiting.send(waiter_id, "wait")
        assert process.wait(WITHIN_S) == -signal.SIGKILL, process.stderr
        waiting.wait_for(started, "running")
        waiting.launch.argv[:] = argv
        beside = run_to_end(waiting.launch.argv, waiting.launch.env)
        assert beside.returncode == 1
        assert f"run {started} of an earlier `wait` still goes on here".encode() in beside.stderr
        waiting.go_on()
        waiting.wait_for(started, "done")
        waiting.wait_for_end(started)

    with waiting.start() as process:
        waiting.wait_for_order(started, state="started", may_send=False)
        waiting.wait_for_order(taken, state="taken", may_send=True, began=False)
        # What was noted is reported by the next one.
        waiting.wait_for_order(noted, state="failed", may_send=True, began=False)
        assert waiting.started == ["wait"]
        for run_id in (taken, noted):
            assert gw.api("POST", f"/api/runs/{run_id}/send-again", {}).status == 200
            waiting.wait_for(run_id, "done")
        process.signal(signal.SIGINT)
        assert process.wait() == 130
    assert waiting.started == ["wait", "first", "second"]


# Presses Ctrl-C when it has decided to start a run, and has not yet.
PRESSED_AT = """
import os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
import claude_runner, subprocess
start = subprocess.Popen
def pressing(*values, **named):
    if "env" in named:
        os.kill(os.getpid(), signal.SIGINT)
    return start(*values, **named)
subprocess.Popen = pressing
sys.exit(claude_runner.main())
"""


def test_ctrl_c_just_before_a_run_begins_ends_it(gw: EmbeddedGateway, tmp_path: Path) -> None:
    """The key came too early for the run to get it from the terminal."""
    waiting = Waiting(gw, tmp_path)
    argv = waiting.launch.argv
    argv[:] = [argv[0], "-c", PRESSED_AT, str(ROOT), *argv[2:]]
    with Terminal(argv, env=waiting.launch.env, cwd=tmp_path) as terminal:
        waiting.send(waiting.pair(terminal), "wait")
        assert terminal.wait(WITHIN_S) == 130


def test_a_run_that_cannot_begin(gw: EmbeddedGateway, tmp_path: Path) -> None:
    """The page is told that it did not, and the folder waits for the next one."""
    waiting = Waiting(gw, tmp_path)
    tool = tmp_path / "tool"
    tool.write_text(f'#!/bin/sh\nexec {waiting.launch.env["CLAUDE_COMMAND"]} "$@"\n')
    tool.chmod(0o700)
    waiting.run_program([str(tool)])
    with waiting.start() as process:
        waiter_id = waiting.pair(process)
        tool.rename(tmp_path / "elsewhere")
        run_id = waiting.send(waiter_id, "go")
        waiting.wait_for_order(run_id, state="failed", exit_code=1, began=False, may_send=True)
        (tmp_path / "elsewhere").rename(tool)
        assert gw.api("POST", f"/api/runs/{run_id}/send-again", {}).status == 200
        waiting.wait_for(run_id, "done")
        process.signal(signal.SIGINT)
        process.wait()
    assert waiting.started == ["go"]
