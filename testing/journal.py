"""What the tests of the journal do with one: open it, copy it as a crash would, read it out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from journal.events import FrozenEvent, encode_event
from journal.spool import Spool
from redact import RedactedText


def text(value: str) -> RedactedText:
    """Say that there is nothing secret in a test's text."""
    return RedactedText(value)


@contextmanager
def opened(path: Path, *, keeps_reserve: bool = False) -> Iterator[Spool]:
    """Open a journal and close it with the block."""
    spool = Spool(path, redact=text, keeps_reserve=keeps_reserve)
    try:
        yield spool
    finally:
        spool.close()


def crash_copy(path: Path, folder: Path) -> Path:
    """Return a copy of the files as a kill would leave them, the journal still being open."""
    for each in path.parent.iterdir():
        if each.is_file() and each.name in _LEFT_BY_A_KILL:
            shutil.copy(each, folder)
    return folder / path.name


# All of a journal's files but the one that SQLite makes anew.
_LEFT_BY_A_KILL = ("spool.db", "spool.db-wal", "reserve", "end", "taken", "spent")


def data_of(event: FrozenEvent) -> str:
    """Return the text of an event, whose body must be what the wire protocol says."""
    content = json.loads(event.body)
    assert content["type"] == event.type
    assert content["sequence"] == event.sequence
    assert event.body == encode_event(event.type, content["data"], event.sequence)
    return str(content["data"])


def drain(spool: Spool) -> list[tuple[str, str]]:
    """Accept everything that waits; return types and texts."""
    events: list[tuple[str, str]] = []
    while True:
        event = spool.cut(1, "n")
        if event is None:
            return events
        events.append((event.type, data_of(event)))
        spool.accept()
