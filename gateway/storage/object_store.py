"""Files in an object store, such as Amazon S3, MinIO or Ceph, by obstore.

Its keys and its address come from the environment, by the names that Amazon's own tools know
(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL …).

A file is sent in one request, so that it is there whole or not at all: an upload in parts that is
broken off would be kept, and paid for, unseen. Before that it lies in a file without a name, which
is mapped into memory, and not read into it.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Callable, TypeVar

from gateway.storage.file_store import Content, Entry, FilesAwayError, Sink

T = TypeVar("T")

# What waits for a store that does not answer must leave threads to everything else.
_AT_ONCE = 8
_PATIENCE_S = 5.0
_OPTIONS: Any = {"connect_timeout": "5s", "user_agent": "claude-runner-gateway"}
_READING: Any = {**_OPTIONS, "timeout": "20s"}
_WRITING: Any = {**_OPTIONS, "timeout": "60s"}
_RETRIES: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
# Read ahead in each download.
_READ_BYTES = 4 * 1024 * 1024
_HASHED_BYTES = 1024 * 1024
_STATUS = re.compile(r"status code: (\d+)")


class ObjectStore:
    """A bucket, or what is below a prefix in it. Raises: FilesAwayError, ValueError, ImportError.

    `spool` is a folder on this machine.
    """

    def __init__(self, url: str, spool: Path) -> None:
        import obstore  # an extra, which a gateway with a folder does not have
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        allowed: Any = {"allow_http": address.startswith("http://")}
        self._api = obstore
        self._errors = (BaseError, OSError, ValueError)
        self._spool = spool
        self._slots = threading.BoundedSemaphore(_AT_ONCE)
        try:
            self._reading: Any = from_url(
                url, client_options=_READING | allowed, retry_config=_RETRIES
            )
            self._writing: Any = from_url(
                url, client_options=_WRITING | allowed, retry_config=_RETRIES
            )
        except self._errors as error:
            raise ValueError(_reason(error)) from None

    def _ask(self, call: Callable[[], T]) -> T:
        """Call the library. Raises: FileNotFoundError, FilesAwayError.

        Its own errors tell whole answers, in which keys may be: they are not passed on.
        """
        if not self._slots.acquire(timeout=_PATIENCE_S):
            raise FilesAwayError("it answers too slowly")
        try:
            return call()
        except FileNotFoundError:
            raise
        except self._errors as error:
            raise FilesAwayError(_reason(error)) from None
        finally:
            self._slots.release()

    @contextmanager
    def writing(self, run_id: str, file_id: str) -> Iterator[Sink]:
        """Make a file."""
        with TemporaryFile(dir=self._spool) as file:
            yield file
            file.flush()
            self._put(_key(run_id, file_id), file)

    def _put(self, key: str, file: IO[bytes]) -> None:
        size = file.tell()
        if not size:
            self._send(key, b"")
            return
        with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as content:
            digest = _md5(content)
            try:
                tag = self._send(key, content)
                if tag != digest and self._stored_md5(key) != digest:
                    raise FilesAwayError("it has stored something else")
            except FileNotFoundError:
                raise FilesAwayError("there is no such bucket") from None

    def _send(self, key: str, content: Any) -> str:
        """Store an object; return the tag that it got, which mostly is its MD5."""
        put = self._api.put
        result = self._ask(lambda: put(self._writing, key, content, use_multipart=False))
        return (result["e_tag"] or "").strip('"')

    def _stored_md5(self, key: str) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        content = _Content(self._ask, self._api, self._reading, key)
        while piece := content.read(_HASHED_BYTES):
            digest.update(piece)
        return digest.hexdigest()

    def open(self, run_id: str, file_id: str) -> Content:
        """Read a file."""
        return _Content(self._ask, self._api, self._reading, _key(run_id, file_id))

    def remove(self, run_id: str, file_id: str) -> None:
        """Remove a file."""
        self._delete([_key(run_id, file_id)])

    def remove_run(self, run_id: str) -> None:
        """Remove all files of a run."""
        for entries in self._listed(run_id):
            self._delete([each["path"] for each in entries])

    def _delete(self, keys: list[str]) -> None:
        try:
            self._ask(lambda: self._api.delete(self._writing, keys))
        except FileNotFoundError:
            pass

    def remove_half(self, before: float) -> None:
        """Nothing of that kind can be there."""

    def entries(self) -> Iterator[Entry]:
        """Yield all files."""
        for entries in self._listed(None):
            for each in entries:
                run_id, _, file_id = each["path"].partition("/")
                yield Entry(run_id, file_id, each["last_modified"].timestamp())

    def _listed(self, prefix: str | None) -> Iterator[list[Any]]:
        pages = iter(self._api.list(self._reading, prefix, chunk_size=500))
        while page := self._ask(lambda: next(pages, None)):
            yield list(page)

    def check(self) -> None:
        """Look whether it answers, with these keys."""
        next(self._listed("none"), None)


class _Content:
    """A file that is read piece by piece, each of them with a request."""

    def __init__(
        self, ask: Callable[[Callable[[], Any]], Any], api: Any, store: Any, key: str
    ) -> None:
        self._ask = ask
        self._api, self._store, self._key = api, store, key
        self.size: int = ask(lambda: api.head(store, key))["size"]
        self._place = 0
        self._piece, self._begin = b"", 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes: as many as are asked for, up to a piece."""
        begin = self._place - self._begin
        if not 0 <= begin < len(self._piece):
            end = min(self.size, self._place + _READ_BYTES)
            if self._place >= end:
                return b""
            piece = {"start": self._place, "end": end}
            self._piece = self._ask(
                lambda: bytes(self._api.get_range(self._store, self._key, **piece))
            )
            self._begin, begin = self._place, 0
        found = self._piece[begin : begin + size] if size >= 0 else self._piece[begin:]
        self._place += len(found)
        return found

    def seek(self, offset: int) -> int:
        """Go to a place."""
        self._place = offset
        return offset

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def seekable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Do nothing: nothing is kept open."""


def _key(run_id: str, file_id: str) -> str:
    return f"{run_id}/{file_id}"


def _md5(content: mmap.mmap) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for start in range(0, len(content), _HASHED_BYTES):
        digest.update(content[start : start + _HASHED_BYTES])
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    """Return what may be told of an error."""
    status = _STATUS.search(str(error))
    if status:
        return f"it answers with status {status[1]}"
    return str(error).partition("\n")[0][:200]
