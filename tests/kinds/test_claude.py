"""What the runner does for Claude Code in particular, shown with a stand-in of that name."""

from __future__ import annotations

import contextlib
import functools
import json
import shlex
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config import SECRET_VARIABLES
from kinds.claude import ClaudeProfile, is_claude_code
from testing.gateways.strict_gateway import StrictGateway
from testing.programs.runner import ROOT, Launch, RunnerProcess, plan, program
from testing.programs.terminal import Terminal
from testing.tables import each_row

# Prints the messages in the file beside it, if it is asked for the JSON stream; else plain text.
STAND_IN = """#!{python} -IS
import json, os, pathlib, sys
folder = pathlib.Path(sys.argv[0]).parent
folder.joinpath("argv").write_text(json.dumps(sys.argv[1:]))
folder.joinpath("env").write_text(json.dumps(dict(os.environ)))
if "stream-json" in sys.argv:
    print(folder.joinpath("messages").read_text(), end="")
else:
    print('{{"no": "stream"}} plain')
"""
STREAM = ("--output-format", "stream-json")
# Its title stays as it is, as in tmux; it notes what it does, which each key changes.
NOTES = """#!{python} -IS
import json, os, pathlib, termios
folder = pathlib.Path(os.environ["HOME"], ".claude", "sessions")
folder.mkdir(parents=True)
def note(status):
    print("\\x1b]0;\u2733 Claude Code\\x07NOTED", status, flush=True)
    text = json.dumps({{"kind": "interactive", "status": status}})
    (folder / f"{{os.getpid()}}.json").write_text(text)
for status in ("idle", "busy", "waiting", "busy", "shell"):
    note(status)
    os.read(0, 100)
"""
# Changes its mind at once and often, and then waits.
FLICKERS = r"""
import os
def title(sign):
    os.write(1, f"\x1b]0;{sign} Claude Code\x07".encode())
title("\u25d0")
os.write(1, b"READY %d\n" % os.getpid())
os.read(0, 1)
for _ in range(200):
    title("\u2733")
    title("\u25d1")
title("\u2733")
os.write(1, b"FLICKERED\n")
os.read(0, 100)
"""
# Ends with 0 when it is interrupted, as Claude Code does.
TIDY = program(
    "import os, signal, sys; signal.signal(signal.SIGINT, lambda *_: sys.exit(0)); "
    "print('READY', os.getpid(), flush=True)\nwhile True: signal.pause()"
)


@pytest.fixture
def gw() -> Iterator[StrictGateway]:
    """A gateway with long polls and no rate limit; what it objects to fails the test."""
    with StrictGateway(rate_limit=None, long_poll=True) as gateway:
        yield gateway


