"""Starting runs from a phone: folders that wait come and go, and what was sent says where it is."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Route, expect

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.programs.claude_standin import StandIn, bash, say
from testing.programs.waiter import Waiting
from tests.browser.npm_packages import xterm_environment
from tests.browser.runs import begin
from tests.browser.visitor import Visitor

PHONE = (390, 844)
TAPPED = (
    "button, select, summary, .ask-option, .check, dialog input:not([type=radio], [type=checkbox])"
)


def open_dialog(page: Page) -> None:
    """Open the dialog for a new run."""
    page.get_by_role("button", name="New Run").click()
    expect(page.get_by_role("heading", name="New run")).to_be_visible()


def test_a_run_is_started_from_a_phone(browser: Browser, tmp_path: Path) -> None:
    """Let in by its code, chosen, started, approved, withdrawn; a real `wait` behind all of it."""
    with (
        EmbeddedGateway(tmp_path / "gateway", env=xterm_environment()) as gateway,
        Visitor(browser, gateway, size=PHONE, allowed=("404",), logged_in=True) as person,
    ):
        page = person.open_list()
        open_dialog(page)
        expect(page.get_by_role("group", name="Where")).to_be_hidden()
        options = ("--machine", "laptop", "--ask", "remote", "--remote-max-mode", "acceptEdits")
        waiting = Waiting(gateway, tmp_path, *options)
        standin = StandIn(tmp_path, [[bash("make"), say("Made.")]])
        waiting.run_program(standin.command)
        with waiting.start() as process:
            # It comes while the dialog is open.
            field = page.get_by_label("A folder waits to be let in")
            expect(field).to_be_visible()
            page.get_by_label("Prompt").fill("make the tests pass")
            field.fill("WRONG")
            field.press("Enter")
            expect(page.get_by_text("No terminal that waits now shows this code.")).to_be_visible()
            person.check_layout(TAPPED)
            field.fill(waiting.code(process))
            page.get_by_role("button", name="Let in").click()
            expect(page.get_by_text("shop on laptop is let in.")).to_be_visible()
            expect(page.get_by_role("radio", name=re.compile("shop on laptop"))).to_be_checked()
            page.get_by_text("Title, permissions").click()
            page.get_by_label("Title").fill("Tests")
            page.get_by_label("Begin in").select_option(label="Edit files without asking")
            person.check_layout(TAPPED)
            page.get_by_role("button", name="Start").click()

            expect(page).to_have_url(re.compile(r"/runs/run_\w+$"))
            page.get_by_role("button", name="Allow once").click()
            expect(page.locator(".badge")).to_have_text("Finished")
            expect(page.locator(".order")).to_be_hidden()
            run_id = page.url.rpartition("/")[2]
            assert gateway.api("GET", f"/api/runs/{run_id}").json()["title"] == "Tests"
            argv = standin.all("started")[0]["argv"]
            assert " ".join(argv).endswith("--permission-mode acceptEdits")
            # "Again" chooses the folder in which the run was.
            page.get_by_role("button", name="Again…").click()
            expect(page.get_by_role("radio", name=re.compile("shop on laptop"))).to_be_checked()
            expect(page.get_by_role("button", name="Start")).to_be_visible()
            page.get_by_role("button", name="Cancel").click()
            # So does "Go on", with the mode in which it was, and the session goes there.
            page.get_by_role("button", name="Go on with this session…").click()
            expect(page.get_by_role("radio", name=re.compile("shop on laptop"))).to_be_checked()
            page.get_by_label("Prompt").fill("and on")
            page.get_by_role("button", name="Start").click()
            page.get_by_role("button", name="Allow once").click()
            expect(page.locator(".badge")).to_have_text("Finished")
            session = gateway.api("GET", f"/api/runs/{run_id}").json()["session_id"]
            on = standin.all("started")[1]["argv"]
            assert f"--resume {session} --permission-mode acceptEdits" in " ".join(on)
            process.signal(signal.SIGSTOP)  # alive, and silent: what is sent waits
            person.open_list()
            open_dialog(page)
            expect(page.get_by_role("radio", name=re.compile("shop on laptop"))).to_be_checked()
            page.get_by_label("Prompt").fill("one more thing")
            page.get_by_role("button", name="Start").click()
            expect(page.get_by_text("Queued for shop on laptop: it is next.")).to_be_visible()
            process.signal(signal.SIGINT)
            process.signal(signal.SIGCONT)
            assert process.wait() == 130
            assert "one more thing" not in process.stderr
        expect(page.get_by_text("which does not wait any more")).to_be_visible()
        person.check_layout("button")
        line = page.get_by_role("button", name="Show the line that starts it")
        expect(line).to_be_hidden()
        page.get_by_role("button", name="Withdraw").click()
        expect(page.get_by_text("Withdrawn: no folder starts it.")).to_be_visible()
        expect(line).to_be_visible()
        assert len(standin.all("started")) == 2


def test_nothing_is_chosen_for_somebody_who_has_the_dialog_open(
    desk: Visitor, gateway: EmbeddedGateway
) -> None:
    """A folder that comes later is only offered: Start may be under the finger by then."""
    page = desk.open_list()
    offers: list[dict[str, Any]] = [
        {"id": name, "name": name, "machine": "laptop", "asks": False, "modes": []}
        for name in ("shop", "blog")
    ]
    shop, blog = offers
    answers = [[shop], [blog, shop], [blog]]

    def answer(route: Route) -> None:
        offers = answers.pop(0) if len(answers) > 1 else answers[0]
        route.fulfill(json={"offers": offers, "unpaired": False})

    page.route("**/api/offers", answer)
    open_dialog(page)
    expect(page.get_by_role("radio", name=re.compile("shop on laptop"))).to_be_checked()
    expect(page.get_by_role("radio", name=re.compile("blog on laptop"))).to_be_visible()
    expect(page.get_by_role("radio", name=re.compile("shop on laptop"))).to_be_checked()
    expect(page.get_by_text("shop on laptop does not wait any more.")).to_be_visible()
    expect(page.get_by_role("radio", name=re.compile("In a terminal"))).to_be_checked()
    expect(page.get_by_role("button", name="Create the run")).to_be_visible()

    # "Again" chooses the folder in which the run was.
    run = begin(gateway, "fix it")
    desk.open_run(run.id)
    page.get_by_role("button", name="Again…").click()
    expect(page.get_by_role("radio", name=re.compile("blog on laptop"))).not_to_be_checked()
    expect(page.get_by_text("Its line goes to the folder /home/ada/shop.")).to_be_visible()
