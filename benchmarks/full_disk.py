"""Random episodes on a small disk, with outages, resets and kills, one after the other.

Usage: full_disk.py [--episodes N] [--seed N] [--workers N]

What happens in one, and what is judged, is in `testing/programs/episode.py`. Needs the right to
mount a tmpfs. Exit 1 if a promise was broken; the seeds of those episodes are named.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from testing.gateways.strict_gateway import StrictGateway  # noqa: E402
from testing.programs.disk import mounted  # noqa: E402 - it is beside this folder
from testing.programs.episode import DISK_MEGABYTES, Episode, describe  # noqa: E402


def undergo(seed: int) -> tuple[int, Counter[str], list[str]]:
    """Let one episode happen; return its seed, its counts and its problems."""
    counts: Counter[str] = Counter()
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="episode-") as name:
        folder = Path(name)
        try:
            with (
                mounted(folder / "disk", DISK_MEGABYTES) as disk,
                StrictGateway(rate_limit=None) as gateway,
            ):
                episode = Episode(seed, folder, disk, gateway)
                counts, problems = episode.counts, episode.problems
                episode.undergo()
                gateway.clear_violations()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            problems.append(f"{type(error).__name__}: {error}"[:400])
    return seed, counts, problems


def main() -> int:
    """Run them, and print what they came to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--only", type=int, help="the seed of one episode")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("CLAUDE", "GATEWAY", "HMAC"))]:
        del os.environ[name]
    dice = random.Random(options.seed)
    seeds = [dice.randrange(1 << 32) for _ in range(options.episodes)]
    seeds = seeds if options.only is None else [options.only]
    print(f"seed {options.seed}, {len(seeds)} episodes, {options.workers} workers")
    begun_at, totals, broken = time.monotonic(), Counter[str](), 0
    with ProcessPoolExecutor(options.workers) as pool:
        for number, (seed, counts, problems) in enumerate(pool.map(undergo, seeds), start=1):
            totals.update(counts)
            print(f"{number} episodes, {broken} broke a promise", end="\r", flush=True)
            broken += bool(problems)
            for problem in problems:
                print(f"seed {seed}: {problem}", flush=True)
    print(describe(totals))
    print(f"{broken} of {len(seeds)} broke a promise, in {time.monotonic() - begun_at:.0f} s")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
