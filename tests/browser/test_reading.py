"""Reading a run's output: both views, long runs, narrow and dark pages, the keyboard, axe."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from testing.gateways.embedded_gateway import EmbeddedGateway, finished
from testing.waiting import eventually
from tests.browser.runs import STARTED, begin
from tests.browser.visitor import DESK, PHONE, Scheme, Visitor

LONG_RUN_EVENTS = 1_350
# A line of xterm.js, by its text.
LINE = ".xterm-rows > div:has-text('%s')"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
# The text of the first line that is seen in the pane, below the margin above all lines.
FIRST_LINE = """(lines) => {
  const view = document.querySelector(".pane > *");
  const found = [...document.querySelectorAll(lines)];
  const margin = lines === ".text-line" ? found[0].offsetTop - view.offsetTop : 0;
  const top = view.getBoundingClientRect().top + margin + 1;
  return found.find((line) => line.getBoundingClientRect().bottom > top)?.textContent;
}"""
EDGES = "lines => lines.map(line => line.getBoundingClientRect()).map(r => [r.top, r.bottom])"


def equal(found: object, wanted: object) -> None:
    """Fail unless they are equal."""
    assert found == wanted


def differ(found: object, other: object) -> None:
    """Fail if they are equal."""
    assert found != other


def test_a_long_run_opens_at_its_end_and_scrolls_back(
    desk: Visitor, gateway: EmbeddedGateway
) -> None:
    """Earlier pages come when the reader gets to the top, who stays at the line that he was at."""
    page = desk.page
    run = begin(gateway)
    lines = [f"line {number}" for number in range(1, LONG_RUN_EVENTS + 1)]
    gateway.send_events(run, (f"{line}\n" for line in lines))
    desk.open_run(run.id)
    view = page.locator(".text-view")
    expect(page.get_by_text(f"line {LONG_RUN_EVENTS}", exact=True)).to_be_in_viewport()
    assert desk.output().startswith(f"line {LONG_RUN_EVENTS - 199}\n")
    # The page opens with little; who leaves the end has more before it is needed.
    view.evaluate("view => { view.scrollTop -= 200; }")
    place = page.evaluate(FIRST_LINE, ".text-line")
    first = LONG_RUN_EVENTS - 599
    expect(page.get_by_text(f"line {first}", exact=True)).to_be_attached()
    eventually(lambda: equal(page.evaluate(FIRST_LINE, ".text-line"), place))

    while first > 1:
        view.evaluate("view => { view.scrollTop = 0; }")
        earlier = max(1, first - 1000)
        expect(page.get_by_text(f"line {earlier}", exact=True)).to_be_attached()
        expect(page.get_by_text(f"line {first}", exact=True)).to_be_in_viewport()
        first = earlier

    assert desk.output().split("\n") == [*lines, ""]
    expect(page.get_by_role("button", name="Show earlier output")).to_be_hidden()
    gateway.send_event(run, "stdout", "one more\n", LONG_RUN_EVENTS + 1)
    expect(page.get_by_text("one more", exact=True)).to_be_attached()
    expect(page.get_by_text("one more", exact=True)).not_to_be_in_viewport()
    page.get_by_role("button", name="To the end").click()
    expect(page.get_by_text("one more", exact=True)).to_be_in_viewport()


def test_a_window_that_begins_in_a_code_block(desk: Visitor, gateway: EmbeddedGateway) -> None:
    """It is code there too, or is shown as it is; another view begins with the same line."""
    page = desk.page
    run = begin(gateway, layout=1)
    parts = {
        345: "\n● Bash: cat numbers\n⎿ done\n\n",
        350: "```python\n",
        651: "```\n",
        652: "\n● Bash: true\n⎿ done\n\n",
        653: "This is **bold**.\n",
    }
    gateway.send_events(run, (parts.get(n, f"# number {n}\n") for n in range(1, 1_301)))
    first = gateway.api("GET", f"/api/runs/{run.id}/events?after=0&limit=9").json()["events"]
    begun = next(each["id"] for each in first if each["data"] == "# number 1\n")

    def seen(lines: str) -> Any:
        return page.evaluate(FIRST_LINE, lines)

    page.goto(f"{gateway.url}/runs/{run.id}#e{begun + 499}.0")
    expect(page.locator("pre").get_by_text("# number 500", exact=True)).to_be_in_viewport()
    place = seen("[data-line]")
    assert place.startswith("# number 4")
    page.get_by_role("button", name="Text", exact=True).click()
    eventually(lambda: equal(seen(".text-line"), place))
    page.get_by_role("button", name="Reading", exact=True).click()
    expect(page.locator("pre").get_by_text("# number 500", exact=True)).to_be_in_viewport()
    eventually(lambda: equal(seen("[data-line]"), place))

    page.get_by_role("button", name="Show earlier output").click()
    expect(page.get_by_text("number 1", exact=False).first).to_be_attached()
    expect(page.locator("pre").get_by_text("# number 500", exact=True)).to_be_in_viewport()

    # Between here and the beginning of this block is more than is looked at.
    page.goto("about:blank")
    page.goto(f"{gateway.url}/runs/{run.id}#e{begun + 639}.0")
    expect(page.locator("strong")).to_have_text("bold")
    expect(page.locator(".as-it-is").get_by_text("# number 640", exact=True)).to_be_in_viewport()


def test_what_is_too_much_is_let_go_and_comes_back(desk: Visitor, gateway: EmbeddedGateway) -> None:
    """Far back in a run of megabytes the end is let go of; it comes back, with what is new."""
    page = desk.page
    run = begin(gateway)
    pages, filling = 12, "." * 400_000
    for number in range(1, pages + 1):
        text = f"begin {number}\n{filling}\nend {number}\n"
        gateway.send_event(run, "stdout", text, number)
    desk.open_run(run.id)
    view = page.locator(".text-view")
    expect(page.get_by_text(f"end {pages}", exact=True)).to_be_in_viewport()

    def is_at_the_beginning() -> None:
        view.evaluate("view => { view.scrollTop = 0; }")
        assert page.get_by_text("begin 1", exact=True).count() == 1

    eventually(is_at_the_beginning, 60)
    gateway.send_event(run, "stdout", "meanwhile\n", pages + 1)
    page.get_by_role("button", name="To the end").click()
    expect(page.get_by_text("meanwhile", exact=True)).to_be_in_viewport()
    shown = [
        line for line in desk.output().split("\n") if line.startswith(("begin", "end", "mean"))
    ]
    assert shown[-3:] == [f"begin {pages}", f"end {pages}", "meanwhile"]
    assert len(shown) == len(set(shown))


def test_without_xterm_a_session_is_text_as_its_terminal_shows_it(
    browser: Browser, gateway: EmbeddedGateway
) -> None:
    """Carriage return, backspace, colours, erasing, cursor moves and wrapping are interpreted."""
    run = begin(gateway, mode="interactive", columns=20, lines=5)
    for number, text in enumerate(
        (
            "10%\r100%\r\n",
            "abc\b\bX\r\n",
            "\x1b[31mred\x1b[0m plain \x1b[1;38;5;208mbold\x1b[m\r\n",
            "to be erased\r\x1b[Kkept\r\n",
            "first\r\nsecond\x1b[A\rFIRST\r\n\n",
            "a line that is longer than twenty columns\r\n\x1b]0;title\x07\x1b[",
            "32mgreen\x1b[0m",
        ),
        1,
    ):
        gateway.send_event(run, "stdout", text, number)
    missing = ("the server responded with a status of 404",)
    with Visitor(browser, gateway, allowed=missing, logged_in=True) as person:
        person.context.route("**/static/vendor/**", lambda route: route.fulfill(status=404))
        page = person.open_run(run.id)
        page.get_by_role("button", name="Text", exact=True).click()
        expect(page.locator(".fg-2")).to_have_text("green")
        expect(page.locator(".fg-1")).to_have_text("red")
        expect(page.locator(".bold")).to_have_css("color", "rgb(255, 135, 0)")
        assert person.output() == (
            "100%\naXc\nred plain bold\nkept\nFIRST\nsecond\n"
            "a line that is longe\nr than twenty column\ns\ngreen"
        )


def test_a_session_has_the_size_of_its_terminal(desk: Visitor, gateway: EmbeddedGateway) -> None:
    """xterm.js takes the columns of the markers, and shows true colours under the strict policy."""
    page = desk.page
    run = begin(gateway, mode="interactive", columns=40, lines=10)
    gateway.send_event(run, "stdout", "x" * 50 + "\r\n\x1b[38;2;1;2;3mcolour\x1b[0m\r\n", 1)
    desk.open_run(run.id)
    rows = page.locator(".xterm-rows > div")
    expect(rows).to_have_count(10)
    expect(rows.first).to_have_text("x" * 40)
    expect(page.locator(".xterm-rows span", has_text="colour")).to_have_css("color", "rgb(1, 2, 3)")

    gateway.send_marker(run, {"event": "resized", "columns": 60, "lines": 12})
    gateway.send_event(run, "stdout", "\x1b[2J\x1b[H" + "y" * 70 + "\r\n", 2)
    expect(rows).to_have_count(12)
    expect(rows.first).to_have_text("y" * 60)

    page.get_by_role("textbox", name="Terminal input").focus()
    page.keyboard.press("Home")
    page.keyboard.press("Tab")
    expect(page.get_by_role("textbox", name="Terminal input")).not_to_be_focused()

    page.get_by_role("button", name="Text", exact=True).click()
    expect(page.locator(".text-line").last).to_be_visible()
    page.get_by_role("button", name="Terminal", exact=True).click()
    expect(rows.first).to_have_text("y" * 60)


def test_a_long_session_scrolls_back_in_its_terminal(
    browser: Browser, gateway: EmbeddedGateway
) -> None:
    """Earlier pages come at the top of the terminal, too; the line that was there stays there, and
    does so in the other view.
    """
    run = begin(gateway, mode="interactive", columns=40, lines=20)
    lines = [f"line {number} of it" for number in range(1, LONG_RUN_EVENTS + 1)]
    gateway.send_events(run, (f"{line}\r\n" for line in lines))
    with Visitor(browser, gateway, size=PHONE, logged_in=True) as person:
        page = person.open_run(run.id)
        rows, view = page.locator(".xterm-rows > div"), page.locator(".xterm-view")
        expect(page.locator(".xterm-rows")).to_contain_text(lines[-1])
        height = view.evaluate("view => view.scrollHeight")

        view.evaluate("view => { view.scrollTop = 0; }")
        page.wait_for_function(
            "height => document.querySelector('.xterm-view').scrollHeight > height", arg=height
        )
        expect(rows.first).to_have_text(lines[-1000])
        view.evaluate("view => { view.scrollTop = 0; }")
        expect(rows.first).to_have_text(lines[0])
        view.evaluate("view => { view.scrollTop = 2000; }")
        eventually(lambda: differ(rows.first.inner_text(), lines[0]))
        place = rows.first.inner_text()
        page.get_by_role("button", name="Text", exact=True).click()
        eventually(lambda: equal(page.evaluate(FIRST_LINE, ".text-line"), place))
        page.get_by_role("button", name="Terminal", exact=True).click()
        expect(rows.first).to_have_text(place)
        page.get_by_role("button", name="To the end").click()
        expect(page.locator(".xterm-rows")).to_contain_text(lines[-1])


def swipe(person: Visitor, pixels: int) -> None:
    """Move a finger over the terminal: down to see what was before."""
    box = person.page.locator(".pane").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 - pixels / 2
    touch = person.context.new_cdp_session(person.page)
    for step in range(11):
        points = [{"x": x, "y": y + pixels * step / 10}]
        kind = "touchMove" if step else "touchStart"
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    touch.detach()


def test_the_end_of_the_output_is_above_the_bar(browser: Browser, gateway: EmbeddedGateway) -> None:
    """However high the head is: it says more when a turn has ended, and has tabs for changes."""
    run = begin(gateway, layout=1, listens=True)
    gateway.send_events(run, (f"line {number}\n" for number in range(200)))
    with Visitor(browser, gateway, size=PHONE, logged_in=True, has_touch=True) as person:
        page = person.open_run(run.id)

        def all_is_in_sight() -> None:
            frame, bar = (page.locator(each).bounding_box() for each in (".pane-frame", ".dock"))
            assert frame is not None
            assert bar is not None
            assert frame["height"] > 200
            assert frame["y"] + frame["height"] <= bar["y"] <= PHONE[1]

        eventually(all_is_in_sight)
        gateway.send_marker(run, {"event": "state", "state": "waiting"})
        changes = b"diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-a\n+b\n"
        assert gateway.send_artifact(run, "changes.diff", changes).status == 200
        expect(page.get_by_role("link", name="Changes 1")).to_be_visible()
        eventually(all_is_in_sight)


@pytest.mark.parametrize("rows", [20, 70], ids=["a low screen", "a high screen"])
def test_a_terminal_is_read_with_a_finger(
    browser: Browser, gateway: EmbeddedGateway, rows: int
) -> None:
    """The end of the screen is in sight, however high the run's own terminal is; a finger leads to
    its beginning and to the lines before it, and a button back.
    """
    run = begin(gateway, mode="interactive", columns=60, lines=rows)
    history = "".join(f"line {number} before\r\n" for number in range(1, 41))
    drawn = "".join(f"\x1b[{row};1Hrow {row} of {rows}" for row in range(1, rows + 1))
    gateway.send_event(run, "stdout", history + "\n" * rows + drawn, 1)
    with Visitor(browser, gateway, size=PHONE, logged_in=True, has_touch=True) as person:
        page = person.open_run(run.id)
        expect(page.locator(".xterm-rows")).to_contain_text(f"row {rows} of {rows}")

        def is_seen(text: str) -> None:
            pane = page.locator(".pane").bounding_box()
            # At once, without waiting for it: the line may be scrolled away while one looks.
            lines = page.locator(LINE % text).evaluate_all(EDGES)
            assert pane is not None
            assert len(lines) == 1, f"there is no {text}"
            ((top, bottom),) = lines
            assert pane["y"] <= top + 1
            assert bottom <= pane["y"] + pane["height"] + 1

        def goes_back_to(text: str) -> None:
            try:
                eventually(lambda: is_seen(text), 0.5)  # a busy browser moves and draws later
            except AssertionError:
                swipe(person, 150)
                raise

        eventually(lambda: is_seen(f"row {rows} of {rows}"))
        eventually(lambda: goes_back_to(f"row 1 of {rows}"), 60)
        eventually(lambda: goes_back_to("line 1 before"), 60)
        page.get_by_role("button", name="To the end").click()
        eventually(lambda: is_seen(f"row {rows} of {rows}"))
        gateway.send_event(run, "stdout", "\r\nand on\r\n", 2)
        eventually(lambda: is_seen("and on"))
        # Below its last line the screen is empty; that is not what one follows.
        gateway.send_event(run, "stdout", "\x1b[2J\x1b[Hhere alone", 3)
        eventually(lambda: is_seen("here alone"))


def test_a_print_run_reads_right_in_the_terminal_too(
    desk: Visitor, gateway: EmbeddedGateway
) -> None:
    """Its line ends are newlines alone, and do not make stairs."""
    page = desk.page
    run = begin(gateway)
    gateway.send_event(run, "stdout", "one\ntwo\n", 1)
    gateway.send_event(run, "stderr", "three\n", 2)
    desk.open_run(run.id)
    expect(page.locator(".stderr")).to_have_text("three")
    page.get_by_role("button", name="Terminal", exact=True).click()
    for row, text in enumerate(("one", "two", "three")):
        expect(page.locator(".xterm-rows > div").nth(row)).to_have_text(text)


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_every_view_fits_and_passes_axe(
    browser: Browser, gateway: EmbeddedGateway, size: tuple[int, int]
) -> None:
    """No page scrolls sideways, text wraps, buttons can be hit, and axe finds nothing."""
    long = "a-very-long-word-" * 20
    run = begin(gateway, f"fix {long}", workingDir=f"/home/{long}", remoteInput=True)
    output = [f"{long}\n", "\x1b[31mred\x1b[32mgreen\x1b[33myellow\x1b[90mgrey\x1b[0m\n"]
    gateway.send_event(run, "stdout", output[0], 1)
    gateway.send_event(run, "stderr", output[1], 2)
    gateway.send_event(run, "info", f"Executing {long}")
    gateway.send_event(
        run, "assist", json.dumps({"type": "tmate", "url": f"ssh {long}@example.org"})
    )
    gateway.send_artifact(
        run, "latest.diff", f"diff --git a b\n@@ -1 +1 @@\n-{long}\n+b\n".encode()
    )
    gateway.send_marker(run, {"event": "state", "state": "waiting"})
    over = begin(gateway, "over")
    gateway.send_marker(over, finished([], code=1))
    session = begin(gateway, "a session", mode="interactive", remoteInput=True)
    gateway.send_event(session, "stdout", output[1], 1)
    with Visitor(browser, gateway, size=size) as person:
        page = person.page

        def check() -> None:
            only: Scheme = "light" if size == DESK else "dark"
            person.check_layout("button, .button, .run, input, textarea", only)

        page.goto(f"{gateway.url}/login")
        check()
        person.log_in()
        expect(page.locator(".run").first).to_be_visible()
        check()
        is_dark = page.evaluate(BACKGROUND) == "rgb(16, 20, 19)"
        assert is_dark == (size == PHONE)
        page.get_by_role("button", name="New Run").click()
        check()
        page.get_by_role("button", name="Create the run").click()
        expect(page.locator("#start-line")).to_be_visible()
        check()
        person.open_run(run.id)
        expect(page.get_by_role("button", name="View latest.diff")).to_be_visible()
        assert page.title().startswith("●")
        check()
        expect(page.get_by_label("Type into the session")).to_be_hidden()
        page.get_by_role("button", name="View latest.diff").click()
        check()
        page.get_by_role("button", name="Close").click()
        page.get_by_role("button", name="Halt…").click()
        check()
        page.get_by_role("button", name="Keep it running").click()
        person.open_run(over.id)
        check()
        person.open_run(session.id)
        expect(page.locator(".xterm-rows")).to_contain_text("red")
        expect(page.get_by_label("Type into the session")).to_be_visible()
        check()


def test_the_theme_can_be_chosen(desk: Visitor) -> None:
    """The button changes the colours, and the choice holds for the next page."""
    page = desk.open_list()
    light = page.evaluate(BACKGROUND)
    page.get_by_role("button", name="Switch between dark and light").click()
    dark = page.evaluate(BACKGROUND)
    page.reload()

    assert light != dark == page.evaluate(BACKGROUND)


def test_everything_can_be_done_with_the_keyboard(desk: Visitor, gateway: EmbeddedGateway) -> None:
    """Tab and Enter reach New Run, its line, a run, its output and its commands."""
    run = begin(gateway, "by keyboard")
    gateway.send_event(run, "stdout", "hello\n", 1)
    page = desk.open_list()
    expect(page.get_by_role("link", name="by keyboard")).to_be_visible()

    tab_to(page, "New Run")
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Prompt")).to_be_focused()
    page.keyboard.type("typed")
    tab_to(page, "Create the run")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Copy the line")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)

    page.evaluate("document.activeElement.blur()")
    tab_to(page, "by keyboard")
    page.keyboard.press("Enter")
    # The list is live too.
    expect(page.get_by_text("hello", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="git status")).to_be_visible()
    expect(page.locator("#connection")).to_have_text("Live")
    tab_to(page, "hello")
    tab_to(page, "git status")
    page.keyboard.press("Enter")
    expect(page.locator(".history-entry")).to_contain_text("git status")
    # The button keeps the focus while and after it works.
    expect(page.get_by_role("button", name="git status")).to_be_focused()


def tab_to(page: Page, text: str, at_most: int = 40) -> None:
    """Press Tab until something with this text has the focus; each stop has to be seen."""
    for _ in range(at_most):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """(() => { const e = document.activeElement, s = getComputedStyle(e);
              const isSeen = e === document.body || s.outlineStyle !== "none";
              return [e.textContent.trim(), isSeen]; })()"""
        )
        assert focused[1], f"nothing shows that {focused[0][:60]!r} has the focus"
        if text in focused[0] and len(focused[0]) < 200:
            return
    raise AssertionError(f"Tab does not reach {text!r}")


def test_the_title_tells_that_a_run_waits(desk: Visitor, gateway: EmbeddedGateway) -> None:
    """Also where the browser has no notifications."""
    run = begin(gateway, "ask me")
    page = desk.open_run(run.id)
    for marker, word, mark in (
        ({"event": "state", "state": "waiting"}, "Waiting for you", "●"),
        (finished([]), "Finished", "✓"),
    ):
        gateway.send_marker(run, marker)
        expect(page.locator(".badge")).to_have_text(word)
        assert page.title().startswith(mark)


def test_the_line_is_copied(browser: Browser, gateway: EmbeddedGateway) -> None:
    """With the clipboard's API, and without it by selecting."""
    for hide in ("", "delete Navigator.prototype.clipboard;"):
        permissions = ["clipboard-read", "clipboard-write"]
        with Visitor(browser, gateway, logged_in=True, permissions=permissions) as person:
            page = person.open_list()
            page.get_by_role("button", name="New Run").click()
            page.get_by_role("button", name="Create the run").click()
            line = page.locator("#start-line").inner_text()
            read = page.evaluate_handle("navigator.clipboard")
            page.evaluate(f"() => {{ {hide} }}")
            page.get_by_role("button", name="Copy the line").click()
            expect(page.get_by_role("button", name="Copied")).to_be_visible()
            assert read.evaluate("clipboard => clipboard.readText()") == line


