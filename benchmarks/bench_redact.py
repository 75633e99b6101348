"""How fast the redactor is, beside the six documented patterns, and how well it scores.

    python benchmarks/bench_redact.py [--log FILE] [--megabytes 8] [--cases DIR]

(A script called `redact.py` would hide the module that it imports.)

Speed is measured in one thread on a made-up terminal log (or a file of yours) at three sizes of
read. The scores need a folder with labelled cases and their scorers, `score.py` and
`score_stream.py`; without one they are left out.
"""

from __future__ import annotations

import argparse
import base64
import functools
import random
import re
import string
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from redact import MARK, Redactor, Rules  # noqa: E402 - the repository is put on the path first

READ_SIZES = (256, 4096, 65536)
KNOWN = 10  # known values, in a second column
# The six documented patterns are prose (`api_key=xxx`, `apiKey: xxx`), so how fast they are depends
# on how they are written, by a factor of ten. Three ways, in any case, because output spells them
# `API_KEY`, `apiKey` and `Token`; none is slow on purpose (with the rest of the name before
# `token` they would be slower by far). The tokens begin a word: without `\b` the second pattern
# takes `disk-usage-by-directory` for one.
TOKENS = (
    rb"\bsk-[A-Za-z0-9_-]{20,}",
    rb"\bgh[ps]_[A-Za-z0-9]{36}",
    rb"\bnpm_[A-Za-z0-9]{36}",
    rb"-----BEGIN [A-Z ]*KEY-----[\s\S]*?-----END [A-Z ]*KEY-----",
)
DOCUMENTED = {
    # What somebody writes who knows that `re` is fast on what begins with a literal.
    "apart": (
        rb"(?i)api[_-]?key\s*[:=]\s*\S+",
        rb"(?i)token\s*[:=]\s*\S+",
        rb"(?i)password\s*[:=]\s*\S+",
        rb"(?i)bearer\s+\S+",
        *TOKENS,
    ),
    # What most people write.
    "together": (
        rb"(?i)(api[_-]?key|token|password)\s*[:=]\s*\S+",
        rb"(?i)bearer\s+\S+",
        *TOKENS,
    ),
    # What wrappers in the field have, in which the list of names has grown.
    "field": (
        rb"(?i)(api[_-]?key|apikey|token|password|passwd|secret)\s*[:=]\s*\S+",
        rb"(?i)(bearer)\s+\S+",
        *TOKENS,
    ),
}
WORDS = (
    *("cache", "worker", "build", "session", "request", "client", "server", "auth", "queue"),
    *("handler", "index", "parser", "config", "module", "import", "stream", "buffer", "thread"),
    *("event", "test", "fixture", "commit", "branch", "fetch", "deploy", "package", "install"),
)


def make_log(size: int) -> bytes:
    """Return harmless terminal output: log lines, JSON, paths, hashes, colours, redraws."""
    rng = random.Random(7)
    lines: list[str] = []
    total = 0
    while total < size:
        one, two = rng.choice(WORDS), rng.choice(WORDS)
        digest = f"{rng.getrandbits(128):032x}"
        at, number = (
            f"2026-03-0{rng.randint(1, 9)}T10:22:{rng.randint(10, 59)}",
            rng.randint(1, 900),
        )
        line = rng.choice(
            (
                f"{at}.123Z INFO [{one}] GET /v1/{two} 200",
                f'{{"level":"info","msg":"{one} {two}","trace_id":"{digest}","max_tokens":4096}}',
                f"\x1b[33mwarning\x1b[0m: `{one}`\r\n  \x1b[34m-->\x1b[0m src/{two}.rs:12:5",
                f"\x1b[2K\x1b[1G\x1b[38;5;99m* {one}\x1b[0m \x1b[2m(12s, 1.2k tokens)\x1b[0m",
                f"sha256:{digest}{digest}  Pulling fs layer: Download complete",
                f"    at {one}.{two} (src/{one}/{two}/index.ts:{number}:7)",
            )
        )
        lines.append(line)
        total += len(line) + 2
    return "\r\n".join(lines).encode()


