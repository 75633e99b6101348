"""What the operator may do, proven from outside: the real runner, its keeper, a strict gateway."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from allowlist import DOCUMENTED_COMMANDS
from testing.gateways.faults import (
    Action,
    DropAfter,
    DropBefore,
    Fault,
    Hang,
    Html,
    Huge,
    JsonError,
    RateLimited,
    Status,
)
from testing.gateways.strict_gateway import Ack, RequestRecord, StrictGateway
from testing.programs import processes
from testing.programs.children import floods, not_utf8
from testing.programs.runner import RunnerProcess, plan
from testing.waiting import eventually

CHILDREN = Path(floods.__file__).parent
# Ends at the first SIGINT; its own words are the sign that the run is under way.
WAITING_CHILD = ("sh", "-c", "echo READY; exec sleep 600")
# That of testing/programs/runner.py.
POLL_INTERVAL_S = 0.1


class Runner:
    """A run whose child waits, and the operator's side of it. Ends the run when it is left."""

    def __init__(
        self,
        gateway: StrictGateway,
        folder: Path,
        command: Sequence[str] = WAITING_CHILD,
        **environment: str,
    ) -> None:
        self._gateway = gateway
        self.cwd = folder / "project"
        self.cwd.mkdir()
        self.bin = folder / "bin"
        self.bin.mkdir()
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        launch = plan(gateway, command, folder, cwd=self.cwd, env={"PATH": path, **environment})
        self.run = launch.run
        self._launch = launch
        self._process = RunnerProcess(launch)
        self._last_words: str | None = None

    def __enter__(self) -> Runner:
        self._process.__enter__()
        try:
            self._launch.expect("READY", within_s=20)
        except BaseException:
            self._process.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *rest: object) -> None:
        try:
            self._process.signal(signal.SIGTERM)
            self.wait()
        finally:
            self._last_words = self._process.stderr
            self._process.__exit__(exc_type, *rest)

    @property
    def pid(self) -> int:
        """The runner's pid."""
        return self._process.pid

    @property
    def journal(self) -> Path:
        """The run's journal."""
        return self._launch.run_dir / "spool.db"

    @property
    def stderr(self) -> str:
        """What the runner has told its user so far."""
        return self._process.stderr if self._last_words is None else self._last_words

    def wait(self, within_s: float = 30) -> int:
        """Wait for the runner's end, and return its exit code."""
        return self._process.wait(within_s)

    def queue(self, *texts: str) -> list[str]:
        """Queue commands, and return their ids."""
        return [self._gateway.queue_command(self.run.id, text) for text in texts]

    def acks(self, *ids: str, within_s: float = 20) -> list[Ack]:
        """Wait until all of these are acknowledged, and return the last ack of each."""
        self._gateway.wait_for(lambda: set(ids) <= set(self._gateway.acks(self.run.id)), within_s)
        return [self._gateway.acks(self.run.id)[each][-1] for each in ids]

    def execute(self, *texts: str) -> list[Ack]:
        """Queue commands, and wait until they are acknowledged."""
        return self.acks(*self.queue(*texts))

    def events(self, type: str, count: int = 0) -> list[str]:
        """Wait for so many events of one type, and return their data."""
        self._gateway.wait_for(lambda: len(self._gateway.events(self.run.id, type)) >= count)
        return [event.data for event in self._gateway.events(self.run.id, type)]

    def wait_for_event(self, type: str, text: str) -> None:
        """Wait for an event with exactly this text."""
        self._gateway.wait_for(lambda: text in self.events(type))

    def script(self, name: str, code: str) -> str:
        """Write an executable Python script into the working directory; return its command."""
        write_script(self.cwd / name, f"#!{sys.executable} -S\n{textwrap.dedent(code)}")
        return f"./{name}"

    def program(self, name: str, code: str) -> None:
        """Put a program of this name first in the runner's PATH."""
        write_script(self.bin / name, f"#!{sys.executable} -S\n{textwrap.dedent(code)}")


def write_script(path: Path, text: str) -> None:
    """Write a file that can be executed."""
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def gw() -> Iterator[StrictGateway]:
    """A gateway that knows no rate limit."""
    with StrictGateway(rate_limit=None) as gateway:
        yield gateway


def git(folder: Path, *arguments: str) -> str:
    """Run git as its user would, and return its output."""
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=m")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def make_repository(folder: Path) -> None:
    """Make a repository with a commit, a staged change and another one that is not staged."""
    folder.mkdir(exist_ok=True)
    git(folder, "init", "-q")
    for text, step in (("one\n", "commit"), ("one\ntwo\n", "add"), ("one\ntwo\nthree\n", "")):
        (folder / "file.txt").write_text(text)
        if step:
            git(folder, "add", "file.txt")
        if step == "commit":
            git(folder, "commit", "-q", "-m", "the first commit")


# --- what is allowed --------------------------------------------------------------------------


