"""What does it cost to ask? A run that asks nobody beside one that may ask, with a stand-in.

Usage: bench_asking.py [--rounds 7]

The program is the stand-in for Claude Code that the tests use: it says a line, and ends. Between
the operator's answer and what Claude Code is told lie the gateway's long poll and the runner.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import beside  # noqa: F401 - it puts the repository on the path

from testing.gateways.operator import Operator
from testing.gateways.strict_gateway import StrictGateway
from testing.programs.claude_standin import StandIn, bash, say
from testing.programs.runner import plan

WAYS = {"nobody is asked": ("--ask", "never"), "the operator is asked": ("--ask", "remote")}


def time_start(gateway: StrictGateway, options: tuple[str, ...]) -> tuple[float, float]:
    """Return the seconds from the start to the first line, and to the end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        launch = plan(gateway, StandIn(folder, [[say("here")]]).command, folder, options=options)
        begun = time.monotonic()
        process = subprocess.Popen(
            launch.argv, env=launch.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdout is not None
        first = next(time.monotonic() - begun for line in process.stdout if b"here" in line)
        process.stdout.read()
        assert process.wait() == 0
        return first, time.monotonic() - begun


def time_answers(gateway: StrictGateway, count: int) -> list[float]:
    """Return the seconds from each answer of the operator to the decision of the program."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        standin = StandIn(folder, [[*(bash(f"true {each}") for each in range(count)), say("made")]])
        launch = plan(gateway, standin.command, folder, options=("--ask", "remote"))
        process = subprocess.Popen(
            launch.argv, env=launch.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        operator = Operator(gateway, launch.run.id)
        seconds = []
        for number in range(1, count + 1):
            asked = operator.asked(number)
            begun = time.monotonic()
            operator.answer(asked)
            standin.wait_for_decision(number)
            seconds.append(time.monotonic() - begun)
        assert process.wait() == 0
        return seconds


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    starts: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    with StrictGateway(rate_limit=None, extensions=("long-poll", "answers")) as gateway:
        for _ in range(rounds):
            for name, options in WAYS.items():
                starts[name].append(time_start(gateway, options))
        answers = time_answers(gateway, 3 * rounds)
    print("| median of " + str(rounds) + " | first line | all is over |\n|---|---|---|")
    for name, pairs in starts.items():
        first, over = (statistics.median(each) * 1_000 for each in zip(*pairs))
        print(f"| {name} | {first:.0f} ms | {over:.0f} ms |")
    print(
        f"\nfrom an answer to the program's decision: {statistics.median(answers) * 1_000:.0f} ms"
    )


if __name__ == "__main__":
    main()