def stand_in(folder: Path, *messages: Any) -> list[str]:
    """Make a program called `claude` that prints these messages; return the command."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    path = bin_folder / "claude"
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(0o755)
    lines = "".join(f"{json.dumps(each)}\n" for each in messages)
    (bin_folder / "messages").write_text(lines)
    return [str(path)]


def said(text: str) -> dict[str, Any]:
    """Return the message in which Claude Code says something."""
    return {"type": "assistant", "message": {"content": [{"type": "text", "text": text}]}}


def run_to_end(launch: Launch, code: int = 0) -> str:
    """Run it; return what the runner told."""
    with RunnerProcess(launch) as runner:
        assert runner.wait() == code, runner.stderr
        assert launch.gateway.verify_finished(launch.run.id) == []
        return runner.stderr


def refusal(launch: Launch) -> str:
    """Run what is refused; return the one line that says why."""
    with RunnerProcess(launch) as runner:
        assert runner.wait() == 1
        assert isinstance(launch.gateway, StrictGateway)
        assert launch.gateway.requests == []
        return runner.stderr


def finished(launch: Launch) -> dict[str, Any]:
    """Return the `finished` marker."""
    (marker,) = launch.gateway.markers(launch.run.id, "finished")
    return marker


# --- the JSON stream --------------------------------------------------------------------------


def test_messages_are_kept_redacted_and_uploaded(gw: StrictGateway, tmp_path: Path) -> None:
    """claude.jsonl has every message as JSON, without secrets, beside claude.log with the text."""
    token = "ghp_" + "a1B2" * 9
    messages = [said(f"It is\n{token}."), {"type": "new", "deep": [{"key": f"a {token}"}]}]
    launch = plan(gw, stand_in(tmp_path, *messages), tmp_path)

    run_to_end(launch)

    uploads = {each.name: each.data for each in gw.artifacts(launch.run.id)}
    assert sorted(uploads) == ["claude.jsonl", "claude.log"]
    kept = [json.loads(line) for line in uploads["claude.jsonl"].splitlines()]
    assert kept == [said("It is\n[REDACTED]."), {"type": "new", "deep": [{"key": "a [REDACTED]"}]}]
    assert "It is\n[REDACTED].\n" in uploads["claude.log"].decode()
    assert gw.text(launch.run.id) == uploads["claude.log"].decode()
    argv = json.loads((tmp_path / "bin" / "argv").read_text())
    (started,) = gw.markers(launch.run.id, "started")
    assert argv == ["-p", "--session-id", started["sessionId"], "--output-format", "stream-json",
                    "--verbose", "--", "go"]  # fmt: skip


def test_what_is_kept_of_the_result_is_redacted(gw: StrictGateway, tmp_path: Path) -> None:
    """No file of the run holds a known value that the result repeats: `sync` may not know it."""
    known = "Q7-a-value-of-the-user"
    denial = {"tool_name": f"mcp {known}", "tool_input": {}}
    result = {"type": "result", "subtype": "success", "permission_denials": [denial]}
    launch = plan(gw, stand_in(tmp_path, result), tmp_path, env={"SERVICE_TOKEN": known})

    run_to_end(launch)

    assert finished(launch)["result"]["permissionDenials"] == ["mcp [REDACTED]"]
    files = [path for path in launch.data_dir.rglob("*") if path.is_file()]
    assert not [path for path in files if known.encode() in path.read_bytes()]


def test_a_message_in_pieces_leaves_no_piece_of_a_secret(gw: StrictGateway, tmp_path: Path) -> None:
    """What comes in parts (`--include-partial-messages`) is kept once it is whole, and redacted."""
    token = "ghp_" + "a1B2" * 9
    parts = [token[:14], token[14:27], token[27:]]
    deltas = [{"type": "text_delta", "text": part} for part in parts]
    partial = [{"type": "stream_event", "event": {"delta": delta}} for delta in deltas]
    command = stand_in(tmp_path, *partial, said(token))
    launch = plan(gw, command, tmp_path, arguments=["--include-partial-messages"])

    run_to_end(launch)

    uploads = {each.name: each.data.decode() for each in gw.artifacts(launch.run.id)}
    assert json.loads(uploads["claude.jsonl"]) == said("[REDACTED]")
    assert not [part for part in parts for text in uploads.values() if part in text]


@pytest.mark.parametrize(
    ("options", "arguments"),
    [(["--output", "text"], []), ([], ["--output-format=json"]), ([], ["--output-format", "text"])],
    ids=["--output text", "the user's format", "the user's format, two words"],
)
def test_its_own_bytes(
    gw: StrictGateway, tmp_path: Path, options: list[str], arguments: list[str]
) -> None:
    """Where the stream is not wanted the output is Claude Code's own, and there is no jsonl."""
    command = stand_in(tmp_path, said("never shown"))
    launch = plan(gw, command, tmp_path, options=options, arguments=arguments)

    run_to_end(launch)

    assert gw.text(launch.run.id) == '{"no": "stream"} plain\n'
    assert [each.name for each in gw.artifacts(launch.run.id)] == ["claude.log"]
    assert "stream-json" not in (tmp_path / "bin" / "argv").read_text()


# --- its command line -------------------------------------------------------------------------


