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
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, Final

from kinds.claude_changes import CHANGING, count_changes, made_diff
from kinds.claude_edits import EditWatch
from kinds.claude_progress import ProgressWatch
from kinds.claude_text import LiveText, clean, shown_text
from kinds.profile import Limit, Message, Part, Passed, Piece
from kinds.text_layout import (
    DIFF,
    END,
    FAILURE,
    INPUT,
    NOTICE,
    RESULT,
    THOUGHT,
    TOOL,
    WHOSE,
    WORDS,
)

if TYPE_CHECKING:
    from kinds.profile import Item

# A line that is longer is not held back any more. Claude Code's longest lines are images that it
# has read, a few megabytes each.
MAX_LINE_BYTES: Final = 16 * 1_048_576
# Messages are about ten levels deep. A recursive walk through a value is safe below
# this, and a hostile line cannot make it fail.
MAX_DEPTH: Final = 100

# What is shown: as much as a page can fold, and to a person at the terminal a few lines. A phone
# shows about 40 characters in a row.
_LINE_CHARS: Final = 240
_ONE_LINE: Final = Limit(1, _LINE_CHARS)
_WHOLE: Final = Limit()
_FOLDED: Final = Limit(200, 2_000, 16_000)
_FOLDED_DIFF: Final = Limit(400, 1_000, 32_000, keeps_end=False)
_NOTE: Final = Limit(20, 2_000, 4_000)
_BRIEF_INPUT: Final = Limit(4, _LINE_CHARS)
_BRIEF_RESULT: Final = Limit(8, _LINE_CHARS)
_BRIEF_SUBAGENT_RESULT: Final = Limit(3, _LINE_CHARS)
_BRIEF_DIFF: Final = Limit(60, _LINE_CHARS, keeps_end=False)
_BRIEF_THOUGHT: Final = Limit(2, _LINE_CHARS)
_BRIEF_NOTE: Final = Limit(3, _LINE_CHARS)
# A run that loops must not fill the memory, nor a `finished` marker.
_MAX_REMEMBERED: Final = 1_000
_MAX_DENIALS_SHOWN: Final = 20
# A piece of a message that follows whole; in no file.
_PARTIAL: Final = "stream_event"
# The result of a turn may come after the next turn's words, when background tasks end.
_LAST_WORDS: Final = 8
# The longest name that a tool may have is 128.
_MAX_WORD_CHARS: Final = 200

# Invisible bytes before a message: control sequences, blanks, padding.
_NOISE: Final = re.compile(
    rb"(?:[\x00-\x09\x0b-\x1a\x1c-\x20\x7f]|\x1b\[[0-?]*[ -/]*[@-~]"
    rb"|\x1b\][^\x07\x0a\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-OQ-Z^-~])*"
)
_ESCAPE_BEGINS: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x0a\x1b]*\x1b?|[ -/]*)\Z")
_LONGEST_ESCAPE: Final = 256
# What an object can look like at its beginning; bounded, as it is asked with each read.
_MAY_BE_OBJECT: Final = re.compile(rb"\{[ \t\r]{0,64}(?:[\"}]|\Z)")

_NO_OUTPUT: Final = re.compile(r"\(\w+ completed with no output\)\s*")
_ERROR_LABEL: Final = re.compile(r"\A(?:Error: )+")
# How to see more of it, at a keyboard that is not there.
_KEY_HINT: Final = re.compile(r"\s*[\u00b7(]\s*ctrl\+\w.*", re.IGNORECASE | re.DOTALL)
_HOOK_REFUSED: Final = re.compile(r"PreToolUse(?::\S+)? hook (?:error|denied|blocked)")
# How Claude Code itself words a refusal; a hook's own words may be the whole result.
_REFUSED: Final = re.compile(r"permission|approv|blocked|not allowed|working director", re.I)
_PROGRAM_WORD: Final = re.compile(r"[a-z]+(?:_[a-z]+)*")
_TOOL_ERROR_TAGS: Final = re.compile(r"</?tool_use_error>")


