"""Write the pictures of the page into docs/screenshots/: ``python -m tests.browser.screenshots``.

The runs are real ones: this repository's runner, with a small program in the place of Claude Code
that prints what a session looks like. Pictures stay small, because the README loads all of them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page, expect, sync_playwright

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.programs.claude_standin import StandIn, bash, edit, say, tool
from testing.programs.runner import ROOT
from testing.programs.terminal import Terminal
from tests.browser.npm_packages import xterm_environment
from tests.browser.runs import environment, make_project, pasted, start_line, wait_for_status
from tests.browser.visitor import PHONE, Visitor, launched

FOLDER: Final = ROOT / "docs" / "screenshots"
MAX_BYTES: Final = 150_000

WORK: Final = r"""
import os, sys, time
if "staging" in sys.argv[-1]:
    sys.exit(3)
def say(text):
    os.write(1, (text + "\n").encode())
say("I'll look at the failing test first, then at the code that it covers.\n")
say("\x1b[1m● Bash\x1b[0m pytest tests/test_cart.py -x -q")
say("  \x1b[31mFAILED\x1b[0m test_total_rounds_once - Decimal('20.01') != Decimal('20.00')")
say("\x1b[1m● Read\x1b[0m cart.py")
say("  \x1b[90m84 lines\x1b[0m\n")
say("The total is rounded for each line, and then again for the sum. Rounding once, at the end, "
    "gives what the invoice module expects.\n")
say("\x1b[1m● Edit\x1b[0m cart.py")
say("  \x1b[31m- return sum(quantize(line.exact) for line in self.lines)\x1b[0m")
say("  \x1b[32m+ return quantize(sum(line.exact for line in self.lines))\x1b[0m\n")
say("\x1b[1m● Bash\x1b[0m API_TOKEN=" + "s" + "k-" + "x8Qz" * 10 + " pytest tests -q")
os.write(2, b"warning: 1 deprecated setting in pyproject.toml\n")
time.sleep(0.5)
say("  \x1b[32m41 passed\x1b[0m in 3.18s\n")
say("Done: the cart rounds once now, and all tests pass.")
if "watch" in sys.argv[-1]:
    time.sleep(600)
"""
# What a run that asks has done so far, and the edit that it asks about.
SO_FAR: Final = (
    say("I'll look at the failing test first, then at the code that it covers, and run the tests."),
    bash("pytest -x -q", is_free=True, result="FAILED test_total_rounds_once\n20.01 != 20.00"),
    tool("Read", {"file_path": "shop/cart.py"}, is_free=True, result="84 lines"),
    tool("Read", {"file_path": "shop/invoice.py"}, is_free=True, result="61 lines"),
    say(
        "The cart rounds each line, and then the sum of the lines. The invoice module rounds once, "
        "at the end, so the two differ by a cent for some carts."
    ),
    bash("git log --oneline -3 -- shop/cart.py", is_free=True, result="4be1a07 cart: add totals"),
    say("Nothing else depends on the rounded lines. I'll round once, at the end."),
)
BEFORE: Final = """def total(self):
    return sum(
        quantize(line.exact) for line in self.lines
    )
"""
AFTER: Final = """def total(self):
    return quantize(
        sum(line.exact for line in self.lines)
    )
"""
SESSION: Final = r"""
import os, time
def say(text):
    os.write(1, (text + "\r\n").encode())
