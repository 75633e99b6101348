"""What is stored about a run, its events, commands and artifacts, and what markers say. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

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


# Fields of the `started` marker, by the names that the API gives them.
_STARTED = {
    "command": ("command_line", str),
    "runner": ("runner", str),
    "mode": ("mode", str),
    "workingDir": ("working_dir", str),
    "columns": ("columns", int),
    "lines": ("lines", int),
    "sessionId": ("session_id", str),
    "remoteInput": ("remote_input", bool),
    "version": ("version", str),
}
NO_DETAILS: dict[str, Any] = {
    "command_line": None,
    "runner": None,
    "mode": None,
    "working_dir": None,
    "columns": None,
    "lines": None,
    "session_id": None,
    "commands": [],
    "remote_input": False,
    "version": None,
    "state": None,
    "assist_url": None,
    "reason": None,
    "result": None,
}


def apply_marker(details_text: str, event: NewEvent) -> dict[str, Any]:
    """Return the columns of the run that this marker or assist event changes.

    `details_text` is the run's `details` as they are. What a marker says in the wrong type is left
    out: a run controls its markers, and must not break the page.
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
        _take_started(marker, details)
    elif kind == "finished":
        code = marker.get("exitCode")
        code = code if _is_number(code) else None
        details["state"] = None
        details["reason"] = _text(marker.get("reason"))
        result = marker.get("result")
        details["result"] = result if isinstance(result, dict) else None
        changes = {
            "status": DONE if code == 0 else FAILED,
            "exit_code": code,
            "finished_at": event.created_at,
        }
    elif kind == "resized":
        details.update(
            {name: marker[name] for name in ("columns", "lines") if _is_number(marker.get(name))}
        )
    elif kind == "state":
        state = marker.get("state")
        details["state"] = state if state in ("working", "waiting") else None
    elif kind == "assist":
        details["assist_url"] = _find_address(marker) or details["assist_url"]
    if details != before:
        changes["details"] = json.dumps(details)
    return changes


def _take_started(marker: dict[str, Any], details: dict[str, Any]) -> None:
    for name, (ours, kind) in _STARTED.items():
        value = marker.get(name)
        if type(value) is not kind or (kind is int and not _is_number(value)):
            continue
        details[ours] = value
    offered = marker.get("commands")
    if isinstance(offered, list):
        details["commands"] = [each for each in offered if isinstance(each, str)]


def _find_address(marker: dict[str, Any]) -> str | None:
    """Return where the shared terminal is: a web address if there is one, else its ssh command."""
    texts = [marker.get(name) for name in ("url", "web_url", "webUrl", "web", "ssh")]
    known = [text for text in texts if isinstance(text, str) and text]
    web = (text for text in known if text.startswith(("https://", "http://")))
    return next(web, known[0] if known else None)


def _is_number(value: Any) -> bool:
    # What does not fit the column is no exit code, and no size of a terminal.
    return type(value) is int and abs(value) < 2**53


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def compare_finished(
    marker: dict[str, Any], count: int, size_bytes: int, digest: str | None
) -> str:
    """Compare what a `finished` marker says was sent with what was received.

    Returns the verdict as JSON. `digest` is None if it cannot be known any more, and so is the
    marker's; then `ok` is null unless something else differs.
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
        f"{name}: sent {marker.get(name)}, received {value}"
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
    return json.dumps({"ok": ok, "sentence": sentence, "differences": differences})
