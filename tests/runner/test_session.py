"""A run in print mode, from the first marker to the exit code, against a real gateway."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from testing.gateways.faults import Delay, Fault
from testing.gateways.gateway_records import AnyGateway
from testing.gateways.strict_gateway import StrictGateway
from testing.programs import processes
from testing.programs.children.floods import line as flood_line
from testing.programs.children.not_utf8 import OUTPUT as NOT_UTF8
from testing.programs.runner import CLAUDE, Kind, Launch, RunnerProcess, child, plan, program
from testing.waiting import eventually

# Lives until it is told to end.
WAITS = program("import os, signal; print('READY', os.getpid(), flush=True); signal.pause()")


pytestmark = pytest.mark.gateway_pairs


def run_to_end(launch: Launch) -> int:
    """Run it, let the gateway judge, and return the exit code."""
    with RunnerProcess(launch) as runner:
        code = runner.wait()
    assert launch.gateway.verify_finished(launch.run.id) == []
    return code


def finished(launch: Launch) -> dict[str, Any]:
    """Return the `finished` marker."""
    (marker,) = launch.gateway.markers(launch.run.id, "finished")
    return marker


# --- what the gateway is told ----------------------------------------------------------------


def test_markers_frame_the_run(gw: AnyGateway, tmp_path: Path, kind: Kind) -> None:
    """`started` is the first event and `finished` the last, with all fields of the protocol."""
    says = program("import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr)")
    (tmp_path / "package.json").touch()
    launch = plan(gw, says, tmp_path, prompt="say it", options=["-q"], kind=kind)

    assert run_to_end(launch) == 0

    events = gw.events(launch.run.id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert (gw.text(launch.run.id), gw.text(launch.run.id, "stderr")) == ("out\n", "err\n")
    started, end = json.loads(events[0].data), json.loads(events[-1].data)
    assert started.pop("commands")[:2] == ["npm test", "npm run test"]
    assert started.pop("command") == shlex.join([*says, "say it"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", started.pop("version"))
    assert started == {
        "event": "started",
        "prompt": "say it",
        "workingDir": str(tmp_path),
        "runner": kind.name,
        "mode": "print",
        "columns": 120,
        "lines": 40,
        "project": ["npm"],
        "remoteInput": False,
        **({"options": {"ask": "never"}} if kind is CLAUDE else {}),
    }
    assert end.pop("durationMs") > 0
    assert {name: end.pop(name) for name in ("events", "bytes", "sha256", "refused")}
    assert end == {
        "event": "finished",
        "exitCode": 0,
        "signal": None,
        "reason": "exited",
        "childExitCode": 0,
        "whole": True,
        "lostBytes": 0,
    }


@pytest.mark.parametrize(
    ("how", "code", "expected"),
    [
        pytest.param("3", 3, ("exited", None, 3), id="its own"),
        pytest.param("SIGSEGV", 139, ("killed", "SIGSEGV", None), id="a signal"),
        pytest.param("SIGKILL", 137, ("killed", "SIGKILL", None), id="SIGKILL"),
        pytest.param("RT", 128 + 40, ("killed", "SIG40", None), id="a signal without a name"),
    ],
)
def test_exit_code_is_the_childs(
    gw: AnyGateway,
    tmp_path: Path,
    kind: Kind,
    how: str,
    code: int,
    expected: tuple[str, str | None, int | None],
) -> None:
    """The runner exits as the child did, 128+N for signal N, and the marker says which it was."""
    command = child("exits.py", how)
    if how == "RT":
        if not hasattr(signal, "SIGRTMIN"):
            pytest.skip("this system has no real-time signals")
        command = program("import os; os.kill(os.getpid(), 40)")
    launch = plan(gw, command, tmp_path, kind=kind)

    assert run_to_end(launch) == code

    end = finished(launch)
    assert (end["reason"], end["signal"], end["childExitCode"]) == expected
    assert end["exitCode"] == code


def test_a_child_that_cannot_be_started(gw: AnyGateway, tmp_path: Path, kind: Kind) -> None:
    """An exec that fails is told on both sides, ends the run with 1, and is no exit of a child."""
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x00 no program\n")
    broken.chmod(0o755)
    launch = plan(gw, [str(broken)], tmp_path, kind=kind)

    with RunnerProcess(launch) as runner:
        assert runner.wait() == 1
        told = runner.stderr

    assert "could not be started" in told
    assert "Traceback" not in told
    assert "could not be started" in gw.text(launch.run.id, "error")
    end = finished(launch)
    assert (end["reason"], end["childExitCode"], end["exitCode"]) == ("error", None, 1)
    assert gw.verify_finished(launch.run.id) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(
            "#!/no/such/interpreter\n", "the interpreter named in its first", id="interpreter"
        ),
        pytest.param(
            "echo hello\n", "a script without a first line like #!/bin/sh", id="no-program"
        ),
    ],
)
def test_why_a_script_does_not_start_is_told_in_words(
    gw: AnyGateway, tmp_path: Path, text: str, words: str
) -> None:
    """An errno says nothing to the person who has to correct the script."""
    script = tmp_path / "script"
    script.write_text(text)
    script.chmod(0o755)
    launch = plan(gw, [str(script)], tmp_path)

    assert run_to_end(launch) == 1

    told = gw.text(launch.run.id, "error")
    assert words in told
    assert "Errno" not in told


def test_a_run_is_started_only_once(gw: AnyGateway, tmp_path: Path, kind: Kind) -> None:
    """A run id that was used here before is refused, with exit code 1 and no second child."""
    mark = tmp_path / "mark"
    launch = plan(gw, program(f"open({str(mark)!r}, 'a').write('x')"), tmp_path, kind=kind)
    run_to_end(launch)

    with RunnerProcess(launch) as runner:
        assert runner.wait() == 1
        assert "create a new run" in runner.stderr

    assert mark.read_text() == "x"
    assert len(gw.markers(launch.run.id, "started")) == 1


# --- what the child gets ---------------------------------------------------------------------

NASTY = b'-v "it\'s"\t$(touch owned) `touch owned`; touch owned\n\n--help \\ %s \xc3\xa9 end \n'


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        pytest.param(NASTY, [], id="quotes, newlines, dollars"),
        pytest.param(b"bytes \xff\xfe that are no text", [], id="not UTF-8"),
        pytest.param(b"from\nstdin \xff\n", ["--cmd", "-"], id="from stdin"),
    ],
)
def test_the_prompt_is_one_argument(
    gw: AnyGateway, tmp_path: Path, kind: Kind, prompt: bytes, options: list[str]
) -> None:
    """The prompt reaches the child byte for byte as its last argument, and no shell sees it."""
    launch = plan(
        gw,
        child("echo_args.py", "first"),
        tmp_path,
        prompt=None if options else prompt,
        options=options,
        arguments=["--", "$HOME"],
        kind=kind,
    )

    with (tmp_path / "stdin").open("w+b") as stdin:
        stdin.write(prompt)
        stdin.seek(0)
        with RunnerProcess(launch, stdin=stdin) as runner:
            assert runner.wait() == 0

    told = json.loads(launch.log)
    before = [b"first", b"--", b"$HOME", *map(os.fsencode, kind.before_prompt)]
    assert [os.fsencode(item) for item in told["argv"]] == [*before, prompt]
    assert told["cwd"] == str(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_print_mode_has_terminals_for_output_alone(
    gw: AnyGateway, tmp_path: Path, kind: Kind
) -> None:
    """In print mode stdin is empty, 1 and 2 are terminals of 40 x 120, lines end in newlines."""
    launch = plan(gw, child("tty_report.py"), tmp_path, kind=kind)

    assert run_to_end(launch) == 0

    lines = re.sub(r"READY \d+", "READY", gw.text(launch.run.id)).split("\n")
    assert lines[:3] == ["TTY 0 1 1", "SIZE 120 40", "FOREGROUND yes"]
    assert lines[-3:] == ["READY", "EOF", ""]


def test_the_child_is_born_clean(gw: AnyGateway, tmp_path: Path) -> None:
    """The child inherits no ignored or blocked signal, and no descriptor but the standard ones."""
    command = child("reports_signals.py")
    source = "import os; print(sorted(int(n) for n in os.listdir('/dev/fd')), flush=True); "
    launch = plan(gw, program(f"{source}os.execv({command[0]!r}, {command!r})"), tmp_path)

    assert run_to_end(launch) == 0

    # Descriptor 3 is the listing itself.
    assert gw.text(launch.run.id).startswith("[0, 1, 2, 3]\nIGNORED \nBLOCKED \nREADY ")


def test_secrets_stay_in_the_runner(gw: AnyGateway, tmp_path: Path, kind: Kind) -> None:
    """Secret and token are not in the child's environment, nor in any file, nor on the screen."""
    names = "HMAC_SECRET,CLAUDE_RUNNER_TOKEN,KEPT"
    launch = plan(
        gw,
        child("echo_args.py"),
        tmp_path,
        prompt=f"my secret is {gw.secret}",
        env={"ECHO_ENV": names, "KEPT": "yes"},
        kind=kind,
    )

    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0
        shown = runner.stdout

    told = json.loads(shown)
    assert told["env"] == {"KEPT": "yes"}
    assert told["argv"] == [*kind.before_prompt, "my secret is [REDACTED]"]
    for path in launch.data_dir.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for secret in (gw.secret, launch.run.token):
            assert secret.encode() not in content, path


