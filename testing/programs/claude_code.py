"""The real Claude Code for tests: from the npm registry, with a home of its own, on loopback alone.

It is never given a person's home folder, key or network: `ClaudeHome.environment` points it at a
`ModelApi`, which is also its proxy for everything else, so that an attempt to leave the machine is
recorded and goes nowhere.

Source: measured with 2.1.330. Installed without its install script (npm's `ignore-scripts`, and
what newer releases of npm do by default) the program is a stub that says so; `install.cjs` beside
it puts the native program in its place.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from testing.programs.model_api import ModelApi

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = "@anthropic-ai/claude-code"
# The one place that says which Claude Code is tested: this release and later ones of its series;
# and two older ones, the last an operator may have and the first that can be asked.
VERSION_RANGE: Final = "^2.1.330"
OLDER_RELEASES: Final = ("2.1.197", "2.0.0")
_OLDEST: Final = (2, 1, 330)
_FOLDER: Final = ROOT / ".data" / "claude-code"
# 120 MB come over the network the first time.
_INSTALL_TIMEOUT_S: Final = 300.0
_ANSWER_TIMEOUT_S: Final = 30.0

# What a person would have accepted once; see `make_home`.
ONBOARDING: Final = "onboarding"
TRUST: Final = "trust"
KEY: Final = "key"
EVERYTHING: Final = frozenset({ONBOARDING, TRUST, KEY})


class InstallError(AssertionError):
    """Claude Code cannot be installed here; the message says why. A failure, never a skip."""


def install(release: str = "", folder: Path = _FOLDER) -> Path:
    """Return the program, installed if it is not there yet: the newest, or this very release.

    Several callers at once wait for each other. Raises: InstallError.
    """
    folder = folder.with_name(f"{folder.name}-{release}") if release else folder
    package = folder / "node_modules" / PACKAGE
    program = folder / "node_modules" / ".bin" / "claude"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        if not _is_wanted(_version(program), release):
            _fetch(folder, release or VERSION_RANGE)
        if not _is_wanted(_version(program), release):
            _run_node(package / "install.cjs")
        version = _version(program)
        if not _is_wanted(version, release):
            wanted = release or VERSION_RANGE
            raise InstallError(f"{program} says {version!r} instead of a version {wanted}")
    return program


def version(program: Path) -> str:
    """Return the program's version."""
    return _version(program).split(" ")[0].strip()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _version(program: Path) -> str:
    if not program.exists():
        return ""
    answer = subprocess.run(
        [program, "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_ANSWER_TIMEOUT_S,
        check=False,
    )
    return answer.stdout if answer.returncode == 0 else ""


def _is_wanted(version: str, release: str) -> bool:
    if release:
        return version.startswith(f"{release} ")
    match = re.match(r"(\d+)\.(\d+)\.(\d+) ", version)
    if match is None:
        return False
    found = tuple(int(each) for each in match.groups())
    return found >= _OLDEST and found[0] == _OLDEST[0]


def _fetch(folder: Path, wanted: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise InstallError("npm is missing; install Node.js, which Claude Code is installed with")
    argv = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund"]
    argv += ["--fetch-retries=2", "--fetch-retry-mintimeout=1000", f"{PACKAGE}@{wanted}"]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InstallError(
            f"the npm registry did not deliver Claude Code within {_INSTALL_TIMEOUT_S:.0f} s"
        ) from None
    if done.returncode != 0:
        raise InstallError(
            "Claude Code cannot be installed: is the npm registry out of reach? npm says:\n"
            + done.stderr[-2_000:]
        )


def _run_node(script: Path) -> None:
    node = shutil.which("node")
    if node is not None and script.exists():
        subprocess.run(
            [node, script],
            cwd=script.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ANSWER_TIMEOUT_S,
            check=False,
        )


@dataclass(frozen=True)
class ClaudeHome:
    """A home folder for Claude Code and a folder to work in; `key` is a dummy."""

    home: Path
    work: Path
    key: str

    def environment(self, api: ModelApi) -> dict[str, str]:
        """Return what Claude Code needs in its environment to talk to `api` and to nobody else."""
        return {
            "HOME": str(self.home),
            "ANTHROPIC_BASE_URL": api.url,
            "ANTHROPIC_API_KEY": self.key,
            "HTTPS_PROXY": api.url,
            "NO_PROXY": "127.0.0.1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1",
            # A tool must not find the developer's configuration of git and the like.
            "XDG_CONFIG_HOME": str(self.home / ".config"),
        }

    @property
    def transcripts(self) -> list[Path]:
        """The sessions that Claude Code has kept."""
        return sorted((self.home / ".claude" / "projects").glob("*/*.jsonl"))


def make_home(folder: Path, accepted: Collection[str] = EVERYTHING) -> ClaudeHome:
    """Make a home in which these of the first dialogs have been answered with yes.

    Source: the three keys of `.claude.json` that are enough for 2.1.330; older releases fail
    without `allowedTools` in a project's entry.
    """
    made = ClaudeHome(folder / "home", folder / "work", f"dummy-{secrets.token_hex(20)}")
    made.home.mkdir(parents=True)
    made.work.mkdir()
    settings: dict[str, Any] = {}
    if ONBOARDING in accepted:
        settings["hasCompletedOnboarding"] = True
        settings["theme"] = "dark"
    if TRUST in accepted:
        entry = {"hasTrustDialogAccepted": True, "allowedTools": []}
        settings["projects"] = {os.path.realpath(made.work): entry}
    if KEY in accepted:
        settings["customApiKeyResponses"] = {"approved": [made.key[-20:]], "rejected": []}
    (made.home / ".claude.json").write_text(json.dumps(settings), "utf-8")
    return made
