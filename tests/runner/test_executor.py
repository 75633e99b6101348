"""What the operator may do, proven from outside: the real runner, its keeper, a strict gateway."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from allowlist import DOCUMENTED_COMMANDS
from testing.gateways.strict_gateway import Ack, StrictGateway
from testing.programs import processes
from testing.programs.children import floods, not_utf8
from tests.runner.operated import WAITS_FOR_FILE, Runner, git, make_repository, polls, write_script

CHILDREN = Path(floods.__file__).parent

# --- what is allowed ---------------------------------------------------------------------------


def test_every_documented_command_and_the_users_own_are_executed(
    plain: StrictGateway, tmp_path: Path
) -> None:
    """Each entry of the table runs with its exact argv, in order, in the run's folder."""
    extra = "make build, make test,./custom-script.sh"
    runner = Runner(plain, tmp_path, EXTRA_ALLOWED_COMMANDS=extra)
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
    assert plain.markers(runner.run.id, "started")[0]["commands"] == commands


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


def test_what_is_no_entry_is_refused_and_does_nothing(plain: StrictGateway, tmp_path: Path) -> None:
    """A text that is not an entry gets an error, and no file appears that it would have made."""
    proof = tmp_path / "proof"
    runner = Runner(plain, tmp_path)
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


def test_keys_are_refused_in_print_mode(plain: StrictGateway, tmp_path: Path) -> None:
    """Where nobody reads the terminal, escape and input are refused with that reason.

    What was typed, perhaps a password, is in no journal.
    """
    with Runner(plain, tmp_path, CLAUDE_RUNNER_ALLOW_REMOTE_INPUT="true") as runner:
        acks = runner.execute("__ESCAPE__", "__INPUT__:text", "__INPUT__:")
        with closing(sqlite3.connect(runner.journal)) as journal:
            recorded = journal.execute("SELECT command FROM commands").fetchall()

    assert sorted(recorded) == [("__ESCAPE__",), ("__INPUT__",), ("__INPUT__",)]
    assert acks == [Ack(None, "refused: print mode does not read from the terminal")] * 3


def test_a_flood_of_refused_commands_leaves_little_behind(
    plain: StrictGateway, tmp_path: Path
) -> None:
    """All are refused to the gateway's face; the journal and the stream get the first of them."""
    with Runner(plain, tmp_path) as runner:
        ids = [
            plain.queue_command(runner.run.id, f"rm {number} {'x' * 500}") for number in range(320)
        ]
        plain.wait_for(lambda: len(plain.acks(runner.run.id)) == len(ids), 60)
        assert runner.execute("pwd")[0].error is None
        with closing(sqlite3.connect(runner.journal)) as journal:
            (recorded,) = journal.execute("SELECT count(*) FROM commands").fetchone()

    assert {plain.acks(runner.run.id)[each][-1].error for each in ids} == {
        "refused: it is not in the allowlist of this run"
    }
    assert plain.text(runner.run.id, "error").count("Refused command") == 200
    assert recorded == 201


# --- how it is executed ------------------------------------------------------------------------


def test_a_command_gets_no_input_no_terminal_and_no_secret(
    plain: StrictGateway, tmp_path: Path
) -> None:
    """Stdin is empty, folder and session are its own, and no secret is in the environment."""
    report = tmp_path / "report"
    runner = Runner(plain, tmp_path, EXTRA_ALLOWED_COMMANDS="./report")
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
    secrets = (plain.secret, runner.run.token)
    assert not [name for name, value in environment.items() if any(s in value for s in secrets)]
    assert environment["HOME"] == os.environ["HOME"]