def given_argv(folder: Path) -> list[str]:
    """Return the arguments that the stand-in got."""
    argv: list[str] = json.loads((folder / "bin" / "argv").read_text())
    return argv


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--print"], ["--session-id", "ID", *STREAM, "--verbose", "--print", "--", "go"]),
        (["--verbose"], ["-p", "--session-id", "ID", *STREAM, "--verbose", "--", "go"]),
        (["--resume", "one"], ["-p", *STREAM, "--verbose", "--resume", "one", "--", "go"]),
        (["-c"], ["-p", *STREAM, "--verbose", "-c", "--", "go"]),
    ],
    ids=["print", "verbose", "resume", "continue"],
)
def test_what_the_user_chose_is_not_chosen_again(
    gw: StrictGateway, tmp_path: Path, arguments: list[str], expected: list[str]
) -> None:
    """An argument of the user's own is passed on, and the runner adds none that contradicts it."""
    launch = plan(gw, stand_in(tmp_path, said("hello")), tmp_path, arguments=arguments)

    told = run_to_end(launch)

    (started,) = gw.markers(launch.run.id, "started")
    session_id = started.get("sessionId")
    assert given_argv(tmp_path) == [session_id if each == "ID" else each for each in expected]
    # A session that the user named needs no word on how to go on with it.
    assert ("--resume" in told) is ("ID" in expected)


@pytest.mark.parametrize("word", ["doctor", "mcp", "update"])
def test_a_prompt_that_is_a_subcommand(gw: StrictGateway, tmp_path: Path, word: str) -> None:
    """A blank makes it a prompt for Claude Code 2.0 and older, which would run the subcommand."""
    launch = plan(gw, stand_in(tmp_path, said("hello")), tmp_path, prompt=word)

    run_to_end(launch)

    assert given_argv(tmp_path)[-2:] == ["--", f"{word} "]


@pytest.mark.parametrize("is_listening", [False, True])
def test_a_prompt_that_nobody_would_read(
    gw: StrictGateway, tmp_path: Path, is_listening: bool
) -> None:
    """With Claude Code's own message input the prompt would be lost, so the run is refused."""
    arguments = ["--input-format", "stream-json", "--output-format=stream-json", "--verbose"]
    options = ["--stay", "1s"] if is_listening else []

    told = refusal(plan(gw, stand_in(tmp_path), tmp_path, options=options, arguments=arguments))

    assert told == (
        "claude-runner: with --input-format stream-json Claude Code does not read the prompt; "
        "leave one of them out (--stay or --ask let you send further messages)\n"
    )


# What Claude Code 2.1.197 writes behind its last line.
RESETS = "\x1b[?1006l\x1b(B\x0f\x1b[>4m\x1b[<u\x1b[?25h\x1b7\x1b[r\x1b8\x1b]0;\x07"


@pytest.mark.parametrize("form", ["json", "stream-json"])
def test_what_only_its_terminal_needs_is_left_out(
    gw: StrictGateway, tmp_path: Path, form: str
) -> None:
    """A program behind a pipe reads JSON; no event, and no log, is a terminal's state alone."""
    command = stand_in(tmp_path, said("hello"))
    with open(command[0], "a") as script:
        script.write(f"print({RESETS!r}, end=''); print('\\x1b[?25h', end='', file=sys.stderr)\n")
    arguments = [] if form == "stream-json" else ["--output-format", form]
    launch = plan(gw, command, tmp_path, arguments=arguments)

    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0, runner.stderr
        shown = runner.stdout.decode()

    told = gw.text(launch.run.id)
    assert shown == told == ("hello\n" if form == "stream-json" else '{"no": "stream"} plain\n')
    assert gw.text(launch.run.id, "stderr") == ""
    assert b"\x1b" not in launch.log


def test_a_run_without_a_session_cannot_be_resumed(gw: StrictGateway, tmp_path: Path) -> None:
    """What Claude Code refused at once has no session, and no file that would be empty."""
    launch = plan(gw, stand_in(tmp_path), tmp_path)

    told = run_to_end(launch)

    assert "--resume" not in told
    assert gw.artifacts(launch.run.id) == []


