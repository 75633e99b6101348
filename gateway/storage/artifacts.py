"""The files that runners upload: taken apart, redacted and written while they arrive.

Nothing of a file's name becomes part of a path: files lie under the run's id and their own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from redact import Redactor, Rules

_PIECE_BYTES = 65_536
# Kept in memory of what is no file's content, such as the head of a part.
_MAX_GATHERED_BYTES = 4 * _PIECE_BYTES
_MAX_NAME_CHARACTERS = 200
# Nobody writes on to a file that was last written to so long ago: its connection was closed.
_PARTIAL_S = 3_600.0
_TYPES = {
    ".log": "text",
    ".txt": "text",
    ".json": "json",
    ".diff": "diff",
    ".patch": "diff",
    ".md": "markdown",
}


class UploadError(Exception):
    """An upload that is not accepted; the message is for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _safe_name(name: str) -> str:
    """Return a file name as the protocol keeps it: its last part, of harmless characters."""
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r"[^A-Za-z0-9._-]", "_", last)[:_MAX_NAME_CHARACTERS] or "file"


class ArtifactFiles:
    """The folder of the artifacts. Thread: any."""

    def __init__(self, folder: Path, rules: Rules) -> None:
        self._folder = folder
        self._rules = rules

    def path(self, run_id: str, artifact_id: str) -> Path:
        """Return where a file lies."""
        return self._folder / run_id / artifact_id

    def check(self) -> None:
        """Look whether files can be kept. Raises: OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "the folder cannot be written", str(self._folder))

    def remove_partial(self) -> None:
        """Remove what a gateway was receiving when it was killed, and nothing that one receives
        now: the folder may be another one's too.
        """
        for path in self._folder.glob("*/*.partial"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _PARTIAL_S:
                    path.unlink()

    def remove(self, run_id: str, artifact_id: str) -> None:
        """Remove one file."""
        self.path(run_id, artifact_id).unlink(missing_ok=True)

    def remove_run(self, run_id: str) -> None:
        """Remove the files of a run."""
        shutil.rmtree(self._folder / run_id, ignore_errors=True)

    def receive(
        self, run_id: str, content_type: str, stream: Any, max_bytes: int
    ) -> dict[str, Any]:
        """Write the first file of a multipart body; return the artifact's row.

        Raises: UploadError, with nothing left behind; OSError.
        """
        boundary = parse_options_header(content_type)[1].get("boundary", "")
        if not boundary:
            raise UploadError(406, "the request has no boundary")
        artifact_id = f"art_{secrets.token_hex(8)}"
        path = self.path(run_id, artifact_id)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        try:
            name, size = self._write(partial, _parts(stream, boundary.encode(), max_bytes))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        name = _safe_name(name)
        return {
            "id": artifact_id,
            "run_id": run_id,
            "name": name,
            "type": _TYPES.get(os.path.splitext(name)[1].lower(), "file"),
            "size": size,
            "created_at": time.time(),
        }

    def _write(self, path: Path, parts: Iterator[str | bytes]) -> tuple[str, int]:
        """Write the file; return its name and the size of what was received."""
        redactor = Redactor(rules=self._rules)
        name, size = "", 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            for part in parts:
                if isinstance(part, str):
                    name = part
                    continue
                size += len(part)
                file.write(redactor.feed(part))
            file.write(redactor.flush())
            file.flush()
            os.fsync(file.fileno())
        return name, size


def _parts(stream: Any, boundary: bytes, max_bytes: int) -> Iterator[str | bytes]:
    """Yield the first file's name and then its bytes; read the body to its end."""
    decoder = MultipartDecoder(boundary, _MAX_GATHERED_BYTES, max_parts=20)
    files = 0
    is_in_file = False
    for event in _decoded(stream, decoder, max_bytes):
        if isinstance(event, File):
            files += 1
            is_in_file = files == 1
            if is_in_file:
                yield event.filename
        elif isinstance(event, Field):
            is_in_file = False
        elif isinstance(event, Data) and is_in_file:
            yield event.data
    if not files:
        raise UploadError(400, "No file uploaded")


def _decoded(stream: Any, decoder: MultipartDecoder, max_bytes: int) -> Iterator[Event]:
    """Yield what a multipart body consists of. Raises: UploadError."""
    received = 0
    try:
        while True:
            piece = stream.read(_PIECE_BYTES)
            received += len(piece)
            if received > max_bytes:
                raise UploadError(413, "File too large")
            decoder.receive_data(piece or None)
            while not isinstance(event := decoder.next_event(), NeedData):
                if isinstance(event, Epilogue):
                    return
                yield event
            if not piece:
                raise UploadError(400, "the multipart body has no end")
    except (ValueError, HTTPException) as error:
        raise UploadError(400, "the multipart body is malformed") from error
