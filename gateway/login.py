"""Who may see the page and use the API: sessions of browsers, and the admin token for scripts.

A session has two halves. Browsers send a cookie to every port of a host, so another server there
gets the half that is a cookie. The other, the *page key*, is kept by the page in the storage of its
origin, which no other port can read, and sent as a header. Neither opens anything alone; the cookie
is enough to log out.
"""

from __future__ import annotations

import hmac
import logging
import math
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, NamedTuple

from gateway.admission import hash_token
from gateway.codes import AnyCodes, Codes, SharedCodes
from gateway.storage.store import Store
from gateway.windows import Windows

logger = logging.getLogger(__name__)

SESSION_LIFETIME_S = 30 * 86_400.0
LINK_LIFETIME_S = 60
# Wrong tokens from one address; more in the window are refused unseen.
MAX_FAILURES = 10
_FAILURE_WINDOW_S = 300.0
# Failures in the audit table, of all addresses together: whoever has many must not fill the disk.
# An hour of them has some 10 KB, 30 days of such hours 8 MB.
MAX_NOTED_FAILURES = 100
_NOTED_WINDOW_S = 3_600.0
LAST_NOTED = "more of this hour are not noted"
# For so long a session is believed without another look at the database.
_CACHE_S = 5.0
_MAX_CACHED_SESSIONS = 10_000


class TooManyFailuresError(Exception):
    """This address has guessed too often. `retry_after_s` says for how long it has to wait."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many wrong tokens; try again in {retry_after_s} seconds")
        self.retry_after_s = retry_after_s


class Session(NamedTuple):
    """The two halves of a session: what the cookie has, and what the page keeps."""

    cookie: str
    page_key: str


@dataclass(frozen=True)
class Credentials:
    """What a request shows of who sent it."""

    authorization: str
    cookies: str
    page_key: str

    @classmethod
    def of(cls, environ: Mapping[str, Any]) -> Credentials:
        """Return those of a WSGI request."""
        return cls(
            environ.get("HTTP_AUTHORIZATION", ""),
            environ.get("HTTP_COOKIE", ""),
            environ.get("HTTP_X_PAGE_KEY", ""),
        )


def find_cookie(cookies: str, name: str) -> str:
    """Return a cookie's value, empty if it is not there. Ours need no quotes and no escapes."""
    for pair in cookies.split(";"):
        found, _, value = pair.partition("=")
        if found.strip() == name:
            return value.strip()
    return ""


