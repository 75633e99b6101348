"""A run cannot break its own page: it answers whatever the run sends, and its buttons are there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.gateway_records import Run
from testing.waiting import eventually
from tests.browser.runs import begin
from tests.browser.visitor import Visitor

# How long the page may be deaf, on a machine that is busy with other tests. Where nothing is
# clamped it is minutes, or for ever.
DEAF_MS: Final = 15_000
DRAWN_WITHIN_MS: Final = 90_000
# Counts the longest time in which the page took nothing else.
_LISTEN: Final = """
window.deaf = 0;
let before = performance.now();
setInterval(() => {
  const now = performance.now();
  window.deaf = Math.max(window.deaf, now - before);
  before = now;
}, 20);
"""
# Of each attack; what is wrong with so many characters is worse with ten megabytes.
SIZE: Final = 50_000


@pytest.fixture(scope="module")
def watcher(browser: Browser, gateway: EmbeddedGateway) -> Iterator[Visitor]:
    """Somebody whose pages count for how long they are deaf."""
    with Visitor(browser, gateway, logged_in=True, alone=True) as person:
        person.context.add_init_script(_LISTEN)
        yield person


def stop_button(person: Visitor) -> Locator:
    """Return the button that ends the run."""
    return person.page.get_by_role("button", name="Stop", exact=True)


def check_that_it_stops(person: Visitor, gateway: EmbeddedGateway, run: Run) -> None:
    """Press Stop, and look whether the runner gets it."""
    stop_button(person).dblclick()
    expect(person.page.locator(".history-entry")).to_contain_text("Stop")
    queued = gateway.send("GET", f"/api/runs/{run.id}/commands", run=run).json()
    assert [each["command"] for each in queued] == ["__STOP__"]


def is_shown(person: Visitor, text: str) -> None:
    """Fail unless a text stands in the output; a locator would repeat megabytes of it."""
    assert person.page.evaluate(
        "text => document.querySelector('.pane').textContent.includes(text)", text
    )


def repeated(text: str, characters: int = SIZE) -> str:
    """Return a text, as often as it goes into one event."""
    return text * (characters // len(text))


# Of each the whole is one event, or many: (kind, data) of what comes after `started`.
LARGEST = "2147483647"
ATTACKS: Final[dict[str, list[tuple[str, str]]]] = {
    "numbers": [
        (
            "stdout",
            repeated(
                "".join(f"A\x1b[{LARGEST}{final}" for final in "@ABCDEFGHIJKLMPSTXZ`abdefgmnrstu")
            ),
        )
    ],
    "numbers of many digits": [("stdout", repeated(f"A\x1b[{'9' * 400};{'9' * 400}Hx"))],
    "one number after a control": [("stdout", repeated(f"A\x1b[{LARGEST[:5]}\n{LARGEST[5:]}b"))],
    "eight-bit sequences": [("stdout", repeated(f"A\x9b{LARGEST}b\x9b{LARGEST}L"))],
    "moves to the right": [("stdout", repeated("\x1b[999Cx\n"))],
    "blanks": [("stdout", repeated("ab\x1b[G\x1b[999@"))],
    "long lines that change": [("stdout", "x" * 30_000 + repeated("\x1b[G\x1b[9999X\x1b[P"))],
    "lines inserted": [("stdout", repeated("\x1b[L"))],
    "screens erased": [("stdout", repeated("x\x1b[2J"))],
    "screens exchanged": [
        ("stdout", repeated("line\n", 200_000)),
        ("stdout", repeated("\x1b[?1049hx\x1b[?1049lx")),
    ],
    "resets": [("stdout", repeated("\x1bcx\x1b#8"))],
    "scroll regions": [("stdout", repeated("\x1b[1;20r\x1b[20H\n\x1b[5;3r\x1bM\x1b[99999;1r"))],
    "empty lines": [("stdout", repeated("\n"))] * 4,
    "tabs": [("stdout", repeated("\t"))] * 2,
    "one long line": [("stdout", repeated("x"))] * 3,
    "colours": [("stdout", repeated("".join(f"\x1b[38;2;{n};9;9mx" for n in range(256))))],
    "a list of colours": [("stdout", "\x1b[" + "1;" * 100_000 + "mx\x1b[" + "38:" * 30_000 + "mx")],
    "marks on a letter": [("stdout", "e" + "\u0301" * 200_000)],
    "marks after moves": [("stdout", "e" + repeated("\x1b[2Gx\x1b[2G" + "\u0301" * 16))],
    "marks after colours": [("stdout", "e" + repeated("\x1b[m\u0301\u1160"))],
    "a title without an end": [("stdout", "\x1b]0;" + "t" * 200_000), ("stdout", "t" * 200_000)],
    "strings without an end": [("stdout", repeated("\x1bPq\x1b]8;;http://x\x1b_\x1b^y"))],
    "sizes": [
        each
        for number in range(100)
        for each in (
            ("marker", json.dumps({"event": "resized", "columns": 80 + number % 2, "lines": 24})),
            ("stdout", "x" * 6_000),
        )
    ],
    "log entries": [("info", "entry\n" * 12_000)] * 100 + [("error", "\u0301" * 200_000)],
}


# Ends an open sequence, resets colours and margins, and leads back to the first screen.
CALM: Final = "\x1b\\\x1b[m\x1b[r\x1b[?1049l\r\n"
# A page takes a second, and what is drawn after one of these shows that it has been survived.
AT_ONCE: Final = 4
NAMES: Final = list(ATTACKS)


@pytest.mark.parametrize("mode", ["print", "interactive"])
@pytest.mark.parametrize(
    "names", [NAMES[start : start + AT_ONCE] for start in range(0, len(NAMES), AT_ONCE)], ids=str
)
def test_the_page_answers_whatever_is_printed(
    watcher: Visitor, gateway: EmbeddedGateway, names: list[str], mode: str
) -> None:
    """It is drawn in the end, the page is never deaf for long meanwhile, and Stop stops."""
    run = begin(gateway, mode=mode)
    events = [event for name in names for event in (*ATTACKS[name], ("stdout", CALM))]
    for number, (kind, data) in enumerate([*events, ("stdout", "the end\r\n")], 1):
        assert gateway.send_event(run, kind, data, number).status == 200

    watcher.page.goto(f"{gateway.url}/runs/{run.id}")
    check_that_it_stops(watcher, gateway, run)

    expect(watcher.page.locator(".pane:not([aria-busy])")).to_be_attached(timeout=DRAWN_WITHIN_MS)
    eventually(lambda: is_shown(watcher, "the end"), 60)
    assert watcher.page.evaluate("window.deaf") < DEAF_MS
    watcher.check()


ODD: Final[list[Any]] = [
    {"toString": 0, "valueOf": 0},
    [[[{"a": [None]}]]],
    "long " * 20_000,
    1e300,
    -(2**70),
    True,
    "constructor",
]


def test_markers_of_any_value_leave_the_page_whole(desk: Visitor, gateway: EmbeddedGateway) -> None:
    """Each field of each marker in types that it does not have: text, or left out."""
    runs = []
    for odd in ODD:
        names = ("command", "workingDir", "runner", "sessionId", "version")
        started = {**dict.fromkeys(names, odd), "commands": [odd, odd]}
        run = begin(gateway, **started, columns=odd, lines=odd, mode="interactive")
        gateway.send_marker(run, {"event": odd, "workingDir": odd})
        gateway.send_marker(run, {"event": "resized", "columns": odd, "lines": odd})
        gateway.send_marker(run, {"event": "state", "state": odd})
        gateway.send_event(run, "assist", json.dumps({"url": odd}))
        gateway.send_event(run, "assist", json.dumps(odd))
        gateway.send_event(run, "stdout", "still here\r\n", 1)
        ended = gateway.create_run("ended")
        results = ("subtype", "isError", "totalCostUsd", "numTurns", "permissionDenials")
        gateway.send_marker(ended, {"event": "started", "mode": odd, "workingDir": odd})
        end = dict.fromkeys(("exitCode", "reason", "events", "bytes", "sha256"), odd)
        end["result"] = dict.fromkeys(results, odd)
        gateway.send_marker(ended, {"event": "finished", **end})
        runs += [run, ended]

        desk.open_run(run.id)
        eventually(lambda: is_shown(desk, "still here"))
        check_that_it_stops(desk, gateway, run)
        desk.open_run(ended.id)
        expect(desk.page.locator(".log")).to_contain_text("Ended:")
        desk.check()
    desk.open_list()
    for each in runs:
        expect(desk.page.locator(f"a.run[href='/runs/{each.id}'] .badge")).to_be_visible()


def test_what_an_older_gateway_has_stored_leaves_the_page_whole(
    desk: Visitor, gateway: EmbeddedGateway
) -> None:
    """The page relies on nothing of what a run has said: also a run that is stored already."""
    page, other = desk.page, begin(gateway, "another")
    names = (
        *("command", "command_line", "working_dir", "mode", "columns", "lines", "commands"),
        *("session_id", "assist_url", "result", "reason", "exit_code", "state", "verdict"),
        *("prompt", "branch", "runner", "title", "cost", "refused", "found"),
    )
    listed = []
    for odd in ODD:
        run = begin(gateway)
        gateway.send_event(run, "stdout", "still here\n", 1)
        stored = gateway.api("GET", f"/api/runs/{run.id}").json() | dict.fromkeys(names, odd)
        listed.append(stored)
        with routed(page, f"**/api/runs/{run.id}", stored):
            desk.open_run(run.id)
            eventually(lambda: is_shown(desk, "still here"))
            check_that_it_stops(desk, gateway, run)
        desk.check()

    runs = [*listed, gateway.api("GET", f"/api/runs/{other.id}").json()]
    group = {"stage": "working", "count": len(runs), "runs": runs, "next": None}
    counts = dict.fromkeys(("needs", "working", "pending", "done", "unseen"), 0)
    answer = {"groups": [group], "counts": counts, "folders": [], "runners": []}
    with routed(page, "**/api/list?*", answer):
        page.goto(gateway.url)
        expect(page.locator(f"a.run[href='/runs/{other.id}']")).to_contain_text("another")
        for each in listed:
            expect(page.locator(f"a.run[href='/runs/{each['id']}']")).to_be_attached()


@contextmanager
def routed(page: Page, pattern: str, answer: Any) -> Iterator[None]:
    """Give this answer to what the page asks of such an address."""
    page.route(pattern, lambda route: route.fulfill(json=answer))
    yield
    page.unroute(pattern)


BROKEN: Final = "throw new Error('drawing failed')"


@pytest.mark.parametrize(
    ("module", "body"),
    [
        ("screen", f"export class Screen {{ constructor() {{ {BROKEN}; }} }}"),
        ("screen", f"export class Screen {{ lines = []; write() {{ {BROKEN}; }} }}"),
        ("side-log", f"export class SideLog {{ add() {{ {BROKEN}; }} }}"),
        ("assist", f"export class Assist {{ element = ''; update() {{ {BROKEN}; }} }}"),
        ("artifacts", f"export class Artifacts {{ constructor() {{ {BROKEN}; }} }}"),
        (
            "talk",
            f"export class Talk {{ constructor() {{ {BROKEN}; }} }}",
        ),
    ],
    ids=["screen", "writing", "log", "assist", "files", "talk"],
)
def test_the_buttons_are_there_when_another_part_fails(
    browser: Browser, gateway: EmbeddedGateway, module: str, body: str
) -> None:
    """Whatever a fault of ours keeps from being drawn, the run can be stopped."""
    run = begin(gateway)
    gateway.send_event(run, "stdout", "text\n", 1)
    allowed = ("drawing failed", "is not a function")
    with Visitor(browser, gateway, allowed=allowed, logged_in=True) as person:
        person.page.route(
            f"**/static/*/{module}.js",
            lambda route: route.fulfill(body=body, content_type="text/javascript"),
        )
        person.page.goto(f"{gateway.url}/runs/{run.id}")
        check_that_it_stops(person, gateway, run)


def test_a_run_that_cannot_be_loaded_can_be_stopped(
    browser: Browser, gateway: EmbeddedGateway
) -> None:
    """The page needs nothing but the run's id for that."""
    run = begin(gateway)
    with Visitor(browser, gateway, allowed=("status of 500",), logged_in=True) as person:
        person.page.route(f"**/api/runs/{run.id}", lambda route: route.fulfill(status=500))
        person.page.goto(f"{gateway.url}/runs/{run.id}")
        expect(person.page.get_by_role("button", name="Try now")).to_be_visible()
        stop_button(person).dblclick()

        def is_queued() -> None:
            queued = gateway.send("GET", f"/api/runs/{run.id}/commands", run=run).json()
            assert [each["command"] for each in queued] == ["__STOP__"]

        eventually(is_queued)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deep.json", "[" * 400_000 + "]" * 400_000),
        ("lines.diff", "diff \n@@\n" + "+\n" * 900_000),
        ("marks.txt", "e" + "\u0301" * 900_000),
        ("empty.txt", "\n" * 1_900_000),
        ("brackets.json", '["' + "[" * 1_900_000 + '"]'),
    ],
    ids=["depth", "lines", "marks", "empty", "brackets"],
)
def test_a_file_is_shown_as_far_as_that_is_quick(
    watcher: Visitor, gateway: EmbeddedGateway, name: str, content: str
) -> None:
    """The rest of it is in the download."""
    run = begin(gateway)
    assert gateway.send_artifact(run, name, content.encode()).status == 200
    watcher.open_run(run.id)

    watcher.page.get_by_role("button", name=f"View {name}").click()

    expect(watcher.page.locator(".viewer .file")).to_contain_text("Download it to see all")
    watcher.page.get_by_role("button", name="Close").click()
    assert watcher.page.evaluate("window.deaf") < DEAF_MS
    watcher.check()
