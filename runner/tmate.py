"""tmate as the provider of an assist session.

tmate's own word counts for little. It exits with 0 whether it ever connected or not, its `wait`
may wait for ever or return at once without a session, and an unreachable server is tried again
without limit or complaint. So the only proof of a session is an address that is one, asked for with
`display`; and why there is none is read from what the foreground mode (`-F`) prints.

Source: tmate 2.4.0 (Debian), its manual page and https://tmate.io
"""

from __future__ import annotations

import base64
import binascii
import os
import pwd
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from config import RunnerError, read_text
from places import find_program, program_to_start
from runner.assist import Explanation, Preparation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from config import Config

# What a person will paste into a shell, and a server has chosen: `ssh`, a port, a name, a host.
_ADDRESS: Final = re.compile(
    r"ssh(?: -p ?[0-9]{1,5})? [A-Za-z0-9][A-Za-z0-9_./-]{0,200}@[A-Za-z0-9][A-Za-z0-9.-]{0,252}"
)
# The foreground mode came with 2.4.
_VERSION: Final = re.compile(r"tmate (\d+)\.(\d+)")
_OLDEST: Final = (2, 4)
# An answer comes in some 10 ms; an end must not wait for one that hangs.
_ANSWER_TIMEOUT_S: Final = 2.0
# Would make tmate refuse to start, as if it were started inside itself.
_OUTER_SESSION: Final = ("TMUX", "TMUX_PANE", "TMATE")
# What it prints that is no reason for anything.
_NO_REASON: Final = (
    "To connect to the session locally",
    "Connecting to",
    "Reconnecting",
    "Reconnected",
    "Note:",
    "Session closed",
    "Session shell restarted",
    "setsockopt(",
    "Using",
    "ssh session",
    "web session",
)
_WRONG_FINGERPRINT: Final = ("Cannot authenticate server", "Server fingerprint not recognized")
_IN_A_FILE: Final = re.compile(r"/.*:\d+: ")
_MAX_REASON_CHARS: Final = 300
# One public key: its type, itself, and a comment.
_KEY_LINE: Final = re.compile(r"([a-z][a-z0-9@.-]+)[ \t]+([A-Za-z0-9+/]+={0,2})(?:[ \t].*)?")

_OWN_SERVER: Final = (
    "check the network, or name a server of your own with CLAUDE_RUNNER_TMATE_HOST "
    "(the public tmate.io service has been reported closed)"
)


