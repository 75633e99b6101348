"""A person in front of the page: a browser of their own, and what they saw go wrong in it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect

from testing.gateways.embedded_gateway import EmbeddedGateway
from tests.browser.npm_packages import AXE, install

WAIT_MS: Final = 30_000
DESK: Final = (1280, 800)
PHONE: Final = (360, 800)
_FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# Runs before any script of the page. What a run's text could start would call `pwned`.
_WATCH: Final = """
window.violations = [];
window.pwned = (what) => window.violations.push(`executed: ${what}`);
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.effectiveDirective} ${event.blockedURI} ${event.sample}`));
"""

_SCHEMES: Final[dict[Literal["light", "dark"], dict[str, Any]]] = {
    "light": {"resultTypes": ["violations"]},
    "dark": {"resultTypes": ["violations"], "runOnly": ["color-contrast"]},
}

expect.set_options(timeout=WAIT_MS)

# What a browser keeps of a login. Most tests are not about that, and its pages cost them a second.
_kept: WeakKeyDictionary[EmbeddedGateway, Any] = WeakKeyDictionary()


@contextmanager
def launched(playwright: Playwright) -> Iterator[Browser]:
    """Start Debian's chromium; a browser is never downloaded.

    Its headless shell has the same engine and no windows: a page takes a quarter of the processor
    time.
    """
    program = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    assert program is not None, "chromium is missing: apt install chromium-headless-shell"
    browser = playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
    try:
        yield browser
    finally:
        browser.close()


class Visitor:
    """One window with cookies of its own. Leaving the block fails if anything went wrong in it.

    `allowed` are texts that a console message may contain without being a failure. Who is
    `logged_in` has been there before, and begins with an empty page.
    """

    def __init__(
        self,
        browser: Browser,
        gateway: EmbeddedGateway,
        *,
        size: tuple[int, int] = DESK,
        scheme: Literal["light", "dark"] = "light",
        allowed: tuple[str, ...] = (),
        logged_in: bool = False,
        **options: Any,
    ) -> None:
        if logged_in and gateway not in _kept:
            with Visitor(browser, gateway) as before:
                before.log_in()
                _kept[gateway] = before.context.storage_state()
        self._gateway = gateway
        self._allowed = allowed
        self.complaints: list[str] = []
        self.context: BrowserContext = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            locale="en-GB",
            timezone_id="UTC",
            reduced_motion="reduce",  # a badge that breathes takes a tenth of a core
            storage_state=_kept[gateway] if logged_in else None,
            **options,
        )
        self.context.add_init_script(_WATCH)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self._note("error", str(error)))
        self.page.on("request", lambda request: self._note_request(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(part in text for part in self._allowed):
            self.complaints.append(f"{kind}: {text}")

    def _note_request(self, url: str) -> None:
        if not url.startswith((self._gateway.url, "data:", "blob:")):
            self.complaints.append(f"a request to another host: {url}")

    def log_in(self) -> Page:
        """Log in with the admin token, as a person does; return the list's page."""
        self.page.goto(f"{self._gateway.url}/login")
        self.page.get_by_label("Admin token").fill(self._gateway.admin_token)
        self.page.get_by_role("button", name="Log in").click()
        expect(self.page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
        return self.page

    def open_list(self) -> Page:
        """Show the list of runs."""
        self.page.goto(self._gateway.url)
        expect(self.page.locator("#connection")).to_have_text("Live")
        return self.page

    def open_run(self, run_id: str) -> Page:
        """Show a run, and wait until it is live."""
        self.page.goto(f"{self._gateway.url}/runs/{run_id}")
        expect(self.page.locator("#connection")).to_have_text("Live")
        expect(self.page.locator(".pane:not([aria-busy])")).to_be_attached()
        return self.page

    def output(self) -> str:
        """Return what the text view shows, a line for a line."""
        lines = self.page.locator(".text-line").all_text_contents()
        return "\n".join(line.replace("\u200b", "") for line in lines)

    def check_layout(self, tapped: str) -> None:
        """Fail if the page scrolls sideways, something to tap is too small, or axe finds a fault.

        `tapped` selects what is to tap. The dark page differs from the light one in its colours.
        """
        page = self.page
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.url
        assert not page.evaluate(
            """tapped => [...document.querySelectorAll(tapped)]
              .filter((each) => each.checkVisibility() && each.getBoundingClientRect().height < 44)
              .map((each) => each.outerHTML)""",
            tapped,
        )
        if not page.evaluate("typeof window.axe === 'object'"):
            # Not as a script element: the page's policy would refuse it.
            page.evaluate((install(AXE) / "axe.min.js").read_text("utf-8"))
        for scheme, rules in _SCHEMES.items():
            page.emulate_media(color_scheme=scheme)
            result = page.evaluate("options => axe.run(document, options)", rules)
            found = [
                f"{fault['id']}: {node['html'][:150]} {node['failureSummary']}"
                for fault in result["violations"]
                for node in fault["nodes"]
            ]
            assert not found, f"{page.url}, {scheme}: {found}"

    def check(self) -> None:
        """Fail if the console complained, the policy was violated, or a run's text was executed."""
        violations = self.page.evaluate("window.violations ?? []")
        assert not self.complaints + violations, self.complaints + violations

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        try:
            if kind is None:
                self.check()
            else:
                print(f"the browser complained: {self.complaints}", file=sys.stderr)
        finally:
            self.context.close()
