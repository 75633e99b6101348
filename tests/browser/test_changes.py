"""What a run has changed, in its page: the list of files, their diffs, and what comes live."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from testing.gateways.embedded_gateway import EmbeddedGateway, finished
from testing.gateways.gateway_records import Run
from tests.browser.runs import begin
from tests.browser.visitor import DESK, Scheme, Visitor

PHONE = (390, 844)
LANDSCAPE = (844, 390)
CHANGED = """diff --git a/src/cart.py b/src/cart.py
index 1111111..2222222 100644
--- a/src/cart.py
+++ b/src/cart.py
@@ -1,3 +1,4 @@ def total(items):
 def total(items):
--- a comment in the middle
+    # <b>bold</b> \u2028 line
+    items = list(items)
     return sum(items)
"""
OTHERS = """diff --git a/old name b/new name
similarity index 100%
rename from old name
rename to new name
diff --git a/gone b/gone
deleted file mode 100644
index 1111111..0000000
--- a/gone
+++ /dev/null
@@ -1 +0,0 @@
-gone
diff --git "a/l\\303\\251g\\"nd" "b/l\\303\\251g\\"nd"
new file mode 100644
--- /dev/null
+++ "b/l\\303\\251g\\"nd"
@@ -0,0 +1 @@
+new
diff --git a/image.png b/image.png
new file mode 100644
Binary files /dev/null and b/image.png differ
"""


def new_file(name: str, lines: int) -> str:
    """Return the diff of a new file with so many lines."""
    head = f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n"
    return f"{head}@@ -0,0 +1,{lines} @@\n" + "".join(f"+line {n}\n" for n in range(1, lines + 1))


def send(gateway: EmbeddedGateway, run: Run, diff: str, name: str = "changes.diff") -> None:
    """Send a diff as the runner does."""
    assert gateway.send_artifact(run, name, diff.encode()).status == 200


def rows(page: Page) -> list[str]:
    """Return what the list of files says."""
    texts = page.locator(".changed-row").all_inner_texts()
    return [" ".join(each.split()).replace("\u2212", "-") for each in texts]


@pytest.mark.parametrize("size", [PHONE, LANDSCAPE, DESK], ids=["phone", "landscape", "desk"])
def test_the_changes_of_a_run(
    browser: Browser, gateway: EmbeddedGateway, size: tuple[int, int]
) -> None:
    """The list first, each file under an address of its own; another diff keeps what is open."""
    run = begin(gateway, "make the cart faster")
    gateway.send_event(run, "stdout", "working\n", 1)
    with Visitor(browser, gateway, size=size, logged_in=True) as person:
        page = person.open_run(run.id)
        tabs = page.get_by_role("navigation", name="Views of this run")
        expect(tabs).to_be_hidden()
        send(gateway, run, CHANGED + OTHERS + new_file("big.txt", 1_500))
        changes = tabs.get_by_role("link", name="Changes 6")
        changes.click()
        expect(page.get_by_text("working")).to_be_hidden()
        expect(page.get_by_role("heading", name="Changes")).to_be_visible()
        assert page.url.endswith(f"/runs/{run.id}?tab=changes")
        assert rows(page) == [
            "• changed: src/cart.py +2 -1",
            "→ renamed: old name → new name",
            "- deleted: gone +0 -1",
            '+ new: lég"nd +1 -0',
            "+ new: image.png binary",
            "+ new: big.txt +1,500 -0",
        ]
        cart = page.locator("details", has_text="src/cart.py")
        expect(cart.locator(".removed >> text=-- a comment")).to_be_visible()
        expect(cart.locator(".added >> text=<b>bold</b>")).to_be_visible()
        big = page.locator("details", has_text="big.txt")
        expect(big.locator(".diff-line")).to_have_count(0)
        only: Scheme = "light" if size == DESK else "dark"
        person.check_layout("button, .button, .tabs a, .changed-row, summary", only)

        page.get_by_role("link", name="new: big.txt").press("Enter")
        expect(big.locator("summary")).to_be_focused()
        expect(big).to_be_in_viewport()
        assert page.url.endswith("?tab=changes&file=big.txt")
        if size == DESK:  # the page stands still, and its parts scroll
            assert page.evaluate("document.scrollingElement.scrollTop") < 9
        more = big.get_by_role("button", name="Show 501 more lines")
        more.click()
        expect(big.get_by_text("+line 1500", exact=True)).to_be_attached()

        send(gateway, run, CHANGED.replace("list(items)", "sorted(items)") + new_file("big.txt", 9))
        expect(tabs.get_by_role("link", name="Changes 2")).to_be_visible()
        expect(cart.get_by_text("sorted(items)")).to_be_visible()
        expect(big.get_by_text("+line 9", exact=True)).to_be_visible()
        page.go_back()
        page.go_back()
        expect(page.get_by_text("working")).to_be_visible()
        expect(page.get_by_role("heading", name="Changes")).to_be_hidden()
        gateway.send_event(run, "stdout", "and more\n", 2)
        expect(page.get_by_text("and more")).to_be_visible()

        page.goto(f"{gateway.url}/runs/{run.id}?tab=changes&file=big.txt")
        expect(big).to_have_attribute("open", "")
        expect(big.locator("summary")).to_be_focused()
        listed = gateway.api("GET", f"/api/runs/{run.id}/artifacts").json()["artifacts"]
        assert [each["name"] for each in listed] == ["changes.diff"]
        expect(page.get_by_role("button", name="View changes.diff")).to_have_count(0)


def test_commands_that_fit_the_project(desk: Visitor, gateway: EmbeddedGateway) -> None:
    """The others are behind More, and work; of an older runner all are shown."""
    offered = ["npm test", "pnpm test", "pytest", "go test ./...", "git status", "ls -la", "./own"]
    run = begin(gateway, "a run", commands=offered, project=["git", "python", 7, {}])
    page = desk.open_run(run.id)
    shown = page.locator(".commands > button")
    fitting = ["pytest", "git status", "ls -la", "./own"]
    expect(shown.filter(visible=True)).to_have_text(fitting)
    page.get_by_text("More (3)").click()
    page.get_by_role("button", name="pnpm test").click()
    expect(page.locator(".history-entry").get_by_text("pnpm test")).to_be_visible()

    desk.open_run(begin(gateway, "an older one", commands=offered, project="all").id)
    expect(shown).to_have_text(offered)
    assert page.get_by_text("More (").count() == 0


def test_of_a_diff_of_5_mb_little_is_in_the_page(desk: Visitor, gateway: EmbeddedGateway) -> None:
    """It came in parts, of many files: all are listed, and only opened ones have their lines."""
    run = begin(gateway, "rewrite everything")
    files = [new_file(f"folder/{number}.txt", 1_000) for number in range(450)]
    half = "".join(files[:200])
    send(gateway, run, half)
    send(gateway, run, "".join(files[200:]), "changes.2.diff")
    gateway.send_marker(run, finished([]))
    desk.open_run(run.id)
    page = desk.page
    tabs = page.get_by_role("navigation", name="Views of this run")
    tabs.get_by_role("link", name="Changes").click()
    expect(tabs.get_by_role("link", name="Changes 450")).to_be_visible()
    expect(page.locator(".changed-row")).to_have_count(300)
    expect(page.locator(".diff-line")).to_have_count(0)
    page.get_by_role("button", name="Show 150 more files").click()
    page.get_by_role("link", name="new: folder/449.txt").click()
    expect(page.get_by_text("+line 999", exact=True)).to_be_attached()

    none = begin(gateway, "nothing")
    gateway.send_marker(none, finished([]))
    page.goto(f"{gateway.url}/runs/{none.id}?tab=changes")
    expect(page.get_by_text("This run has sent no changes")).to_be_visible()
