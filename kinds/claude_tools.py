"""One tool of Claude Code in words: its request and its result. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Callable, Final

from kinds.claude_fields import list_of, number_of, text_of, word_of
from kinds.claude_text import clean

_NO_OUTPUT: Final = re.compile(r"\(\w+ completed with no output\)\s*")
_ERROR_LABEL: Final = re.compile(r"\A(?:Error: )+")
_PROGRAM_WORD: Final = re.compile(r"[a-z]+(?:_[a-z]+)*")
_TOOL_ERROR_TAGS: Final = re.compile(r"</?tool_use_error>")


def describe(name: str, given: Mapping[str, Any], cwd: str) -> str:
    """Return a tool and its input, by its first line; paths in `cwd` without it."""
    shown = _TOOLS.get(name, _show_anything)(given, cwd).strip()
    return f"{name}: {shown}" if shown else name


def show_result(tool_name: str, block: Mapping[str, Any], details: Any) -> str:
    """Return what came of a tool. `details` is the same for programs."""
    if isinstance(details, Mapping) and (details.get("backgroundTaskId") or details.get("isAsync")):
        return "(it goes on in the background)"  # the rest of the text is for the model
    if details == "User rejected tool use":
        return "interrupted"
    text = _TOOL_ERROR_TAGS.sub("", result_text(block)).strip("\n")
    if block.get("is_error") is True:
        return f"failed: {_ERROR_LABEL.sub('', text) or 'it does not say why'}"
    if not text.strip() or _NO_OUTPUT.fullmatch(text):
        return "(no output)"
    return _line_count(text) if tool_name in _COUNTED_RESULTS else text


def result_text(block: Mapping[str, Any]) -> str:
    """Return a tool's result as text; a result that is not text is described."""
    content = block.get("content")
    if isinstance(content, str):
        return clean(content)
    return "\n".join(_block_text(each) for each in list_of(block, "content"))


def _block_text(block: Any) -> str:
    if isinstance(block, str):
        return clean(block)
    kind = word_of(block, "type")
    if kind == "tool_reference":
        return text_of(block, "tool_name")
    return text_of(block, "text") if kind == "text" else f"({spoken(kind) or 'something'})"


def spoken(name: str) -> str:
    """Return what a program calls something as a person does; a token would not be one any more."""
    return name.replace("_", " ") if _PROGRAM_WORD.fullmatch(name) else name


def count(number: int, noun: str) -> str:
    """Return "1 turn", "2 turns"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _line_count(text: str) -> str:
    return count(len(text.splitlines()), "line")


# --- requests: one tool, one line ---


def _show_bash(given: Mapping[str, Any], _cwd: str) -> str:
    place = "(in the background) " if given.get("run_in_background") is True else ""
    return place + text_of(given, "command").strip()


def _show_read(given: Mapping[str, Any], cwd: str) -> str:
    offset, limit = number_of(given, "offset"), number_of(given, "limit")
    first = int(offset or 1)
    if limit:
        return f"{_path(given, cwd)}, lines {first} to {first + int(limit) - 1}"
    return _path(given, cwd) + (f", from line {first}" if offset else "")


def _show_path(given: Mapping[str, Any], cwd: str) -> str:
    return _path(given, cwd)


def _show_search(given: Mapping[str, Any], cwd: str) -> str:
    where = _shown_path(text_of(given, "path") or text_of(given, "glob"), cwd)
    return text_of(given, "pattern") + (f" in {where}" if where else "")


def _show_agent(given: Mapping[str, Any], _cwd: str) -> str:
    kind = text_of(given, "subagent_type")
    return text_of(given, "description") + (f" ({kind})" if kind else "")


def _show_todos(given: Mapping[str, Any], _cwd: str) -> str:
    todos = list_of(given, "todos")
    done = sum(text_of(todo, "status") == "completed" for todo in todos)
    active = [text_of(todo, "activeForm") or text_of(todo, "content") for todo in todos
              if text_of(todo, "status") == "in_progress"]  # fmt: skip
    shown = f"{done} of {len(todos)} done" + "".join(f"; {each}" for each in active[:1])
    signs = {"completed": "[x]", "in_progress": "[>]"}
    listed = [f"{signs.get(text_of(todo, 'status'), '[ ]')} {text_of(todo, 'content')}"
              for todo in todos if text_of(todo, "content")]  # fmt: skip
    return "\n".join([shown, *listed])


def _show_question(given: Mapping[str, Any], _cwd: str) -> str:
    return " ".join(text_of(each, "question") for each in list_of(given, "questions"))


def _show_field(name: str) -> Callable[[Mapping[str, Any], str], str]:
    return lambda given, _cwd: text_of(given, name)


def _show_anything(given: Mapping[str, Any], _cwd: str) -> str:
    """Name every value; those of one line first, because the first line is always shown."""
    shown = [f"{clean(name)}={_plain(value)}" for name, value in given.items()]
    return " ".join(sorted(shown, key=lambda each: "\n" in each))


def _plain(value: Any) -> str:
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _path(given: Mapping[str, Any], cwd: str) -> str:
    return _shown_path(text_of(given, "file_path") or text_of(given, "notebook_path"), cwd)


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
