"""Stands in for Claude Code: its control protocol on stdin and stdout, played from a script.

Usage: claude_control.py SCRIPT RECORD [Claude Code's own arguments]

`testing.programs.claude_standin` writes SCRIPT, says what its steps are, and reads RECORD, a line
of JSON for each thing that happened, written before anything that follows from it is printed:

    {"started": {"argv", "environment", "terminals"}}
    {"read": TEXT}              each line of stdin, as it came
    {"closed": true}            the end of stdin
    {"signal": NAME}
    {"asked": REQUEST}          each request of its own, `request_id` included
    {"decided": {"tool", "behavior", …}}   what became of a tool: allow, deny, refused, withdrawn
    {"answered": RESPONSE}      the answer to a request that is no question
    {"turn": [TEXT, …]}         the messages that a turn begins with; none after a task's end
    {"joined": TEXT}            a message that joined the running turn

Source: measured with 2.1.332, 2.1.197, 2.0.77 and 2.0.0; what differs stands in `_Release`. Not so:
it never takes time. They end 0.2 s (2.1) to 2 s (2.0) after their stdin.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from typing import Any, Callable

Fields = dict[str, Any]

GATE_EVERY_S = 0.01
READ_BYTES = 1 << 16
REJECTED = (
    "The user doesn't want to proceed with this tool use. The tool use was rejected (eg. if it "
    "was a file edit, the new_string was NOT written to the file). STOP what you are doing and "
    "wait for the user to tell you how to proceed."
)
MODES = ("acceptEdits", "auto", "bypassPermissions", "default", "dontAsk", "plan")
ALWAYS_ASKED = ("AskUserQuestion", "ExitPlanMode")
RESETS = (
    "\x1b[?1006l\x1b[?1003l\x1b[?1002l\x1b[?1000l\x1b(B\x0f\x1b[>4m\x1b[<u\x1b[?1004l\x1b[?2031l"
    "\x1b[?2004l\x1b[?25h\x1b7\x1b[r\x1b8\x1b]0;\x07"
)
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Interrupted(Exception):  # noqa: N818 - no error
    """The running turn was interrupted."""


class _TurnEnded(Exception):  # noqa: N818 - no error
    """A step has ended the turn by itself."""


class _Release:
    """What differs between the releases."""

    def __init__(self, text: str) -> None:
        number = tuple(int(part) for part in text.split("."))
        self.text = text
        # Receipts, `command_lifecycle`, subagents in the background, further turns told at once.
        self.is_332 = number >= (2, 1, 205)
        # Answers to every request, tasks, messages that are joined to one turn, exit codes.
        self.is_21 = number >= (2, 1)
        # Neither `isReplay` nor `tool_use_id`, and turns that are counted for the whole session.
        self.is_first = number == (2, 0, 0)


class _Turn:
    """The running turn."""

    def __init__(self, messages: list[Fields]) -> None:
        self.messages = messages
        self.joined: list[Fields] = []
        self.unsaid = messages  # what the first line of the turn is preceded by
        self.denials: list[Fields] = []
        self.said = ""
        self.written = ""  # a text that is not complete
        self.tool: Fields | None = None  # that is running, or is asked about
        self.count = 0


class Claude:
    """One session."""

    def __init__(self, script: Fields, record: str, argv: list[str]) -> None:
        self._argv = argv
        self._record_fd = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._release = _Release(script["version"])
        self._turns: list[list[Fields]] = list(script["turns"])
        self._ignored = set(script["ignores"])
        self._session = self._option("--session-id") or self._option("--resume") or _new_id()
        self._mode = self._option("--permission-mode") or "default"
        self._replays = "--replay-user-messages" in argv
        self._asks = self._option("--permission-prompt-tool") == "stdio"
        self._is_partial = "--include-partial-messages" in argv
        self._takes_lines = self._option("--input-format") == "stream-json"
        self._rules: list[Fields] = []
        self._buffer = bytearray()
        self._is_closed = False
        self._deaf_until = ""
        self._messages: list[Fields] = []  # that wait
        self._turn: _Turn | None = None
        self._is_interrupted = False
        self._questions: dict[str, Fields] = {}
        self._answers: dict[str, Fields | None] = {}  # to its other requests
        self._tasks: list[Fields] = []
        self._due: list[Fields] = []  # tasks that have ended and get a further turn
        self._results = 0
        self._all_turns = 0
        self._last_failed = False

    def _option(self, name: str) -> str | None:
        for index, word in enumerate(self._argv):
            if word == name:
                return self._argv[index + 1]
            if word.startswith(f"{name}="):
                return word[len(name) + 1 :]
        return None

    # --- from start to end --------------------------------------------------------------------

    def run(self) -> None:
        """Be there until the end."""
        self._wake, writer = os.pipe()
        for fd in (self._wake, writer):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, lambda *_: None)
        environment = {key: text for key, text in os.environ.items() if key.startswith("CLAUDE")}
        terminals = [os.isatty(fd) for fd in (0, 1, 2)]
        started = {"argv": self._argv, "environment": environment, "terminals": terminals}
        self._record(started=started)
        if not self._takes_lines:
            self._is_closed = True
            self._messages.append({"text": self._argv[-1], "uuid": _new_id(), "is_named": False})
        while True:
            self._go_on()

    def _go_on(self) -> None:
        if self._messages:
            # The first that comes while it is idle begins a turn; those behind it wait.
            self._run_turn([self._messages.pop(0)])
            self._run_waiting()
        elif self._due:
            self._run_further_turn()
            self._run_waiting()
        elif self._is_over():
            self._leave(1 if self._last_failed else 0)
        else:
            self._pump()

    def _run_waiting(self) -> None:
        while self._messages:
            count = len(self._messages) if self._release.is_21 else 1
            taken, self._messages = self._messages[:count], self._messages[count:]
            self._run_turn(taken)

    def _is_over(self) -> bool:
        is_held = "close" in self._ignored or self._tasks or self._questions
        return self._is_closed and not is_held

    def _leave(self, code: int, *, is_reset: bool = False) -> None:
        if not is_reset:
            self._reset_terminal()
        if os.isatty(2):
            os.write(2, b"\x1b[?25h")
        os._exit(code)

    def _reset_terminal(self) -> None:
        if self._release.is_21 and not self._release.is_332 and os.isatty(1):
            self._write(RESETS)

    # --- what it prints -----------------------------------------------------------------------

    def _record(self, **fields: Any) -> None:
        os.write(self._record_fd, _encode(fields))

    def _write(self, text: str | bytes) -> None:
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        while data:
            data = data[os.write(1, data) :]

    def _send(self, kind: str, **fields: Any) -> None:
        self._write(_encode({"type": kind, **fields}))

    def _say(self, kind: str, content: list[Fields], **fields: Any) -> None:
        """Print an `assistant` or `user` line; a turn's first brings what it answers with it."""
        self._replay()
        self._send_message(kind, content, _new_id(), **fields)

    def _send_message(self, kind: str, content: list[Fields], uuid: str, **fields: Any) -> None:
        message: Fields = {"role": kind, "content": content}
        if kind == "assistant":
            usage = {"input_tokens": 10, "output_tokens": 5}
            message = {"model": "stand-in", "id": f"msg_{_new_id()[:20]}", "type": "message",
                       **message, "stop_reason": None, "usage": usage}  # fmt: skip
        fields.setdefault("parent_tool_use_id", None)
        self._send(kind, message=message, session_id=self._session, uuid=uuid, **fields)

    def _replay(self) -> None:
        if self._turn is not None and self._turn.unsaid:
            said, self._turn.unsaid = self._turn.unsaid, []
            self._send_back(said)

    def _send_back(self, messages: list[Fields]) -> None:
        """Print messages as one, under the name of the last."""
        if self._replays:
            content = [_text_block(each["text"]) for each in messages]
            mark = {} if self._release.is_first else {"isReplay": True}
            self._send_message("user", content, messages[-1]["uuid"], **mark)

    def _system(self, subtype: str, **fields: Any) -> None:
        self._send("system", subtype=subtype, session_id=self._session, uuid=_new_id(), **fields)

    def _tell_lifecycle(self, messages: list[Fields], state: str) -> None:
        for each in messages:
            if self._release.is_332 and each["is_named"]:
                names = {"command_uuid": each["uuid"], "uuid": _new_id()}
                self._send("command_lifecycle", state=state, session_id=self._session, **names)

    def _tell_init(self) -> None:
        version = {} if self._release.is_first else {"claude_code_version": self._release.text}
        tools = ["Bash", "Edit", "Write", *ALWAYS_ASKED]
        self._system("init", cwd=os.getcwd(), tools=tools, mcp_servers=[], model="stand-in",
                     permissionMode=self._mode, **version)  # fmt: skip

    def _tell_mode(self) -> None:
        if self._release.is_21:
            self._system("status", status=None, permissionMode=self._mode)

    # --- what it reads ------------------------------------------------------------------------

    def _pump(self, is_over: Callable[[], bool] | None = None, gate: str = "") -> None:
        """See to stdin, signals and tasks until `is_over`, or until the file `gate` is there.

        Without either: until something may have happened. Raises: _Interrupted, in a turn.
        """
        while not ((is_over and is_over()) or (gate and os.path.exists(gate))):
            is_deaf = bool(self._deaf_until) and not os.path.exists(self._deaf_until)
            has_gates = gate or is_deaf or any(task["until"] for task in self._tasks)
            files = [self._wake] if self._is_closed or is_deaf else [self._wake, 0]
            ready = select.select(files, [], [], GATE_EVERY_S if has_gates else None)[0]
            if self._wake in ready:
                for number in os.read(self._wake, 100):
                    self._take_signal(number)
            if 0 in ready:
                self._read()
            self._look_at_tasks()
            was_interrupted, self._is_interrupted = self._is_interrupted, False
            if was_interrupted and self._turn is not None:
                raise _Interrupted
            if is_over is None and not gate:
                return

    def _read(self) -> None:
        data = os.read(0, READ_BYTES)
        if not data:
            self._is_closed = True
            self._record(closed=True)
            message = f"Tool permission request failed: {self._closed_error()}"
            for question in list(self._questions.values()):
                self._close(question, message)
            return
        self._buffer += data
        if b"\n" in data:
            *lines, rest = bytes(self._buffer).split(b"\n")
            self._buffer = bytearray(rest)
            for line in lines:
                self._take_line(line)

    def _take_line(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace")
        self._record(read=text)
        if not text.strip():
            return
        try:
            value = json.loads(text)
        except ValueError:
            os.write(2, b"Error parsing streaming input line: " + line[:1000] + b"\n")
            self._leave(1)
            return
        kind = value.get("type")
        if kind == "user":
            self._take_message(value)
        elif kind == "control_request":
            self._take_request(value["request_id"], value["request"])
        elif kind == "control_response":
            self._take_response(value)

    def _take_message(self, value: Fields) -> None:
        content = value["message"]["content"]
        if not isinstance(content, str):
            content = "".join(each.get("text", "") for each in content)
        uuid = value.get("uuid")
        message = {"text": content, "uuid": uuid or _new_id(), "is_named": uuid is not None}
        self._messages.append(message)
        self._tell_lifecycle([message], "queued")

    def _take_signal(self, number: int) -> None:
        if number not in HANDLED:
            return
        name = signal.Signals(number).name
        self._record(signal=name)
        if name in self._ignored:
            return
        if number != signal.SIGINT:
            os._exit(128 + number)
        if self._release.is_21:
            self._withdraw_all()
            self._reset_terminal()  # on the line of what comes
            if self._turn is not None:
                self._abort_turn()
        self._leave(0, is_reset=self._release.is_21)

    # --- requests to it -----------------------------------------------------------------------

    def _take_request(self, request_id: str, request: Fields) -> None:
        subtype = str(request.get("subtype"))
        if subtype in self._ignored:
            return
        if subtype == "interrupt":
            self._withdraw_all()
            still = {"still_queued": [each["uuid"] for each in self._messages]}
            self._succeed(request_id, still if self._release.is_332 else None)
            self._is_interrupted = True
        elif subtype == "set_permission_mode":
            self._set_mode(request_id, request["mode"])
        elif subtype == "cancel_async_message" and self._release.is_21:
            self._cancel_message(request_id, request["message_uuid"])
        elif subtype == "initialize":
            self._succeed(request_id, {"commands": [], "models": []})
        elif self._release.is_21:
            code = {"error_code": "unsupported_request"} if self._release.is_332 else {}
            self._fail(request_id, f"Unsupported control request subtype: {subtype}", **code)

    def _succeed(self, request_id: str, response: Fields | None = None) -> None:
        fields = {} if response is None else {"response": response}
        answer = {"subtype": "success", "request_id": request_id, **fields}
        self._send("control_response", response=answer)

    def _fail(self, request_id: str, error: str, **fields: str) -> None:
        answer = {"subtype": "error", "request_id": request_id, "error": error, **fields}
        self._send("control_response", response=answer)

    def _set_mode(self, request_id: str, mode: str) -> None:
        prefix = "Cannot set permission mode"
        if self._release.is_21 and mode == "bypassPermissions":
            reason = "the session was not launched with --dangerously-skip-permissions"
            self._fail(request_id, f"{prefix} to bypassPermissions because {reason}")
        elif self._release.is_332 and mode not in (*MODES, "manual"):
            self._fail(request_id, f"{prefix}: must be one of {', '.join(MODES)}")
        else:
            self._mode = "default" if mode == "manual" else mode
            self._succeed(request_id, {"mode": self._mode})
            self._tell_mode()
            if not self._release.is_21:
                self._succeed(request_id)

    def _cancel_message(self, request_id: str, uuid: str) -> None:
        found = [each for each in self._messages if each["uuid"] == uuid]
        self._messages = [each for each in self._messages if each["uuid"] != uuid]
        self._tell_lifecycle(found, "cancelled")
        name = {"message_uuid": uuid} if found and self._release.is_332 else {}
        self._succeed(request_id, {"cancelled": bool(found), **name})

    # --- turns --------------------------------------------------------------------------------

    def _run_turn(self, messages: list[Fields]) -> None:
        for each in messages[:-1]:
            self._send_back([each])
        self._record(turn=[each["text"] for each in messages])
        self._tell_lifecycle(messages, "started")
        if self._turns:
            steps = self._turns.pop(0)
        else:
            text = " ".join(" ".join(each["text"] for each in messages).split())
            steps = [{"do": "say", "text": f"Answer: {text[:60]}"}]
        self._play_turn(steps, messages)

    def _run_further_turn(self) -> None:
        task = self._due.pop(0)
        if not self._release.is_332:
            self._notify(task)
        elif self._due:
            # Two tasks that end together: the first of their turns is empty.
            self._begin([])
            self._end_turn("success", result="", num_turns=0, terminal_reason=None)
            return
        self._record(turn=[])
        self._play_turn(task["then"], [])

    def _begin(self, messages: list[Fields]) -> _Turn:
        self._turn = _Turn(messages)
        self._is_interrupted = False
        self._tell_init()
        return self._turn

    def _play_turn(self, steps: list[Fields], messages: list[Fields]) -> None:
        turn = self._begin(messages)
        try:
            self._play(steps)
            self._replay()
            self._end_turn("success", result=turn.said)
        except _Interrupted:
            self._abort_turn()
        except _TurnEnded:
            pass

    def _abort_turn(self) -> None:
        """End the turn as an interrupt does."""
        turn = self._the_turn
        if turn.written and self._release.is_21:
            mark = {"aborted": True} if self._release.is_332 else {}
            self._say("assistant", [_text_block(turn.written)], **mark)
        suffix = "" if turn.tool is None else " for tool use"
        note = f"[Request interrupted by user{suffix}]"
        if turn.tool is not None:
            self._tell_result(turn.tool, REJECTED if self._release.is_21 else note, is_error=True)
        self._say("user", [_text_block(note)])
        self._end_turn(
            "error_during_execution",
            is_error=self._release.is_21,
            terminal_reason="aborted_streaming" if turn.tool is None else "aborted_tools",
        )

    def _end_turn(self, subtype: str, **fields: Any) -> None:
        turn = self._the_turn
        self._turn = None
        self._results += 1
        self._all_turns += max(1, turn.count)
        values = {
            "subtype": subtype,
            "is_error": False,
            "duration_ms": 100,
            "duration_api_ms": 50,
            "num_turns": self._all_turns if self._release.is_first else max(1, turn.count),
            "terminal_reason": "completed",
            "total_cost_usd": self._results / 100,  # of the process; all else is of the turn
            "usage": {"input_tokens": 10, "output_tokens": 5},
            "permission_denials": turn.denials,
            **fields,
        }
        if not self._release.is_21 or values["terminal_reason"] is None:
            del values["terminal_reason"]
        if self._release.is_332:
            values["result_index"] = self._results - 1
        self._last_failed = bool(values["is_error"])
        self._tell_lifecycle(turn.joined, "completed")
        self._send("result", session_id=self._session, uuid=_new_id(), **values)
        self._tell_lifecycle(turn.messages, "cancelled" if self._last_failed else "completed")

    @property
    def _the_turn(self) -> _Turn:
        assert self._turn is not None, "no turn is running"
        return self._turn

    # --- steps --------------------------------------------------------------------------------

    def _play(self, steps: list[Fields]) -> None:
        for step in steps:
            getattr(self, f"_do_{step['do']}")(step)

    def _do_say(self, step: Fields) -> None:
        turn = self._the_turn
        turn.count += 1
        turn.said = step["text"] * step.get("times", 1)
        self._say("assistant", [_text_block(turn.said)])

    def _do_write(self, step: Fields) -> None:
        text = step["text"]
        self._the_turn.written = text
        if self._is_partial:
            self._replay()
            self._tell_piece("message_start", message={"role": "assistant", "content": []})
            self._tell_piece("content_block_start", index=0, content_block=_text_block(""))
            for at in range(0, len(text), 3):
                delta = {"type": "text_delta", "text": text[at : at + 3]}
                self._tell_piece("content_block_delta", index=0, delta=delta)
        self._pump(gate=step["until"])
        self._the_turn.written = ""
        self._do_say({"text": step["whole"]})
        if self._is_partial:
            self._tell_piece("content_block_stop", index=0)
            self._tell_piece("message_stop")

    def _tell_piece(self, kind: str, **fields: Any) -> None:
        """Print a piece of a message, as with `--include-partial-messages`."""
        names = {"session_id": self._session, "parent_tool_use_id": None, "uuid": _new_id()}
        self._send("stream_event", event={"type": kind, **fields}, **names)

    def _do_wait(self, step: Fields) -> None:
        self._pump(gate=step["until"])

    def _do_deaf(self, step: Fields) -> None:
        self._deaf_until = step["until"]

    def _do_line(self, step: Fields) -> None:
        self._write(step["text"])

    def _do_fail(self, step: Fields) -> None:
        text = step["text"]
        self._say("assistant", [_text_block(text)], error="server_error")
        reason = "api_error" if self._release.is_332 else None
        self._end_turn("success", is_error=True, result=text, terminal_reason=reason)
        raise _TurnEnded

    def _do_die(self, step: Fields) -> None:
        if "signal" in step:
            number = getattr(signal, step["signal"])
            if number != signal.SIGKILL:
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            signal.pause()
        os._exit(step["code"])

    def _do_request(self, step: Fields) -> None:
        request_id = step.get("id") or _new_id()
        self._answers[request_id] = None
        self._record(asked={"request_id": request_id, **step["request"]})
        self._send("control_request", request_id=request_id, request=step["request"])
        if step["waits"]:
            self._pump(lambda: self._answers[request_id] is not None)

    def _do_cancel(self, _step: Fields) -> None:
        for question in list(self._questions.values()):
            self._send("control_cancel_request", request_id=question["id"])
            self._close(question, REJECTED)

    def _do_tools(self, step: Fields) -> None:
        self._the_turn.count += 1
        tools = [_new_tool(each) for each in step["tools"]]
        for tool in tools:
            self._use(tool)
        for tool in tools:
            self._decide(tool)

    def _use(self, tool: Fields) -> None:
        block = {key: tool[key] for key in ("id", "name", "input")}
        self._say("assistant", [{"type": "tool_use", **block}], **tool["marks"])

    # --- a tool: asked about, run or refused --------------------------------------------------

    def _decide(self, tool: Fields) -> None:
        if not self._must_ask(tool):
            self._run_tool(tool, tool["input"])
        elif not self._asks:
            self._refuse_unasked(tool)
        elif not self._takes_lines:
            self._refuse(tool, "Tool permission request failed: AbortError: Stream closed")
        elif self._is_closed:
            self._refuse(tool, f"Tool permission request failed: {self._closed_error()}")
        else:
            question = self._ask(tool)
            self._the_turn.tool = tool
            self._play(tool["while_open"])
            self._pump(lambda: question["response"] is not None)
            self._the_turn.tool = None
            self._follow(question)

    def _must_ask(self, tool: Fields) -> bool:
        name = tool["name"]
        if name in ALWAYS_ASKED:
            return True
        if tool["is_free"] or (self._mode == "acceptEdits" and name in ("Edit", "Write")):
            return False
        command = str(tool["input"].get("command", ""))
        return not any(_fits(rule, name, command) for rule in self._rules)

    def _ask(self, tool: Fields) -> Fields:
        name = tool["name"]
        fields = {"tool_name": name, "input": tool["input"]}
        if self._release.is_21:
            fields["display_name"] = name
        if self._release.is_332 and name in ALWAYS_ASKED:
            fields["requires_user_interaction"] = True
        if not self._release.is_first:
            fields["tool_use_id"] = tool["id"]
        request = {"subtype": "can_use_tool", **fields, **tool["request"]}
        request_id = tool.get("request_id") or _new_id()
        question = {"id": request_id, "tool": tool, "response": None}
        self._questions[request_id] = question
        self._record(asked={"request_id": request_id, **request})
        self._send("control_request", request_id=request_id, request=request)
        return question

    def _take_response(self, value: Fields) -> None:
        response = value["response"]
        request_id = response["request_id"]
        if request_id in self._answers:
            self._answers[request_id] = response
            self._record(answered=response)
            return
        question = self._questions.pop(request_id, None)
        if question is None:
            return
        if self._replays and not self._release.is_first and response["subtype"] == "success":
            self._write(_encode(value))
        question["response"] = response
        if question["tool"]["task"]:
            self._follow(question)

    def _follow(self, question: Fields) -> None:
        """Do what the answer says."""
        tool, response = question["tool"], question["response"]
        prefix = "Tool permission request failed: "
        answer = response.get("response") or {}
        behavior = answer.get("behavior")
        if "withdrawn" in response:
            self._refuse(tool, response["withdrawn"])
        elif response["subtype"] == "error":
            self._refuse(tool, f"{prefix}Error: {response['error']}")
        elif behavior == "allow" and (self._release.is_332 or "updatedInput" in answer):
            self._permit(answer.get("updatedPermissions") or [])
            self._run_tool(tool, answer.get("updatedInput") or tool["input"], answer)
        elif behavior == "deny" and isinstance(answer.get("message"), str):
            self._refuse(tool, answer["message"], "deny")
            if answer.get("interrupt") and not tool["task"]:
                raise _Interrupted
        elif self._release.is_332:
            self._refuse(tool, "The canUseTool callback returned an invalid permission result.")
        else:
            self._refuse(tool, f"{prefix}ZodError")

    def _permit(self, updates: list[Fields]) -> None:
        for each in updates:
            if each["type"] == "setMode":
                self._mode = each["mode"]
                self._tell_mode()
            elif each["type"] == "addRules":
                self._rules += each["rules"]
            if each["destination"] == "localSettings":
                os.makedirs(".claude", exist_ok=True)
                with open(".claude/settings.local.json", "w", encoding="utf-8") as file:
                    json.dump(each, file)

    def _run_tool(self, tool: Fields, given: Fields, answer: Fields | None = None) -> None:
        permissions = (answer or {}).get("updatedPermissions")
        decided = {"tool": tool["name"], "behavior": "allow", "input": given}
        self._record(decided={**decided, "permissions": permissions, "asked": answer is not None})
        if tool["name"] == "AskUserQuestion":
            self._tell_answers(tool, given)
        elif tool["name"] == "ExitPlanMode":
            self._leave_plan(tool, permissions or [])
        else:
            if tool["until"] and not tool["task"]:
                self._the_turn.tool = tool
                self._pump(gate=tool["until"])
                self._the_turn.tool = None
            self._tell_result(tool, tool["result"])
            self._join()

    def _tell_answers(self, tool: Fields, given: Fields) -> None:
        if "questions" not in given:
            self._tell_result(tool, "InputValidationError: questions is missing", is_error=True)
            return
        answers = given.get("answers") or {}
        asked = [each["question"] for each in given["questions"]]
        texts = {each: answers[each] for each in asked if each in answers}
        pairs = ", ".join(
            f'"{each}"="{",".join(text) if isinstance(text, list) else text}"'
            for each, text in texts.items()
        )
        told = f"Your questions have been answered: {pairs}."
        self._tell_result(tool, told if texts else "The user did not answer the questions.")
        self._join()

    def _leave_plan(self, tool: Fields, permissions: list[Fields]) -> None:
        modes = [each["mode"] for each in permissions if each["type"] == "setMode"]
        if self._mode != "plan" and not modes:
            self._tell_result(tool, "You are not in plan mode.", is_error=True)
        else:
            if not modes:
                self._mode = "default"
                self._tell_mode()
            self._tell_result(tool, "User has approved your plan. You can now start coding.")
        self._join()

    def _refuse(self, tool: Fields, message: str, behavior: str = "refused") -> None:
        self._record(decided={"tool": tool["name"], "behavior": behavior, "message": message})
        self._count_denial(tool)
        self._tell_result(tool, message, is_error=True)
        self._join()

    def _count_denial(self, tool: Fields) -> None:
        if self._turn is not None:
            names = {"tool_name": tool["name"], "tool_use_id": tool["id"]}
            self._turn.denials.append({**names, "tool_input": tool["input"]})

    def _refuse_unasked(self, tool: Fields) -> None:
        name = tool["name"]
        message = f"Claude requested permissions to use {name}, but you haven't granted it yet."
        if self._release.is_332:
            names = {"tool_name": name, "tool_use_id": tool["id"]}
            self._system("permission_denied", message=message, **names)
        self._refuse(tool, message)

    def _tell_result(self, tool: Fields, content: str, *, is_error: bool = False) -> None:
        block = {"type": "tool_result", "tool_use_id": tool["id"], "content": content}
        self._say("user", [{**block, "is_error": is_error}], **tool["marks"])

    def _join(self) -> None:
        """Take what waits into the running turn, as its next request to the model does."""
        if self._turn is None:
            return
        waiting, self._messages = self._messages, []
        for each in waiting:
            self._record(joined=each["text"])
            self._send_back([each])
            self._tell_lifecycle([each], "started")
        self._turn.joined += waiting

    # --- questions that nobody answers --------------------------------------------------------

    def _closed_error(self) -> str:
        kind = "AbortError" if self._release.is_332 else "Error"
        return f"{kind}: Tool permission stream closed before response received"

    def _close(self, question: Fields, message: str) -> None:
        del self._questions[question["id"]]
        question["response"] = {"withdrawn": message}
        if question["tool"]["task"]:
            self._follow(question)

    def _withdraw_all(self) -> None:
        """An interrupt: no question stays open, and no subagent goes on."""
        questions, self._questions = self._questions, {}
        for question in questions.values():
            tool, task = question["tool"], question["tool"]["task"]
            self._send("control_cancel_request", request_id=question["id"])
            self._record(decided={"tool": tool["name"], "behavior": "withdrawn"})
            self._count_denial(tool)
            if task:
                self._end_task(task, "stopped")

    # --- tasks in the background --------------------------------------------------------------

    def _do_background(self, step: Fields) -> None:
        given = {"command": step["command"], "run_in_background": True}
        tool = _new_tool({"name": "Bash", "input": given})
        self._the_turn.count += 1
        self._use(tool)
        # 2.0 says nothing about it and does not wait for it.
        if self._release.is_21:
            self._start_task(tool, "local_bash", step)
        self._tell_result(tool, "Command running in background with ID: b1.")

    def _do_subagents(self, step: Fields) -> None:
        turn = self._the_turn
        turn.count += 1
        name = "Agent" if self._release.is_21 else "Task"
        agents = [
            _new_tool({"name": name, "input": {"description": "a part", "prompt": "Do it."}})
            for _ in step["tools"]
        ]
        for agent, used in zip(agents, step["tools"]):
            self._use(agent)
            task = self._start_task(agent, "local_agent", step)
            if self._release.is_332:
                self._tell_result(agent, "Async agent launched successfully.")
            agent_id = {"agent_id": task["id"]}
            tool = _new_tool(used)
            tool["task"] = task
            tool["marks"] = {
                "parent_tool_use_id": agent["id"],
                **(agent_id if self._release.is_332 else {}),
            }
            tool["request"] = {**(agent_id if self._release.is_21 else {}), **tool["request"]}
            self._use(tool)
            if self._is_closed:
                self._refuse(tool, f"Tool permission request failed: {self._closed_error()}")
            else:
                task["question"] = self._ask(tool)["id"]
        self._play(step.get("while_open", []))
        if not self._release.is_332:
            turn.tool = agents[0]
            self._pump(lambda: not any(task["kind"] == "local_agent" for task in self._tasks))
            turn.tool = None

    def _start_task(self, tool: Fields, kind: str, step: Fields) -> Fields:
        until = step["until"] if kind == "local_bash" else ""
        task = {"id": f"b{_new_id()[:8]}", "tool": tool, "kind": kind, "until": until,
                "then": step["then"], "question": ""}  # fmt: skip
        self._tasks.append(task)
        self._tell_tasks()
        if self._release.is_21:
            mark = {"is_backgrounded": True} if self._release.is_332 else {}
            names = {"task_id": task["id"], "tool_use_id": tool["id"], "task_type": kind}
            self._system("task_started", description="a task", **names, **mark)
        return task

    def _tell_tasks(self) -> None:
        if self._release.is_332:
            tasks = [{"task_id": each["id"], "task_type": each["kind"]} for each in self._tasks]
            self._system("background_tasks_changed", tasks=tasks)

    def _look_at_tasks(self) -> None:
        for task in list(self._tasks):
            if task["until"]:
                is_over = os.path.exists(task["until"])
            else:
                is_over = task["question"] not in self._questions
            if is_over:
                self._end_task(task, "completed")

    def _end_task(self, task: Fields, status: str) -> None:
        self._tasks.remove(task)
        task["status"] = status
        if self._release.is_21:
            patch = {"status": "killed" if status == "stopped" else status}
            self._system("task_updated", task_id=task["id"], patch=patch)
        if self._release.is_332 or self._is_foreground(task):
            self._notify(task)
        self._tell_tasks()
        if status == "completed" and self._is_foreground(task):
            self._tell_result(task["tool"], "subdone")
        elif status == "completed":
            self._due.append(task)

    def _is_foreground(self, task: Fields) -> bool:
        return task["kind"] == "local_agent" and not self._release.is_332

    def _notify(self, task: Fields) -> None:
        if self._release.is_21:
            output = "" if self._is_foreground(task) else f"/tmp/{task['id']}.output"
            names = {"task_id": task["id"], "tool_use_id": task["tool"]["id"]}
            self._system("task_notification", status=task["status"], output_file=output,
                         summary="a task", **names)  # fmt: skip


def _new_tool(step: Fields) -> Fields:
    defaults = {
        "id": f"toolu_{_new_id()[:20]}",
        "request": {},  # what is in the question beside what is always there
        "marks": {},
        "while_open": [],
        "until": "",
        "result": "(Bash completed with no output)",
        "is_free": False,
        "task": None,
    }
    return {**defaults, **step}


def _text_block(text: str) -> Fields:
    return {"type": "text", "text": text}


def _fits(rule: Fields, name: str, command: str) -> bool:
    """Whether a rule of this session allows a tool."""
    content = rule.get("ruleContent")
    if rule["toolName"] != name:
        return False
    is_prefix = content is not None and content.endswith((":*", " *"))
    return content in (None, command) or (is_prefix and command.startswith(content[:-2]))


def _encode(value: Fields) -> bytes:
    """Return a line of JSON as JavaScript writes it: only what UTF-8 cannot hold is escaped."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _new_id() -> str:
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def main() -> None:
    """Play the script."""
    path, record, *argv = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        script = json.load(file)
    if argv == ["--version"]:
        print(f"{script['version']} (Claude Code)")
        return
    Claude(script, record, argv).run()


main()
