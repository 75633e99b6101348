"""The thread between the child's terminals and everybody who watches them.

It reads what the child prints, shows it locally, redacts it at once and hands it on, and types what
the user and the operator type. Raw output never leaves this thread: it is not queued, not logged
and not kept. Neither the local reader nor the network can block it.

Theory of operation. One `select` over the masters, the keyboard, the local outputs that lag behind
and a wake pipe. A master that answers EIO has no slave open any more: all of its output has been
read (the keeper holds a slave until the child is gone, so this cannot happen early). A descendant
of the child may hold a slave for ever, so `finish` brings a deadline. After the end was told the
thread lives on for a local reader that lags behind, as long as that one reads.
"""

from __future__ import annotations

import contextlib
import os
import select
import termios
import threading
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Callable, Final, Protocol, cast

from kinds.profile import WAITING, Message, Part, Passed
from redact import Redacted, RedactedDecoder, Redactor
from runner.live_text import LiveText
from runner.mailbox import FilesTouched, KeysTyped, WakePipe, Worker, WorkerEnded, WorkerFailed
from runner.progress import ProgressTeller
from runner.sequences import ModeTracker, TextFilter
from runner.terminal import LocalOutput, Size, set_window_size, window_size

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kinds.profile import Item, MessageStream, Piece, StateReader
    from redact import RedactedText, Rules
    from runner.painter import Painter
    from runner.plan import Job
    from runner.speaker import Speaker

# What is held back for more context is shown after this long without output.
_IDLE_S: Final = 0.05
# A read is at most 4,095 bytes on Linux; taking several together costs a chunk less each.
_BURST_BYTES: Final = 65_536
# Behind so much the kernel needs a moment for the next read, and few programs stop there.
_LARGE_READ_BYTES: Final = 2_048
_NEXT_READ_S: Final = 0.0005
# A pasted megabyte waits here while the child does not read; the keyboard waits after that.
_MAX_TYPED_BYTES: Final = 65_536
# Nothing for this long means that all has come that was printed.
_QUIET_S: Final = 0.02
# So much may wait for the end of words that are being written.
_MAX_WAITING: Final = 200
# The shortest time between two state markers.
_STATE_INTERVAL_S: Final = 1.0
# At the end, a local reader that has taken nothing for this long has stopped.
_READER_PATIENCE_S: Final = 1.0
# The terminal's other screen and back, which keeps what is on the first, and an empty one.
_OTHER_SCREEN: Final = b"\x1b[?1049h"
_UNCOVERED: Final = b"\x1b[?1049l"
_CLEARED: Final = b"\x1b[?25h\x1b[m\x1b[2J\x1b[H"


class Transcript:
    """What reads the child's messages out of a channel, and the file that keeps them."""

    def __init__(self, stream: MessageStream, lines: BinaryIO) -> None:
        self.stream = stream
        self.lines = lines
        self.is_full = False

    def keep(self, line: RedactedText) -> None:
        """Write one line; from the first on that the disk does not take, none."""
        encoded = line.encode("utf-8") + b"\n"
        try:
            self.is_full = self.is_full or self.lines.write(encoded) != len(encoded)
        except OSError:
            self.is_full = True


class Channel:
    """One stream of the child: the PTY's master and where its output goes.

    `local` is None when nothing is shown locally. `text_filter` is for all but the local terminal:
    it leaves out sequences that set a terminal's state. `painter` shows the child's messages in
    colour, on a terminal that is to have it; `live` has what the child is writing.
    """

    def __init__(
        self,
        stream: str,
        master_fd: int,
        rules: Rules,
        local: LocalOutput | None,
        transcript: Transcript | None = None,
        text_filter: TextFilter | None = None,
        painter: Painter | None = None,
        live: LiveText | None = None,
    ) -> None:
        self.stream = stream
        self.master_fd = master_fd
        self.rules = rules
        self.local = local
        self.transcript = transcript
        self.text_filter = text_filter
        self.painter = painter
        self.live = live
        self.redactor = Redactor(rules=rules)
        self.decoder = RedactedDecoder()
        self.last_read_at = 0.0
        self.is_open = True
        os.set_blocking(master_fd, False)


class Journal(Protocol):
    """Where the pump leaves what the run has to deliver: the journal."""

    def append(
        self, stream: str, text: RedactedText, *, slot: str = "", is_urgent: bool = False
    ) -> bool:
        """Keep text of one stream, in order. False if the disk is full, and it is left out.

        `slot` and `is_urgent` are `Spool.append`'s. Raises what ends the run.
        """