def test_files_are_private(gw: AnyGateway, tmp_path: Path) -> None:
    """What the runner writes is for its user alone; what the child writes follows the umask."""
    (tmp_path / "notes.md").write_text("a note\n")
    launch = plan(
        gw,
        program(f"open('made-by-child', 'w'); {WAITS[-1]}"),
        tmp_path,
        options=["--artifact", str(tmp_path / "notes.md")],
    )
    old_mask = os.umask(0o022)
    try:
        with RunnerProcess(launch) as runner:
            launch.expect("READY")
            gw.queue_command(launch.run.id, "git diff")
            gw.wait_for(lambda: gw.acks(launch.run.id))
            # Looked at while it runs: the journal's log is gone afterwards.
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in launch.run_dir.rglob("*")}
            gw.stop(launch.run.id)
            runner.wait()
    finally:
        os.umask(old_mask)
    modes.update({path: stat.S_IMODE(path.stat().st_mode) for path in launch.run_dir.rglob("*")})

    assert {path.name for path in modes} >= {"claude.log", "spool.db", "spool.db-wal", "1.md"}
    for path, mode in modes.items():
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE(launch.data_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "made-by-child").stat().st_mode) == 0o644


# --- output ----------------------------------------------------------------------------------


def test_the_log_is_written_as_it_grows(gw: AnyGateway, tmp_path: Path, kind: Kind) -> None:
    """The log has each line while the child still runs, redacted, and is uploaded at the end."""
    token = "ghp_" + "a1B2" * 9
    says = program(
        "import os, sys; print('READY', os.getpid(), sys.argv[-1], flush=True); "
        "import signal; signal.pause()"
    )
    launch = plan(gw, says, tmp_path, prompt=token, kind=kind)

    with RunnerProcess(launch) as runner:
        pid = int(launch.expect(r"READY (\d+) \[REDACTED\]\n").group(1))
        assert launch.log == b"READY %d [REDACTED]\n" % pid
        os.kill(pid, signal.SIGTERM)
        assert runner.wait() == 128 + signal.SIGTERM

    (artifact,) = gw.artifacts(launch.run.id)
    assert (artifact.name, artifact.data) == (kind.log_name, launch.log)


