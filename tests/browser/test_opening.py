"""How a page opens: with what it needs, asked for at once, and what is kept of it."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, Page, Route, expect

from testing.gateways.embedded_gateway import EmbeddedGateway
from tests.browser.runs import begin
from tests.browser.visitor import Visitor

# What was not taken out of the browser's cache, of what has its version in its address.
ASKED_AGAIN = """() => performance.getEntriesByType("resource")
  .filter((each) => each.name.includes("/static/v-") && each.transferSize !== 0)
  .map((each) => each.name)"""


def open_page(page: Page, gateway: EmbeddedGateway, path: str) -> None:
    """Open it, and wait until it is live."""
    page.goto(f"{gateway.url}{path}")
    page.locator("#connection[data-state=live]").wait_for()


def test_a_page_names_all_of_its_scripts_and_no_others(
    browser: Browser, gateway: EmbeddedGateway
) -> None:
    """What it would load without the names is what it names; all of it is kept."""

    def without_names(route: Route) -> None:
        answer = route.fetch()
        body = re.sub(r'<link rel="modulepreload"[^>]*>', "", answer.text())
        route.fulfill(response=answer, body=body)

    run = begin(gateway)
    for path in ("/", f"/runs/{run.id}", "/notifications"):
        with Visitor(browser, gateway, logged_in=True) as person:
            page = person.page
            open_page(page, gateway, path)
            open_page(page, gateway, path)
            assert page.evaluate(ASKED_AGAIN) == []
            links = page.locator("link[rel=modulepreload]")
            named = links.evaluate_all("links => links.map((link) => link.href)")
            page.route(f"{gateway.url}{path}", without_names)
            open_page(page, gateway, path)
            assert not links.count()
            loaded = page.evaluate(
                "() => performance.getEntriesByType('resource').map((each) => each.name)"
            )

            scripts = {url for url in loaded if re.search(r"/static/v-\w+/[\w-]+\.js$", url)}
            assert {each.rpartition("/")[2] for each in named} >= {"main.js", "api.js"}
            assert set(named) == {url for url in scripts if not url.endswith("/theme.js")}


def test_what_cannot_be_loaded_at_first_comes_by_itself(
    browser: Browser, gateway: EmbeddedGateway
) -> None:
    """A run, its output and the list say that they try again, and are there once they can be."""
    run = begin(gateway)
    gateway.send_event(run, "stdout", "here it is\n", 2)
    allowed = ("status of 503", "ERR_FAILED")
    with Visitor(browser, gateway, allowed=allowed, logged_in=True) as person:
        page = person.page
        problem = page.get_by_role("alert").filter(has_text="This page tries again by itself")
        output = page.get_by_text("here it is")
        for api, path, what in (
            (f"**/api/runs/{run.id}", f"/runs/{run.id}", output),
            (f"**/api/runs/{run.id}/events?*", f"/runs/{run.id}", output),
            ("**/api/list?*", "/", page.locator(f"main a[href='/runs/{run.id}']")),
        ):
            page.route(api, lambda route: route.fulfill(status=503))
            page.goto(f"{gateway.url}{path}")
            expect(problem).to_have_text(re.compile("^The gateway answered 503"))
            page.unroute(api)
            expect(what).to_be_visible()
            expect(problem).to_be_hidden()

        page.route(f"**/api/runs/{run.id}", lambda route: route.abort())
        page.goto(f"{gateway.url}/runs/{run.id}")
        expect(problem).to_contain_text("The gateway cannot be reached. This page")
        page.unroute(f"**/api/runs/{run.id}")
        page.get_by_role("button", name="Try now").click()
        expect(output).to_be_visible()
