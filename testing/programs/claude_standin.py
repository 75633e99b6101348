"""A stand-in for Claude Code: what it does is a script, what it was told is on record.

    standin = StandIn(tmp_path, [[tool("Bash", {"command": "make"}), say("Made.")]])
    launch = plan(gateway, standin.command, folder, options=("--ask", "remote"))
    ...
    assert standin.wait_for_decision()["behavior"] == "allow"

A script is a list of turns, a turn a list of the steps below, played when a message begins a turn;
without a turn for it the message is answered with `Answer: ` and its beginning. Where a step waits,
it waits for a file, its gate, which a test makes with `standin.open`: no time passes by itself.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from testing.waiting import eventually

Step = dict[str, Any]

NEWEST: Final = "2.1.332"
OLDEST: Final = "2.0.0"
RELEASES: Final = (NEWEST, "2.1.197", "2.0.77", OLDEST)
_PROGRAM: Final = Path(__file__).resolve().parent / "children" / "claude_control.py"
_WITHIN_S: Final = 60.0


def say(text: str, times: int = 1) -> Step:
    """Say it, so many times in one line."""
    return {"do": "say", "text": text, "times": times}


def write(text: str, until: str, whole: str | None = None) -> Step:
    """Be in the middle of this text until the gate is open: what comes meanwhile waits.

    `whole` is what it is told as then, if it is not this text.
    """
    return {"do": "write", "text": text, "until": until, "whole": whole or text}


def wait(until: str) -> Step:
    """Do nothing until the gate is open."""
    return {"do": "wait", "until": until}


def be_deaf(until: str) -> Step:
    """Read nothing more from stdin until the gate is open, and go on meanwhile."""
    return {"do": "deaf", "until": until}


def line(text: str) -> Step:
    """Print this, whatever it is; with its newline, if it is to be a line."""
    return {"do": "line", "text": text}


def fail(text: str = "API Error: 500") -> Step:
    """End the turn with an error of the API."""
    return {"do": "fail", "text": text}


def die(code: int = 1) -> Step:
    """End at once, without a word."""
    return {"do": "die", "code": code}


def be_killed(signal: str = "SIGKILL") -> Step:
    """Die of a signal."""
    return {"do": "die", "signal": signal}


def request(subtype: str, waits: bool = True, **fields: Any) -> Step:
    """Ask the host something that is no question to a person, and wait for the answer."""
    return {"do": "request", "request": {"subtype": subtype, **fields}, "waits": waits}


def cancel() -> Step:
    """Withdraw every open question."""
    return {"do": "cancel"}


def use(
    name: str,
    given: dict[str, Any],
    *,
    is_free: bool = False,
    until: str = "",
    result: str = "(Bash completed with no output)",
    while_open: Sequence[Step] = (),
    request_id: str = "",
    **request: Any,
) -> Step:
    """Return a tool for `tools` and `subagents`.

    `is_free`: nobody is asked. `until`: it runs until that gate is open, and what comes meanwhile
    joins the turn. `while_open`: steps that are played while the question is open. `request`: what
    the question holds beside what is always in it.
    """
    values: Step = {"name": name, "input": given, "is_free": is_free, "until": until}
    values.update(result=result, while_open=list(while_open), request=request)
    return {**values, "request_id": request_id} if request_id else values


def tool(name: str, given: dict[str, Any], **how: Any) -> Step:
    """Use one tool; see `use`."""
    return tools(use(name, given, **how))


def tools(*used: Step) -> Step:
    """Use several tools in one answer: they are asked about one after the other."""
    return {"do": "tools", "tools": list(used)}


def bash(command: str, **how: Any) -> Step:
    """Use Bash, with what Claude Code suggests."""
    rule = {"toolName": "Bash", "ruleContent": command}
    suggestion = {"type": "addRules", "rules": [rule], "behavior": "allow"}
    suggestions = [{**suggestion, "destination": "localSettings"}]
    given = {"command": command, "description": "Run a command"}
    return tool("Bash", given, **{"permission_suggestions": suggestions, **how})


def edit(path: str, old: str, new: str, **how: Any) -> Step:
    """Use Edit, with what Claude Code suggests."""
    suggestions = [{"type": "setMode", "mode": "acceptEdits", "destination": "session"}]
    given = {"file_path": path, "old_string": old, "new_string": new, "replace_all": False}
    return tool("Edit", given, **{"permission_suggestions": suggestions, **how})


def question(text: str, *labels: str, several: bool = False) -> dict[str, Any]:
    """Return one of the questions of `ask`."""
    options = [{"label": each, "description": f"about {each}"} for each in labels]
    return {"question": text, "header": "Choice", "multiSelect": several, "options": options}


def ask(*questions: dict[str, Any], **how: Any) -> Step:
    """Use AskUserQuestion."""
    return tool("AskUserQuestion", {"questions": list(questions)}, **how)


def present_plan(plan: str, **how: Any) -> Step:
    """Use ExitPlanMode; approved without complaint only in plan mode."""
    return tool("ExitPlanMode", {"plan": plan, "planFilePath": "/plans/a.md"}, **how)


def background(until: str, then: Sequence[Step] = (), command: str = "make") -> Step:
    """Run a command in the background until the gate is open; `then` is the turn after its end."""
    further = list(then) or [say("The task is done.")]
    return {"do": "background", "command": command, "until": until, "then": further}


def subagents(*used: Step, then: Sequence[Step] = (), while_open: Sequence[Step] = ()) -> Step:
    """Let a subagent for each of these tools use it, all at the same time.

    In 2.1.332 the turn goes on meanwhile, and another one, `then`, follows when each has ended;
    earlier releases wait for them.
    """
    further = list(then) or [say("A subagent is done.")]
    open_steps = list(while_open)
    return {"do": "subagents", "tools": list(used), "then": further, "while_open": open_steps}


class StandIn:
    """The program `claude` in a folder of its own, and what it put on record.

    `ignores`: the requests (`interrupt`), signals (`SIGINT`) and the end of stdin (`close`) that it
    does not react to. Gates are files in `folder`; their names in steps are relative to it.
    """

    def __init__(
        self,
        folder: Path,
        turns: Sequence[Sequence[Step]] = (),
        *,
        version: str = NEWEST,
        ignores: Sequence[str] = (),
    ) -> None:
        self.folder = folder / "claude-standin"
        self.folder.mkdir()
        self.program = self.folder / "claude"
        self._record = self.folder / "record.jsonl"
        script = self.folder / "script.json"
        values = {"version": version, "ignores": list(ignores), "turns": self._resolve(list(turns))}
        script.write_text(json.dumps(values), "utf-8")
        argv = [sys.executable, "-I", "-S", str(_PROGRAM), str(script), str(self._record)]
        self.program.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
        self.program.chmod(0o755)

    @property
    def command(self) -> list[str]:
        """What CLAUDE_COMMAND is set to."""
        return [str(self.program)]

    def _resolve(self, value: Any) -> Any:
        """Return steps with the gates' paths in place of their names."""
        if isinstance(value, dict) and "do" not in value and "name" not in value:
            return value
        if isinstance(value, dict):
            return {
                key: self._gate(each) if key == "until" else self._resolve(each)
                for key, each in value.items()
            }
        return [self._resolve(each) for each in value] if isinstance(value, list) else value

    def _gate(self, name: str) -> str:
        return str(self.folder / f"gate-{name}") if name else ""

    def open(self, name: str) -> None:
        """Open a gate."""
        Path(self._gate(name)).touch()

    # --- the record ---

    @property
    def record(self) -> list[dict[str, Any]]:
        """Everything so far; see `children/claude_control.py`."""
        try:
            data = self._record.read_bytes()
        except FileNotFoundError:
            return []
        return [json.loads(each) for each in data.split(b"\n")[:-1]]

    def all(self, key: str) -> list[Any]:
        """Return what was recorded under this name."""
        return [each[key] for each in self.record if key in each]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of its stdin. Raises: ValueError if one of them is no JSON."""
        return [json.loads(each) for each in self.all("read")]

    @property
    def decisions(self) -> list[dict[str, Any]]:
        """What became of each tool."""
        return self.all("decided")

    @property
    def asked(self) -> list[dict[str, Any]]:
        """Its own requests."""
        return self.all("asked")

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The answers that came to its requests, to all of them."""
        return [each["response"] for each in self.lines if each["type"] == "control_response"]

    @property
    def turns(self) -> list[list[str]]:
        """The messages of each turn."""
        return self.all("turn")

    def wait_for(self, key: str, count: int = 1) -> list[Any]:
        """Wait until this has been recorded so many times, and return all of it."""

        def look() -> list[Any]:
            found = self.all(key)
            assert len(found) >= count, f"{key}: {found}; on record: {self.record[-20:]}"
            return found

        return eventually(look, _WITHIN_S)

    def wait_for_decision(self, count: int = 1) -> dict[str, Any]:
        """Wait until something became of so many tools; return the last of them."""
        last: dict[str, Any] = self.wait_for("decided", count)[count - 1]
        return last

    def pid_is_gone(self, pid: int) -> bool:
        """Whether its process has ended."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False
