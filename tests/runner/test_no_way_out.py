"""A secret in everything that a run takes in: no piece of it goes out, by any way.

What one part of the runner removes is shown in that part's tests. Here nothing is known of parts:
two secrets, one with a shape and one known by its value alone, are put wherever a run takes
something in, and looked for in all that it sends, shows and keeps.
"""

from __future__ import annotations

import base64
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.gateways.strict_gateway import StrictGateway
from testing.programs.runner import Launch, RunnerProcess, plan, program

SHAPED = "gh" + "p_" + "q7Wz" * 4 + "Rk29" * 5
KNOWN = "Vb8-known-by-value-Xy3"
ENCODED = base64.b64encode(KNOWN.encode()).decode().rstrip("=")
BOTH = f"{SHAPED} and {KNOWN}"
PIECE_BYTES = 12

# Says all that it was given, on both streams, to the terminal's title and in a link.
TELLS = program(
    "import base64, os, sys\n"
    "said = ' '.join((*sys.argv, os.getcwd(), os.environ['DEPLOY_API_KEY']))\n"
    "print(said, base64.b64encode(said.encode()), sep='\\n')\n"
    "print(f'\\x1b]0;{said}\\x07\\x1b]8;;http://host/{said}\\x07link\\x1b]8;;\\x07')\n"
    "print(said, file=sys.stderr)\n"
)
# Stands in for Claude Code: prints the messages beside it, then waits for the operator.
STAND_IN = """#!{python} -IS
import pathlib, signal, sys
print(pathlib.Path(sys.argv[0]).with_name("messages").read_text(), end="", flush=True)
print("READY", flush=True)
signal.pause()
"""


@pytest.fixture
def gw() -> Iterator[StrictGateway]:
    """A gateway with long polls and no rate limit."""
    with StrictGateway(rate_limit=None, long_poll=True) as gateway:
        yield gateway


def find_pieces(content: bytes) -> set[str]:
    """Return the pieces of the secrets that are in some bytes."""
    pieces = {
        text[at : at + PIECE_BYTES]
        for text in (SHAPED, KNOWN, ENCODED, KNOWN.encode().hex())
        for at in range(len(text) - PIECE_BYTES + 1)
    }
    return {piece for piece in pieces if piece.encode() in content}


def find_ways_out(launch: Launch, runner: RunnerProcess) -> dict[str, set[str]]:
    """Return what has a piece of a secret in it: what the gateway got, what is shown, the files."""
    gateway, run_id = launch.gateway, launch.run.id
    acks: dict[str, list[Any]] = gateway.acks(run_id)
    contents = {
        **{f"event {each.sequence}": each.data.encode() for each in gateway.events(run_id)},
        **{f"artifact {each.name}": each.data for each in gateway.artifacts(run_id)},
        "names": repr([each.name for each in gateway.artifacts(run_id)]).encode(),
        "acknowledgements": repr(acks).encode(),
        "stdout": runner.stdout,
        "stderr": runner.stderr.encode(),
    }
    for path in launch.data_dir.rglob("*"):
        contents[f"path {path}"] = str(path.relative_to(launch.data_dir)).encode()
        if path.is_file():
            contents[f"file {path}"] = path.read_bytes()
    return {name: found for name, content in contents.items() if (found := find_pieces(content))}


def test_what_a_run_is_given(gw: StrictGateway, tmp_path: Path) -> None:
    """Prompt, folder, arguments, environment, output, files and their names."""
    folder = tmp_path / f"work {BOTH}"
    folder.mkdir()
    artifact = folder / f"{SHAPED}.md"
    artifact.write_text(f"{BOTH} {ENCODED}\n")
    launch = plan(
        gw,
        TELLS,
        tmp_path,
        prompt=f"deploy with {BOTH}",
        options=["-vv", "--artifact", str(artifact)],
        arguments=["--api-key", KNOWN, f"--with={SHAPED}"],
        env={"DEPLOY_API_KEY": KNOWN},
        cwd=folder,
    )

    with RunnerProcess(launch) as runner:
        assert runner.wait() == 0
        assert find_ways_out(launch, runner) == {}

    assert gw.text(launch.run.id).count("[REDACTED]") > 6
    assert [each.name for each in gw.artifacts(launch.run.id)] == ["claude.log", "_REDACTED_.md"]


def test_what_claude_code_tells_and_the_operator_asks(gw: StrictGateway, tmp_path: Path) -> None:
    """Every field of its messages, whole and in parts; commands that run, fail and are refused."""
    call = {"type": "tool_use", "id": "a", "name": f"mcp {SHAPED}", "input": {"command": BOTH}}
    edit = {"type": "tool_use", "id": "b", "name": "Write", "input": {"content": BOTH}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": BOTH, "is_error": True}
    listed = {
        "type": "tool_result",
        "tool_use_id": "b",
        "content": [{"type": "text", "text": BOTH}],
    }
    messages = (
        {"type": "system", "subtype": "init", "cwd": f"/{BOTH}", "model": BOTH, "tools": [BOTH]},
        *(
            {"type": "stream_event", "event": {"delta": {"text": SHAPED[at : at + 13]}}}
            for at in range(0, len(SHAPED), 13)
        ),
        {"type": "assistant", "message": {"content": [{"type": "thinking", "thinking": BOTH}]}},
        {"type": "assistant", "message": {"content": [{"type": "text", "text": BOTH}, call, edit]}},
        {
            "type": "user",
            "message": {"content": [result, listed]},
            "tool_use_result": {"out": BOTH},
        },
        {"type": "new", "deep": [{BOTH: BOTH}], "args": ["--token", KNOWN]},
        {
            "type": "result",
            "subtype": "error",
            "result": BOTH,
            "errors": [BOTH],
            "permission_denials": [{"tool_name": BOTH, "tool_input": {"command": BOTH}}],
        },
    )
    claude = tmp_path / "claude"
    claude.write_text(STAND_IN.format(python=sys.executable))
    claude.chmod(0o755)
    lines = "".join(f"{json.dumps(each)}\n" for each in messages)
    (tmp_path / "messages").write_text(f"{lines}no JSON: {BOTH}\n")
    (tmp_path / "kept").write_text(BOTH)
    entries = f"cat kept,cat missing-{SHAPED},{sys.executable} -c {shlex.quote(f'exit({KNOWN!r})')}"
    launch = plan(
        gw,
        [str(claude)],
        tmp_path,
        options=["-vv"],
        env={"DEPLOY_API_KEY": KNOWN, "EXTRA_ALLOWED_COMMANDS": entries},
    )

    with RunnerProcess(launch) as runner:
        launch.expect("READY")
        for command in (*entries.split(","), f"rm {BOTH}"):
            gw.queue_command(launch.run.id, command)
        gw.wait_for(lambda: len(gw.acks(launch.run.id)) == 4)
        gw.stop(launch.run.id)
        assert runner.wait() == 130
        assert find_ways_out(launch, runner) == {}

    assert {each.name for each in gw.artifacts(launch.run.id)} == {"claude.log", "claude.jsonl"}
    assert gw.text(launch.run.id).count("[REDACTED]") > 10
