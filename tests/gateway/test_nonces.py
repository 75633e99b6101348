"""What the gateway remembers of nonces: long enough that no copy is taken twice, and no longer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.admission import NONCE_MEMORY_S, Nonces

# The edges of the windows that nonces are forgotten in, and anything between.
STEPS_S = st.floats(0, 700) | st.sampled_from((0.0, 59.999, 60.0, 599.999, 600.0, 600.001))


@given(st.lists(st.tuples(st.integers(0, 5), STEPS_S), max_size=40))
def test_a_nonce_is_taken_once_in_600_seconds(uses: list[tuple[int, float]]) -> None:
    """Whenever the others come and go."""
    nonces = Nonces()
    taken_at: dict[int, float] = {}
    now = 1_700_000_000.0
    for digest, step_s in uses:
        now += step_s
        if nonces.use(digest, now):
            assert now - taken_at.get(digest, 0.0) > NONCE_MEMORY_S
            taken_at[digest] = now
        assert nonces.is_known(digest)


@given(st.floats(0, 60))
def test_a_nonce_is_forgotten(offset_s: float) -> None:
    """With the window that it was used in, two minutes after its time at the latest."""
    nonces = Nonces()
    now = 1_700_000_000.0 + offset_s
    assert nonces.use(1, now)

    nonces.use(2, now + NONCE_MEMORY_S + 120)

    assert not nonces.is_known(1)


def test_a_restart_forgets_none() -> None:
    """Those that the database has are known from the beginning."""
    used_at = 1_700_000_000.0
    nonces = Nonces([(1, used_at)])

    assert not nonces.use(1, used_at + NONCE_MEMORY_S)
    assert nonces.use(2, used_at + NONCE_MEMORY_S)