class Login:
    """The admin token, the one-time codes and the sessions. Thread: any."""

    def __init__(
        self,
        store: Store,
        admin_token: str,
        admin_token_file: Path,
        cookie_name: str,
        link_key: bytes | None = None,
    ) -> None:
        self._store = store
        self._admin_hash = hash_token(admin_token)
        self._admin_token_file = admin_token_file
        self._link_key = secrets.token_bytes(32) if link_key is None else link_key
        self._codes: AnyCodes = SharedCodes(store) if store.is_shared else Codes()
        self._failures = self._windows("guess", _FAILURE_WINDOW_S)
        self._noted_failures = self._windows("noted", _NOTED_WINDOW_S)
        self._lock = threading.Lock()
        self._believed_until: dict[bytes, float] = {}  # by the session's hash
        self._forgotten = 0  # counts how often it was emptied
        # Called when a session was ended here.
        self.when_ended: Callable[[], None] = lambda: None
        self.cookie_name = cookie_name

    def _windows(self, name: str, length_s: float) -> Callable[[str], tuple[int, float]]:
        """Return what counts one more of an address, here or in the database."""
        if not self._store.is_shared:
            return Windows(length_s).add
        return lambda address: self._store.count_failure(f"{name} {address}", length_s)

    def make_code(self, when_used: Callable[[], None] = lambda: None) -> str:
        """Return a code that lets one browser in, once, within ten minutes."""
        return self._codes.make(when_used)

    def use_code(self, code: str, address: str) -> Session | None:
        """Return a new session if the code is good. Raises: TooManyFailuresError."""
        is_good = self._codes.use(code, address)
        used = self._codes.find_used(code)
        if used is not None and not is_good and not used.is_told:
            self._codes.note_told(code)
            logger.warning(
                "a login link was opened by %s, but %s had used it before, at %s; if that was not "
                "you, end the gateway, remove %s and start it again: that ends every session",
                address,
                used.address,
                time.strftime("%H:%M:%S", time.localtime(used.at)),
                self._admin_token_file,
            )
        session = self._open(address, "code", is_good=is_good)
        if used is not None and session is not None:
            self._codes.note_browser(code, hash_token(session.cookie))
        return session

    def is_own_code(self, code: str, credentials: Credentials) -> bool:
        """Whether a used code is shown by the browser that it has let in."""
        used = self._codes.find_used(code)
        cookie_hash = hash_token(self._cookie(credentials))
        return used is not None and hmac.compare_digest(used.cookie_hash, cookie_hash)

    def use_admin_token(self, token: str, address: str) -> Session | None:
        """Return a new session if it is the admin token. Raises: TooManyFailuresError."""
        return self._open(address, "token", is_good=self._is_admin_token(token))

    def _open(self, address: str, actor: str, *, is_good: bool) -> Session | None:
        if not is_good:
            self._count_failure(address, actor, "login")
            return None
        cookie = secrets.token_urlsafe(32)
        self._store.add_session(hash_token(cookie), SESSION_LIFETIME_S)
        self._store.note(address, actor, "login")
        return Session(cookie, self._page_key(cookie))

    def _page_key(self, cookie: str) -> str:
        """Return the other half of a session. A new admin token makes all others void."""
        return _sign(self._admin_hash, "page key", cookie)

    def _cookie(self, credentials: Credentials) -> str:
        return find_cookie(credentials.cookies, self.cookie_name)

    def _count_failure(self, address: str, actor: str, action: str) -> None:
        """Note a wrong guess; after too many the next ones are not even told that they are wrong.

        Who has the right one is let in all the same: others behind the same address, or a page of
        somebody else's in the same browser, must not be able to lock the operator out.
        Raises: TooManyFailuresError.
        """
        count, left_s = self._failures(address)
        if count > MAX_FAILURES:
            raise TooManyFailuresError(math.ceil(left_s))
        noted, _ = self._noted_failures("from anywhere")
        if noted <= MAX_NOTED_FAILURES:
            detail = LAST_NOTED if noted == MAX_NOTED_FAILURES else None
            self._store.note(address, actor, action, detail=detail, succeeded=False)

    def close(self, credentials: Credentials) -> None:
        """End a session."""
        self._store.end_session(hash_token(self._cookie(credentials)))
        self.forget_sessions()
        self.when_ended()

    def forget_sessions(self) -> None:
        """Look for all sessions in the database again: some have ended."""
        with self._lock:
            self._forgotten += 1
            self._believed_until.clear()

    def has_cookie(self, credentials: Credentials) -> bool:
        """Whether a browser has the cookie of a session, which by itself opens nothing."""
        return self._is_session(self._cookie(credentials))

    def find_actor(self, credentials: Credentials, address: str) -> str | None:
        """Return `token` or `session`, by what the request shows; None for a stranger.

        Raises: TooManyFailuresError.
        """
        if credentials.authorization:
            scheme, _, token = credentials.authorization.partition(" ")
            if scheme.lower() == "bearer" and self._is_admin_token(token.strip()):
                return "token"
            self._count_failure(address, "token", "request")
            return None
        cookie = self._cookie(credentials)
        if not _is_same(self._page_key(cookie), credentials.page_key):
            return None
        return "session" if self._is_session(cookie) else None

    # --- links ---

    def make_link(self, credentials: Credentials, what: str) -> dict[str, str]:
        """Return the query of an address that a browser may follow for a minute, without the header
        that only the page can send. It is good for one thing, and with the cookie of the session.
        """
        until = str(int(time.time()) + LINK_LIFETIME_S)
        signature = _sign(self._link_key, self._cookie(credentials), until, what)
        return {"until": until, "signature": signature}

    def is_link(self, credentials: Credentials, what: str, query: Mapping[str, str]) -> bool:
        """Whether a request for something follows such an address, and its session still is one."""
        cookie, until = self._cookie(credentials), query.get("until", "")
        expected = _sign(self._link_key, cookie, until, what)
        if not _is_same(expected, query.get("signature", "")):
            return False
        return time.time() < int(until) and self._is_session(cookie)

    # --- tokens ---

    def _is_admin_token(self, token: str) -> bool:
        return hmac.compare_digest(hash_token(token), self._admin_hash)

    def _is_session(self, cookie: str) -> bool:
        if not cookie:
            return False
        digest = hash_token(cookie)
        now = time.monotonic()
        with self._lock:
            if self._believed_until.get(digest, 0.0) > now:
                return True
            forgotten = self._forgotten
        if not self._store.has_session(digest):
            return False
        with self._lock:
            if len(self._believed_until) >= _MAX_CACHED_SESSIONS:
                self._believed_until.clear()
            # What was found before another one ended must not be believed after it.
            if forgotten == self._forgotten:
                self._believed_until[digest] = now + _CACHE_S
        return True


def _sign(key: bytes, *fields: str) -> str:
    text = "\n".join(fields).encode("utf-8", "surrogateescape")
    return hmac.digest(key, text, "sha256").hex()


def _is_same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogateescape"))
