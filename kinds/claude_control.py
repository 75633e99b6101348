"""Claude Code's control protocol: its questions out of its messages, and lines that answer them.

Claude Code, started with `--input-format stream-json --permission-prompt-tool stdio`, asks on its
stdout, one JSON object a line, and waits on its stdin for ever. Closing its stdin is its end. Pure:
no I/O, no threads, no clock.

Measured with 2.1.332, 2.1.197 and 2.0.x: `docs/claude-code.md` has the facts that this rests on.
A line that is no JSON ends Claude Code, so every line is made by `json.dumps` alone. The messages
change with each release: every field is looked at as if it could be missing or of another type.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from kinds.claude_changes import proposed_diff
from kinds.claude_fields import list_of, map_of, raw_of, use_of
from kinds.claude_modes import MODES
from kinds.dialogue import (
    Asked,
    Choice,
    News,
    Noted,
    Option,
    Owed,
    Question,
    Scope,
    Taken,
    Withdrawn,
)

# What starts it so that it listens, and so that it asks.
_LISTENING: Final = ("--input-format", "stream-json")
# Claude Code then says which messages it has read, by printing them.
_REPLAYING: Final = "--replay-user-messages"
# A longer prompt is not to come back: such a line would be too long to be read.
_MAX_REPLAYED_BYTES: Final = 8 * 1_048_576
ASKING_ARGUMENTS: Final = ("--permission-prompt-tool", "stdio")
# An outer session's, or an SDK's, which would hide this session from `/resume`.
WITHHELD_VARIABLES: Final = ("CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT")

_DEFAULT_DENIAL: Final = "The user does not want this. Stop and ask what to do instead."
_UNREADABLE: Final = "the question is too large to be shown to a person"
_REQUEST_HEAD: Final = re.compile(
    rb'\s*\{"type":"control_request","request_id":"([A-Za-z0-9_.-]{1,100})"'
)
# A run that loops must not fill the memory.
_MAX_REMEMBERED: Final = 10_000


def listening_arguments(prompt: str) -> tuple[str, ...]:
    """Return what starts Claude Code so that it reads the prompt, and what follows, as lines."""
    is_short = len(json.dumps(prompt, ensure_ascii=False)) * 4 <= _MAX_REPLAYED_BYTES
    return (*_LISTENING, _REPLAYING) if is_short else _LISTENING


class ClaudeDialogue:
    """One run's talk with Claude Code. `asks`: it was started so that it asks."""

    def __init__(self, *, asks: bool) -> None:
        self._asks = asks
        self._unread: dict[str, None] = {}  # in the order in which they were said
        self._tasks: set[str] = set()
        self._acknowledges = False
        self._is_turn_running = False
        self._awaits_turn = False
        self._was_interrupted = False
        self._is_interrupting = False
        self._ended_turns = 0
        self._asked: set[str] = set()  # the uses of tools that a person was asked about

    @property
    def is_turn_running(self) -> bool:
        """Whether it is working on a message."""
        return self._is_turn_running or bool(self._unread)

    @property
    def is_done(self) -> bool:
        """Whether no turn is running, and neither a message nor a task is under way."""
        return not (self._is_turn_running or self._unread or self._tasks)

    @property
    def awaits_turn(self) -> bool:
        """Whether a turn should begin soon, since a task in the background has ended."""
        return self._awaits_turn

    @property
    def ended_turns(self) -> int:
        """How many turns have ended."""
        return self._ended_turns

    @property
    def was_interrupted(self) -> bool:
        """Whether the last turn that has ended was interrupted."""
        return self._was_interrupted

    # --- messages from it ------------------------------------------------------------------------

    def read(self, message: Mapping[str, Any]) -> list[News]:
        """Return what a message means for those who talk with it."""
        kind = message.get("type")
        if kind == "control_request":
            return self._read_request(message)
        if kind == "control_cancel_request":
            return [Withdrawn(raw_of(message, "request_id"))]
        if kind == "control_response":
            return self._read_response(map_of(message, "response"))
        if kind == "command_lifecycle":
            self._acknowledges = True
            state = message.get("state")
            if state in ("started", "cancelled"):
                return self._take(raw_of(message, "command_uuid"), is_read=state == "started")
        elif kind == "user" and raw_of(message, "uuid") in self._unread:
            # Not by `isReplay`, which 2.0.0 leaves out.
            self._acknowledges = True
            return self._take(raw_of(message, "uuid"))
        elif kind == "system":
            self._read_system(message)
        elif kind == "result":
            return self._end_turn(message)
        return []

    def read_foreign(self, raw: bytes) -> list[News]:
        """Answer a question that cannot be read, so that Claude Code does not wait for ever."""
        head = _REQUEST_HEAD.match(raw)
        return [] if head is None else [Owed(_refuse(head[1].decode(), _UNREADABLE))]

    def _read_request(self, message: Mapping[str, Any]) -> list[News]:
        key = raw_of(message, "request_id")
        request = map_of(message, "request")
        if not key:
            return []
        if request.get("subtype") != "can_use_tool":
            what = raw_of(request, "subtype")[:100]
            return [Owed(_refuse(key, f"claude-runner does not know the request {what!r}"))]
        if not isinstance(request.get("input"), dict):
            return [Owed(_refuse(key, "the question has no input"))]
        if len(self._asked) < _MAX_REMEMBERED:
            self._asked.add(raw_of(request, "tool_use_id") or use_of(request, "input"))
        return [Asked(_read_question(key, request))]

    def _read_response(self, response: Mapping[str, Any]) -> list[News]:
        """Read the answer to `take_back`. All others are echoes, or say nothing that is needed."""
        message_id = raw_of(response, "request_id").removeprefix(_TAKE_BACK)
        if map_of(response, "response").get("cancelled") is True:
            return self._take(message_id, is_read=False)
        return []

    def _take(self, message_id: str, *, is_read: bool = True) -> list[News]:
        if message_id not in self._unread:
            return []
        del self._unread[message_id]
        # Some releases say so before the turn's own beginning.
        self._is_turn_running = self._is_turn_running or is_read
        return [Taken(message_id, is_read)]

    def _read_system(self, message: Mapping[str, Any]) -> None:
        kind = message.get("subtype")
        if kind == "init":
            self._is_turn_running, self._awaits_turn = True, False
        elif kind == "background_tasks_changed":
            self._tasks = {raw_of(each, "task_id") for each in list_of(message, "tasks")}
        elif kind == "task_started" and len(self._tasks) < _MAX_REMEMBERED:
            self._tasks.add(raw_of(message, "task_id"))
        elif kind == "task_notification":
            self._tasks.discard(raw_of(message, "task_id"))
            # Claude Code looks at what it has left in a turn of its own, behind a running one. A
            # task that was waited for, or was stopped, leaves nothing.
            if message.get("status") != "stopped" and raw_of(message, "output_file"):
                self._awaits_turn = True

    def _end_turn(self, message: Mapping[str, Any]) -> list[News]:
        self._is_turn_running = False
        self._ended_turns += 1
        reason = raw_of(message, "terminal_reason")
        is_broken_off = raw_of(message, "subtype") == "error_during_execution"
        is_broken_off = reason.startswith("aborted") or (is_broken_off and not reason)
        # 2.0.77 says so of a turn that was not interrupted, too.
        self._was_interrupted = is_broken_off and self._is_interrupting
        self._is_interrupting = False
        news = list(self._read_denials(message))
        if not self._acknowledges:
            # Nothing comes back of the messages, so all of them count as read by now.
            news += [Taken(message_id) for message_id in self._unread]
            self._unread.clear()
        return news

    def _read_denials(self, message: Mapping[str, Any]) -> Iterator[News]:
        """Report a tool that was refused without a question."""
        unasked = [
            raw_of(denial, "tool_name")
            for denial in list_of(message, "permission_denials")
            if not {raw_of(denial, "tool_use_id"), use_of(denial, "tool_input")} & self._asked
        ]
        if unasked and self._asks:
            names = ", ".join(sorted(set(unasked)))
            yield Noted(
                f"refused without a question: {names}; a setting forbids it, or this release of "
                "Claude Code does not ask"
            )

    # --- messages to it --------------------------------------------------------------------------

    def say(self, message_id: str, text: str) -> bytes:
        """Return a person's message. `message_id` is a UUID."""
        self._unread[message_id] = None
        content = [{"type": "text", "text": text}]
        return _line(
            {
                "type": "user",
                "message": {"role": "user", "content": content},
                "uuid": message_id,
            }
        )

    def take_back(self, message_id: str) -> bytes:
        """Return what asks for a message that was not read yet."""
        request = {"subtype": "cancel_async_message", "message_uuid": message_id}
        return _request(request, _TAKE_BACK + message_id)

    def allow(self, question: Question, answers: Sequence[str], scope: Scope | None) -> bytes:
        """Return the answer that allows the request, with its input unchanged."""
        given = dict(question.given)
        if question.kind == "question":
            texts = [choice.text for choice in question.choices]
            given["answers"] = dict(zip(texts, answers))
        response: dict[str, Any] = {"behavior": "allow", "updatedInput": given}
        if scope is not None:
            response["updatedPermissions"] = [dict(scope.grant)]
        return _respond(question.key, response)

    def deny(self, question: Question, message: str) -> bytes:
        """Return what forbids it. Without a message, Claude Code is told to ask."""
        return _respond(question.key, {"behavior": "deny", "message": message or _DEFAULT_DENIAL})

    def interrupt(self) -> bytes:
        """Return what breaks off the running turn."""
        self._is_interrupting = True
        return _request({"subtype": "interrupt"})

    def set_mode(self, mode: str) -> bytes:
        """Return what switches to another permission mode."""
        return _request({"subtype": "set_permission_mode", "mode": mode})


