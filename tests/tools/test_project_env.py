"""The `.env` of a project and this machine's gateway: filled in, kept, or refused in a sentence."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from config import RunnerError, load_config
from gateway.whereabouts import Whereabouts
from kinds.claude import ClaudeProfile
from runner.console import Console
from testing.programs.runner_files import ROOT
from tools.local_gateway import find_gateway, find_pointed, log_in, stop
from tools.project_env import configure, connect

SETTINGS = ClaudeProfile().settings
SECRET = "5ec" * 12
URL = "https://localhost:3100"
VALUES = {"GATEWAY_URL": URL, "HMAC_SECRET": SECRET, "ALLOW_SELF_SIGNED": "true"}
CONSOLE = Console("claude-runner")
EXAMPLE = f"GATEWAY_URL={URL}\nHMAC_SECRET=<must match gateway>\nALLOW_SELF_SIGNED=true\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (EXAMPLE, EXAMPLE.replace("<must match gateway>", SECRET)),
        (
            "HMAC_SECRET= # to come\r\nexport ALLOW_SELF_SIGNED=<yes>\r\n",
            (
                f"HMAC_SECRET={SECRET}\r\nALLOW_SELF_SIGNED=true\r\n"
                f"# Of claude-runner:\r\nGATEWAY_URL={URL}\r\n"
            ),
        ),
        (
            "DB=x",
            (
                f"DB=x\n# Of claude-runner:\nGATEWAY_URL={URL}\nHMAC_SECRET={SECRET}\n"
                "ALLOW_SELF_SIGNED=true\n"
            ),
        ),
        # It has the secret, so it is ours: a gateway of this machine has moved.
        (
            f"CLAUDE_COMMAND=mine\nGATEWAY_URL=http://127.0.0.1:4000\nHMAC_SECRET={SECRET}\n",
            (
                f"CLAUDE_COMMAND=mine\nGATEWAY_URL={URL}\nHMAC_SECRET={SECRET}\n"
                "# Of claude-runner:\nALLOW_SELF_SIGNED=true\n"
            ),
        ),
        # Another address of the same gateway, and what the user has chosen.
        (
            f"GATEWAY_URL=https://gw.example\nHMAC_SECRET='{SECRET}'\nALLOW_SELF_SIGNED=false\n",
            f"GATEWAY_URL=https://gw.example\nHMAC_SECRET='{SECRET}'\nALLOW_SELF_SIGNED=false\n",
        ),
    ],
    ids=["example", "placeholders", "foreign", "moved", "own"],
)
def test_what_is_missing_is_filled_in(before: str, after: str, tmp_path: Path) -> None:
    """Other lines stay as they are; the file is private, and a second time nothing changes."""
    env = tmp_path / ".env"
    env.write_bytes(before.encode())
    env.chmod(0o644)

    for _ in range(2):
        connect(env, VALUES, SETTINGS, CONSOLE)
        assert env.read_bytes().decode() == after
        assert stat.S_IMODE(env.stat().st_mode) == 0o600
    assert load_config(tmp_path, {}, own=SETTINGS, env_file=env).hmac_secret == SECRET


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("CLAUDE_COMMAND=./claude\n", "sets CLAUDE_COMMAND, and may have come with the project"),
        (f"GATEWAY_URL=https://evil.example\n{EXAMPLE[27:]}", "sets GATEWAY_URL, and may have"),
        (f"HMAC_SECRET={'w' * 32}\n", "sets HMAC_SECRET, and may have come"),
        ('HMAC_SECRET="open\n', "line 1 of"),
    ],
)
def test_what_may_have_come_with_the_project_gets_no_secret(
    text: str, words: str, tmp_path: Path
) -> None:
    """Where nobody can be asked whose it is."""
    env = tmp_path / ".env"
    env.write_text(text)

    with pytest.raises(RunnerError) as told:
        connect(env, VALUES, SETTINGS, CONSOLE)

    assert words in str(told.value)
    assert env.read_text() == text


@pytest.mark.parametrize(
    ("text", "name"),
    [("GATEWAY_URL=https://gw.example\n", "GATEWAY_URL"), (f"HMAC_SECRET={'w' * 32}\n", "HMAC_")],
)
def test_another_gateway_of_the_users_stays(
    text: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if they say that they wrote it: two gateways are not made one."""
    env = tmp_path / ".env"
    env.write_text(text)
    monkeypatch.setattr("os.isatty", lambda _fd: True)
    monkeypatch.setattr("builtins.input", lambda _question: "y")

    with pytest.raises(RunnerError, match=f"sets {name}.* for another gateway than the one on thi"):
        connect(env, VALUES, SETTINGS, CONSOLE)

    assert env.read_text() == text


def test_a_secret_is_written_neither_through_a_link_nor_for_a_commit(tmp_path: Path) -> None:
    """A link may lead to another file of the user's; a tracked file leaves with the next commit."""
    elsewhere, env = tmp_path / "elsewhere", tmp_path / ".env"
    elsewhere.write_text("")
    env.symlink_to(elsewhere)
    with pytest.raises(RunnerError, match="is a link; move it away"):
        connect(env, VALUES, SETTINGS, CONSOLE)
    assert elsewhere.read_text() == ""

    env.unlink()
    env.write_text("DB=x\n")
    for arguments in (["init", "-q"], ["add", "-f", ".env"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    with pytest.raises(RunnerError, match="a commit would have the secret in it"):
        connect(env, VALUES, SETTINGS, CONSOLE)
    assert env.read_text() == "DB=x\n"


def test_a_gateway_that_comes_later_heals_a_repeated_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`install` finds the gateway that runs on this machine, and none that has ended.

    A pointer that others can write is not believed.
    """
    assert not (ROOT / ".env").exists(), "this test needs a checkout without a .env"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    project, folder = tmp_path / "project", tmp_path / "gateway"
    project.mkdir()
    folder.mkdir()
    secret_file = tmp_path / "gateway.env"
    secret_file.write_text(f"HMAC_SECRET={SECRET}\n")

    configure(ROOT, project, SETTINGS, CONSOLE)
    assert SECRET not in (project / ".env").read_text()
    with Whereabouts(folder) as whereabouts:
        facts = {"url": URL, "runnerUrl": URL, "certificate": None, "envFile": str(secret_file)}
        whereabouts.tell(facts, is_shared=True)
        found = find_gateway(folder)
        assert found is not None
        assert (found.pid, found.runner_url) == (os.getpid(), URL)
        assert find_pointed(os.environ) == found
        named = f"no gateway runs here; for the one at {URL}, add --data-dir {tmp_path}"
        assert stop(tmp_path / "data") == named
        with pytest.raises(RunnerError, match=named):
            log_in(tmp_path / "data")
        configure(ROOT, project, SETTINGS, CONSOLE)
        whereabouts.tell({**facts, "envFile": None}, is_shared=False)  # as that of `demo`
        another = find_gateway(folder)
        assert another is not None
        with pytest.raises(RunnerError, match="has its secret in no file, as that of `demo`"):
            another.settings()
        pointer = Path(os.environ["HOME"], ".local/state/claude-runner/gateway")
        pointer.chmod(0o666)
        assert find_pointed(os.environ) is None
        pointer.chmod(0o600)

    assert f"HMAC_SECRET={SECRET}\n" in (project / ".env").read_text()
    assert find_gateway(folder) is None
    assert find_pointed(os.environ) is None
