"""What delivery has cost a run: what `-vv` tells at its end."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

# Requests that are known again when they are repeated.
_REMEMBERED: Final = 1_000


class DeliveryCost:
    """Counts the requests of all clients of a run. Thread: any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = self._bytes = self._repeats = 0
        self._longest_s = 0.0
        self._nonces: deque[str] = deque(maxlen=_REMEMBERED)

    def note(self, nonce: str, body_bytes: int, took_s: float, *, waits: bool) -> None:
        """Count a request; one that `waits` for a command takes long by itself."""
        with self._lock:
            self._requests += 1
            self._bytes += body_bytes
            if nonce and nonce in self._nonces:
                self._repeats += 1
            else:
                self._nonces.append(nonce)
            if not waits:
                self._longest_s = max(self._longest_s, took_s)

    def __str__(self) -> str:
        with self._lock:
            return (
                f"{self._requests} requests with {self._bytes} bytes, {self._repeats} of them "
                f"repeated; the longest took {self._longest_s:.1f} s"
            )
