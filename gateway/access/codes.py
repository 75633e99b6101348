"""Codes that let one browser in, once, within ten minutes: in memory, or in the database."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, replace
from typing import Callable, Protocol

from gateway.admission import hash_token
from gateway.storage.store import Store, UsedCode

CODE_LIFETIME_S = 600.0
# Used codes that are known again when somebody else comes with one.
_MAX_USED_CODES = 1_000


class AnyCodes(Protocol):
    """What a login needs of codes. Thread: any."""

    def make(self, when_used: Callable[[], None] = ..., person_id: str | None = ...) -> str:
        """Return a new code for a person. `when_used` is called if it is used at this gateway."""

    def use(self, code: str, address: str = ...) -> bool:
        """Whether it was good; it is not any more."""

    def find_used(self, code: str) -> UsedCode | None:
        """Return who was let in by a code."""

    def note_browser(self, code: str, cookie_hash: bytes) -> None:
        """Take note of the session that a used code has opened."""

    def note_told(self, code: str) -> None:
        """Note that the second use of a code was told."""


@dataclass(frozen=True)
class _Good:
    until: float
    when_used: Callable[[], None]
    person_id: str | None


class Codes:
    """Codes in memory, of a gateway that is alone. Its length is how many may still be used."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # By the code's hash.
        self._good: dict[bytes, _Good] = {}
        self._used: dict[bytes, UsedCode] = {}

    def __len__(self) -> int:
        with self._lock:
            self._drop_old()
            return len(self._good)

    def make(
        self, when_used: Callable[[], None] = lambda: None, person_id: str | None = None
    ) -> str:
        """Return a new code."""
        code = secrets.token_urlsafe(24)
        good = _Good(self._clock() + CODE_LIFETIME_S, when_used, person_id)
        with self._lock:
            self._drop_old()
            self._good[hash_token(code)] = good
        return code

    def use(self, code: str, address: str = "") -> bool:
        """Whether it was good; it is not any more."""
        digest = hash_token(code)
        with self._lock:
            self._drop_old()
            found = self._good.pop(digest, None)
            if found is None:
                return False
            self._used[digest] = UsedCode(address, time.time(), person=found.person_id)
            while len(self._used) > _MAX_USED_CODES:
                del self._used[next(iter(self._used))]
        found.when_used()
        return True

    def find_used(self, code: str) -> UsedCode | None:
        """Return who was let in by a code."""
        with self._lock:
            return self._used.get(hash_token(code))

    def note_browser(self, code: str, cookie_hash: bytes) -> None:
        """Take note of the session that a used code has opened."""
        digest = hash_token(code)
        with self._lock:
            if digest in self._used:
                self._used[digest] = replace(self._used[digest], cookie_hash=cookie_hash)

    def note_told(self, code: str) -> None:
        """Note that the second use of a code was told."""
        digest = hash_token(code)
        with self._lock:
            if digest in self._used:
                self._used[digest] = replace(self._used[digest], is_told=True)

    def _drop_old(self) -> None:
        now = self._clock()
        self._good = {code: found for code, found in self._good.items() if now < found.until}


class SharedCodes:
    """Codes in the database: another gateway may have made a code, or taken it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._made: dict[bytes, _Good] = {}

    def make(
        self, when_used: Callable[[], None] = lambda: None, person_id: str | None = None
    ) -> str:
        """Return a new code."""
        code, until = secrets.token_urlsafe(24), time.time() + CODE_LIFETIME_S
        self._store.add_code(hash_token(code), until, person_id)
        with self._lock:
            now = time.time()
            self._made = {each: good for each, good in self._made.items() if now < good.until}
            self._made[hash_token(code)] = _Good(until, when_used, person_id)
        return code

    def use(self, code: str, address: str = "") -> bool:
        """Whether it was good; it is not any more."""
        if not self._store.use_code(hash_token(code), address):
            return False
        with self._lock:
            made = self._made.pop(hash_token(code), None)
        if made is not None:
            made.when_used()
        return True

    def find_used(self, code: str) -> UsedCode | None:
        """Return who was let in by a code."""
        return self._store.find_used_code(hash_token(code))

    def note_browser(self, code: str, cookie_hash: bytes) -> None:
        """Take note of the session that a used code has opened."""
        self._store.change_code(hash_token(code), cookie_hash=cookie_hash)

    def note_told(self, code: str) -> None:
        """Note that the second use of a code was told."""
        self._store.change_code(hash_token(code), is_told=True)
