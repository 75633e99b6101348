"""Hand over to the embedded gateway, which is a program of its own in `gateway/`.

The runner imports nothing of it and works without it: in a project into which only the runner's
files were copied there is none.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from config import RunnerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# One package for each line of requirements-gateway.txt, by the name that is imported.
PACKAGES: Final = ("cheroot", "cryptography", "flask", "segno", "sqlalchemy", "werkzeug")


def become_gateway(root: Path, module: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by a module of the gateway. Raises RunnerError when that cannot be.

    The current folder becomes `root`, so paths among the arguments must be absolute.
    """
    if not (root / "gateway" / "__main__.py").is_file():
        raise RunnerError(
            f"there is no gateway in {root}: only the runner's files are here; start it in a clone "
            "of claude-runner, and set GATEWAY_URL to where it is"
        )
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise RunnerError(
            f"the gateway needs packages that are not there ({', '.join(missing)}); start it with "
            "./wrapper/claude-runner, which installs them, or install requirements-gateway.txt"
        )
    cache = [] if sys.pycache_prefix is None else ["-X", f"pycache_prefix={sys.pycache_prefix}"]
    os.chdir(root)
    os.execv(sys.executable, [sys.executable, *cache, "-m", module, *arguments])  # noqa: S606
