"""A model for Claude Code to talk to: the messages API on loopback, without a model behind it.

    with ModelApi() as api:
        env["ANTHROPIC_BASE_URL"] = api.url
        ...                                    # Claude Code runs with the prompt "model: run date"
        api.wait_for(lambda: api.count("run") == 1)

What it answers stands in the prompt, one step a line. Steps are taken in order; a tool ends the
answer, and the next request (which brings the tool's result) goes on behind it. A line that begins
with `model: and` belongs to the same answer as the tool before it. After the last step it says
`Done.`; a prompt without any step is answered with `Answer: ` and its beginning. Where people see
the prompt, `ModelApi(scripts={"fix it": "model: say ..."})` has the steps for it instead.

    model: say TEXT             text; \\n in it is a new line
    model: lines N              N lines of text
    model: slow SECONDS         text word by word for that long
    model: think SECONDS        nothing but pings for that long
    model: reason TEXT          a thinking block
    model: run COMMAND          the Bash tool; `background COMMAND` the same in the background
    model: ask                  the AskUserQuestion tool
    model: use NAME JSON        any tool
    model: hang                 takes the request and never answers
    model: stall                answers half and never goes on
    model: fail STATUS [TIMES]  an HTTP error, to so many requests (always, if not said)
    model: drop [TIMES]         closes the connection without an answer
    model: cut [TIMES]          closes it in the middle of a text

Given as a proxy as well, it takes what is meant for other machines and never answers.
Requests without tools (Claude Code asks for titles and the like) get a short text, whatever the
prompt says. Thread: every public method may be called from any thread. All state is behind one
condition; leaving the block ends every connection and joins every thread.

Source: https://docs.anthropic.com/en/api/messages-streaming, and what Claude Code was seen to ask.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Final, TypeVar

T = TypeVar("T")

_STEP: Final = re.compile(r"^model: (and )?(\w+)[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)
# What Claude Code adds to a person's words.
_REMINDER: Final = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)
_TOOLS: Final = frozenset({"run", "background", "ask", "use"})
# Steps that are the whole answer to a request.
_FAILURES: Final = frozenset({"hang", "fail", "drop", "cut"})
_ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
_USAGE: Final = {
    "input_tokens": 10,
    "output_tokens": 5,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
}
_WORD_EVERY_S: Final = 0.1
_JOIN_WITHIN_S: Final = 10.0


@dataclass(frozen=True)
class Step:
    """One line of a prompt's script. `joined`: it belongs to the answer of the step before it."""

    kind: str
    argument: str = ""
    joined: bool = False


@dataclass(frozen=True)
class ApiRequest:
    """One request as it came. `steps` is what the answer will be made of."""

    method: str
    path: str
    prompt: str = ""
    steps: tuple[Step, ...] = ()
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    body: dict[str, Any] = field(default_factory=dict, repr=False)


def parse_script(prompt: str) -> list[list[Step]]:
    """Return the answers that a prompt asks for, each with its steps."""
    answers: list[list[Step]] = []
    is_open = False
    for joined, kind, argument in _STEP.findall(prompt):
        step = Step(kind, argument, bool(joined))
        if answers and (step.joined or (is_open and kind not in _FAILURES)):
            answers[-1].append(step)
        else:
            answers.append([step])
        is_open = kind not in _TOOLS and kind not in _FAILURES
    return answers


def _find_prompt(messages: list[Any]) -> tuple[str, int]:
    """Return the newest words of a person, and how many answers have been given since."""
    given = 0
    for message in reversed(messages):
        if message.get("role") == "assistant":
            given += 1
        if message.get("role") != "user":
            continue
        text = _REMINDER.sub("", _text_of(message.get("content"))).strip()
        # Claude Code's own messages, such as the end of a background task, begin with a tag.
        if text and not text.startswith("<"):
            return text, given
    return "", given


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "\n".join(each.get("text", "") for each in blocks if each.get("type") == "text")


