"""One file, or a part of one, to the gateway: cut to what it takes, and sent until it is answered.

The files are those of a run's folder, which hold redacted text alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Final, NamedTuple

from gateway_client import (
    ATTEMPT_DEAD_S,
    ATTEMPT_RESEND_LIMIT_S,
    MAX_ARTIFACT_BYTES,
    MultipartFile,
    Outcome,
    Reply,
)
from gateway_transport import GatewayError
from journal.spool import FilePart
from redact import Redactor
from runner.pacing import RECONSIDER_S, Pauses

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

    from gateway_client import Attempt, GatewayClient
    from journal.spool import FilePart
    from redact import Rules
    from runner.pacing import Pacer
    from runner.plan import Job

# What is refused as too large is cut down to this size, of an event's body or of a file's part.
SMALLEST_BODY_BYTES: Final = 16_384
# One uploaded file: the gateway's limit, with room for the frame of a multipart body.
MAX_PART_BYTES: Final = MAX_ARTIFACT_BYTES - 4_096
# How often a gateway may fail on a file that nobody would wait for.
_MAX_FAILURES: Final = 3
# How far back from there a part may end, to end with a line.
_LINE_SEARCH_BYTES: Final = 1_048_576


def file_parts(
    folder: Path,
    path: str,
    name: str,
    *,
    start: int = 0,
    number: int = 1,
    max_bytes: int | None = None,
) -> Iterator[FilePart]:
    """Yield the parts in which a file of the run's folder goes to the gateway.

    One part if it fits; else `name.log`, `name.2.log` and so on, cut at line ends where there are
    any. `start` and `number` are where to go on with a file of which parts were sent. Raises
    OSError.
    """
    size = (folder / path).stat().st_size
    stem, dot, suffix = name.rpartition(".")
    while start < size or number == 1:
        end = _part_end(folder / path, start, size, max_bytes or MAX_PART_BYTES)
        part_name = name if number == 1 else f"{stem}.{number}{dot}{suffix}"
        yield FilePart(path, part_name, start, end - start)
        start, number = end, number + 1


def _part_end(path: Path, start: int, size: int, max_bytes: int) -> int:
    if size - start <= max_bytes:
        return size
    end = start + max_bytes
    search_from = max(start, end - _LINE_SEARCH_BYTES)
    with path.open("rb") as file:
        file.seek(search_from)
        newline = file.read(end - search_from).rfind(b"\n")
    return search_from + newline + 1 if newline >= 0 else end


def open_part(
    folder: Path, part: FilePart, on_progress: Callable[[], None] = lambda: None
) -> MultipartFile:
    """Return the body of a part's upload."""
    return MultipartFile(folder / part.path, part.name, part.start, part.size, on_progress)


class NotTaken(NamedTuple):
    """Why a file is not at the gateway. `is_too_large`: smaller parts of it may be taken."""

    reason: str
    is_too_large: bool = False