def make_plain_lines(size: int) -> bytes:
    """Return lines of a number and 89 letters, as a program prints that just prints."""
    letters = string.ascii_lowercase * 5
    lines = (f"{at:09d} {letters[at % 26 : at % 26 + 89]}\r\n" for at in range(size // 101))
    return "".join(lines).encode()


def make_suspicious_log(size: int) -> bytes:
    """Return a coloured log in which each third line has a word that may name a secret."""
    rng = random.Random(7)
    lines: list[str] = []
    total = 0
    while total < size:
        one, two = rng.choice(WORDS), rng.choice(WORDS)
        line = rng.choice(
            (
                f"\x1b[32mINFO\x1b[0m \x1b[2m{rng.randint(1, 9)}ms\x1b[0m {one} of {two} done",
                f"\x1b[36m{one}\x1b[0m: \x1b[1m{two}\x1b[0m took {rng.randint(1, 900)} ms",
                f"\x1b[33mWARN\x1b[0m {one}: no password for the {two}, and none is needed",
                f"\x1b[90m[{one}]\x1b[0m GET /v1/{two} \x1b[32m200\x1b[0m",
                f"\x1b[1;34m{one}\x1b[0m {rng.randint(1, 9)}.{rng.randint(1, 9)}k tokens of {two}",
                f"\x1b[2m{one}/{two}.ts:{rng.randint(1, 900)}\x1b[0m the token was refreshed",
            )
        )
        lines.append(line)
        total += len(line) + 2
    return "\r\n".join(lines).encode()


def read_installed(size: int, folder: str, *patterns: str) -> bytes:
    """Return the texts of a folder, in an order that is the same each time, up to a size."""
    found = sorted({each for pattern in patterns for each in Path(folder).rglob(pattern)})
    random.Random(7).shuffle(found)
    parts: list[bytes] = []
    left = size
    for path in found:
        if left <= 0:
            break
        if path.is_file():
            parts.append(path.read_bytes()[: min(left, 100_000)])
            left -= len(parts[-1])
    return b"\n".join(parts)


def measure(feeds: Sequence[Callable[[bytes], object]], chunks: list[bytes]) -> list[float]:
    """Return megabytes per second of each function, in turns so that a busy machine is fair to all;
    the best of five.

    Time is that of the process, so that what else runs on the machine is not counted.
    """
    best = [float("inf")] * len(feeds)
    for _ in range(5):
        for index, feed in enumerate(feeds):
            start = time.process_time()
            for chunk in chunks:
                feed(chunk)
            best[index] = min(best[index], time.process_time() - start)
    total = sum(map(len, chunks))
    return [total / 1e6 / seconds for seconds in best]


def substitute(patterns: Sequence[re.Pattern[bytes]], chunk: bytes) -> bytes:
    """Return the chunk without what the patterns match."""
    for pattern in patterns:
        chunk = pattern.sub(MARK, chunk)
    return chunk


def measure_held(rules: Rules, chunks: list[bytes]) -> tuple[float, int]:
    """Return how many bytes are held back after a read: the mean and the most."""
    redactor = Redactor(rules=rules)
    held = []
    for chunk in chunks:
        redactor.feed(chunk)
        held.append(redactor.held)
    return sum(held) / len(held), max(held)


def measure_speed(title: str, stream: bytes) -> list[str]:
    """Return rows of a table: for each size of read megabytes per second, how often that is what
    the six documented patterns reach, and what was held back.
    """
    rng = random.Random(3)
    values = [base64.b64encode(rng.getrandbits(192).to_bytes(24, "big")) for _ in range(KNOWN)]
    rules, with_known = Rules(), Rules(values)
    spellings: list[Callable[[bytes], object]] = [
        functools.partial(substitute, tuple(map(re.compile, patterns)))
        for patterns in DOCUMENTED.values()
    ]
    rows = []
    for size in READ_SIZES:
        part = stream[: len(stream) // 8] if size < READ_SIZES[1] else stream
        chunks = [part[at : at + size] for at in range(0, len(part), size)]
        feeds = [Redactor(rules=rules).feed, Redactor(rules=with_known).feed, *spellings]
        ours, known, *theirs = measure(feeds, chunks)
        mean, most = measure_held(rules, chunks)
        ratios = " | ".join(f"{speed:.0f} ({ours / speed:.1f} x)" for speed in theirs)
        rows.append(
            f"| {title}, {size} B | {ours:.0f} | {known:.0f} | {ratios} | {mean:.1f} | {most} |"
        )
        print(rows[-1], flush=True)
    return rows


HEAD = [
    f"| text, read | redactor | {KNOWN} known values | {' | '.join(DOCUMENTED)} | held | at most |",
    "|---|" + "---|" * (len(DOCUMENTED) + 4),
]


def measure_all(megabytes: float, log: bytes | None = None) -> list[str]:
    """Return the table: logs, made up if none is given, and what is installed on this machine."""
    size = int(megabytes * 1e6)
    print("\n".join(HEAD))
    stdlib, packages = sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")
    texts = {
        "terminal log": make_log(size) if log is None else log,
        "plain lines": make_plain_lines(size),
        "log with colours, `token`, `password`": make_suspicious_log(size),
        "installed source": read_installed(size, stdlib, "*.py"),
        "installed documents": read_installed(size, packages, "METADATA", "*.md", "*.rst", "*.txt"),
    }
    rows = [row for title, text in texts.items() for row in measure_speed(title, text)]
    return [*HEAD, *rows]


def print_scores(cases: Path) -> None:
    """Run the scorers that come with the cases."""
    target = f"{ROOT / 'redact.py'}:Redactor"
    modes = ["--modes", "whole,rand,byte,ansi"]
    subprocess.run([sys.executable, str(cases / "score.py"), target, *modes], check=True)
    subprocess.run([sys.executable, str(cases / "score_stream.py"), target, "-v"], check=True)


def main() -> int:
    """Print speed and scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--log", type=Path, help="measure on this file, as a terminal printed it")
    parser.add_argument("--megabytes", type=float, default=8, help="size of the made-up log")
    parser.add_argument("--cases", type=Path, default=ROOT.parent / "shared" / "redaction")
    options = parser.parse_args()
    measure_all(options.megabytes, options.log.read_bytes() if options.log else None)
    if (options.cases / "score.py").is_file():
        print_scores(options.cases)
    else:
        print(f"no cases in {options.cases}: no scores (--cases DIR)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