def test_bytes_that_are_not_text(gw: AnyGateway, tmp_path: Path, kind: Kind) -> None:
    """Bytes that are not UTF-8 stay as they are in the log and on the screen, not on the wire."""
    launch = plan(gw, child("not_utf8.py"), tmp_path, kind=kind)

    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0
        shown = runner.stdout

    assert launch.log == shown == NOT_UTF8
    assert gw.text(launch.run.id) == NOT_UTF8.decode("utf-8", "replace")
    assert gw.verify_finished(launch.run.id) == []


def test_nothing_is_split_over_events(gw: AnyGateway, tmp_path: Path, kind: Kind) -> None:
    """A character or an escape sequence that comes byte by byte is in one event as a whole."""
    pieces = ["é", "\x1b[31m", "\x1b]0;t\x07"]
    raw = "".join(pieces).encode() + b"\n"
    # Slower than the pause after which held output is shown, so that it must be held on purpose.
    launch = plan(gw, child("prints_bytewise.py", raw.hex(), "60"), tmp_path, kind=kind)

    assert run_to_end(launch) == 0

    events = [event.data for event in gw.events(launch.run.id, "stdout")]
    assert "".join(events).encode() == raw
    for piece in pieces:
        assert any(piece in data for data in events), (piece, events)


def test_a_flood_arrives_whole(gw: StrictGateway, tmp_path: Path) -> None:
    """Megabytes written at once, with a slow gateway, arrive complete and in order everywhere."""
    gw.faults.add(Fault("event", Delay(0.2), times=3))
    launch = plan(gw, child("floods.py", "3"), tmp_path)
    expected = b"".join(flood_line(number) for number in range(30_000))

    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0
        assert runner.stdout == expected

    assert gw.text(launch.run.id).encode() == expected
    assert gw.artifacts(launch.run.id)[0].data == expected
    assert gw.verify_finished(launch.run.id) == []