def test_every_documented_command_and_the_users_own_are_executed(
    gw: StrictGateway, tmp_path: Path
) -> None:
    """Each entry of the table runs with its exact argv, in order, in the run's folder."""
    extra = "make build, make test,./custom-script.sh"
    runner = Runner(gw, tmp_path, EXTRA_ALLOWED_COMMANDS=extra)
    make_repository(runner.cwd)
    log = tmp_path / "log"
    shows_itself = f"""
        import os, sys
        name = os.path.basename(sys.argv[0])
        print(name, *sys.argv[1:])
        with open({str(log)!r}, "a") as log:
            print([name, *sys.argv[1:], os.getcwd()], file=log)
    """
    for name in ("npm", "pnpm", "yarn", "pytest", "go", "cargo", "make"):
        runner.program(name, shows_itself)
    runner.script("custom-script.sh", shows_itself)
    commands = [*DOCUMENTED_COMMANDS, "make build", "make test", "./custom-script.sh"]

    with runner:
        acks = runner.execute(*commands)
        infos = runner.events("info", len(commands))

    assert [ack.error for ack in acks] == [None] * len(commands)
    assert infos == [f"Executing command: {each}" for each in commands]
    results = {command: ack.result for command, ack in zip(commands, acks)}
    shown = [each for each in commands if each.split()[0] not in ("git", "ls", "pwd")]
    assert [results[each] for each in shown] == [f"{each}\n".replace("./c", "c") for each in shown]
    assert log.read_text().splitlines() == [
        repr([*each.replace("./c", "c").split(), str(runner.cwd)]) for each in shown
    ]
    assert results["pwd"] == f"{runner.cwd}\n"
    assert "custom-script.sh" in str(results["ls -la"])
    assert "the first commit" in str(results["git log --oneline -10"])
    assert results["git diff"] == git(runner.cwd, "diff")
    assert results["git diff --cached"] == git(runner.cwd, "diff", "--cached")
    assert results["git status"] == git(runner.cwd, "status")
    # Every one of them is announced to whoever shows the buttons.
    assert gw.markers(runner.run.id, "started")[0]["commands"] == commands


def refused_texts(proof: Path) -> list[str]:
    """Return texts each of which would make the file `proof` if a shell or git obeyed it."""
    touch = f"touch {proof}"
    return [
        *(f"git status {op} {touch}" for op in (";", "&&", "||", "|", "&", "\n", "\r", "\r\n")),
        *(f"git status{op}{touch}" for op in (";", "&&", "||", "|", "&", "\n", "\0", "\v", "\x85")),
        *(f"{touch} {op} git status" for op in (";", "&&", "||", "|", "&", "\n")),
        *(f"git status\u2028{touch}", f"git status\u2029{touch}", f"git status #\n{touch}"),
        *(f"git status $({touch})", f"git status `{touch}`", f'git status "$({touch})"'),
        *(f"$({touch})", f"`{touch}`", f"({touch})", f"{{ {touch}; }}", f"git status <({touch})"),
        *(f"git status > {proof}", f"git status >{proof}", f"git status 2>{proof}"),
        *(f"git status >> {proof}", f"pwd>{proof}", f"pwd >| {proof}", f"pwd &> {proof}"),
        *(f"GIT_TRACE={proof} git status", f"A=b {touch}", f"env GIT_TRACE={proof} git status"),
        *(f"git diff --output={proof}", f"git diff --output {proof}", f"git diff -o{proof}"),
        *(f"git diff --cached --output={proof}", f"git log --oneline -10 --output={proof}"),
        *(f"git -c core.pager='{touch}' -p status", f"git -c alias.status='!{touch}' status"),
        *(f"git -c core.fsmonitor='{touch}' status", "git diff --no-index /dev/null /etc/passwd"),
        *(f"npm test -- {proof}", f"npm test {proof}", "npm  test  test", "npm run", "npm", "git"),
        *(touch, f"sh -c '{touch}'", f"/bin/sh -c '{touch}'", "/bin/pwd", "./pwd", "npm/test"),
        *("", " ", "   ", "\t", "\n", "\0", "''", '""', "'' pwd", "pwd ''", "\\", "pwd\\", "'pwd"),
        *("__UNKNOWN__", "__STOP", "__stop__", "__STOP__ ", " __STOP__", "__STOP__\n"),
        *("__HALT__;", "__INPUT__", "__APPROVAL_RESOLVED__", f"__LAUNCH_HANDS_ON__:{touch}"),
        *("git\u00a0status", "git\u2003status", "git\u200bstatus", "git status\u200d", "\ufeffpwd"),
        *("g\u0456t status", "\u0440wd", "\uff50\uff57\uff44", "git diff \u2010\u2010cached"),
        *("git\tstatus", "GIT STATUS", "Pwd", "git stat*", "l? -la", "ls -al", "ls -l -a"),
        *("pwd " * 1_000, "pwd" + " " * 2_000, "pwd" + "\\" * 99_999, "'" * 50_001),
        *("\ud800", "pwd\udfff", "\u202edwp"),
    ]


def test_what_is_no_entry_is_refused_and_does_nothing(gw: StrictGateway, tmp_path: Path) -> None:
    """A text that is not an entry gets an error, and no file appears that it would have made."""
    proof = tmp_path / "proof"
    runner = Runner(gw, tmp_path)
    make_repository(runner.cwd)
    runner.program("npm", f"open({str(proof)!r}, 'w')")
    texts = refused_texts(proof)

    with runner:
        acks = runner.execute(*texts)
        pwd = runner.execute("pwd")[0]
        errors = runner.events("error", len(texts))
        infos = runner.events("info", 1)

    assert not proof.exists()
    assert [
        text for text, ack in zip(texts, acks) if not (ack.error or "").startswith("refused")
    ] == []
    assert len(errors) == len(texts)
    assert all(each.startswith("Refused command: ") for each in errors)
    assert infos == ["Executing command: pwd"]
    assert pwd.result == f"{runner.cwd}\n"
    assert all(each.isprintable() for each in errors)


