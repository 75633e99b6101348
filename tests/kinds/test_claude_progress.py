"""How a run stands is read out of messages that may hold anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinds.claude_progress import ProgressWatch
from runner.progress import ProgressTeller

USAGE = {"input_tokens": 10, "cache_read_input_tokens": 300, "output_tokens": 5}


def answer(answer_id: str, **fields: Any) -> dict[str, Any]:
    """Return an answer of the model."""
    message = {"id": answer_id, "model": "claude-x", "usage": USAGE, **fields}
    return {"type": "assistant", "message": message}


def limit(status: str) -> dict[str, Any]:
    """Return what is told of a rate limit."""
    info = {"status": status, "rateLimitType": "five_hour"}
    return {"type": "rate_limit_event", "rate_limit_info": info}


@pytest.mark.parametrize(
    ("messages", "known"),
    [
        ([], {}),
        ([{"type": "system", "subtype": "init", "model": "claude-y", "permissionMode": "plan"}],
         {"model": "claude-y", "permissionMode": "plan"}),
        ([answer("m1"), answer("m1"), answer("m2", model="claude-z")],
         {"model": "claude-z", "numTurns": 2, "contextTokens": 310}),
        ([{**answer("m1"), "parent_tool_use_id": "t"}], {}),
        ([answer("m1", model="<synthetic>")], {}),
        ([{"type": "result", "total_cost_usd": 0.5}], {"totalCostUsd": 0.5}),
        ([limit("allowed_warning")], {"limit": "five hour: nearly used up"}),
        ([limit("rejected"), limit("allowed")], {}),
    ],
)  # fmt: skip
def test_what_is_known(messages: list[dict[str, Any]], known: dict[str, Any]) -> None:
    """The last word counts; a subagent's answers do not."""
    watch = ProgressWatch()

    for message in messages:
        watch.feed(message)

    assert watch.known == known


NAMES = st.sampled_from(["type", "message", "model", "id", "usage", "input_tokens", "status",
                         "total_cost_usd", "rate_limit_info", "permissionMode"])  # fmt: skip
WORDS = st.sampled_from(["system", "assistant", "result", "rate_limit_event", "\ud83d", "a" * 200])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=6), max_size=4))
def test_any_value_is_a_message(messages: list[dict[str, Any]]) -> None:
    """What is told is texts and numbers, which JSON can hold."""
    watch = ProgressWatch()

    for message in messages:
        watch.feed(message)

    json.dumps(watch.known, allow_nan=False).encode()
    assert all(isinstance(value, (str, int, float)) for value in watch.known.values())
    assert all(len(value) < 300 for value in watch.known.values() if isinstance(value, str))


class Stream:
    """Says how a run stands."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    def progress(self) -> dict[str, Any]:
        """Return what is known."""
        return dict(self.known)


def test_it_is_told_rarely_and_at_the_end() -> None:
    """At once at first, then every five seconds at most; what is the same is not told again."""
    stream, told = Stream(), list[dict[str, Any]]()
    teller = ProgressTeller(stream, told.append)  # type: ignore[arg-type]

    teller.tick(100.0)
    stream.known = {"numTurns": 1}
    teller.tick(100.1)
    stream.known = {"numTurns": 2}
    teller.tick(102.0)
    due_at = teller.due_at()
    stream.known = {"numTurns": 3}
    teller.tick(105.1)
    teller.tick(200.0)
    stream.known = {"numTurns": 4}
    teller.tick(200.1)
    stream.known = {"numTurns": 5}
    teller.tick(200.2, is_last=True)

    assert [each["numTurns"] for each in told] == [1, 3, 4, 5]
    assert due_at == 105.1
    assert teller.due_at() is None
