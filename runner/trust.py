"""The one question of the runner to the person at the keyboard: whether to trust a certificate.

It is asked when the gateway shows another certificate than the one that was pinned, and only where
somebody can answer: at a terminal whose foreground the runner has. Nothing waits for the answer;
until it comes, and without one, the run goes on and its output is kept.
"""

from __future__ import annotations

import os
import re
import select
from typing import TYPE_CHECKING, Callable, Final

from gateway_transport import GatewayError
from runner.mailbox import KeysTyped, WakePipe, Worker, WorkerEnded, WorkerFailed
from runner.terminal import is_foreground

if TYPE_CHECKING:
    from gateway_transport import CertificateChangedError
    from runner.console import Console
    from runner.conversation import Conversation
    from runner.pump import PtyPump
    from runner.terminal import SessionTerminal

# Sequences that keys, pastes and the mouse send, beside letters.
_SEQUENCES: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.)?")
_NO: Final = frozenset((b"no", b"n", b"q"))
_MAX_ANSWER_BYTES: Final = 80
_HINT: Final = "please type yes or no, and Enter"
_BACKGROUND_PAUSE_S: Final = 0.5


class TrustQuestion:
    """Asks about one certificate after the other, each once, until one is refused. Thread: main.

    A session's screen is covered by the question as long as it is open, and comes back with all
    that was printed meanwhile; the keys go to the question, so that what is typed for Claude Code
    cannot answer it by accident: only the whole word `yes` does. `lender` is what reads the
    keyboard already in a run that asks there.
    """

    def __init__(
        self,
        terminal: SessionTerminal,
        pump: PtyPump,
        console: Console,
        tell_owner: Callable[[KeysTyped | WorkerFailed | WorkerEnded], object],
        lender: Conversation | None,
    ) -> None:
        self._lender = lender
        self._terminal = terminal
        self._pump = pump
        self._console = console
        self._tell_owner = tell_owner
        self._asked: set[tuple[str, str]] = set()
        self._refused: set[str] = set()
        self._open: CertificateChangedError | None = None
        self._is_covering = False
        self._reader: KeyReader | None = None
        self._typed = bytearray()

    def ask(self, error: CertificateChangedError) -> None:
        """Ask whether to trust the new certificate, once, and only a user at the terminal."""
        key = (error.host, error.offered)
        # Who stands in between could show another one each time.
        if error.host in self._refused or key in self._asked:
            return
        if self._open is not None or not _is_somebody_there():
            return
        self._asked.add(key)
        self._open = error
        self._typed.clear()
        lines = _sentences(error)
        if self._terminal.is_taken:
            self._is_covering = True
            self._pump.cover("\r\n".join(["", *lines, "> "]).encode())
        elif self._lender is not None:
            for line in lines[:-1]:
                self._console.warn(line)
            self._lender.lend_keyboard(
                lines[-1], lambda line: self._tell_owner(KeysTyped(line.encode() + b"\r"))
            )
        else:
            for line in lines:
                self._console.warn(line)
            self._reader = KeyReader(self._tell_owner)
            self._reader.start()

    def type(self, keys: bytes) -> None:
        """Take the keys that were typed while the question was open."""
        # An Escape alone, and Ctrl-C where it is no signal, are a no.
        keys = keys.replace(b"\x03", b"no\r") if keys != b"\x1b" else b"no\r"
        for key in _SEQUENCES.sub(b"", keys):
            if self._open is None:
                return  # keys after the answer are dropped
            if key in b"\r\n":
                self._answer(bytes(self._typed).strip().lower())
                self._typed.clear()
            elif key in b"\x7f\x08":
                if self._typed:
                    self._typed.pop()
                    self._echo(b"\b \b")
            elif 32 <= key < 127 and len(self._typed) < _MAX_ANSWER_BYTES:
                self._typed.append(key)
                self._echo(bytes([key]))

    def close(self) -> None:
        """Take the question away. If it was not answered, it may be asked again."""
        if self._open is not None:
            self._asked.discard((self._open.host, self._open.offered))
            self._open = None
        self._leave()

    def outlive_child(self) -> None:
        """Take the question away; from now on nothing else reads the keyboard."""
        self.close()
        self._lender = None

    def _answer(self, word: bytes) -> None:
        error = self._open
        if error is None:
            return
        if word not in _NO and word != b"yes":
            if self._is_covering:
                self._echo(f"\r\n{_HINT}\r\n> ".encode())
            else:
                self._console.warn(_HINT)
            return
        self._open = None
        self._leave()
        if word == b"yes":
            try:
                error.accept()
            except GatewayError as failure:
                self._console.warn(str(failure))
            else:
                self._console.warn(f"trusting the new certificate of {error.host} from now on")
        else:
            self._refused.add(error.host)
            self._console.warn(
                f"the new certificate of {error.host} is not trusted; the run goes on, and its "
                f"output is kept; to trust it later, {error.remedy}"
            )

    def _leave(self) -> None:
        if self._is_covering:
            self._is_covering = False
            self._pump.cover(None)
        if self._lender is not None:
            self._lender.get_keyboard_back()
        if self._reader is not None:
            self._reader.stop()
            self._reader.join(1.0)
            self._reader = None

    def _echo(self, text: bytes) -> None:
        if self._is_covering:
            self._pump.write_on_cover(text)


def _is_somebody_there() -> bool:
    return os.isatty(0) and os.isatty(2) and is_foreground(0)


def _sentences(error: CertificateChangedError) -> list[str]:
    return [
        f"the gateway {error.host} shows another certificate than before (SHA-256)",
        f"  trusted so far: {_shown(error.trusted)}",
        f"  shown now:      {_shown(error.offered)}",
        "if you renewed it, compare this with what the gateway says of itself",
        "if not, somebody may be intercepting the connection; they get nothing unless you agree",
        "trust the new certificate from now on? type yes or no, and Enter",
    ]


def _shown(fingerprint: str) -> str:
    """Return a fingerprint as browsers, and the embedded gateway, show it."""
    pairs = [fingerprint[at : at + 2] for at in range(0, len(fingerprint), 2)]
    return ":".join(pairs).upper()


class KeyReader(Worker):
    """Reads lines from the terminal of a run that leaves it alone. Lifecycle: start, stop, join."""

    def __init__(
        self, tell_owner: Callable[[KeysTyped | WorkerFailed | WorkerEnded], object]
    ) -> None:
        super().__init__("keyboard", tell_owner)
        self._tell_keys = tell_owner
        self._pipe = WakePipe()

    def _wake(self) -> None:
        self._pipe.wake()

    def _close(self) -> None:
        self._pipe.close()

    def _work(self) -> None:
        while not self._stopping.is_set():
            readable, _, _ = select.select([0, self._pipe.fileno()], [], [])
            if 0 not in readable or self._stopping.is_set():
                continue
            if not is_foreground(0):
                # Reading would stop the whole job, and the keys are meant for another program.
                self._stopping.wait(_BACKGROUND_PAUSE_S)
                continue
            keys = os.read(0, 1024)
            if not keys:
                return
            self._tell_keys(KeysTyped(keys))
