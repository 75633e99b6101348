"""Who may see the page and use the API: sessions of browsers, and the admin token for scripts."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Mapping

from gateway.admission import hash_token
from gateway.store import Store

SESSION_LIFETIME_S = 30 * 86_400.0
CODE_LIFETIME_S = 600.0
# Wrong tokens from one address; more in the window are refused unseen.
MAX_FAILURES = 10
FAILURE_WINDOW_S = 300.0
_MAX_ADDRESSES = 10_000
# For so long a session is believed without another look at the database.
_CACHE_S = 5.0


class TooManyFailuresError(Exception):
    """This address has guessed too often. `retry_after_s` says for how long it has to wait."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many wrong tokens; try again in {retry_after_s} seconds")
        self.retry_after_s = retry_after_s


class Failures:
    """Wrong guesses by address. Thread: any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: dict[str, tuple[float, int]] = {}

    def check(self, address: str) -> None:
        """Raise TooManyFailuresError if this address must not guess now."""
        now = time.monotonic()
        with self._lock:
            began, count = self._windows.get(address, (now, 0))
        if count >= MAX_FAILURES and now - began < FAILURE_WINDOW_S:
            raise TooManyFailuresError(int(began + FAILURE_WINDOW_S - now) + 1)

    def add(self, address: str) -> None:
        """Count a wrong guess."""
        now = time.monotonic()
        with self._lock:
            if len(self._windows) >= _MAX_ADDRESSES:
                fresh = self._windows.items()
                self._windows = {a: w for a, w in fresh if now - w[0] < FAILURE_WINDOW_S}
            began, count = self._windows.get(address, (now, 0))
            if now - began >= FAILURE_WINDOW_S:
                began, count = now, 0
            self._windows[address] = (began, count + 1)


class Login:
    """The admin token, the one-time codes and the sessions. Thread: any."""

    def __init__(self, store: Store, admin_token: str, cookie_name: str) -> None:
        self._store = store
        self._admin_hash = hash_token(admin_token)
        self._codes: dict[bytes, float] = {}
        self._known: dict[bytes, float] = {}
        self._failures = Failures()
        self._lock = threading.Lock()
        self.cookie_name = cookie_name

    def make_code(self) -> str:
        """Return a code that lets one browser in, once, within ten minutes."""
        code = secrets.token_urlsafe(24)
        with self._lock:
            self._codes[hash_token(code)] = time.monotonic() + CODE_LIFETIME_S
        return code

    def use_code(self, code: str, address: str) -> str | None:
        """Return a new session's token if the code is good. Raises: TooManyFailuresError."""
        with self._lock:
            good_until = self._codes.pop(hash_token(code), 0.0)
        return self._open(address, is_good=time.monotonic() < good_until)

    def use_admin_token(self, token: str, address: str) -> str | None:
        """Return a new session's token if it is the admin token. Raises: TooManyFailuresError."""
        return self._open(address, is_good=self._is_admin_token(token))

    def _open(self, address: str, *, is_good: bool) -> str | None:
        if not is_good:
            self._count_failure(address)
            return None
        session = secrets.token_urlsafe(32)
        self._store.add_session(hash_token(session), SESSION_LIFETIME_S)
        return session

    def _count_failure(self, address: str) -> None:
        """Note a wrong guess; after too many the next ones are not even told that they are wrong.

        Who has the right one is let in all the same: others behind the same address, or a page of
        somebody else's in the same browser, must not be able to lock the operator out.
        """
        self._failures.check(address)
        self._failures.add(address)

    def close(self, session: str) -> None:
        """End a session."""
        digest = hash_token(session)
        with self._lock:
            self._known.pop(digest, None)
        self._store.end_session(digest)

    def find_actor(
        self, authorization: str, cookies: Mapping[str, str], address: str
    ) -> str | None:
        """Return `token` or `session`, by what the request shows; None for a stranger.

        Raises: TooManyFailuresError.
        """
        if authorization:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() == "bearer" and self._is_admin_token(token.strip()):
                return "token"
            self._count_failure(address)
            return None
        session = cookies.get(self.cookie_name, "")
        return "session" if session and self._is_session(hash_token(session)) else None

    def _is_admin_token(self, token: str) -> bool:
        return hmac.compare_digest(hash_token(token), self._admin_hash)

    def _is_session(self, digest: bytes) -> bool:
        now = time.monotonic()
        with self._lock:
            if self._known.get(digest, 0.0) > now:
                return True
        if not self._store.has_session(digest):
            return False
        with self._lock:
            if len(self._known) > _MAX_ADDRESSES:
                self._known.clear()
            self._known[digest] = now + _CACHE_S
        return True