def test_large_events_end_between_escape_sequences(gw: StrictGateway, tmp_path: Path) -> None:
    """Where much output is cut into events, the cut is never inside an escape sequence."""
    gw.faults.add(Fault("event", Delay(1.0)))
    source = r"import sys; sys.stdout.write('\x1b[38;5;%dm€' % 196 * 150_000 + '\n')"
    launch = plan(gw, program(source), tmp_path)

    assert run_to_end(launch) == 0

    events = [event.data for event in gw.events(launch.run.id, "stdout")]
    assert len(events) > 1
    for data in events:
        assert not re.search(r"\x1b(\[[0-9;]*)?\Z", data), data[-20:]


def test_a_grandchild_with_the_terminal_does_not_keep_the_run(
    gw: AnyGateway, tmp_path: Path
) -> None:
    """A descendant that left the session and holds the terminal is gone, which is told."""
    launch = plan(gw, child("leaves_grandchild.py"), tmp_path)

    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0
        told = runner.stderr

    assert launch.gateway.verify_finished(launch.run.id) == []
    sentence = re.search(
        r"left 1 process running, which ended with the run: .*leaves_grand.*", told
    )
    assert sentence is not None, told
    assert gw.text(launch.run.id, "info").endswith(sentence[0].strip())

    assert finished(launch)["reason"] == "exited"
    assert re.fullmatch(r"GRANDCHILD \d+\n", gw.text(launch.run.id))


def test_the_last_words_of_a_descendant_arrive(gw: AnyGateway, tmp_path: Path) -> None:
    """What a background process says soon after the child's end is part of the output."""
    source = (
        "import os, time\n"
        "reader, writer = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.close(writer)\n"
        "    os.read(reader, 1)\n"  # the parent is gone
        "    time.sleep(0.3)\n"
        "    os.write(1, b'last words\\n')\n"
        "    os._exit(0)\n"
        "os._exit(0)\n"
    )
    launch = plan(gw, program(source), tmp_path)

    assert run_to_end(launch) == 0

    assert gw.text(launch.run.id) == "last words\n"


# --- who reads locally -----------------------------------------------------------------------


def test_a_local_reader_that_has_gone(gw: AnyGateway, tmp_path: Path) -> None:
    """With `| head -1` the run goes on to its end, and all of its output arrives."""
    launch = plan(gw, child("lines.py", "2000", "0"), tmp_path)
    reader, writer = os.pipe()

    with RunnerProcess(launch, stdout=writer) as runner:
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        assert runner.wait() == 0
        assert "Broken pipe" not in runner.stderr

    assert gw.text(launch.run.id).endswith("LAST\n")
    assert gw.verify_finished(launch.run.id) == []


@pytest.mark.parametrize("stream", ["stdout", "all"])
def test_a_child_that_closes_its_output(gw: AnyGateway, tmp_path: Path, stream: str) -> None:
    """The end of the output is not the end of the run; that is the child's, with its code."""
    numbers = "1" if stream == "stdout" else "0, 1, 2"
    source = (
        f"import os, pathlib; print('before', flush=True); [os.close(n) for n in ({numbers},)]\n"
        "while not os.path.exists('go'): pathlib.Path('closed').touch()\n"
        "os._exit(4)"
    )
    launch = plan(gw, program(source), tmp_path)

    with RunnerProcess(launch) as runner:
        launch.expect("before")
        eventually(lambda: _expect_file(tmp_path / "closed"))
        assert gw.markers(launch.run.id, "finished") == []
        (tmp_path / "go").touch()
        assert runner.wait() == 4

    assert gw.verify_finished(launch.run.id) == []


def _expect_file(path: Path) -> None:
    assert path.exists()


