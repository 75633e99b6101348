"""tmate for the tests of `assist`: the real one with a server of its own, and one that stands in.

    with TmateServer() as RealTmate.server, RealTmate(folder) as terminal:
        plan_assist(gw, terminal, folder)
        terminal.type("exit\\n")                  # as somebody does who was let in

Both take the same `mode`s: `ok`; `mute`, `refused` and `fingerprint`, which never get a session;
`configuration`, which ends at once; the fake one more (see `children/fake_tmate.py`).
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Union

from testing.programs import processes
from testing.programs.runner import child
from testing.waiting import eventually

_SERVER = Path(__file__).resolve().parent / "tmate_server.py"
_GONE_WITHIN_S = 10.0


class TmateServer:
    """A server on loopback, a process of its own. Starting it takes long, so it serves many."""

    def __enter__(self) -> TmateServer:
        self._process = subprocess.Popen(
            [sys.executable, str(_SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        word, self.port, self.fingerprint = self._process.stdout.readline().split()
        assert word == "READY"
        return self

    def __exit__(self, *_exc: object) -> None:
        with self._process:
            self._process.communicate("", timeout=_GONE_WITHIN_S)

    def order(self, line: str) -> None:
        """Give an order, and wait until it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "DONE\n"


class RealTmate:
    """The tmate of this machine, at the `server`. `env` leads the runner to both."""

    server: ClassVar[TmateServer]

    def __init__(self, folder: Path, mode: str = "ok", address: str | None = None) -> None:
        self.env: dict[str, str] = {}
        self._mode = mode
        self._address = address
        self._home = folder / "home-of-tmate"
        self._stack = ExitStack()

    def __enter__(self) -> RealTmate:
        self._home.mkdir()
        self.server.order("mute" if self._mode == "mute" else f"greet {json.dumps(self._address)}")
        port, fingerprint = self.server.port, self.server.fingerprint
        if self._mode == "refused":
            # Bound and not listening: nobody else can get the port, and connections are refused.
            bound = self._stack.enter_context(socket.socket())
            bound.bind(("127.0.0.1", 0))
            port = str(bound.getsockname()[1])
        if self._mode == "fingerprint":
            fingerprint = "SHA256:" + "A" * 43
        if self._mode == "configuration":
            (self._home / ".tmate.conf").write_text("set -g extended-keys on\n")
        self.env = {
            "HOME": str(self._home),
            "SHELL": "/bin/sh",
            "CLAUDE_RUNNER_TMATE_HOST": "127.0.0.1",
            "CLAUDE_RUNNER_TMATE_PORT": port,
            "CLAUDE_RUNNER_TMATE_ED25519_FINGERPRINT": fingerprint,
        }
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def type(self, text: str) -> None:
        """Type into the session, as its guest."""
        self.server.order(f"type {json.dumps(text)}")

    def drop(self) -> None:
        """Break its connection to the server."""
        self.server.order("drop")


class FakeTmate:
    """A program with tmate's behaviour, and no server. `env` leads the runner to it."""

    def __init__(self, folder: Path, mode: str = "ok", address: str | None = None) -> None:
        self._keyboard = folder / "keyboard"
        self.log = folder / "fake-tmate.log"
        self.env = {
            "SHELL": "/bin/sh",
            "CLAUDE_RUNNER_TMATE_COMMAND": shlex.join(child("fake_tmate.py")),
            "FAKE_TMATE_MODE": mode,
            "FAKE_TMATE_KEYBOARD": str(self._keyboard),
            "FAKE_TMATE_LOG": str(self.log),
            **({"FAKE_TMATE_ADDRESS": address} if address else {}),
        }

    def __enter__(self) -> FakeTmate:
        os.mkfifo(self._keyboard)
        self._keyboard_fd = os.open(self._keyboard, os.O_RDWR)
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._keyboard_fd)

    def type(self, text: str) -> None:
        """Type into the session, as its guest."""
        os.write(self._keyboard_fd, text.encode())

    def drop(self) -> None:
        """Break its connection."""

        def find() -> int:
            found = [pid for pid in find_tmate(self.env) if pid != os.getpid()]
            assert found
            return found[0]

        os.kill(eventually(find), signal.SIGUSR1)


SharedTerminal = Union[RealTmate, FakeTmate]


def find_tmate(env: Mapping[str, str]) -> list[int]:
    """Return the pids of the tmate in the foreground that these settings led to."""
    port = env.get("CLAUDE_RUNNER_TMATE_PORT")
    mark = f"CLAUDE_RUNNER_TMATE_PORT={port}" if port else env.get("FAKE_TMATE_KEYBOARD")
    found = processes.find_by_marker(mark) if mark else []
    return [pid for pid in found if processes.command_line(pid).endswith("-F")]


def public_key(kind: str = "ssh-ed25519") -> str:
    """Return a public key of the right form that is nobody's."""
    name = kind.encode()
    raw = len(name).to_bytes(4, "big") + name + (32).to_bytes(4, "big") + bytes(32)
    return f"{kind} {base64.b64encode(raw).decode()}"