class Tmate:
    """One session of tmate. `keys` is what `read_public_keys` returned; None lets everybody in."""

    name = "tmate"

    def __init__(self, config: Config, env: Mapping[str, str], keys: str | None) -> None:
        self._command = config.tmate_command
        self._server = {
            "tmate-server-host": config.tmate_host,
            "tmate-server-port": config.tmate_port,
            "tmate-server-rsa-fingerprint": config.tmate_rsa_fingerprint,
            "tmate-server-ed25519-fingerprint": config.tmate_ed25519_fingerprint,
        }
        self._env = _environment(env)
        self._keys = keys
        self._socket = ""

    def prepare(self, folder: Path) -> Preparation:
        """Check that it is there and is tmate; write its configuration. Raises RunnerError."""
        self._require_tmate()
        self._socket = str(folder / "s")
        conf = folder / "conf"
        conf.write_text("\n".join(self._configuration()) + "\n", "utf-8", "surrogateescape")
        argv = [*self._command, "-S", self._socket, "-f", str(conf)]
        if self._keys is not None:
            keys = folder / "keys"
            keys.write_text(self._keys, "ascii")
            argv += ["-a", str(keys)]
        return Preparation((*argv, "-F"), self._env)

    def address(self) -> str:
        """Ask for the ssh command; empty as long as there is no session."""
        answer = self._ask("-S", self._socket, "display", "-p", "#{tmate_ssh}").strip()
        if answer and not _ADDRESS.fullmatch(answer):
            raise RunnerError(
                "the tmate server gave an address that is no ssh command, which was told to "
                "nobody; use another server (CLAUDE_RUNNER_TMATE_HOST)"
            )
        return answer

    def explain(self, output: str, *, has_ended: bool) -> Explanation:
        """Say why there is no session, in tmate's own last words, and what to do."""
        lines = [line.strip() for line in output.splitlines()]
        reasons = [line for line in lines if line and not line.startswith(_NO_REASON)]
        reason = reasons[-1][:_MAX_REASON_CHARS] if reasons else ""
        if reason.startswith(_WRONG_FINGERPRINT):
            return Explanation(
                f"the server's fingerprint is not the one that is configured ({reason}); correct "
                "CLAUDE_RUNNER_TMATE_ED25519_FINGERPRINT and CLAUDE_RUNNER_TMATE_RSA_FINGERPRINT, "
                "or ~/.tmate.conf",
                is_final=True,
            )
        if not has_ended:
            return Explanation(f"{reason or 'the server does not answer'}; {_OWN_SERVER}")
        if _IN_A_FILE.match(reason):
            return Explanation(f"{reason}; correct that file")
        return Explanation(f"{reason or 'it said nothing'}; see whether `tmate -F` works by itself")

    def _require_tmate(self) -> None:
        program = self._command[0]
        if find_program(program, self._env.get("PATH")) is None:
            raise RunnerError(
                f"tmate is not installed ({program!r} was not found); install it (apt install "
                "tmate, or brew install tmate), or set CLAUDE_RUNNER_TMATE_COMMAND to its path"
            )
        answer = self._ask("-V")
        version = _VERSION.match(answer)
        if not answer:
            return  # too busy to tell; its session will
        if version is None:
            raise RunnerError(
                f"{program!r} is not tmate, by what it answers to -V; install tmate (apt install "
                "tmate, or brew install tmate), or correct CLAUDE_RUNNER_TMATE_COMMAND"
            )
        if tuple(map(int, version.groups())) < _OLDEST:
            raise RunnerError(f"{version[0]} is too old; install tmate 2.4 or newer")

    def _ask(self, *arguments: str) -> str:
        """Return what tmate answers; nothing if it does not."""
        try:
            return subprocess.run(
                [*self._command, *arguments],
                executable=program_to_start(self._command[0], self._env.get("PATH")),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_ANSWER_TIMEOUT_S,
                env=self._env,
                check=False,
            ).stdout.decode("utf-8", "replace")
        except (OSError, subprocess.TimeoutExpired):
            return ""

    def _configuration(self) -> list[str]:
        users = Path(self._env["HOME"], ".tmate.conf")
        # With -f tmate does not read it by itself.
        lines = [f"source-file {shlex.quote(str(users))}"] if os.path.isfile(users) else []
        # Leaving the shell is leaving the session; tmate would start another shell.
        lines += ["set -g tmate-foreground-restart 0"]
        lines += [f"set -g default-shell {shlex.quote(self._env['SHELL'])}"]
        return lines + [f"set -g {name} {value}" for name, value in self._server.items() if value]


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for tmate: of no outer session, with a home and a shell that is one.

    `env` is already without the runner's own secrets. A service's user may have no shell, or one
    that ends at once.
    """
    kept = {name: value for name, value in env.items() if name not in _OUTER_SESSION}
    if not kept.get("HOME"):
        try:
            kept["HOME"] = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            kept["HOME"] = "/"
    shell = kept.get("SHELL", "")
    is_shell = Path(shell).name not in ("", "false", "true", "nologin")
    if not (is_shell and shell.startswith("/") and os.access(shell, os.X_OK)):
        kept["SHELL"] = "/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh"
    return kept


def read_public_keys(path: Path, option: str) -> str:
    """Return the public keys of a file, one a line, as tmate understands them. Raises RunnerError.

    tmate drops every line that it does not understand without a word, and of a file without any key
    it makes a session that nobody can enter.
    """
    keys = []
    lines = map(str.strip, read_text(path, f"{option} {path}").splitlines())
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        match = _KEY_LINE.fullmatch(line)
        if match is None or not _is_key(match[1], match[2]):
            raise RunnerError(
                f"line {number} of {path} is no plain public key; write its type, the key, and "
                "nothing else (tmate takes no options before them)"
            )
        keys.append(f"{match[1]} {match[2]}\n")
    if not keys:
        raise RunnerError(f"{path} holds no public key, so nobody could enter; add one")
    return "".join(keys)


def _is_key(kind: str, encoded: str) -> bool:
    """Whether a key is of the type that stands before it, which it begins with: RFC 4253, 6.6."""
    try:
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return False
    name = kind.encode()
    return (
        len(raw) > 4 + len(name)
        and raw[:4] == len(name).to_bytes(4, "big")
        and (raw[4 : 4 + len(name)] == name)
    )
