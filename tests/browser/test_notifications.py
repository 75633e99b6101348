"""Notifications of the browser: from any page, for any run, and not for what somebody looks at.

With the whole chromium: its headless shell has no notifications.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.operator import asked_marker
from testing.needs import needs
from testing.waiting import eventually
from tests.browser import runs
from tests.browser.visitor import PHONE, Visitor

pytestmark = needs("chromium")

# What the service worker shows at this moment.
_SHOWN = """async () => {
  const registration = await navigator.serviceWorker.getRegistration("/");
  const shown = registration ? await registration.getNotifications() : [];
  return shown.map(({ title, body, data }) => ({ title, body, address: data.address }));
}"""


@pytest.fixture
def whole_browser(browser: Browser) -> Iterator[Browser]:
    """A browser with notifications."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    whole = browser.browser_type.launch(
        executable_path=shutil.which("chromium"), args=[*flags, "--disable-background-networking"]
    )
    yield whole
    whole.close()


def shown(page: Page, is_there: Callable[[str], bool]) -> list[dict[str, Any]]:
    """Wait for a notification with a title like this; return all that are shown."""

    def check() -> list[dict[str, Any]]:
        page.wait_for_timeout(200)
        found: list[dict[str, Any]] = page.evaluate(_SHOWN)
        assert any(is_there(each["title"]) for each in found), found
        return found

    return eventually(check)


def test_a_run_notifies_from_every_page(whole_browser: Browser, gateway: EmbeddedGateway) -> None:
    """While a page is open that nobody looks at; with a link to the run, and without a word of a
    run that somebody looks at.
    """
    watched, other = runs.begin(gateway, "watched"), runs.begin(gateway, "other")
    with Visitor(
        whole_browser, gateway, logged_in=True, permissions=["notifications"], size=PHONE
    ) as person:
        page = person.open_list()
        page.get_by_role("button", name="Notify me").click()
        expect(page.get_by_role("heading", name="Notifications")).to_be_visible()
        expect(page.get_by_text("On, for as long as a page")).to_be_visible()
        expect(page.get_by_text("CLAUDE_RUNNER_GATEWAY_NOTIFY=")).to_be_visible()
        person.check_layout("button, a.button")
        page.evaluate("async () => void (await navigator.serviceWorker.ready)")
        page.get_by_role("button", name="Show one now").click()
        shown(page, lambda title: title == "claude-runner: a test")
        person.open_list()
        front = person.context.new_page()
        with front.expect_response(lambda response: response.url.endswith("/looks")):
            front.goto(f"{gateway.url}/runs/{watched.id}")
        front.bring_to_front()
        # Playwright lets every page believe that it is in front.
        session = person.context.new_cdp_session(page)
        session.send("Emulation.setFocusEmulationEnabled", {"enabled": False})
        page.wait_for_function("() => !document.hasFocus()")

        gateway.send_marker(watched, asked_marker("q1", tool="Bash", input={"command": "make"}))
        gateway.send_marker(other, {"event": "state", "state": "waiting"})

        found = shown(page, lambda title: title == "Waits for you: other")
        mine = [each for each in found if each["address"] == f"/runs/{other.id}"]
        assert [each["body"] for each in mine] == [
            "It waits for an answer, or for what to do next."
        ]
        assert not [each for each in found if each["address"] == f"/runs/{watched.id}"]
