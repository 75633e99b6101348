"""The gateway's store in this process, with a database of its own."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from gateway.storage.records import Event
from gateway.storage.schema import open_database
from gateway.storage.store import Store
from gateway.storage.writer import Writer


class _Nobody:
    """Who follows no run."""

    def events_stored(self, run_id: str, previous_id: int, stored: list[Event]) -> None:
        """Take no note."""

    def run_changed(self, run_id: str) -> None:
        """Take no note."""


class OpenStore:
    """A store that is open until the block is left."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "gateway.db"
        self.engine = open_database(f"sqlite:///{self.file}")
        self.writer = Writer(self.engine)
        self.store = Store(self.engine, self.writer)
        self.writer.start(_Nobody())

    def __enter__(self) -> OpenStore:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.store.close()
