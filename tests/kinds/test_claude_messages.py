"""Claude Code's JSON stream becomes text: what is shown, what passes, what never fails."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinds.claude_stream import MAX_DEPTH, MAX_LINE_BYTES, ClaudeStream
from kinds.profile import Item, Limit, Message, Passed, shorten
from kinds.text_layout import (
    INPUT,
    RESULT,
    SIGNS,
    SUBAGENT,
    THOUGHT,
    TOOL,
    Line,
    read_line,
    write_line,
)
from kinds.text_layout import WORDS as WORDS_OF_CLAUDE
from redact import Rules


def render_all(chunks: Iterable[bytes], stream: ClaudeStream | None = None) -> str:
    """Return what a whole recording looks like, unredacted."""
    stream = stream or ClaudeStream()
    shown: list[str] = []
    for item in [*(item for chunk in chunks for item in stream.feed(chunk)), *stream.flush()]:
        if isinstance(item, Passed):
            shown.append(item.raw.decode("utf-8", "replace"))
        else:
            shown += [piece.finish(piece.text) for piece in item.pieces]
    return "".join(shown)


# --- what the tests say messages with ---------------------------------------------------------


def line(**fields: Any) -> bytes:
    """Return one message as Claude Code prints it."""
    return json.dumps(fields).encode() + b"\n"


def init(**fields: Any) -> bytes:
    """Return the message that each turn begins with."""
    return line(
        type="system",
        subtype="init",
        cwd="/home/me/work",
        model="claude-x",
        permissionMode=fields.pop("mode", "default"),
        claude_code_version="2.1.330",
        **fields,
    )


def says(*blocks: Any, **fields: Any) -> bytes:
    """Return an answer with these content blocks; a text stands for a text block."""
    content = [{"type": "text", "text": each} if isinstance(each, str) else each for each in blocks]
    return line(type="assistant", message={"role": "assistant", "content": content}, **fields)


def uses(name: str, tool_id: str = "t1", **given: Any) -> dict[str, Any]:
    """Return the block that asks for a tool."""
    return {"type": "tool_use", "id": tool_id, "name": name, "input": given}


def returns(content: Any, tool_id: str = "t1", *, details: Any = None, **fields: Any) -> bytes:
    """Return a tool's result."""
    parent = {"parent_tool_use_id": fields.pop("parent")} if "parent" in fields else {}
    block = {"type": "tool_result", "tool_use_id": tool_id, "content": content, **fields}
    message = {"role": "user", "content": [block]}
    return line(type="user", message=message, tool_use_result=details, **parent)


def ends(**fields: Any) -> bytes:
    """Return the message that ends a turn."""
    usual = {"subtype": "success", "is_error": False, "result": "", "terminal_reason": "completed"}
    return line(**{"duration_ms": 1500, **usual, **fields, "type": "result"})


def denied(tool_id: str, reason: str, name: str = "Bash", **fields: Any) -> bytes:
    """Return the message that tells of a refused tool."""
    return line(
        type="system",
        subtype="permission_denied",
        tool_name=name,
        tool_use_id=tool_id,
        message=reason,
        **fields,
    )


def retry(**fields: Any) -> bytes:
    """Return the message that tells of an attempt that failed."""
    return line(type="system", subtype="api_retry", **fields)


def test_what_was_given_is_not_advised() -> None:
    """A refusal in spite of --allowedTools has another reason; being asked may still help."""
    denial = {"tool_name": "Bash", "tool_use_id": "t1", "tool_input": {}}

    shown = render_all([ends(permission_denials=[denial])], ClaudeStream(is_granted=True))

    assert shown == (
        "▲ 1 tool refused:\n▲   Bash\n◆ to be asked instead: start with --ask\n\n■ Done in 1.5 s\n"
    )


def read(chunks: Iterable[bytes]) -> list[Item]:
    """Return what a stream makes of these, with neighbouring passed bytes joined."""
    stream = ClaudeStream()
    joined: list[Item] = []
    for item in [*(each for chunk in chunks for each in stream.feed(chunk)), *stream.flush()]:
        if isinstance(item, Passed) and joined and isinstance(joined[-1], Passed):
            joined[-1] = Passed(joined[-1].raw + item.raw)
        else:
            joined.append(item)
    return joined


LONG_OUTPUT = "\n".join(f"row {number}" for number in range(30))

# --- what is shown ----------------------------------------------------------------------------

