"""What the page shows to people with a role: who they are, and nothing that would be refused."""

from __future__ import annotations

from playwright.sync_api import Browser, expect

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.member import Member
from testing.gateways.operator import asked_marker
from tests.browser.visitor import PHONE, Visitor

STARTED = {
    "event": "started",
    "runner": "claude",
    "mode": "print",
    "commands": ["pwd"],
    "workingDir": "/srv/people",
    "remoteInput": True,
    "remoteAnswers": True,
    "listens": True,
}


def sign_in(person: Visitor, member: Member) -> None:
    """Log in with a token of one's own."""
    person.page.goto(f"{member.gateway.url}/login")
    person.page.get_by_label("Admin token").fill(member.token)
    person.page.keyboard.press("Enter")
    expect(person.page.locator("#who")).to_be_visible()


def test_a_viewer_sees_and_cannot_act(browser: Browser, gateway: EmbeddedGateway) -> None:
    """On a phone: question and output are there, no button that acts is, and why is said."""
    member = Member.add(gateway, "vic@example.org", "viewer", folders=["people"])
    run = gateway.create_run("fix it")
    gateway.send_marker(run, STARTED, 1)
    gateway.send_event(run, "stdout", "hello\n", 2)
    gateway.send_marker(run, asked_marker("q1"), 3)
    with Visitor(browser, gateway, size=PHONE) as person:
        sign_in(person, member)
        expect(person.page.get_by_role("button", name="New Run")).to_be_hidden()
        person.page.goto(f"{gateway.url}/runs/{run.id}")
        expect(person.page.locator(".text-line").first).to_have_text("hello")
        expect(person.page.get_by_role("heading", name="Run this command?")).to_be_visible()
        for name in ("Allow once", "Deny", "Stop", "Halt…", "Rename", "Send", "Delete…"):
            expect(person.page.get_by_role("button", name=name, exact=True)).to_be_hidden()
        person.page.locator("#who > summary").click()
        expect(person.page.get_by_text("You see runs, and cannot act on them.")).to_be_visible()
        person.check_layout("#who > summary")


def test_an_operator_acts_and_is_named(browser: Browser, gateway: EmbeddedGateway) -> None:
    """Who answered stands where it said "by the operator"; signing out ends every session."""
    member = Member.add(gateway, "olga", "operator", own=True)
    run = member.create_run(command="fix it")
    gateway.send_marker(run, STARTED, 1)
    gateway.send_marker(run, asked_marker("q1"), 2)
    elsewhere = member.log_in()
    with Visitor(browser, gateway) as person:
        sign_in(person, member)
        person.page.goto(f"{gateway.url}/runs/{run.id}")
        person.page.get_by_role("button", name="Allow once").click()
        expect(person.page.get_by_text("Allowed").first).to_be_visible()
        (command,) = member.api("GET", f"/api/runs/{run.id}/history").json()["commands"]
        answered = {"event": "answered", "id": "q1", "decision": "allow", "by": "operator"}
        gateway.send_marker(run, answered, 3)
        ack = f"/api/runs/{run.id}/commands/{command['id']}/ack"
        gateway.send("POST", ack, {"result": "Answered: allow"}, run)
        expect(person.page.get_by_text("Allowed by olga").first).to_be_visible()
        expect(person.page.get_by_role("button", name="Delete…", exact=True)).to_be_hidden()
        person.page.locator("#who > summary").click()
        expect(person.page.get_by_text("You see your own runs alone.")).to_be_visible()
        person.page.get_by_role("button", name="Sign out everywhere").click()
        expect(person.page.get_by_text("All sessions have ended.")).to_be_visible()
    assert gateway.request("GET", "/api/me", headers=elsewhere).status == 401