@dataclass(frozen=True)
class ResultSummary:
    """What a `result` message says. A value is None, or empty, where it says nothing usable."""

    is_error: bool
    subtype: str
    terminal_reason: str
    duration_ms: float | None
    total_cost_usd: float | None
    num_turns: int | None
    permission_denials: tuple[str, ...]
    session_id: str

    @property
    def was_interrupted(self) -> bool:
        """Whether the turn was ended from outside."""
        return self.terminal_reason.startswith("aborted")

    def marker_fields(self) -> dict[str, Any]:
        """Return it as the `finished` marker shows it, without what is not known."""
        fields = {
            "isError": self.is_error,
            "subtype": self.subtype,
            "terminalReason": self.terminal_reason,
            "durationMs": self.duration_ms,
            "totalCostUsd": self.total_cost_usd,
            "numTurns": self.num_turns,
            "permissionDenials": list(self.permission_denials),
            "sessionId": self.session_id,
        }
        return {name: value for name, value in fields.items() if value not in (None, "", [])}


class ClaudeStream:
    """The stream of one run. Thread: one caller.

    `summary` is what the last `result` message said; there is one for each turn, and a turn may
    follow when a background task ends, or a person says more. `is_asked`: a person is asked for
    what needs a permission. `is_granted`: the user has said which tools are allowed.
    """

    def __init__(self, *, is_asked: bool = False, is_granted: bool = False) -> None:
        self.is_live = self.tells_progress = False
        self._progress = ProgressWatch()
        self._renderer = _Renderer(is_asked=is_asked, is_granted=is_granted)
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
        """Return what is complete now. Raises nothing; linear in the size of the input."""
        items: list[Item] = []
        at = 0
        while at < len(raw):
            end = raw.find(b"\n", at) + 1 or len(raw)
            items += self._feed_part(raw[at:end])
            at = end
        return items

    def flush(self) -> list[Item]:
        """Return what was held back, at the end of the stream."""
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
            yield from self._renderer.write(_map(value, "event"))
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


# --- fields that may be missing or anything -------------------------------------------------------


def _text(fields: Any, name: str) -> str:
    return clean(fields.get(name)) if isinstance(fields, Mapping) else ""


def _word(fields: Any, name: str) -> str:
    """Return a short text in one line, for names and kinds; what is too long for one is none."""
    word = " ".join(_text(fields, name).split())
    return word if len(word) <= _MAX_WORD_CHARS else ""


def use_of(fields: Any, name: str) -> str:
    """Return what tells one use of a tool from another where it has no id, as with 2.0.0."""
    given = fields.get(name) if isinstance(fields, Mapping) else None
    return json.dumps([_text(fields, "tool_name"), given], sort_keys=True)


