"""A text of the child's that is being written: redacted as one stream, laid out as it comes.

Nothing gets out that would be hidden if the text were redacted whole: what may become a secret is
held back until it is decided, however long that takes. Passive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from kinds.text_layout import WordsWriter
from redact import MARK, Redacted, RedactedDecoder, RedactedText, Redactor

if TYPE_CHECKING:
    from kinds.profile import Piece
    from redact import Rules


class LiveText:
    """One text. What is returned is laid out: redacted, and as the user's own terminal gets it."""

    def __init__(self, rules: Rules) -> None:
        # What came meanwhile, and is shown behind it: bytes as they came, or pieces.
        self.waiting: list[bytes | tuple[Piece, ...]] = []
        self._redactor = Redactor(rules=rules)
        self._decoder = RedactedDecoder()
        self._writer, self._raw_writer = WordsWriter(), WordsWriter()

    @property
    def redaction_failures(self) -> int:
        """How often the redactor failed, and removed what it could not judge."""
        return self._redactor.failures

    def feed(self, text: str) -> tuple[RedactedText, str]:
        """Return what can be shown of it now."""
        redacted = self._decoder.feed(self._redactor.feed(text.encode("utf-8")))
        return cast("RedactedText", self._writer.feed(redacted)), self._raw_writer.feed(text)

    def break_line(self) -> tuple[RedactedText, str]:
        """Return the line's end, so that what waits can be shown; the text goes on behind it."""
        return cast("RedactedText", self._writer.end_line()), self._raw_writer.end_line()

    def end(self, *, is_cut: bool = False) -> tuple[RedactedText, str]:
        """Return what was held back, and the line's end.

        Where a text is cut, what still may be the beginning of a secret is taken for one: the
        whole, which may come once more, would hide it.
        """
        tail = self._redactor.idle() if is_cut else self._redactor.flush()
        if is_cut and self._redactor.held and self._redactor.flush():
            tail = Redacted(tail + MARK)
        redacted = self._decoder.feed(tail) + self._decoder.flush()
        shown = self._writer.feed(redacted) + self._writer.end_line()
        return cast("RedactedText", shown), self._raw_writer.end_line()