SHOWN = [
    pytest.param([says("Hello.\n\n- one\n")], "Hello.\n\n- one\n", id="what it says"),
    pytest.param([init()], "◆ Claude Code 2.1.330, claude-x\n", id="the beginning"),
    pytest.param(
        [init(mode="plan"), init()],
        "◆ Claude Code 2.1.330, claude-x, permission mode plan\n",
        id="only the first beginning",
    ),
    pytest.param(
        [init(mcp_servers=[{"name": "db", "status": "failed"}, {"name": "ok", "status": "on"}])],
        "◆ Claude Code 2.1.330, claude-x\n▲ MCP server db: failed\n",
        id="a server that is not there",
    ),
    pytest.param(
        [says("One.", uses("Bash", command="ls")), returns("a\nb"), says("Two.")],
        "One.\n\n● Bash: ls\n⎿ a\n⎿ b\n\nTwo.\n",
        id="a tool and its result",
    ),
    pytest.param(
        [says(uses("Bash", command="ls \\\n  -l")), returns(LONG_OUTPUT)],
        "● Bash: ls \\\n◦   -l\n" + "".join(f"⎿ {row}\n" for row in LONG_OUTPUT.split("\n")),
        id="long input and long output",
    ),
    pytest.param(
        [says(uses("Bash", "a", command="ls"), uses("Bash", "b", command="id")),
         returns("root", "b"), returns("x", "a")],
        "● Bash: ls\n● Bash: id\n⎿ root\n\n○ Bash: ls\n⎿ x\n",
        id="two tools at once",
    ),
    pytest.param(
        [says(uses("Bash", command="false")), returns("Exit code 1\noops", is_error=True)],
        "● Bash: false\n▲ failed: Exit code 1\n⎿ oops\n",
        id="a tool that failed",
    ),
    pytest.param(
        [says(uses("X")), returns("<tool_use_error>Error: no X</tool_use_error>", is_error=True)],
        "● X\n▲ failed: no X\n",
        id="a tool that is not there",
    ),
    pytest.param([says(uses("Bash", command="true")), returns("")],
                 "● Bash: true\n⎿ (no output)\n", id="no output"),
    pytest.param(
        [says(uses("Bash", command="true")), returns("(Bash completed with no output)")],
        "● Bash: true\n⎿ (no output)\n",
        id="no output in so many words",
    ),
    pytest.param(
        [says(uses("Bash", command="x", run_in_background=True)),
         returns("Command running in background with ID: b1", details={"backgroundTaskId": "b1"})],
        "● Bash: (in the background) x\n⎿ (it goes on in the background)\n",
        id="a background command",
    ),
    pytest.param(
        [says(uses("Read", file_path="/home/me/work/a.py", offset=10, limit=5)), returns("1\n2\n")],
        "● Read: a.py, lines 10 to 14\n⎿ 2 lines\n",
        id="a file that is read",
    ),
    pytest.param(
        [says(uses("Shot")), returns([{"type": "image", "source": {"data": "QUJD"}}])],
        "● Shot\n⎿ (image)\n",
        id="an image",
    ),
    pytest.param(
        [says({"type": "thinking", "thinking": "Hm.\nWell.\nSo.\nAh."}), says("Yes.")],
        "∴ Hm.\n∴ Well.\n∴ So.\n∴ Ah.\n\nYes.\n",
        id="a thought",
    ),
    pytest.param(
        [says(uses("Task", "p", description="Look", subagent_type="Explore")),
         says("Sub.", uses("Bash", "s", command="ls"), parent_tool_use_id="p"),
         returns("x", "s", parent="p")],
        "● Task: Look (Explore)\n\n┊ Sub.\n\n┊ ● Bash: ls\n┊ ⎿ x\n",
        id="a subagent",
    ),
    pytest.param(
        [retry(attempt=1, max_retries=10, retry_delay_ms=603.4, error_status=529,
               error="overloaded"), retry(attempt=2, error="rate_limit"), retry()],
        "▲ API: overloaded (529); retry 1 of 10 in 0.6 s\n▲ API: rate limit; retry 2\n"
        "▲ API: no answer\n",
        id="retries",
    ),
    pytest.param(
        [says("API Error: 400 no", error="unknown", is_api_error_message=True),
         ends(is_error=True, result="API Error: 400 no", terminal_reason="api_error",
              total_cost_usd=0)],
        "▲ API Error: 400 no\n\n■ Failed (api error) after 1.5 s, $0.00\n",
        id="an API error",
    ),
    pytest.param(
        [says("Done."), ends(result="Done.", num_turns=3, total_cost_usd=1.234)],
        "Done.\n\n■ Done in 1.5 s, 3 turns, $1.23\n",
        id="a result that has been said",
    ),
    pytest.param([ends(result="42")], "42\n\n■ Done in 1.5 s\n", id="a result that has not"),
    pytest.param(
        [ends(subtype="error_max_turns", is_error=True, terminal_reason="max_turns",
              result=None, errors=["Reached maximum number of turns (1)"], num_turns=1)],
        "▲ Reached maximum number of turns (1)\n\n■ Failed (max turns) after 1.5 s, 1 turn\n",
        id="too many turns",
    ),
    pytest.param(
        [says(uses("Bash", command="x")),
         returns("STOP", is_error=True, details="User rejected tool use"),
         line(type="user", message={"content": [{"type": "text",
              "text": "[Request interrupted by user]"}]}),
         ends(subtype="error_during_execution", is_error=True, terminal_reason="aborted_tools",
              errors=["[ede_diagnostic] x"])],
        "● Bash: x\n⎿ interrupted\n\n▲ Request interrupted by user\n\n■ Interrupted after 1.5 s\n",
        id="interrupted",
    ),
    pytest.param(
        [says(uses("Bash", command="touch x")), denied("t1", "needs approval"),
         returns("needs approval", is_error=True),
         ends(permission_denials=[{"tool_name": "Bash", "tool_use_id": "t1",
                                   "tool_input": {"command": "touch x"}}])],
        "● Bash: touch x\n▲ refused: needs approval\n\n"
        "▲ 1 tool refused:\n▲   Bash: touch x\n◆ to allow: --allowedTools=Bash\n"
        "◆ to be asked instead: start with --ask\n\n"
        "■ Done in 1.5 s\n",
        id="a refused tool, and what would allow it",
    ),
    pytest.param(
        [denied("t1", "a rule", decision_reason_type="subcommandResults"),
         ends(permission_denials=[{"tool_name": "Bash", "tool_use_id": "t1",
                                   "tool_input": {"command": "rm x"}}])],
        "▲ Bash refused: a rule\n\n▲ 1 tool refused:\n▲   Bash: rm x\n\n■ Done in 1.5 s\n",
        id="refused by a rule, which nothing would change",
    ),
    pytest.param(
        [ends(permission_denials=[{"tool_name": "mcp__a b", "tool_use_id": "1", "tool_input": {}},
                                  {"tool_name": "Write", "tool_use_id": "2", "tool_input":
                                   {"file_path": "/y", "content": "a\nb\n"}}])],
        "▲ 2 tools refused:\n▲   mcp__a b\n▲   Write: /y\n"
        "◆ to allow: '--allowedTools=Write,mcp__a b'\n"
        "◆ to be asked instead: start with --ask\n\n■ Done in 1.5 s\n",
        id="refused by an older release, which does not tell at once",
    ),
    pytest.param(
        [line(type="system", subtype="background_tasks_changed", tasks=[{}]), ends(),
         line(type="system", subtype="task_notification", summary="Build completed"), ends()],
        "■ Done in 1.5 s, 1 background task still running\n\n◆ Build completed\n\n"
        "■ Done in 1.5 s, 1 background task still running\n",
        id="a background task",
    ),
    pytest.param(
        [says(uses("Bash", command="make")),
         line(type="system", subtype="task_started", tool_use_id="t1", is_backgrounded=False),
         line(type="system", subtype="task_notification", tool_use_id="t1", output_file="",
              summary="Run a command"),
         returns("built"),
         says(uses("Bash", "t2", command="serve")),
         line(type="system", subtype="task_started", tool_use_id="t2", is_backgrounded=True),
         returns("Running in background", "t2", details={"backgroundTaskId": "b"}),
         line(type="system", subtype="task_notification", tool_use_id="t2", output_file="/x",
              summary="serve completed")],
        "● Bash: make\n⎿ built\n\n● Bash: serve\n⎿ (it goes on in the background)\n"
        "\n◆ serve completed\n",
        id="a command that takes more than two seconds, and one in the background",
    ),
    pytest.param(
        [line(type="system", subtype="hook_started", hook_name="SessionStart:startup"),
         line(type="system", subtype="hook_response", hook_name="SessionStart:startup",
              stderr="no such tool\n", exit_code=1, outcome="error"),
         line(type="system", subtype="hook_response", hook_name="Stop", exit_code=0, stdout="x",
              outcome="success"),
         line(type="system", subtype="hook_response", hook_event="PreToolUse", outcome="error"),
         line(type="system", subtype="notification", key="stop-hook-error",
              text="stop hook problem \u00b7 ctrl+o to see"),
         line(type="system", subtype="notification", key="tip", text="try /help")],
        "▲ hook SessionStart:startup failed (exit code 1): no such tool\n"
        "▲ hook PreToolUse failed\n▲ stop hook problem\n",
        id="hooks that fail",
    ),
    pytest.param(
        [says(uses("Bash", command="rm x")),
         returns("PreToolUse:Bash hook error: [check]: not here", is_error=True),
         ends(permission_denials=[{"tool_name": "Bash", "tool_use_id": "t1", "tool_input": {}}])],
        "● Bash: rm x\n▲ failed: PreToolUse:Bash hook error: [check]: not here\n\n"
        "▲ 1 tool refused:\n▲   Bash\n\n■ Done in 1.5 s\n",
        id="refused by a hook",
    ),
    pytest.param(
        [says(uses("Bash", command="rm x")), returns("by policy", is_error=True),
         ends(permission_denials=[{"tool_name": "Bash", "tool_use_id": "t1", "tool_input": {}}])],
        "● Bash: rm x\n▲ failed: by policy\n\n▲ 1 tool refused:\n▲   Bash\n\n■ Done in 1.5 s\n",
        id="refused by a hook of an older release, in its own words",
    ),
    pytest.param(
        [line(type="system", subtype="compact_boundary", compact_metadata={"pre_tokens": 180000}),
         line(type="system", subtype="status", status="compacting"),
         line(type="rate_limit_event", rate_limit_info={"status": "allowed"}),
         line(type="rate_limit_event",
              rate_limit_info={"status": "rejected", "rateLimitType": "five_hour"}),
         line(type="error", error={"message": "no"}),
         line(type="system", subtype="new", level="warning", content="odd")],
        "◆ the conversation was compacted (180,000 tokens)\n◆ compacting the conversation\n"
        "▲ rate limit used up (five hour)\n▲ no\n▲ odd\n",
        id="notices",
    ),
    pytest.param(
        [ends(permission_denials=[{"tool_name": "AskUserQuestion", "tool_use_id": str(number),
                                   "tool_input": {}} for number in range(22)])],
        "▲ 22 tools refused:\n" + "▲   AskUserQuestion\n" * 20
        + "▲   and 2 more\n◆ to be asked instead: start with --ask\n\n■ Done in 1.5 s\n",
        id="many refused, and nobody there to answer",
    ),
    pytest.param(
        [says(uses("Task", description="Look")),
         returns("internal", details={"isAsync": True}),
         line(type="system", subtype="task_notification", summary="x", summary_is_report=True)],
        "● Task: Look\n⎿ (it goes on in the background)\n",
        id="a subagent in the background",
    ),
    pytest.param(
        [says(uses("T")), returns(["a", {"type": "tool_reference", "tool_name": "Grep"},
                                   {"type": "text", "text": "b"}, 7])],
        "● T\n⎿ a\n⎿ Grep\n⎿ b\n⎿ (something)\n",
        id="blocks of all kinds",
    ),
    pytest.param(
        [says("a\x1b[31mb\x1b[0mc\x1b]52;c;QQ==\x07d\x00e\r\nf\rg\u2028h \ud83d i")],
        "abcde\nf\ng\nh \ufffd i\n",
        id="nothing that moves a cursor, no half characters",
    ),
    pytest.param(
        [line(type="stream_event", event={}), line(type="news"), line(type="system"),
         line(type="system", subtype="thinking_tokens", estimated_tokens=6), says(" \n "),
         line(type="user", message={"content": "a prompt"})],
        "",
        id="nothing to tell",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("duration_ms", "cost_usd", "words"),
    [
        (59_500, 0.01, "1 min 00 s, $0.01"),
        (59_400, 0.0099, "59 s, $0.0099"),
        (9_950, 0.0, "10 s, $0.00"),
        (3_600_000, 12.5, "1 h 00 min, $12.50"),
    ],
)
def test_duration_and_cost_are_rounded_as_a_person_would(
    duration_ms: int, cost_usd: float, words: str
) -> None:
    """No "60 s", and a cost below a cent is not nothing."""
    assert words in render_all([ends(duration_ms=duration_ms, total_cost_usd=cost_usd)])


@pytest.mark.parametrize(("chunks", "text"), SHOWN)
def test_messages_become_text(chunks: list[bytes], text: str) -> None:
    """Each kind of message looks as it should; init is put in front where paths matter."""
    hidden = init() if "a.py" in text else b""

    shown = render_all([hidden, *chunks])

    if hidden:
        shown = shown.split("\n\n", 1)[1]
    assert shown == text


TOOLS = [
    ("Write", {"file_path": "/w/a", "content": "x\ny\n"}, "/w/a\n"),
    ("Edit", {"file_path": "/w/a", "old_string": "x", "new_string": "x\ny"}, "/w/a\n"),
    ("MultiEdit", {"file_path": "a", "edits": [{"old_string": "x"}]}, "a\n"),
    ("NotebookEdit", {"notebook_path": "/n.ipynb"}, "/n.ipynb"),
    ("Read", {"file_path": "/w/a", "offset": 7}, "/w/a, from line 7"),
    ("Read", {"file_path": "/w/a", "limit": 10}, "/w/a, lines 1 to 10"),
    ("Grep", {"pattern": "TODO", "path": "src", "glob": "*.py"}, "TODO in src"),
    ("Grep", {"pattern": "TODO", "glob": "*.py"}, "TODO in *.py"),
    ("Grep", {"pattern": "TODO"}, "TODO\n"),
    ("Glob", {"pattern": "*.py"}, "*.py"),
    ("WebFetch", {"url": "http://h/", "prompt": "p"}, "http://h/"),
    ("WebSearch", {"query": "q"}, "q"),
    ("Skill", {"skill": "s"}, "s"),
    ("AskUserQuestion", {"questions": [{"question": "Which?"}]}, "Which?"),
    (
        "TodoWrite",
        {"todos": [{"status": "completed"}, {"status": "in_progress", "activeForm": "Fixing"}]},
        "1 of 2 done; Fixing",
    ),
    (
        "TodoWrite",
        {"todos": [{"content": "Fix", "status": "in_progress"}]},
        "0 of 1 done; Fix",
    ),
    ("TaskCreate", {"subject": "mend it"}, "mend it"),
    ("mcp__db__query", {"text": "a\nb", "limit": 5, "deep": {"x": [1]}}, "limit=5 deep={"),
]


@pytest.mark.parametrize(("name", "given", "shown"), TOOLS, ids=[each[0] for each in TOOLS])
def test_a_tool_is_shown_with_what_matters(name: str, given: dict[str, Any], shown: str) -> None:
    """Every tool is a line with what matters of its input, and more lines for more; unknown too."""
    first, *further = render_all([says(uses(name, **given))]).splitlines(keepends=True)

    assert first.startswith(f"● {name}: {shown}")
    assert all(line.startswith("◦ ") for line in further)


EDIT = {"file_path": "/home/me/work/a.py", "old_string": "x\n", "new_string": "y\nz\n"}
PATCH = {
    "oldStart": 7,
    "oldLines": 2,
    "newStart": 7,
    "newLines": 3,
    "lines": [" same", "-x", "+y\u2028\r", "+z", "\\ No newline at end of file", 5],
}
CHANGES = [
    pytest.param("Edit", EDIT, {"structuredPatch": [PATCH, "no hunk"]},
                 "⎿ 2 lines added, 1 removed\n"
                 "▏ @@ -7,2 +7,3 @@\n▏  same\n▏ -x\n▏ +y \n▏ +z\n", id="an edit"),
    pytest.param("Edit", EDIT, None, "⎿ 2 lines added, 1 removed\n▏ @@\n▏ -x\n▏ +y\n▏ +z\n",
                 id="an edit whose place is not told"),
    pytest.param("MultiEdit", {"edits": [{"old_string": "a", "new_string": "b"}, EDIT]}, "done",
                 "⎿ 3 lines added, 2 removed\n▏ @@\n▏ -a\n▏ +b\n▏ @@\n▏ -x\n▏ +y\n▏ +z\n",
                 id="several edits"),
    pytest.param("Write", {"content": "one\n\ntwo\n"}, {"type": "create", "structuredPatch": []},
                 "⎿ 3 lines added\n▏ @@ -0,0 +1,3 @@\n▏ +one\n▏ +\n▏ +two\n", id="a new file"),
    pytest.param("Write", {"content": "one\n"}, None, "⎿ 1 line added\n▏ @@\n▏ +one\n",
                 id="a file that may have been there"),
    pytest.param("Write", {"content": "one\n"}, {"type": "update", "structuredPatch": []},
                 "⎿ has been updated\n", id="a file that stays as it is"),
    pytest.param("Edit", {"old_string": "a\n" * 3_000}, None, "⎿ has been updated\n",
                 id="one that takes too long to compare"),
    pytest.param("NotebookEdit", {}, {"structuredPatch": [PATCH]}, "⎿ has been updated\n",
                 id="another tool"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "details", "shown"), CHANGES)
def test_a_change_is_shown(name: str, given: dict[str, Any], details: Any, shown: str) -> None:
    """What a tool has changed is a unified diff, line by line, whatever the lines hold."""
    chunks = [says(uses(name, **given)), returns("has been updated", details=details)]

    text = render_all(chunks)

    assert text[text.index("\n") + 1 :] == shown


def test_a_failed_edit_has_changed_nothing() -> None:
    """What would have been changed is not shown as a change."""
    text = render_all([says(uses("Edit", **EDIT)), returns("not found", is_error=True)])

    assert text == "● Edit: /home/me/work/a.py\n▲ failed: not found\n"


def test_what_follows_a_persons_message_says_whose_it_is() -> None:
    """Its owner shows the message between a tool and its result."""
    message = {"role": "user", "content": [{"type": "text", "text": "and this"}]}
    replayed = line(type="user", message=message, uuid="u1", isReplay=True)

    text = render_all([says(uses("Bash", command="ls")), replayed, returns("a")])

    assert text == "● Bash: ls\n\n○ Bash: ls\n⎿ a\n"


def test_at_the_terminal_little_is_shown() -> None:
    """A page folds what is long; a person at the terminal gets its beginning and its end."""
    shown = "".join(
        piece.finish(piece.text, is_brief=True)
        for item in read([says(uses("Bash", command="ls")), returns(LONG_OUTPUT)])
        for piece in (item.pieces if isinstance(item, Message) else ())
    )

    rows = [f"⎿ row {number}\n" for number in range(30)]
    assert shown == "".join(["● Bash: ls\n", *rows[:4], "⋯ 22 more lines\n", *rows[-4:]])


# --- what is not a message --------------------------------------------------------------------

PASSED = [
    pytest.param(b"plain text\n", id="text"),
    pytest.param(b"no newline", id="no line end"),
    pytest.param(b"{not json}\n", id="a brace"),
    pytest.param(b'{"a": 1}\n', id="an object that is no message"),
    pytest.param(b'{"type": 1}\n', id="a type that is none"),
    pytest.param(b'{"type": "result"} and more\n', id="words behind a message"),
    pytest.param(b'[{"type": "result"}]\n', id="a list"),
    pytest.param(b'{"type": "resu', id="cut off"),
    pytest.param(b'{"type": "x", "y": "\xff"}\n', id="not UTF-8"),
    pytest.param(b"\x00\xff\xfe\r\n\r\n\x1b[?25h\x1b[2", id="bytes"),
    pytest.param(b'{"type":"x","y":' + b"[" * 100_000 + b"\n", id="deep and cut off"),
    pytest.param(b'{"type":"x","y":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}\n", id="too deep"),
]


@pytest.mark.parametrize("raw", PASSED)
def test_what_is_no_message_passes_byte_for_byte(raw: bytes) -> None:
    """Whatever else comes is let through as it is, and the message behind it is read."""
    assert read([raw]) == [Passed(raw)]
    assert read([bytes([each]) for each in raw]) == [Passed(raw)]
    if raw.endswith(b"\n"):
        assert isinstance(read([raw, init()])[-1], Message)


@pytest.mark.parametrize(
    "raw", [b"Password: ", b"\x1b[1mok", b"{x", b"{ 1", b"\x00\x00", b"\r", b"\x1b[3", b"a{"]
)
def test_what_cannot_become_a_message_is_not_held_back(raw: bytes) -> None:
    """An incomplete line is shown at once when it cannot be the beginning of a message."""
    items = ClaudeStream().feed(raw)

    assert b"".join(each.raw for each in items if isinstance(each, Passed)) == raw


def test_noise_around_a_message_passes() -> None:
    """Padding and escape sequences around a message are let through, and it is still read."""
    noise = b"\x00\x1b[?25l\x1b]0;title\x07 "

    items = read([noise + says("Hello.").rstrip() + b"\r\x1b[?25h\r\n", b"\x1b[?25h"])

    assert [each.raw for each in items if isinstance(each, Passed)] == [noise, b"\x1b[?25h" * 2]
    assert isinstance(items[1], Message)


def test_a_message_is_shown_before_its_line_ends_only_at_the_end() -> None:
    """A last line without a newline is read when the stream ends."""
    stream = ClaudeStream()

    assert stream.feed(says("Hello.").rstrip()) == []
    (item,) = stream.flush()

    assert isinstance(item, Message)
    assert stream.flush() == []


def test_a_huge_line_is_let_go() -> None:
    """A line over the limit passes, without taking memory or time for ever."""
    chunk = b"x" * 65_536
    stream = ClaudeStream()
    began_at = time.process_time()

    items = stream.feed(b'{"type": "')
    for _ in range(MAX_LINE_BYTES // len(chunk) + 16):
        items += stream.feed(chunk)
    items += stream.feed(b'"}\n' + says("Next."))

    passed = b"".join(each.raw for each in items if isinstance(each, Passed))
    assert len(passed) == 10 + len(chunk) * (MAX_LINE_BYTES // len(chunk) + 16) + 3
    assert isinstance(items[-1], Message)
    # A quadratic one takes minutes.
    assert time.process_time() - began_at < 5


def test_a_message_of_megabytes_is_read() -> None:
    """Ten megabytes in one line, in small reads, are one message."""
    raw = says("y" * 10_000_000)

    items = read(raw[at : at + 4_095] for at in range(0, len(raw), 4_095))

    assert len(items) == 1
    assert isinstance(items[0], Message)


def test_the_value_is_the_whole_line() -> None:
    """What claude.jsonl gets is the message as it was parsed, and JSON again."""
    raw = b'{"type":"x","big":%s,"inf":1e999,"nan":NaN,"half":"\\ud83d","n":1.5}\n' % (b"9" * 5_000)

    (item,) = read([raw])

    assert isinstance(item, Message)
    assert item.pieces == ()
    wanted = {"type": "x", "big": None, "inf": None, "nan": None, "half": "\ud83d", "n": 1.5}
    assert item.value == wanted
    json.loads(json.dumps(item.value, allow_nan=False))


# --- the summary ------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [60, 92, 96, 199, 300])
def test_nothing_is_cut_before_it_is_redacted(padding: int) -> None:
    """Half a secret is not recognised, so what is too long for a name is left out whole."""
    secret = "gh" + "p_" + "w3X4" * 9
    word = f"{'x' * padding} {secret}"
    stream, rules = ClaudeStream(), Rules()

    items = stream.feed(says(uses(word)) + ends(terminal_reason=word, is_error=True))

    messages = [item for item in items if isinstance(item, Message)]
    assert len(messages) == 2
    shown = [piece.finish(rules.redact(piece.text)) for each in messages for piece in each.pieces]
    assert "gh" + "p_" not in "".join([*shown, rules.redact_json(stream.result())])


def test_the_last_result_counts() -> None:
    """A background task brings a second result; refusals of both are kept."""
    stream = ClaudeStream()
    refusal = {"tool_name": "Bash", "tool_use_id": "t1", "tool_input": {}}

    stream.feed(ends(num_turns=2, permission_denials=[refusal], session_id="s"))
    stream.feed(
        ends(is_error=True, subtype="error_max_turns", num_turns=5, total_cost_usd=0.5,
             session_id="s")
    )  # fmt: skip

    assert stream.summary is not None
    assert stream.summary.marker_fields() == {
        "isError": True,
        "subtype": "error_max_turns",
        "terminalReason": "completed",
        "durationMs": 1500.0,
        "totalCostUsd": 0.5,
        "numTurns": 5,
        "permissionDenials": ["Bash"],
        "sessionId": "s",
    }


@pytest.mark.parametrize(
    ("duration_ms", "shown"),
    [(42, "0.04 s"), (1_500, "1.5 s"), (12_300, "12 s"), (59_600, "1 min 00 s"),
     (192_000, "3 min 12 s"), (7_320_000, "2 h 02 min")],
)  # fmt: skip
def test_durations_are_said_as_people_say_them(duration_ms: int, shown: str) -> None:
    """A duration has the unit of its size."""
    assert render_all([ends(duration_ms=duration_ms)]) == f"■ Done in {shown}\n"


# --- shortening -------------------------------------------------------------------------------


def shortened(text: str, limit: Limit) -> list[str]:
    """Return what is left of a result, as it is shown."""
    return [write_line(each) for each in shorten([Line(RESULT, t) for t in text.split()], limit)]


@pytest.mark.parametrize(
    ("text", "limit", "short"),
    [
        ("a b", Limit(), "⎿ a,⎿ b"),
        ("a b c", Limit(1), "⎿ a (+2 lines)"),
        ("a b c", Limit(2), "⎿ a,⎿ b,⎿ c"),  # a note would be as long as what it replaces
        ("a b c d", Limit(2), "⎿ a,⋯ 2 more lines,⎿ d"),
        ("a b c d e", Limit(3), "⎿ a,⎿ b,⋯ 2 more lines,⎿ e"),
        ("a b c d e", Limit(3, keeps_end=False), "⎿ a,⎿ b,⎿ c,⋯ 2 more lines"),
        ("a b c d e", Limit(chars=4), "⎿ a,⎿ b,⎿ c,⎿ d,⎿ e"),
        ("a b c d e f", Limit(chars=4), "⎿ a,⎿ b,⋯ 2 more lines,⎿ e,⎿ f"),
        ("aaaa b c d e f", Limit(chars=4), "⎿ aaaa,⋯ 3 more lines,⎿ e,⎿ f"),
        ("a b c d", Limit(chars=2, keeps_end=False), "⎿ a,⎿ b,⋯ 2 more lines"),
        ("x" * 100, Limit(line_chars=10), "⎿ xxxxxxxxxx... (+90 characters)"),
        ("x" * 30, Limit(line_chars=10), "⎿ " + "x" * 30),
    ],
)
def test_shortening_keeps_both_ends(text: str, limit: Limit, short: str) -> None:
    """The middle goes, or the end of a diff; a note says how much."""
    assert shortened(text, limit) == short.split(",")


@given(st.lists(st.text("ab", min_size=1), min_size=1, max_size=20), st.integers(1, 6),
       st.integers(1, 9), st.booleans())  # fmt: skip
def test_what_is_shortened_fits(texts: list[str], lines: int, chars: int, end: bool) -> None:
    """No more lines than wanted, but for the note in place of several, and none is lost."""
    limit = Limit(lines, chars, 4 * chars, keeps_end=end)

    short = shortened(" ".join(texts), limit)

    notes = [each for each in short if each.startswith("⋯")]
    assert len(short) <= lines + 1
    assert all(len(each) <= chars + 40 for each in short)
    if lines > 1:
        hidden = sum(int(note.split()[1]) for note in notes)
        assert len(short) - len(notes) + hidden == len(texts)


# --- for any input ----------------------------------------------------------------------------

SOME_TEXT = st.text(st.sampled_from('ab{}"\\\n\r\t\x00\x1b[m;]\x07\ud83d\u00e9 :,'), max_size=12)
SOME_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | SOME_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SOME_TEXT, inner, max_size=4),
    max_leaves=8,
)
# Names and words that are looked at, so that random values meet the code that reads them.
NAMES = st.sampled_from(
    re.findall(
        r"\w+",
        """
    subtype message content text type name id input tool_use_id is_error result errors cwd model
    permission_denials tool_name tool_input duration_ms total_cost_usd num_turns tasks summary
    error attempt max_retries retry_delay_ms error_status mcp_servers status command file_path
    edits todos questions rate_limit_info parent_tool_use_id tool_use_result offset limit
    terminal_reason session_id compact_metadata level structuredPatch lines oldStart oldLines
    newStart newLines old_string new_string uuid
""",
    )
)
WORDS = st.sampled_from(
    re.findall(
        r"\w+",
        """
    system assistant user result error rate_limit_event init api_retry permission_denied text
    thinking tool_use tool_result compact_boundary status background_tasks_changed success Bash
    Read Write Edit Grep Task TodoWrite AskUserQuestion Other warning failed t1
    task_notification hook_response notification
""",
    )
)
SOME_FIELDS: st.SearchStrategy[Any] = st.recursive(
    WORDS | SOME_JSON,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=20,
)
SOME_MESSAGE = st.builds(
    lambda kind, fields: {**fields, "type": kind},
    WORDS,
    st.dictionaries(NAMES, SOME_FIELDS, max_size=8),
)


# Words and signs, blanks and empty lines, that begin and end with a letter.
SIGNED_TEXT = st.lists(
    st.text(st.sampled_from(["\\", " ", "a", SUBAGENT, *SIGNS.values()]), max_size=4)
).map(lambda lines: "\n".join(["a", *lines, "a"]))


@given(SIGNED_TEXT, SIGNED_TEXT, SIGNED_TEXT, SIGNED_TEXT, st.booleans())
def test_each_line_says_what_it_is(
    words: str, thought: str, command: str, output: str, is_subagent: bool
) -> None:
    """Whatever is said and printed, a reader of lines finds what was said, done and printed."""
    parent = {"parent_tool_use_id": "p"} if is_subagent else {}
    result = {"parent": "p"} if is_subagent else {}
    shown = render_all(
        [
            says({"type": "thinking", "thinking": thought}, words, **parent),
            says(uses("Bash", command=command), **parent),
            returns(output, **result),
        ]
    )

    found = [read_line(each) for each in shown.split("\n")[:-1]]

    tool, *more = command.split("\n")
    empty = Line(WORDS_OF_CLAUDE, "")
    assert found == [
        *(Line(THOUGHT, each, is_subagent) for each in thought.split("\n")),
        empty,
        *(Line(WORDS_OF_CLAUDE, each, is_subagent) for each in words.split("\n")),
        empty,
        Line(TOOL, f"Bash: {tool}", is_subagent),
        *(Line(INPUT, each, is_subagent) for each in more),
        *(Line(RESULT, each, is_subagent) for each in output.split("\n")),
    ]


@given(st.lists(SOME_MESSAGE | SOME_JSON, max_size=6))
def test_no_message_fails(values: list[Any]) -> None:
    """Whatever stands in a message, there is text or none, and it can be printed."""
    stream = ClaudeStream()

    items = stream.feed(b"".join(json.dumps(value).encode() + b"\n" for value in values))

    for item in items:
        for piece in item.pieces if isinstance(item, Message) else ():
            shown = piece.finish(piece.text)
            assert shown.encode().endswith(b"\n")
            assert shown.splitlines() == shown.split("\n")[:-1]
            assert "\x1b" not in shown
    if stream.summary is not None:
        json.dumps(stream.summary.marker_fields(), allow_nan=False)


SOME_LINE = st.one_of(
    st.binary(max_size=12),
    SOME_TEXT.map(lambda text: text.encode("utf-8", "replace")),
    SOME_MESSAGE.map(lambda value: json.dumps(value).encode() + b"\n"),
    st.sampled_from(
        [b"\x1b[?25h", b"\x1b]0;t\x07", b"\x00", b"{", b"\r\n", b"\n", b" ", b"\x1b", says("Hi.")]
    ),
)


@given(st.lists(SOME_LINE, max_size=8), st.data())
def test_any_split_gives_the_same(lines: list[bytes], data: st.DataObject) -> None:
    """Where a read ends changes nothing."""
    raw = b"".join(lines)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=8)))

    whole = read([raw])

    assert read(raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)])) == whole
    assert read(bytes([each]) for each in raw) == whole


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_without_messages_nothing_is_changed(chunks: list[bytes]) -> None:
    """What holds no message comes out as it went in."""
    items = read(chunks)

    passed = b"".join(each.raw for each in items if isinstance(each, Passed))
    assert passed == b"".join(chunks) or any(isinstance(each, Message) for each in items)


@pytest.mark.parametrize("is_old", [False, True], ids=["by its id", "by what it is"])
def test_a_withdrawn_question_is_no_denial(is_old: bool) -> None:
    """Claude Code counts it as one; what a person denied is counted, of the same kind too."""
    used = {"tool_name": "Bash", "input": {"command": "make"}}
    names = [{}, {}] if is_old else [{"tool_use_id": "t1"}, {"tool_use_id": "t2"}]
    denials = [
        {"tool_name": "Bash", "tool_use_id": name, "tool_input": {"command": command}}
        for name, command in (("t1", "make"), ("t2", "make -n" if is_old else "make"))
    ]
    stream = ClaudeStream()

    for number, name in enumerate(names):
        request = {"subtype": "can_use_tool", **used, **name}
        asked = {"type": "control_request", "request_id": f"r{number}", "request": request}
        stream.feed(json.dumps(asked).encode() + b"\n")
    for question_id in ("r0", "r9"):
        cancelled = {"type": "control_cancel_request", "request_id": question_id}
        stream.feed(json.dumps(cancelled).encode() + b"\n")
    stream.feed(ends(permission_denials=denials, session_id="s"))

    assert stream.result()["permissionDenials"] == ["Bash"]