def test_a_prompt_too_long_for_an_argument(gw: StrictGateway, tmp_path: Path) -> None:
    """It goes to Claude Code's stdin, whole."""
    prompt = "say hello. " * 20_000
    (tmp_path / "prompt").write_text(prompt)
    command = stand_in(tmp_path)
    reads = "import pathlib, sys; pathlib.Path({!r}).write_text(sys.stdin.read())\n"
    with open(command[0], "a") as script:
        script.write(reads.format(str(tmp_path / "read")))
    launch = plan(gw, command, tmp_path, prompt="-", options=["--output", "text"])

    with (tmp_path / "prompt").open("rb") as stdin, RunnerProcess(launch, stdin=stdin) as runner:
        assert runner.wait() == 0, runner.stderr

    assert (tmp_path / "read").read_text() == prompt
    assert prompt not in given_argv(tmp_path)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [(None, []), ("update", ["--", "update "]), ("-x marks it", ["--", "-x marks it"])],
    ids=["none", "a word that may be a subcommand", "begins with a dash"],
)
def test_a_prompt_at_the_keyboard(
    gw: StrictGateway, tmp_path: Path, prompt: str | None, expected: list[str]
) -> None:
    """A prompt reaches Claude Code as one, whatever it looks like. The session's id is known."""
    options = ["--mode", "interactive"]
    launch = plan(gw, stand_in(tmp_path), tmp_path, prompt=prompt, options=options)

    with Terminal(launch.argv, env=launch.env) as terminal:
        assert terminal.wait() == 0

    named, session_id, *rest = given_argv(tmp_path)
    assert (named, rest) == ("--session-id", expected)
    assert str(uuid.UUID(session_id)) == session_id


STARTS_IT = r"""
claude
/opt/bin/claude-code
/x/node_modules/@anthropic-ai/claude-code/bin/claude.exe
/x/node_modules/@anthropic-ai/claude-code-linux-x64/claude
/x/node_modules/@anthropic-ai/claude-code-darwin-arm64/claude
/x/.local/share/claude/versions/2.1.332
env LANG=C claude
env -u CLAUDECODE claude
env --unset CLAUDECODE --chdir=/x -i A=b claude
env -iu CLAUDECODE -- A=b claude
env - PATH=/bin claude
env -S 'A=b claude --model x'
env -viS'nice -n 5 claude'
env '--split-string=claude -x'
/usr/bin/env node /usr/lib/node_modules/@anthropic-ai/claude-code/cli.js
nice claude
nice -n 10 claude
nice -10 claude
nice --adjustment=5 env A=b claude
timeout 1h claude
timeout -k 5 -s INT 1h claude
timeout --foreground --kill-after=5 -- 1h claude
gtimeout 60 claude
nohup setsid stdbuf -oL ionice -c 3 claude
sudo -u me -E A=b claude
caffeinate -i claude
mise exec -- claude
mise -q x node@20 python@3 -- npx @anthropic-ai/claude-code
asdf exec claude
volta run claude
volta run --node 20 claude
fnm exec --using 20 claude
direnv exec . claude
op run --env-file=.env -- claude
npx @anthropic-ai/claude-code
npx -y @anthropic-ai/claude-code@1.2
npx --yes --package @anthropic-ai/claude-code -- claude
npm exec --yes -- @anthropic-ai/claude-code@latest
bunx --bun @anthropic-ai/claude-code
bun x @anthropic-ai/claude-code
pnpm dlx @anthropic-ai/claude-code
pnpm --silent --package=@anthropic-ai/claude-code dlx claude
yarn dlx -p @anthropic-ai/claude-code claude
deno run -A npm:@anthropic-ai/claude-code
node /usr/lib/node_modules/@anthropic-ai/claude-code/cli.js
node --max-old-space-size=8192 /x/@anthropic-ai/claude-code/cli.js
node -r dotenv/config --import ./x.mjs /x/@anthropic-ai/claude-code/cli-wrapper.cjs
""".strip()
STARTS_ANOTHER = r"""
my-claude
env
env -u claude
env claude=1 bash
env -S '"'
timeout claude
timeout 5 bash claude
nice -n claude
bash claude
node other.js
node -r claude other.js
npx @anthropic-ai/claude-code-router
npx -p @anthropic-ai/claude-code other
npm test claude
mise run claude
volta install claude
/x/@anthropic-ai/claude-code-sdk/index.js
""".strip()


