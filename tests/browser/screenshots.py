"""Write the pictures of the page into docs/screenshots/: ``python -m tests.browser.screenshots``.

What they show is real: the real Claude Code, run by this repository's runner in a small project
whose tests really fail and then pass. Only its model is not: `testing.programs.model_api` says
what is written in SCRIPTS. Pictures stay small, because the documents load all of them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page, expect, sync_playwright

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.programs import claude_code
from testing.programs.model_api import ModelApi
from testing.programs.runner import ROOT
from testing.programs.runner_files import copy_runner
from testing.programs.screen import Screen
from testing.programs.terminal import Terminal
from testing.waiting import eventually
from tests.browser.npm_packages import xterm_environment
from tests.browser.runs import environment, pasted, start_line, wait_for_status
from tests.browser.visitor import Visitor, launched

FOLDER: Final = ROOT / "docs" / "screenshots"
MAX_BYTES: Final = 150_000
PHONE: Final = (390, 844)
DESK: Final = (1280, 860)
PATIENCE_S: Final = 120.0

CART: Final = '''from decimal import Decimal

CENT = Decimal("0.01")


class Cart:
    """What a customer has chosen: pairs of a price and how many."""

    def __init__(self, lines):
        self.lines = lines

    def total(self):
        return sum(
            (price * count).quantize(CENT) for price, count in self.lines
        )
'''
TEST: Final = """import unittest
from decimal import Decimal

from cart import Cart


class CartTest(unittest.TestCase):
    def test_an_empty_cart_costs_nothing(self):
        self.assertEqual(Cart([]).total(), 0)

    def test_the_total_is_rounded_once(self):
        self.assertEqual(Cart([(Decimal("3.335"), 1)] * 3).total(), Decimal("10.00"))
"""
ROUNDED_TWICE: Final = """        return sum(
            (price * count).quantize(CENT) for price, count in self.lines
        )
"""
ROUNDED_ONCE: Final = """        exact = sum(price * count for price, count in self.lines)
        return Decimal(exact).quantize(CENT)
