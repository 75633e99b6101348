"""The list of runs in a browser: its groups, its filters, and what can be done with a run there."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from testing.gateways.embedded_gateway import EmbeddedGateway, finished
from testing.gateways.gateway_records import Run
from testing.waiting import eventually
from tests.browser.runs import STARTED, begin
from tests.browser.visitor import Visitor

ASKED = {"event": "asked", "id": "q1", "digest": "d", "kind": "permission", "tool": "Bash"}
MANY = 500
# What a gateway without xterm.js answers, and one whose run is gone.
MISSING = ("404 (NOT FOUND)",)


@pytest.fixture
def gw(tmp_path: Path) -> Iterator[EmbeddedGateway]:
    """A gateway whose list has the test's own runs alone."""
    with EmbeddedGateway(tmp_path / "gateway") as gateway:
        yield gateway


def end(gw: EmbeddedGateway, run: Run, code: int = 0, **result: Any) -> None:
    """End a run."""
    gw.send_marker(run, {**finished([]), "exitCode": code, "events": 0, "result": result})


def row(page: Page, run: Run) -> Locator:
    """Return the line of a run."""
    return page.locator(".runs li", has=page.locator(f"a[href='/runs/{run.id}']"))


def shown(page: Page) -> dict[str, list[str]]:
    """Return the ids of the runs in each group that is shown."""
    found: dict[str, list[str]] = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".group")]
          .filter((group) => group.checkVisibility())
          .map((group) => [group.querySelector("h2").textContent,
            [...group.querySelectorAll("a.run")].map((link) => link.href.split("/").at(-1))]))"""
    )
    return found


def test_who_needs_somebody_is_seen_at_once(browser: Browser, gw: EmbeddedGateway) -> None:
    """Live: runs move from group to group; what ended is new until it was looked at."""
    runs = [begin(gw, "fix the cart", branch="main") for _ in range(4)]
    first, second, third, fourth = runs
    pending = gw.create_run("not yet")
    end(gw, fourth, 3, totalCostUsd=0.256, denials=2)
    with Visitor(browser, gw, size=(1440, 900), allowed=MISSING, logged_in=True) as person:
        page = person.open_list()
        expect(page.locator(".run")).to_have_count(5)
        assert shown(page) == {
            "Working 3": [third.id, second.id, first.id],
            "Not started 1": [pending.id],
            "Done 1": [fourth.id],
        }
        last = row(page, fourth)
        for text in ("New", "Failed", "shop", "main", "$0.26", "exit code 3", "2 tools refused"):
            expect(last).to_contain_text(text)
        # Four have the same name; each says which one it is.
        expect(last).to_contain_text(f"…{fourth.id[-4:]}")
        expect(row(page, pending)).not_to_contain_text(pending.id[-4:])
        assert page.title() == "Runs · claude-runner"

        row(page, first).get_by_role("link").focus()
        gw.send_marker(first, ASKED)
        expect(page.locator(".group.needs .run")).to_have_count(1)
        expect(row(page, first).get_by_role("link")).to_be_focused()
        expect(page.locator(".list-summary")).to_have_text("1 needs you · 2 working · 1 new")
        expect(page).to_have_title("(1 waiting) Runs · claude-runner")
        icon = page.locator("link[rel=icon]").get_attribute("href")
        assert icon == "/static/icon-1.svg"
        assert b">1<" in gw.request("GET", icon).body
        assert next(iter(shown(page).items())) == ("Needs you 1", [first.id])
        end(gw, second)
        expect(page.locator(".group.done .run")).to_have_count(2)
        assert shown(page)["Done 2"] == [second.id, fourth.id]

        last.get_by_role("link").click()
        expect(page.locator(".badge")).to_have_text("Failed")
        eventually(lambda: holds(gw.run(fourth)["seen_at"] is not None))
        page.go_back()
        expect(page.locator(".list-summary")).to_have_text("1 needs you · 1 working · 1 new")
        expect(row(page, fourth)).not_to_contain_text("New")


def holds(condition: bool) -> None:
    """Fail unless it does; to be waited for."""
    assert condition


def test_the_list_is_filtered_by_its_address(browser: Browser, gw: EmbeddedGateway) -> None:
    """Words of the output, a state, a folder; back leads back; a link shows the same. A run opens
    where the words were found.
    """
    shop, other = begin(gw, "fix it"), begin(gw, "look", workingDir="/srv/blog")
    text = ["the \x1b[1melder\x1b[31mberry\x1b[0m is ripe\n", "Figs too\n"]
    gw.send_events(shop, [*text, *(f"more {n}\n" for n in range(300))])
    end(gw, other, 1)
    with Visitor(
        browser, gw, size=(390, 844), scheme="dark", allowed=MISSING, logged_in=True
    ) as person:
        page = person.open_list()
        expect(page.locator(".run")).to_have_count(2)
        search = page.get_by_role("searchbox", name="Search")

        def finds() -> None:
            assert gw.api("GET", "/api/list?q=elderberry").json()["groups"][1]["count"] == 1

        eventually(finds)
        search.fill("elderb")
        expect(page.locator(".run-found")).to_contain_text("the elderberry is ripe")
        assert shown(page) == {"Working 1": [f"{shop.id}?find=elderb"]}
        assert page.url.endswith("/?q=elderb")
        search.press("End")
        search.type("erry ")  # with the blank before the next word
        expect(page).to_have_url(re.compile(r"q=elderberry$"))
        expect(search).to_have_value("elderberry ")
        search.fill("too fig")
        page.locator("a.run[href*='find=too']").click()
        expect(page.locator(".hit")).to_have_text("Figs too")
        expect(page.locator(".text-line", has_text="Figs too")).to_be_in_viewport()
        page.go_back()
        search.fill("elderb")
        page.locator("a.run[href*='find=elderb']").click()
        expect(page.locator(".hit")).to_have_text("the elderberry is ripe")
        page.go_back()
        search.fill("nowhere")
        expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
        page.get_by_label("State").select_option("failed")
        page.get_by_role("button", name="Take off: Text: “nowhere”").click()
        expect(page.locator(".run")).to_have_count(1)
        page.get_by_label("State").select_option("incomplete")
        expect(page.locator(".empty")).to_contain_text("No run fits this:")
        expect(page.locator(".empty")).not_to_contain_text("Words are looked for")
        page.get_by_role("button", name="Take off: State: Output incomplete").click()
        expect(page.locator(".run")).to_have_count(2)
        page.get_by_label("Folder").select_option(label="blog")
        page.get_by_label("State").select_option("failed")
        expect(page.locator(".run")).to_have_count(1)
        assert page.url.endswith("/?state=failed&folder=%2Fsrv%2Fblog")
        # What does not fit stays out, also if something happens in it.
        gw.send_marker(shop, {"event": "state", "state": "waiting"})
        expect(page.locator(".list-summary")).to_contain_text("1 needs you")
        expect(page.locator(".run")).to_have_count(1)
        page.reload()
        expect(page.get_by_label("Folder")).to_have_value("/srv/blog")
        expect(page.locator(".run")).to_have_count(1)
        page.go_back()
        expect(page.get_by_label("State")).to_have_value("")
        page.go_back()
        expect(page.locator(".run")).to_have_count(2)
        person.check_layout("button, .button, .run, input, select")


@pytest.mark.parametrize(("size", "scheme"), [((390, 844), "dark"), ((1440, 900), "light")])
def test_what_can_be_done_with_a_run(
    browser: Browser,
    gw: EmbeddedGateway,
    size: tuple[int, int],
    scheme: Literal["dark", "light"],
) -> None:
    """Name it, start it, do it again, go on with it, delete it; each dialog without a fault."""
    over, goes_on = begin(gw, "fix it", sessionId="5e551011"), begin(gw, "works")
    end(gw, over, totalCostUsd=0.0007)
    pending = gw.create_run("not yet")
    tapped = "button, .button, .run, input:not([type=checkbox]), select"
    with Visitor(
        browser, gw, size=size, scheme=scheme, logged_in=True, allowed=("net::ERR_FAILED",)
    ) as person:
        page = person.open_list()
        expect(row(page, over)).to_contain_text("$0.0007")
        menu = row(page, over).get_by_role("button", name="More for fix it")
        menu.click()
        person.check_layout(tapped, scheme)
        page.get_by_role("button", name="Rename").click()
        expect(page.get_by_role("textbox", name="Name of the run")).to_be_focused()
        page.keyboard.type("The shop")
        person.check_layout(tapped, scheme)
        page.route("**/title", lambda route: route.abort())
        page.keyboard.press("Enter")
        expect(page.locator(".toast.bad")).to_contain_text("Not sent")
        page.unroute("**/title")
        page.keyboard.press("Enter")
        expect(row(page, over).locator(".run-title")).to_have_text(re.compile("The shop$"))
        more = row(page, over).get_by_role("button", name="More for The shop")
        more.click()
        page.get_by_role("button", name="Keep for ever").click()
        expect(page.get_by_role("dialog")).to_have_count(0)

        def is_kept() -> None:
            more.click()
            if not page.get_by_role("button", name="No longer keep").is_visible():
                page.get_by_role("button", name="Close").click()
                raise AssertionError("a list that was asked for before has come after it")

        eventually(is_kept)
        page.get_by_role("button", name="Go on with its session").click()
        page.get_by_role("textbox", name="Prompt").fill("and now?")
        page.get_by_role("button", name="Create the run").click()
        expect(page.locator("#start-line")).to_contain_text("--resume 5e551011")
        expect(page.locator("#start-line")).to_contain_text("cd /home/ada/shop && CLAUDE_RUNNER")
        page.get_by_role("button", name="Close").click()

        row(page, pending).get_by_role("button", name="More for not yet").click()
        page.get_by_role("button", name="Show the line that starts it").click()
        expect(page.get_by_role("dialog", name="Start it")).to_be_visible()
        expect(page.locator("#start-line")).to_contain_text(f"--run-id {pending.id}")
        expect(page.locator("#start-line")).not_to_contain_text(pending.token)
        person.check_layout(tapped, scheme)
        page.get_by_role("button", name="Close").click()
        assert gw.send_event(pending, "stdout", "x", 1).status == 403
        row(page, goes_on).get_by_role("button", name="More for works").click()
        expect(page.get_by_text("A run that goes on cannot be deleted")).to_be_visible()
        page.get_by_role("button", name="Close").click()

        expect(page.locator(".run")).to_have_count(4)
        page.get_by_role("button", name="Select").click()
        page.get_by_role("button", name="All shown").click()
        expect(page.get_by_text("3 selected")).to_be_visible()
        row(page, over).get_by_role("link").click()
        expect(page.get_by_text("2 selected")).to_be_visible()
        person.check_layout(tapped, scheme)
        page.get_by_role("button", name="Delete…").click()
        expect(page.get_by_role("dialog")).to_contain_text("This cannot be undone")
        person.check_layout(tapped, scheme)
        page.get_by_role("button", name="Delete 2 runs").click()
        expect(page.locator(".run")).to_have_count(2)
        expect(page.locator(".pick-bar")).to_be_hidden()
        assert gw.api("GET", f"/api/runs/{pending.id}").status == 404


def test_what_can_be_done_on_a_runs_page(browser: Browser, gw: EmbeddedGateway) -> None:
    """By keyboard: start it, name it, do it again; who looks at it learns that it was deleted."""
    run, late = begin(gw, "fix it"), gw.create_run("late")
    pending = gw.create_run("not yet")
    with Visitor(browser, gw, allowed=MISSING, logged_in=True) as person:
        page = person.open_run(pending.id)
        press(page, page.get_by_role("button", name="Show the line that starts it"))
        expect(page.locator("#start-line")).to_contain_text(f"--run-id {pending.id}")
        page.keyboard.press("Escape")
        person.open_run(late.id)
        page.keyboard.press("Escape")
        # It begins while somebody decides to delete it, or types its name.
        press(page, page.get_by_role("button", name="Delete…"))
        gw.send_marker(late, {**STARTED, "command": "late"})
        expect(page.locator(".badge")).to_have_text("Running")
        page.get_by_role("button", name="Delete the run").click()
        expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("late: ")
        page.keyboard.press("Escape")
        assert page.url.endswith(late.id)
        press(page, page.get_by_role("button", name="Rename"))
        expect(page.get_by_role("textbox", name="Name of the run")).to_be_focused()
        page.keyboard.type("The shop")
        end(gw, late)
        expect(page.locator(".badge")).to_have_text("Finished")
        expect(page.get_by_role("button", name="Delete…")).to_have_count(0)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="The shop")).to_be_visible()
        expect(page.get_by_role("button", name="Delete…")).to_be_visible()

        person.open_run(run.id)
        press(page, page.get_by_role("button", name="Rename"))
        expect(page.get_by_role("textbox", name="Name of the run")).to_be_focused()
        page.keyboard.type("The shop")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="The shop")).to_be_visible()
        expect(page.get_by_role("button", name="Rename")).to_be_focused()
        expect(page.get_by_role("button", name="Delete…")).to_have_count(0)
        end(gw, run)
        press(page, page.get_by_role("button", name="Again…"))
        expect(page.get_by_role("textbox", name="Prompt")).to_have_value("fix it")
        page.get_by_role("button", name="Create the run").press("Enter")
        expect(page.locator("#start-line")).to_contain_text("--cmd 'fix it'")
        page.keyboard.press("Escape")
        person.check_layout("button, .button")
        assert gw.api("POST", "/api/runs/delete", {"ids": [run.id]}).status == 200
        expect(page.get_by_role("alert")).to_contain_text("It may have been deleted")


def press(page: Page, button: Locator) -> None:
    """Press a button by keyboard."""
    button.focus()
    page.keyboard.press("Enter")


def test_hundreds_of_runs_open_at_once(browser: Browser, gw: EmbeddedGateway) -> None:
    """The rest comes page by page, and all of them are in the search."""
    gw.create_run("number 0")
    gw.stop()
    with closing(sqlite3.connect(gw.database_file)) as database, database:
        copy_rows(database, MANY)
    gw.start()
    with Visitor(browser, gw, logged_in=True) as person:
        page = person.page
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        with page.expect_response("**/api/list*") as answer:
            page.goto(gw.url)
        expect(page.locator(".run")).to_have_count(50)
        # What it takes does not grow with the runs: one answer, of one page.
        assert len([url for url in asked if "/api/list" in url or "/api/runs" in url]) == 1
        assert len(answer.value.body()) < 50_000
        expect(page.locator(".group-count").nth(3)).to_have_text(str(MANY))
        page.get_by_role("button", name="Show more").click()
        expect(page.locator(".run")).to_have_count(100)
        search = page.get_by_role("searchbox", name="Search")
        search.fill("number")
        expect(page.locator(".run")).to_have_count(50)
        page.get_by_role("button", name="Show more").click()
        expect(page.locator(".run")).to_have_count(100)
        # What comes live takes nothing away from what was loaded.
        with page.expect_response("**/api/list*"):
            named = gw.api("POST", f"/api/runs/run_{3:016x}/title", {"title": "number three"})
        assert named.status == 200
        expect(page.get_by_text("number three")).to_be_visible()
        expect(page.locator(".run")).to_have_count(100)
        search.fill(f"number {MANY - 1}")
        expect(page.locator(".run")).to_have_count(1)


def copy_rows(database: sqlite3.Connection, count: int) -> None:
    """Make so many ended runs of one, with a prompt and a moment of their own."""
    database.row_factory = sqlite3.Row
    for table in ("runs", "summaries"):
        row = dict(database.execute(f"SELECT * FROM {table}").fetchone())
        database.execute(f"DELETE FROM {table}")
        for number in range(count):
            row["number"] = number + 1
            if table == "runs":
                row.update(id=f"run_{number:016x}", status="done", command=f"number {number}")
            else:
                moment = time.time() - number
                row.update(stage="done", asked=f"number {number}", stage_at=moment)
            marks = ", ".join("?" * len(row))
            database.execute(f"INSERT INTO {table} VALUES ({marks})", tuple(row.values()))
