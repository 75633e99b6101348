"""Where do a short run's processor time and memory go?

Usage: profile_start.py [--rounds 15]

Each stage is a Python that imports as much as a run has imported by then, and ends. Of processor
time the least of the rounds counts, because whatever else the machine does only adds to it.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from beside import ROOT, SHIM, as_a_user, rounds, run_in_terminal, ways

_OURS = "claude_runner, tools.start"
_LISTING = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import {_OURS}
own = {{"claude_runner", "allowlist", "config", "places", "redact", "gateway_client", "kinds"}}
own |= {{"runner", "tools", "journal", "redaction", "gateway_transport", "__main__", "site"}}
print(", ".join(name for name in sys.modules if name.partition(".")[0] not in own))
"""


def measure(count: int) -> list[str]:
    """Return the lines of the table."""
    with tempfile.TemporaryDirectory(prefix="profile-") as cache:
        library = _ask(_LISTING, cache)
        stages = [
            ("Python itself, isolated", "pass"),
            ("and what a start needs of its library", f"import {library}"),
            ("and the runner's modules for a start", f"import {library}, {_OURS}"),
            ("and those behind it", f"import {library}, {_OURS}, runner.conduct"),
            (
                "and `requests`",
                f"import {library}, {_OURS}, runner.conduct, gateway_transport.adapter",
            ),
        ]
        rows = [
            (name, *min(_cost(f"{_HEAD}{source}{_TAIL}", cache) for _ in range(count)))
            for name, source in stages
        ]
    shim = min(
        run_in_terminal([str(SHIM), "--version"], as_a_user(os.environ)).cpu_s for _ in range(count)
    )
    with ways() as (found, _):
        found = {name: way for name, way in found.items() if name in ("asciinema rec", SHIM.name)}
        runs = rounds(count, lambda _, way: way(["sh", "-c", "echo hi"]).cpu_s * 1_000, found)
    return [
        "| | processor time, ms | resident, MB |",
        "|---|---|---|",
        *(f"| {name} | {cpu_ms:.0f} | {resident_mb:.0f} |" for name, cpu_ms, resident_mb in rows),
        f"| `--version`, by the shim | {shim * 1_000:.0f} | |",
        *(
            f"| a run of one line, `{name}`, all processes | {min(cpu_ms):.0f} "
            f"(median {statistics.median(cpu_ms):.0f}) | |"
            for name, cpu_ms in runs.items()
        ),
    ]


_HEAD = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.dont_write_bytecode = False\n"
_TAIL = """
import os
with open("/proc/self/statm") as file:
    pages = int(file.read().split()[1])
print(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
"""


def _cost(source: str, cache: str) -> tuple[float, float]:
    before_s = _spent_s()
    resident_mb = float(_ask(source, cache))
    return (_spent_s() - before_s) * 1_000, resident_mb


def _spent_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _ask(source: str, cache: str) -> str:
    """Run Python with compiled files, as users have them, and return what it prints."""
    argv = [sys.executable, "-I", "-X", f"pycache_prefix={Path(cache)}", "-c", source]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    print("\n".join(measure(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
