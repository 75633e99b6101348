"""From New Run to the last artifact, as a person does it, with a real runner in another folder."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from playwright.sync_api import Browser, expect

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.programs.runner import child
from testing.programs.terminal import Terminal
from testing.waiting import eventually
from tests.browser.runs import environment, make_project, pasted, start_line, wait_for_status
from tests.browser.visitor import PHONE, Visitor


def test_a_run_from_new_run_to_its_artifacts(
    desk: Visitor, gateway: EmbeddedGateway, tmp_path: Path
) -> None:
    """New Run, the pasted line, live output, a command with its result, stop, and the files."""
    page = desk.open_list()
    project = make_project(tmp_path / "a project", gateway)
    page.get_by_role("button", name="New Run").click()
    page.get_by_role("textbox", name="Prompt").fill('say it\'s "done" & $HOME')
    page.get_by_role("button", name="Create the run").click()
    line = page.locator("#start-line").inner_text()
    page.get_by_role("link", name="Watch the run").click()
    expect(page.locator(".badge")).to_have_text("Not started")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_visible()

    with pasted(line, project, environment(child("lines.py", "100000", "20"))) as runner:
        expect(page.locator(".badge")).to_have_text("Running")
        expect(page.locator(".text-line", has_text="3 ").first).to_be_visible()

        page.get_by_role("button", name="git diff", exact=True).click()
        entry = page.locator(".history-entry", has_text="git diff")
        expect(entry.locator(".outcome")).to_have_text("done")
        expect(entry.locator(".result")).to_contain_text("+total = 2")
        expect(page.get_by_role("button", name="View latest.diff")).to_be_visible()
        assert page.locator(".commands button").all_inner_texts()[0] == "git diff"

        page.get_by_role("button", name="Stop", exact=True).dblclick()
        expect(page.locator(".badge")).to_have_text("Stopped")
        assert runner.wait(20) == 130

    expect(page.locator(".banner-place .notice").first).to_contain_text("was stopped")
    expect(page.locator(".banner-place .notice").first).to_contain_text("exit code 130")
    expect(page.locator(".verdict")).to_contain_text("were received as sent")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_hidden()
    assert page.title().startswith("■")
    page.get_by_role("button", name="View claude.log").click()
    expect(page.get_by_label("Content of claude.log")).to_contain_text("1 ")
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="View latest.diff").click()
    expect(page.locator("dialog .diff-line.added")).to_have_text("+total = 2")
    expect(page.locator("dialog .diff-line.removed")).to_have_text("-total = 1")
    page.get_by_role("button", name="Close").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download claude.log").click()
    assert "1 " in download.value.path().read_text()


def test_halt_asks_first(desk: Visitor, gateway: EmbeddedGateway, project: Path) -> None:
    """One press does nothing, and a second one at the same place soon after it ends the run."""
    page = desk.page
    run_id, line = start_line(gateway, "go")

    with pasted(line, project, environment(child("lines.py", "100000", "5"))) as runner:
        wait_for_status(gateway, run_id, "running")
        desk.open_run(run_id)
        halt = page.get_by_role("button", name="Halt", exact=True)
        halt.click()
        expect(page.locator(".toast")).to_contain_text("Press again to kill it at once")
        expect(halt).to_be_visible()  # after a few seconds, or at once on a slow machine
        assert gateway.api("GET", f"/api/runs/{run_id}/history").json()["commands"] == []
        place = halt.bounding_box()
        assert place is not None
        page.mouse.dblclick(place["x"] + place["width"] / 2, place["y"] + 10)
        expect(page.locator(".badge")).to_have_text("Halted")
        assert runner.wait(40) == 137


def test_a_gateway_that_restarts_loses_and_doubles_nothing(
    browser: Browser, tmp_path: Path
) -> None:
    """The page says that it is not live, comes back by itself, and has every line once."""
    gateway = EmbeddedGateway(tmp_path, "--port", str(free_port()))
    lost = ("Failed to load resource", "ERR_INCOMPLETE_CHUNKED_ENCODING")
    with gateway, Visitor(browser, gateway, allowed=lost) as person:
        page = person.log_in()
        project = make_project(tmp_path / "project", gateway)
        run_id, line = start_line(gateway, "go")
        with pasted(line, project, environment(child("lines.py", "150", "30"))) as runner:
            wait_for_status(gateway, run_id, "running")
            person.open_run(run_id)
            expect(page.locator(".text-line", has_text="20 ").first).to_be_visible()
            gateway.stop()
            # After some attempts the page says the second, and a busy machine looks late.
            expect(page.locator("#connection")).to_have_text(re.compile("Reconnecting|Offline"))
            gateway.start()
            expect(page.locator("#connection")).to_have_text("Live")
            assert runner.wait(40) == 0
            expect(page.locator(".badge")).to_have_text("Finished")

        def has_every_line_once() -> None:
            numbers = [text.split()[0] for text in person.output().split("\n") if text.strip()]
            assert numbers == [*map(str, range(1, 151)), "LAST"]

        eventually(has_every_line_once)


def free_port() -> int:
    """Return a port that is free at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_session_is_typed_into(desk: Visitor, gateway: EmbeddedGateway, project: Path) -> None:
    """A run that takes remote input shows the box; what is sent reaches the child's terminal."""
    page = desk.page
    run_id, line = start_line(gateway)
    env = environment(child("ready.py"), CLAUDE_RUNNER_ALLOW_REMOTE_INPUT="true")

    with Terminal(["sh", "-c", line], env=env, cwd=project) as terminal:
        wait_for_status(gateway, run_id, "running")
        desk.open_run(run_id)
        expect(page.locator(".xterm-rows")).to_contain_text("READY")
        page.get_by_role("button", name="Arrow up").click()
        expect(page.locator(".history-entry .outcome")).to_have_text("done")
        page.get_by_label("Type into the session").fill("hello there")
        page.get_by_label("Type into the session").press("Enter")
        expect(page.locator(".xterm-rows")).to_contain_text("hello there")
        typed = page.locator(".history-entry", has_text="Typed into the session")
        expect(typed).to_have_count(2)
        expect(page.locator(".badge")).to_have_text("Finished")
        assert terminal.wait() == 0


def test_the_list_is_live_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    """A run that is made and started elsewhere appears and changes without a reload."""
    with EmbeddedGateway(tmp_path) as gateway, Visitor(browser, gateway, size=PHONE) as person:
        page = person.log_in()
        expect(page.get_by_text("No runs yet")).to_be_visible()
        project = make_project(tmp_path / "project", gateway)

        _, line = start_line(gateway, "count to three")
        row = page.get_by_role("link", name="count to three")
        expect(row).to_contain_text("Not started")
        with pasted(line, project, environment(child("lines.py", "3", "0"))) as runner:
            expect(row).to_contain_text("Finished")
            assert runner.wait(20) == 0