def test_the_logout_needs_no_script(browser: Browser, gateway: EmbeddedGateway) -> None:
    """It works from the first moment, while the page's scripts are still on their way."""
    with Visitor(browser, gateway, allowed=("404 (Not Found)",)) as person:
        page = person.log_in()
        person.context.route("**/static/*/main.js", lambda route: route.fulfill(status=404))
        page.goto(f"{gateway.url}/")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Admin token")).to_be_visible()
        page.goto(f"{gateway.url}/")
        expect(page.get_by_label("Admin token")).to_be_visible()


def test_an_unknown_run_and_a_lost_login_say_what_to_do(
    browser: Browser, gateway: EmbeddedGateway
) -> None:
    """A run that is not there is told in a sentence; a wrong token at the login is, too."""
    with Visitor(browser, gateway, allowed=("404 (NOT FOUND)", "401 (UNAUTHORIZED)")) as person:
        page = person.log_in()
        page.goto(f"{gateway.url}/runs/nothing")
        expect(page.get_by_role("alert")).to_contain_text("There is no run nothing here")
        page.get_by_role("link", name="All runs", exact=True).click()
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Admin token")).to_be_visible()
        page.get_by_label("Admin token").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("not the admin token")


def test_what_comes_while_the_page_draws_is_drawn(desk: Visitor) -> None:
    """Also if nothing comes after it: a run's last lines often come like this."""
    page = desk.open_list()
    page.evaluate(
        """async () => {
          const { TextView } = await import(`${location.origin}/static/text-view.js`);
          const view = new TextView({ columns: 80, rows: 24, isFixed: false });
          document.querySelector("main").append(view.element);
          const body = view.element.querySelector(".text-lines");
          new MutationObserver((_, observer) => {
            observer.disconnect();
            view.write("the last line\\n", "stdout");
          }).observe(body, { childList: true });
          view.write("the first line\\n", "stdout");
        }"""
    )

    expect(page.locator(".text-lines")).to_contain_text("the last line")


