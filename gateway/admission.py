"""Who may speak on the wire: the rate limit, the signature, the clock, the nonce and the token.

The checks have the order of the protocol. `Admission` knows nothing of HTTP: it gets texts and
hashes, and raises `RefusedError` with the words that a runner expects.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Callable

from gateway.windows import Windows

MAX_SKEW_S = 300
NONCE_MEMORY_S = 600
# A window of nonces is forgotten as a whole, so that forgetting costs nothing.
_NONCE_WINDOW_S = 60
_RATE_WINDOW_S = 60

_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class RefusedError(Exception):
    """A request that is not accepted. `error` are the words of the protocol."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


def replayed() -> RefusedError:
    """Return the refusal of a nonce that has been used."""
    return RefusedError(401, "Nonce already used (replay attack detected)")


class RateLimit:
    """So many requests of one address in 60 s. Thread: any.

    `is_exempt` is true of proxies that are trusted: what names nobody behind them is their own.
    """

    def __init__(
        self, limit: int, is_exempt: Callable[[str], bool] = lambda _address: False
    ) -> None:
        self._limit = limit  # 0 for none
        self._is_exempt = is_exempt
        self._windows = Windows(_RATE_WINDOW_S)

    def take(self, address: str) -> tuple[bool, dict[str, str]]:
        """Count one request; return whether it is within the limit, and the reply's headers."""
        if not self._limit or self._is_exempt(address):
            return True, {}
        count, left_s = self._windows.add(address)
        headers = {
            "x-ratelimit-limit": str(self._limit),
            "x-ratelimit-remaining": str(max(0, self._limit - count)),
            "x-ratelimit-reset": str(math.ceil(left_s)),
        }
        if count > self._limit:
            headers["retry-after"] = headers["x-ratelimit-reset"]
        return count <= self._limit, headers


