"""The files of a run's folder to the gateway: cut to the size that it takes, and sent.

They hold redacted text alone.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Callable, Final, NamedTuple

from config import DRAFT_SUFFIX
from gateway_client import MAX_ARTIFACT_BYTES, MultipartFile, Reply
from gateway_transport import GatewayError
from journal.spool import FilePart, Upload
from redact import Redactor
from runner.attempts import Sender, TellOnce

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from gateway_client import Attempt, GatewayClient
    from journal.spool import Spool
    from redact import Rules
    from runner.attempts import Obstacle, Pacer, Pauses, Policy
    from runner.plan import Job

# The size to which a refused event body or file part is cut.
SMALLEST_BODY_BYTES: Final = 16_384
# One uploaded file: the gateway's limit, with room for the frame of a multipart body.
MAX_PART_BYTES: Final = MAX_ARTIFACT_BYTES - 4_096
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


class PartList:
    """Parts that are lost with the process: the journal's methods for uploads, in memory."""

    def __init__(self, parts: Iterable[FilePart]) -> None:
        self._waiting = list(parts)
        self._done: list[FilePart] = []

    def next_upload(self) -> Upload | None:
        """Return the first part that was not sent."""
        return Upload(0, self._waiting[0], None, None) if self._waiting else None

    def freeze_upload(self, upload_id: int, timestamp: int, nonce: str) -> None:
        """Forget the attempt, which cannot be repeated after a crash."""

    def end_upload(self, _upload_id: int) -> None:
        """Count the first part as sent."""
        self._done.append(self._waiting.pop(0))

    def done_parts(self, _path: str) -> list[FilePart]:
        """Return the parts that were sent."""
        return self._done

    def recut_uploads(self, _path: str, parts: Sequence[FilePart]) -> None:
        """Replace the parts that were not sent."""
        self._waiting = list(parts)


