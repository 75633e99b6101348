"""Whatever a run says is text: nothing of it runs, loads or leads anywhere."""

from __future__ import annotations

import json
from typing import Final

from playwright.sync_api import expect

from testing.gateways.embedded_gateway import EmbeddedGateway
from tests.browser.runs import begin
from tests.browser.visitor import Visitor

# Each would call `pwned` or load something if it were markup, an address or a style.
MARKUP = (
    "<img src=x onerror=\"pwned('img')\"><script>pwned('script')</script>"
    '<svg onload="pwned(\'svg\')"></svg><b style="color:red">bold</b>'
)


def attacked(name: str) -> str:
    """Return a text that says where it was put, with markup in it."""
    return f"{name} {MARKUP}"


def test_no_text_of_a_run_is_markup(desk: Visitor, gateway: EmbeddedGateway) -> None:
    """Command, output, logs, offered commands, results, files and verdict are shown as they are."""
    page = desk.page
    run = begin(
        gateway,
        attacked("prompt"),
        command=attacked("command"),
        workingDir=attacked("folder"),
        runner=attacked("runner"),
        mode="print",
        sessionId=attacked("session"),
        commands=[attacked("offered")],
    )
    gateway.send_event(
        run, "stdout", attacked("out") + "\x1b]8;;javascript:pwned(1)\x07link\x1b]8;;\x07\n", 1
    )
    gateway.send_event(run, "stderr", attacked("err") + "\n", 2)
    gateway.send_event(run, "info", attacked("info"), 3)
    gateway.send_event(run, "error", attacked("error"), 4)
    gateway.send_event(run, "assist", json.dumps({"type": "tmate", "url": attacked("ssh")}), 5)
    name = "<img src=x onerror=pwned(2)>.txt"
    gateway.send_artifact(run, name, attacked("content").encode())
    gateway.send_artifact(run, "latest.diff", f"diff --git\n@@ @@\n+{attacked('diff')}\n".encode())

    desk.open_run(run.id)
    gateway.api("POST", f"/api/runs/{run.id}/command", {"command": attacked("offered")})
    expect(page.locator(".history-entry")).to_contain_text("<script>")
    path = f"/api/runs/{run.id}/commands"
    command = gateway.send("GET", path, run=run).json()[0]
    gateway.send("POST", f"{path}/{command['id']}/ack", {"result": attacked("result")}, run)

    expect(page.locator(".result")).to_contain_text(attacked("result"))
    expect(page.locator("h1")).to_contain_text(MARKUP)
    for text in ("out", "err"):
        expect(page.locator(".text-line", has_text=f"{text} <img")).to_have_count(1)
    for text in ("info", "error", "folder"):
        expect(page.locator(".log")).to_contain_text(attacked(text))
    expect(page.locator(".facts")).to_contain_text(attacked("session"))
    expect(page.locator(".card", has_text="Help at the keyboard")).to_contain_text(MARKUP)
    page.get_by_role("button", name="View latest.diff").click()
    expect(page.locator(".diff-line.added")).to_contain_text(MARKUP)
    page.get_by_role("button", name="Close").click()
    page.locator(".artifacts li").last.get_by_role("button", name="View").click()
    expect(page.locator(".viewer .file")).to_contain_text(attacked("content"))
    page.get_by_role("button", name="Close").click()

    marker = {
        "event": "finished",
        "exitCode": 1,
        "reason": attacked("reason"),
        "result": {"isError": True, "subtype": attacked("kind"), "permissionDenials": [MARKUP, 1]},
    }
    gateway.send_marker(run, marker)
    expect(page.locator(".notice").first).to_contain_text(attacked("reason"))
    expect(page.locator(".facts")).to_contain_text("kind <img")
    assert (
        page.locator("main img, main script, main svg, main b, main a[href^=javascript]").count()
        == 0
    )
    page.goto(gateway.url)
    expect(page.locator(f"a.run[href='/runs/{run.id}'] .run-title")).to_contain_text(MARKUP)
    assert page.locator("main img, main script").count() == 0


ADDRESSES: Final[dict[str, str | None]] = {
    "ssh -p2200 AbC123@tmate.example.org": "ssh://AbC123@tmate.example.org:2200",
    "ssh -oProxyCommand=evil a@b": None,
    "ssh AbC123@10.0.0.7": "ssh://AbC123@10.0.0.7",
    "ssh a@b; rm -rf ~": None,
    "https://tmate.example.org/t/AbC123": "https://tmate.example.org/t/AbC123",
    "ssh a@-oProxyCommand=evil": None,
    "javascript:pwned('link')": None,
    "data:text/html,<script>pwned('data')</script>": None,
    "https://[broken": None,
}


def test_only_an_address_that_connects_can_be_opened(
    desk: Visitor, gateway: EmbeddedGateway
) -> None:
    """The help link is text that can be copied, and a link only if that is safe."""
    run = begin(gateway)
    desk.open_run(run.id)
    card = desk.page.locator(".card", has_text="Help at the keyboard")

    for text, address in ADDRESSES.items():
        gateway.send_event(run, "assist", json.dumps({"type": "tmate", "url": text}))
        expect(card.locator("code")).to_have_text(text)
        expect(card.get_by_role("button", name="Copy")).to_be_visible()
        if address is None:
            expect(card.get_by_role("link")).to_have_count(0)
        else:
            expect(card.get_by_role("link", name="Open")).to_have_attribute("href", address)


def test_markers_of_wrong_types_break_nothing(desk: Visitor, gateway: EmbeddedGateway) -> None:
    """A run may send any JSON as a marker; the page goes on."""
    run = begin(gateway, columns="wide", lines=-1, commands="all", remoteInput="yes", mode=7)
    for marker in ([1, 2], "text", None, 5, {"event": 5}, {"event": "resized", "columns": 10**30}):
        gateway.send_event(run, "marker", json.dumps(marker))
    gateway.send_event(run, "stdout", "still here\n", 1)
    gateway.send_marker(
        run, {"event": "finished", "exitCode": "0", "result": {"subtype": 5, "isError": True}}
    )
    gateway.send_event(run, "assist", "[]")

    desk.open_run(run.id)

    expect(desk.page.locator(".text-line").first).to_have_text("still here")
    expect(desk.page.locator(".log")).to_contain_text("Ended")
