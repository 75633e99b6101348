"""Hand over to the embedded gateway, which is a program of its own in `gateway/`.

The runner imports nothing of it and works without it: in a project into which only the runner's
files were copied there is none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from config import RunnerError
from program import PROGRAM
from tools.packages import GATEWAY, provide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.console import Console


def run_gateway(module: str, arguments: Sequence[str], console: Console) -> int:
    """Run a module of the gateway in this process. Raises RunnerError when that cannot be."""
    if not (PROGRAM / "gateway" / "__main__.py").is_file():
        raise RunnerError(
            f"there is no gateway in {PROGRAM}: only the runner's files are here; start it in a "
            "clone of claude-runner, and set GATEWAY_URL to where it is"
        )
    provide(console, GATEWAY)
    xterm = importlib.import_module("gateway.xterm")
    return int(importlib.import_module(module).main(arguments, lambda: xterm.fetch(console)))
