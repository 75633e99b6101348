"""`doctor` as its user meets it: what is wrong on a machine is told, with what to do."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from config import RunnerError
from gateway.whereabouts import Whereabouts
from redact import Rules
from testing.gateways.certificates import self_signed
from testing.gateways.faults import Delay, Fault, Html
from testing.gateways.strict_gateway import StrictGateway
from testing.installed import lay_out
from testing.programs.processes import assert_gone
from testing.programs.runner import run_to_end
from testing.programs.runner_files import ROOT
from testing.programs.terminal import Terminal
from tools import doctor
from tools.doctor import PACKAGES, ask_version

WITHIN_S = 60.0
LOCAL = ("Python", "packages", "terminal", "configuration", "program", "tmate")
REMOTE = ("gateway", "TLS", "clock", "signature")


@dataclass
class _Patient:
    """A machine to look over: its configuration and its folder."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def argv(self) -> list[str]:
        (self.folder / "env").touch()
        own = ["--env-file", str(self.folder / "env"), "--data-dir", str(self.folder / "data")]
        return [sys.executable, str(ROOT / "claude_runner.py"), "doctor", *own]

    def use(self, *arguments: str, limit: str = "") -> subprocess.CompletedProcess[str]:
        """Run `doctor` to its end, without a terminal; `limit` is what a shell does before."""
        shell = ["bash", "-c", f'{limit}; exec "$@"', "bash"] if limit else []
        done = run_to_end(
            [*shell, *self.argv, *arguments], {**os.environ, **self.env}, within_s=WITHIN_S
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def look(self, *arguments: str) -> dict[str, tuple[str, str]]:
        """Return status and text of each check."""
        done = self.use("--json", *arguments)
        answer: dict[str, Any] = json.loads(done.stdout)
        assert answer["ok"] is (done.returncode == 0)
        return {each["check"]: (each["status"], each["text"]) for each in answer["findings"]}

    def meet(self, gateway: StrictGateway) -> None:
        """Configure it for a gateway."""
        self.env |= {"GATEWAY_URL": gateway.url, "HMAC_SECRET": gateway.secret}

    def install_claude(self, *lines: str) -> Path:
        """Put a Claude Code of a few shell lines on PATH; return its file."""
        program = self.folder / "bin" / "claude"
        program.parent.mkdir(exist_ok=True)
        program.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        program.chmod(0o755)
        self.env["PATH"] = f"{program.parent}:{os.environ['PATH']}"
        return program


@pytest.fixture
def patient(tmp_path: Path) -> _Patient:
    """A machine with a Claude Code and no configuration."""
    patient = _Patient(tmp_path)
    patient.install_claude('echo "$*" >> "$0.calls"', "echo '2.9.9 (Claude Code)'")
    return patient


def test_all_is_well(patient: _Patient) -> None:
    """Each line says ok, or note; the run is asked for if it is named; success."""
    with StrictGateway() as gateway:
        patient.meet(gateway)
        run = gateway.create_run()
        done = patient.use("--run-id", run.id, "--token", run.token)

    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    names = [line[6:].partition(":")[0] for line in lines]
    assert names == [*LOCAL, "data folder", "journal", "operator", *REMOTE, "run"]
    assert {line[:6] for line in lines} <= {"ok    ", "note  "}
    assert f"ok    program: {patient.folder}/bin/claude: 2.9.9 (Claude Code)" in lines
    assert f"ok    run: {run.id} is there, and the token is right" in lines


def test_a_token_without_its_run_is_not_passed_over(patient: _Patient) -> None:
    """A wrong token must not look like a right one because nobody asked with it."""
    with StrictGateway() as gateway:
        patient.meet(gateway)
        done = patient.use("--token", "0" * 64)

    assert done.returncode == 1
    assert "FAIL  run: --run-id is missing" in done.stdout


def test_what_is_remembered_of_the_gateway_is_named(patient: _Patient) -> None:
    """Host and file, and what to do if it really changed; where the file is bad, that."""
    state = patient.folder / "state" / "claude-runner"
    file = state / "verified.json"
    with StrictGateway(tls=True) as gateway:
        patient.meet(gateway)
        patient.env |= {
            "ALLOW_SELF_SIGNED": "true",
            "REQUESTS_CA_BUNDLE": str(gateway.ca_file),
            "XDG_STATE_HOME": str(state.parent),
        }
        host = f"127.0.0.1:{gateway.port}"
        unknown = patient.look()["verified before"]
        known = patient.look()["verified before"]
        file.chmod(0o666)
        writable = patient.look()["verified before"]
        file.chmod(0o600)
        file.write_text("{broken")
        broken = patient.look()["verified before"]
        if os.geteuid() == 0:
            file.write_text("{}")
            os.chown(file, 4242, -1)
            foreign = patient.look()["verified before"]
            assert foreign[0] == "fail"
            assert "belongs to another user" in foreign[1]

    assert unknown == ("ok", f"nothing is remembered of {host} in {file}")
    assert known[0] == "ok"
    assert f"{host} is remembered in {file}" in known[1]
    assert "remove that line" in known[1]
    assert writable[0] == broken[0] == "fail"
    assert "chmod go-w" in writable[1]
    assert "correct it, or remove it" in broken[1]


def test_no_secret_is_shown_and_nothing_is_left(patient: _Patient) -> None:
    """Neither in text nor as JSON; of the data folder's test nothing stays."""
    with StrictGateway() as gateway:
        patient.meet(gateway)
        run = gateway.create_run()
        shown = [
            patient.use("--run-id", run.id, "--token", run.token, *form).stdout
            for form in ([], ["--json"])
        ]

    assert not [text for text in shown if gateway.secret in text or run.token in text]
    assert os.listdir(patient.folder / "data") == [".gitignore"]


def test_nothing_but_the_version_is_asked_of_claude_code(patient: _Patient) -> None:
    """And of another program not even that: it may do anything with an argument."""
    patient.look()
    other = patient.folder / "other"
    other.write_text('#!/bin/sh\ntouch "$0.was-started"\n')
    other.chmod(0o755)
    patient.env["CLAUDE_COMMAND"] = f"{other} deploy"

    status, text = patient.look()["program"]

    assert (patient.folder / "bin" / "claude.calls").read_text() == "--version\n"
    assert (status, text) == (
        "ok",
        f"{other}; it is not known to be Claude Code, so its version was not asked",
    )
    assert not (patient.folder / "other.was-started").exists()


def test_without_a_secret_it_says_what_is_missing(patient: _Patient) -> None:
    """The rest is looked at all the same."""
    with StrictGateway() as gateway:
        patient.env["GATEWAY_URL"] = gateway.url
        found = patient.look()

    assert found["configuration"][0] == found["signature"][0] == "fail"
    assert "HMAC_SECRET is not set; put the gateway's own secret into" in found["configuration"][1]
    assert found["gateway"] == ("ok", f"{gateway.url} answers")


def test_a_secret_that_could_be_guessed_is_told(patient: _Patient) -> None:
    """It works with it, so it is a note; and it says how long one should be."""
    patient.env |= {"HMAC_SECRET": "hunter2", "GATEWAY_URL": "http://127.0.0.1:9"}

    status, text = patient.look()["configuration"]

    assert status == "note"
    assert "too short to be safe; give the gateway one of 32 characters or more" in text
    assert "hunter2" not in text


def test_a_setting_that_is_wrong_is_told(patient: _Patient) -> None:
    """What does not depend on the settings is told too."""
    patient.env["ALLOW_SELF_SIGNED"] = "perhaps"

    found = patient.look()

    assert found["Python"][0] == "ok"
    assert found["configuration"] == (
        "fail",
        "ALLOW_SELF_SIGNED is 'perhaps'; write true or false; the other checks were not made",
    )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["exit 3"], "failed with 3; try it by hand"),
        (["kill -9 $$"], "failed with -9; try it by hand"),
    ],
    ids=["fails", "killed"],
)
def test_a_claude_code_that_does_not_work_is_told(
    lines: list[str], words: str, patient: _Patient
) -> None:
    """With the command to try by hand."""
    patient.install_claude(*lines)

    status, text = patient.look()["program"]

    assert status == "fail"
    assert "`claude --version`" in text
    assert words in text


