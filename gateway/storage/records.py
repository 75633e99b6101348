"""What is stored about a run, its events, commands and artifacts, and what markers say. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.storage import questions
from gateway.storage.start_options import read_options

RUNNING, DONE, FAILED, PENDING = "running", "done", "failed", "pending"
# Commands that are no programs; typed text stands behind the last one.
STOP, HALT, ESCAPE, INPUT = "__STOP__", "__HALT__", "__ESCAPE__", "__INPUT__:"


@dataclass(frozen=True)
class Event:
    """One stored event."""

    id: int
    type: str
    data: str
    sequence: int
    created_at: float

    def to_json(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {
            "id": self.id,
            "type": self.type,
            "data": self.data,
            "sequence": self.sequence,
            "created_at": self.created_at,
        }


@dataclass(frozen=True)
class NewEvent:
    """One accepted event. `sent` is its data as it came, `data` as it is kept; `marker` is the
    parsed data of a marker or an assist event, redacted; None if there is nothing to learn from it.
    """

    run_id: str
    type: str
    data: str
    sent: str
    sequence: int
    created_at: float
    body_hash: bytes
    nonce_digest: int
    marker: Any


# The largest terminal that a page draws: larger than any screen, small enough for a browser.
MAX_COLUMNS, MAX_LINES = 1_000, 300
# Every text of a marker is in the list of runs, and in each piece of news about its run.
_MAX_TEXT = 1_000
_MAX_PATH = 4_096
_MAX_NAME = 500
# An offered command that is longer could not be sent; so many characters are all of them together.
MAX_COMMAND_CHARACTERS = 1_000
_MAX_OFFERED = 200
_MAX_OFFERED_CHARACTERS = 32_000
# Of a project: git, npm and the like.
_MAX_KINDS = _MAX_KIND = 20
_MAX_RESULT_FIELDS = 40
_MAX_RESULT_LIST = 50
# What JavaScript counts without loss, and what a column holds.
_MAX_NUMBER = 2**53

# Texts of the `started` marker: the name that the API gives it, and how long it may be.
_STARTED_TEXTS = {
    "command": ("command_line", _MAX_PATH),
    "runner": ("runner", 100),
    "mode": ("mode", 100),
    "workingDir": ("working_dir", _MAX_PATH),
    "sessionId": ("session_id", 200),
    "version": ("version", 100),
    "prompt": ("prompt", _MAX_TEXT),
    "branch": ("branch", 200),
}
NO_DETAILS: dict[str, Any] = {
    "command_line": None,
    "runner": None,
    "mode": None,
    "working_dir": None,
    "columns": None,
    "lines": None,
    "session_id": None,
    "options": {},
    "layout": None,
    "progress": None,
    "commands": [],
    "project": None,
    "remote_input": False,
    "version": None,
    "prompt": None,
    "branch": None,
    "state": None,
    "state_event_id": None,
    "assist_url": None,
    "reason": None,
    "result": None,
    # The folder that waits for runs, and is to start it.
    "sent_to": None,
    **questions.NO_TALK,
}


# Groups of the list of runs: who has to do something next.
NEEDS, WORKING, WAITS_FOR_START, OVER = "needs", "working", "pending", "done"
# What the list shows of a run's details, by the same names.
_LISTED = ("prompt", "working_dir", "branch", "runner", "mode", "reason")


def summarize(status: str, details_text: str, verdict: str | None) -> dict[str, Any]:
    """Return what the list of runs shows and is filtered by, apart from when it changed."""
    details = {**NO_DETAILS, **json.loads(details_text)}
    talk = questions.Talk.of(details["talk"])
    result = details["result"] or {}
    cost = {**(details["progress"] or {}), **result}.get("totalCostUsd")
    return {
        **{name: details[name] for name in _LISTED},
        "stage": _stage_of(status, details["state"], len(talk.open)),
        "open_questions": len(talk.open),
        "refused": _count_refused(result),
        "cost": cost if type(cost) in (int, float) else None,
        "incomplete": verdict is not None and json.loads(verdict)["ok"] is False,
    }


def name_of(run: Mapping[str, Any]) -> str:
    """Return what a run is called everywhere: its name, its prompt, or what it is without one."""
    for key in ("title", "command", "prompt"):
        said = run.get(key)
        if isinstance(said, str) and said.strip():
            return _text(said.strip(), _MAX_NAME) or ""
    folder = (run.get("working_dir") or "").rstrip("/").rpartition("/")[2]
    if run.get("mode") != "interactive":
        return "Run without a prompt"
    return f"Session in {folder}"[:_MAX_NAME] if folder else "Session"


def shown_of(command: str | None) -> str | None:
    """Return as much of a prompt as the list keeps."""
    return _text(command)


def _stage_of(status: str, state: str | None, open_questions: int) -> str:
    if status == RUNNING:
        return NEEDS if open_questions or state == "waiting" else WORKING
    return WAITS_FOR_START if status == PENDING else OVER


def _count_refused(result: dict[str, Any]) -> int:
    count, names = result.get("denials"), result.get("permissionDenials")
    if type(count) is int and count >= 0:
        return count
    return len(names) if isinstance(names, list) else 0


def apply_marker(details_text: str, event: NewEvent, event_id: int) -> dict[str, Any]:
    """Return the columns of the run that this marker or assist event changes.

    `details_text` is the run's `details` as they are. A run controls its markers, and must not
    break the page: what is of the wrong type is left out, what is too long or too large is cut.
    """
    marker = event.marker
    if not isinstance(marker, dict):
        return {}
    details = {**NO_DETAILS, **json.loads(details_text)}
    before = dict(details)
    changes: dict[str, Any] = {}
    kind = marker.get("event") if event.type == "marker" else "assist"
    if kind == "started":
        changes = {"status": RUNNING, "started_at": event.created_at}
        details["reason"] = None
        _take_started(marker, details)
        questions.take_started(marker, details)
    elif kind == "finished":
        details["session_id"] = _text(marker.get("sessionId"), 200) or details["session_id"]
        code = marker.get("exitCode")
        code = code if _is_number(code) else None
        details["state"] = None
        details["reason"] = _text(marker.get("reason"))
        details["result"] = _flat_result(marker.get("result"))
        changes = {
            "status": DONE if code == 0 else FAILED,
            "exit_code": code,
            "finished_at": event.created_at,
        }
    elif kind == "assist":
        details["assist_url"] = _find_address(marker) or details["assist_url"]
    else:
        _take_course(marker, event_id, details)
    if event.type == "marker":
        questions.take_marker(marker, event_id, details)
    if details != before:
        changes["details"] = json.dumps(details)
    return changes


def _take_course(marker: dict[str, Any], event_id: int, details: dict[str, Any]) -> None:
    """Take what a run tells while it goes on."""
    kind = marker.get("event")
    if kind == "resized":
        _take_size(marker, details)
    elif kind == "state":
        before, state = details["state"], marker.get("state")
        details["state"] = state if state in ("working", "waiting") else None
        if details["state"] != before:
            details["state_event_id"] = event_id
    elif kind == "progress":
        told = {name: value for name, value in marker.items() if name != "event"}
        details["progress"] = _flat_result(told)


def _take_started(marker: dict[str, Any], details: dict[str, Any]) -> None:
    for name, (ours, limit) in _STARTED_TEXTS.items():
        details[ours] = _text(marker.get(name), limit) or details[ours]
    _take_size(marker, details)
    # Of lines that say what they are; any other text is shown as it is.
    details["layout"] = marker["layout"] if type(marker.get("layout")) is int else None
    details["options"] = read_options(marker.get("options"))
    if isinstance(marker.get("remoteInput"), bool):
        details["remote_input"] = marker["remoteInput"]
    offered = marker.get("commands")
    if isinstance(offered, list):
        details["commands"] = _sendable(offered)
    kinds = marker.get("project")
    if isinstance(kinds, list):
        details["project"] = [each for each in kinds[:_MAX_KINDS] if _is_kind(each)]


def _take_size(marker: dict[str, Any], details: dict[str, Any]) -> None:
    for name, most in (("columns", MAX_COLUMNS), ("lines", MAX_LINES)):
        value = marker.get(name)
        if type(value) is int and value > 0:
            details[name] = min(value, most)


def _is_kind(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_KIND


def _sendable(offered: list[Any]) -> list[str]:
    """Return the offered commands that can be sent, as many as a page has room for."""
    known: list[str] = []
    room = _MAX_OFFERED_CHARACTERS
    for each in offered:
        if isinstance(each, str) and 0 < len(each) <= MAX_COMMAND_CHARACTERS:
            room -= len(each)
            if room < 0 or len(known) == _MAX_OFFERED:
                break
            known.append(each)
    return known


def _find_address(marker: dict[str, Any]) -> str | None:
    """Return where the shared terminal is: a web address if there is one, else its ssh command."""
    texts = [marker.get(name) for name in ("url", "web_url", "webUrl", "web", "ssh")]
    # A part of an address leads elsewhere, so a long one is no address.
    known = [text for text in texts if isinstance(text, str) and 0 < len(text) <= _MAX_TEXT]
    web = (text for text in known if text.startswith(("https://", "http://")))
    return next(web, known[0] if known else None)


def _flat_result(result: Any) -> dict[str, Any] | None:
    """Return what a result says in texts, numbers and lists of them; None if it says nothing.

    Nothing in it is nested: JSON can be written deeper than it can be read.
    """
    if not isinstance(result, dict):
        return None
    flat: dict[str, Any] = {}
    for name, value in list(result.items())[:_MAX_RESULT_FIELDS]:
        if isinstance(value, list):
            flat[name[:_MAX_TEXT]] = [
                _scalar(each) for each in value[:_MAX_RESULT_LIST] if _scalar(each) is not None
            ]
        elif value is None or _scalar(value) is not None:
            flat[name[:_MAX_TEXT]] = _scalar(value)
    return flat


def _scalar(value: Any) -> Any:
    """Return a text, cut, or a number that JSON and JavaScript know; None for everything else."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool) or _is_number(value) else _text(value)