class Uploader:
    """Sends the parts in a queue, one after the other. Thread: that of its client.

    A part that is refused as too large is cut in half, and so is everything after it. `tell` gets
    sentences for the user. `on_progress` is called for what the network or the gateway has taken.
    """

    def __init__(
        self,
        client: GatewayClient,
        queue: Spool | PartList,
        folder: Path,
        pacer: Pacer,
        stopping: threading.Event,
        policy: Policy,
        *,
        tell: Callable[[str], None],
        on_progress: Callable[[], None] = lambda: None,
        pauses: Pauses | None = None,
    ) -> None:
        self._client = client
        self._queue = queue
        self._folder = folder
        self._pacer = pacer
        self._stopping = stopping
        self._policy = policy
        self._tell = tell
        self._tell_once = TellOnce(tell)
        self._on_progress = on_progress
        self._pauses = pauses
        self._max_part_bytes = MAX_PART_BYTES
        # The part that is done, and of which that could not be noted.
        self._ended_id: int | None = None

    def send_next(self) -> bool:
        """Send the next part, or cut it smaller. Returns False when there is none."""
        if self._ended_id is not None:
            self._end(self._ended_id)
        upload = self._queue.next_upload()
        if upload is None:
            return False
        part = upload.part
        if part.size > self._max_part_bytes:
            self._cut_smaller(part)
            return True
        problem = self._send(upload)
        if problem is not None and problem.is_too_large and part.size > SMALLEST_BODY_BYTES:
            self._max_part_bytes = max(SMALLEST_BODY_BYTES, part.size // 2)
        # What the gateway has is noted even when the run was told to stop meanwhile.
        elif problem is None or not self._stopping.is_set():
            if problem is not None:
                self._tell(f"{part.name} is not uploaded: {problem.reason}")
            self._end(upload.id)
        return True

    def _end(self, upload_id: int) -> None:
        """Note that a part is done; if a full disk does not take that, before the next one."""
        self._ended_id = upload_id
        self._queue.end_upload(upload_id)
        self._ended_id = None
        self._on_progress()

    def _send(self, upload: Upload) -> NotTaken | None:
        part = upload.part
        file = MultipartFile(
            self._folder / part.path, part.name, part.start, part.size, self._on_progress
        )
        frozen = None
        if upload.nonce is not None and upload.timestamp is not None:
            frozen = self._client.artifact(file, upload.timestamp, upload.nonce)
        return send_file(
            self._client,
            file,
            self._pacer,
            self._stopping,
            self._policy,
            frozen=frozen,
            freeze=lambda a: self._queue.freeze_upload(upload.id, a.timestamp, a.nonce),
            pauses=self._pauses,
            waits=lambda reason: self._tell_once("upload", f"{part.name} waits: {reason}"),
        )

    def _cut_smaller(self, part: FilePart) -> None:
        """Cut anew what the gateway does not have of a part's file."""
        done = self._queue.done_parts(part.path)
        parts = list(
            file_parts(
                self._folder,
                part.path,
                done[0].name if done else part.name,
                start=part.start,
                number=len(done) + 1,
                max_bytes=self._max_part_bytes,
            )
        )
        self._queue.recut_uploads(part.path, parts)
        self._on_progress()


class NotTaken(NamedTuple):
    """Why a file is not at the gateway. `is_too_large`: smaller parts of it may be taken."""

    reason: str
    is_too_large: bool = False


def send_file(
    client: GatewayClient,
    file: MultipartFile,
    pacer: Pacer,
    stopping: threading.Event,
    policy: Policy,
    *,
    frozen: Attempt | None = None,
    freeze: Callable[[Attempt], None] = lambda _: None,
    pauses: Pauses | None = None,
    waits: Callable[[str], None] = lambda _: None,
) -> NotTaken | None:
    """Upload one part. Returns None once the gateway has it, or why it has not. Raises nothing.

    `frozen` is an attempt that was recorded before; `freeze` records a new one before it is made.
    `waits` is told why the gateway does not take it at the moment.
    """

    def sign() -> Attempt:
        attempt = client.artifact(file)
        freeze(attempt)
        return attempt

    def wait(seconds: float) -> bool:
        return stopping.wait(seconds) or not file.is_there

    def explain(obstacle: Obstacle) -> None:
        if not isinstance(obstacle, Reply):
            waits(str(obstacle))
        elif obstacle.outcome.is_rejection:
            waits(f"the gateway no longer accepts this run ({obstacle.message})")

    sender = Sender(client, pacer, wait, policy, pauses=pauses, explain=explain)
    try:
        reply = sender.send(sign, frozen)
    except GatewayError as error:
        return NotTaken(str(error))
    except OSError as error:
        return NotTaken(f"it cannot be read ({error.strerror})")
    if reply is None:
        return NotTaken("it was broken off" if stopping.is_set() else "it no longer exists")
    if reply.outcome.is_taken:
        return None
    return NotTaken(f"the gateway refused it ({reply.message})", reply.status == 413)


_BLOCK_BYTES: Final = 1_048_576


def collect_files(
    job: Job, folder: Path, rules: Rules, tell: Callable[[str], None], on_block: Callable[[], None]
) -> list[FilePart]:
    """Return the parts to upload, in their order; `tell` gets a sentence on what cannot be.

    `on_block` is called once for each block of a copy, and may break that off with an OSError.
    """
    parts: list[FilePart] = []
    for name in (job.log_name, *([] if job.invocation.messages is None else [job.messages_name])):
        try:
            if (folder / name).stat().st_size:
                parts += file_parts(folder, name, name)
        except OSError as error:  # the run's folder was deleted
            tell(f"{name} is not uploaded: {error.strerror}")
    for number, source in enumerate(job.artifacts, start=1):
        copy = f"artifacts/{number}{source.suffix}"
        try:
            if not source.stat().st_size:
                tell(f"{source} is not uploaded: it is empty")
                continue
            _copy_redacted(source, folder / copy, rules, on_block)
            parts += file_parts(folder, copy, rules.redact(source.stem) + source.suffix)
        except OSError as error:
            with contextlib.suppress(OSError):
                (folder / copy).unlink()  # what was written of it takes the room for the end
            tell(f"{source} is not uploaded: {error.strerror}")
    return parts


def redact_again(path: Path, rules: Rules) -> bool:
    """Redact a file that holds redacted text in its place. Returns whether that changed it.

    Raises OSError.
    """
    before, after, redactor = hashlib.sha256(), hashlib.sha256(), Redactor(rules=rules)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            before.update(block)
            after.update(redactor.feed(block))
    after.update(redactor.flush())
    if before.digest() == after.digest():
        return False
    draft = path.with_name(f"{path.name}{DRAFT_SUFFIX}")
    draft.unlink(missing_ok=True)
    _copy_redacted(path, draft, rules, lambda: None)
    draft.replace(path)
    return True


def _copy_redacted(source: Path, copy: Path, rules: Rules, on_block: Callable[[], None]) -> None:
    copy.parent.mkdir(mode=0o700, exist_ok=True)
    redactor = Redactor(rules=rules)
    with source.open("rb") as raw, copy.open("wb") as redacted:
        while block := raw.read(_BLOCK_BYTES):
            redacted.write(redactor.feed(block))
            on_block()
        redacted.write(redactor.flush())
