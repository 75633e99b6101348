"""The command line as its user meets it: a process of its own, its output and its exit code."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

from testing.gateways.faults import Fault, Html, JsonError, RateLimited
from testing.gateways.strict_gateway import Run, StrictGateway
from testing.programs.runner import run_to_end
from testing.programs.terminal import Terminal

ROOT = Path(__file__).resolve().parent.parent
CHILDREN = ROOT / "testing" / "programs" / "children"
WITHIN_S = 60.0
_RUNNER = (sys.executable, str(ROOT / "claude_runner.py"))


@dataclass
class _Line:
    """Where and how the command line is used."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def runs(self) -> list[str]:
        """The runs that have a folder."""
        runs = self.data_dir / "runs"
        return [each.name for each in runs.iterdir()] if runs.is_dir() else []

    def use(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run `claude_runner.py` to its end; forked, see `testing/programs/starter.py`."""
        env = {**os.environ, **self.env}
        done = run_to_end(
            [*_RUNNER, *arguments], env, cwd=self.folder, stdin=stdin, within_s=WITHIN_S
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def use_shell(
        self, redirection: str, *arguments: str, stdout: IO[bytes] | int = subprocess.PIPE
    ) -> subprocess.CompletedProcess[str]:
        """Run `claude_runner.py` to its end, its descriptors redirected by a shell."""
        done = subprocess.run(
            ["sh", "-c", f'"$@" {redirection}', "sh", *_RUNNER, *arguments],
            env={**os.environ, **self.env},
            cwd=self.folder,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=WITHIN_S,
        )
        out, err = (done.stdout or b"").decode(), done.stderr.decode()
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def fail(self, *arguments: str) -> str:
        """Run it and return the one line that it fails with."""
        done = self.use(*arguments)
        assert done.returncode == 1, done
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr


@pytest.fixture
def line(tmp_path: Path) -> _Line:
    """A folder with no configuration but its own empty one."""
    (tmp_path / "env").write_text("")
    return _Line(tmp_path)


def with_gateway(line: _Line, gw: StrictGateway, *command: str) -> tuple[Run, list[str]]:
    """Configure it for a new run; return the run and the options that name it."""
    run = gw.create_run()
    line.env |= {
        "GATEWAY_URL": gw.url,
        "HMAC_SECRET": gw.secret,
        "CLAUDE_COMMAND": shlex.join(command or _child("echo_args.py")),
        "CLAUDE_RUNNER_FLAVOR": "plain",
    }
    return run, ["--run-id", run.id, "--token", run.token, *_own(line)]


def _own(line: _Line) -> list[str]:
    return ["--env-file", str(line.folder / "env"), "--data-dir", str(line.data_dir)]


def _child(name: str) -> list[str]:
    return [sys.executable, "-I", "-S", str(CHILDREN / name)]


# --- reading the line ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["-h"], ["start", "--help"], ["info", "--help"], ["test-connection", "-h"]],
)
def test_help_is_on_stdout_with_examples(arguments: list[str], line: _Line) -> None:
    """Whoever asks for help gets it, and success."""
    done = line.use(*arguments)

    assert done.returncode == 0
    assert done.stderr == ""
    assert "usage: ./wrapper/claude-runner" in done.stdout
    own = arguments[0] if len(arguments) > 1 else "up"
    assert f"\nexamples:\n  ./wrapper/claude-runner {own}" in done.stdout


def test_version(line: _Line) -> None:
    """The version is one line."""
    done = line.use("--version")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("claude-runner ")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "a subcommand is missing: start, "),
        (["sart"], "there is no subcommand 'sart'; did you mean start? see"),
        (["start", "--nonsense"], "unrecognized argument: --nonsense"),
        (["start", "word"], "unrecognized argument: word"),
        (["start", "--run-id"], "--run-id needs a value"),
        (["start", "--run", "x"], "unrecognized argument: --run;"),
        (["info", "--js"], "unrecognized argument: --js"),
        (["--verb", "info"], "unrecognized argument: --verb"),
        (["start", "--mode", "quick"], "invalid choice: 'quick'"),
        (["info", "--", "x"], "nothing may follow -- with info"),
        (["start", "--token", "a", "--token-file", "b"], "not with both"),
        (["start", "--token", "-"], "there is no token on stdin; write it there, in one line"),
        (["start", "--token", "-", "--cmd", "-"], "only one of --token and --cmd can be read"),
        (["start", "--token-file", "/nowhere/x"], "--token-file /nowhere/x cannot be read"),
        (["info", "--env-file", "/nowhere/x"], "/nowhere/x does not exist"),
        (["info", "--env-file", ""], "--env-file is empty; name a path, or leave it out"),
        (["info", "--data-dir="], "--data-dir is empty; name a path, or leave it out"),
        (["start", "--token-file", "/"], "--token-file / cannot be read: Is a directory; name a"),
        (["install", ""], "DIR is empty; name the folder of a project"),
        (["gateway", "--port", "abc"], "'abc' is not a port; write a number such as 3100"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line(arguments: list[str], part: str, line: _Line) -> None:
    """A mistake is one sentence on stderr and exit code 1; no option may be abbreviated."""
    assert part in line.fail(*arguments)


def test_a_variable_that_names_nobodys_home_is_told(line: _Line) -> None:
    """By its own name."""
    line.env["CLAUDE_RUNNER_DATA_DIR"] = "~no-such-user"

    assert "CLAUDE_RUNNER_DATA_DIR is '~no-such-user', a home folder" in line.fail("info")


@pytest.mark.parametrize(
    ("written", "prompt"),
    [
        (["--cmd", "-v is broken"], "-v is broken"),
        (["--cmd=-v is broken"], "-v is broken"),
        (["--cmd=a=b"], "a=b"),
        (["--cmd", "--x--"], "--x--"),
        (["--cmd", "--token"], "--token"),
        (["--cmd", "two\nlines 'and' \"quotes\" $(id) `x` é"], None),
    ],
    ids=["dash", "equals", "equals-inside", "two-dashes", "option-name", "quotes"],
)
def test_a_value_is_what_follows_whatever_it_begins_with(
    written: list[str], prompt: str | None, line: _Line
) -> None:
    """The prompt is one argument of the child, byte for byte."""
    with StrictGateway() as gw:
        _, options = with_gateway(line, gw)
        done = line.use("start", *options, *written)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["argv"] == [written[-1] if prompt is None else prompt]


def test_a_value_that_is_not_asked_for_is_not_repeated(line: _Line) -> None:
    """It may be a token, and what is told may go to a file."""
    sentence = line.fail("info", "--token", "let-nobody-see-me")

    assert "unrecognized argument: --token; see ./wrapper/claude-runner info --help" in sentence
    assert "let-nobody" not in sentence


def test_a_run_id_may_begin_with_a_dash(line: _Line) -> None:
    """The gateway's ids use all of A-Z, a-z, 0-9, _ and -, at the beginning too."""
    with StrictGateway() as gw:
        _, options = with_gateway(line, gw)
        run = gw.create_run(run_id="-Ab_9xQ-7zKp")
        options[:4] = ["--run-id", run.id, "--token", run.token]
        done = line.use("start", *options, "--cmd", "x")

        assert done.returncode == 0, done.stderr
        assert gw.status(run.id) == "done"
        assert line.runs == ["-Ab_9xQ-7zKp"]


def test_what_follows_two_dashes_goes_to_the_child(line: _Line) -> None:
    """Arguments that look like the runner's own are the child's after `--`."""
    with StrictGateway() as gw:
        _, options = with_gateway(line, gw)
        done = line.use("start", *options, "--cmd", "x", "--", "--cwd", "-q", "--", "--model=o")

    assert json.loads(done.stdout)["argv"] == ["--cwd", "-q", "--", "--model=o", "x"]


def test_a_prompt_can_come_from_stdin(line: _Line) -> None:
    """`--cmd -` reads it whole, its last newline included."""
    with StrictGateway() as gw:
        _, options = with_gateway(line, gw)
        done = line.use("start", *options, "--cmd", "-", stdin="zwei\nZeilen é\n".encode())

    assert json.loads(done.stdout)["argv"] == ["zwei\nZeilen é\n"]


def test_the_token_can_come_from_a_file_or_the_environment(line: _Line) -> None:
    """It need not be seen in the process list; the line's end in the file does not count."""
    with StrictGateway() as gw:
        run, options = with_gateway(line, gw)
        (line.folder / "token").write_text(f"{run.token}\n")
        from_file = line.use(
            "test-connection", "--run-id", run.id, "--token-file", "token", *options[4:]
        )
        line.env["CLAUDE_RUNNER_TOKEN"] = run.token
        from_env = line.use("test-connection", "--run-id", run.id, *options[4:])
        del line.env["CLAUDE_RUNNER_TOKEN"]
        from_stdin = line.use(
            *("start", "--run-id", run.id, "--token", "-", "--cmd", "go", *options[4:]),
            stdin=f"{run.token}\nmore".encode(),
        )
        argv = [*_RUNNER, "test-connection", "--run-id", run.id, "--token", "-", *options[4:]]
        with Terminal(argv, env={**os.environ, **line.env}, cwd=line.folder) as terminal:
            terminal.expect(b"the run's token (it is not shown): ")
            terminal.send(f"{run.token}\n".encode())
            terminal.expect(f"ok: run {run.id} is there".encode())
            assert terminal.wait() == 0
            assert run.token.encode() not in terminal.output

    assert from_file.returncode == from_env.returncode == 0
    assert f"ok: run {run.id} is there" in from_file.stdout
    assert json.loads(from_stdin.stdout)["argv"] == ["go"]
    assert run.token not in from_stdin.stdout + from_stdin.stderr


# --- info ------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_info_shows_where_values_come_from_and_no_secret(as_json: bool, line: _Line) -> None:
    """Every setting is there with its source; of a secret only that it is set."""
    secret, token, other = "s3cr" * 8, "t0k3" * 8, "0th3r" * 6
    (line.folder / "env").write_text(f"HMAC_SECRET={secret}\nDB_PASSWORD={other}\n")
    line.env |= {"CLAUDE_RUNNER_TOKEN": token, "CLAUDE_COMMAND": "my-claude --fast"}

    done = line.use("info", *_own(line), *(["--json"] if as_json else []))

    assert (done.returncode, done.stderr) == (0, "")
    assert not [each for each in (secret, token, other) if each in done.stdout]
    if as_json:
        rows = {each["variable"]: each for each in json.loads(done.stdout)["settings"]}
        assert rows["HMAC_SECRET"]["value"] == "(set)"
        assert rows["HMAC_SECRET"]["source"] == str(line.folder / "env")
        assert rows["CLAUDE_COMMAND"]["value"] == "my-claude --fast"
        assert rows["CLAUDE_COMMAND"]["source"] == "environment"
        assert rows["CLAUDE_RUNNER_DATA_DIR"]["source"] == "option"
    else:
        assert "HMAC_SECRET" in done.stdout
        assert "(set)" in done.stdout
        assert "git log --oneline -10" in done.stdout


def test_a_secret_within_a_command_is_not_shown(line: _Line) -> None:
    """What is told of CLAUDE_COMMAND ends up in bug reports: its flags are there, no values."""
    secret = "s3cr" * 8
    claude = line.folder / "claude"
    claude.write_text("#!/bin/sh\nexit 3\n")
    claude.chmod(0o755)
    with StrictGateway() as gw:
        _, options = with_gateway(line, gw)
        line.env["CLAUDE_COMMAND"] = f"{claude} --api-key {secret}"
        line.env["CLAUDE_RUNNER_FLAVOR"] = "claude"
        shown = [
            line.use("info", *_own(line)),
            line.use("info", "--json", *_own(line)),
            line.use("doctor", *_own(line)),
        ]
        started = line.use("start", "-vv", *options, "--cmd", "x")
        line.env["CLAUDE_COMMAND"] += " 'unclosed"
        mistaken = [line.fail("info", *_own(line))]
        for assignment in (f"API_KEY={secret}", f"API_KEY={secret}/x"):
            line.env["CLAUDE_COMMAND"] = f"{assignment} claude"
            mistaken.append(line.fail("start", *options, "--cmd", "x"))

    for done in shown:
        assert f"{claude} --api-key [REDACTED]" in done.stdout + done.stderr
    for done in (*shown, started):
        assert secret not in done.stdout + done.stderr
    assert not [sentence for sentence in mistaken if secret in sentence]


@pytest.mark.parametrize(("length", "words"), [(31, "too short"), (32, "(set)")])
def test_info_flags_a_secret_that_could_be_guessed(length: int, words: str, line: _Line) -> None:
    """A key is safe from 32 bytes on; its length is told to nobody."""
    line.env |= {"HMAC_SECRET": "ä" * (length // 2) + "x" * (length % 2)}

    shown = line.use("info", *_own(line)).stdout

    (secret,) = (each for each in shown.splitlines() if each.startswith("HMAC secret: "))
    assert words in secret
    assert str(length) not in secret


def test_options_of_all_commands_go_before_the_command_too(line: _Line) -> None:
    """`-v info` and `info -v` are the same."""
    outputs = {
        line.use(*order).stdout
        for order in (["-v", "info", *_own(line)], ["info", "-v", *_own(line)])
    }

    assert len(outputs) == 1


# --- test-connection -------------------------------------------------------------------------


def test_a_good_connection_is_three_times_ok(line: _Line) -> None:
    """The gateway, the secret and the run are told one by one."""
    with StrictGateway() as gw:
        run, options = with_gateway(line, gw)
        short = line.use("test-connection", *options[4:])
        whole = line.use("test-connection", *options)

    assert short.returncode == whole.returncode == 0
    assert whole.stderr == ""
    assert whole.stdout.splitlines() == [
        f"ok: {gw.url} answers",
        "ok: HMAC_SECRET is the gateway's",
        f"ok: run {run.id} is there, and the token is right",
    ]
    assert short.stdout.splitlines() == whole.stdout.splitlines()[:2]


def test_a_wrong_secret_is_named(line: _Line) -> None:
    """With the place where it was found."""
    with StrictGateway() as gw:
        gw.allow("bad signature")
        _, options = with_gateway(line, gw)
        line.env["HMAC_SECRET"] = "w" * 32
        done = line.use("test-connection", *options)

    assert done.returncode == 1
    assert done.stdout == f"ok: {gw.url} answers\n"
    assert "does not accept the signature; HMAC_SECRET (environment) must be" in done.stderr


def test_a_wrong_token_is_named(line: _Line) -> None:
    """The run may be gone as well, so both ways out are told."""
    with StrictGateway() as gw:
        gw.allow("an unknown run or a token")
        run, options = with_gateway(line, gw)
        options[3] = "f" * 64
        done = line.use("test-connection", *options)

    assert done.returncode == 1
    assert f"does not know run {run.id} with this token" in done.stderr


@pytest.mark.parametrize(
    ("offset_s", "words"),
    [(1000.0, "behind the gateway's"), (-4000.0, "ahead of the gateway's")],
)
def test_a_clock_that_is_wrong_is_named_with_its_size(
    offset_s: float, words: str, line: _Line
) -> None:
    """The user learns which way and by how much, and that this is what is the matter."""
    with StrictGateway() as gw:
        gw.clock_offset_s = offset_s
        _, options = with_gateway(line, gw)
        done = line.use("test-connection", *options)

    assert done.returncode == 1
    size = int(done.stderr.split("clock skew is ")[1].split(" s ")[0])
    assert abs(size - abs(offset_s)) <= 30
    assert f" s (limit 300 s): this machine's clock is {words}; set it" in done.stderr


def test_a_refused_connection_is_told(line: _Line) -> None:
    """Nothing listens there."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        line.env |= {"GATEWAY_URL": url, "HMAC_SECRET": "s" * 32}

        sentence = line.fail("test-connection", *_own(line))

    assert f"the gateway at {url} cannot be reached: the connection was refused" in sentence
    assert "check GATEWAY_URL (environment) and that the gateway runs" in sentence


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Html(200), "HTTP status 200, not the gateway's own answer"),
        (Html(502), "did not answer like a gateway: HTTP status 502"),
        (RateLimited(7), "Rate limit exceeded"),
        (JsonError(500), "Internal Server Error"),
    ],
    ids=["html", "502", "429", "500"],
)
def test_what_is_no_good_answer_is_told(fault: object, words: str, line: _Line) -> None:
    """A wrong server, an outage and a limit each have their words."""
    with StrictGateway() as gw:
        _, options = with_gateway(line, gw)
        gw.faults.add(Fault("health", fault))  # type: ignore[arg-type]

        assert words in line.fail("test-connection", *options)


@pytest.mark.parametrize(
    "answer",
    [JsonError(404, "Not found"), JsonError(404, "Not Found", "Route POST:/api/x not found")],
    ids=["with its page", "without"],
)
def test_a_gateway_that_speaks_another_protocol_is_told_at_once(
    answer: JsonError, line: _Line
) -> None:
    """A later release is there and well, and knows none of our requests: two ways out are named."""
    with StrictGateway() as gw:
        _, options = with_gateway(line, gw)
        gw.faults.add(Fault(lambda request: request.endpoint != "health", answer, every=1))
        tried = line.use("test-connection", *options)
        looked = line.use("doctor", *options)
        sentence = line.fail("start", *options, "--cmd", "x")
        asked = [each.endpoint for each in gw.requests[-2:]]

    assert tried.stdout == f"ok: {gw.url} answers\n"
    assert f"FAIL  signature: {sentence.partition(': ')[2]}" in looked.stdout
    for said in (tried.stderr, looked.stdout, sentence):
        assert f"{gw.url} speaks another protocol: " in said
        assert "AiRemoteCoder up to commit 86f83c1 (2026-03-24)" in said
        assert "`claude-runner gateway`" in said
        assert "did not answer like a gateway" not in said
    assert asked == ["commands", "health"]  # one that does not answer is asked for 10 s
    assert line.runs == []


def test_a_self_signed_gateway_is_refused_with_the_way_out(line: _Line) -> None:
    """ALLOW_SELF_SIGNED is named where it helps, and the pin told where it is set."""
    from testing.gateways.certificates import self_signed

    with StrictGateway(tls=self_signed()) as gw:
        _, options = with_gateway(line, gw)
        refused = line.fail("test-connection", *options)
        line.env["ALLOW_SELF_SIGNED"] = "true"
        done = line.use("test-connection", *options)

    assert "its certificate does not verify" in refused
    assert "or set ALLOW_SELF_SIGNED=true" in refused
    assert done.returncode == 0
    assert "trusting the self-signed certificate of 127.0.0.1:" in done.stderr


def test_plain_http_to_a_far_host_is_refused(line: _Line) -> None:
    """Before anything is sent."""
    line.env |= {"GATEWAY_URL": "http://gateway.test", "HMAC_SECRET": "s" * 32}

    assert "is not encrypted; use https" in line.fail("test-connection", *_own(line))


# --- start, before the child -----------------------------------------------------------------

BEFORE = {
    "no-secret": ({"HMAC_SECRET": ""}, [], "HMAC_SECRET is not set"),
    "placeholder": ({"HMAC_SECRET": "<must match gateway>"}, [], "still has the example's"),
    "bad-setting": ({"ALLOW_SELF_SIGNED": "perhaps"}, [], "write true or false"),
    "bad-run-id": ({}, ["--run-id", "../x"], "--run-id must be the id of a run"),
    "long-run-id": ({}, ["--run-id", "x" * 51], "--run-id must be the id of a run"),
    "no-token": ({}, ["--token", ""], "the run's token is missing; `--token -` asks"),
    "bad-token": ({}, ["--token", "tökén"], "contains a character that a token cannot have"),
    "no-folder": ({}, ["--cwd", "/nowhere"], "/nowhere does not exist; correct --cwd"),
    "empty-prompt": ({}, ["--cmd", "  "], "the prompt is empty"),
    "no-program": ({"CLAUDE_COMMAND": "no-such-program"}, [], "was not found in PATH"),
    "no-file": ({"CLAUDE_COMMAND": "./nothing"}, [], "does not exist; correct CLAUDE_COMMAND"),
    "not-executable": ({"CLAUDE_COMMAND": "./env"}, [], "is not executable; chmod +x it"),
    "artifact-type": ({}, ["--artifact", "x.exe"], "the types are .log, .txt, .json"),
    "artifact-folder": ({}, ["--artifact", "d.log"], "--artifact d.log is not a file"),
    "bad-extra": ({"EXTRA_ALLOWED_COMMANDS": "a | b"}, [], "needs a shell"),
    "cwd-of-nobody": ({}, ["--cwd", "~no-such-user/x"], "a home folder that does not exist"),
    "cwd-too-long": ({}, ["--cwd", "x" * 300], "(File name too long); correct --cwd"),
    "cwd-file": ({}, ["--cwd", "env"], "(Not a directory); correct --cwd"),
    "artifact-of-nobody": ({}, ["--artifact", "~no-such-user/x.md"], "--artifact is '~no-such"),
    "artifact-too-long": ({}, ["--artifact", "x" * 300 + ".md"], "cannot be read: File name too"),
    "data-of-nobody": (
        {},
        ["--data-dir", "~no-such-user"],
        "--data-dir is '~no-such-user', a home",
    ),
    "controls": (
        {},
        ["--cwd", "/no\nwhere\x1b[31m"],
        "/no\\x0awhere\\x1b[31m does not exist; correct",
    ),
    "unwritable": ({}, ["--data-dir", "/dev/null/x"], "cannot be written (Not a directory)"),
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_mistake_is_told_before_anything_is_started(name: str, line: _Line) -> None:
    """One sentence, exit code 1, no folder for the run, no child, and no request."""
    env, options, words = BEFORE[name]
    (line.folder / "d.log").mkdir()
    with StrictGateway() as gw:
        _, usual = with_gateway(line, gw, "touch", str(line.folder / "child-ran"))
        line.env |= env

        sentence = line.fail("start", *usual, "--cmd", "x", *options)

        assert words in sentence
        assert gw.requests == []
    assert line.runs == []
    assert not (line.folder / "child-ran").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter and read everything")
def test_what_the_user_may_not_use_is_told(line: _Line) -> None:
    """A folder, a program or a file behind closed doors is one sentence before anything starts."""
    closed = line.folder / "closed"
    (closed / "in").mkdir(parents=True)
    closed.chmod(0)
    with StrictGateway() as gw:
        _, options = with_gateway(line, gw)
        start = ["start", *options, "--cmd", "x"]

        assert "Permission denied); correct --cwd" in line.fail(*start, "--cwd", "closed")
        assert "Permission denied); correct --cwd" in line.fail(*start, "--cwd", "closed/in")
        assert "cannot be read: Permission" in line.fail(*start, "--artifact", "closed/a.md")
        line.env["CLAUDE_COMMAND"] = "closed/program"
        assert "does not exist; correct CLAUDE_COMMAND" in line.fail(*start)
    closed.chmod(0o700)
    assert line.runs == []


def test_a_current_folder_that_is_gone_is_told(line: _Line) -> None:
    """A project that was checked out anew under somebody's feet is no error of the runner's."""
    gone = line.folder / "gone"
    gone.mkdir()
    with StrictGateway() as gw:
        _, options = with_gateway(line, gw)
        command = [*_RUNNER, "start", *options, "--cmd", "x"]
        done = subprocess.run(
            ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *command],
            cwd=gone,
            env={**os.environ, **line.env},
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
        )

    assert done.returncode == 1
    assert "the current folder cannot be used (No such file or directory)" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("redirection", "words"),
    [
        pytest.param("<&-", "the prompt is empty", id="closed"),
        pytest.param("0>out", "the prompt cannot be read from stdin", id="write-only"),
    ],
)
def test_a_stdin_without_a_prompt_is_told(redirection: str, words: str, line: _Line) -> None:
    """`--cmd -` asks for a stdin that can be read."""
    with StrictGateway() as gw:
        _, options = with_gateway(line, gw)

        done = line.use_shell(redirection, "start", *options, "--cmd", "-")

    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["info", "--help", "--version"])
def test_a_reader_that_is_gone_is_no_mess(command: str, line: _Line) -> None:
    """Python does not complain at exit of a pipe that nobody reads any more."""
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with open(write_fd, "wb") as stdout:
        done = line.use_shell("", command, stdout=stdout)

    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_under_stdout_is_told(line: _Line) -> None:
    """What was asked for and could not be printed is a failure, in one line."""
    done = line.use_shell(">/dev/full", "info")

    assert done.returncode == 1
    assert done.stderr == "claude-runner: stdout cannot be written: No space left on device\n"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_info_prints_whatever_a_setting_holds(encoding: str, line: _Line) -> None:
    """A value that the terminal's encoding lacks, or that is no text at all, is shown escaped."""
    line.env |= {"PYTHONIOENCODING": encoding, "CLAUDE_COMMAND": os.fsdecode(b"/caf\xff\xc3\xa9")}

    assert "Claude command: '/caf\\udcff" in line.use("info").stdout


def test_without_prompt_and_terminal_there_is_nothing_to_start(line: _Line) -> None:
    """The sentence names both ways."""
    with StrictGateway() as gw:
        _, options = with_gateway(line, gw)

        assert "neither a prompt nor a terminal" in line.fail("start", *options)
        assert "--mode print needs a prompt" in line.fail("start", *options, "--mode", "print")
        interactive = line.fail("start", *options, "--mode", "interactive")
        assert "without a terminal would wait for ever" in interactive
    assert line.runs == []


@pytest.mark.parametrize("name", ["secret", "token", "clock", "down"])
def test_a_gateway_that_does_not_take_the_run_starts_no_child(name: str, line: _Line) -> None:
    """Secret, run, token and reachability are known to be right before the child exists."""
    words = {
        "secret": "does not accept the signature",
        "token": "does not know run",
        "clock": "gateway's; set it",
        "down": "cannot be reached: the connection was refused",
    }[name]
    with StrictGateway() as gw:
        gw.allow("bad signature", "an unknown run or a token")
        _, options = with_gateway(line, gw, "touch", str(line.folder / "child-ran"))
        if name == "secret":
            line.env["HMAC_SECRET"] = "w" * 32
        elif name == "token":
            options[3] = "f" * 64
        elif name == "clock":
            gw.clock_offset_s = 1000.0
        else:
            gw.pause()

        sentence = line.fail("start", *options, "--cmd", "x")

        assert words in sentence
    assert line.runs == []
    assert not (line.folder / "child-ran").exists()


def test_a_limited_gateway_is_waited_for(line: _Line) -> None:
    """A 429 at the start is shown and waited out, and the run goes on."""
    with StrictGateway() as gw:
        _, options = with_gateway(line, gw)
        for _ in range(2):  # the first one is asked again, with `requests`
            gw.faults.add(Fault("commands", RateLimited(1)))
        done = line.use("start", *options, "--cmd", "x")

    assert done.returncode == 0
    assert "too many requests: the gateway asks to wait 1 s" in done.stderr


def test_a_run_is_started_once(line: _Line) -> None:
    """A second start of the same run is refused, with the way out, and harms nothing."""
    with StrictGateway() as gw:
        run, options = with_gateway(line, gw)
        line.use("start", *options, "--cmd", "x")
        sentence = line.fail("start", *options, "--cmd", "x")

        assert "was started here before" in sentence
        assert "create a new run" in sentence
        assert len(gw.markers(run.id, "finished")) == 1


# --- artifacts -------------------------------------------------------------------------------


def test_artifacts_are_uploaded_and_what_cannot_be_is_told(line: _Line) -> None:
    """Every documented type goes; a file that is missing is told before and after."""
    names = [f"a{suffix}" for suffix in (".log", ".txt", ".json", ".diff", ".patch", ".md", ".MD")]
    for name in names:
        (line.folder / name).write_text(f"this is {name}")
    with StrictGateway() as gw:
        run, options = with_gateway(line, gw)
        wanted = [item for name in (*names, "gone.txt") for item in ("--artifact", name)]
        done = line.use("start", *options, "--cmd", "x", *wanted)

        assert done.returncode == 0
        arrived = {each.name: each.data for each in gw.artifacts(run.id)}
        assert arrived.pop("claude.log") == done.stdout.encode()
        assert arrived == {name: f"this is {name}".encode() for name in names}
    assert "--artifact gone.txt does not exist yet" in done.stderr
    assert "gone.txt is not uploaded" in done.stderr


def test_the_name_of_an_artifact_is_redacted_too(line: _Line) -> None:
    """A token in a file's name does not leave the machine, and the type of the file stays."""
    token = "ghp" + "_" + "0aB1cD2eF3" * 4
    (line.folder / f"dump {token}.txt").write_text("x")
    with StrictGateway() as gw:
        run, options = with_gateway(line, gw)
        done = line.use("start", *options, "--cmd", "x", "--artifact", f"dump {token}.txt")

        assert done.returncode == 0
        names = [each.name for each in gw.artifacts(run.id)]
    assert names == ["claude.log", "dump__REDACTED_.txt"]


def test_an_artifact_over_the_limit_is_told_before_the_child_starts(line: _Line) -> None:
    """The user learns at the beginning of a long run that the file goes in pieces."""
    with (line.folder / "big.txt").open("wb") as sparse:
        sparse.truncate(52_428_801)
    with StrictGateway() as gw:
        gw.allow("an unknown run or a token")
        _, options = with_gateway(line, gw)
        options[3] = "f" * 64
        done = line.use("start", *options, "--cmd", "x", "--artifact", "big.txt")

    assert done.returncode == 1
    assert "--artifact big.txt is larger than 50 MiB and will be uploaded in parts" in done.stderr


# --- how much is told ------------------------------------------------------------------------


def test_quiet_leaves_out_notes_and_keeps_warnings(line: _Line) -> None:
    """-q is for scripts: what is only good to know is not told, what went wrong is."""
    (line.folder / "a.log").write_text("x")
    with StrictGateway() as gw:
        usual, quiet = (
            line.use(
                "start", *with_gateway(line, gw)[1], "--cmd", "x", "--artifact", "n.log", *more
            )
            for more in ([], ["-q"])
        )

    assert "--artifact n.log does not exist yet" in usual.stderr
    assert "is not there yet" not in quiet.stderr
    assert "n.log is not uploaded" in quiet.stderr


def test_verbose_tells_more(line: _Line) -> None:
    """-v tells of the run's steps, -vv of every request, and neither of a secret."""
    with StrictGateway() as gw:
        told = []
        for more in ([], ["-v"], ["-vv"]):
            run, options = with_gateway(line, gw, "true")
            done = line.use("start", *options, "--cmd", "x", *more)
            assert run.token not in done.stderr
            assert gw.secret not in done.stderr
            told.append(done.stderr)

    assert told[0] == ""
    assert "knows the run; its log is kept in" in told[1]
    assert "the child has ended: exit code 0" in told[1]
    assert "POST /api/ingest/event" not in told[1]
    assert "POST /api/ingest/event" in told[2]


@pytest.mark.parametrize(
    ("no_color", "term"),
    [("", "xterm"), ("1", "xterm"), ("", "dumb")],
    ids=["colour", "no-colour", "dumb"],
)
def test_colour_is_for_terminals_and_can_be_refused(no_color: str, term: str, line: _Line) -> None:
    """An error is red on a terminal that has colours, unless NO_COLOR says no; plain in a pipe."""
    env = {**os.environ, "NO_COLOR": no_color, "TERM": term}
    reader, writer = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, str(ROOT / "claude_runner.py"), "start", "--nonsense"],
            env=env,
            stdin=subprocess.DEVNULL,
            stderr=writer,
            timeout=WITHIN_S,
        )
        on_terminal = os.read(reader, 10_000)
    finally:
        os.close(reader)
        os.close(writer)

    assert done.returncode == 1
    assert b"unrecognized argument: --nonsense" in on_terminal
    assert (b"\x1b[" in on_terminal) is (no_color == "" and term != "dumb")
    assert "\x1b" not in line.fail("start", "--nonsense")


# --- the user's own secrets ------------------------------------------------------------------


def test_a_shape_that_could_run_away_is_refused_with_its_line(line: _Line) -> None:
    """A free regular expression is told before anything is asked of the gateway."""
    (line.folder / "shapes").write_text("# ours\nacme_[A-Za-z0-9]{20,64}\n(a+)+b\n")
    line.env["CLAUDE_RUNNER_REDACT_PATTERNS"] = str(line.folder / "shapes")
    with StrictGateway() as gw:
        _, options = with_gateway(line, gw)
        told = line.fail("start", *options, "--cmd", "x")

        assert f"{line.folder / 'shapes'}, line 3: expected a literal prefix" in told
        assert gw.requests == []
    assert line.runs == []


def test_the_users_own_shapes_are_redacted(line: _Line) -> None:
    """What the file names is removed from everything that leaves, the prompt included."""
    secret = "acme_" + "Q7" * 12
    (line.folder / "shapes").write_text("acme_[A-Za-z0-9]{20,64}\n")
    line.env["CLAUDE_RUNNER_REDACT_PATTERNS"] = str(line.folder / "shapes")
    with StrictGateway() as gw:
        run, options = with_gateway(line, gw)
        line.env["CLAUDE_COMMAND"] = "echo"
        done = line.use("start", *options, "--cmd", f"use {secret} here")

        assert done.returncode == 0
        assert done.stdout == "use [REDACTED] here\n"
        sent = "".join(each.data for each in gw.events(run.id))
        logged = b"".join(each.data for each in gw.artifacts(run.id)).decode()
    assert secret not in sent + logged
    assert "use [REDACTED] here" in sent
    assert "use [REDACTED] here" in logged


def test_values_that_cannot_be_protected_are_named(line: _Line) -> None:
    """`info` says how many values are known, and whose are too short, or words."""
    line.env |= {"FIRST_TOKEN": "x7" * 8, "SECOND_TOKEN": "x7q9", "THIRD_TOKEN": "swordfish"}

    shown = line.use("info", *_own(line)).stdout
    facts = json.loads(line.use("info", "--json", *_own(line)).stdout)

    assert "known secret values: 1 " in shown
    assert (
        "not redacted, because too short or an ordinary word: SECOND_TOKEN, THIRD_TOKEN\n" in shown
    )
    assert facts["notProtected"] == ["SECOND_TOKEN", "THIRD_TOKEN"]
    assert "x7q9" not in shown
    assert "swordfish" not in shown


def test_a_start_names_the_runners_own_secrets_that_cannot_be_protected(line: _Line) -> None:
    """Others are named only where details are asked for."""
    line.env |= {"SECOND_TOKEN": "x7q9"}
    with StrictGateway(secret="hunter") as gw:
        _, options = with_gateway(line, gw)
        silent = line.use("start", *options, "--cmd", "x").stderr
        _, options = with_gateway(line, gw)
        told = line.use("start", "-v", *options, "--cmd", "x").stderr

    note = "HMAC_SECRET is too short to be redacted everywhere"
    assert silent.count(note) == 1
    assert told.count(note) == 1
    assert "SECOND_TOKEN" not in silent
    assert "not redacted, because too short or an ordinary word: HMAC_SECRET, SECOND_TOKEN" in told


def test_a_start_names_no_secret_that_is_protected(line: _Line) -> None:
    """The gateway's secret is looked for even if it is a word."""
    with StrictGateway(secret="swordfish") as gw:
        run, options = with_gateway(line, gw)
        done = line.use("start", *options, "--cmd", "say swordfish twice")

    assert "HMAC_SECRET" not in done.stderr
    assert "swordfish" not in "".join(each.data for each in gw.events(run.id))


def test_two_interrupts_in_one_moment(tmp_path: Path) -> None:
    """They are one, told in one sentence; also where SIGINT is ignored, as in the background."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *_RUNNER, "test-connection"],
            env={**os.environ, "HMAC_SECRET": "s" * 32, "GATEWAY_URL": address},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        silent.settimeout(WITHIN_S)
        with silent.accept()[0] as connection:
            assert connection.recv(1)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)

            told = process.communicate(timeout=WITHIN_S)

    assert (told, process.returncode) == ((b"", b"claude-runner: interrupted\n"), 130)


def test_few_descriptors_are_told(tmp_path: Path) -> None:
    """Before anything is started, in one sentence that says what to do."""
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 12; exec "$@"', "sh", *_RUNNER, "info"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WITHIN_S,
    )

    told = b"claude-runner: only 12 files may be open at once here, and a run needs 64; raise the "
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == told + b"limit: `ulimit -n 256`\n"
