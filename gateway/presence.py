"""Who is there right now: pages that show a run, and runners that are heard of. Thread: any."""

from __future__ import annotations

import threading
import time
from typing import Callable, Final

# A page says every 5 s that it is visible; one that went to sleep says nothing.
LOOK_S: Final = 15.0
# A runner asks for commands every half minute at least: one that has not been heard of for so long
# has died, or has no network.
SILENT_S: Final = 300.0
# Pages of one run, and runs, that are remembered at once.
_MAX_PAGES: Final = 100
_MAX_RUNS: Final = 1_000
# A runner that has not been heard of for longer is silent.
_REMEMBERED_S: Final = 3_600.0


class Looks:
    """Which runs are looked at."""

    def __init__(self) -> None:
        # Called with what is noted here, for other gateways.
        self.when_noted: Callable[[str, str, bool], None] | None = None
        self._lock = threading.Lock()
        # By run: until when each of its pages counts, and when it was last looked at.
        self._pages: dict[str, dict[str, float]] = {}
        self._last: dict[str, float] = {}

    def note(self, run_id: str, page: str, *, is_visible: bool) -> None:
        """Take note that a page of a run is visible, or is not any more."""
        self.note_elsewhere(run_id, page, is_visible=is_visible)
        if self.when_noted is not None:
            self.when_noted(run_id, page, is_visible)

    def note_elsewhere(self, run_id: str, page: str, *, is_visible: bool) -> None:
        """Take note of what was noted at another gateway."""
        now = time.monotonic()
        with self._lock:
            self._last.pop(run_id, None)  # the newest one stands last
            self._last[run_id] = now
            pages = self._pages.setdefault(run_id, {})
            if not is_visible:
                pages.pop(page, None)
            elif page in pages or len(pages) < _MAX_PAGES:
                pages[page] = now + LOOK_S
            while len(self._last) > _MAX_RUNS:
                oldest = next(iter(self._last))
                del self._last[oldest]
                self._pages.pop(oldest, None)

    def is_watched(self, run_id: str) -> bool:
        """Whether a page of the run is visible somewhere."""
        now = time.monotonic()
        with self._lock:
            pages = self._pages.get(run_id, {})
            for page in [page for page, until in pages.items() if until < now]:
                del pages[page]
            return bool(pages)

    def last(self, run_id: str) -> float | None:
        """Return when somebody last looked at a run, as `time.monotonic()`; None: long ago."""
        with self._lock:
            return self._last.get(run_id)


class Heard:
    """When a runner was last heard of. Every request of its run counts."""

    def __init__(self) -> None:
        self._began_at = time.monotonic()
        self._at: dict[str, float] = {}
        # By another gateway.
        self._elsewhere: dict[str, float] = {}
        self._told_at = self._began_at

    def news(self) -> list[str]:
        """Return the runs that were heard of here since the last time."""
        since, self._told_at = self._told_at, time.monotonic()
        return [run_id for run_id, at in list(self._at.items()) if at >= since]

    def note(self, run_id: str) -> None:
        """Take note of a request."""
        _note(self._at, run_id)

    def note_elsewhere(self, run_id: str) -> None:
        """Take note of what another gateway has heard."""
        _note(self._elsewhere, run_id)

    def last(self, run_id: str) -> float:
        """Return when, as `time.monotonic()`; no runner is silent before the gateway has begun."""
        elsewhere = self._elsewhere.get(run_id, self._began_at)
        return max(self._at.get(run_id, self._began_at), elsewhere)

    def is_silent(self, run_id: str) -> bool:
        """Whether a run that goes on has not been heard of for long."""
        return time.monotonic() - self.last(run_id) >= SILENT_S

    def forget(self, run_id: str) -> None:
        """Forget a run that is over."""
        self._at.pop(run_id, None)
        self._elsewhere.pop(run_id, None)


def _note(heard_at: dict[str, float], run_id: str) -> None:
    now = heard_at[run_id] = time.monotonic()
    if len(heard_at) > _MAX_RUNS:
        for other, at in list(heard_at.items()):
            if at < now - _REMEMBERED_S:
                heard_at.pop(other, None)