# --- how it is executed -----------------------------------------------------------------------


def test_a_command_gets_no_input_no_terminal_and_no_secret(
    gw: StrictGateway, tmp_path: Path
) -> None:
    """Stdin is empty, folder and session are its own, and no secret is in the environment."""
    report = tmp_path / "report"
    runner = Runner(gw, tmp_path, EXTRA_ALLOWED_COMMANDS="./report")
    runner.script(
        "report",
        f"""
        import json, os, sys
        try:
            os.close(os.open("/dev/tty", os.O_RDWR))
            terminal = True
        except OSError:
            terminal = False
        facts = {{
            "stdin": sys.stdin.read(), "cwd": os.getcwd(), "terminal": terminal,
            "leads": [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
            "stdin_is": os.path.realpath("/dev/fd/0"), "environment": dict(os.environ),
            "descriptors": sorted(os.listdir("/dev/fd")),
        }}
        json.dump(facts, open({str(report)!r}, "w"))
        """,
    )

    with runner:
        assert runner.execute("./report")[0].error is None

    facts = json.loads(report.read_text())
    environment = facts.pop("environment")
    assert facts["stdin"] == ""
    assert facts["cwd"] == str(runner.cwd)
    assert facts["terminal"] is False
    assert facts["leads"] == [True, True]
    assert len(facts["descriptors"]) == 4  # and the one of the listing itself
    assert not {"HMAC_SECRET", "CLAUDE_RUNNER_TOKEN"} & set(environment)
    secrets = (gw.secret, runner.run.token)
    assert not [name for name, value in environment.items() if any(s in value for s in secrets)]
    assert environment["HOME"] == os.environ["HOME"]


def test_the_time_limit_kills_the_whole_tree(gw: StrictGateway, tmp_path: Path) -> None:
    """A command over its time is killed with all that it started, and the operator is told."""
    pids = tmp_path / "pids"
    runner = Runner(
        gw, tmp_path, EXTRA_ALLOWED_COMMANDS="./slow", CLAUDE_RUNNER_COMMAND_TIMEOUT="1"
    )
    runner.script(
        "slow",
        f"""
        import os, signal, subprocess, sys
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        children = [
            subprocess.Popen(["sleep", "600"], start_new_session=apart) for apart in (False, True)
        ]
        print("so far", flush=True)
        with open({str(pids)!r}, "w") as file:
            print(os.getpid(), *(child.pid for child in children), file=file)
        signal.pause()
        """,
    )

    with runner:
        ack = runner.execute("./slow")[0]
        processes.assert_gone(int(pid) for pid in pids.read_text().split())
        runner.wait_for_event(
            "error", "Command failed: ./slow: it ran longer than 1 s and was killed"
        )
        assert runner.execute("pwd")[0].result

    assert len(pids.read_text().split()) == 3
    assert ack.error == "it ran longer than 1 s and was killed\nso far\n"


def test_a_program_that_cannot_be_started_is_told_plainly(
    gw: StrictGateway, tmp_path: Path
) -> None:
    """The operator reads what is missing, in words; and the next command runs."""
    commands = ["no-such-program --x", "./no-such-file", "./not-executable", "./no-interpreter"]
    runner = Runner(
        gw,
        tmp_path,
        EXTRA_ALLOWED_COMMANDS=",".join(commands),
    )
    (runner.cwd / "not-executable").write_text("#!/bin/sh\n")
    write_script(runner.cwd / "no-interpreter", "#!/no/such/interpreter\n")

    with runner:
        acks = runner.execute(*commands)
        errors = runner.events("error", 4)
        assert runner.execute("pwd")[0].result

    sentences = [
        "no-such-program was not found; is it installed, and in the PATH of the runner?",
        "./no-such-file was not found",
        "./not-executable cannot be executed (Permission denied)",
        "./no-interpreter names an interpreter that was not found",
    ]
    assert [ack.error for ack in acks] == sentences
    pairs = zip(commands, sentences)
    assert errors == [f"Command failed: {command}: {told}" for command, told in pairs]


def test_output_is_redacted_wherever_it_was_split(gw: StrictGateway, tmp_path: Path) -> None:
    """A secret that comes byte by byte, or in an error's output, does not reach the gateway."""
    secret = "gh" + "p_" + "a1B2" * 9
    plain = f"before {secret} after\n"
    bytewise = f"{sys.executable} {CHILDREN / 'prints_bytewise.py'} {plain.encode().hex()} 1"
    fails = f"{sys.executable} {CHILDREN / 'exits.py'} 3 {secret}"
    runner = Runner(gw, tmp_path, EXTRA_ALLOWED_COMMANDS=f"{bytewise},{fails},cat own")
    (runner.cwd / "own").write_text(f"{gw.secret} and {runner.run.token}\n")

    with runner:
        acks = runner.execute(bytewise, fails, "cat own")

    assert acks[0].result == "before [REDACTED] after\n"
    assert acks[1].error == "exit code 3\n[REDACTED]\n"
    assert acks[2].result == "[REDACTED] and [REDACTED]\n"
    assert not any(secret in event.data for event in gw.events(runner.run.id))


