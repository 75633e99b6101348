"""The bundled session of `claude-runner demo`: what a run looks like, without Claude Code.

Takes the prompt as its last argument and works in the current folder. Needs the standard library
alone, because it is started as anything that `CLAUDE_COMMAND` may name.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from pathlib import Path

BOLD, DIM, GREEN, RESET = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[0m"
# As fast as a person reads.
_PAUSE_S = 0.7
# How long the operator of the demo may take.
_OPERATOR_TIMEOUT_S = 15.0

_GREETING = """def greet(name):
    return f"Hello {name}, good to see you!"
"""
CHECK = "from greeting import greet; assert 'Ada' in greet('Ada'); print('1 passed')"


def say(text: str = "", pause_s: float = _PAUSE_S) -> None:
    """Print a line, and leave time to read it."""
    print(text, flush=True)
    time.sleep(pause_s)


def main() -> int:
    """Play the session."""
    say(f"{BOLD}This is the bundled session of the demo, not Claude Code.{RESET}")
    say(f"{DIM}What it prints is redacted here and appears in the page while it happens.{RESET}")
    say(f"\nThe prompt: {sys.argv[-1]}")
    say("\n> Read greeting.py")
    say("".join(f"  {line}\n" for line in Path("greeting.py").read_text("utf-8").splitlines()))

    # Made up anew each time; the page, the log and the gateway never see it.
    token = "ghp_" + secrets.token_hex(18)
    say("> Bash: cat settings.ini")
    say(f"  endpoint = https://api.example.com\n  token = {token}")
    say("The token above leaves this machine as [REDACTED].")

    say("\n> Edit greeting.py")
    Path("greeting.py").write_text(_GREETING, "utf-8")
    Path("changed").touch()
    say("Waiting for the operator, who asks for `git diff` in the page …", 0)
    wait_for(Path("go-on"), _OPERATOR_TIMEOUT_S)

    say("\n> Bash: run the check")
    check = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True)
    say(f"  {GREEN}{check.stdout.strip()}{RESET}{check.stderr.strip()}")
    print("one line on stderr, told apart in the page", file=sys.stderr, flush=True)
    Path("summary.md").write_text("# Summary\n\n- The greeting is friendlier now.\n", "utf-8")
    say("Wrote summary.md, which is uploaded as an artifact at the end.")
    say(f"\n{BOLD}Done.{RESET} The greeting is friendlier now.", 0)
    return check.returncode


def wait_for(path: Path, timeout_s: float) -> None:
    """Wait until a file is there, or the time is over."""
    deadline = time.monotonic() + timeout_s
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