class Nonces:
    """The nonces of the last 600 s, as 63-bit digests: two that are alike by chance are one in
    10^13 among the 600,000 of ten busy minutes. Thread: any.
    """

    def __init__(self, known: Iterable[tuple[int, float]] = ()) -> None:
        self._lock = threading.Lock()
        self._windows: dict[int, set[int]] = {}
        for digest, used_at in known:
            self._windows.setdefault(int(used_at // _NONCE_WINDOW_S), set()).add(digest)

    @staticmethod
    def digest(nonce: str) -> int:
        """Return what is remembered of a nonce."""
        digest = hashlib.sha256(nonce.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def count(self) -> int:
        """Return how many are remembered."""
        with self._lock:
            return sum(map(len, self._windows.values()))

    def is_known(self, digest: int) -> bool:
        """Whether it has been used."""
        with self._lock:
            return any(digest in window for window in self._windows.values())

    def give_back(self, digest: int) -> None:
        """Forget it, so that the same request may come again."""
        with self._lock:
            for window in self._windows.values():
                window.discard(digest)

    def use(self, digest: int, now: float) -> bool:
        """Remember it; False if somebody else was faster."""
        number = int(now // _NONCE_WINDOW_S)
        with self._lock:
            if any(digest in window for window in self._windows.values()):
                return False
            if number not in self._windows:
                oldest = number - NONCE_MEMORY_S // _NONCE_WINDOW_S - 1
                self._windows = {n: w for n, w in self._windows.items() if n >= oldest}
            self._windows.setdefault(number, set()).add(digest)
            return True


class SharedNonces(Nonces):
    """The nonces that the database has from here, where it has the last word: it knows those of
    other processes too, and none of a request that it has not stored.

    A copy that comes while the first one waits for the database is no replay: the first may fail.
    """

    def use(self, digest: int, now: float) -> bool:
        """Whether it may be fresh."""
        del now
        return not self.is_known(digest)

    def spent(self, nonces: Iterable[tuple[int, float]]) -> None:
        """Remember nonces that are on disk."""
        for digest, used_at in nonces:
            super().use(digest, used_at)


@dataclass(frozen=True)
class Claim:
    """What a request says about itself. `path` is without the query; absent headers are empty."""

    method: str
    path: str
    body_hash: str
    timestamp: str
    nonce: str
    signature: str
    run_id: str
    token: str


@dataclass(frozen=True)
class Admitted:
    """A request that has passed. `run_id` is empty if it named no run."""

    run_id: str
    nonce_digest: int
    at: float


class Admission:
    """The gateway's secret, and which nonces and tokens it has seen. Thread: any."""

    def __init__(
        self, secret: str, nonces: Nonces, find_token_hash: Callable[[str], bytes | None]
    ) -> None:
        self._key = hmac.new(secret.encode(), digestmod=hashlib.sha256)
        self._nonces = nonces
        self._find_token_hash = find_token_hash

    def admit(self, claim: Claim) -> Admitted:
        """Check a request and spend its nonce. Raises: RefusedError, with the nonce unspent."""
        return self._admit(claim, self._is_token)

    def admit_waiter(self, claim: Claim) -> Admitted:
        """The same for a folder that waits: its key stands in the place of the run's token."""
        if not (claim.run_id and claim.token):
            raise RefusedError(400, "Run ID required")
        return self._admit(claim, _is_waiter)

    def _admit(self, claim: Claim, is_token: Callable[[str, str], bool]) -> Admitted:
        now, digest = self._check_head(claim)
        if not self._is_signed(claim):
            raise RefusedError(401, "Invalid signature")
        run_id = claim.run_id if claim.run_id and claim.token else ""
        if run_id and not is_token(run_id, claim.token):
            raise RefusedError(403, "Invalid capability token for run")
        if not self._nonces.use(digest, now):
            raise replayed()
        return Admitted(run_id, digest, now)

    def give_back(self, admitted: Admitted) -> None:
        """Let a request that was answered 503 come again as it is: nothing of it is stored."""
        self._nonces.give_back(admitted.nonce_digest)

    def judge(self, claim: Claim) -> None:
        """Check what a head alone says: whether a body is worth waiting for. Raises: RefusedError.

        The signature is over the body, so it comes later; a run's token is known to the run alone.
        """
        self._check_head(claim)
        if not (claim.run_id and claim.token):
            raise RefusedError(400, "Run ID required")
        if not self._is_token(claim.run_id, claim.token):
            raise RefusedError(403, "Invalid capability token for run")

    def _check_head(self, claim: Claim) -> tuple[float, int]:
        """Return the time, and the nonce's digest. Raises: RefusedError."""
        if not (claim.timestamp and claim.nonce and claim.signature):
            raise RefusedError(401, "Missing authentication headers")
        now = time.time()
        is_number = _TIMESTAMP.fullmatch(claim.timestamp) is not None
        if not is_number or abs(int(now) - int(claim.timestamp)) > MAX_SKEW_S:
            raise RefusedError(401, "Request timestamp out of allowed range")
        digest = Nonces.digest(claim.nonce)
        if self._nonces.is_known(digest):
            raise replayed()
        return now, digest

    def _is_signed(self, claim: Claim) -> bool:
        fields = (
            claim.method,
            claim.path,
            claim.body_hash,
            claim.timestamp,
            claim.nonce,
            claim.run_id,
            claim.token,
        )
        expected = self._key.copy()
        expected.update("\n".join(fields).encode("utf-8", "surrogateescape"))
        given = claim.signature.lower().encode("utf-8", "surrogateescape")
        return hmac.compare_digest(expected.hexdigest().encode(), given)

    def _is_token(self, run_id: str, token: str) -> bool:
        expected = self._find_token_hash(run_id)
        given = hash_token(token)
        # Compared in any case: the time must not tell whether the run exists.
        return hmac.compare_digest(expected or bytes(32), given) and expected is not None


def hash_token(token: str) -> bytes:
    """Return what is kept of a token: enough to know it again."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _is_waiter(waiter_id: str, key: str) -> bool:
    """Whether a folder's id is the one of its key. So nobody can register the id of another."""
    expected = f"wait_{hash_token(key).hex()[:32]}"
    given = waiter_id.encode("utf-8", "surrogateescape")
    return hmac.compare_digest(expected.encode(), given)
