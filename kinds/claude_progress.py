"""How a run of Claude Code stands: its model, its cost, its limits. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kinds.claude_fields import map_of, number_of, raw_of

_MAX_TEXT_CHARS: Final = 100
_LIMITS: Final = {"allowed_warning": "nearly used up", "rejected": "used up"}
# Of the conversation: what the model has read for its last answer.
_CONTEXT: Final = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


class ProgressWatch:
    """The state so far. Thread: one caller. Any value is a message."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}
        self._answer = ""  # the id of the last one

    @property
    def known(self) -> dict[str, Any]:
        """The fields of the `progress` marker, without those that are not known."""
        return {name: value for name, value in self._known.items() if value not in (None, "")}

    def feed(self, message: Mapping[str, Any]) -> None:
        """Look at a message."""
        kind = message.get("type")
        if kind == "system":
            self._put("model", _text(message, "model"))
            self._put("permissionMode", _text(message, "permissionMode"))
        elif kind == "assistant" and not message.get("parent_tool_use_id"):
            self._read_answer(map_of(message, "message"))
        elif kind == "result":
            self._put("totalCostUsd", number_of(message, "total_cost_usd"))
        elif kind == "rate_limit_event":
            self._read_limit(map_of(message, "rate_limit_info"))

    def _read_answer(self, answer: Mapping[str, Any]) -> None:
        model, answer_id = _text(answer, "model"), _text(answer, "id")
        if model.startswith("<"):
            return  # what Claude Code says itself
        self._put("model", model)
        if answer_id and answer_id != self._answer:
            self._answer = answer_id
            self._known["numTurns"] = self._known.get("numTurns", 0) + 1
        usage = map_of(answer, "usage")
        tokens = sum(number_of(usage, name) or 0 for name in _CONTEXT)
        self._put("contextTokens", int(tokens) or None)

    def _read_limit(self, info: Mapping[str, Any]) -> None:
        status, kind = _text(info, "status"), _text(info, "rateLimitType").replace("_", " ")
        told = "" if status == "allowed" else _LIMITS.get(status, status)
        self._known["limit"] = f"{kind}: {told}" if kind and told else told

    def _put(self, name: str, value: Any) -> None:
        if value not in (None, ""):
            self._known[name] = value


def _text(fields: Mapping[str, Any], name: str) -> str:
    text = raw_of(fields, name)
    return text if len(text) <= _MAX_TEXT_CHARS and text.isprintable() else ""