def test_a_refused_command_is_redacted_before_it_is_shortened(
    gw: StrictGateway, tmp_path: Path
) -> None:
    """A secret that begins just before the cut leaves no beginning behind, in notice or journal."""
    secret = "gh" + "p_" + "q7R8" * 9
    texts = [f"{'x' * (limit - 12)} {secret}" for limit in (200, 1_000)]
    runner = Runner(gw, tmp_path)

    with runner:
        runner.execute(*texts)
        notices = runner.events("error", len(texts))
        with sqlite3.connect(runner.journal) as journal:
            recorded = [text for (text,) in journal.execute("SELECT command FROM commands")]
        journal.close()

    assert len(recorded) == len(notices) == len(texts)
    assert not [each for each in (*notices, *recorded) if "gh" + "p_" in each]


def test_failures_are_told_and_still_show_the_output(gw: StrictGateway, tmp_path: Path) -> None:
    """An exit code or a signal becomes an error, which has the output in it."""
    fails = f"{sys.executable} {CHILDREN / 'exits.py'} 3 some words"
    crashes = f"{sys.executable} {CHILDREN / 'exits.py'} SIGSEGV last words"
    with Runner(gw, tmp_path, EXTRA_ALLOWED_COMMANDS=f"{fails},{crashes}") as runner:
        acks = runner.execute(fails, crashes)
        errors = runner.events("error", 2)

    assert acks == [
        Ack(None, "exit code 3\nsome words\n"),
        Ack(None, "killed by SIGSEGV\nlast words\n"),
    ]
    assert errors == [
        f"Command failed: {fails}: exit code 3",
        f"Command failed: {crashes}: killed by SIGSEGV",
    ]


def test_a_flood_is_bounded_and_other_bytes_are_replaced(gw: StrictGateway, tmp_path: Path) -> None:
    """An ack holds the beginning and the end of much output; bytes that are no text are shown."""
    flood = f"{sys.executable} {CHILDREN / 'floods.py'} 3"
    other = f"{sys.executable} {CHILDREN / 'not_utf8.py'}"
    with Runner(gw, tmp_path, EXTRA_ALLOWED_COMMANDS=f"{flood},{other}") as runner:
        flooded, replaced = (ack.result or "" for ack in runner.execute(flood, other))

    assert len(flooded) < 100_000
    assert flooded.startswith(floods.line(0).decode())
    assert flooded.endswith(floods.line(29_999).decode())
    head, notice, tail = flooded.partition("\n[… ")
    size, _, tail = tail.partition(" bytes are left out here …]\n")
    assert notice
    assert len(head) + int(size) + len(tail) == 3_000_000
    assert replaced == not_utf8.OUTPUT.decode("utf-8", "replace")


def test_a_background_process_does_not_keep_the_result_back(
    gw: StrictGateway, tmp_path: Path
) -> None:
    """What a command leaves behind may hold its output open; the result comes all the same."""
    leaves = f"{sys.executable} {CHILDREN / 'leaves_grandchild.py'}"
    with Runner(gw, tmp_path, EXTRA_ALLOWED_COMMANDS=leaves) as runner:
        result = runner.execute(leaves)[0].result or ""
        pid = int(result.split()[1])
        assert processes.is_alive(pid)

    processes.assert_gone([pid])


# --- git diff ---------------------------------------------------------------------------------


def test_a_diff_is_uploaded_whole_and_redacted(gw: StrictGateway, tmp_path: Path) -> None:
    """`latest.diff` has every line of a large diff but no secret, and nothing that is no diff."""
    secret = "gh" + "p_" + "z9Y8" * 9
    runner = Runner(gw, tmp_path)
    make_repository(runner.cwd)
    git(runner.cwd, "config", "core.autocrlf", "input")  # git warns about CRLF on stderr
    lines = [f"line {number} of many\r\n" for number in range(100_000)]
    lines[50_000] = f"{secret}\r\n"
    (runner.cwd / "file.txt").write_bytes("".join(lines).encode())
    (runner.cwd / "staged.txt").write_text(f"staged {secret}\n")
    git(runner.cwd, "add", "staged.txt")

    with runner:
        shown, staged = runner.execute("git diff", "git diff --cached")
        gw.wait_for(lambda: len(gw.artifacts(runner.run.id)) == 2)
        uploads = gw.artifacts(runner.run.id)

    expected = [
        git(runner.cwd, *arguments).replace(secret, "[REDACTED]").encode()
        for arguments in (("diff",), ("diff", "--cached"))
    ]
    assert [(each.name, each.data) for each in uploads] == [
        ("latest.diff", expected[0]),
        ("latest.diff", expected[1]),
    ]
    assert len(expected[0]) > 1_500_000
    assert "bytes are left out here" in str(shown.result)
    assert "CRLF will be replaced by LF" in str(shown.result)
    assert staged.result is not None
    assert "staged [REDACTED]" in staged.result


