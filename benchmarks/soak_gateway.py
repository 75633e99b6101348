"""Two gateways on one PostgreSQL behind HAProxy, while one fault after the other happens to them.

Usage: soak_gateway.py [--minutes 30] [--runners 50] [--viewers 20] [--seed N]

Runners post numbered events and wait for commands, viewers follow runs and come back as a browser
does, an operator sends stops, somebody repeats what was answered. Meanwhile a gateway is killed or
ended and comes back, PostgreSQL is restarted or crashes, or the gateways lose the connections by
which they hear of each other. The clocks of the two gateways are 2 s apart. It prints a table for
docs/reliability.md, and each thing that was wrong. Exit 1 if anything was.

It needs PostgreSQL and HAProxy. As root, PostgreSQL runs as the user of Debian's package.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import platform
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from testing.gateways.balancer import Team  # noqa: E402
from testing.gateways.embedded_gateway import EmbeddedGateway  # noqa: E402
from testing.gateways.embedded_record import EmbeddedRecord  # noqa: E402
from testing.gateways.gateway_records import Run  # noqa: E402
from testing.gateways.postgresql import Cluster, cluster  # noqa: E402
from testing.gateways.signing_client import ENDED, Answer, Attempt, Client  # noqa: E402

STOP_WITHIN_S = 2.0
BACK_WITHIN_S = 3.0
APART_S = 2.0
BETWEEN_EVENTS_S = 0.4
BETWEEN_FAULTS_S = (6.0, 12.0)
# A browser waits for as long; the stream says so.
BROWSER_WAITS_S = 1.0
RUNNER_WAITS_S = 0.5
ENDS_WITHIN_S = 60.0
BALANCER_ERRORS = (502, 503, 504)
HEARS = "query LIKE '%pg_locks%' OR query LIKE '%pg_try_adv%' OR query LIKE 'LISTEN%'"


@dataclass
class Seen:
    """What everybody has counted and measured. Thread: any."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    times_s: dict[str, list[float]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        """Count something."""
        with self.lock:
            self.counts[what] += 1

    def object_to(self, what: str) -> None:
        """Note something that must not be."""
        with self.lock:
            self.wrong.append(what)
        print(f"wrong: {what}", flush=True)

    def measure(self, what: str, took_s: float) -> None:
        """Note how long something took."""
        with self.lock:
            self.times_s.setdefault(what, []).append(took_s)

    def shown(self, what: str) -> str:
        """Return the median, the 99th of a hundred and the worst of what was measured."""
        times = sorted(self.times_s.get(what, ()))
        if not times:
            return "-"
        p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
        return f"{p50:.2f} / {p99:.2f} / {times[-1]:.2f} s"


class World:
    """The gateways and their database, and when nobody can expect an answer."""

    def __init__(self, team: Team, database: Cluster, seen: Seen) -> None:
        self.team = team
        self.database = database
        self.seen = seen
        self.over = threading.Event()
        self.record = EmbeddedRecord(team)
        # Since when the database answers; infinite while it is away.
        self.answers_since = 0.0

    def later_than(self, moment: float) -> float:
        """Return a moment, or the one since which the database answers, if that is later."""
        return max(moment, self.answers_since)


def shift_clock(gateway: EmbeddedGateway, offset_s: float) -> None:
    """Let a gateway's clock be wrong."""
    shift = (
        "import runpy, sys, time; real, offset = time.time, float(sys.argv[1]); "
        "time.time = lambda: real() + offset; sys.argv[:2] = []; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    python, *rest = gateway.command()
    gateway.command = lambda: [python, "-c", shift, str(offset_s), *rest]  # type: ignore[method-assign]


class Runner:
    """Sends numbered events, one after the other, byte for byte until each is answered; and waits
    for commands beside it.
    """

    def __init__(self, world: World, run: Run) -> None:
        self.world = world
        self.run = run
        self.acknowledged: list[str] = []
        self.stops: dict[str, float] = {}
        self.got: set[str] = set()
        self.lock = threading.Lock()
        self.threads = [
            threading.Thread(target=each, name=f"{each.__name__} {run.id}", daemon=True)
            for each in (self.send, self.poll)
        ]

    def send(self) -> None:
        """Send until it is over; the last event is answered too."""
        number = 0
        with closing(Client(self.world.record, self.run)) as client:
            while not self.world.over.is_set():
                number += 1
                data = f"{number} {time.time():.3f}\n"
                attempt = client.event_attempt("stdout", data, number)
                self.deliver(client, attempt)
                self.acknowledged.append(data)
                if random.random() < 0.05:
                    self.replay(client, attempt)
                time.sleep(random.uniform(0, 2 * BETWEEN_EVENTS_S))

    def deliver(self, client: Client, attempt: Attempt) -> None:
        """Send it until it is answered."""
        copies = 0
        while True:
            answer = self.attempt(client, attempt)
            if answer is not None:
                if answer.status == 200:
                    return
                error = answer.json.get("error", "")
                if copies and answer.status == 401 and "Nonce already used" in error:
                    return
                self.world.seen.object_to(f"an event was answered {answer.status} {error}")
                return
            copies += 1
            self.world.seen.count("events sent again")
            time.sleep(RUNNER_WAITS_S)

    def attempt(self, client: Client, attempt: Attempt) -> Answer | None:
        """Return the gateway's answer, None if it has none now."""
        try:
            answer = client.send(attempt)
        except (*ENDED, OSError):
            return None
        return None if answer.status in BALANCER_ERRORS else answer

    def replay(self, client: Client, attempt: Attempt) -> None:
        """Send once more what was answered: it must be refused."""
        answer = self.attempt(client, attempt)
        if answer is not None:
            self.world.seen.count("replays refused")
            if answer.status != 401:
                self.world.seen.object_to(f"a replay was answered {answer.status}")

    def poll(self) -> None:
        """Wait for commands, and acknowledge them."""
        with closing(Client(self.world.record, self.run)) as client:
            while not self.world.over.is_set():
                path = f"/api/runs/{self.run.id}/commands?wait=20"
                answer = self.attempt(client, client.sign("GET", path))
                if answer is None or answer.status != 200:
                    if answer is not None:
                        self.world.seen.object_to(f"a poll was answered {answer.status}")
                    time.sleep(RUNNER_WAITS_S)
                    continue
                for command in answer.json:
                    self.take(client, command["id"])

    def take(self, client: Client, command: str) -> None:
        """Note a command, and acknowledge it."""
        arrived = time.monotonic()
        with self.lock:
            is_new = command not in self.got
            self.got.add(command)
            sent = self.stops.get(command, arrived)
        if is_new:
            took_s = max(0.0, arrived - self.world.later_than(sent))
            self.world.seen.measure("stop", took_s)
            if took_s > STOP_WITHIN_S:
                self.world.seen.object_to(f"a stop took {took_s:.1f} s")
        path = f"/api/runs/{self.run.id}/commands/{command}/ack"
        while True:
            attempt = client.sign("POST", path, json.dumps({"result": "stopped"}).encode())
            answer = self.attempt(client, attempt)
            if answer is not None:
                if answer.status != 200:
                    self.world.seen.object_to(f"an ack was answered {answer.status}")
                return
            time.sleep(RUNNER_WAITS_S)


class Viewer:
    """Follows a run as a browser does, and comes back when its stream ends."""

    def __init__(self, world: World, runner: Runner) -> None:
        self.world = world
        self.runner = runner
        self.last_id = 0
        self.number = 0
        self.lost_at: float | None = None
        self.threads = [threading.Thread(target=self.follow, name="viewer", daemon=True)]

    def follow(self) -> None:
        """Follow until it is over."""
        while not self.world.over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                self.read()
            if self.lost_at is None:
                self.lost_at = time.monotonic()
                self.world.seen.count("streams that ended")
            time.sleep(BROWSER_WAITS_S)

    def read(self) -> None:
        """Open the stream, and take its events until it ends."""
        headers = {"Last-Event-ID": str(self.last_id)} if self.last_id else {}
        with self.world.team.follow(f"/api/runs/{self.runner.run.id}/stream", headers) as stream:
            if stream.response.status != 200:
                return
            if self.lost_at is not None:
                back_s = max(0.0, time.monotonic() - self.world.later_than(self.lost_at))
                self.world.seen.measure("back", back_s)
                if back_s > BACK_WITHIN_S:
                    self.world.seen.object_to(f"a viewer was back after {back_s:.1f} s")
                self.lost_at = None
            while (frame := stream.next()) is not None:
                if frame.name == "event":
                    self.take(frame.id or 0, frame.data["data"])

    def take(self, event_id: int, data: str) -> None:
        """See that it is the next one, and how late it comes."""
        number, _, at = data.partition(" ")
        if event_id != self.last_id + 1 or int(number) != self.number + 1:
            self.world.seen.object_to(
                f"after event {self.last_id} ({self.number}) a viewer got {event_id} ({number})"
            )
        self.last_id, self.number = event_id, int(number)
        self.world.seen.count("events that viewers got")
        self.world.seen.measure("event", max(0.0, time.time() - float(at)))


class Operator:
    """Stops one runner after the other; they go on all the same."""

    def __init__(self, world: World, runners: list[Runner]) -> None:
        self.world = world
        self.runners = runners
        self.threads = [threading.Thread(target=self.work, name="operator", daemon=True)]

    def work(self) -> None:
        """Stop somebody each half second."""
        while not self.world.over.wait(0.5):
            runner = random.choice(self.runners)
            try:
                with runner.lock:  # so that it does not arrive before its time is noted
                    answer = self.world.team.api("POST", f"/api/runs/{runner.run.id}/stop", {})
                    if answer.status == 202:
                        runner.stops[answer.json()["id"]] = time.monotonic()
            except (OSError, http.client.HTTPException):
                continue
            if answer.status not in (202, *BALANCER_ERRORS):
                self.world.seen.object_to(f"a stop was answered {answer.status}")


# --- the faults -------------------------------------------------------------------------------


def kill_one(world: World, number: int) -> None:
    """`kill -9` of a gateway, which comes back some seconds later."""
    world.team.members[number].kill()
    time.sleep(2)
    world.team.members[number].start()


def end_one(world: World, number: int) -> None:
    """SIGTERM of a gateway, which comes back some seconds later."""
    world.team.members[number].stop()
    time.sleep(2)
    world.team.members[number].start()


@contextmanager
def database_away(world: World) -> Iterator[None]:
    """Until the database answers again, nobody expects an answer."""
    world.answers_since = float("inf")
    yield
    time.sleep(1)
    world.database.start()
    world.answers_since = time.monotonic()


def restart_database(world: World, _number: int) -> None:
    """A restart of PostgreSQL."""
    with database_away(world):
        world.database.stop()


def crash_database(world: World, _number: int) -> None:
    """A crash of PostgreSQL."""
    with database_away(world):
        world.database.crash()


def drop_notify(world: World, number: int) -> None:
    """The connections end by which the gateways hear of each other."""
    world.database.end_connections(world.team.members[number], HEARS)


FAULTS: dict[str, Callable[[World, int], None]] = {
    "`kill -9` of a gateway": kill_one,
    "SIGTERM of a gateway": end_one,
    "restarts of PostgreSQL": restart_database,
    "dropped NOTIFY connections": drop_notify,
    "crashes of PostgreSQL": crash_database,
}


def torment(world: World, until: float) -> None:
    """One fault after the other, in turn, to one gateway and then to the other."""
    count = 0
    while time.monotonic() < until:
        name = list(FAULTS)[count % len(FAULTS)]
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        FAULTS[name](world, count // len(FAULTS) % 2)
        world.seen.count(name)
        count += 1
        time.sleep(random.uniform(*BETWEEN_FAULTS_S))


def join(threads: list[threading.Thread], seen: Seen) -> None:
    """Wait for the end of threads."""
    deadline = time.monotonic() + ENDS_WITHIN_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            seen.object_to(f"{thread.name} does not end")


def judge(world: World, runners: list[Runner], viewers: list[Viewer]) -> int:
    """Compare what is stored, and what viewers got, with what was acknowledged; return how many
    events that were.
    """
    total = 0
    deadline = time.monotonic() + ENDS_WITHIN_S
    for viewer in viewers:
        wanted = len(viewer.runner.acknowledged)
        while viewer.number < wanted and time.monotonic() < deadline:
            time.sleep(0.1)
        if viewer.number != wanted:
            world.seen.object_to(f"a viewer got {viewer.number} of {wanted} events")
    for runner in runners:
        stored = world.record.events(runner.run.id)
        ids = [each["id"] for each in _all_events(world, runner.run)]
        total += len(stored)
        if [each.data for each in stored] != runner.acknowledged:
            world.seen.object_to(
                f"{runner.run.id}: {len(runner.acknowledged)} events were acknowledged, and "
                f"{len(stored)} are stored, or others"
            )
        if ids != list(range(1, len(ids) + 1)):
            world.seen.object_to(f"{runner.run.id}: the numbers have gaps")
        if missing := runner.stops.keys() - runner.got:
            world.seen.object_to(f"{runner.run.id}: {len(missing)} stops did not arrive")
    return total


def _all_events(world: World, run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while page := world.team.events(run, f"after={len(found)}&limit=1000"):
        found += page
    return found


_HOW = "(median / 99 of 100 / worst)"


def table(world: World, events: int, minutes: float) -> str:
    """Return what came of it, in Markdown."""
    seen = world.seen
    faults = ", ".join(f"{seen.counts[name]} {name}" for name in FAULTS)
    rows = {
        "length": f"{minutes:g} minutes, on {platform.system()} with Python "
        f"{platform.python_version()}",
        "faults": faults,
        "events acknowledged": f"{events:,}, of which {seen.counts['events sent again']} attempts "
        "had to be made again",
        "lost, doubled or in another order": "see below" if seen.wrong else "0",
        "events that viewers got": f"{seen.counts['events that viewers got']:,}",
        "copies sent, and refused": f"{seen.counts['replays refused']}",
        "stops": f"{len(seen.times_s.get('stop', ()))}",
        f"a stop is at its runner after {_HOW}": seen.shown("stop"),
        f"a viewer sees an event after {_HOW}": seen.shown("event"),
        f"a viewer is back after {_HOW}": seen.shown("back"),
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    wrong = "\n".join(f"- {each}" for each in seen.wrong)
    return f"| what | value |\n|---|---|\n{lines}\n\n{wrong}"


def main() -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--runners", type=int, default=50)
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}", flush=True)
    seen = Seen()
    with tempfile.TemporaryDirectory() as folder, cluster() as database:
        team = Team(database.make_database(), Path(folder) / "team")
        for number, member in enumerate(team.members):
            shift_clock(member, number * APART_S)
        with team:
            world = World(team, database, seen)
            runners = [Runner(world, world.record.create_run()) for _ in range(options.runners)]
            viewers = [
                Viewer(world, runners[number % len(runners)]) for number in range(options.viewers)
            ]
            working = [thread for each in runners for thread in each.threads]
            working += Operator(world, runners).threads
            watching = [thread for each in viewers for thread in each.threads]
            for thread in [*working, *watching]:
                thread.start()
            time.sleep(2)
            torment(world, time.monotonic() + 60 * options.minutes)
            time.sleep(3)  # for the last stops
            world.over.set()
            join(working, seen)
            events = judge(world, runners, viewers)
        join(watching, seen)  # their streams have ended with the gateways
    print(table(world, events, options.minutes))
    return 1 if seen.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