@each_row("command", STARTS_IT.splitlines())
def test_claude_code_is_known_however_it_is_started(command: str) -> None:
    """Itself, the files that installers write, and what launchers start with any options."""
    assert is_claude_code(shlex.split(command))


@each_row("command", STARTS_ANOTHER.splitlines())
def test_another_program_is_not_taken_for_it(command: str) -> None:
    """Its name as a value, as another's argument or as a part of a name says nothing."""
    assert not is_claude_code(shlex.split(command))


@pytest.mark.parametrize(
    ("command", "is_it"),
    [("claude -p", True), ("/bin/sh /x/claude go", True), ("python3 -IS /x/claude", True),
     ("node /x/claude", True), ("grep -r claude", False), ("vim claude", False), ("", False)],
)  # fmt: skip
def test_a_process_is_known_as_claude_code(command: str, is_it: bool) -> None:
    """By what the process table says of it, which names the interpreter of a script first."""
    assert ClaudeProfile().is_child(command.split()) is is_it


def test_a_link_to_it_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a link is called, also one that is found in PATH."""
    program = tmp_path / "node_modules" / "@anthropic-ai" / "claude-code" / "cli.js"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    (tmp_path / "cc").symlink_to(program)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert is_claude_code([str(tmp_path / "cc")])
    assert is_claude_code(["nice", "cc"])


# Calls `claude` through a script, so that its name says nothing.
BEHIND_A_SCRIPT = """#!/bin/sh
"{claude}" "$@"
"""
# Takes the keyboard, as a session does.
TAKES_KEYS = program("print('\\x1b[?2004h', end='', flush=True); import signal; signal.pause()")


# The runner that looks sooner whether its job is a session, and not otherwise: after a minute.
HURRIED = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from runner import conduct
conduct._HINT_EVERY_S = 2.0
import claude_runner
sys.exit(claude_runner.main())
"""


def test_a_job_that_is_a_session_is_told(gw: StrictGateway, tmp_path: Path) -> None:
    """After a while, if it started Claude Code or reads keys; a plain program is left alone."""
    (tmp_path / "claude").write_text("#!/bin/sh\nsleep 600\n")
    (tmp_path / "claude").chmod(0o755)
    (tmp_path / "my-agent").write_text(BEHIND_A_SCRIPT.format(claude=tmp_path / "claude"))
    (tmp_path / "my-agent").chmod(0o755)
    jobs: list[tuple[list[str], dict[str, str]]] = [
        (TAKES_KEYS, {"CLAUDE_RUNNER_FLAVOR": "plain"}),
        (program("import signal; signal.pause()"), {}),
        ([str(tmp_path / "my-agent")], {}),
        (TAKES_KEYS, {}),
    ]
    launches = []
    for number, (command, env) in enumerate(jobs):
        folder = tmp_path / f"job{number}"
        folder.mkdir()
        launches.append(plan(gw, command, folder, env=env))
        launches[-1].argv[1:2] = ["-c", HURRIED, str(ROOT)]

    def is_hinted(run_id: str) -> bool:
        return "CLAUDE_RUNNER_FLAVOR" in gw.text(run_id, "info")

    with contextlib.ExitStack() as stack:
        runners = []
        for launch in launches:
            runners.append(stack.enter_context(RunnerProcess(launch)))
            # Those that are left alone have begun, and are looked at, before the others.
            gw.wait_for(functools.partial(gw.markers, launch.run.id, "started"), 30.0)
        for run_id in [launch.run.id for launch in launches[2:]]:
            gw.wait_for(functools.partial(is_hinted, run_id), 30.0)
        for launch in launches:
            gw.stop(launch.run.id)
        for runner in runners:
            runner.wait(60.0)
        told = [runner.stderr for runner in runners]

    hint = "set CLAUDE_RUNNER_FLAVOR=claude (set it to plain if it does not)"
    assert [hint in each for each in told] == [False, False, True, True]