def test_a_program_that_is_missing_is_told(patient: _Patient) -> None:
    """In the words of `start`."""
    patient.env["CLAUDE_COMMAND"] = "no-such-claude"

    status, text = patient.look()["program"]

    assert status == "fail"
    assert "'no-such-claude' (CLAUDE_COMMAND, environment) was not found in PATH" in text


def test_the_tmate_that_is_looked_for_is_the_configured_one(patient: _Patient) -> None:
    """It may have another name, and one that is wrong is told by its variable."""
    own = patient.folder / "my-tmate"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    patient.env["CLAUDE_RUNNER_TMATE_COMMAND"] = shlex.join([str(own), "-v"])
    assert patient.look()["tmate"] == ("ok", str(own))

    own.unlink()
    status, text = patient.look()["tmate"]

    assert status == "note"
    assert text.startswith(f"'{own}' (CLAUDE_RUNNER_TMATE_COMMAND, environment) was not found")


def test_a_version_that_holds_a_secret_or_controls_is_shown_safely(patient: _Patient) -> None:
    """A program may print anything."""
    patient.env["SOME_TOKEN"] = "hidden" + "0x5f3759df"
    patient.install_claude('printf "\\033]0;title\\007 %s\\n" "$SOME_TOKEN"')

    text = patient.look()["program"][1]

    assert patient.env["SOME_TOKEN"] not in text
    assert "\x1b" not in text