say("\x1b[38;5;173m✻\x1b[0m Welcome back!\n")
say("\x1b[1m>\x1b[0m add a dry-run option to the import\n")
say("\x1b[32m●\x1b[0m I'll add \x1b[36m--dry-run\x1b[0m and pass it on to the writer.\n")
say("\x1b[32m●\x1b[0m \x1b[1mUpdate\x1b[0m(importer/cli.py)")
say("  \x1b[42;30m+ parser.add_argument('--dry-run', action='store_true')\x1b[0m\n")
say("Do you want to make this edit to \x1b[1mcli.py\x1b[0m?")
say("\x1b[34m> 1. Yes\x1b[0m\r\n  2. Yes, and don't ask again")
say("  3. No, and tell Claude what to do")
time.sleep(600)
"""


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    # Its name is in the pictures, so it is a plain one.
    shop = Path(tempfile.gettempdir()) / "shop"
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        gateway = EmbeddedGateway(folder, env=xterm_environment())
        with gateway, launched(playwright) as browser:
            try:
                project = make_project(shop, gateway)
                _photograph(browser, gateway, project)
                _photograph_question(browser, gateway, project, folder)
            finally:
                shutil.rmtree(shop)


def _photograph(browser: Browser, gateway: EmbeddedGateway, project: Path) -> None:
    work = _as_claude(project / ".data" / "work", WORK)
    session_env = _as_claude(project / ".data" / "session", SESSION)
    _, line = start_line(gateway, "why is the invoice export slow on staging?")
    with pasted(line, project, work) as runner:
        runner.wait(30)
    done, line = start_line(gateway, "fix the failing test in the cart")
    with pasted(line, project, work) as runner:
        runner.wait(30)
    start_line(gateway, "write the release notes for 2.4")
    session, line = start_line(gateway)
    live, live_line = start_line(gateway, "fix the failing test in the cart, then watch for more")
    with (
        Terminal(["sh", "-c", f"exec {line}"], env=session_env, cwd=project, columns=90, lines=28),
        pasted(live_line, project, work),
    ):
        wait_for_status(gateway, session, "running")
        wait_for_status(gateway, live, "running")
        for command in ("git status", "git diff"):
            gateway.api("POST", f"/api/runs/{live}/command", {"command": command})
        with Visitor(browser, gateway) as person:
            page = person.log_in()
            expect(page.locator(".run")).to_have_count(5)
            _take(page, "list")
            page.get_by_role("button", name="New Run").click()
            page.get_by_role("textbox", name="Prompt").fill("add a dry-run option to the import")
            page.get_by_role("button", name="Create the run").click()
            expect(page.locator("#start-line")).to_be_visible()
            _take(page, "new-run")
            person.open_run(live)
            expect(page.get_by_role("button", name="View latest.diff")).to_be_visible()
            _take(page, "run")
            person.open_run(done)
            page.get_by_role("button", name="View claude.log").wait_for()
            _take(page, "finished")
        with Visitor(browser, gateway, scheme="dark") as person:
            person.log_in()
            page = person.open_run(session)
            expect(page.locator(".xterm-rows")).to_contain_text("tell Claude")
            _take(page, "session-dark")
        with Visitor(browser, gateway, size=PHONE, scheme="dark") as person:
            person.log_in()
            page = person.open_run(live)
            expect(page.locator(".text-line", has_text="all tests pass")).to_be_visible()
            _take(page, "phone-dark")
        for run_id in (session, live):
            gateway.api("POST", f"/api/runs/{run_id}/halt", {})
            wait_for_status(gateway, run_id, "failed", "done")


def _photograph_question(
    browser: Browser, gateway: EmbeddedGateway, project: Path, folder: Path
) -> None:
    steps = [*SO_FAR, edit("shop/cart.py", BEFORE, AFTER)]
    standin = StandIn(folder, [steps])
    asking = environment(standin.command, CLAUDE_RUNNER_ALLOW_REMOTE_INPUT="true")
    run_id, line = start_line(gateway, "fix the failing test in the cart")
    with pasted(f"{line} --ask remote", project, asking):
        wait_for_status(gateway, run_id, "running")
        with Visitor(browser, gateway, size=PHONE) as person:
            person.log_in()
            page = person.open_run(run_id)
            expect(page.get_by_role("button", name="Allow once")).to_be_visible()
            expect(page.locator(".settling")).to_have_count(0)
            _take(page, "phone-question")
        gateway.api("POST", f"/api/runs/{run_id}/halt", {})
        wait_for_status(gateway, run_id, "failed", "done")


def _as_claude(folder: Path, source: str) -> dict[str, str]:
    """Return an environment in which `claude` is a program with this source."""
    folder.mkdir(parents=True)
    file = folder / "claude"
    file.write_text(f"#!{sys.executable} -IS\n{source}")
    file.chmod(0o755)
    return environment(
        ["claude"],
        PATH=f"{folder}{os.pathsep}{os.environ['PATH']}",
        CLAUDE_RUNNER_FLAVOR="plain",
        CLAUDE_RUNNER_ALLOW_REMOTE_INPUT="true",
    )


def _take(page: Page, name: str) -> None:
    path = FOLDER / f"{name}.png"
    page.evaluate("document.fonts.ready")
    page.screenshot(path=path, animations="disabled")
    size = path.stat().st_size
    assert size < MAX_BYTES, f"{path.name} has {size} bytes"
    print(f"{path.relative_to(ROOT)}: {size} bytes")


if __name__ == "__main__":
    main()
