"""Stands in for tmate 2.4: the same commands, output and exit codes, without any server.

Usage: fake_tmate.py -V | -S SOCKET [-f FILE] [-a FILE] -F | -S SOCKET display -p FORMAT

FAKE_TMATE_MODE is how it fares: `ok`; `mute`, `refused`, `lookup`, `fingerprint`: it never gets a
session; `configuration`, `silent`: it ends at once; `stubborn`: SIGTERM does not end it;
`imposter`, `old`: another program, or release, by its -V. FAKE_TMATE_ADDRESS is the address that it
is given, FAKE_TMATE_KEYBOARD a FIFO that its shell reads. Each start appends its arguments to
FAKE_TMATE_LOG. SIGUSR1 breaks its connection: it gets another address.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading

MODE = os.environ.get("FAKE_TMATE_MODE", "ok")
REFUSALS: dict[str, list[str]] = {
    "mute": [],
    "lookup": ["ssh.tmate.io lookup failure. Retrying in 2 seconds (name not known)"],
    "refused": ["Connecting to 127.0.0.1...", "Error connecting: Connection refused"],
    "fingerprint": ["Connecting to 127.0.0.1...", "Cannot authenticate server"],
}


class Session:
    """The session in the foreground."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.address = ""
        self.wake_r, self.wake_w = os.pipe()

    def connect(self) -> None:
        """Get an address."""
        say("Connecting to 127.0.0.1...")
        given = os.environ.get("FAKE_TMATE_ADDRESS")
        self.address = given or f"ssh -p2200 {secrets.token_hex(12)}@127.0.0.1"
        say(f"ssh session: {self.address}")

    def run(self) -> None:
        """Be there until the end."""
        say(f"To connect to the session locally, run: tmate -S {self.path} attach")
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, lambda *_: os.write(self.wake_w, b"reconnect"))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: MODE == "stubborn" or os.write(self.wake_w, b"end"))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.path)
            listener.listen()
            threading.Thread(target=self.answer, args=(listener,), daemon=True).start()
            shell = start_shell()
            threading.Thread(target=self.wait_for, args=(shell,), daemon=True).start()
            for line in REFUSALS.get(MODE, ()):
                say(line)
            if MODE not in REFUSALS:
                self.connect()
            while os.read(self.wake_r, 9) == b"reconnect":
                say("Error reading from channel: Socket error: disconnected")
                self.connect()
        shell.kill()
        os.unlink(self.path)
        say("Session closed")

    def wait_for(self, shell: subprocess.Popen[bytes]) -> None:
        """End with the shell."""
        shell.wait()
        os.write(self.wake_w, b"end")

    def answer(self, listener: socket.socket) -> None:
        """Tell the address to whoever asks."""
        while True:
            client, _ = listener.accept()
            with client:
                client.sendall(f"{self.address}\n".encode())


def start_shell() -> subprocess.Popen[bytes]:
    """Start the shell of the session, which reads the keyboard if there is one."""
    keyboard = os.environ.get("FAKE_TMATE_KEYBOARD")
    stdin = os.open(keyboard, os.O_RDWR) if keyboard else os.open(os.devnull, os.O_RDONLY)
    command = [os.environ["SHELL"]] if keyboard else ["/bin/sleep", "600"]
    shell = subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(stdin)
    return shell


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def foreground(path: str) -> int:
    """Hold a session; return the exit code."""
    with open(os.environ.get("FAKE_TMATE_LOG", os.devnull), "a") as log:
        log.write(" ".join(sys.argv[1:]) + "\n")
    if MODE == "silent":
        return 1
    if MODE == "configuration":
        say("/etc/tmux.conf:2: unknown option: extended-keys")
        return 1
    Session(path).run()
    return 0


def display(path: str) -> int:
    """Ask the session in the foreground; return the exit code."""
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(path)
        except OSError:
            print("You must specify a socket name with -S.", file=sys.stderr)
            return 1
        print(server.makefile().read(), end="")
    return 0


arguments = sys.argv[1:]
if "-V" in arguments:
    say({"imposter": "0.1.5", "old": "tmate 2.2.1"}.get(MODE, "tmate 2.4.0"))
    sys.exit(0)
socket_path = arguments[arguments.index("-S") + 1]
sys.exit(foreground(socket_path) if arguments[-1] == "-F" else display(socket_path))