def test_an_answer_that_is_overtaken_changes_nothing(
    desk: Visitor, gateway: EmbeddedGateway
) -> None:
    """What came live while the page waited for an answer is newer than the answer."""
    run = begin(gateway)
    assert gateway.api("POST", f"/api/runs/{run.id}/stop", {}).status in (200, 202)
    (stop,) = gateway.send("GET", f"/api/runs/{run.id}/commands", run=run).json()
    page, held = desk.page, []
    page.route("**/history", lambda route: held.append((route, route.fetch())))
    desk.open_run(run.id)
    expect(page.locator(".badge")).to_have_text("Running")

    def is_held() -> None:
        page.wait_for_timeout(10)  # lets the page go on
        assert held

    eventually(is_held)

    ack = f"/api/runs/{run.id}/commands/{stop['id']}/ack"
    assert gateway.send("POST", ack, {"result": "Stopping"}, run).status == 200
    gateway.send_marker(run, finished([]))
    expect(page.locator(".history-entry .outcome")).to_have_text("done")
    expect(page.locator(".badge")).to_have_text("Finished")
    with page.expect_response("**/history"):
        for route, answer in held:
            route.fulfill(response=answer)
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    assert page.locator(".history-entry .outcome").all_inner_texts() == ["done"]
    assert page.locator(".badge").inner_text() == "Finished"


