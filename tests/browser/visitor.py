"""A person in front of the page: a browser of their own, and what they saw go wrong in it."""

from __future__ import annotations

import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Playwright,
    expect,
)

from testing.gateways.embedded_gateway import EmbeddedGateway
from tests.browser.npm_packages import AXE, install

WAIT_MS: Final = 30_000
DESK: Final = (1280, 800)
PHONE: Final = (360, 800)
_FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # Whatever asks another host fails, and the console complains.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1",
)
# Runs before any script of the page. What a run's text could start would call `pwned`.
_WATCH: Final = """
window.violations = [];
window.pwned = (what) => window.violations.push(`executed: ${what}`);
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.effectiveDirective} ${event.blockedURI} ${event.sample}`));
"""
# Told by the page itself: an event of the driver for each request takes a tenth of a second a page.
_SEEN: Final = """
[window.violations ?? [], [location.href, ...performance.getEntries()
  .filter((each) => each.entryType === "resource").map((each) => each.name)]]
"""

Scheme = Literal["light", "dark"]
_ALL: Final[dict[str, Any]] = {"resultTypes": ["violations"]}
_SCHEMES: Final[dict[Scheme, dict[str, Any]]] = {
    "light": _ALL,
    "dark": {**_ALL, "runOnly": ["color-contrast"]},
}

expect.set_options(timeout=WAIT_MS)

# What a browser keeps of a login. Most tests are not about that, and its pages cost them a second.
_kept: WeakKeyDictionary[EmbeddedGateway, Any] = WeakKeyDictionary()
# Windows that somebody has left at a gateway that many visit, by what they were opened with: a new
# one takes half a second.
_Windows = defaultdict[tuple[Browser, str], list[BrowserContext]]
_left: WeakKeyDictionary[EmbeddedGateway, _Windows] = WeakKeyDictionary()
# Removes a visitor's own settings from the browser's store, and keeps the login.
_FORGET: Final = """
kept => {
  sessionStorage.clear();
  localStorage.clear();
  for (const { name, value } of kept) localStorage.setItem(name, value);
}
"""


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


def share(gateway: EmbeddedGateway) -> None:
    """Let visitors of this gateway leave their windows to others."""
    _left[gateway] = defaultdict(list)


def _logged_in(gateway: EmbeddedGateway) -> Any:
    """Return what a browser keeps of a login at this gateway."""
    if gateway not in _kept:
        session = gateway.log_in()
        name, _, value = session["Cookie"].partition("=")
        address = urlsplit(gateway.url)
        stored = [{"name": f"page-key{address.path}", "value": session["X-Page-Key"]}]
        cookie: dict[str, Any] = {
            "name": name,
            "value": value,
            "domain": address.hostname,
            "path": "/",
        }
        cookie |= {"httpOnly": True, "sameSite": "Strict", "secure": False, "expires": -1}
        origin = f"{address.scheme}://{address.netloc}"
        kept = {"cookies": [cookie], "origins": [{"origin": origin, "localStorage": stored}]}
        _kept[gateway] = kept
    return _kept[gateway]


class Visitor:
    """One window with cookies of its own. Leaving the block fails if anything went wrong in it.

    `allowed` are texts that a console message may contain without being a failure. Who is
    `logged_in` has been there before, and begins with an empty page, in a window that somebody else
    may have left; unless `alone`, who does to it what cannot be undone.
    """

    def __init__(
        self,
        browser: Browser,
        gateway: EmbeddedGateway,
        *,
        size: tuple[int, int] = DESK,
        scheme: Scheme = "light",
        allowed: tuple[str, ...] = (),
        logged_in: bool = False,
        alone: bool = False,
        **options: Any,
    ) -> None:
        self._gateway = gateway
        self._allowed = allowed
        self.complaints: list[str] = []
        self._left: list[BrowserContext] | None = None
        # Permissions are taken back in the end.
        if logged_in and not alone and gateway in _left and "permissions" not in options:
            self._left = _left[gateway][browser, repr(sorted(options.items()))]
        if self._left:
            self.context = self._left.pop()
            (self.page,) = self.context.pages
            self.page.set_viewport_size({"width": size[0], "height": size[1]})
        else:
            self.context = browser.new_context(
                viewport={"width": size[0], "height": size[1]},
                locale="en-GB",
                timezone_id="UTC",
                storage_state=_logged_in(gateway) if logged_in else None,
                **options,
            )
            self.context.add_init_script(_WATCH)
            self.page = self.context.new_page()
            self.page.set_default_timeout(WAIT_MS)
        # A badge that breathes takes a tenth of a core.
        self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        self.page.on("console", self._note_console)
        self.page.on("pageerror", self._note_error)

    def _note_console(self, message: ConsoleMessage) -> None:
        is_allowed = any(part in message.text for part in self._allowed)
        if message.type in ("error", "warning") and not is_allowed:
            self.complaints.append(f"{message.type}: {message.text}")

    def _note_error(self, error: Error) -> None:
        if not any(part in str(error) for part in self._allowed):
            self.complaints.append(f"error: {error}")

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

    def check_layout(self, tapped: str, only: Scheme | None = None) -> None:
        """Fail if the page scrolls sideways, something to tap is too small, or axe finds a fault.

        `tapped` selects what is to tap. The dark page differs from the light one in its colours.
        What looks at a page in several sizes has one size light and another dark: `only`.
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
        for scheme, rules in {only: _ALL}.items() if only else _SCHEMES.items():
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
        violations, loaded = self.page.evaluate(_SEEN)
        own = (self._gateway.url, "data:", "blob:", "about:")
        others = [f"from another host: {url}" for url in loaded if not url.startswith(own)]
        found = self.complaints + violations + others
        assert not found, found

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        is_left = False
        try:
            if kind is None:
                self.check()
                if self._left is not None and self._is_tidied():
                    self._left.append(self.context)
                    is_left = True
            else:
                print(f"the browser complained: {self.complaints}", file=sys.stderr)
        finally:
            if not is_left:
                self.context.close()

    def _is_tidied(self) -> bool:
        """Make the window one for somebody else; return whether it can be."""
        if len(self.context.pages) != 1 or not self.page.url.startswith(self._gateway.url):
            return False
        kept = _kept[self._gateway]
        self.page.remove_listener("console", self._note_console)
        self.page.remove_listener("pageerror", self._note_error)
        try:
            self.page.unroute_all()
            self.context.unroute_all()
            self.context.set_offline(False)
            self.context.clear_permissions()
            self.context.clear_cookies()
            self.context.add_cookies(kept["cookies"])
            self.page.evaluate(_FORGET, kept["origins"][0]["localStorage"])
            self.page.goto(f"{self._gateway.url}/api/health")
        except Error:
            return False
        return True
