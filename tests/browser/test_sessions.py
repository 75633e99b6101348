"""Sessions, for a viewer who comes late; and where the gateway draws the screen, without npm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from gateway import xterm
from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.gateway_records import Run
from tests.browser.runs import begin
from tests.browser.visitor import Visitor

PHONE = (390, 844)
SIZE = {"columns": 80, "lines": 30}
MANY = 1_100


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    """A gateway on a machine without npm, and so without xterm.js."""
    cache = tmp_path_factory.mktemp("cache")
    cache.chmod(0o700)
    (cache / f"xterm-{xterm.VERSION}").mkdir()  # so that nothing is asked of the registry
    gateway = EmbeddedGateway(
        tmp_path_factory.mktemp("bare"), env={"CLAUDE_RUNNER_CACHE_DIR": str(cache)}
    )
    with gateway:
        yield gateway


def play(gateway: EmbeddedGateway) -> Run:
    """Send a session that draws its screen once, and then changes one line of it for long."""
    run = begin(gateway, "a session", mode="interactive", remoteInput=True, **SIZE)
    frame = "".join(f"\x1b[{y};1H\x1b[3{y % 8}mline {y}\x1b[0m" for y in range(1, 30))
    events = [f"\x1b[?1049h\x1b[2J{frame}", f"\x1b[10;{SIZE['columns']}H\x1b[7m>\x1b[0m"]
    events += [f"\x1b[30;1Hstep {number}\x1b[K" for number in range(MANY)]
    gateway.send_events(run, events)
    return run


def test_the_gateway_draws_the_screen(browser: Browser, bare: EmbeddedGateway) -> None:
    """Whole, with its colours, as wide as a phone, and live; the text is there as well."""
    run = play(bare)
    with Visitor(browser, bare, size=PHONE) as person:
        person._allowed = ("404",)  # of xterm.js
        person.log_in()
        page = person.open_run(run.id)
        screen = page.get_by_role("region", name="Screen of the session")
        lines = screen.locator(".screen-line")
        expect(lines).to_have_count(SIZE["lines"])
        expect(lines.nth(0)).to_have_text("line 1\u200b")
        expect(lines.nth(29)).to_have_text(f"step {MANY - 1}\u200b")
        expect(lines.nth(1).locator(".fg-2")).to_have_text("line 2")
        edge = lines.nth(9).locator("span", has_text=">").last
        assert edge.evaluate("edge => edge.getBoundingClientRect().right < innerWidth")
        person.check_layout("button, .button, textarea")
        # The end of the screen is in sight, and what types is within a thumb's reach.
        expect(lines.nth(29)).to_be_in_viewport(ratio=1)
        for name in ("Ctrl-C", "Esc", "Arrow up", "Send", "Stop"):
            expect(page.get_by_role("button", name=name, exact=True)).to_be_in_viewport(ratio=1)
        bare.send_marker(run, {"event": "state", "state": "waiting"})
        page.get_by_role("button", name="Needs you").click()
        expect(page.get_by_label("Type into the session")).to_be_focused()

        bare.send_event(run, "stdout", "\x1b[1;1Hlive\x1b[K\x1b[?25l", MANY + 3)
        expect(lines.nth(0)).to_have_text("live\u200b")
        expect(screen.locator(".screen-cursor")).to_be_hidden()
        page.get_by_role("button", name="Text", exact=True).click()
        expect(page.locator(".text-view")).to_be_visible()
        page.get_by_role("button", name="Screen").click()
        expect(lines.nth(0)).to_have_text("live\u200b")


def test_who_comes_late_sees_the_whole_screen(desk: Visitor, gateway: EmbeddedGateway) -> None:
    """The first events are not loaded, and what they drew is there, in a terminal that goes on."""
    run = play(gateway)
    page = desk.open_run(run.id)
    rows = page.locator(".xterm-rows")
    expect(page.get_by_role("button", name="Show earlier output")).to_be_visible()
    expect(rows).to_contain_text("line 1")
    expect(rows).to_contain_text(f"step {MANY - 1}")
    gateway.send_event(run, "stdout", "\x1b[2;1Hlive\x1b[K", MANY + 3)
    expect(rows).to_contain_text("live")
    expect(rows).to_contain_text("line 1")
    assert "line 2" not in rows.inner_text().split()

    # When it is over a terminal shows nothing of it; the text does.
    gateway.send_event(run, "stdout", "\x1b[?1049lResume with --resume\r\n", MANY + 4)
    gateway.send_marker(run, {"event": "finished", "exitCode": 0, "reason": "exited"})
    desk.open_run(run.id)
    text = page.locator(".text-lines")
    expect(text).to_contain_text("Resume with --resume")
    expect(text).to_contain_text(f"step {MANY - 1}")
