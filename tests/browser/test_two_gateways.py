"""A page behind nginx, with two gateways on one PostgreSQL, of which one ends at a time."""

from __future__ import annotations

import time
from pathlib import Path

from playwright.sync_api import Browser, expect

from gateway.settings import TRUSTED_PROXIES
from testing.gateways.embedded_record import free_port
from testing.gateways.front_proxies import BASE, running
from testing.gateways.postgresql import cluster, gateways_on
from tests.browser.runs import begin
from tests.browser.visitor import Visitor

# nginx asks a gateway again that has refused: `fail_timeout`. It says nothing of that.
FORGOTTEN_S = 2.5
LINES = 20

# What a person would see of the connection, and whether what is shown was taken away.
WATCH = """
const place = document.querySelector("#connection");
const note = () => window.seen.push(place.textContent);
window.seen = [place.textContent];
new MutationObserver(note).observe(place, { childList: true, characterData: true, subtree: true });
"""


def test_nobody_notices_that_a_gateway_ends(browser: Browser, tmp_path: Path) -> None:
    """The page stays live, and has every line once, whichever of the two is restarted."""
    port = free_port()
    with cluster() as database:
        pair = gateways_on(
            database.make_database(),
            tmp_path / "gateways",
            2,
            *("--public-url", f"https://localhost:{port}{BASE}"),
            **{TRUSTED_PROXIES: "127.0.0.1"},
        )
        ports = [int(each.command()[each.command().index("--port") + 1]) for each in pair]
        with (
            pair[0],
            pair[1],
            running("nginx", tmp_path / "nginx", port, ports),
            # A request to the one that ends may fail, and is sent again.
            Visitor(
                browser, pair[0], ignore_https_errors=True, allowed=("Failed to load resource",)
            ) as person,
        ):
            page = person.log_in()
            protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol"
            assert page.evaluate(protocol) == "h2"
            run = begin(pair[0])
            person.open_run(run.id)
            page.evaluate(WATCH)
            expected: list[str] = []

            def print_lines(number: int) -> None:
                first = len(expected) + 1
                lines = [f"line {each}" for each in range(first, first + LINES)]
                pair[number].send_events(run, (f"{each}\n" for each in lines), first)
                expected.extend(lines)
                expect(page.locator(".text-line", has_text=lines[-1])).to_be_visible()

            for ending in (0, 1):
                print_lines(ending)
                assert pair[ending].stop() == 0
                print_lines(1 - ending)
                pair[ending].start()
                time.sleep(FORGOTTEN_S)
            print_lines(0)

            assert set(page.evaluate("window.seen")) == {"Live"}
            assert [each for each in person.output().split("\n") if each.strip()] == expected
