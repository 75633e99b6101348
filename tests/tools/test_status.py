"""`status` as its user meets it: what runs, what is left, and what the gateway is."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

import claude_runner
from gateway.whereabouts import Whereabouts
from runner.folder import RunFolder
from testing.gateways.strict_gateway import StrictGateway
from testing.programs.runner_files import ROOT
from testing.programs.terminal import Terminal


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data folder, and beside it an empty file of settings."""
    (tmp_path / "env").touch()
    return tmp_path / "data"


def arguments(data_dir: Path) -> list[str]:
    """Return what is typed."""
    return ["status", "--env-file", str(data_dir.parent / "env"), "--data-dir", str(data_dir)]


def test_what_there_is(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that goes on, one that was left behind, one that is delivered, and both gateways."""
    folders = [RunFolder(data_dir, name) for name in ("run_on", "run_left", "run_done")]
    for folder in folders:
        folder.create()
        folder.spool_path.touch()
    folders[2].mark_delivered()
    for folder in folders[1:]:
        folder.close()
    own = data_dir / "gateway"
    own.mkdir(parents=True)
    with StrictGateway() as gateway, Whereabouts(own) as whereabouts:
        monkeypatch.setenv("GATEWAY_URL", gateway.url)
        monkeypatch.setenv("HMAC_SECRET", gateway.secret)
        facts = {"url": "https://x", "runnerUrl": gateway.url, "certificate": None, "envFile": None}
        whereabouts.tell(facts, is_shared=False)
        assert claude_runner.main(arguments(data_dir)) == 0
        lines = capsys.readouterr().out
        claude_runner.main([*arguments(data_dir), "--json"])
        found = json.loads(capsys.readouterr().out)
        secret = gateway.secret
    folders[0].close()

    assert secret not in lines + str(found)
    began = rf"running in {data_dir}: 1 run\n  run_on  began \d+ (s|min) ago  {folders[0].path}\n"
    assert re.search(began, lines)
    left = "not delivered whole: 1 run; `./wrapper/claude-runner sync` sends what is left\n"
    assert f"{left}  run_left  began " in lines
    assert "run_done" not in lines
    assert f"gateway: ok, {gateway.url} answers and accepts the secret\n" in lines
    assert f"it runs on this machine: process {os.getpid()}, data in {own}; `./wrapper" in lines
    assert f"/claude-runner gateway --stop --data-dir {data_dir}` ends it\n" in lines
    assert "\x1b" not in lines
    assert [each["id"] for each in (*found["running"], *found["undelivered"])] == [
        "run_on",
        "run_left",
    ]
    assert (found["gateway"]["answers"], found["gateway"]["problem"]) == (True, None)
    assert found["localGateway"]["isOfThisCopy"] is True


def test_at_a_terminal_it_has_colours(data_dir: Path) -> None:
    """Unless its user wants none; a gateway that is away is told with what to do."""
    typed = arguments(data_dir.with_name(".data"))
    argv = [sys.executable, str(ROOT / "claude_runner.py"), *typed]
    env = {**os.environ, "GATEWAY_URL": "http://127.0.0.1:9", "HMAC_SECRET": "s" * 32}
    for more, shown in (({}, b"\x1b[31mnot ok\x1b[0m"), ({"NO_COLOR": "1"}, b"not ok")):
        with Terminal(argv, env={**env, **more}, columns=200) as terminal:
            terminal.expect(f"running in {data_dir.parent}: nothing\r\n".encode())
            terminal.expect(b"not delivered whole: nothing\r\ngateway: ")
            terminal.expect(shown + b", the gateway at http://127.0.0.1:9 cannot be reached")
            terminal.expect(
                b"none runs on this machine; `./wrapper/claude-runner gateway` starts o"
            )
            assert terminal.wait() == 0
            assert (b"\x1b[31m" in terminal.output) == (not more)
