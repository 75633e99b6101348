"""Claude Code's messages in words that a person likes to read. Pure.

Its lines are those of `kinds.text_layout`. An empty line begins another kind of thing; a result, a
change and a failure that follow a tool without one belong to it.

The messages are not documented as a whole and change with each release: every field is looked at as
if it could be missing or of another type, and a message of an unknown kind shows nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from kinds.claude_changes import CHANGING, count_changes, made_diff
from kinds.claude_fields import list_of, map_of, number_of, text_of, use_of, word_of
from kinds.claude_text import LiveText, clean, shown_text
from kinds.claude_tools import count, describe, result_text, show_result, spoken
from kinds.profile import Limit, Part, Piece
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
# The result of a turn may come after the next turn's words, when background tasks end.
_LAST_WORDS: Final = 8
# How to see more of it, at a keyboard that is not there.
_KEY_HINT: Final = re.compile(r"\s*[\u00b7(]\s*ctrl\+\w.*", re.IGNORECASE | re.DOTALL)
_HOOK_REFUSED: Final = re.compile(r"PreToolUse(?::\S+)? hook (?:error|denied|blocked)")
# How Claude Code itself words a refusal; a hook's own words may be the whole result.
_REFUSED: Final = re.compile(r"permission|approv|blocked|not allowed|working director", re.I)
# Why a tool was refused, where `--allowedTools` changes it. Measured: a deny rule and the check of
# the automatic mode stay as they are.
_GRANTABLE: Final = frozenset({"", "mode", "workingDir"})
# In print mode there is no user to answer them, even if they are allowed.
_NEVER_GRANTABLE: Final = frozenset({"AskUserQuestion", "ExitPlanMode"})
# Their result repeats the input.
_BRIEF_RESULTS: Final = frozenset({"Edit", "MultiEdit", "NotebookEdit", "TodoWrite", "Write"})


class ResultSummary(NamedTuple):
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
        """Return it as the `finished` marker shows it, without unknown fields."""
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


class _Tool(NamedTuple):
    """A running tool: its name, its shown line, and its whole input."""

    name: str
    line: str
    given: Mapping[str, Any]


class Renderer:
    """Turns messages into text. Remembers what it has shown, so that nothing is shown twice."""

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
        """Yield the shown parts of a whole message."""
        kind = message["type"]
        # A hook of a session that is about to begin may be the first to say something.
        self.has_begun = (
            self.has_begun
            or kind in ("assistant", "result")
            or (kind == "system" and word_of(message, "subtype") == "init")
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
            self._note_question(text_of(message, "request_id"), map_of(message, "request"))
        elif kind == "rate_limit_event":
            yield from self._rate_limit(map_of(message, "rate_limit_info"))
        elif kind == "error":
            error = map_of(message, "error")
            yield from self._note(FAILURE, text_of(error, "message") or text_of(message, "message"))

    def _note_question(self, question_id: str, request: Mapping[str, Any]) -> None:
        """Note what a question is about; without a request, that it was withdrawn."""
        if request and len(self._questions) < _MAX_REMEMBERED:
            use = text_of(request, "tool_use_id") or use_of(request, "input")
            self._questions[question_id] = use
        elif not request and question_id in self._questions:
            self._withdrawn.add(self._questions[question_id])

    # --- while it is written ---

    def write(self, event: Mapping[str, Any]) -> Iterator[Part]:
        """Show more of the words that are being written."""
        self.has_begun = True
        kind, block = word_of(event, "type"), map_of(event, "content_block")
        if kind in ("message_start", "content_block_start"):
            yield from self._break_off()
            self._written = None
        piece: Any = None
        if kind == "content_block_start" and word_of(block, "type") == "text":
            self._live, piece = LiveText(), block.get("text")
        elif kind == "content_block_delta":
            piece = map_of(event, "delta").get("text")
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
        elif kind == "error" or word_of(message, "subtype") == "api_retry":
            yield from self._break_off()
        elif kind == "result" or word_of(message, "subtype") == "init" or _is_of_turn(message):
            yield from self.end_live()

    def _complete(self, message: Mapping[str, Any]) -> Iterator[Part]:
        """Show the rest of the words, now that the whole message has come."""
        written = "" if self._live is None else self._live.text
        blocks = list_of(map_of(message, "message"), "content")
        texts = [text_of(each, "text") for each in blocks if word_of(each, "type") == "text"]
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
            yield part._replace(pieces=tuple(told))

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
        }.get(word_of(message, "subtype"))
        if render is not None:
            yield from render(message)
        elif word_of(message, "level") in ("warning", "error"):
            yield from self._note(
                FAILURE, text_of(message, "content") or text_of(message, "message")
            )

    def _init(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        self._cwd = text_of(message, "cwd").rstrip("/")
        if self._has_header:
            return  # every turn begins with one
        self._has_header = True
        words = [f"Claude Code {word_of(message, 'claude_code_version')}".strip()]
        words.append(word_of(message, "model"))
        mode = self._mode = word_of(message, "permissionMode")
        if mode not in ("", "default"):
            words.append(f"permission mode {mode}")
        yield from self._note(NOTICE, ", ".join(word for word in words if word))
        for server in list_of(message, "mcp_servers"):
            status = word_of(server, "status")
            if status in ("failed", "needs-auth"):
                name = word_of(server, "name")
                yield from self._note(FAILURE, f"MCP server {name}: {status.replace('-', ' ')}")

    def _retry(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        status = number_of(message, "error_status")
        error = spoken(word_of(message, "error")) or "no answer"
        text = f"API: {error}" + (f" ({status:.0f})" if status else "")
        attempt, most = number_of(message, "attempt"), number_of(message, "max_retries")
        if attempt:
            text += f"; retry {attempt:.0f}" + (f" of {most:.0f}" if most else "")
        delay_ms = number_of(message, "retry_delay_ms")
        if delay_ms is not None:
            text += f" in {_duration(delay_ms / 1_000)}"
        yield from self._note(FAILURE, text)

    def _permission_denied(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        tool_id = text_of(message, "tool_use_id")
        reason = text_of(message, "message") or text_of(message, "decision_reason")
        if len(self._reasons) < _MAX_REMEMBERED:
            self._reasons[tool_id] = word_of(message, "decision_reason_type")
        said = f"refused: {reason}" if reason else "refused"
        if tool_id and tool_id == self._last_tool:
            yield from self._piece("result", said, FAILURE, _NOTE, _BRIEF_NOTE)
        else:
            yield from self._note(FAILURE, f"{word_of(message, 'tool_name') or 'a tool'} {said}")

    def _compacted(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        tokens = number_of(map_of(message, "compact_metadata"), "pre_tokens")
        size = f" ({tokens:,.0f} tokens)" if tokens else ""
        yield from self._note(NOTICE, f"the conversation was compacted{size}")

    def _status(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        if word_of(message, "status") == "compacting":
            yield from self._note(NOTICE, "compacting the conversation")
        mode = word_of(message, "permissionMode")
        if mode and mode != self._mode:
            self._mode = mode
            yield from self._note(NOTICE, f"permission mode {mode}")

    def _tasks_changed(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        self._running_tasks = len(list_of(message, "tasks"))
        yield from ()

    def _task_ended(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        if message.get("summary_is_report") is True:
            return  # a subagent's last words, which have been shown
        tool_id = text_of(message, "tool_use_id")
        if tool_id and tool_id in self._tools:
            return  # a tool that is waited for, and took more than two seconds
        yield from self._note(NOTICE, text_of(message, "summary"))

    def _hook_ended(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        code = number_of(message, "exit_code")
        if word_of(message, "outcome") != "error" and not code:
            return
        name = word_of(message, "hook_name") or word_of(message, "hook_event")
        said = (
            text_of(message, "stderr") or text_of(message, "output") or text_of(message, "stdout")
        )
        how = f" (exit code {code:.0f})" if code else ""
        text = f"hook {name} failed{how}"
        yield from self._note(FAILURE, f"{text}: {said.strip()}" if said.strip() else text)

    def _notify(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        """Show what failed; what else is a notification is of no use without a keyboard."""
        if word_of(message, "key").endswith("error"):
            yield from self._note(FAILURE, _KEY_HINT.sub("", text_of(message, "text")))

    def _rate_limit(self, info: Mapping[str, Any]) -> Iterator[Piece]:
        status = word_of(info, "status")
        if status in ("", "allowed"):
            return
        said = {"allowed_warning": "nearly used up", "rejected": "used up"}.get(status, status)
        kind = spoken(word_of(info, "rateLimitType"))
        yield from self._note(FAILURE, f"rate limit {said}" + (f" ({kind})" if kind else ""))

    # --- what Claude says and does ---

    def _assistant(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        is_subagent = bool(message.get("parent_tool_use_id"))
        is_error = _is_error(message)
        for block in list_of(map_of(message, "message"), "content"):
            kind = word_of(block, "type")
            if kind == "text":
                text = text_of(block, "text")
                yield from self._say(text, is_subagent=is_subagent, is_error=is_error)
            elif kind in ("thinking", "redacted_thinking"):
                yield from self._think(text_of(block, "thinking"), is_subagent=is_subagent)
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
        tool_id = text_of(block, "id")
        tool = self._describe(word_of(block, "name"), map_of(block, "input"))
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
        return _Tool(name, describe(name, given, self._cwd), given)

    # --- what came of it ---

    def _user(self, message: Mapping[str, Any]) -> Iterator[Piece]:
        is_subagent = bool(message.get("parent_tool_use_id"))
        content = map_of(message, "message").get("content")
        for block in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            kind = word_of(block, "type")
            if kind == "text" and text_of(block, "text").startswith("[Request interrupted"):
                text = text_of(block, "text").strip("[]")
                yield from self._note(FAILURE, text, is_subagent=is_subagent)
            elif kind == "text" and message.get("uuid") and not is_subagent:
                # A person's message, which its owner shows: what follows is not behind a tool.
                self._last_group, self._last_tool = "person", ""
            elif kind.endswith("tool_result"):
                self._note_decision(block, list_of(message, "tool_result_meta"))
                details = message.get("tool_use_result")
                yield from self._tool_result(block, details, is_subagent=is_subagent)

    def _note_decision(self, block: Mapping[str, Any], decisions: list[Any]) -> None:
        """Note that it may be a hook that has refused this tool; only new releases say so apart."""
        tool_id, said = text_of(block, "tool_use_id"), result_text(block)
        if block.get("is_error") is not True or len(self._hook_refused) >= _MAX_REMEMBERED:
            return
        is_hook = _HOOK_REFUSED.match(said) or any(
            word_of(map_of(each, "permission_decision"), "source") == "hook"
            for each in decisions
            if text_of(each, "id") == tool_id
        )
        if is_hook or not (tool_id in self._reasons or _REFUSED.search(said)):
            self._hook_refused.add(tool_id)

    def _tool_result(
        self, block: Mapping[str, Any], details: Any, *, is_subagent: bool
    ) -> Iterator[Piece]:
        tool_id = text_of(block, "tool_use_id")
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
            count_changes(diff) if diff else show_result(tool.name, block, details),
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
        turns = number_of(message, "num_turns")
        self.summary = ResultSummary(
            is_error,
            word_of(message, "subtype"),
            word_of(message, "terminal_reason"),
            number_of(message, "duration_ms"),
            number_of(message, "total_cost_usd"),
            None if turns is None else int(turns),
            tuple(tool.name for tool in self._denied.values()),
            word_of(message, "session_id"),
        )
        if self.summary.num_turns is not None:
            self._all_turns = (self._all_turns or 0) + self.summary.num_turns
        if self.summary.duration_ms is not None:
            self._all_ms = (self._all_ms or 0.0) + self.summary.duration_ms
        text = text_of(message, "result").strip()
        if text and text not in self._said:
            yield from self._say(text, is_error=is_error)
        errors = "\n".join(clean(each) for each in list_of(message, "errors"))
        # After an interruption they are about Claude Code's inside.
        if errors.strip() not in self._said and not self.summary.was_interrupted:
            yield from self._note(FAILURE, errors)
        yield from self._tell_denials()
        yield from self._piece("end", _end_line(self.summary, self._running_tasks), END, _ONE_LINE)

    def _collect_denials(self, message: Mapping[str, Any]) -> None:
        for denial in list_of(message, "permission_denials"):
            uses = {text_of(denial, "tool_use_id"), use_of(denial, "tool_input")}
            if len(self._denied) < _MAX_REMEMBERED and not uses & self._withdrawn:
                name, given = word_of(denial, "tool_name"), map_of(denial, "tool_input")
                tool_id = text_of(denial, "tool_use_id") or str(len(self._denied))
                self._denied[tool_id] = self._describe(name, given)

    def _tell_denials(self) -> Iterator[Piece]:
        denied = list(self._denied.values())[self._told_denials :]
        self._told_denials += len(denied)
        if not denied:
            return
        told = f"{count(len(denied), 'tool')} refused:"
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
        word_of(block, "type").endswith("tool_result")
        or text_of(block, "text").startswith("[Request interrupted")
        for block in list_of(map_of(message, "message"), "content")
    )


def _is_error(message: Mapping[str, Any]) -> bool:
    """Whether the words of a message are not Claude's."""
    return message.get("is_api_error_message") is True or bool(message.get("error"))


