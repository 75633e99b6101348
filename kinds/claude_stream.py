"""Claude Code's JSON stream in, text that a person likes to read out.

What `claude -p --output-format stream-json --verbose` prints, as bytes in any pieces, becomes
`Item`s: a `Message` for each line that is one of Claude Code's, with the text to show for it, and
`Passed` for everything else, unchanged and at once. Pure: no I/O, no threads, no clock.

It neither redacts nor cuts: `kinds.profile` says who does.

    stream = ClaudeStream()
    for item in stream.feed(raw):
        if isinstance(item, Passed):
            ...                                            # through the redactor of the stream
        else:
            ... rules.redact_json(item.value)              # a line of claude.jsonl
            ... [piece.finish(rules.redact(piece.text)) for piece in item.pieces]

Its lines are those of `kinds.text_layout`. An empty line begins another kind of thing; a result, a
change and a failure that follow a tool without one belong to it.

Invariants: any split of the same input gives the same items (neighbouring `Passed` joined). No
input raises. At most `MAX_LINE_BYTES` are held back. The messages are not documented as a whole and
change with each release: every field is looked at as if it could be missing or of another type,
and a message of an unknown kind shows nothing.

Source: messages of Claude Code 2.1.330, and the types of its SDK,
https://docs.anthropic.com/en/docs/claude-code/sdk/sdk-headless
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from kinds.claude_edits import EditWatch
from kinds.claude_fields import map_of
from kinds.claude_messages import Renderer, ResultSummary
from kinds.claude_progress import ProgressWatch
from kinds.profile import Message, Passed

if TYPE_CHECKING:
    from kinds.profile import Item

# A line that is longer is not held back any more. Claude Code's longest lines are images that it
# has read, a few megabytes each.
MAX_LINE_BYTES: Final = 16 * 1_048_576
# Messages are about ten levels deep. A recursive walk through a value is safe below
# this, and a hostile line cannot make it fail.
MAX_DEPTH: Final = 100
# A piece of a message that follows whole; in no file.
_PARTIAL: Final = "stream_event"

# Invisible bytes before a message: control sequences, blanks, padding.
_NOISE: Final = re.compile(
    rb"(?:[\x00-\x09\x0b-\x1a\x1c-\x20\x7f]|\x1b\[[0-?]*[ -/]*[@-~]"
    rb"|\x1b\][^\x07\x0a\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-OQ-Z^-~])*"
)
_ESCAPE_BEGINS: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x0a\x1b]*\x1b?|[ -/]*)\Z")
_LONGEST_ESCAPE: Final = 256
# What an object can look like at its beginning; bounded, as it is asked with each read.
_MAY_BE_OBJECT: Final = re.compile(rb"\{[ \t\r]{0,64}(?:[\"}]|\Z)")


class ClaudeStream:
    """The stream of one run. Thread: one caller.

    `summary` is what the last `result` message said; there is one for each turn, and a turn may
    follow when a background task ends, or a person says more. `is_asked`: a person is asked for
    what needs a permission. `is_granted`: the user has said which tools are allowed.
    """

    def __init__(self, *, is_asked: bool = False, is_granted: bool = False) -> None:
        self.is_live = self.tells_progress = False
        self._progress = ProgressWatch()
        self._renderer = Renderer(is_asked=is_asked, is_granted=is_granted)
        self._edits = EditWatch()
        # Either at the beginning of a line, where `_escape` is an incomplete escape sequence that
        # has been passed on; or inside a line that may be a message, held in `_line`; or inside
        # one that is none.
        self._line: bytearray | None = None
        self._escape = b""
        self._is_passing = False

    @property
    def summary(self) -> ResultSummary | None:
        """What the last result said, None as long as there was none."""
        return self._renderer.summary

    @property
    def has_begun(self) -> bool:
        """Whether it has begun: what Claude Code refuses at once has no session."""
        return self._renderer.has_begun

    def progress(self) -> dict[str, Any]:
        """Return how the run stands by now."""
        return self._progress.known

    def result(self) -> dict[str, Any]:
        """Return the result of the run for the `finished` marker; empty as long as there was none.

        Turns, duration and refused tools are those of all its turns. Its cost is Claude Code's own
        total.
        """
        if self.summary is None:
            return {}
        return {**self.summary.marker_fields(), **self._renderer.totals()}

    def feed(self, raw: bytes) -> list[Item]:
        """Return the complete messages. Raises nothing; linear in the size of the input."""
        items: list[Item] = []
        at = 0
        while at < len(raw):
            end = raw.find(b"\n", at) + 1 or len(raw)
            items += self._feed_part(raw[at:end])
            at = end
        return items

    def flush(self) -> list[Item]:
        """Return the held remainder at the end of the stream."""
        line, self._line = self._line, None
        self._escape, self._is_passing = b"", False
        read = [] if line is None else list(self._read_line(bytes(line)))
        return [*read, *self._renderer.end_live()]

    def _feed_part(self, part: bytes) -> Iterator[Item]:
        """Take a line's end or a part of one; only its last byte can be a newline."""
        if self._line is None and not self._is_passing:
            noise = self._begin_line(part)
            if noise:
                yield Passed(part[:noise])
                part = part[noise:]
            if not part:
                return
        if self._line is not None:
            self._line += part
            if not _MAY_BE_OBJECT.match(self._line) or len(self._line) > MAX_LINE_BYTES:
                part, self._line, self._is_passing = bytes(self._line), None, True
        if self._is_passing:
            yield Passed(part)
            self._is_passing = not part.endswith(b"\n")
        elif self._line is not None and part.endswith(b"\n"):
            line, self._line = bytes(self._line), None
            yield from self._read_line(line)

    def _begin_line(self, part: bytes) -> int:
        """Decide what kind of line this is; return how much of it is only noise before that."""
        seen = self._escape + part
        match = _NOISE.match(seen)
        noise = match.end() if match else 0
        rest = seen[noise:]
        self._escape = b""
        if rest.startswith(b"{"):
            self._line = bytearray()
        elif rest and len(rest) <= _LONGEST_ESCAPE and _ESCAPE_BEGINS.match(rest):
            self._escape = rest
            noise = len(seen)
        elif rest and rest != b"\n":
            self._is_passing = True
        else:
            noise = len(seen)
        return max(0, noise - (len(seen) - len(part)))

    def _read_line(self, line: bytes) -> Iterator[Item]:
        value, behind = _parse(line)
        if value is None:
            yield Passed(line)
            return
        if value["type"] != _PARTIAL:
            self._progress.feed(value)
            yield from self._renderer.settle(value)
            pieces = tuple(self._renderer.render(value))
            yield Message(value, pieces, self._edits.feed(value))
        elif self.is_live and not value.get("parent_tool_use_id"):
            yield from self._renderer.write(map_of(value, "event"))
        if behind:
            yield Passed(behind)


def _parse(line: bytes) -> tuple[dict[str, Any] | None, bytes]:
    """Return a line's message, None if it is none, and the noise behind it."""
    try:
        text = line.decode("utf-8", "surrogatepass")
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None, b""
    behind = text[end:].strip().encode("utf-8", "surrogatepass")
    noise = _NOISE.match(behind)
    is_clean = noise is not None and noise.end() == len(behind)
    if not (is_clean and isinstance(value, dict) and isinstance(value.get("type"), str)):
        return None, b""
    return (value, behind) if _is_shallow(value) else (None, b"")


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        containers = [each for each in level if isinstance(each, (dict, list))]
        if not containers:
            return True
        level = [
            inner
            for each in containers
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return False


def _parse_int(digits: str) -> int | None:
    # Thousands of digits take time that grows with their square.
    return int(digits) if len(digits) < 100 else None


def _parse_float(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


# Control characters in strings are let through; what JSON cannot hold again becomes null.
_DECODER: Final = json.JSONDecoder(
    strict=False,
    parse_int=_parse_int,
    parse_float=_parse_float,
    parse_constant=lambda _name: None,
)
