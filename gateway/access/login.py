"""Who sends a request: by a session of a browser, by a token, or by the word of a trusted proxy.

The admin token is one person's, who has no name; others have a token of their own, which says their
name. What each may do is asked of `gate`.

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, NamedTuple

from gateway.access.codes import AnyCodes, Codes, SharedCodes
from gateway.access.proxy_login import Named, ProxyLogin
from gateway.admission import hash_token
from gateway.roles import ADMIN, Person
from gateway.storage.store import Store
from gateway.windows import Windows

logger = logging.getLogger(__name__)

SESSION_LIFETIME_S = 30 * 86_400.0
LINK_LIFETIME_S = 60
# Wrong tokens from one address; more in the window are refused unseen.
MAX_FAILURES = 10
_FAILURE_WINDOW_S = 300.0
# Failures in the audit table, of all addresses together: many addresses must not fill the disk.
# An hour of them has some 10 KB, 30 days of such hours 8 MB.
MAX_NOTED_FAILURES = 100
_NOTED_WINDOW_S = 3_600.0
LAST_NOTED = "more of this hour are not noted"
# For so long a session or a token is believed without another look at the database.
_CACHE_S = 5.0
_MAX_BELIEVED = 10_000


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
    """What a request shows of who sent it; `named` is what a proxy in front says."""

    authorization: str
    cookies: str
    page_key: str
    named: Named | None = None


def find_cookie(cookies: str, name: str) -> str:
    """Return a cookie's value, empty if it is not there. Ours need no quotes and no escapes."""
    for pair in cookies.split(";"):
        found, _, value = pair.partition("=")
        if found.strip() == name:
            return value.strip()
    return ""


