"""How fast does the page open with much in it? In a real browser, at the size of a phone.

Usage: bench_page.py [--rounds 5]

Each view is opened anew, with a login that is kept. Its time is that from the address to the moment
in which its text can be read; memory is what the page's JavaScript holds after that. A frame that
takes longer than 50 ms while the view is scrolled can be felt.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Callable

import beside  # noqa: F401 - it puts the repository on the path
from playwright.sync_api import Page, sync_playwright

from testing.gateways.embedded_gateway import EmbeddedGateway, finished
from tests.browser.runs import begin
from tests.browser.visitor import Visitor, launched

PHONE = (390, 844)
RUNS = 500
EVENTS = 1_000_000
TOOL_CALLS = 2_000
DIFF_FILES = 200
DIFF_LINES = 900
WAIT_S = 60.0
INDEXED_WITHIN_S = 600.0

SCROLLED = """async (selector) => {
  const pane = document.querySelector(selector) ?? document.scrollingElement;
  let slow = 0, before = performance.now();
  for (let frame = 0; frame < 60; frame += 1) {
    pane.scrollBy(0, -200);
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    slow += now - before > 50;
    before = now;
  }
  return slow;
}"""


def fill(gateway: EmbeddedGateway) -> dict[str, tuple[str, str]]:
    """Make what is opened; return for each view its address and a text that it shows."""
    many, tools, diff = (begin(gateway, word, layout=1) for word in ("many", "tools", "diff"))
    call = "● Bash: npm test\n⎿ 12 passed\n"
    gateway.send_events(tools, (f"\nNow step {n}.\n\n{call}" for n in range(1, TOOL_CALLS + 1)))
    changes = "".join(_new_file(f"src/module_{n:03}.py") for n in range(DIFF_FILES))
    assert gateway.send_artifact(diff, "changes.diff", changes.encode()).status == 200
    for run in (tools, diff):
        gateway.send_marker(run, finished([]))
    gateway.stop()
    with closing(sqlite3.connect(gateway.database_file)) as database, database:
        _fill_events(database, many.id)
        _copy_runs(database)
    gateway.start()
    _let_index(gateway)
    return {
        f"the list of {RUNS} runs": ("/", "number 499"),
        f"a run of {EVENTS:,} events": (f"/runs/{many.id}", f"line {EVENTS}"),
        f"a run of {TOOL_CALLS:,} tool calls": (f"/runs/{tools.id}", f"Now step {TOOL_CALLS}."),
        f"changes of {len(changes) / 1e6:.1f} MB": (f"/runs/{diff.id}?tab=changes", "module_000"),
    }


def _new_file(name: str) -> str:
    head = f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n"
    lines = "".join(f"+    value_{n} = compute({n})\n" for n in range(DIFF_LINES))
    return f"{head}@@ -0,0 +1,{DIFF_LINES} @@\n{lines}"


def _fill_events(database: sqlite3.Connection, run_id: str) -> None:
    """Put the events where the gateway would have: to send them would take ten minutes."""
    first = database.execute("SELECT MAX(id) FROM events").fetchone()[0] + 1
    database.executemany(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            (first + number, run_id, "stdout", f"line {number + 1}\n", number + 1, 1.0, bytes(32))
            for number in range(EVENTS)
        ),
    )
    database.execute(
        "UPDATE runs SET last_event_id = ?, event_count = ?, highest_sequence = ? WHERE id = ?",
        (first + EVENTS - 1, EVENTS, EVENTS, run_id),
    )


def _let_index(gateway: EmbeddedGateway) -> None:
    """Wait until the search has read what was put there, with a quarter of a core."""
    left = "SELECT MAX(events.id) - progress.event_id FROM events, progress"
    with closing(sqlite3.connect(gateway.database_file)) as database:
        deadline = time.monotonic() + INDEXED_WITHIN_S
        while database.execute(left).fetchone()[0]:
            assert time.monotonic() < deadline, "the search has not read all events"
            time.sleep(1)


def _copy_runs(database: sqlite3.Connection) -> None:
    database.row_factory = sqlite3.Row
    rows = {
        table: dict(database.execute(f"SELECT * FROM {table} WHERE number = 1").fetchone())
        for table in ("runs", "summaries")
    }
    for number in range(RUNS):
        changed: dict[str, dict[str, Any]] = {
            "runs": {"id": f"run_{number:016x}", "status": "done", "command": f"number {number}"},
            "summaries": {"stage": "done", "asked": f"number {number}", "stage_at": time.time()},
        }
        for table, row in rows.items():
            row |= {"number": 1_000 + number, **changed[table]}
            marks = ", ".join("?" * len(row))
            database.execute(f"INSERT INTO {table} VALUES ({marks})", tuple(row.values()))


def open_view(page: Page, address: str, text: str) -> tuple[float, float]:
    """Return the seconds until the text can be read, and the megabytes that the page holds."""
    page.goto("about:blank")
    began = time.perf_counter()
    page.goto(address, wait_until="commit")
    # Not playwright's own waiting, which looks at every element with each poll.
    page.wait_for_function(
        "(text) => document.querySelector('main')?.innerText.includes(text)",
        arg=text,
        timeout=WAIT_S * 1_000,
    )
    took_s = time.perf_counter() - began
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    heap: dict[str, float] = session.send("Runtime.getHeapUsage")
    session.detach()
    return took_s, heap["usedSize"] / 1e6


def measure(rounds: int, tell: Callable[[str], None] = print) -> list[str]:
    """Return the rows of the table: the view, seconds, megabytes, slow frames."""
    rows = []
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        gateway = EmbeddedGateway(Path(name))
        with gateway, launched(playwright) as browser:
            views = fill(gateway)
            with Visitor(browser, gateway, size=PHONE, logged_in=True) as person:
                for view, (path, text) in views.items():
                    address = f"{gateway.url}{path}"
                    tries = [open_view(person.page, address, text) for _ in range(rounds)]
                    slow = person.page.evaluate(SCROLLED, ".pane")
                    took_s = statistics.median(each[0] for each in tries)
                    held_mb = max(each[1] for each in tries)
                    rows.append(f"| {view} | {took_s:.2f} s | {held_mb:.0f} MB | {slow} of 60 |")
                    tell(rows[-1])
    return rows


def main() -> None:
    """Measure, and print the rows of a table."""
    parser = argparse.ArgumentParser(description="How fast the page opens with much in it.")
    parser.add_argument("--rounds", type=int, default=5)
    print("| view | opens in | memory of the page | frames over 50 ms while scrolling |")
    print("|---|---|---|---|")
    measure(parser.parse_args().rounds)


if __name__ == "__main__":
    main()