def _number(fields: Any, name: str) -> float | None:
    """Return a number that is not negative and not absurd."""
    value = fields.get(name) if isinstance(fields, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value < 1e12 and math.isfinite(value) else None


def _list(fields: Any, name: str) -> list[Any]:
    value = fields.get(name) if isinstance(fields, Mapping) else None
    return value if isinstance(value, list) else []


def _map(fields: Any, name: str) -> dict[str, Any]:
    value = fields.get(name) if isinstance(fields, Mapping) else None
    return value if isinstance(value, dict) else {}


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"


def _count(count: int, noun: str) -> str:
    return f"{count} {_plural(count, noun)}"


def _line_count(text: str) -> str:
    return _count(len(text.splitlines()), "line")


def _spoken(name: str) -> str:
    """Return what a program calls something as a person does; a token would not be one any more."""
    return name.replace("_", " ") if _PROGRAM_WORD.fullmatch(name) else name


def _duration(duration_s: float) -> str:
    if duration_s < 59.5:
        digits = 2 if duration_s < 0.1 else 1 if duration_s < 9.95 else 0
        return f"{duration_s:.{digits}f} s"
    minutes, seconds = divmod(round(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def _cost(cost_usd: float) -> str:
    return f"${cost_usd:.4f}" if 0 < cost_usd < 0.01 else f"${cost_usd:.2f}"


# --- one tool, one line ---------------------------------------------------------------------------


def _show_bash(given: Mapping[str, Any], _cwd: str) -> str:
    place = "(in the background) " if given.get("run_in_background") is True else ""
    return place + _text(given, "command").strip()


def _show_read(given: Mapping[str, Any], cwd: str) -> str:
    offset, limit = _number(given, "offset"), _number(given, "limit")
    first = int(offset or 1)
    if limit:
        return f"{_path(given, cwd)}, lines {first} to {first + int(limit) - 1}"
    return _path(given, cwd) + (f", from line {first}" if offset else "")


def _show_path(given: Mapping[str, Any], cwd: str) -> str:
    return _path(given, cwd)


def _show_search(given: Mapping[str, Any], cwd: str) -> str:
    where = _shown_path(_text(given, "path") or _text(given, "glob"), cwd)
    return _text(given, "pattern") + (f" in {where}" if where else "")


def _show_agent(given: Mapping[str, Any], _cwd: str) -> str:
    kind = _text(given, "subagent_type")
    return _text(given, "description") + (f" ({kind})" if kind else "")


def _show_todos(given: Mapping[str, Any], _cwd: str) -> str:
    todos = _list(given, "todos")
    done = sum(_text(todo, "status") == "completed" for todo in todos)
    active = [_text(todo, "activeForm") or _text(todo, "content") for todo in todos
              if _text(todo, "status") == "in_progress"]  # fmt: skip
    shown = f"{done} of {len(todos)} done" + "".join(f"; {each}" for each in active[:1])
    signs = {"completed": "[x]", "in_progress": "[>]"}
    listed = [f"{signs.get(_text(todo, 'status'), '[ ]')} {_text(todo, 'content')}"
              for todo in todos if _text(todo, "content")]  # fmt: skip
    return "\n".join([shown, *listed])


def _show_question(given: Mapping[str, Any], _cwd: str) -> str:
    return " ".join(_text(each, "question") for each in _list(given, "questions"))


def _show_field(name: str) -> Callable[[Mapping[str, Any], str], str]:
    return lambda given, _cwd: _text(given, name)


def _show_anything(given: Mapping[str, Any], _cwd: str) -> str:
    """Name every value; those of one line first, because the first line is always shown."""
    shown = [f"{clean(name)}={_plain(value)}" for name, value in given.items()]
    return " ".join(sorted(shown, key=lambda each: "\n" in each))


def _plain(value: Any) -> str:
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _path(given: Mapping[str, Any], cwd: str) -> str:
    return _shown_path(_text(given, "file_path") or _text(given, "notebook_path"), cwd)


def _shown_path(path: str, cwd: str) -> str:
    return path[len(cwd) + 1 :] if cwd and path.startswith(f"{cwd}/") else path


_TOOLS: Final[Mapping[str, Callable[[Mapping[str, Any], str], str]]] = {
    "Agent": _show_agent,
    "AskUserQuestion": _show_question,
    "Bash": _show_bash,
    "Edit": _show_path,
    "Glob": _show_search,
    "Grep": _show_search,
    "MultiEdit": _show_path,
    "NotebookEdit": _show_path,
    "Read": _show_read,
    "Skill": _show_field("skill"),
    "Task": _show_agent,
    "TaskCreate": _show_field("subject"),
    "TodoWrite": _show_todos,
    "WebFetch": _show_field("url"),
    "WebSearch": _show_field("query"),
    "Write": _show_path,
}
# Their result repeats the input, or is a file, which is too long for a phone.
_BRIEF_RESULTS: Final = frozenset({"Edit", "MultiEdit", "NotebookEdit", "TodoWrite", "Write"})
_COUNTED_RESULTS: Final = frozenset({"Read"})

# Why a tool was refused, where `--allowedTools` changes it. Measured: a deny rule and the check of
# the automatic mode stay as they are.
_GRANTABLE: Final = frozenset({"", "mode", "workingDir"})
# In print mode there is no user to answer them, whatever is allowed.
_NEVER_GRANTABLE: Final = frozenset({"AskUserQuestion", "ExitPlanMode"})


@dataclass(frozen=True)
class _Tool:
    """A tool that is being used: its name, what is shown of it, and its whole input."""

    name: str
    line: str
    given: Mapping[str, Any]


class _Renderer:
    """Messages to text. Knows what was shown, so that nothing is shown twice."""

    def __init__(self, *, is_asked: bool, is_granted: bool) -> None:
        self.summary: ResultSummary | None = None
        self.has_begun = False
        self._is_asked = is_asked
        self._is_granted = is_granted
        self._all_turns: int | None = None
        self._all_ms: float | None = None
        self._cwd = ""
        self._mode = ""
        self._has_header = False
        self._tools: dict[str, _Tool] = {}
        self._last_tool = ""  # the id of the tool whose line was the last thing shown
        self._last_group = ""
        self._said: list[str] = []  # its last words, which a result repeats
        self._reasons: dict[str, str] = {}  # why a tool was refused, by its id
        self._hook_refused: set[str] = set()
        self._denied: dict[str, _Tool] = {}
        self._told_denials = 0
        # What each question is about, by its id; and what a withdrawn one was about, which Claude
        # Code counts as denied.
        self._questions: dict[str, str] = {}
        self._withdrawn: set[str] = set()
        self._running_tasks = 0
        # The words that are being written, and those that were shown while they were.
        self._live: LiveText | None = None
        self._written: str | None = None

    def totals(self) -> dict[str, Any]:
        """Return what adds up over the turns."""
        totals = {
            "numTurns": self._all_turns,
            "durationMs": self._all_ms,
            "denials": len(self._denied) or None,
        }
        return {name: value for name, value in totals.items() if value is not None}

    def render(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        kind = message["type"]
        # A hook of a session that is about to begin may be the first to say something.
        self.has_begun = (
            self.has_begun
            or kind in ("assistant", "result")
            or (kind == "system" and _word(message, "subtype") == "init")
        )
        if kind == "system":
            yield from self._system(message)
        elif kind == "assistant":
            yield from self._assistant(message)
        elif kind == "user":
            yield from self._user(message)
        elif kind == "result":
            yield from self._result(message)
        elif kind in ("control_request", "control_cancel_request"):
            self._note_question(_text(message, "request_id"), _map(message, "request"))
        elif kind == "rate_limit_event":
            yield from self._rate_limit(_map(message, "rate_limit_info"))
        elif kind == "error":
            error = _map(message, "error")
            yield from self._note(FAILURE, _text(error, "message") or _text(message, "message"))

    def _note_question(self, question_id: str, request: Mapping[str, Any]) -> None:
        """Note what a question is about; without a request, that it was withdrawn."""
        if request and len(self._questions) < _MAX_REMEMBERED:
            use = _text(request, "tool_use_id") or use_of(request, "input")
            self._questions[question_id] = use
        elif not request and question_id in self._questions:
            self._withdrawn.add(self._questions[question_id])

    # --- while it is written ---

    def write(self, event: Mapping[str, Any]) -> Iterator[Part]:
        """Show more of the words that are being written."""
        self.has_begun = True
        kind, block = _word(event, "type"), _map(event, "content_block")
        if kind in ("message_start", "content_block_start"):
            yield from self._break_off()
            self._written = None
        piece: Any = None
        if kind == "content_block_start" and _word(block, "type") == "text":
            self._live, piece = LiveText(), block.get("text")
        elif kind == "content_block_delta":
            piece = _map(event, "delta").get("text")
        if self._live is None or not isinstance(piece, str):
            return
        is_first = not self._live.has_shown
        text = self._live.feed(piece)
        if text:
            is_apart = is_first and self._last_group != ""
            self._last_group, self._last_tool = "text", ""
            yield Part(text, is_apart)

    def settle(self, message: Mapping[str, Any]) -> Iterator[Part]:
        """End the words that were being written, if this message does, before it is shown."""
        if self._live is None or message.get("parent_tool_use_id"):
            return
        kind = message["type"]
        if kind == "assistant":
            yield from self._complete(message)
        elif kind == "error" or _word(message, "subtype") == "api_retry":
            yield from self._break_off()
        elif kind == "result" or _word(message, "subtype") == "init" or _is_of_turn(message):
            yield from self.end_live()

    def _complete(self, message: Mapping[str, Any]) -> Iterator[Part]:
        """Show what is left of the words, now that they have come whole."""
        written = "" if self._live is None else self._live.text
        blocks = _list(_map(message, "message"), "content")
        texts = [_text(each, "text") for each in blocks if _word(each, "type") == "text"]
        whole = shown_text(texts[0]) if texts and not _is_error(message) else ""
        if not written:
            self._live = None
        elif whole and (whole.startswith(written) or written.startswith(whole)):
            # One that was interrupted may be shorter.
            self._live, self._written = None, whole
            is_cut = len(whole) < len(written)
            yield Part(whole[len(written) :], is_last=True, is_cut=is_cut)
        else:
            yield from self._break_off()

    def _break_off(self) -> Iterator[Part]:
        """End words that come once more, or never."""
        for part in self.end_live():
            self._written = None
            told = self._note(FAILURE, "the answer above was broken off")
            yield replace(part, pieces=tuple(told))

    def end_live(self) -> Iterator[Part]:
        """End the words where they are."""
        live, self._live = self._live, None
        if live is not None and live.has_shown:
            self._written = live.text  # it may come whole all the same
            self._said = [*self._said[1 - _LAST_WORDS :], live.text.strip()]
            yield Part("", is_last=True, is_cut=True)

    # --- building pieces ---

    def _piece(
        self,
        group: str,
        text: str,
        kind: str,
        limit: Limit,
        brief: Limit | None = None,
        *,
        further: str = "",
        is_subagent: bool = False,
    ) -> Iterator[Piece]:
        """Yield a piece, with an empty line before it where another group of lines begins."""
        text = shown_text(text)
        if not text.strip():
            return
        is_apart = group in ("text", "end") or group not in ("result", self._last_group)
        is_apart = is_apart and self._last_group != ""
        self._last_group = group
        self._last_tool = ""
        yield Piece(text, kind, further, limit, brief, is_subagent, is_apart)

    def _note(self, kind: str, text: str, *, is_subagent: bool = False) -> Iterator[Piece]:
        text = text.strip()
        yield from self._piece("note", text, kind, _NOTE, _BRIEF_NOTE, is_subagent=is_subagent)

    # --- system ---

    def _system(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        render = {
            "init": self._init,
            "api_retry": self._retry,
            "permission_denied": self._permission_denied,
            "compact_boundary": self._compacted,
            "status": self._status,
            "background_tasks_changed": self._tasks_changed,
            "task_notification": self._task_ended,
            "hook_response": self._hook_ended,
            "notification": self._notify,
        }.get(_word(message, "subtype"))
        if render is not None:
            yield from render(message)
        elif _word(message, "level") in ("warning", "error"):
            yield from self._note(FAILURE, _text(message, "content") or _text(message, "message"))

    def _init(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        self._cwd = _text(message, "cwd").rstrip("/")
        if self._has_header:
            return  # every turn begins with one
        self._has_header = True
        words = [f"Claude Code {_word(message, 'claude_code_version')}".strip()]
        words.append(_word(message, "model"))
        mode = self._mode = _word(message, "permissionMode")
        if mode not in ("", "default"):
            words.append(f"permission mode {mode}")
        yield from self._note(NOTICE, ", ".join(word for word in words if word))
        for server in _list(message, "mcp_servers"):
            status = _word(server, "status")
            if status in ("failed", "needs-auth"):
                name = _word(server, "name")
                yield from self._note(FAILURE, f"MCP server {name}: {status.replace('-', ' ')}")

    def _retry(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        status = _number(message, "error_status")
        error = _spoken(_word(message, "error")) or "no answer"
        text = f"API: {error}" + (f" ({status:.0f})" if status else "")
        attempt, most = _number(message, "attempt"), _number(message, "max_retries")
        if attempt:
            text += f"; retry {attempt:.0f}" + (f" of {most:.0f}" if most else "")
        delay_ms = _number(message, "retry_delay_ms")
        if delay_ms is not None:
            text += f" in {_duration(delay_ms / 1_000)}"
        yield from self._note(FAILURE, text)

    def _permission_denied(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        tool_id = _text(message, "tool_use_id")
        reason = _text(message, "message") or _text(message, "decision_reason")
        if len(self._reasons) < _MAX_REMEMBERED:
            self._reasons[tool_id] = _word(message, "decision_reason_type")
        said = f"refused: {reason}" if reason else "refused"
        if tool_id and tool_id == self._last_tool:
            yield from self._piece("result", said, FAILURE, _NOTE, _BRIEF_NOTE)
        else:
            yield from self._note(FAILURE, f"{_word(message, 'tool_name') or 'a tool'} {said}")

    def _compacted(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        tokens = _number(_map(message, "compact_metadata"), "pre_tokens")
        size = f" ({tokens:,.0f} tokens)" if tokens else ""
        yield from self._note(NOTICE, f"the conversation was compacted{size}")

    def _status(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        if _word(message, "status") == "compacting":
            yield from self._note(NOTICE, "compacting the conversation")
        mode = _word(message, "permissionMode")
        if mode and mode != self._mode:
            self._mode = mode
            yield from self._note(NOTICE, f"permission mode {mode}")

    def _tasks_changed(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        self._running_tasks = len(_list(message, "tasks"))
        yield from ()

    def _task_ended(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        if message.get("summary_is_report") is True:
            return  # a subagent's last words, which have been shown
        tool_id = _text(message, "tool_use_id")
        if tool_id and tool_id in self._tools:
            return  # a tool that is waited for, and took more than two seconds
        yield from self._note(NOTICE, _text(message, "summary"))

    def _hook_ended(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        code = _number(message, "exit_code")
        if _word(message, "outcome") != "error" and not code:
            return
        name = _word(message, "hook_name") or _word(message, "hook_event")
        said = _text(message, "stderr") or _text(message, "output") or _text(message, "stdout")
        how = f" (exit code {code:.0f})" if code else ""
        text = f"hook {name} failed{how}"
        yield from self._note(FAILURE, f"{text}: {said.strip()}" if said.strip() else text)

    def _notify(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        """Show what failed; what else is a notification is of no use without a keyboard."""
        if _word(message, "key").endswith("error"):
            yield from self._note(FAILURE, _KEY_HINT.sub("", _text(message, "text")))

    def _rate_limit(self, info: Mapping[str, Any]) -> Iterator[Piece]:
        status = _word(info, "status")
        if status in ("", "allowed"):
            return
        said = {"allowed_warning": "nearly used up", "rejected": "used up"}.get(status, status)
        kind = _spoken(_word(info, "rateLimitType"))
        yield from self._note(FAILURE, f"rate limit {said}" + (f" ({kind})" if kind else ""))

    # --- what Claude says and does ---

    def _assistant(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        is_subagent = bool(message.get("parent_tool_use_id"))
        is_error = _is_error(message)
        for block in _list(_map(message, "message"), "content"):
            kind = _word(block, "type")
            if kind == "text":
                text = _text(block, "text")
                yield from self._say(text, is_subagent=is_subagent, is_error=is_error)
            elif kind in ("thinking", "redacted_thinking"):
                yield from self._think(_text(block, "thinking"), is_subagent=is_subagent)
            elif kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
                yield from self._use_tool(block, is_subagent=is_subagent)

    def _say(
        self, text: str, *, is_subagent: bool = False, is_error: bool = False
    ) -> Iterator[Piece]:
        if not is_subagent:
            self._said = [*self._said[1 - _LAST_WORDS :], text.strip()]
        if not is_subagent and self._written is not None and self._written == shown_text(text):
            self._written = None
        elif is_error:
            yield from self._note(FAILURE, text, is_subagent=is_subagent)
        else:
            yield from self._piece("text", text, WORDS, _WHOLE, is_subagent=is_subagent)

    def _think(self, thought: str, *, is_subagent: bool) -> Iterator[Piece]:
        yield from self._piece(
            "thought", thought.strip(), THOUGHT, _FOLDED, _BRIEF_THOUGHT, is_subagent=is_subagent
        )

    def _use_tool(self, block: Mapping[str, Any], *, is_subagent: bool) -> Iterator[Piece]:
        tool_id = _text(block, "id")
        tool = self._describe(_word(block, "name"), _map(block, "input"))
        if len(self._tools) < _MAX_REMEMBERED:
            self._tools[tool_id] = tool
        yield from self._piece(
            "tool",
            tool.line,
            TOOL,
            _FOLDED,
            _BRIEF_INPUT,
            further=INPUT,
            is_subagent=is_subagent,
        )
        self._last_tool = tool_id

    def _describe(self, name: str, given: Mapping[str, Any]) -> _Tool:
        name = name or "(a tool without a name)"
        shown = _TOOLS.get(name, _show_anything)(given, self._cwd).strip()
        return _Tool(name, f"{name}: {shown}" if shown else name, given)

    # --- what came of it ---

    def _user(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        is_subagent = bool(message.get("parent_tool_use_id"))
        content = _map(message, "message").get("content")
        for block in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            kind = _word(block, "type")
            if kind == "text" and _text(block, "text").startswith("[Request interrupted"):
                text = _text(block, "text").strip("[]")
                yield from self._note(FAILURE, text, is_subagent=is_subagent)
            elif kind == "text" and message.get("uuid") and not is_subagent:
                # A person's message, which its owner shows: what follows is not behind a tool.
                self._last_group, self._last_tool = "person", ""
            elif kind.endswith("tool_result"):
                self._note_decision(block, _list(message, "tool_result_meta"))
                details = message.get("tool_use_result")
                yield from self._tool_result(block, details, is_subagent=is_subagent)

    def _note_decision(self, block: Mapping[str, Any], decisions: list[Any]) -> None:
        """Note that it may be a hook that has refused this tool; only new releases say so apart."""
        tool_id, said = _text(block, "tool_use_id"), _result_text(block)
        if block.get("is_error") is not True or len(self._hook_refused) >= _MAX_REMEMBERED:
            return
        is_hook = _HOOK_REFUSED.match(said) or any(
            _word(_map(each, "permission_decision"), "source") == "hook"
            for each in decisions
            if _text(each, "id") == tool_id
        )
        if is_hook or not (tool_id in self._reasons or _REFUSED.search(said)):
            self._hook_refused.add(tool_id)

    def _tool_result(
        self, block: Mapping[str, Any], details: Any, *, is_subagent: bool
    ) -> Iterator[Piece]:
        tool_id = _text(block, "tool_use_id")
        tool = self._tools.pop(tool_id, _Tool("", "", {}))
        if tool_id in self._reasons:
            return  # it was refused, and that has been told
        if tool.line and tool_id != self._last_tool:
            # Several tools at once: say whose result this is.
            yield from self._piece("tool", tool.line, WHOSE, _ONE_LINE, is_subagent=is_subagent)
        limit, brief = _FOLDED, _BRIEF_SUBAGENT_RESULT if is_subagent else _BRIEF_RESULT
        if tool.name in _BRIEF_RESULTS:
            limit, brief = _NOTE, _ONE_LINE
        is_error = block.get("is_error") is True and details != "User rejected tool use"
        diff = ""
        if tool.name in CHANGING and not is_error:
            # Line by line, since a character in a line may be the end of it.
            changes = made_diff(tool.name, tool.given, details).split("\n")
            diff = "\n".join(clean(line.rstrip("\r")).replace("\n", " ") for line in changes)
        yield from self._piece(
            "result",
            count_changes(diff) if diff else _show_result(tool.name, block, details),
            FAILURE if is_error else RESULT,
            limit,
            brief,
            further=RESULT,
            is_subagent=is_subagent,
        )
        yield from self._piece(
            "result", diff, DIFF, _FOLDED_DIFF, _BRIEF_DIFF, is_subagent=is_subagent
        )

    # --- the end of a turn ---

    def _result(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        is_error = message.get("is_error") is True
        self._collect_denials(message)
        turns = _number(message, "num_turns")
        self.summary = ResultSummary(
            is_error,
            _word(message, "subtype"),
            _word(message, "terminal_reason"),
            _number(message, "duration_ms"),
            _number(message, "total_cost_usd"),
            None if turns is None else int(turns),
            tuple(tool.name for tool in self._denied.values()),
            _word(message, "session_id"),
        )
        if self.summary.num_turns is not None:
            self._all_turns = (self._all_turns or 0) + self.summary.num_turns
        if self.summary.duration_ms is not None:
            self._all_ms = (self._all_ms or 0.0) + self.summary.duration_ms
        text = _text(message, "result").strip()
        if text and text not in self._said:
            yield from self._say(text, is_error=is_error)
        errors = "\n".join(clean(each) for each in _list(message, "errors"))
        # After an interruption they are about Claude Code's inside.
        if errors.strip() not in self._said and not self.summary.was_interrupted:
            yield from self._note(FAILURE, errors)
        yield from self._tell_denials()
        yield from self._piece("end", _end_line(self.summary, self._running_tasks), END, _ONE_LINE)

    def _collect_denials(self, message: Mapping[str, Any]) -> None:
        for denial in _list(message, "permission_denials"):
            uses = {_text(denial, "tool_use_id"), use_of(denial, "tool_input")}
            if len(self._denied) < _MAX_REMEMBERED and not uses & self._withdrawn:
                name, given = _word(denial, "tool_name"), _map(denial, "tool_input")
                tool_id = _text(denial, "tool_use_id") or str(len(self._denied))
                self._denied[tool_id] = self._describe(name, given)

    def _tell_denials(self) -> Iterator[Piece]:
        denied = list(self._denied.values())[self._told_denials :]
        self._told_denials += len(denied)
        if not denied:
            return
        told = f"{_count(len(denied), 'tool')} refused:"
        yield from self._piece("denials", told, FAILURE, _ONE_LINE)
        for tool in denied[:_MAX_DENIALS_SHOWN]:
            yield from self._piece("denials", f"  {tool.line}", FAILURE, _ONE_LINE)
        left = len(denied) - _MAX_DENIALS_SHOWN
        if left > 0:
            yield from self._piece("denials", f"  and {left} more", FAILURE, _ONE_LINE)
        names = sorted(
            {
                tool.name
                for tool_id, tool in self._denied.items()
                if self._reasons.get(tool_id, "") in _GRANTABLE
                and tool_id not in self._hook_refused
                and tool.name not in _NEVER_GRANTABLE
            }
        )
        if self._is_asked:
            return
        if names and not self._is_granted:
            argument = shlex.quote(f"--allowedTools={','.join(names)}")
            yield from self._piece("denials", f"to allow: {argument}", NOTICE, _WHOLE)
        if names or any(tool.name in _NEVER_GRANTABLE for tool in denied):
            advice = "to be asked instead: start with --ask"
            yield from self._piece("denials", advice, NOTICE, _WHOLE)


def _is_of_turn(message: Mapping[str, Any]) -> bool:
    """Whether a `user` message is what became of the turn: a result, or that it was interrupted.

    Any other is a person's, which releases before 2.1.332 print behind the first pieces of the
    answer.
    """
    return message["type"] == "user" and any(
        _word(block, "type").endswith("tool_result")
        or _text(block, "text").startswith("[Request interrupted")
        for block in _list(_map(message, "message"), "content")
    )


def _is_error(message: Mapping[str, Any]) -> bool:
    """Whether the words of a message are not Claude's."""
    return message.get("is_api_error_message") is True or bool(message.get("error"))


def _show_result(tool_name: str, block: Mapping[str, Any], details: Any) -> str:
    """Return what came of a tool. `details` is the same for programs."""
    if isinstance(details, Mapping) and (details.get("backgroundTaskId") or details.get("isAsync")):
        return "(it goes on in the background)"  # what it says besides is for the model
    if details == "User rejected tool use":
        return "interrupted"
    text = _TOOL_ERROR_TAGS.sub("", _result_text(block)).strip("\n")
    if block.get("is_error") is True:
        return f"failed: {_ERROR_LABEL.sub('', text) or 'it does not say why'}"
    if not text.strip() or _NO_OUTPUT.fullmatch(text):
        return "(no output)"
    return _line_count(text) if tool_name in _COUNTED_RESULTS else text


def _result_text(block: Mapping[str, Any]) -> str:
    """Return what a tool gave back, as text; for what is no text, what it is."""
    content = block.get("content")
    if isinstance(content, str):
        return clean(content)
    return "\n".join(_block_text(each) for each in _list(block, "content"))


def _block_text(block: Any) -> str:
    if isinstance(block, str):
        return clean(block)
    kind = _word(block, "type")
    if kind == "tool_reference":
        return _text(block, "tool_name")
    return _text(block, "text") if kind == "text" else f"({_spoken(kind) or 'something'})"


def _end_line(summary: ResultSummary, running_tasks: int) -> str:
    if summary.was_interrupted:
        verdict = "Interrupted after"
    elif summary.is_error:
        ended, kind = summary.terminal_reason, summary.subtype
        reason = ended if ended not in ("", "completed") else kind.replace("success", "")
        verdict = f"Failed ({_spoken(reason)}) after" if reason else "Failed after"
    else:
        verdict = "Done in"
    duration_ms = summary.duration_ms
    parts = [verdict.rsplit(" ", 1)[0]]
    if duration_ms is not None:
        parts = [f"{verdict} {_duration(duration_ms / 1_000)}"]
    if summary.num_turns is not None:
        parts.append(_count(summary.num_turns, "turn"))
    if summary.total_cost_usd is not None:
        parts.append(_cost(summary.total_cost_usd))
    if running_tasks:
        parts.append(f"{_count(running_tasks, 'background task')} still running")
    return ", ".join(parts)