class Login:
    """The tokens, the one-time codes and the sessions. Thread: any."""

    def __init__(
        self,
        store: Store,
        admin_token: str,
        admin_token_file: Path,
        cookie_name: str,
        link_key: bytes | None = None,
        proxy: ProxyLogin | None = None,
    ) -> None:
        self._store = store
        self._people = store.people
        self._admin_hash = hash_token(admin_token)
        self._admin_token_file = admin_token_file
        self._link_key = secrets.token_bytes(32) if link_key is None else link_key
        self._proxy = proxy
        self._codes: AnyCodes = SharedCodes(store) if store.is_shared else Codes()
        self._failures = self._windows("guess", _FAILURE_WINDOW_S)
        self._noted_failures = self._windows("noted", _NOTED_WINDOW_S)
        self._lock = threading.Lock()
        # By the hash of a cookie or a token: who it is, and until when that is believed.
        self._believed: dict[bytes, tuple[Person, float]] = {}
        self._changes = 0
        self._mark: str | None = None
        self.cookie_name = cookie_name
        # Called when somebody has lost a session or a token here.
        self.when_lost: Callable[[], None] = lambda: None

    def credentials(self, environ: Mapping[str, Any]) -> Credentials:
        """Return what a WSGI request shows. Raises: ProxyLoginError."""
        return Credentials(
            environ.get("HTTP_AUTHORIZATION", ""),
            environ.get("HTTP_COOKIE", ""),
            environ.get("HTTP_X_PAGE_KEY", ""),
            None if self._proxy is None else self._proxy.read(environ),
        )

    def _windows(self, name: str, length_s: float) -> Callable[[str], tuple[int, float]]:
        """Return what counts one more of an address, here or in the database."""
        if not self._store.is_shared:
            return Windows(length_s).add
        return lambda address: self._store.count_failure(f"{name} {address}", length_s)

    def make_code(
        self, when_used: Callable[[], None] = lambda: None, person: Person = ADMIN
    ) -> str:
        """Return a code that lets one browser in, once, within ten minutes, as this person."""
        return self._codes.make(when_used, person.id)

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
        person = self._people.by_id(used.person) if used is not None and is_good else None
        session = self._open(address, "code", person)
        if used is not None and session is not None:
            self._codes.note_browser(code, hash_token(session.cookie))
        return session

    def is_own_code(self, code: str, credentials: Credentials) -> bool:
        """Whether a used code is shown by the browser that it has let in."""
        used = self._codes.find_used(code)
        cookie_hash = hash_token(self._cookie(credentials))
        return used is not None and hmac.compare_digest(used.cookie_hash, cookie_hash)

    def use_token(self, token: str, address: str) -> Session | None:
        """Return a new session if the token is a person's. Raises: TooManyFailuresError."""
        return self._open(address, "token", self._of_token(token))

    def _open(self, address: str, actor: str, person: Person | None) -> Session | None:
        """Return a new session, with a new cookie."""
        if person is None or person.until <= time.time():
            self._count_failure(address, actor, "login")
            return None
        cookie = secrets.token_urlsafe(32)
        lifetime_s = min(SESSION_LIFETIME_S, person.until - time.time())
        self._people.add_session(hash_token(cookie), lifetime_s, person.id)
        self._store.note(address, actor, "login", person=person.name)
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

    def close(self, credentials: Credentials) -> Person | None:
        """End a session; return whose it was."""
        digest = hash_token(self._cookie(credentials))
        person = self._people.of_session(digest)
        if self._people.end_session(digest):
            self._tell_lost()
        return person

    def close_all(self, person: Person) -> int:
        """End all sessions of a person; return how many there were."""
        ended = self._people.end_sessions_of(person.id)
        if ended:
            self._tell_lost()
        return ended

    def remove(self, name: str) -> bool:
        """Remove a person; False if there is no such name."""
        is_known = self._people.remove(name)
        self._tell_lost()
        return is_known

    def _tell_lost(self) -> None:
        self.forget_believed()
        self.when_lost()

    def forget_believed(self) -> None:
        """Look in the database again for everybody."""
        with self._lock:
            self._changes += 1
            self._believed.clear()

    def is_news(self) -> bool:
        """Whether a person may have lost a session or a token at another gateway."""
        before, self._mark = self._mark, self._people.mark()
        return before != self._mark

    def has_cookie(self, credentials: Credentials) -> bool:
        """Whether a browser has the cookie of a session, which by itself opens nothing."""
        return self._of_cookie(self._cookie(credentials)) is not None

    def find_person(self, credentials: Credentials, address: str) -> Person | None:
        """Return who sent a request; None for a stranger.

        Raises: TooManyFailuresError, ProxyLoginError.
        """
        person = self.known_person(credentials)
        if person is None and credentials.authorization and credentials.named is None:
            self._count_failure(address, "token", "request")
        return person

    def known_person(self, credentials: Credentials) -> Person | None:
        """Return who shows these, as `find_person` does, and count no wrong guess: of a stream that
        was let in. Raises: ProxyLoginError.
        """
        if credentials.named is not None and self._proxy is not None:
            return self._proxy.find(credentials.named)
        if credentials.authorization:
            scheme, _, token = credentials.authorization.partition(" ")
            return self._of_token(token.strip()) if scheme.lower() == "bearer" else None
        cookie = self._cookie(credentials)
        if not _is_same(self._page_key(cookie), credentials.page_key):
            return None
        return self._of_cookie(cookie)

    # --- links ---

    def make_link(self, credentials: Credentials, what: str) -> dict[str, str]:
        """Return the query of an address that a browser may follow for a minute, without the header
        that only the page can send. It is good for one thing, and with the cookie of the session.
        """
        until = str(int(time.time()) + LINK_LIFETIME_S)
        signature = _sign(self._link_key, self._holder(credentials), until, what)
        return {"until": until, "signature": signature}

    def follow_link(
        self, credentials: Credentials, what: str, query: Mapping[str, str]
    ) -> Person | None:
        """Return who follows such an address, if it is theirs and not too old.

        Raises: ProxyLoginError.
        """
        until = query.get("until", "")
        expected = _sign(self._link_key, self._holder(credentials), until, what)
        is_good = _is_same(expected, query.get("signature", ""))
        if not is_good or time.time() >= int(until):
            return None
        if credentials.named is not None and self._proxy is not None:
            return self._proxy.find(credentials.named)
        return self._of_cookie(self._cookie(credentials))

    def _holder(self, credentials: Credentials) -> str:
        """Return what a link is good with: a session's cookie, or a name that a proxy vouches for,
        which no cookie looks like.
        """
        named = credentials.named
        return self._cookie(credentials) if named is None else f"proxy {named.name}"

    # --- tokens ---

    def _of_token(self, token: str) -> Person | None:
        digest = hash_token(token)
        if hmac.compare_digest(digest, self._admin_hash):
            return replace(ADMIN, how="token")
        return self._look_up(digest, "token", self._people.by_token)

    def _of_cookie(self, cookie: str) -> Person | None:
        if not cookie:
            return None
        return self._look_up(hash_token(cookie), "session", self._people.of_session)

    def _look_up(
        self, digest: bytes, how: str, find: Callable[[bytes], Person | None]
    ) -> Person | None:
        """Return whose token or cookie has this hash. Who is not known is looked for each time."""
        now = time.monotonic()
        with self._lock:
            person, until = self._believed.get(digest, (None, 0.0))
            changes = self._changes
        if person is None or until <= now:
            found = find(digest)
            if found is None:
                return None
            person = replace(found, how=how)
            with self._lock:
                if len(self._believed) >= _MAX_BELIEVED:
                    self._believed.clear()
                # What was read before a change must not be believed after it.
                if changes == self._changes:
                    self._believed[digest] = person, now + _CACHE_S
        return person if person.until > time.time() else None


def _sign(key: bytes, *fields: str) -> str:
    text = "\n".join(fields).encode("utf-8", "surrogateescape")
    return hmac.digest(key, text, "sha256").hex()


def _is_same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogateescape"))