class PtyPump(Worker):
    """Owns the masters, the keyboard and the log. Lifecycle: start, finish or stop, join."""

    def __init__(
        self,
        channels: list[Channel],
        log: BinaryIO,
        *,
        modes: ModeTracker,
        keyboard_fd: int | None,
        journal: Journal,
        states: StateReader | None,
        speaker: Speaker | None,
        pipe: WakePipe,
        note_undo: Callable[[bytes], None],
        tell_owner: Callable[[KeysTyped | FilesTouched | WorkerFailed | WorkerEnded], object],
    ) -> None:
        super().__init__("pty-pump", tell_owner)
        self._tell_news = tell_owner
        self._channels = channels
        self._outputs = [c.local for c in channels if c.local is not None]
        self._log = log
        self._modes = modes
        # The modes that the child sets where no terminal shows them.
        self._unshown_modes = ModeTracker()
        self._keyboard_fd = keyboard_fd
        self._journal = journal
        self._note_undo = note_undo
        self._states = states
        self._speaker = speaker
        self._looked_at = float("-inf")
        self._state_told: str | None = None
        self._state_told_at = float("-inf")
        self._was_waiting = False
        self._typed = bytearray()
        self._injected: list[bytes] = []
        self._lock = threading.Lock()
        self._finish_at: float | None = None
        self._keyboard_paused = False
        self._caught_up: threading.Event | None = None
        # What is to be shown over the child's screen; None takes it away.
        self._covers: list[tuple[bytes | None, bool]] = []
        self._is_covered = False
        self._is_other_screen = False
        # From the first gap on nothing is written: a log with holes would read as if it had none.
        self._is_log_full = False
        # What the log lacks at its end, because the disk did not take it.
        self.unlogged_bytes = 0
        # How often a redactor of a text that was written has failed.
        self._live_failures = 0
        # Whether words that are being written stand in the middle of a line of the terminal.
        self.is_mid_line = False
        self._progress: ProgressTeller | None = None
        for transcript in (channel.transcript for channel in channels):
            if transcript is not None and transcript.stream.tells_progress:
                self._progress = ProgressTeller(
                    transcript.stream, lambda fields: self._tell_marker(fields, slot="progress")
                )
        self._pipe = pipe

    def finish(self, within_s: float) -> None:
        """Read what is still to come, at most this long, then end. Thread: any."""
        self._finish_at = time.monotonic() + within_s
        self._wake()

    def _wake(self) -> None:
        self._pipe.wake()

    def _close(self) -> None:
        self._pipe.close()
        if self._speaker is not None:
            self._speaker.close()
        for channel in self._channels:
            os.close(channel.master_fd)
        self._log.close()
        for output in self._outputs:
            output.close()
        for channel in self._channels:
            if channel.transcript is not None:
                channel.transcript.lines.close()

    @property
    def unshown_bytes(self) -> int:
        """How much of the output was not shown locally, because it was not read."""
        return sum(output.unshown_bytes for output in self._outputs)

    @property
    def is_typed_into(self) -> bool:
        """Whether the child wants to be typed into, as a session does.

        Thread: any, while it runs.
        """
        if self._modes.is_of_session or self._unshown_modes.is_of_session:
            return True
        with contextlib.suppress(termios.error, OSError):
            return any(
                not termios.tcgetattr(channel.master_fd)[3] & termios.ICANON
                for channel in self._channels
            )
        return False

    @property
    def lacks_messages(self) -> bool:
        """Whether the file of the child's messages ends before they do, as the disk was full."""
        return any(c.transcript is not None and c.transcript.is_full for c in self._channels)

    @property
    def redaction_failures(self) -> int:
        """How often a redactor failed, and removed what it could not judge."""
        streams = sum(channel.redactor.failures for channel in self._channels)
        return streams + self._live_failures

    def type(self, text: bytes) -> None:
        """Type into the child's terminal, as if at the keyboard. Thread: any."""
        with self._lock:
            self._injected.append(text)
        self._wake()

    def resize(self, size: Size) -> None:
        """Give the child's terminals a new size. Thread: any."""
        for channel in self._channels:
            with contextlib.suppress(OSError):
                set_window_size(channel.master_fd, size)

    def pause_keyboard(self, *, paused: bool) -> None:
        """Leave the user's keys to the shell while the session is suspended. Thread: any."""
        self._keyboard_paused = paused
        self._wake()

    def cover(self, text: bytes | None) -> None:
        """Show a text in the place of the child's screen, and tell the owner each key; or end that.

        What the child prints meanwhile is held back, and comes behind its screen. Thread: any.
        """
        with self._lock:
            self._covers.append((text, False))
        self._wake()

    def write_on_cover(self, text: bytes) -> None:
        """Show more there. Thread: any."""
        with self._lock:
            self._covers.append((text, True))
        self._wake()

    def catch_up(self, within_s: float) -> None:
        """Wait until what was printed so far is shown. Thread: any but the pump's."""
        caught_up = threading.Event()
        self._caught_up = caught_up
        self._wake()
        caught_up.wait(within_s)
        self._caught_up = None

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        super()._run()
        for output in self._outputs:
            output.wait_read(_READER_PATIENCE_S)

    def _is_final(self, _error: BaseException) -> bool:
        return True  # what it had read is gone

    def _work(self) -> None:
        while not (self._stopping.is_set() or self._has_finished()):
            self._turn()
        self._cover(None, is_more=False)
        for channel in self._channels:
            if channel.transcript is not None:
                self._show_items(channel, channel.transcript.stream.flush())
            if channel.text_filter is not None:
                self._hand_on(channel, channel.redactor.feed(channel.text_filter.flush()))
            self._hand_on(channel, channel.redactor.flush(), last=True)
        if self._progress is not None:
            self._progress.tick(time.monotonic(), is_last=True)

    def _has_finished(self) -> bool:
        if self._finish_at is None:
            return False
        return time.monotonic() >= self._finish_at or not any(c.is_open for c in self._channels)

    def _turn(self) -> None:
        """Wait for something to do, and do all of it."""
        open_channels = [c for c in self._channels if c.is_open]
        masters = {c.master_fd: c for c in open_channels}
        lagging = {output.fileno(): output for output in self._outputs if output.is_waiting}
        with self._lock:
            self._typed += b"".join(self._injected)
            self._injected.clear()
            covers, self._covers = self._covers, []
        for text, is_more in covers:
            self._cover(text, is_more=is_more)
        reading = [self._pipe.fileno(), *masters, *self._keyboard()]
        writing = [
            *lagging,
            *([open_channels[0].master_fd] if self._typed and open_channels else []),
        ]
        if self._speaker is not None:
            reading += self._speaker.reading()
            writing += self._speaker.writing()
        caught_up = self._caught_up
        readable, writable, _ = select.select(reading, writing, [], self._timeout_s(open_channels))
        if caught_up is not None and not readable and not lagging:
            caught_up.set()
        self._handle(set(readable), set(writable), masters)
        self._tick(open_channels)

    def _handle(self, readable: set[int], writable: set[int], masters: dict[int, Channel]) -> None:
        for fd in readable.intersection(masters):
            self._read(masters[fd])
        for fd in writable.intersection(masters):
            self._write_typed(fd)
        for output in self._outputs:
            if output.is_waiting and output.fileno() in writable:
                output.write_pending()
        if self._pipe.fileno() in readable:
            self._pipe.take()
        if self._keyboard_fd is not None and self._keyboard_fd in readable:
            self._read_keyboard(self._keyboard_fd)
        if self._speaker is not None:
            self._speaker.handle(readable | writable)

    def _keyboard(self) -> list[int]:
        """Return the keyboard's descriptor, if keys are wanted from it now."""
        is_full = len(self._typed) >= _MAX_TYPED_BYTES
        if self._keyboard_fd is None or self._keyboard_paused or is_full:
            return []
        return [self._keyboard_fd]

    def _timeout_s(self, channels: list[Channel]) -> float | None:
        dues = [c.last_read_at + _IDLE_S for c in channels if c.redactor.held and c.last_read_at]
        if self._caught_up is not None:
            dues.append(time.monotonic() + _QUIET_S)
        if self._finish_at is not None:
            dues.append(self._finish_at)
        if self._state is not None and self._state != self._state_told:
            dues.append(self._state_told_at + _STATE_INTERVAL_S)
        if self._states is not None and self._states.look_every_s is not None:
            dues.append(self._looked_at + self._states.look_every_s)
        told_at = None if self._progress is None else self._progress.due_at()
        if told_at is not None:
            dues.append(told_at)
        spoken_at = None if self._speaker is None else self._speaker.due_at()
        if spoken_at is not None:
            dues.append(spoken_at)
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _tick(self, channels: list[Channel]) -> None:
        now = time.monotonic()
        for channel in channels:
            if channel.last_read_at and now >= channel.last_read_at + _IDLE_S:
                channel.last_read_at = 0.0
                self._hand_on(channel, channel.redactor.idle())
        every_s = None if self._states is None else self._states.look_every_s
        if self._states is not None and every_s is not None and now >= self._looked_at + every_s:
            self._looked_at = now
            self._states.look()
        if now >= self._state_told_at + _STATE_INTERVAL_S:
            self._tell_state(now)
        self._note_waiting()
        if self._progress is not None:
            self._progress.tick(now)

    @property
    def _state(self) -> str | None:
        """What the child is doing, if that can be told."""
        if self._speaker is not None:
            return self._speaker.conversation.state
        return None if self._states is None else self._states.state

    @property
    def _is_waiting(self) -> bool:
        """Whether the child waits for a person."""
        if self._speaker is not None:
            return self._speaker.conversation.is_waiting
        return self._state == WAITING

    def _tell_state(self, now: float) -> None:
        """Tell what the child is doing if that has changed; what flickers is told as it ends."""
        state = self._state
        if state is not None and state != self._state_told:
            self._state_told, self._state_told_at = state, now
            self._tell_marker({"event": "state", "state": state}, is_urgent=True)

    def _note_waiting(self) -> None:
        """Let a person who is waited for see what has changed."""
        was_waiting, self._was_waiting = self._was_waiting, self._is_waiting
        if self._was_waiting and not was_waiting:
            self._tell_news(FilesTouched())

    def _tell_marker(
        self, fields: dict[str, Any], *, slot: str = "", is_urgent: bool = False
    ) -> None:
        text = self._channels[0].rules.redact_json(fields)
        self._journal.append("marker", text, slot=slot, is_urgent=is_urgent)

    def _read(self, channel: Channel) -> None:
        raw = bytearray()
        piece = b""
        while len(raw) < _BURST_BYTES:
            try:
                piece = os.read(channel.master_fd, _BURST_BYTES)
            except BlockingIOError:
                if len(piece) < _LARGE_READ_BYTES or not _is_readable(channel.master_fd):
                    break
                continue
            except OSError:  # EIO: every slave is closed
                piece = b""
            if not piece:
                channel.is_open = False
                break
            raw += piece
        if raw:
            self._show(channel, bytes(raw))

    def _show(self, channel: Channel, raw: bytes) -> None:
        is_on_terminal = channel.local is not None and channel.local.is_terminal
        if not is_on_terminal:
            self._unshown_modes.feed(raw)
        elif self._modes.feed(raw):
            self._note_undo(self._modes.undo())  # before it is shown, and has to be undone
        if self._states is not None:
            self._states.feed(raw)
        if channel.transcript is None:
            self._show_raw(channel, raw)
        else:
            self._show_items(channel, channel.transcript.stream.feed(raw))

    def _show_items(self, channel: Channel, items: Iterable[Item]) -> None:
        for item in items:
            if isinstance(item, Part):
                self._show_part(channel, item)
            elif isinstance(item, Passed):
                if self._speaker is not None:
                    self._speaker.conversation.read_foreign(item.raw)
                if channel.live is None:
                    self._show_raw(channel, item.raw)
                else:
                    self._let_wait(channel, channel.live, item.raw)
            else:
                said = () if self._speaker is None else self._speaker.conversation.read(item.value)
                self._show_message(channel, Message(item.value, (*said, *item.pieces)))
                if item.touches_files:
                    self._tell_news(FilesTouched())

    def _show_message(self, channel: Channel, message: Message) -> None:
        """Show a message of the child's. Rendered whole, then redacted, then shortened."""
        if channel.live is None:
            self._show_pieces(channel, message.pieces)
        elif message.pieces:
            self._let_wait(channel, channel.live, message.pieces)
        # The transcript's redaction takes long and nothing waits for it, so it comes last.
        if channel.transcript is not None:
            channel.transcript.keep(channel.rules.redact_json(message.value))

    def _show_pieces(self, channel: Channel, pieces: Iterable[Piece]) -> None:
        # What is held back came before it, and a new redactor begins behind it.
        self._hand_on(channel, channel.redactor.flush(), last=True)
        channel.last_read_at = 0.0
        for piece in pieces:
            text = piece.finish(channel.rules.redact(piece.text))
            self._show_text(channel, text, piece.finish(piece.text, is_brief=True))
        if channel.painter is not None and channel.local is not None:
            channel.local.write(channel.painter.flush().encode())
            self.is_mid_line = False

    def _show_part(self, channel: Channel, part: Part) -> None:
        """Show some more of what the child is writing."""
        live = channel.live
        if live is None:
            self._show_pieces(channel, ())
            live = channel.live = LiveText(channel.rules)
            if part.is_apart:
                self._show_text(channel, cast("RedactedText", "\n"), "\n")
        self._show_text(channel, *live.feed(part.text))
        if part.is_last:
            self._show_text(channel, *live.end(is_cut=part.is_cut))
            channel.live = None
            self._live_failures += live.redaction_failures
            self._show_pieces(channel, part.pieces)
            self._show_waiting(channel, live)

    def _let_wait(self, channel: Channel, live: LiveText, what: bytes | tuple[Piece, ...]) -> None:
        """Keep something until the words have ended; too much of it breaks their line."""
        live.waiting.append(what)
        if len(live.waiting) > _MAX_WAITING:
            self._show_text(channel, *live.break_line())
            self._show_waiting(channel, live)

    def _show_waiting(self, channel: Channel, live: LiveText) -> None:
        waiting, live.waiting = live.waiting, []
        for what in waiting:
            if isinstance(what, bytes):
                self._show_raw(channel, what)
            else:
                self._show_pieces(channel, what)

    def _show_text(self, channel: Channel, text: RedactedText, raw: str) -> None:
        """Show text of the runner's own making: `raw` is what the user's terminal gets."""
        redacted = text.encode("utf-8")
        if channel.local is not None and channel.local.is_terminal:
            painted = raw if channel.painter is None else channel.painter.feed(raw)
            channel.local.write(painted.encode())
            self.is_mid_line = not painted.endswith("\n") if painted else self.is_mid_line
        elif channel.local is not None:
            channel.local.write(redacted)
        self._keep(redacted)
        self._publish(channel, text)

    def _show_raw(self, channel: Channel, raw: bytes) -> None:
        if channel.local is not None and channel.local.is_terminal:
            channel.local.write(raw)
        if channel.text_filter is not None:
            raw = channel.text_filter.feed(raw)
        redacted = channel.redactor.feed(raw)
        channel.last_read_at = time.monotonic() if channel.redactor.held else 0.0
        self._hand_on(channel, redacted)

    def _hand_on(self, channel: Channel, redacted: Redacted, *, last: bool = False) -> None:
        if channel.local is not None and not channel.local.is_terminal:
            channel.local.write(redacted)
        self._keep(redacted)
        self._publish(channel, channel.decoder.feed(redacted))
        if last:
            self._publish(channel, channel.decoder.flush())

    def _publish(self, channel: Channel, text: RedactedText) -> None:
        """Hand text to the journal. The files must not take the room that is left for that."""
        if text and not self._journal.append(channel.stream, text):
            self._is_log_full = True
            if channel.transcript is not None:
                channel.transcript.is_full = True

    def _keep(self, redacted: bytes) -> None:
        """Write to the log. A disk that takes nothing more does not end the session."""
        rest = memoryview(redacted)
        try:
            while rest and not self._is_log_full:
                rest = rest[self._log.write(rest) :]
        except OSError:
            self._is_log_full = True
        self.unlogged_bytes += len(rest)

    def _read_keyboard(self, fd: int) -> None:
        try:
            keys = os.read(fd, _MAX_TYPED_BYTES)
        except OSError:
            keys = b""
        if keys and self._is_covered:
            self._tell_news(KeysTyped(keys))
        elif keys:
            self._typed += keys
        else:
            self._keyboard_fd = None  # hung up; the signal that goes with it ends the run

    def _cover(self, text: bytes | None, *, is_more: bool) -> None:
        """Cover the child's screen, write on what covers it, or uncover it."""
        local = self._channels[0].local
        if local is None or not local.is_terminal:
            return
        if is_more:
            if self._is_covered:
                local.write(text or b"", over=True)
        elif text is not None and not self._is_covered:
            self._is_covered = True
            self._is_other_screen = self._modes.has_other_screen
            self._note_undo(_UNCOVERED + self._modes.undo())
            local.write((b"" if self._is_other_screen else _OTHER_SCREEN) + _CLEARED + text)
            local.hold()
        elif text is None and self._is_covered:
            self._is_covered = False
            cursor = b"\x1b[?25l" if self._modes.hides_cursor else b""
            local.write((b"" if self._is_other_screen else _UNCOVERED) + cursor, over=True)
            local.release()
            self._note_undo(self._modes.undo())
            if self._is_other_screen:
                self._let_child_draw()

    def _let_child_draw(self) -> None:
        """Let a full-screen program draw its screen anew: its size changes, and changes back."""
        for channel in self._channels:
            size = window_size(channel.master_fd)
            if size is not None:
                with contextlib.suppress(OSError):
                    set_window_size(channel.master_fd, Size(size.columns, size.lines + 1))
                    set_window_size(channel.master_fd, size)

    def _write_typed(self, master_fd: int) -> None:
        try:
            written = os.write(master_fd, self._typed)
        except BlockingIOError:
            return
        except OSError:
            self._typed.clear()
            return
        del self._typed[:written]