"""
RUN_TESTS: Final = "python3 -m unittest -q"

FIX: Final = "Fix the failing test in the cart"
FIX_ASKING: Final = "Fix the failing test in the cart, and ask before you change anything"
NOTES: Final = "Write the release notes for 2.4"
EXPLAIN: Final = "Why does the cart round each line?"
SESSION: Final = "Round the total of the cart once"


def edit(shop: Path) -> str:
    """Return the step that mends the cart."""
    change = {
        "file_path": str(shop / "cart.py"),
        "old_string": ROUNDED_TWICE,
        "new_string": ROUNDED_ONCE,
    }
    return f"model: use Edit {json.dumps(change)}"


def scripts(shop: Path) -> dict[str, str]:
    """Return what the model answers to each prompt."""
    cart = json.dumps({"file_path": str(shop / "cart.py")})
    look = (
        "model: reason The test names one rounding. I should see what fails before I read the code."
        "\nmodel: say I'll run the failing test first, then look at the code that it covers.\n"
        f"model: run {RUN_TESTS}\n"
        f"model: use Read {cart}\n"
        "model: say The cart rounds **each line**, and then adds up what was rounded. "
        "The test wants the exact sum, rounded **once**:\\n\\n"
        "| lines | exact | rounded each | rounded once |\\n|---|---|---|---|\\n"
        "| 3 of 3.335 | 10.005 | 10.02 | 10.00 |\\n\\n"
        "So `total` has to keep the exact prices until the end.\n"
    )
    done = (
        "model: say The total is rounded once now, and all tests pass.\\n\\n"
        "- `Cart.total` adds up the exact prices\\n- `quantize` is called for the sum alone"
    )
    return {
        FIX: f"{look}{edit(shop)}\nmodel: run {RUN_TESTS}\n{done}",
        FIX_ASKING: f"{look}{edit(shop)}\nmodel: run {RUN_TESTS}\n{done}",
        EXPLAIN: f"model: use Read {cart}\nmodel: say It always did: see `git log -p cart.py`.",
        NOTES: "model: slow 600",
        SESSION: f"model: say I'll round the sum, and nothing before it.\n{edit(shop)}",
    }


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    # Its name is in the pictures, so it is a plain one.
    shop = Path(tempfile.gettempdir()) / "shop"
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        gateway = EmbeddedGateway(folder, env=xterm_environment())
        with ModelApi(scripts(shop)) as api, gateway, launched(playwright) as browser:
            try:
                _make_shop(shop, gateway)
                home = claude_code.make_home(folder / "claude")
                _trust(home, shop)
                claude = {**environment([str(claude_code.install())]), **home.environment(api)}
                _photograph(browser, gateway, shop, claude)
            finally:
                shutil.rmtree(shop)


def _make_shop(shop: Path, gateway: EmbeddedGateway) -> None:
    shop.mkdir()
    copy_runner(shop)
    (shop / ".env").write_text(f"GATEWAY_URL={gateway.url}\nHMAC_SECRET={gateway.secret}\n")
    (shop / ".gitignore").write_text("*\n!cart.py\n!test_cart.py\n!.gitignore\n")
    (shop / "cart.py").write_text(CART)
    (shop / "test_cart.py").write_text(TEST)
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for arguments in (
        ["init", "-q", "-b", "main"],
        ["add", "."],
        [*identity, "commit", "-qm", "cart: begin"],
    ):
        subprocess.run(["git", *arguments], cwd=shop, check=True)


def _trust(home: claude_code.ClaudeHome, shop: Path) -> None:
    """Accept the dialog that Claude Code shows in a folder that it does not know."""
    file = home.home / ".claude.json"
    settings = json.loads(file.read_text())
    settings["projects"][str(shop)] = {"hasTrustDialogAccepted": True, "allowedTools": []}
    file.write_text(json.dumps(settings))


def _photograph(
    browser: Browser, gateway: EmbeddedGateway, shop: Path, claude: Mapping[str, str]
) -> None:
    allowed = "-- --allowedTools=Bash,Edit,Read"
    _, line = start_line(gateway, EXPLAIN)
    with pasted(f"{line} {allowed}", shop, claude) as runner:
        runner.wait(PATIENCE_S)
    fixed, line = start_line(gateway, FIX)
    with pasted(f"{line} {allowed}", shop, claude) as runner:
        runner.wait(PATIENCE_S)
    subprocess.run(["git", "checkout", "-q", "cart.py"], cwd=shop, check=True)
    asking, asking_line = start_line(gateway, FIX_ASKING)
    notes, notes_line = start_line(gateway, NOTES)
    session, session_line = start_line(gateway, SESSION)
    start_line(gateway, "Add a dry run to the import")
    remote = {**claude, "CLAUDE_RUNNER_ALLOW_REMOTE_INPUT": "true"}
    session_env = {**remote, "TERM": "xterm-256color"}
    as_session = "--mode interactive -- --permission-mode=manual"
    session_argv = ["sh", "-c", f"{session_line} {as_session}"]
    with (
        Terminal(session_argv, env=session_env, cwd=shop, columns=90, lines=30) as terminal,
        pasted(f"{notes_line} {allowed}", shop, claude),
        pasted(f"{asking_line} --ask remote -- --allowedTools=Bash,Read", shop, remote),
    ):
        for run_id in (session, notes, asking):
            wait_for_status(gateway, run_id, "running", within_s=PATIENCE_S)
        Screen(terminal, 90, 30).wait_for("Do you want to make this edit")
        eventually(lambda: _require_question(gateway, asking), PATIENCE_S)
        with Visitor(browser, gateway, size=DESK) as person:
            page = person.log_in()
            expect(page.locator(".run")).to_have_count(6)
            _take(page, "list")
            person.open_run(fixed)
            _settle(page)
            _take(page, "run")
        with Visitor(browser, gateway, size=DESK, scheme="dark") as person:
            page = person.log_in()
            person.open_run(fixed)
            _settle(page)
            _take(page, "run-dark")
            person.open_run(session)
            expect(page.locator(".xterm-rows")).to_contain_text("Do you want to make this edit")
            _take(page, "session-dark")
        with Visitor(browser, gateway, size=DESK) as person:
            page = person.log_in()
            page.goto(f"{gateway.url}/runs/{fixed}?tab=changes&file=cart.py")
            page.get_by_text("Decimal(exact)").locator("visible=true").first.wait_for()
            _take(page, "changes")
        with Visitor(browser, gateway, size=PHONE) as person:
            page = person.log_in()
            person.open_run(asking)
            expect(page.get_by_role("button", name="Allow once")).to_be_visible()
            expect(page.locator(".settling")).to_have_count(0)
            _take(page, "phone-question")
        with Visitor(browser, gateway, size=PHONE, scheme="dark") as person:
            page = person.log_in()
            expect(page.locator(".run")).to_have_count(6)
            _take(page, "phone-list-dark")
            person.open_run(fixed)
            _settle(page)
            _take(page, "phone-run-dark")
        for run_id in (session, notes, asking):
            gateway.api("POST", f"/api/runs/{run_id}/halt", {})
            wait_for_status(gateway, run_id, "failed", "done", within_s=PATIENCE_S)


def _require_question(gateway: EmbeddedGateway, run_id: str) -> None:
    assert gateway.api("GET", f"/api/runs/{run_id}").json()["open_questions"]


def _settle(page: Page) -> None:
    """Wait until a run that is over is drawn whole."""
    page.get_by_role("button", name="View claude.log").wait_for()
    expect(page.locator("[aria-busy=true]")).to_have_count(0)


def _take(page: Page, name: str) -> None:
    path = FOLDER / f"{name}.png"
    page.evaluate("document.fonts.ready")
    page.screenshot(path=path, animations="disabled")
    size = path.stat().st_size
    assert size < MAX_BYTES, f"{path.name} has {size} bytes"
    print(f"{path.relative_to(ROOT)}: {size} bytes")


if __name__ == "__main__":
    main()
