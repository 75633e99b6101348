"""The bundled session of `claude-runner demo`: what a run looks like, without Claude Code.

Prints messages as Claude Code does in print mode, so that the runner shows them as it shows those.
Takes the prompt as its last argument and works in the current folder. Needs the standard library
alone, because it is started as anything that `CLAUDE_COMMAND` may name.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# As fast as a person reads.
_PAUSE_S = 0.7
# How long the operator of the demo may take.
_OPERATOR_TIMEOUT_S = 15.0

_GREETING = """def greet(name):
    return f"Hello {name}, good to see you!"
"""
CHECK = "from greeting import greet; assert 'Ada' in greet('Ada'); print('1 passed')"


def main() -> int:
    """Play the session."""
    say(
        "This is the **bundled session** of the demo, not Claude Code. "
        "What it prints is redacted here and appears in the page while it happens.\n\n"
        f"The prompt: {sys.argv[-1]}"
    )
    before = Path("greeting.py").read_text("utf-8")
    use("Read", {"file_path": "greeting.py"}, before)

    # Made up anew each time; the page, the log and the gateway never see it.
    token = "ghp_" + secrets.token_hex(18)
    settings = f"endpoint = https://api.example.com\ntoken = {token}"
    use("Bash", {"command": "cat settings.ini"}, settings)
    say("The token above leaves this machine as `[REDACTED]`.")

    Path("greeting.py").write_text(_GREETING, "utf-8")
    Path("changed").touch()
    old, new = before.splitlines()[1], _GREETING.splitlines()[1]
    hunk = {"oldStart": 1, "oldLines": 2, "newStart": 1, "newLines": 2,
            "lines": [" def greet(name):", f"-{old}", f"+{new}"]}  # fmt: skip
    given = {"file_path": "greeting.py", "old_string": old, "new_string": new}
    use("Edit", given, "done", {"structuredPatch": [hunk]})
    say("Waiting for the operator, who asks for `git diff` in the page …")
    wait_for(Path("go-on"), _OPERATOR_TIMEOUT_S)

    check = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True)
    use("Bash", {"command": "run the check"}, f"{check.stdout.strip()}{check.stderr.strip()}")
    print("one line on stderr, told apart in the page", file=sys.stderr, flush=True)
    Path("summary.md").write_text("# Summary\n\n- The greeting is friendlier now.\n", "utf-8")
    say("Wrote `summary.md`, which is uploaded as an artifact at the end.")
    say("**Done.** The greeting is friendlier now.")
    tell("result", subtype="success", is_error=check.returncode != 0, num_turns=1)
    return check.returncode


def say(text: str) -> None:
    """Say something, and leave time to read it."""
    tell("assistant", message={"content": [{"type": "text", "text": text}]})
    time.sleep(_PAUSE_S)


def use(name: str, given: dict[str, Any], result: str, details: Any = None) -> None:
    """Tell of a tool and what came of it."""
    tool = {"type": "tool_use", "id": secrets.token_hex(4), "name": name, "input": given}
    tell("assistant", message={"content": [tool]})
    time.sleep(_PAUSE_S)
    block = {"type": "tool_result", "tool_use_id": tool["id"], "content": result}
    tell("user", message={"content": [block]}, tool_use_result=details)
    time.sleep(_PAUSE_S)


def tell(kind: str, **fields: Any) -> None:
    """Print one message."""
    print(json.dumps({"type": kind, **fields}), flush=True)


def wait_for(path: Path, timeout_s: float) -> None:
    """Wait until a file is there, or the time is over."""
    deadline = time.monotonic() + timeout_s
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