@pytest.mark.parametrize("argument", ["--bg", "--background"])
def test_a_job_cannot_leave_the_run(gw: StrictGateway, tmp_path: Path, argument: str) -> None:
    """Nobody could watch or stop what Claude Code takes out of the run, so it is refused."""
    told = refusal(plan(gw, stand_in(tmp_path), tmp_path, arguments=[argument]))

    assert told == (
        f"claude-runner: {argument} would take the work out of this run, and the page could "
        "not show or stop it; leave it out\n"
    )


def test_a_session_cannot_leave_the_run(gw: StrictGateway, tmp_path: Path) -> None:
    """Claude Code's own background sessions are off, whatever the user has set; nothing else."""
    launch = plan(
        gw, stand_in(tmp_path), tmp_path, prompt=None, env={"CLAUDE_CODE_DISABLE_AGENT_VIEW": "0"}
    )

    with Terminal(launch.argv, env=launch.env) as terminal:
        assert terminal.wait() == 0

    given = json.loads((tmp_path / "bin" / "env").read_text())
    assert given["CLAUDE_CODE_DISABLE_AGENT_VIEW"] == "1"


# --- who is waiting ---------------------------------------------------------------------------


def states(gw: StrictGateway, launch: Launch) -> list[str]:
    """Return the states that were told."""
    return [each["state"] for each in gw.markers(launch.run.id, "state")]


def test_a_state_is_told_once_a_second(gw: StrictGateway, tmp_path: Path) -> None:
    """400 changes in no time are one marker, and it tells how they ended."""
    launch = plan(gw, program(FLICKERS), tmp_path, prompt=None)

    with Terminal(launch.argv, env=launch.env) as terminal:
        terminal.expect(b"READY")
        gw.wait_for(lambda: states(gw, launch) == ["working"])
        terminal.send(b"\n")
        terminal.expect(b"FLICKERED")
        gw.wait_for(lambda: states(gw, launch)[-1:] == ["waiting"])
        terminal.send(b"\x04")
        assert terminal.wait() == 0

    told = [each for each in gw.events(launch.run.id) if '"event":"state"' in each.data]
    assert len(told) <= 2 + told[-1].received_at - told[0].received_at


def test_a_title_that_says_nothing_is_not_believed(gw: StrictGateway, tmp_path: Path) -> None:
    """Where the title stays as it is, what Claude Code notes about this session is told."""
    (tmp_path / "claude").write_text(NOTES.format(python=sys.executable))
    (tmp_path / "claude").chmod(0o755)
    env = {"HOME": str(tmp_path), "TMUX": "/tmp/tmux,1,0"}
    launch = plan(gw, [str(tmp_path / "claude")], tmp_path, prompt=None, env=env)
    expected: list[str] = []

    with Terminal(launch.argv, env=launch.env) as terminal:
        for state in ("waiting", "working", "waiting", "working", "waiting"):
            expected.append(state)
            terminal.expect(b"NOTED")
            gw.wait_for(lambda: states(gw, launch) == expected)
            terminal.send(b"\r")
        assert terminal.wait() == 0


def test_print_mode_has_no_states(gw: StrictGateway, tmp_path: Path) -> None:
    """A title in a job's output says nothing: nobody could be waited for."""
    launch = plan(gw, program(FLICKERS), tmp_path)

    run_to_end(launch)

    assert "FLICKERED" in gw.text(launch.run.id)
    assert states(gw, launch) == []


# --- the time limit ---------------------------------------------------------------------------


def test_the_time_limit_ends_a_run(gw: StrictGateway, tmp_path: Path) -> None:
    """A run that is over its time is stopped gracefully, and is no success."""
    launch = plan(gw, TIDY, tmp_path, options=["--max-time", "1s"])

    told = run_to_end(launch, 124)

    assert "the time limit was reached; stopping the run" in told
    end = finished(launch)
    assert (end["reason"], end["exitCode"], end["childExitCode"]) == ("time limit", 124, 0)


def test_a_run_within_its_time_is_left_alone(gw: StrictGateway, tmp_path: Path) -> None:
    """The limit is no reason as long as it is not reached."""
    launch = plan(gw, program("print('short')"), tmp_path, options=["--max-time", "1h30m"])

    run_to_end(launch)

    assert finished(launch)["reason"] == "exited"


