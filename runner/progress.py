"""Tells how a run stands: the `progress` marker. Passive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Final

if TYPE_CHECKING:
    from kinds.profile import MessageStream

# The shortest time between two markers: each is a request.
_INTERVAL_S: Final = 5.0


class ProgressTeller:
    """Tells what has changed, now or when the time has come. `tell` gets the marker's fields."""

    def __init__(self, stream: MessageStream, tell: Callable[[dict[str, Any]], object]) -> None:
        self._stream = stream
        self._tell = tell
        self._told: dict[str, Any] = {}
        self._told_at = float("-inf")

    def due_at(self) -> float | None:
        """Return when `tick` has something to do, by the monotonic clock."""
        return self._told_at + _INTERVAL_S if self._stream.progress() != self._told else None

    def tick(self, now: float, *, is_last: bool = False) -> None:
        """Tell what has changed, if enough time has passed; at the end, at once."""
        progress = self._stream.progress()
        if progress != self._told and (is_last or now >= self._told_at + _INTERVAL_S):
            self._told, self._told_at = progress, now
            self._tell({"event": "progress", **progress})