_TAKE_BACK: Final = "take-back-"


# --- a question ----------------------------------------------------------------------------------


def _read_question(key: str, request: Mapping[str, Any]) -> Question:
    tool = raw_of(request, "tool_name")
    given: dict[str, Any] = request["input"]
    kind = {"AskUserQuestion": "question", "ExitPlanMode": "plan"}.get(tool, "permission")
    choices = _read_choices(given) if kind == "question" else ()
    if kind == "question" and not choices:
        kind = "permission"  # of a shape that is not known; shown as it is
    forced = request.get("decision_reason_type") == "rule" or bool(request.get("matched_ask_rule"))
    suppressed = request.get("suppress_always_allow_rule") is True or forced
    return Question(
        key=key,
        kind=kind,
        tool=tool,
        given=given,
        title=raw_of(request, "title") or raw_of(request, "description"),
        reason=raw_of(request, "decision_reason"),
        agent=raw_of(request, "agent_id"),
        diff=proposed_diff(tool, given),
        plan=raw_of(given, "plan") if kind == "plan" else "",
        choices=choices,
        scopes=() if suppressed or kind != "permission" else tuple(_read_scopes(request)),
        defaults_to_no=request.get("default_to_no") is True,
    )


def _read_choices(given: Mapping[str, Any]) -> tuple[Choice, ...]:
    """Return the questions of an AskUserQuestion; none if one of them has no text."""
    asked = given.get("questions")
    choices = [
        Choice(
            raw_of(each, "question"),
            raw_of(each, "header"),
            isinstance(each, Mapping) and each.get("multiSelect") is True,
            tuple(
                Option(raw_of(option, "label"), raw_of(option, "description"))
                for option in list_of(each, "options")
            ),
        )
        for each in (asked if isinstance(asked, list) else [])
    ]
    texts = {choice.text for choice in choices}
    # Answers are keyed by the question's text, so each text must be unique.
    return tuple(choices) if len(texts) == len(choices) and "" not in texts else ()


