"""Whether a balancer should send requests here: what the gateway needs is there, and it stays.

Each check has a thread of its own, so that one that hangs holds up neither the others nor more than
a moment of a request. Thread: any.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping
from typing import Callable

logger = logging.getLogger(__name__)

# An answer may be as old as this, and a check may take as long as that: together less than the two
# seconds that balancers wait.
FRESH_S = 0.5
LIMIT_S = 1.0
# Of what is only told: each look at an object store is a request that is paid for.
TOLD_FRESH_S = 10.0

# Raises if what it looks at is away. May block.
Check = Callable[[], None]


class Health:
    """What is asked by probes: which of the parts are away. What is `told` alone is no reason to
    send requests elsewhere: it is away for every gateway, and most requests do without it.
    """

    def __init__(self, checks: Mapping[str, Check], told: Collection[str] = ()) -> None:
        self.is_draining = False
        self._told = frozenset(told)
        self._parts = {
            name: _Part(name, check, TOLD_FRESH_S if name in told else FRESH_S)
            for name, check in checks.items()
        }

    def start(self) -> None:
        """Begin."""
        for part in self._parts.values():
            part.start()

    def close(self) -> None:
        """End; a check that hangs is left behind."""
        for part in self._parts.values():
            part.close()

    def away(self) -> list[str]:
        """Return the names of what is away, or does not answer. Blocks for LIMIT_S at most."""
        for part in self._parts.values():
            part.begin()  # all at once
        until = time.monotonic() + LIMIT_S
        return [name for name, part in self._parts.items() if not part.is_there(until)]

    def is_needed(self, away: list[str]) -> bool:
        """Whether requests should go elsewhere because these are away."""
        return not self._told.issuperset(away)


class _Part:
    """One check, done when somebody asks, by one thread for all who ask meanwhile."""

    def __init__(self, name: str, check: Check, fresh_s: float) -> None:
        self._name = name
        self._check = check
        self._fresh_s = fresh_s
        self._state = threading.Condition()
        self._is_wanted = self._is_ending = False
        self._began_at = float("-inf")  # of the last check, whether it has ended or not
        self._is_over = True
        self._is_there = True
        self._thread = threading.Thread(target=self._run, name=f"gateway-health-{name}")
        self._thread.daemon = True

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        with self._state:
            self._is_ending = True
            self._state.notify_all()
        self._thread.join(LIMIT_S)

    def begin(self) -> None:
        with self._state:
            if self._is_over and time.monotonic() - self._began_at >= self._fresh_s:
                self._is_wanted, self._is_over = True, False
                self._began_at = time.monotonic()
                self._state.notify_all()

    def is_there(self, until: float) -> bool:
        with self._state:
            # Who comes to a check that hangs does not wait for it anew.
            until = min(until, self._began_at + LIMIT_S)
            self._state.wait_for(lambda: self._is_over, max(0.0, until - time.monotonic()))
            return self._is_over and self._is_there

    def _run(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._is_wanted or self._is_ending)
                if self._is_ending:
                    return
                self._is_wanted = False
            is_there = self._try()
            with self._state:
                self._is_over, self._is_there = True, is_there
                self._state.notify_all()

    def _try(self) -> bool:
        try:
            self._check()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is away
            if self._is_there:
                # Not what it says: a driver may quote an address with its password.
                logger.warning("health: %s away (%s)", self._name, type(error).__name__)
            return False
        if not self._is_there:
            logger.warning("health: %s back", self._name)
        return True
