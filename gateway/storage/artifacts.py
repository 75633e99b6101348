"""The files that runners upload: taken apart, redacted and written while they arrive.

Nothing of a file's name becomes part of a path: files lie under the run's id and their own.
Where they lie is `file_store`'s business, or `object_store`'s.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from gateway.storage.file_store import FileStore, Sink
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
    """The files of artifacts, in their store. Thread: any."""

    def __init__(self, store: FileStore, rules: Rules) -> None:
        self.store = store
        self._rules = rules

    def receive(
        self, run_id: str, content_type: str, stream: Any, max_bytes: int
    ) -> dict[str, Any]:
        """Write the first file of a multipart body; return the artifact's row.

        Raises: UploadError and FilesAwayError, with nothing left behind; OSError.
        """
        boundary = parse_options_header(content_type)[1].get("boundary", "")
        if not boundary:
            raise UploadError(406, "the request has no boundary")
        artifact_id = f"art_{secrets.token_hex(8)}"
        with self.store.writing(run_id, artifact_id) as sink:
            name, size = self._write(sink, _parts(stream, boundary.encode(), max_bytes))
        name = _safe_name(name)
        return {
            "id": artifact_id,
            "run_id": run_id,
            "name": name,
            "type": _TYPES.get(os.path.splitext(name)[1].lower(), "file"),
            "size": size,
            "created_at": time.time(),
        }

    def _write(self, sink: Sink, parts: Iterator[str | bytes]) -> tuple[str, int]:
        """Write the file; return its name and the size of what was received."""
        redactor = Redactor(rules=self._rules)
        name, size = "", 0
        for part in parts:
            if isinstance(part, str):
                name = part
                continue
            size += len(part)
            sink.write(redactor.feed(part))
        sink.write(redactor.flush())
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