def test_a_diff_over_the_limit_of_a_proxy_goes_in_parts(gw: StrictGateway, tmp_path: Path) -> None:
    """After a 413 a diff is cut smaller at line ends, and its parts make the whole."""
    runner = Runner(gw, tmp_path)
    make_repository(runner.cwd)
    (runner.cwd / "file.txt").write_text("".join(f"line {n} of many\n" for n in range(10_000)))
    gw.faults.add(
        Fault(lambda r: r.endpoint == "artifact" and len(r.body) > 60_000, Status(413), every=1)
    )
    expected = git(runner.cwd, "diff").encode()

    def is_whole() -> None:
        assert b"".join(each.data for each in gw.artifacts(runner.run.id)) == expected

    with runner:
        runner.execute("git diff")
        eventually(is_whole)
        uploads = gw.artifacts(runner.run.id)

    names = [f"latest.{number}.diff" for number in range(2, len(uploads) + 1)]
    assert [each.name for each in uploads] == ["latest.diff", *names]
    assert len(uploads) > 2
    assert all(each.data.endswith(b"\n") for each in uploads)


def test_a_diff_that_cannot_be_uploaded_is_still_shown(gw: StrictGateway, tmp_path: Path) -> None:
    """A refused upload is told to the user, and takes nothing from the result."""
    runner = Runner(gw, tmp_path)
    make_repository(runner.cwd)
    gw.faults.add(Fault("artifact", JsonError(413, "File too large")))

    with runner:
        (command_id,) = runner.queue("git diff")
        runner.acks(command_id)
        eventually(lambda: _assert_in("latest.diff is not uploaded", runner.stderr))
        assert runner.execute("pwd")[0].result

    # Twice, if it was listed just before the gateway had it.
    acks = gw.acks(runner.run.id)[command_id]
    assert acks == [Ack(git(runner.cwd, "diff"), None)] * len(acks)


def test_a_folder_without_a_repository_is_told(gw: StrictGateway, tmp_path: Path) -> None:
    """Outside a repository git's own words are the error."""
    with Runner(gw, tmp_path) as runner:
        acks = runner.execute("git status", "git log --oneline -10")

    for ack in acks:
        assert (ack.error or "").startswith("exit code 128\n")
        assert "not a git repository" in (ack.error or "")


def _assert_in(part: str, text: str) -> None:
    assert part in text


# --- a slow command ---------------------------------------------------------------------------

WAITS_FOR_FILE = """
    import os, signal
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.write(1, b"begun\\n")
    print(open(os.environ["FIFO"]).read(), end="")
"""


def wait_for_reader(fifo: Path) -> int:
    """Wait until a command reads the FIFO: by then it has begun. Returns what keeps it waiting."""

    def open_it() -> int:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:  # nobody reads: fifo(7)
            raise AssertionError(error) from None

    return eventually(open_it, 20)


def test_a_slow_command_delays_neither_output_nor_polls(gw: StrictGateway, tmp_path: Path) -> None:
    """While a command runs, output arrives, polls go on, and what needs no program is answered."""
    fifo, more = tmp_path / "fifo", tmp_path / "more"
    os.mkfifo(fifo)
    os.mkfifo(more)
    runner = Runner(
        gw,
        tmp_path,
        EXTRA_ALLOWED_COMMANDS="./slow",
        FIFO=str(fifo),
        command=("sh", "-c", f"echo READY; cat {more}; exec sleep 600"),
    )
    runner.script("slow", WAITS_FOR_FILE)

    with runner:
        slow, later = runner.queue("./slow", "pwd")
        runner.wait_for_event("info", "Executing command: ./slow")
        more.write_text("output while it runs\n")
        gw.wait_for(lambda: "output while it runs\n" in gw.text(runner.run.id))
        refused = runner.execute("no entry")[0]
        before = len(polls(gw))
        gw.wait_for(lambda: len(polls(gw)) >= before + 3)
        assert not {slow, later} & set(gw.acks(runner.run.id))
        fifo.write_text("ended\n")
        acks = runner.acks(slow, later)

    assert refused.error == "refused: it is not in the allowlist of this run"
    assert [ack.result for ack in acks] == ["begun\nended\n", f"{runner.cwd}\n"]


@pytest.mark.parametrize("how", ["__STOP__", "__HALT__", "the child"])
def test_the_end_kills_what_runs_and_refuses_what_waits(
    gw: StrictGateway, tmp_path: Path, how: str
) -> None:
    """At the end of the run every command is acknowledged, and nothing of them is alive."""
    fifo, more, proof = tmp_path / "fifo", tmp_path / "more", tmp_path / "proof"
    os.mkfifo(fifo)
    os.mkfifo(more)
    runner = Runner(
        gw,
        tmp_path,
        EXTRA_ALLOWED_COMMANDS="./slow,./never",
        FIFO=str(fifo),
        command=("sh", "-c", f"echo READY; exec cat {more}"),
    )
    slow_script = runner.script("slow", WAITS_FOR_FILE)
    never = runner.script("never", f"open({str(proof)!r}, 'w')")

    with runner:
        (slow,) = runner.queue(slow_script)
        writer = wait_for_reader(fifo)
        waiting = runner.queue(*[never] * 70)
        gw.wait_for(lambda: len(gw.acks(runner.run.id)) >= 20)  # the queue holds no more than 50
        last = []
        if how == "the child":
            more.write_text("")
        else:
            last = runner.queue(how)
        code = runner.wait()
        acks = runner.acks(slow, *waiting, *last)
        os.close(writer)

    assert not proof.exists()
    assert "begun" in (acks[0].error or "").splitlines()
    reasons = [ack.error for ack in acks[1:71]]
    assert sorted(set(reasons), key=str) == [
        "refused: too many commands are waiting",
        "the run has ended",
    ]
    assert reasons[:50] == ["the run has ended"] * 50
    assert code == {"__STOP__": 130, "__HALT__": 137, "the child": 0}[how]
    assert gw.pending(runner.run.id) == []
    assert gw.verify_finished(runner.run.id) == []
    assert "Command failed: ./slow" in "".join(runner.events("error"))


