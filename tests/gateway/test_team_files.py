"""The files of docs/team.md: they are what the gateway and systemd take, and belong together."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from config import load_config
from gateway.command_line import _parse
from gateway.settings import OWN
from places import PROGRAM as ROOT

TEAM = ROOT / "docs" / "team"
UNIT = TEAM / "claude-runner-gateway@.service"


def test_the_unit_starts_a_gateway(tmp_path: Path) -> None:
    """Its command line is one, for the ports and the address of nginx's file; systemd reads it."""
    text = UNIT.read_text("utf-8").replace("\\\n", " ")
    command = re.findall("^ExecStart=(.*)$", text, re.M)[0].replace("%i", "3100").split()
    nginx = (ROOT / "docs" / "proxies" / "nginx.conf").read_text("utf-8")

    assert command[:2] == ["/opt/claude-runner/wrapper/claude-runner", "gateway"]
    options = _parse(command[2:])
    assert (options.http, options.no_open, options.host) == (True, True, "127.0.0.1")
    assert options.public_url == "https://tools.example.org/runs"
    assert f"server {options.host}:{options.port} " in nginx
    program = shutil.which("systemd-analyze")
    if program is not None:
        copy = tmp_path / "claude-runner-gateway@3100.service"
        copy.write_text(text.replace("/opt/claude-runner", str(ROOT)))
        done = subprocess.run(
            [program, "verify", str(copy)], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_settings_are_settings(tmp_path: Path) -> None:
    """Each name is one that there is, and what stands there is taken."""
    text = (TEAM / "gateway.env").read_text("utf-8")
    names = set(re.findall(r"^(\w+)=", text, re.M))
    assert names <= {"HMAC_SECRET", *(setting.variable for setting in OWN)}
    file = tmp_path / "gateway.env"
    file.write_text(re.sub("<.*>", "filled-in", text))

    config = load_config(ROOT, {"HOME": str(tmp_path)}, own=OWN, options={}, env_file=file)

    assert config.own["trusted_proxies"].has("127.0.0.1")
    assert config.own["log"]
    assert config.own["database_url"].endswith("@127.0.0.1/claude_runner")


def test_the_page_names_the_files() -> None:
    """And where each goes."""
    page = (ROOT / "docs" / "team.md").read_text("utf-8")

    for each in (*TEAM.iterdir(), ROOT / "docs" / "proxies" / "nginx.conf"):
        assert f"({each.parent.name}/{each.name})" in page
        place = re.findall(r"^# (/etc/[^:\n]*):", each.read_text("utf-8"))[0]
        assert str(Path(place).parent) in page
