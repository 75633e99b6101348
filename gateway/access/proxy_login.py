"""Signing in by the word of a trusted proxy, such as oauth2-proxy: a name and groups in headers.

They count only in what a trusted proxy itself has sent (`gateway.is_proxied`). From anywhere else
they are somebody's attempt, and refused.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from gateway.roles import MAX_FOLDERS, MAX_PATTERN, NAME, ROLES, Person

logger = logging.getLogger(__name__)

_HEADER: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,99}")
# Some have slashes in their names.
_GROUP: Final = re.compile(r"@[^\s,]{1,200}")
# A request of the proxy is asked anew so often, also where a stream stays open.
ASKED_AGAIN_S: Final = 300.0
# Attempts that are logged; so many in the time.
_LOGGED_S: Final = 60.0


class ProxyLoginError(Exception):
    """A request names a person, and is not believed; the message is one plain sentence."""


class Named(NamedTuple):
    """Whom a proxy names, in which groups, and until when it is believed."""

    name: str
    groups: tuple[str, ...]
    until: float


class Rule(NamedTuple):
    """A role, whom it is for (a name, `@` with a group, or `*`), and what of the runs is seen."""

    person: Person
    who: str


def header_key(text: str) -> str:
    """Return a header's name as WSGI has it. Raises: ValueError."""
    if text and not _HEADER.fullmatch(text):
        raise ValueError(text)
    return f"HTTP_{text.upper().replace('-', '_')}"


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Read rules such as `admin=ann@example.org operator:own=@dev viewer:/srv/shop*=*`.

    Raises: ValueError.
    """
    rules = []
    for word in text.split():
        what, _, who = word.rpartition("=")
        role, *bounds = what.split(":")
        folders = tuple(each for each in bounds if each != "own")
        is_name = who == "*" or _GROUP.fullmatch(who) or NAME.fullmatch(who)
        if role not in ROLES or not is_name or (bounds and role == "admin"):
            raise ValueError(word)
        if (
            "" in bounds
            or len(folders) > MAX_FOLDERS
            or max(map(len, bounds), default=0) > MAX_PATTERN
        ):
            raise ValueError(word)
        rules.append(Rule(Person("", ROLES[role], "proxy", "own" in bounds, folders), who))
    return tuple(rules)


class ProxyLogin:
    """Reads the headers, and knows the roles. Thread: any."""

    def __init__(self, user_header: str, groups_header: str, rules: Sequence[Rule]) -> None:
        # They may stand in a request once.
        self.headers = frozenset(filter(None, (user_header, groups_header)))
        self._user_key = header_key(user_header)
        self._groups_key = header_key(groups_header) if groups_header else ""
        self._rules = tuple(rules)
        self._lock = threading.Lock()
        self._logged_at = float("-inf")

    def read(self, environ: Mapping[str, Any]) -> Named | None:
        """Return the person whom a request names, if any. Raises: ProxyLoginError."""
        name, groups = environ.get(self._user_key), environ.get(self._groups_key)
        if not environ.get("gateway.is_proxied"):
            if name is None and groups is None:
                return None
            self._log(environ.get("REMOTE_ADDR", ""))
            raise ProxyLoginError(
                "This request says who is signed in, and does not come from a trusted proxy."
            )
        if not name:
            return None
        if not NAME.fullmatch(name):
            raise ProxyLoginError(
                "The proxy sends a name that is not of letters, digits and . _ @ + - alone."
            )
        # All of them: one that was left out might be the one whose rule gives less.
        listed = [each.strip() for each in (groups or "").split(",")]
        return Named(name, tuple(filter(None, listed)), time.time() + ASKED_AGAIN_S)

    def find(self, named: Named) -> Person:
        """Return a person with the role of the first rule that fits. Raises: ProxyLoginError."""
        fitting = {"*", named.name, *(f"@{group}" for group in named.groups)}
        for rule in self._rules:
            if rule.who in fitting:
                return replace(rule.person, name=named.name, until=named.until)
        raise ProxyLoginError(f"{named.name} is signed in, and has no role at this gateway.")

    def _log(self, address: str) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._logged_at < _LOGGED_S:
                return
            self._logged_at = now
        logger.warning(
            "a request from %s named who is signed in, which only a trusted proxy may; it was "
            "refused. If that is your proxy, add it to CLAUDE_RUNNER_GATEWAY_TRUSTED_PROXIES",
            address,
        )