def test_commands_run_one_at_a_time_and_in_order(gw: StrictGateway, tmp_path: Path) -> None:
    """The next command begins when the one before has ended."""
    log = tmp_path / "log"
    names = [f"./script-{number}" for number in range(8)]
    runner = Runner(gw, tmp_path, EXTRA_ALLOWED_COMMANDS=",".join(names))
    for name in names:
        runner.script(
            name,
            f"""
            import os, select
            def say(word):
                fd = os.open({str(log)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.write(fd, f"{{word}} {name}\\n".encode())
            say("begin")
            select.select([], [], [], 0.02)
            say("end")
            """,
        )

    with runner:
        runner.execute(*names)

    assert log.read_text().splitlines() == [
        f"{w} {name}" for name in names for w in ("begin", "end")
    ]


# --- a stop -----------------------------------------------------------------------------------


def test_a_stop_does_not_wait_for_what_was_queued_before_it(
    gw: StrictGateway, tmp_path: Path
) -> None:
    """A stop at the end of a long list is carried out though nothing before it can be answered."""
    with Runner(gw, tmp_path) as runner:
        held = gw.faults.add(Fault("ack", Hang(), every=1))
        paused = gw.faults.add(Fault("commands", Html(502), every=1))
        commands = runner.queue(*["no entry"] * 150, "pwd", "__STOP__")
        gw.faults.remove(paused)
        # The child is gone while the first ack still hangs.
        child = next(
            pid
            for pid in processes.descendants(runner.pid)
            if processes.command_line(pid).startswith("sleep")
        )
        processes.assert_gone([child])
        assert gw.acks(runner.run.id) == {}
        gw.faults.remove(held)
        assert runner.wait() == 130

    stop = runner.acks(commands[-1])[0]
    assert stop == Ack("Stop initiated", None)
    assert runner.events("info") == ["Stop requested by the operator"]


def test_the_ack_of_a_stop_arrives_though_the_run_ends_at_once(
    gw: StrictGateway, tmp_path: Path
) -> None:
    """The end of the run breaks off the poller's exchange; its acknowledgement is sent again."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    tidies_up = f"trap 'cat {fifo}; exit 0' INT; echo READY; sleep 600 & wait"
    with Runner(gw, tmp_path, command=("sh", "-c", tidies_up)) as runner:
        hang = gw.faults.add(Fault("ack", Hang(), times=1))
        (stop,) = runner.queue("__STOP__")
        gw.wait_for(lambda: hang.applied == 1)
        fifo.write_text("")
        assert runner.wait() == 130

    assert gw.acks(runner.run.id) == {stop: [Ack("Stop initiated", None)]}


def test_an_ack_that_is_refused_for_a_while_at_the_end_still_arrives(
    gw: StrictGateway, tmp_path: Path
) -> None:
    """A rate limit at the very end costs the operator patience, and no acknowledgement."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    runner = Runner(gw, tmp_path, EXTRA_ALLOWED_COMMANDS="./slow", FIFO=str(fifo))
    runner.script("slow", WAITS_FOR_FILE)

    with runner:
        slow, later = runner.queue("./slow", "pwd")
        writer = wait_for_reader(fifo)
        gw.faults.add(Fault("ack", RateLimited(1), times=2))
        stop = gw.stop(runner.run.id)
        runner.wait()
        os.close(writer)

    acks = runner.acks(slow, later, stop)
    assert (acks[0].error or "").endswith("\nbegun\n")
    assert acks[1:] == [Ack(None, "the run has ended"), Ack("Stop initiated", None)]


def test_keys_are_refused_in_print_mode(gw: StrictGateway, tmp_path: Path) -> None:
    """Where nobody reads the terminal, escape and input are refused with that reason.

    What was typed, perhaps a password, is in no journal.
    """
    with Runner(gw, tmp_path, CLAUDE_RUNNER_ALLOW_REMOTE_INPUT="true") as runner:
        acks = runner.execute("__ESCAPE__", "__INPUT__:text", "__INPUT__:")
        with closing(sqlite3.connect(runner.journal)) as journal:
            recorded = journal.execute("SELECT command FROM commands").fetchall()

    assert sorted(recorded) == [("__ESCAPE__",), ("__INPUT__",), ("__INPUT__",)]
    assert acks == [Ack(None, "refused: print mode does not read from the terminal")] * 3


# --- answers that are lost --------------------------------------------------------------------