def test_a_program_that_makes_itself_a_daemon(gw: AnyGateway, tmp_path: Path) -> None:
    """What it leaves behind belongs to the run and is gone within 2 s of the program's own end."""
    source = """
import os, signal, time
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.write(writer, b"%d" % os.getpid())
    while True:
        signal.pause()
pid = int(os.read(reader, 20))
print("READY", pid, time.monotonic(), flush=True)
"""
    launch = plan(gw, program(source), tmp_path)

    with RunnerProcess(launch) as runner:
        found = launch.expect(r"READY (\d+) ([\d.]+)\n")
        assert runner.wait() == 0
        (end,) = [each for each in gw.events(launch.run.id) if '"finished"' in each.data]

    processes.assert_gone([int(found.group(1))])
    assert end.received_at - float(found.group(2)) < 2.0


def test_a_local_reader_that_has_stopped(gw: AnyGateway, tmp_path: Path) -> None:
    """A pipe that nobody reads blocks neither the child nor the end of the run."""
    launch = plan(gw, child("floods.py", "1"), tmp_path)
    reader, writer = os.pipe()

    try:
        with RunnerProcess(launch, stdout=writer, stderr=writer) as runner:
            os.close(writer)
            assert runner.wait() == 0
    finally:
        os.close(reader)

    assert len(gw.text(launch.run.id)) == 1_000_000
    assert gw.verify_finished(launch.run.id) == []


def test_a_slow_local_reader_gets_everything(gw: AnyGateway, tmp_path: Path) -> None:
    """A reader that only begins when the child is long gone still gets all of the output."""
    launch = plan(gw, child("floods.py", "1"), tmp_path)
    reader, writer = os.pipe()

    with RunnerProcess(launch, stdout=writer) as runner:
        os.close(writer)
        launch.expect(flood_line(9_999).decode())
        received = bytearray()
        while piece := os.read(reader, 65_536):
            received += piece
        os.close(reader)
        assert runner.wait() == 0

    assert bytes(received) == b"".join(flood_line(number) for number in range(10_000))


def test_a_pipe_is_left_as_it_was(gw: AnyGateway, tmp_path: Path) -> None:
    """No O_NONBLOCK stays on descriptors that other processes share with the runner."""
    launch = plan(gw, child("exits.py", "0", "word"), tmp_path)
    reader, writer = os.pipe()

    with RunnerProcess(launch, stdin=reader, stdout=writer, stderr=writer) as runner:
        assert runner.wait() == 0

    assert os.get_blocking(writer)
    assert os.get_blocking(reader)
    os.close(writer)
    assert os.read(reader, 100) == b"word go\n"
    os.close(reader)


def test_tee_gets_messages_and_output(gw: AnyGateway, tmp_path: Path) -> None:
    """`2>&1 | tee debug.log` shows and keeps the child's output and the runner's own messages."""
    launch = plan(
        gw,
        program("import sys; print('out', flush=True); print('err', file=sys.stderr)"),
        tmp_path,
        options=["--artifact", "later.md"],
    )
    command = f"{shlex.join(launch.argv)} 2>&1 | tee {tmp_path}/debug.log; exit ${{PIPESTATUS[0]}}"

    done = subprocess.run(
        ["bash", "-c", command],
        env=launch.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0
    assert done.stderr == b""
    assert (tmp_path / "debug.log").read_bytes() == done.stdout
    lines = done.stdout.decode().splitlines()
    assert {"out", "err"} <= set(lines)
    assert lines[0].startswith("claude-runner: --artifact later.md does not exist yet")


def test_a_missing_artifact_is_told(gw: AnyGateway, tmp_path: Path, kind: Kind) -> None:
    """An artifact that appears late is uploaded, redacted; one that is missing or empty is told."""
    token = "npm_" + "Zz09" * 9
    source = f"open('made.txt', 'w').write('token ' + 'npm_' + {token[4:]!r} + ' end')"
    (tmp_path / "empty.txt").touch()
    names = ("made.txt", "never.md", "empty.txt")
    options = [word for name in names for word in ("--artifact", str(tmp_path / name))]
    launch = plan(gw, program(source), tmp_path, options=options, kind=kind)

    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0
        told = runner.stderr

    assert "never.md is not uploaded: No such file or directory" in told
    assert "empty.txt is not uploaded: it is empty" in told
    uploads = {each.name: each.data for each in gw.artifacts(launch.run.id)}
    assert uploads == {"made.txt": b"token [REDACTED] end"}  # and no empty log