def _is_number(value: Any) -> bool:
    return type(value) is int and abs(value) < _MAX_NUMBER


def _text(value: Any, limit: int = _MAX_TEXT) -> str | None:
    if not isinstance(value, str):
        return None
    return value if len(value) <= limit else f"{value[: limit - 1]}…"


def compare_finished(
    marker: dict[str, Any], count: int, size_bytes: int, digest: str | None
) -> str:
    """Compare what a `finished` marker says was sent with what was received.

    Returns the verdict as JSON. `digest` is None if it cannot be known any more, and so is the
    marker's of version 0.1; then `ok` is null unless something else differs. `ok` is false as well
    if the marker says that output is missing which was never sent.
    """
    received = {"events": count, "bytes": size_bytes, "sha256": digest}
    if not any(name in marker for name in received):
        return json.dumps(
            {"ok": None, "sentence": "The runner did not say what it had sent.", "differences": []}
        )
    is_unknown_there = marker.get("sha256", "") is None
    if is_unknown_there:
        del received["sha256"]
    differences = [
        f"{name}: sent {_shown(marker.get(name))}, received {value}"
        for name, value in received.items()
        if value is not None and marker.get(name) != value
    ]
    ok: bool | None = not differences
    everything = "The one event was" if count == 1 else f"All {count} events were"
    if differences:
        sentence = "What was received is not what the runner sent."
    elif is_unknown_there or digest is None:
        ok = None
        why = (
            "the runner had no disk for a while, and ended before it had sent everything"
            if is_unknown_there
            else "the gateway was restarted after it had redacted some of it"
        )
        sentence = (
            f"{everything} received ({size_bytes} bytes); the content cannot be compared, because "
            f"{why}."
        )
    else:
        sentence = f"{everything} received as sent ({size_bytes} bytes)."
    if marker.get("whole") is False:
        ok = False
        sentence = f"{_describe_loss(marker.get('lostBytes'))} {sentence}"
    return json.dumps({"ok": ok, "sentence": sentence, "differences": differences})


def _shown(value: Any) -> str:
    """Return a value of any type as a short text."""
    known = _scalar(value)
    if known is None:
        return "nothing" if value is None else "something else"
    return f"{known}"[:100]


def _describe_loss(lost_bytes: Any) -> str:
    if _is_number(lost_bytes) and lost_bytes > 0:
        return f"{lost_bytes} bytes of output are missing: the runner's disk was full."
    return "Output may be missing: the runner's disk was full."