@pytest.mark.parametrize(
    "action",
    [
        DropBefore(),
        DropAfter(reset=True),
        JsonError(500, after="nonce"),
        Html(502, after="stored"),
        RateLimited(1),
    ],
    ids=repr,
)
def test_a_command_is_executed_once_though_its_ack_is_lost(
    gw: StrictGateway, tmp_path: Path, action: Action
) -> None:
    """The command stays listed and is not run again; its result is acknowledged again."""
    log = tmp_path / "log"
    runner = Runner(gw, tmp_path, EXTRA_ALLOWED_COMMANDS="./counts")
    runner.script("counts", f"open({str(log)!r}, 'a').write('once\\n'); print('done')")
    is_stored = getattr(action, "after", "") == "stored" or isinstance(action, DropAfter)
    # More than one round of attempts; but what the gateway has stored it no longer lists.
    times = 1 if is_stored or isinstance(action, RateLimited) else 5

    with runner:
        fault = gw.faults.add(Fault("ack", action, times=times))
        counted, refused = runner.queue("./counts", "no entry")
        gw.wait_for(lambda: fault.applied == times and not gw.pending(runner.run.id), 20)
        before = len(polls(gw))
        gw.wait_for(lambda: len(polls(gw)) >= before + 2)

    assert log.read_text() == "once\n"
    assert set(gw.acks(runner.run.id)[counted]) == {Ack("done\n", None)}
    assert {ack.result for ack in gw.acks(runner.run.id)[refused]} == {None}
    assert runner.events("info") == ["Executing command: ./counts"]
    assert len(runner.events("error")) == 1


# --- a gateway that is broken -----------------------------------------------------------------


def polls(gateway: StrictGateway) -> list[RequestRecord]:
    """Return the questions for commands."""
    return [request for request in gateway.requests if request.endpoint == "commands"]


def answer_polls(gateway: StrictGateway, content: object, times: int = 2) -> Fault:
    """Let the next polls be answered by this in the place of the gateway's list."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return gateway.faults.add(Fault("commands", Status(200, body, "application/json"), times=times))


def test_malformed_commands_are_dropped_counted_and_told(gw: StrictGateway, tmp_path: Path) -> None:
    """Ids that must not meet a path, and objects that are none, do nothing but count."""
    proof = tmp_path / "proof"
    runner = Runner(gw, tmp_path, EXTRA_ALLOWED_COMMANDS="./proof")
    runner.script("proof", f"open({str(proof)!r}, 'w')")
    ids: list[object] = [
        *("../x", "a/b", "a" * 51, "", " ", "a b", "é", "a\n", "\0", "%2e", "a?b", "..", "a.b"),
        *(7, 1.5, None, True, [], {}, ["a"]),
    ]
    items: list[object] = [{"id": each, "command": "./proof"} for each in ids]
    items += [{"command": "./proof"}, {"id": "no_command"}, {"id": "number", "command": 7}]
    items += [{"id": "list", "command": ["./proof"]}, {"id": "none", "command": None}]
    items += ["./proof", 7, None, [], [{"id": "nested", "command": "./proof"}]]

    with runner:
        fault = answer_polls(gw, items, times=3)
        gw.wait_for(lambda: fault.applied == 3)
        assert runner.execute("pwd")[0].result
        assert runner.events("error") == []

    assert not proof.exists()
    assert f"{len(items)} commands of the gateway were malformed and ignored" in runner.stderr
    assert [request for request in gw.requests if request.endpoint == "unknown"] == []


def test_answers_that_are_no_list_are_survived(gw: StrictGateway, tmp_path: Path) -> None:
    """Whatever the gateway answers, the runner lives on, tells once, and asks again."""
    contents: list[object] = [
        *({"commands": []}, "text", None, b"", b"\xff\xfe"),
        *(b"[" * 100_000, b"[" * 500 + b"]" * 500, b"[" + b" " * 2_000_000 + b"]"),
    ]
    with Runner(gw, tmp_path) as runner:
        for content in contents:
            fault = answer_polls(gw, content, times=1)
            gw.wait_for(lambda fault=fault: fault.applied == 1)  # type: ignore[misc]
            gw.faults.clear()
            # One answer that can be used, so that the pauses do not grow.
            before = len(polls(gw))
            gw.wait_for(lambda before=before: len(polls(gw)) > before)  # type: ignore[misc]
        assert runner.execute("pwd")[0].result

    told = "the gateway's answer to a poll is not a list of commands"
    assert runner.stderr.count(told) == 1


def test_a_flood_of_refused_commands_leaves_little_behind(
    gw: StrictGateway, tmp_path: Path
) -> None:
    """All are refused to the gateway's face; the journal and the stream get the first of them."""
    with Runner(gw, tmp_path) as runner:
        ids = [gw.queue_command(runner.run.id, f"rm {number} {'x' * 500}") for number in range(320)]
        gw.wait_for(lambda: len(gw.acks(runner.run.id)) == len(ids), 60)
        assert runner.execute("pwd")[0].error is None
        with closing(sqlite3.connect(runner.journal)) as journal:
            (recorded,) = journal.execute("SELECT count(*) FROM commands").fetchone()

    assert {gw.acks(runner.run.id)[each][-1].error for each in ids} == {
        "refused: it is not in the allowlist of this run"
    }
    assert gw.text(runner.run.id, "error").count("Refused command") == 200
    assert recorded == 201


def test_a_gateway_that_asks_for_a_years_patience_does_not_delay_a_stop(
    gw: StrictGateway, tmp_path: Path
) -> None:
    """What is no end of a window is asked again soon."""
    with Runner(gw, tmp_path) as runner:
        gw.faults.add(Fault("commands", RateLimited(retry_after_s=31_536_000), times=1))
        gw.wait_for(lambda: any(each.status == 429 for each in gw.requests), 30)
        gw.queue_command(runner.run.id, "__STOP__")
        runner.wait()


