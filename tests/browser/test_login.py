"""Logging in, and what a browser gives away: nothing that opens anything."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.embedded_record import free_port
from testing.gateways.proxy import LoopbackProxy
from tests.browser.npm_packages import xterm_environment
from tests.browser.runs import begin
from tests.browser.visitor import PHONE, Visitor

REFUSED = ("Failed to load resource",)


def login_address(gateway: EmbeddedGateway, query: str = "") -> str:
    """Return an address that logs one browser in."""
    code = gateway.api("POST", "/api/login-codes", {}).json()["code"]
    return f"{gateway.url}/login?code={code}{query}"


@pytest.mark.parametrize("size", [(1280, 800), PHONE], ids=["desk", "phone"])
def test_a_link_is_all_it_takes(
    browser: Browser, gateway: EmbeddedGateway, size: tuple[int, int]
) -> None:
    """One tap: the address leads to the run, live, and neither its code nor the key stays in it."""
    run = begin(gateway)
    with Visitor(browser, gateway, size=size) as person:
        person.page.goto(login_address(gateway, f"&next=/runs/{run.id}"))

        expect(person.page.locator("#connection")).to_have_text("Live")
        assert person.page.url == f"{gateway.url}/runs/{run.id}"
        gateway.send_event(run, "stdout", "hello\n", 1)
        expect(person.page.locator(".text-line").first).to_have_text("hello")
        person.page.goto(gateway.url)
        expect(person.page.locator("#connection")).to_have_text("Live")


def test_a_page_below_a_path(browser: Browser, tmp_path: Path) -> None:
    """Behind a proxy that takes the path off, a person gets from the login to a run and back."""
    port, base = free_port(), "/tools/gw-1"
    with ExitStack() as stack:
        proxy = stack.enter_context(LoopbackProxy(f"http://127.0.0.1:{port}", below=base))
        arguments = ["--port", str(port), "--public-url", f"{proxy.url}{base}"]
        own = stack.enter_context(
            EmbeddedGateway(tmp_path / "own", *arguments, env=xterm_environment())
        )
        person = stack.enter_context(Visitor(browser, own))
        run = begin(own)
        own.send_event(run, "stdout", "hello\n", 1)
        person.log_in()
        person.page.locator("a.run").click()
        expect(person.page.locator("#connection")).to_have_text("Live")
        expect(person.page.locator(".text-line").first).to_have_text("hello")
        assert person.page.url == f"{proxy.url}{base}/runs/{run.id}"
        person.page.get_by_role("link", name="All runs").first.click()
        expect(person.page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()


def test_a_file_leads_to_the_page(
    browser: Browser, gateway: EmbeddedGateway, tmp_path: Path
) -> None:
    """As the gateway opens a browser: from a file, which is another site."""
    file = tmp_path / "open.html"
    address = login_address(gateway)
    file.write_text(f'<meta http-equiv="refresh" content="0; url={address}">')
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(file.as_uri())

        expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
        expect(page.locator("#connection")).to_have_text("Live")


def test_a_browser_without_its_storage_logs_in_again(
    browser: Browser, gateway: EmbeddedGateway
) -> None:
    """Which the login page says in a sentence; then it is back where it was."""
    run = begin(gateway)
    with Visitor(browser, gateway, allowed=REFUSED) as person:
        page = person.log_in()
        page.evaluate("localStorage.clear()")
        page.goto(f"{gateway.url}/runs/{run.id}")

        expect(page.get_by_role("alert")).to_contain_text("lost its login key")
        page.get_by_label("Admin token").fill(gateway.admin_token)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("#connection")).to_have_text("Live")
        assert page.url == f"{gateway.url}/runs/{run.id}"


def test_who_logs_out_is_out(browser: Browser, gateway: EmbeddedGateway) -> None:
    """Its session is in no cookie any more, and what the page has kept opens nothing."""
    with Visitor(browser, gateway, allowed=REFUSED) as person:
        page = person.log_in()
        session = person.context.cookies()
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Admin token")).to_be_visible()
        assert session
        assert person.context.cookies() == []

        page.goto(gateway.url)
        expect(page.get_by_label("Admin token")).to_be_visible()


@contextmanager
def dev_server() -> Iterator[tuple[str, list[str]]]:
    """Another server on the same host, a program of the project: its address, and the cookies that
    it gets.
    """
    cookies: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            cookies.append(self.headers.get("Cookie", ""))
            body = b"<!doctype html><title>dev</title><h1>the project</h1>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}/", cookies
        finally:
            server.shutdown()
            thread.join()


def test_another_port_of_the_host_gets_nothing_that_opens(
    browser: Browser, gateway: EmbeddedGateway
) -> None:
    """It gets the cookie, and tries everything with it: itself, and by a script in its page."""
    run = begin(gateway, remoteInput=True)
    gateway.send_artifact(run, "a.txt", b"kept from strangers")
    (artifact,) = gateway.api("GET", f"/api/runs/{run.id}/artifacts").json()["artifacts"]
    base = f"/api/runs/{run.id}"
    reading = ["/api/runs", base, f"{base}/events", f"{base}/history", f"{base}/artifacts"]
    reading += ["/api/stream", f"{base}/stream", f"{base}/commands", "/api/openapi.json"]
    reading += [f"/api/artifacts/{artifact['id']}", f"/api/artifacts/{artifact['id']}?view=1"]
    changing = ["/api/runs", "/api/login-codes", f"{base}/stop", f"{base}/halt", f"{base}/input"]
    changing += [f"{base}/escape", f"{base}/command", f"/api/artifacts/{artifact['id']}/link"]
    with dev_server() as (address, cookies), browser.new_context() as context:
        page = context.new_page()
        page.goto(login_address(gateway))
        expect(page.locator("#connection")).to_have_text("Live")
        page.goto(address)
        expect(page.get_by_role("heading", name="the project")).to_be_visible()
        cookie = next(each for each in cookies if f"gateway-{gateway.port}=" in each)

        headers = {"Cookie": cookie, "Content-Type": "application/json", "Origin": gateway.url}
        for path in reading:
            assert gateway.request("GET", path, headers=headers).status == 401, path
        for path in changing:
            body = b'{"command":"git status","text":"x"}'
            assert gateway.request("POST", path, body, headers).status == 401, path
        assert from_its_page(page, gateway, [*reading, "/", f"/runs/{run.id}"]) == []
        assert page.evaluate("Object.keys(localStorage)") == []

        page.goto(f"{gateway.url}/runs/{run.id}")
        expect(page.locator("#connection")).to_have_text("Live")
    assert gateway.api("GET", f"{base}/history").json()["commands"] == []


def from_its_page(page: Page, gateway: EmbeddedGateway, paths: list[str]) -> list[str]:
    """Fetch addresses of the gateway in another page's script; return what it could read."""
    read: list[str] = page.evaluate(
        """async ([base, paths]) => {
            const read = [];
            for (const path of paths) for (const mode of ["cors", "no-cors"]) {
                try {
                    const answer = await fetch(base + path, { mode, credentials: "include" });
                    if (await answer.text()) read.push(path);
                } catch {}
            }
            return read;
        }""",
        [gateway.url, paths],
    )
    return read
