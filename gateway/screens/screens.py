"""The screens of sessions as they stand, for viewers who come late, and where nothing else draws.

Nothing is drawn until somebody looks: a model is then fed with the end of what is stored, from
where the program has cleared its screen if there is such a place, and kept up when somebody looks
again. What a run prints decides what that costs, so each look is bounded in characters and in time.
A look that is not done says so, and the next one goes on there; where a run prints faster than
that, the model begins anew further on.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gateway.screens.terminal_model import TerminalModel
from gateway.storage.records import Event

_DEFAULT_SIZE: Final = (80, 24)
# Of one look.
_MAX_CHARS: Final = 400_000
_MAX_EVENTS: Final = 2_000
_MAX_SECONDS: Final = 0.3
_PAGE_EVENTS: Final = 200
_STEPS_BETWEEN_LOOKS: Final = 10
# A few megabytes each at most.
_MAX_MODELS: Final = 8
# After one of these a program draws all of its screen.
_REDRAW: Final = re.compile(r"\x1b\[[23]J|\x1b\[\?(?:1049|1047|47)[hl]|\x1bc")


class Events(Protocol):
    """Where the events are."""

    def events_after(self, run_id: str, after: int, limit: int, max_bytes: int) -> list[Event]:
        """Return the events after one, ascending."""

    def events_before(
        self, run_id: str, before: int | None, limit: int, max_bytes: int
    ) -> list[Event]:
        """Return the events that precede one, or the last ones, ascending."""


@dataclass
class _Kept:
    """A model, and how far it has come: `rest` is of that event. `is_whole`: its beginning too."""

    model: TerminalModel
    after: int
    is_whole: bool
    rest: Iterator[None] | None = None


class Screens:
    """The screens that were looked at last. Thread: any; one is drawn at a time."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def look(self, run: dict[str, Any]) -> dict[str, Any]:
        """Return the screen of a run, as far as there was time to draw it."""
        with self._lock:
            kept = self._kept.pop(run["id"], None)
            if kept is None or self._is_far_behind(run["id"], kept):
                kept = self._begin(run)
            self._kept[run["id"]] = kept
            while len(self._kept) > _MAX_MODELS:
                self._kept.popitem(last=False)
            is_done = self._catch_up(run["id"], kept, time.monotonic() + _MAX_SECONDS)
            return {
                "after": kept.after,
                "columns": kept.model.columns,
                "lines": kept.model.lines,
                "alternate": kept.model.is_alternate,
                "cursor": kept.model.place_of_cursor(),
                "rows": kept.model.rows(),
                "whole": kept.is_whole,
                "done": is_done,
            }

    def forget(self, run_ids: list[str]) -> None:
        """Forget the screens of runs that are removed."""
        with self._lock:
            for run_id in run_ids:
                self._kept.pop(run_id, None)

    def _is_far_behind(self, run_id: str, kept: _Kept) -> bool:
        events = self._events.events_after(run_id, kept.after, _MAX_EVENTS, _MAX_CHARS)
        last = events[-1].id if events else kept.after
        return bool(self._events.events_after(run_id, last, 1, 0))

    def _begin(self, run: dict[str, Any]) -> _Kept:
        """Return a model that begins where the screen was drawn anew last, or so far back."""
        events = self._last_events(run["id"])
        is_first = not events or not self._events.events_before(run["id"], events[0].id, 1, 0)
        start = 0
        if not is_first:
            start = max((n for n, each in enumerate(events) if _draws_anew(each)), default=0)
        size = None
        for event in events[:start]:
            size = _size_of(event) or size
        columns, lines = size or _usable(run["columns"], run["lines"]) or _DEFAULT_SIZE
        after = events[start].id - 1 if events else 0
        return _Kept(TerminalModel(columns, lines), after, is_first or start > 0)

    def _last_events(self, run_id: str) -> list[Event]:
        events: list[Event] = []
        room = _MAX_CHARS
        while room > 0 and len(events) < _MAX_EVENTS:
            before = events[0].id if events else None
            page = self._events.events_before(run_id, before, _PAGE_EVENTS, room)
            events[:0] = page
            room -= sum(len(each.data) for each in page)
            if not page or any(map(_draws_anew, page)):
                break
        return events

    def _catch_up(self, run_id: str, kept: _Kept, deadline: float) -> bool:
        """Draw what is new. Returns False if the time did not suffice."""
        events = self._events.events_after(run_id, kept.after, _MAX_EVENTS, _MAX_CHARS)
        for event in (None, *events):
            if event is not None:
                kept.after = event.id
                size = _size_of(event)
                if size is not None:
                    kept.model.set_size(*size)
                elif event.type in ("stdout", "stderr"):
                    kept.rest = kept.model.take(event.data)
            if kept.rest is not None and not _run(kept.rest, deadline):
                return False
            kept.rest = None
            # Another size may cost as much as many steps.
            if event is not None and time.monotonic() >= deadline:
                break
        return not self._events.events_after(run_id, kept.after, 1, 0)


def _draws_anew(event: Event) -> bool:
    return event.type == "stdout" and _REDRAW.search(event.data) is not None


def _size_of(event: Event) -> tuple[int, int] | None:
    """Return the size that a marker tells, if it does."""
    if event.type != "marker" or '"columns"' not in event.data:
        return None
    try:
        marker = json.loads(event.data)
    except (ValueError, RecursionError):
        return None
    return _usable(marker.get("columns"), marker.get("lines")) if isinstance(marker, dict) else None


def _usable(columns: Any, lines: Any) -> tuple[int, int] | None:
    is_size = all(type(each) is int and each > 0 for each in (columns, lines))
    return (columns, lines) if is_size else None


def _run(steps: Iterator[None], deadline: float) -> bool:
    """Take steps until the deadline. Returns whether all were taken."""
    for number, _ in enumerate(steps):
        if number % _STEPS_BETWEEN_LOOKS == 0 and time.monotonic() >= deadline:
            return False
    return True
