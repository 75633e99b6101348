"""Fields of Claude Code's messages, which may be missing or of any type. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from kinds.claude_text import clean

# The longest name that a tool may have is 128.
_MAX_WORD_CHARS: Final = 200


def raw_of(fields: Any, name: str) -> str:
    """Return a text as it is; it may not be shown."""
    value = fields.get(name) if isinstance(fields, Mapping) else None
    return value if isinstance(value, str) else ""


def text_of(fields: Any, name: str) -> str:
    """Return a text as it may be shown."""
    return clean(raw_of(fields, name))


def word_of(fields: Any, name: str) -> str:
    """Return a short text in one line, for names and kinds; "" if it is too long."""
    word = " ".join(text_of(fields, name).split())
    return word if len(word) <= _MAX_WORD_CHARS else ""


def number_of(fields: Any, name: str) -> float | None:
    """Return a number that is not negative and not absurd."""
    value = fields.get(name) if isinstance(fields, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if 0 <= value < 1e12 and math.isfinite(value) else None


def list_of(fields: Any, name: str) -> list[Any]:
    """Return a list, empty if it is none."""
    value = fields.get(name) if isinstance(fields, Mapping) else None
    return value if isinstance(value, list) else []


def map_of(fields: Any, name: str) -> Mapping[str, Any]:
    """Return an object, empty if it is none."""
    value = fields.get(name) if isinstance(fields, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def use_of(fields: Any, name: str) -> str:
    """Return what tells one use of a tool from another where it has no id, as with 2.0.0."""
    given = fields.get(name) if isinstance(fields, Mapping) else None
    return json.dumps([text_of(fields, "tool_name"), given], sort_keys=True)