def test_the_time_limit_kills_the_whole_tree(plain: StrictGateway, tmp_path: Path) -> None:
    """A command over its time is killed with all that it started, and the operator is told."""
    pids = tmp_path / "pids"
    runner = Runner(
        plain, tmp_path, EXTRA_ALLOWED_COMMANDS="./slow", CLAUDE_RUNNER_COMMAND_TIMEOUT="1"
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
    plain: StrictGateway, tmp_path: Path
) -> None:
    """The operator reads what is missing, in words; and the next command runs."""
    commands = ["no-such-program --x", "./no-such-file", "./not-executable", "./no-interpreter"]
    runner = Runner(
        plain,
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


def test_output_is_redacted_wherever_it_was_split(plain: StrictGateway, tmp_path: Path) -> None:
    """A secret that comes byte by byte, or in an error's output, does not reach the gateway."""
    secret = "gh" + "p_" + "a1B2" * 9
    text = f"before {secret} after\n"
    bytewise = f"{sys.executable} {CHILDREN / 'prints_bytewise.py'} {text.encode().hex()} 1"
    fails = f"{sys.executable} {CHILDREN / 'exits.py'} 3 {secret}"
    runner = Runner(plain, tmp_path, EXTRA_ALLOWED_COMMANDS=f"{bytewise},{fails},cat own")
    (runner.cwd / "own").write_text(f"{plain.secret} and {runner.run.token}\n")

    with runner:
        acks = runner.execute(bytewise, fails, "cat own")

    assert acks[0].result == "before [REDACTED] after\n"
    assert acks[1].error == "exit code 3\n[REDACTED]\n"
    assert acks[2].result == "[REDACTED] and [REDACTED]\n"
    assert not any(secret in event.data for event in plain.events(runner.run.id))


def test_a_refused_command_is_redacted_before_it_is_shortened(
    plain: StrictGateway, tmp_path: Path
) -> None:
    """A secret that begins just before the cut leaves no beginning behind, in notice or journal."""
    secret = "gh" + "p_" + "q7R8" * 9
    texts = [f"{'x' * (limit - 12)} {secret}" for limit in (200, 1_000)]
    runner = Runner(plain, tmp_path)

    with runner:
        runner.execute(*texts)
        notices = runner.events("error", len(texts))
        with sqlite3.connect(runner.journal) as journal:
            recorded = [text for (text,) in journal.execute("SELECT command FROM commands")]
        journal.close()

    assert len(recorded) == len(notices) == len(texts)
    assert not [each for each in (*notices, *recorded) if "gh" + "p_" in each]


def test_failures_are_told_and_still_show_the_output(plain: StrictGateway, tmp_path: Path) -> None:
    """An exit code or a signal becomes an error, which has the output in it."""
    fails = f"{sys.executable} {CHILDREN / 'exits.py'} 3 some words"
    crashes = f"{sys.executable} {CHILDREN / 'exits.py'} SIGSEGV last words"
    with Runner(plain, tmp_path, EXTRA_ALLOWED_COMMANDS=f"{fails},{crashes}") as runner:
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


def test_a_flood_is_bounded_and_other_bytes_are_replaced(
    plain: StrictGateway, tmp_path: Path
) -> None:
    """An ack holds the beginning and the end of much output; bytes that are no text are shown."""
    flood = f"{sys.executable} {CHILDREN / 'floods.py'} 3"
    other = f"{sys.executable} {CHILDREN / 'not_utf8.py'}"
    with Runner(plain, tmp_path, EXTRA_ALLOWED_COMMANDS=f"{flood},{other}") as runner:
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
    plain: StrictGateway, tmp_path: Path
) -> None:
    """What a command leaves behind may hold its output open; the result comes all the same."""
    leaves = f"{sys.executable} {CHILDREN / 'leaves_grandchild.py'}"
    with Runner(plain, tmp_path, EXTRA_ALLOWED_COMMANDS=leaves) as runner:
        result = runner.execute(leaves)[0].result or ""
        pid = int(result.split()[1])
        assert processes.is_alive(pid)

    processes.assert_gone([pid])


def test_a_slow_command_delays_neither_output_nor_polls(
    plain: StrictGateway, tmp_path: Path
) -> None:
    """While a command runs, output arrives, polls go on, and what needs no program is answered."""
    fifo, more = tmp_path / "fifo", tmp_path / "more"
    os.mkfifo(fifo)
    os.mkfifo(more)
    runner = Runner(
        plain,
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
        plain.wait_for(lambda: "output while it runs\n" in plain.text(runner.run.id))
        refused = runner.execute("no entry")[0]
        before = len(polls(plain))
        plain.wait_for(lambda: len(polls(plain)) >= before + 3)
        assert not {slow, later} & set(plain.acks(runner.run.id))
        fifo.write_text("ended\n")
        acks = runner.acks(slow, later)

    assert refused.error == "refused: it is not in the allowlist of this run"
    assert [ack.result for ack in acks] == ["begun\nended\n", f"{runner.cwd}\n"]


def test_commands_run_one_at_a_time_and_in_order(plain: StrictGateway, tmp_path: Path) -> None:
    """The next command begins when the one before has ended."""
    log = tmp_path / "log"
    names = [f"./script-{number}" for number in range(8)]
    runner = Runner(plain, tmp_path, EXTRA_ALLOWED_COMMANDS=",".join(names))
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
