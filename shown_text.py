"""Text of somebody else's, made fit to be shown in one line."""

from __future__ import annotations

from typing import Final, TypeVar, cast

_MAX_MESSAGE_CHARS: Final = 300

Text = TypeVar("Text", bound=str)


def printable(text: Text, max_chars: int = _MAX_MESSAGE_CHARS) -> Text:
    """Return a foreign text with control characters shown instead of obeyed, and bounded.

    What leaves this machine is redacted before: a secret that is cut in two is not recognised.
    """
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: max_chars + 1]
    )
    return cast("Text", shown if len(shown) <= max_chars else shown[: max_chars - 1] + "…")