def _is_readable(fd: int) -> bool:
    """Wait for the next read of a burst. Returns whether it has come."""
    return bool(select.select([fd], [], [], _NEXT_READ_S)[0])


class ChildTerminals:
    """The two sides of the terminals, until each has its owner.

    `channels` is the runner's side, which is the pump's from then on; `fds` are 0, 1 and 2 of the
    child, and closed by `close_fds` once it has them. `attributes` are those that a session's
    terminal begins with. Raises OSError.
    """

    def __init__(
        self, job: Job, folder: Path, rules: Rules, size: Size, attributes: list[Any] | None
    ) -> None:
        streams = ("stdout",) if job.is_interactive else ("stdout", "stderr")
        self.channels: list[Channel] = []
        slaves = []
        for number, stream in enumerate(streams, start=1):
            master_fd, slave_fd = os.openpty()
            set_window_size(slave_fd, size)
            if attributes is not None:
                termios.tcsetattr(slave_fd, termios.TCSANOW, attributes)
            elif not job.is_interactive:
                _make_transparent(slave_fd)
            channel = Channel(stream, master_fd, rules, LocalOutput(number))
            channel.text_filter = TextFilter() if job.invocation.is_text_only else None
            self.channels.append(channel)
            slaves.append(slave_fd)
        if job.invocation.messages is not None:
            lines = open(folder / job.messages_name, "ab", buffering=0)  # noqa: SIM115 - the pump closes it
            self.channels[0].transcript = Transcript(job.invocation.messages, lines)
            self.channels[0].painter = _find_painter()
        # What the child is told goes here, if it listens; the pump's from then on.
        self.speaking_fd: int | None = None
        if job.is_interactive:
            stdin_fd = slaves[0]
        elif job.invocation.dialogue is not None:
            stdin_fd, self.speaking_fd = os.pipe()
        else:
            stdin_fd = _open_stdin(job, folder)
        self.fds = (stdin_fd, slaves[0], slaves[-1])

    def close_fds(self) -> None:
        """Close the child's side here: the output ends when no process has it open."""
        for fd in set(self.fds):
            os.close(fd)


def _find_painter() -> Painter | None:
    """Return what shows messages in colour, where a person sees them."""
    if not os.isatty(1):
        return None
    from runner.painter import Painter, wants_color  # takes long, and most children need none

    return Painter(_columns) if wants_color() else None


def _columns() -> int:
    """Return how wide the user's terminal is now; 0 if it does not say."""
    size = window_size(1)
    return 0 if size is None else size.columns


def _make_transparent(slave_fd: int) -> None:
    """Let a line end in a single newline, and do not echo: nothing is typed here."""
    attributes = termios.tcgetattr(slave_fd)
    attributes[1] &= ~termios.OPOST
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(slave_fd, termios.TCSANOW, attributes)


def _open_stdin(job: Job, folder: Path) -> int:
    """Return a descriptor with the prompt that was too long for an argument, or nothing."""
    if job.invocation.stdin_text is None:
        return os.open(os.devnull, os.O_RDONLY)
    path = folder / "prompt"
    path.write_bytes(job.invocation.stdin_text)
    fd = os.open(path, os.O_RDONLY)
    path.unlink()
    return fd