def size_after(problem: NotTaken | None, part: FilePart) -> int | None:
    """Return how large the parts of its file may be from now on, if that would help."""
    if problem is None or not problem.is_too_large or part.size <= SMALLEST_BODY_BYTES:
        return None
    return max(SMALLEST_BODY_BYTES, part.size // 2)


def send_file(
    client: GatewayClient,
    file: MultipartFile,
    pacer: Pacer,
    stopping: threading.Event,
    *,
    attempt: Attempt | None = None,
    freeze: Callable[[Attempt], None] | None = None,
    pauses: Pauses | None = None,
    waits: Callable[[str], None] = lambda _: None,
) -> NotTaken | None:
    """Upload one part, repeating the frozen attempt until it is answered or `stopping` is set.

    `attempt` is one that was frozen before; `freeze` records a new one before it is made, and lets
    a gateway that fails, rejects the run or shows another certificate be tried again and again;
    `waits` is told why. Returns None, or why the file was not taken. Raises nothing.
    """
    sending = _FileSending(client, file, pacer, stopping, freeze, pauses or Pauses(), waits)
    try:
        return sending.send(attempt)
    except GatewayError as error:
        return NotTaken(str(error))
    except OSError as error:
        return NotTaken(f"it cannot be read ({error.strerror})")


class _FileSending:
    """One upload and its repetitions."""

    def __init__(
        self,
        client: GatewayClient,
        file: MultipartFile,
        pacer: Pacer,
        stopping: threading.Event,
        freeze: Callable[[Attempt], None] | None,
        pauses: Pauses,
        waits: Callable[[str], None],
    ) -> None:
        self._client = client
        self._file = file
        self._waits = waits
        self._pacer = pacer
        self._stopping = stopping
        self._freeze = freeze
        self._pauses = pauses
        self._failures = 0

    def send(self, attempt: Attempt | None) -> NotTaken | None:
        """Return None, or why the file was not taken."""
        while not self._stopping.wait(self._pacer.blocked_s()):
            if not self._file.is_there:
                return NotTaken("it is not there any more")
            attempt = attempt or self._sign()
            age_s = attempt.age_s(self._client.clock)
            if age_s >= ATTEMPT_DEAD_S:
                attempt = self._sign()
            elif age_s >= ATTEMPT_RESEND_LIMIT_S:
                self._stopping.wait(min(ATTEMPT_DEAD_S - age_s, RECONSIDER_S))
                continue
            reply = self._send(attempt)
            self._pacer.note(reply)
            if reply.outcome.is_taken:
                return None
            if self._is_over(reply.outcome):
                reason = f"the gateway refused it ({reply.message})"
                return NotTaken(reason, is_too_large=reply.status == 413)
            # The nonce is spent, or may be, and the file is not there: a gateway looks at the nonce
            # before it has read the file to its end. Before the wait, for a crash may come in it.
            is_cut_off = reply.outcome is Outcome.UNKNOWN and not self._file.was_read_whole
            if is_cut_off or reply.outcome in (Outcome.FAILED, Outcome.SKEWED):
                attempt = self._sign()
            self._pause(reply.outcome)
        return NotTaken("it was broken off")

    def _send(self, attempt: Attempt) -> Reply:
        try:
            reply = self._client.send(attempt)
        except GatewayError as error:  # nothing was sent: another certificate
            if self._freeze is None:
                raise
            self._waits(str(error))
            return Reply(Outcome.UNKNOWN, message=str(error))
        if reply.outcome.is_rejection:
            self._waits(f"the gateway does not accept this run any more ({reply.message})")
        return reply

    def _sign(self) -> Attempt:
        attempt = self._client.artifact(self._file)
        if self._freeze is not None:
            self._freeze(attempt)
        return attempt

    def _is_over(self, outcome: Outcome) -> bool:
        """Whether this gateway will never take it, or nobody would wait for it any longer."""
        if outcome is Outcome.REFUSED:
            return True
        if self._freeze is not None:
            return False
        is_failing = outcome is Outcome.FAILED and self._failures >= _MAX_FAILURES
        return is_failing or outcome.is_rejection

    def _pause(self, outcome: Outcome) -> None:
        pauses = self._pauses
        pause_s = pauses.rejected_s if outcome.is_rejection else pauses.backoff_s(self._failures)
        self._stopping.wait(pause_s)
        self._failures += 1


_BLOCK_BYTES: Final = 1_048_576


def collect_files(
    job: Job, folder: Path, rules: Rules, tell: Callable[[str], None], breathe: Callable[[], None]
) -> list[FilePart]:
    """Return the parts to upload, in their order; `tell` gets a sentence on what cannot be.

    `breathe` is called once for each block of a copy, and may break that off with an OSError.
    """
    parts: list[FilePart] = []
    for name in (job.log_name, *([] if job.invocation.messages is None else [job.messages_name])):
        try:
            parts += file_parts(folder, name, name)
        except OSError as error:  # somebody has deleted the run's folder
            tell(f"{name} is not uploaded: {error.strerror}")
    for number, source in enumerate(job.artifacts, start=1):
        try:
            copy = f"artifacts/{number}{source.suffix}"
            _copy_redacted(source, folder / copy, rules, breathe)
            parts += file_parts(folder, copy, rules.redact(source.stem) + source.suffix)
        except OSError as error:
            tell(f"{source} is not uploaded: {error.strerror}")
    return parts


def _copy_redacted(source: Path, copy: Path, rules: Rules, breathe: Callable[[], None]) -> None:
    copy.parent.mkdir(mode=0o700, exist_ok=True)
    redactor = Redactor(rules=rules)
    with source.open("rb") as raw, copy.open("wb") as redacted:
        while block := raw.read(_BLOCK_BYTES):
            redacted.write(redactor.feed(block))
            breathe()
        redacted.write(redactor.flush())