def _end_line(summary: ResultSummary, running_tasks: int) -> str:
    if summary.was_interrupted:
        verdict = "Interrupted after"
    elif summary.is_error:
        ended, kind = summary.terminal_reason, summary.subtype
        reason = ended if ended not in ("", "completed") else kind.replace("success", "")
        verdict = f"Failed ({spoken(reason)}) after" if reason else "Failed after"
    else:
        verdict = "Done in"
    duration_ms = summary.duration_ms
    parts = [verdict.rsplit(" ", 1)[0]]
    if duration_ms is not None:
        parts = [f"{verdict} {_duration(duration_ms / 1_000)}"]
    if summary.num_turns is not None:
        parts.append(count(summary.num_turns, "turn"))
    if summary.total_cost_usd is not None:
        parts.append(_cost(summary.total_cost_usd))
    if running_tasks:
        parts.append(f"{count(running_tasks, 'background task')} still running")
    return ", ".join(parts)


def _duration(duration_s: float) -> str:
    if duration_s < 59.5:
        digits = 2 if duration_s < 0.1 else 1 if duration_s < 9.95 else 0
        return f"{duration_s:.{digits}f} s"
    minutes, seconds = divmod(round(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def _cost(cost_usd: float) -> str:
    return f"${cost_usd:.4f}" if 0 < cost_usd < 0.01 else f"${cost_usd:.2f}"