class ModelApi:
    """The API; see the module. A context manager that listens inside its `with` block."""

    def __init__(self, scripts: Mapping[str, str] | None = None) -> None:
        self._scripts = scripts or {}
        self._changed = threading.Condition()
        self._requests: list[ApiRequest] = []
        self._failures_left: dict[Step, int] = {}
        self._connections: set[socket.socket] = set()
        self._deltas = 0
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.closing = threading.Event()

    def __enter__(self) -> ModelApi:
        api = self

        class Handler(_Handler):
            pass

        Handler.api = api
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = False  # so that closing it joins them
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, args=(0.02,), name="model-api", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._server is not None
        assert self._thread is not None
        self.closing.set()
        self._server.shutdown()
        self._thread.join(_JOIN_WITHIN_S)
        with self._changed:
            for connection in self._connections:
                _shut(connection)
        self._server.server_close()

    @property
    def url(self) -> str:
        """What ANTHROPIC_BASE_URL is set to."""
        assert self._server is not None, "the model API is not in use"
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def requests(self) -> list[ApiRequest]:
        """Every request that arrived, in the order of arrival."""
        with self._changed:
            return list(self._requests)

    @property
    def prompts(self) -> list[str]:
        """The prompts of the requests that were for the model itself, one for each request."""
        return [each.prompt for each in self.requests if each.steps]

    def count(self, kind: str) -> int:
        """Return how many requests have asked for an answer with a step of this kind."""
        return sum(any(step.kind == kind for step in each.steps) for each in self.requests)

    @property
    def delta_count(self) -> int:
        """How many pieces of answers have been streamed so far."""
        with self._changed:
            return self._deltas

    def wait_for(self, predicate: Callable[[], T], within_s: float = 20.0) -> T:
        """Wait until `predicate` is true, and return its value. Raises: AssertionError."""
        with self._changed:
            value = self._changed.wait_for(predicate, within_s)
            seen = [(each.method, each.path, each.prompt[:60]) for each in self._requests]
        assert value, f"not within {within_s} s; requests: {seen}"
        return value

    # --- for the handlers ---

    def connected(self, connection: socket.socket) -> None:
        """Take note of a connection, to end it with the server."""
        with self._changed:
            self._connections.add(connection)
            if self.closing.is_set():
                _shut(connection)

    def disconnected(self, connection: socket.socket) -> None:
        """Take note that it is over."""
        with self._changed:
            self._connections.discard(connection)

    def take(self, request: ApiRequest) -> None:
        """Record a request."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def sent_delta(self) -> None:
        """Take note of a piece of an answer that was streamed."""
        with self._changed:
            self._deltas += 1
            self._changed.notify_all()

    def choose(self, messages: list[Any]) -> tuple[str, tuple[Step, ...]]:
        """Return the prompt, and the steps of the answer to these messages."""
        prompt, given = _find_prompt(messages)
        answers = parse_script(self._scripts.get(prompt, prompt))
        if not answers:
            return prompt, (Step("say", f"Answer: {' '.join(prompt.split())[:60]}"),)
        with self._changed:
            # A request that failed left no answer behind: it is this script's first open step.
            open_answers = [steps for steps in answers if not self._is_spent(steps[0])][given:]
            if not open_answers:
                return prompt, (Step("say", "Done."),)
            self._spend(open_answers[0][0])
        return prompt, tuple(open_answers[0])

    def _is_spent(self, step: Step) -> bool:
        return self._failures_left.get(step) == 0

    def _spend(self, step: Step) -> None:
        *_, times = ["", *step.argument.split()]
        limited = step.kind in ("drop", "cut") or len(step.argument.split()) > 1
        if step.kind in ("fail", "drop", "cut") and limited and times:
            left = self._failures_left.get(step, int(times))
            self._failures_left[step] = left - 1


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the client was faster


class _ClosingError(Exception):
    """The server ends in the middle of an answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ModelApi/1"
    api: ModelApi

    def handle(self) -> None:
        self.api.connected(self.connection)
        try:
            super().handle()
        except (OSError, _ClosingError):
            pass  # how clients leave that were stopped
        finally:
            self.api.disconnected(self.connection)

    def log_message(self, *_args: object) -> None:
        """Print nothing: `requests` is the log."""

    def do_HEAD(self) -> None:
        self.api.take(ApiRequest("HEAD", self.path))
        self._reply(200, {})

    def do_GET(self) -> None:
        self.api.take(ApiRequest("GET", self.path))
        if self.path.startswith("/v1/models"):
            self._reply(200, {"data": [], "has_more": False, "first_id": None, "last_id": None})
        else:
            self._reply_error(404)

    def do_CONNECT(self) -> None:
        """Be the proxy behind which there is nothing: never answer."""
        self.api.take(ApiRequest("CONNECT", self.path))
        self._wait(None)

    def do_POST(self) -> None:
        raw = self._read_body()
        body = json.loads(raw or b"{}")
        path = self.path.partition("?")[0]
        if path != "/v1/messages":
            self.api.take(ApiRequest("POST", self.path, body=body))
            self._reply(200, {"input_tokens": max(1, len(raw) // 4)})
            return
        steps: tuple[Step, ...] = ()
        prompt = ""
        if body.get("tools"):
            prompt, steps = self.api.choose(body.get("messages", []))
        self.api.take(
            ApiRequest("POST", self.path, prompt, steps, dict(self.headers.items()), body)
        )
        if not self._failed(steps):
            self._answer(body, steps or (Step("say", "A short title"),))

    def _read_body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        raw = b""
        while True:
            size = int(self.rfile.readline().partition(b";")[0].strip() or b"0", 16)
            raw += self.rfile.read(size)
            self.rfile.readline()
            if not size:
                return raw

    def _failed(self, steps: tuple[Step, ...]) -> bool:
        """Play a step that is no answer; False if the steps are one."""
        step = steps[0] if steps else Step("say")
        if step.kind == "fail":
            self._reply_error(int(step.argument.split()[0]))
        elif step.kind == "drop":
            self.close_connection = True
            _shut(self.connection)
        elif step.kind == "hang":
            self._wait(None)
        else:
            return False
        return True

    def _wait(self, timeout_s: float | None) -> None:
        """Wait; raises when the server ends or, without a time, when the client goes."""
        if timeout_s is None:
            # The client sends nothing meanwhile: the end of its stream is what can be read.
            self.connection.settimeout(None)
            self.rfile.read(1)
            raise _ClosingError
        if self.api.closing.wait(timeout_s):
            raise _ClosingError

    # --- answers ---

    def _reply(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reply_error(self, status: int) -> None:
        kind = _ERROR_TYPES.get(status, "api_error")
        error = {"type": kind, "message": f"the model API was told to answer {status}"}
        self._reply(status, {"type": "error", "error": error})

    def _answer(self, body: dict[str, Any], steps: tuple[Step, ...]) -> None:
        blocks = [_Block(step) for step in steps]
        stop_reason = "tool_use" if any(step.kind in _TOOLS for step in steps) else "end_turn"
        message = {
            "id": f"msg_{uuid.uuid4().hex[:20]}",
            "type": "message",
            "role": "assistant",
            "model": body.get("model"),
            "stop_sequence": None,
            "usage": _USAGE,
        }
        if not body.get("stream"):
            content = [block.whole() for block in blocks]
            self._reply(200, {**message, "content": content, "stop_reason": stop_reason})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._send("message_start", message={**message, "content": [], "stop_reason": None})
        for index, block in enumerate(blocks):
            self._stream(index, block)
        delta = {"stop_reason": stop_reason, "stop_sequence": None}
        self._send("message_delta", delta=delta, usage={"output_tokens": 5})
        self._send("message_stop")
        self._write_chunk(b"")

    def _stream(self, index: int, block: _Block) -> None:
        if block.step.kind == "think":
            self._ping_for(float(block.step.argument))
        self._send("content_block_start", index=index, content_block=block.empty())
        for delta in block.deltas():
            self._send("content_block_delta", index=index, delta=delta)
            self.api.sent_delta()
            if block.step.kind == "slow":
                self._wait(_WORD_EVERY_S)
        if block.step.kind == "stall":
            self._wait(None)
        if block.step.kind == "cut":
            _shut(self.connection)
            raise _ClosingError
        self._send("content_block_stop", index=index)

    def _ping_for(self, duration_s: float) -> None:
        deadline = time.monotonic() + duration_s
        while time.monotonic() < deadline:
            self._send("ping")
            self._wait(min(1.0, max(0.0, deadline - time.monotonic())))

    def _send(self, name: str, **fields: Any) -> None:
        event = json.dumps({"type": name, **fields})
        self._write_chunk(f"event: {name}\ndata: {event}\n\n".encode())

    def _write_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


class _Block:
    """One content block of an answer, whole and in pieces."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self._id = f"toolu_{uuid.uuid4().hex[:20]}"

    def empty(self) -> dict[str, Any]:
        if self.step.kind in _TOOLS:
            return {"type": "tool_use", "id": self._id, "name": self._tool()[0], "input": {}}
        if self.step.kind == "reason":
            return {"type": "thinking", "thinking": "", "signature": ""}
        return {"type": "text", "text": ""}

    def whole(self) -> dict[str, Any]:
        if self.step.kind in _TOOLS:
            return {**self.empty(), "input": self._tool()[1]}
        if self.step.kind == "reason":
            return {"type": "thinking", "thinking": self.step.argument, "signature": "c2ln"}
        return {"type": "text", "text": "".join(self._words())}

    def deltas(self) -> Iterator[dict[str, Any]]:
        if self.step.kind in _TOOLS:
            yield {"type": "input_json_delta", "partial_json": json.dumps(self._tool()[1])}
        elif self.step.kind == "reason":
            yield {"type": "thinking_delta", "thinking": self.step.argument}
            yield {"type": "signature_delta", "signature": "c2ln"}
        else:
            for word in self._words():
                yield {"type": "text_delta", "text": word}

    def _words(self) -> Iterator[str]:
        kind, argument = self.step.kind, self.step.argument
        if kind == "lines":
            yield "\n".join(f"line {n:04d} of a long answer" for n in range(int(argument)))
        elif kind == "slow":
            for number in range(int(float(argument) / _WORD_EVERY_S)):
                yield f"word{number} " if number % 10 < 9 else f"word{number}\n"
        elif kind in ("stall", "cut"):
            yield "half an ans"
        elif kind == "think":
            yield "I have thought."
        else:
            yield argument.replace("\\n", "\n")

    def _tool(self) -> tuple[str, dict[str, Any]]:
        kind, argument = self.step.kind, self.step.argument
        if kind == "ask":
            options = [
                {"label": "Red", "description": "the first"},
                {"label": "Blue", "description": "the second"},
            ]
            question = {"question": "Which colour?", "header": "Colour", "multiSelect": False}
            return "AskUserQuestion", {"questions": [{**question, "options": options}]}
        if kind == "use":
            name, _, text = argument.partition(" ")
            return name, json.loads(text or "{}")
        in_background = {"run_in_background": True} if kind == "background" else {}
        return "Bash", {"command": argument, "description": "Run a command", **in_background}
