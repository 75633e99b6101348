"""Who may see the page and use the API: sessions of browsers, and the admin token for scripts."""

from __future__ import annotations

import hmac
import math
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Callable

from gateway.admission import hash_token
from gateway.store import Store
from gateway.windows import Windows

SESSION_LIFETIME_S = 30 * 86_400.0
CODE_LIFETIME_S = 600.0
# Wrong tokens from one address; more in the window are refused unseen.
MAX_FAILURES = 10
FAILURE_WINDOW_S = 300.0
# Failures in the audit table, of all addresses together: whoever has many must not fill the disk.
# An hour of them has some 10 KB, 30 days of such hours 8 MB.
MAX_NOTED_FAILURES = 100
NOTED_WINDOW_S = 3_600.0
LAST_NOTED = "more of this hour are not noted"
# For so long a session is believed without another look at the database.
_CACHE_S = 5.0
_MAX_CACHED_SESSIONS = 10_000


class TooManyFailuresError(Exception):
    """This address has guessed too often. `retry_after_s` says for how long it has to wait."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many wrong tokens; try again in {retry_after_s} seconds")
        self.retry_after_s = retry_after_s


class Codes:
    """Codes that let one browser in, once, within ten minutes. Its length is how many may still be
    used. Thread: any.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._good_until: dict[bytes, float] = {}  # by the code's hash

    def __len__(self) -> int:
        with self._lock:
            self._drop_old()
            return len(self._good_until)

    def make(self) -> str:
        """Return a new code."""
        code = secrets.token_urlsafe(24)
        with self._lock:
            self._drop_old()
            self._good_until[hash_token(code)] = self._clock() + CODE_LIFETIME_S
        return code

    def use(self, code: str) -> bool:
        """Whether it was good; it is not any more."""
        with self._lock:
            self._drop_old()
            return self._good_until.pop(hash_token(code), None) is not None

    def _drop_old(self) -> None:
        now = self._clock()
        self._good_until = {code: at for code, at in self._good_until.items() if now < at}


class Login:
    """The admin token, the one-time codes and the sessions. Thread: any."""

    def __init__(self, store: Store, admin_token: str, cookie_name: str) -> None:
        self._store = store
        self._admin_hash = hash_token(admin_token)
        self._codes = Codes()
        self._failures = Windows(FAILURE_WINDOW_S)
        self._noted_failures = Windows(NOTED_WINDOW_S)
        self._lock = threading.Lock()
        self._believed_until: dict[bytes, float] = {}  # by the session's hash
        self.cookie_name = cookie_name

    def make_code(self) -> str:
        """Return a code that lets one browser in, once, within ten minutes."""
        return self._codes.make()

    def use_code(self, code: str, address: str) -> str | None:
        """Return a new session's token if the code is good. Raises: TooManyFailuresError."""
        return self._open(address, "code", is_good=self._codes.use(code))

    def use_admin_token(self, token: str, address: str) -> str | None:
        """Return a new session's token if it is the admin token. Raises: TooManyFailuresError."""
        return self._open(address, "token", is_good=self._is_admin_token(token))

    def _open(self, address: str, actor: str, *, is_good: bool) -> str | None:
        if not is_good:
            self._count_failure(address, actor, "login")
            return None
        session = secrets.token_urlsafe(32)
        self._store.add_session(hash_token(session), SESSION_LIFETIME_S)
        self._store.note(address, actor, "login")
        return session

    def _count_failure(self, address: str, actor: str, action: str) -> None:
        """Note a wrong guess; after too many the next ones are not even told that they are wrong.

        Who has the right one is let in all the same: others behind the same address, or a page of
        somebody else's in the same browser, must not be able to lock the operator out.
        Raises: TooManyFailuresError.
        """
        count, left_s = self._failures.add(address)
        if count > MAX_FAILURES:
            raise TooManyFailuresError(math.ceil(left_s))
        noted, _ = self._noted_failures.add("from anywhere")
        if noted <= MAX_NOTED_FAILURES:
            detail = LAST_NOTED if noted == MAX_NOTED_FAILURES else None
            self._store.note(address, actor, action, detail=detail, succeeded=False)

    def close(self, session: str) -> None:
        """End a session."""
        digest = hash_token(session)
        self._store.end_session(digest)
        with self._lock:
            self._believed_until.pop(digest, None)

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
            self._count_failure(address, "token", "request")
            return None
        session = cookies.get(self.cookie_name, "")
        return "session" if session and self._is_session(hash_token(session)) else None

    def _is_admin_token(self, token: str) -> bool:
        return hmac.compare_digest(hash_token(token), self._admin_hash)

    def _is_session(self, digest: bytes) -> bool:
        now = time.monotonic()
        with self._lock:
            if self._believed_until.get(digest, 0.0) > now:
                return True
        if not self._store.has_session(digest):
            return False
        with self._lock:
            if len(self._believed_until) >= _MAX_CACHED_SESSIONS:
                self._believed_until.clear()
            self._believed_until[digest] = now + _CACHE_S
        return True
