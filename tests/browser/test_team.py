"""The whole loop at two gateways on PostgreSQL behind HAProxy: requests go to each in turn."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect

from testing.gateways.balancer import team_on
from testing.gateways.postgresql import cluster
from testing.programs.runner import child
from tests.browser.runs import environment, make_project, pasted
from tests.browser.visitor import Visitor


def test_a_run_at_two_gateways(browser: Browser, tmp_path: Path) -> None:
    """A login, New Run, live output, a command with its result, stop, the verdict and the files.

    In the middle of it one of the gateways is killed.
    """
    lost = ("Failed to load resource", "ERR_INCOMPLETE_CHUNKED_ENCODING")
    with cluster() as database, team_on(database, tmp_path / "team") as team:
        project = make_project(tmp_path / "a project", team)
        with Visitor(browser, team, allowed=lost) as person:
            page = person.log_in()
            page.get_by_role("button", name="New Run").click()
            page.get_by_role("textbox", name="Prompt").fill("say it")
            page.get_by_role("button", name="Create the run").click()
            line = page.locator("#start-line").inner_text()
            page.get_by_role("link", name="Watch the run").click()
            with pasted(line, project, environment(child("lines.py", "100000", "20"))) as runner:
                expect(page.locator(".badge")).to_have_text("Running")
                expect(page.locator(".text-line", has_text="3 ").first).to_be_visible()
                page.get_by_role("button", name="git diff", exact=True).click()
                entry = page.locator(".history-entry", has_text="git diff")
                expect(entry.locator(".outcome")).to_have_text("done")
                team.members[0].kill()
                expect(page.locator("#connection")).to_have_text("Live")
                page.get_by_role("button", name="Stop", exact=True).dblclick()
                expect(page.locator(".badge")).to_have_text("Stopped")
                assert runner.wait(20) == 130
            expect(page.locator(".verdict")).to_contain_text("were received as sent")
            page.get_by_role("button", name="View claude.log").click()
            expect(page.get_by_label("Content of claude.log")).to_contain_text("1 ")