def test_a_program_that_hangs_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait has an end, and leaves nothing."""
    monkeypatch.setattr(doctor, "VERSION_PATIENCE_S", 1.0)
    script = f"sleep 600 & echo $! >{shlex.quote(str(tmp_path))}/pid; wait"

    with pytest.raises(RunnerError, match="did not end within 1 s"):
        ask_version(["sh", "-c", script], dict(os.environ), Rules())

    assert_gone([int((tmp_path / "pid").read_text())])


def test_a_data_folder_of_no_use_is_told(patient: _Patient) -> None:
    """Both what depends on it and what to do."""
    (patient.folder / "data").write_text("a file")

    found = patient.look()

    assert found["data folder"][0] == found["journal"][0] == "fail"
    assert "set --data-dir or CLAUDE_RUNNER_DATA_DIR to another one" in found["data folder"][1]
    assert "set CLAUDE_RUNNER_DATA_DIR to another folder" in found["journal"][1]


def test_a_disk_that_takes_no_journal_is_told_with_a_way_out(patient: _Patient) -> None:
    """The folder may be there and writable, and the file in it too small all the same."""
    # Coverage could not write its own file either, and would say so.
    done = patient.use(limit='unset "${!COVERAGE_@}"; ulimit -f 8')

    assert "ok    data folder: " in done.stdout
    line = next(each for each in done.stdout.splitlines() if "  journal: " in each)
    assert line.startswith(f"FAIL  journal: {patient.folder}/data cannot hold a journal (")
    assert line.endswith("; make room, or set CLAUDE_RUNNER_DATA_DIR to another folder")


def test_a_gateway_that_is_away_is_told(patient: _Patient) -> None:
    """What would have to be asked of it is left out."""
    patient.env |= {"GATEWAY_URL": "http://127.0.0.1:9", "HMAC_SECRET": "s" * 32}

    found = patient.look()

    assert found["gateway"][0] == "fail"
    assert "cannot be reached: the connection was refused" in found["gateway"][1]
    assert not {"TLS", "clock", "signature"} & set(found)


def test_what_is_not_the_gateway_is_told(patient: _Patient) -> None:
    """A page of a proxy, say."""
    with StrictGateway() as gateway:
        patient.meet(gateway)
        gateway.faults.add(Fault("health", Html(502)))
        found = patient.look()

    assert "did not answer like a gateway" in found["gateway"][1]


def test_a_wrong_secret_and_a_wrong_clock_are_told(patient: _Patient) -> None:
    """Each in a line of its own."""
    with StrictGateway() as gateway:
        gateway.allow("bad signature", "timestamp")
        patient.meet(gateway)
        patient.env["HMAC_SECRET"] = "w" * 32
        wrong_secret = patient.look()
        patient.meet(gateway)
        gateway.clock_offset_s = 1_000.0
        wrong_clock = patient.look()

    assert wrong_secret["signature"][0] == "fail"
    assert "HMAC_SECRET (environment) must be the gateway's own" in wrong_secret["signature"][1]
    assert wrong_secret["clock"] == ("ok", "the same as the gateway's")
    assert wrong_clock["clock"][0] == "fail"
    assert re.search(r"(999|100\d) s behind the gateway's \(limit 300 s\)", wrong_clock["clock"][1])
    assert wrong_clock["signature"][0] == "fail"


def test_why_a_connection_is_trusted_is_told(patient: _Patient) -> None:
    """Verified; self-signed for the first time; the same again; another one; not allowed."""
    with StrictGateway(tls=True) as gateway:
        patient.meet(gateway)
        patient.env["REQUESTS_CA_BUNDLE"] = str(gateway.ca_file)
        verified = patient.look()["TLS"]
        gateway.use_certificate(self_signed("localhost", "127.0.0.1"))
        refused = patient.look()["gateway"]
        patient.env["ALLOW_SELF_SIGNED"] = "true"
        first, again = patient.look()["TLS"], patient.look()["TLS"]
        gateway.use_certificate(self_signed("localhost", "127.0.0.1"))
        changed = patient.look()["gateway"]

    assert verified == ("ok", "the certificate verifies")
    assert refused[0] == changed[0] == "fail"
    assert "or set ALLOW_SELF_SIGNED=true" in refused[1]
    assert "is not the one that was trusted before" in changed[1]
    assert "is self-signed and trusted from now on (SHA-256 " in first[1]
    assert "is the one that was trusted before (SHA-256 " in again[1]


def test_plain_http_beyond_this_machine_is_told(patient: _Patient) -> None:
    """Before anything is sent there."""
    patient.env |= {"GATEWAY_URL": "http://gateway.example", "HMAC_SECRET": "s" * 32}

    assert "is not encrypted; use https" in patient.look()["gateway"][1]


def test_at_a_terminal_its_size_is_told_and_waits_are_shown(patient: _Patient) -> None:
    """A line says what is waited for, and is gone when the answer comes."""
    with StrictGateway() as gateway:
        patient.meet(gateway)
        fault = gateway.faults.add(Fault("health", Delay(60.0)))
        env = {**os.environ, **patient.env, "TERM": "xterm"}
        with Terminal(patient.argv, env=env, columns=100, lines=30) as terminal:
            terminal.expect(b"ok    terminal: 100 x 30, TERM=xterm\r\n")
            terminal.expect("\r\x1b[Kgateway …".encode())
            gateway.faults.release(fault)
            terminal.expect(b"\r\x1b[Kok    gateway: ")
            assert terminal.wait() == 0


def test_what_can_be_mended_is_offered_and_mended(tmp_path: Path) -> None:
    """Modes, ignore files, and the secret of this user's gateway; a second time there is nothing.

    Another gateway's settings get no secret. What is left as it was is told as that.
    """
    project, folder, secret_file = (tmp_path / each for each in ("shop", "gateway", "secret"))
    program = lay_out(project) / "program" / "claude_runner.py"
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    (project / ".data").mkdir()
    (project / ".data").chmod(0o755)
    folder.mkdir()
    env = {**os.environ, "CLAUDE_COMMAND": "true"}

    def type_doctor(*options: str) -> tuple[int, str]:
        argv = [sys.executable, str(program), "doctor", *options]
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    with StrictGateway() as gateway, Whereabouts(folder) as whereabouts:
        secret_file.write_text(f"HMAC_SECRET={gateway.secret}\n")
        url = gateway.url
        facts = {"url": url, "runnerUrl": url, "certificate": None, "envFile": str(secret_file)}
        whereabouts.tell(facts, is_shared=True)
        (project / ".env").write_text("GATEWAY_URL=https://gw.example\n")
        elsewhere = type_doctor("--fix", "--json")
        (project / ".env").write_text(f"GATEWAY_URL={url}\n")
        (project / ".env").chmod(0o644)
        (project / ".gitignore").unlink()
        (project / ".data").chmod(0o755)
        offered, mended, again = type_doctor(), type_doctor("--fix"), type_doctor("--fix")
        (project / ".env").rename(project / "linked")
        (project / "linked").chmod(0o644)
        (project / ".env").symlink_to("linked")
        subprocess.run(["git", "-C", str(project), "add", "-f", ".env"], check=True)
        left = type_doctor("--fix")
        (project / "linked").chmod(0o600)
        secret = gateway.secret

    assert "no gateway of yours" in str(json.loads(elsewhere[1])["left"])
    assert "no gateway" not in str(json.loads(elsewhere[1])["fixes"])
    assert left[0] == 0
    assert left[1].startswith(f"left  {project}/.env is a symbolic link; its target was not chang")
    assert "\nleft  git tracks .env: `git rm -r --cached .env` takes it out of the" in left[1]
    assert "`doctor --fix`" not in left[1]
    assert offered[0] == 1
    for check in ("configuration", "ignore files", "data folder"):
        (line,) = re.findall(rf"^.*  {check}: .*$", offered[1], re.MULTILINE)
        assert "`doctor --fix`" in line
    assert mended[0] == 0, mended[1]
    assert mended[1].startswith(f"fix   {project}/.data: no other user can read it any more\nfix ")
    assert again[0] == 0
    assert "fix " not in again[1]
    assert secret not in "".join(each[1] for each in (elsewhere, offered, mended, again))
    assert f"HMAC_SECRET={secret}\n" in (project / ".env").read_text()
    assert ".env\n.data/\n" in (project / ".gitignore").read_text()
    assert [(project / each).stat().st_mode & 0o77 for each in (".env", ".data")] == [0, 0]


def test_the_oldest_packages_are_those_of_the_list() -> None:
    """`doctor`, the shim and a package installer agree on what is needed."""
    listed = (ROOT / "wrapper" / "requirements.txt").read_text()
    project = (ROOT / "pyproject.toml").read_text()

    for name, least in PACKAGES.items():
        assert f"\n{name}>={least}," in listed
        assert f'"{name}>={least}' in project