@pytest.mark.parametrize("value", ["", "0", "0s", "5", "1.5h", "-1h", "2x", "1m1h", "1h 5m", "h"])
def test_a_limit_that_is_none_is_refused(gw: StrictGateway, tmp_path: Path, value: str) -> None:
    """What is no time is told with examples, before anything is started."""
    told = refusal(plan(gw, TIDY, tmp_path, options=["--max-time", value]))

    assert told == (
        f"claude-runner: --max-time is {value!r}; write a time such as 90s, 45m, 2h or 1h30m\n"
    )


# --- a session that nobody sits in front of ---------------------------------------------------


def test_a_session_that_would_never_end_is_refused(gw: StrictGateway, tmp_path: Path) -> None:
    """The sentence names all three ways out."""
    told = refusal(plan(gw, TIDY, tmp_path, options=["--mode", "interactive"]))

    assert told == (
        "claude-runner: --mode interactive without a terminal would wait for ever; start it in a "
        "terminal, limit it with --max-time, or let the operator type with "
        "CLAUDE_RUNNER_ALLOW_REMOTE_INPUT=true\n"
    )


def test_a_session_with_a_limit_needs_no_terminal(gw: StrictGateway, tmp_path: Path) -> None:
    """With --max-time it has an end, so it is started."""
    options = ["--mode", "interactive", "--max-time", "1s"]
    launch = plan(gw, TIDY, tmp_path, prompt=None, options=options)

    run_to_end(launch, 124)

    assert gw.markers(launch.run.id, "started")[0]["mode"] == "interactive"
    assert finished(launch)["reason"] == "time limit"


# --- finding it, and what it is given ---------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "variable"),
    [(".claude/local", ""), (".local/bin", ""), (".npm-global/bin", ""), ("pre/bin", "pre")],
)
def test_it_is_looked_for(gw: StrictGateway, tmp_path: Path, place: str, variable: str) -> None:
    """A program that is not in PATH, but where installers put it, is named with its path."""
    folder = tmp_path / place
    folder.mkdir(parents=True)
    (folder / "my-claude").write_text("#!/bin/sh\n")
    (folder / "my-claude").chmod(0o755)
    env = {"HOME": str(tmp_path)}
    if variable:
        env["npm_config_prefix"] = str(tmp_path / variable)

    told = refusal(plan(gw, ["my-claude"], tmp_path, env=env))

    assert f"was not found in PATH, but it is there as {folder}/my-claude; " in told
    assert "set CLAUDE_COMMAND to its path (shell aliases do not count)" in told


def test_where_it_was_looked_for_is_told(gw: StrictGateway, tmp_path: Path) -> None:
    """A program that is nowhere: every place is named."""
    told = refusal(plan(gw, ["my-claude"], tmp_path))

    assert (
        "'my-claude' (CLAUDE_COMMAND, environment) was not found in PATH, ~/.claude/local, "
        "~/.local/bin and npm's global folders; install it, or set CLAUDE_COMMAND to its path "
        "(shell aliases do not count)"
    ) in told


@pytest.mark.parametrize("term", ["xterm-kitty", None])
def test_the_environment_passes_through(
    gw: StrictGateway, tmp_path: Path, term: str | None
) -> None:
    """The child gets the user's variables as they are, without secrets; PWD is where it runs."""
    own = {"IS_SANDBOX": "1", "LANG": "de_DE.UTF-8", "EMPTY": "", "A_NAME": "a=b\nc \u00e9"}
    launch = plan(gw, stand_in(tmp_path), tmp_path, env=own)
    launch.env.pop("TERM", None)
    launch.env.update({"TERM": term} if term else {})

    run_to_end(launch)

    given = json.loads((tmp_path / "bin" / "env").read_text())
    expected = {name: value for name, value in launch.env.items() if name not in SECRET_VARIABLES}
    assert {name for name in launch.env if name not in expected} == {
        "HMAC_SECRET",
        "CLAUDE_RUNNER_TOKEN",
    }
    given.pop("LC_CTYPE", None)  # Python's own, where there is no such locale
    assert given == {"TERM": "xterm-256color", **expected, "PWD": str(tmp_path)}