def test_an_endless_answer_and_one_command_too_many_are_survived(
    gw: StrictGateway, tmp_path: Path
) -> None:
    """An answer without an end is broken off, and half a character does not end remote control.

    Nor does a command hold up the next one that the redaction would take minutes for.
    """
    slow = f"-----BEGIN {'RSA'} PRIVATE KEY-----\n" * 20_000
    with Runner(gw, tmp_path) as runner:
        fault = gw.faults.add(Fault("commands", Huge(), times=2))
        gw.wait_for(lambda: fault.applied == 2)
        broken = runner.execute("\ud83d", "./\udc00", slow)
        assert runner.execute("pwd")[0].result

        told = runner.events("error", len(broken))

    assert all("refused" in str(ack.error) for ack in broken)
    assert told[-1].startswith(f"Refused command: [{len(slow)} characters]: ")
    assert "remote control failed" not in runner.stderr


def test_escapes_of_the_gateway_are_shown_and_not_obeyed(gw: StrictGateway, tmp_path: Path) -> None:
    """No control character of the gateway's reaches the user's terminal, or comes back raw."""
    evil = "\x1b]0;owned\x07\x1b[2J\r\u202e\x9b31m"
    with Runner(gw, tmp_path) as runner:
        ack = runner.execute(f"pwd {evil}")[0]
        errors = runner.events("error", 1)
        refusal = f"Capability token mismatch {evil}"
        gw.faults.add(Fault("commands", JsonError(403, refusal), every=1))
        eventually(lambda: _assert_in("refuses remote control", runner.stderr))

    assert "".join(errors) == (
        "Refused command: pwd \\x1b]0;owned\\x07\\x1b[2J\\r\\u202e\\x9b31m: "
        "it contains a line break or another control character"
    )
    assert (ack.error or "").isprintable()
    assert "\\x1b]0;owned" in runner.stderr
    assert all(line.isprintable() for line in runner.stderr.split("\n"))


def test_a_certificate_that_changes_does_not_end_remote_control(tmp_path: Path) -> None:
    """Commands of somebody else are not taken, and the thread that asks for them lives on."""
    with StrictGateway(rate_limit=None, tls=True) as gateway:
        first = gateway.authority.issue()
        gateway.use_certificate(first)
        with Runner(gateway, tmp_path, ALLOW_SELF_SIGNED="true") as runner:
            gateway.use_certificate(gateway.authority.issue())
            eventually(lambda: _assert_in("is not the one that was trusted", runner.stderr))
            gateway.use_certificate(first)
            os.kill(runner.pid, signal.SIGTERM)
            # An event that was on its way just then is tried again after half a minute.
            runner.wait(60)

        assert "remote control failed" not in runner.stderr


# --- how often it asks ------------------------------------------------------------------------


def spacing_of(requests: list[RequestRecord]) -> list[float]:
    """Return the seconds between the arrivals of requests."""
    return [later.at - earlier.at for earlier, later in zip(requests, requests[1:])]


def test_plain_polls_keep_their_interval(gw: StrictGateway, tmp_path: Path) -> None:
    """With a gateway without long polls, one question an interval; also while a command runs."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    runner = Runner(gw, tmp_path, EXTRA_ALLOWED_COMMANDS="./slow", FIFO=str(fifo))
    runner.script("slow", WAITS_FOR_FILE)

    with runner:
        first = len(polls(gw))  # the one before is the check at the start
        gw.wait_for(lambda: len(polls(gw)) >= first + 5)
        (slow,) = runner.queue("./slow")
        runner.wait_for_event("info", "Executing command: ./slow")
        during = len(polls(gw))
        gw.wait_for(lambda: len(polls(gw)) >= during + 5)
        fifo.write_text("")
        runner.acks(slow)
        asked = polls(gw)[first:]

    assert min(spacing_of(asked)) >= POLL_INTERVAL_S * 0.9


def test_a_long_poll_gets_a_command_at_once_and_is_no_flood(tmp_path: Path) -> None:
    """With long polls one question stays open, answered by a command; then there is a pause."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with StrictGateway(rate_limit=None, long_poll=True) as gateway:
        runner = Runner(gateway, tmp_path, EXTRA_ALLOWED_COMMANDS="./slow", FIFO=str(fifo))
        runner.script("slow", WAITS_FOR_FILE)
        with runner:
            gateway.wait_for(lambda: polls(gateway)[-1].query == "wait=20")
            idle = len(polls(gateway))
            assert runner.execute("pwd")[0].result
            gateway.wait_for(lambda: len(polls(gateway)) > idle)
            assert len(polls(gateway)) <= idle + 2
            (slow,) = runner.queue("./slow")
            runner.wait_for_event("info", "Executing command: ./slow")
            during = len(polls(gateway))
            gateway.wait_for(lambda: len(polls(gateway)) >= during + 4)
            fifo.write_text("")
            runner.acks(slow)
            gateway.stop(runner.run.id)
            assert runner.wait() == 130

        assert min(spacing_of(polls(gateway)[during:])) >= POLL_INTERVAL_S * 0.9