def _read_scopes(request: Mapping[str, Any]) -> list[Scope]:
    """Return what Claude Code suggests to allow, for this session alone."""
    scopes = []
    for each in list_of(request, "permission_suggestions"):
        if not isinstance(each, Mapping):
            continue
        kind = raw_of(each, "type")
        grant = {**each, "destination": "session"}
        if kind == "setMode" and each.get("mode") in MODES:
            mode = each["mode"]
            scopes.append(Scope(f"switch to the mode {mode}", grant, mode))
        elif kind == "addRules" and each.get("behavior") == "allow":
            rules = [_rule(rule) for rule in list_of(each, "rules")]
            if rules and all(rules):
                scopes.append(Scope(f"allow {', '.join(rules)}", grant))
        elif kind == "addDirectories":
            folders = list_of(each, "directories")
            if folders and all(isinstance(folder, str) and folder for folder in folders):
                scopes.append(Scope(f"allow work in {', '.join(folders)}", grant))
    return scopes


def _rule(rule: Any) -> str:
    tool, content = raw_of(rule, "toolName"), raw_of(rule, "ruleContent")
    return f"{tool}({content})" if tool and content else tool


# --- lines and fields ----------------------------------------------------------------------------


def _line(value: Mapping[str, Any]) -> bytes:
    """Return one line of JSON: ASCII, so that no character of a text can end it."""
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def _respond(key: str, response: Mapping[str, Any]) -> bytes:
    answer = {"subtype": "success", "request_id": key, "response": response}
    return _line({"type": "control_response", "response": answer})


def _refuse(key: str, error: str) -> bytes:
    answer = {"subtype": "error", "request_id": key, "error": error}
    return _line({"type": "control_response", "response": answer})


def _request(request: Mapping[str, Any], request_id: str = "") -> bytes:
    request_id = request_id or str(uuid.uuid4())
    return _line({"type": "control_request", "request_id": request_id, "request": request})