def test_what_comes_while_a_page_waits_is_shown(desk: Visitor, gateway: EmbeddedGateway) -> None:
    """Lines that come while others are loaded; a layout that is told while the page prepares."""
    page, held = desk.page, []
    page.route("**/xterm.js", lambda route: held.append(route))
    run = gateway.create_run("later")
    page.goto(f"{gateway.url}/runs/{run.id}")
    expect(page.locator("#connection")).to_have_text("Live")

    def is_held() -> None:
        page.wait_for_timeout(10)  # lets the page go on
        assert held

    eventually(is_held)
    gateway.send_marker(run, {**STARTED, "layout": 1})
    expect(page.locator(".badge")).to_have_text("Running")
    held.pop().continue_()
    page.unroute("**/xterm.js")
    expect(page.locator(".reading")).to_be_attached()
    gateway.send_events(run, [f"{number}\n\n" for number in range(1, LONG_RUN_EVENTS)])
    code = "".join(f"# line {number}\n" for number in range(1, 450))
    gateway.send_event(run, "stdout", f"```sh\n{code}```\n\n# Done\n", LONG_RUN_EVENTS)
    # A long answer is drawn in parts: a code block goes on from the first into the second.
    expect(page.locator(".b-words .md-code").last).to_contain_text("# line 449")
    expect(page.locator(".b-words .md-h1")).to_have_text("Done")

    events = gateway.api("GET", f"/api/runs/{run.id}/events?limit=1000&after=0").json()["events"]
    first, last = events[5]["id"], gateway.run(run)["last_event_id"]
    page.goto("about:blank")
    page.goto(f"{gateway.url}/runs/{run.id}#e{first}.0")
    expect(page.locator(".here")).to_be_in_viewport()
    page.route(f"**/events?after={last - 1}&*", lambda route: held.append((route, route.fetch())))
    page.evaluate(f"location.hash = '#e{last}.0'")
    eventually(is_held)
    gateway.send_event(run, "stdout", "late news\n", LONG_RUN_EVENTS + 1)
    gateway.send_event(run, "info", "it has come")
    expect(page.get_by_text("it has come")).to_be_attached()
    ((route, answer),) = held
    route.fulfill(response=answer)
    page.get_by_role("button", name="To the end").click()
    expect(page.locator(".reading").get_by_text("late news")).to_be_in_viewport()
