"""Where does the processor time go while a program prints without end? By stage, in ms a megabyte.

Usage: profile_throughput.py [--megabytes 20] [--rounds 3]

One run under the runner as in `bench_throughput.py`, with a clock around each stage that counts the
processor time of its own thread, without that of the stages inside it. Time that other work on the
machine takes does not count, so that this can be used beside it. The medians of the rounds.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import resource
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from beside import GatewayProcess, run_in_terminal, runner_launch
from throughput import timed

_INSIDE = "--inside"


def measure(megabytes: int, rounds: int) -> dict[str, float]:
    """Return the milliseconds of processor time that each stage takes for a megabyte."""
    found: dict[str, list[float]] = collections.defaultdict(list)
    with GatewayProcess() as gateway, tempfile.TemporaryDirectory() as name:
        for _ in range(rounds):
            folder = Path(tempfile.mkdtemp(dir=name))
            launch = runner_launch(gateway, timed(folder / "seconds", megabytes), folder)
            out = folder / "stages"
            argv = [sys.executable, __file__, _INSIDE, str(out), *launch.argv[2:]]
            cost = run_in_terminal(argv, launch.env)
            stages: dict[str, float] = json.loads(out.read_text())
            stages["the child, and the keeper"] = cost.cpu_s - stages.pop("process")
            for stage, seconds in stages.items():
                found[stage].append(seconds * 1_000 / megabytes)
    return {stage: statistics.median(figures) for stage, figures in found.items()}


class _Stages:
    """The processor time of each stage, in whatever thread; a stage inside another is its own."""

    def __init__(self) -> None:
        self.seconds: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()
        self._inner = threading.local()

    def watch(self, owner: type, method: str, stage: str) -> None:
        """Count the time of a method as that of a stage."""
        watched = getattr(owner, method)

        @functools.wraps(watched)
        def timed_method(*args: Any, **kwargs: Any) -> Any:
            outer_s = getattr(self._inner, "seconds", 0.0)
            self._inner.seconds = 0.0
            begin = time.thread_time()
            try:
                return watched(*args, **kwargs)
            finally:
                took_s = time.thread_time() - begin
                with self._lock:
                    self.seconds[stage] += took_s - self._inner.seconds
                self._inner.seconds = outer_s + took_s

        setattr(owner, method, timed_method)


def _run_inside(out: Path, arguments: list[str]) -> int:
    """Be the runner, with clocks, and leave what they say in a file."""
    import claude_runner
    import redact
    from gateway_client import GatewayClient
    from journal.spool import Spool
    from runner.pump import PtyPump
    from runner.sequences import ModeTracker, TextFilter
    from runner.terminal import LocalOutput
    from runner.upload import Uploader

    stages = _Stages()
    for owner, method, stage in (
        (PtyPump, "_work", "read the child's terminal"),
        (LocalOutput, "write", "write to the user's terminal"),
        (LocalOutput, "write_pending", "write to the user's terminal"),
        (ModeTracker, "feed", "look for modes, filter, decode"),
        (TextFilter, "feed", "look for modes, filter, decode"),
        (redact.RedactedDecoder, "feed", "look for modes, filter, decode"),
        (redact.Redactor, "feed", "redact"),
        (PtyPump, "_keep", "write the log"),
        (Spool, "append", "append to the journal"),
        (Spool, "sync_to_disk", "sync the journal"),
        (Spool, "cut", "cut an event, and freeze it"),
        (Spool, "accept", "note that it was accepted"),
        (GatewayClient, "_sign", "sign it"),
        (GatewayClient, "_exchange", "send it"),
        (Uploader, "send_next", "upload the log"),
    ):
        stages.watch(owner, method, stage)
    sys.argv[1:] = arguments
    try:
        return claude_runner.main()
    finally:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        process_s = usage.ru_utime + usage.ru_stime
        rest_s = process_s - sum(stages.seconds.values())
        out.write_text(
            json.dumps({**stages.seconds, "start, end, the rest": rest_s, "process": process_s})
        )


def main() -> int:
    """Measure, and print."""
    if sys.argv[1:2] == [_INSIDE]:
        return _run_inside(Path(sys.argv[2]), sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    stages = measure(options.megabytes, options.rounds)
    print("| stage | ms/MB |\n|---|---|")
    for stage, milliseconds in sorted(stages.items(), key=lambda each: -each[1]):
        print(f"| {stage} | {milliseconds:.1f} |")
    print(f"| all | {sum(stages.values()):.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
