"""Use an installed package as a user does: one whole run against a gateway on this machine.

Usage: ``python .ci/smoke.py PROGRAM``, with any Python; nothing needs to be installed in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from testing.gateways.strict_gateway import StrictGateway


def main(program: str) -> int:
    """Start a run with the program; return 0 if the gateway has all of it."""
    with tempfile.TemporaryDirectory() as home, StrictGateway() as gateway:
        run = gateway.create_run()
        env = {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "GATEWAY_URL": gateway.url,
            "HMAC_SECRET": gateway.secret,
            "CLAUDE_RUNNER_TOKEN": run.token,
            "CLAUDE_COMMAND": "echo",
        }
        command = [program, "start", "--run-id", run.id, "--cmd", "hello"]
        done = subprocess.run(
            command, env=env, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, timeout=120
        )
        problems = [] if done.returncode == 0 else [done.stderr.decode()]
        problems += gateway.verify_finished(run.id)
        if "hello" not in gateway.text(run.id):
            problems.append("the gateway has not got the output")
    print("\n".join(problems) or f"{program}: ok")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
