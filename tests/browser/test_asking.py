"""Answering what a run asks, on a phone: each kind, with a real runner and in every mischance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.embedded_record import free_port
from testing.gateways.gateway_records import Run
from testing.gateways.operator import DIGEST
from testing.gateways.operator import asked_marker as asked
from testing.programs.claude_standin import (
    StandIn,
    ask,
    bash,
    edit,
    present_plan,
    question,
    say,
    write,
)
from testing.programs.terminal import Terminal
from testing.waiting import eventually
from tests.browser.runs import (
    begin,
    environment,
    pasted,
    start_line,
    wait_for_status,
)
from tests.browser.test_untrusted_text import MARKUP
from tests.browser.visitor import DESK, Scheme, Visitor

PHONE = (390, 844)
TALKS = {
    "listens": True,
    "remoteAnswers": True,
    "remoteInput": True,
    "modes": ["default", "acceptEdits"],
    "sessionId": "6f1b0c7e-5d0a-4a49-9a53-0c2d8f3c9b11",
}
CHOICES: list[dict[str, Any]] = [
    {
        "question": "Which database?",
        "header": "Database",
        "multiSelect": False,
        "options": [
            {"label": "SQLite", "description": "one file"},
            {"label": "PostgreSQL", "description": ""},
        ],
    },
    {
        "question": "What else?",
        "header": "",
        "multiSelect": True,
        "options": [{"label": "Prices", "description": ""}, {"label": "Names", "description": ""}],
    },
]
# A runner compiles its modules first, in a project that has just been made.
_STARTED_WITHIN_S = 90.0
# What the browser says of requests that fail because a test wants them to.
FAILED_LOADS = ("Failed to load resource",)


@pytest.fixture
def phone(browser: Browser, gateway: EmbeddedGateway) -> Iterator[Visitor]:
    """Somebody with a phone, logged in."""
    with Visitor(browser, gateway, size=PHONE, logged_in=True) as person:
        yield person


def begin_asking(gateway: EmbeddedGateway, *markers: dict[str, Any], **fields: Any) -> Run:
    """Begin a run that talks, with what it has asked."""
    run = begin(gateway, "fix it", **{**TALKS, **fields})
    for marker in markers:
        assert gateway.send_marker(run, marker).status == 200
    return run


def sent(gateway: EmbeddedGateway, run: Run) -> list[str]:
    """Return the commands that wait for the runner."""
    listed = gateway.send("GET", f"/api/runs/{run.id}/commands", run=run).json()
    return [each["command"] for each in listed]


def wait_for_sent(gateway: EmbeddedGateway, run: Run, count: int = 1) -> list[str]:
    """Wait until so many commands wait for the runner, and return them."""

    def look() -> list[str]:
        commands = sent(gateway, run)
        assert len(commands) >= count, commands
        return commands

    return eventually(look, 30)


def sent_answer(gateway: EmbeddedGateway, run: Run) -> Any:
    """Wait for the one answer that was sent, and return what it says."""
    (command,) = wait_for_sent(gateway, run)
    assert command.startswith("__ANSWER__:")
    return json.loads(command[len("__ANSWER__:") :])


def acknowledge(gateway: EmbeddedGateway, run: Run, **content: str) -> None:
    """Acknowledge the oldest command that waits."""
    path = f"/api/runs/{run.id}/commands"
    command = gateway.send("GET", path, run=run).json()[0]
    assert gateway.send("POST", f"{path}/{command['id']}/ack", content, run).status == 200


def card(page: Page, title: str) -> Locator:
    """Return the card with this title."""
    return page.locator("article.ask", has=page.get_by_role("heading", name=title))


# --- with a real runner ---------------------------------------------------------------------------


def talking(standin: StandIn, **more: str) -> dict[str, str]:
    """Return an environment in which the stand-in asks, and the operator may answer and talk."""
    return environment(
        standin.command,
        CLAUDE_RUNNER_ALLOW_REMOTE_ANSWERS="true",
        CLAUDE_RUNNER_ALLOW_REMOTE_INPUT="true",
        **more,
    )


def test_each_kind_is_answered_from_the_phone(
    phone: Visitor, gateway: EmbeddedGateway, project: Path, tmp_path: Path
) -> None:
    """Allowed, allowed for this run, denied with a reason, answered, and a plan sent back."""
    page = phone.page
    standin = StandIn(
        tmp_path,
        [
            [
                bash("make test"),
                bash("git push"),
                edit("cart.py", "total = 1\n", "total = 3\n"),
                ask(question("Which one?", "Red", "Blue"), question("What else?", "Green")),
                present_plan("# The plan\n\nDo it **once**."),
                say("All done."),
            ]
        ],
    )
    run_id, line = start_line(gateway, "go")
    with pasted(f"{line} --ask remote", project, talking(standin)) as runner:
        wait_for_status(gateway, run_id, "running", within_s=_STARTED_WITHIN_S)
        phone.open_run(run_id)

        run_this = card(page, "Run this command?")
        expect(run_this.locator(".ask-text")).to_have_text("make test")
        expect(page.locator(".badge")).to_have_text("Asks you")
        run_this.get_by_role("button", name="Allow for this run").click()
        assert standin.wait_for_decision(1)["behavior"] == "allow"
        expect(page.locator(".toast")).to_contain_text("Allowed by the operator, for this run")

        expect(run_this.locator(".ask-text")).to_have_text("git push")
        run_this.get_by_role("button", name="Deny…").click()
        run_this.get_by_label("What should it do instead?").fill("Leave that\nto me.")
        run_this.get_by_role("button", name="Deny", exact=True).click()
        denied = standin.wait_for_decision(2)
        assert (denied["behavior"], denied["message"]) == ("deny", "Leave that\nto me.")

        change = card(page, "Change this file?")
        expect(change.locator(".diff-line.added")).to_have_text("+total = 3\n")
        expect(change.locator(".diff-line.removed")).to_have_text("-total = 1\n")
        change.get_by_role("button", name="Allow once").click()
        assert standin.wait_for_decision(3)["behavior"] == "allow"

        choose = card(page, "A question for you")
        choose.get_by_role("radio", name="Blue").check()
        choose.get_by_role("group", name="What else?").get_by_label("my own words").check()
        choose.get_by_label("Your own words").nth(1).fill("Nothing at all")
        choose.get_by_role("button", name="Send").click()
        assert standin.wait_for_decision(4)["behavior"] == "allow"

        plan = card(page, "Approve this plan?")
        expect(plan.get_by_role("heading", name="The plan", exact=True)).to_be_visible()
        expect(plan.locator("strong")).to_have_text("once")
        plan.get_by_role("button", name="Keep planning…").click()
        plan.get_by_label("What is missing").fill("the tests")
        plan.get_by_role("button", name="Keep planning", exact=True).click()
        assert standin.wait_for_decision(5)["behavior"] == "deny"
        expect(page.locator(".badge")).to_have_text("Finished", timeout=30_000)
        assert runner.wait(30) == 0

    answers = [each["response"] for each in standin.answers]
    assert answers[0]["updatedInput"]["command"] == "make test"
    assert answers[0]["updatedPermissions"][0]["destination"] == "session"
    assert answers[3]["updatedInput"]["answers"] == {
        "Which one?": "Blue",
        "What else?": "Nothing at all",
    }
    assert answers[4]["message"] == "the tests"
    expect(page.locator(".answered-entry")).to_have_count(5)
    expect(page.locator("article.ask")).to_have_count(0)
    expect(page.locator(".card", has_text="Go on with")).to_be_visible()


def test_what_is_answered_at_the_keyboard_is_answered_here(
    phone: Visitor, gateway: EmbeddedGateway, project: Path, tmp_path: Path
) -> None:
    """The card says so, and takes no tap any more."""
    page = phone.page
    standin = StandIn(tmp_path, [[bash("make test"), say("Done.")]])
    run_id, line = start_line(gateway, "go")
    argv = ["sh", "-c", f"{line} --ask both"]
    with Terminal(argv, env=talking(standin), cwd=project, columns=100) as terminal:
        terminal.expect(b"y = allow once", _STARTED_WITHIN_S)
        phone.open_run(run_id)
        expect(card(page, "Run this command?")).to_be_visible()

        terminal.send(b"y\n")

        expect(page.locator(".toast")).to_contain_text("Allowed at the keyboard: Bash make test")
        expect(page.locator("article.ask")).to_have_count(0)
        assert standin.wait_for_decision()["behavior"] == "allow"
        assert terminal.wait(30) == 0


def test_a_message_waits_and_is_read(
    phone: Visitor, gateway: EmbeddedGateway, project: Path, tmp_path: Path
) -> None:
    """What is sent in mid-turn is shown as waiting until Claude Code has read it."""
    page = phone.page
    standin = StandIn(tmp_path, [[write("Thinking.", until="go")], [say("And that as well.")]])
    run_id, line = start_line(gateway, "go")
    with pasted(f"{line} --ask remote", project, talking(standin)) as runner:
        wait_for_status(gateway, run_id, "running", within_s=_STARTED_WITHIN_S)
        standin.wait_for("turn")
        phone.open_run(run_id)
        page.get_by_label("Message to Claude Code").fill("Then the changelog.")
        page.get_by_role("button", name="Send").click()

        expect(page.locator(".waiting-list li")).to_contain_text("Then the changelog.")
        expect(page.locator(".talk [role=status]")).to_contain_text("it waits for Claude Code")
        standin.open("go")
        expect(page.locator(".waiting-list li")).to_have_count(0)
        expect(page.locator(".b-person")).to_contain_text("Operator")
        expect(page.locator(".b-person")).to_contain_text("Then the changelog.")
        assert runner.wait(30) == 0


# --- mischances -----------------------------------------------------------------------------------


def test_open_cards_outlive_reload_and_restart(browser: Browser, tmp_path: Path) -> None:
    """The card is there again, also behind pages of output, and can be answered."""
    gateway = EmbeddedGateway(tmp_path / "gateway", "--port", str(free_port()))
    with gateway, Visitor(browser, gateway, size=PHONE, allowed=("Failed", "ERR_")) as person:
        page = person.log_in()
        run = begin_asking(gateway, asked(), asked("q2", kind="plan", plan="The plan", input={}))
        gateway.send_events(run, (f"line {number}\n" for number in range(1_100)))
        person.open_run(run.id)
        expect(page.locator("article.ask")).to_have_count(2)

        page.reload()
        expect(page.locator("article.ask")).to_have_count(2)
        expect(page.locator("#connection")).to_have_text("Live")
        gateway.kill()
        expect(page.locator("#connection")).not_to_have_text("Live")
        expect(page.locator("article.ask")).to_have_count(2)
        gateway.start()
        expect(page.locator("#connection")).to_have_text("Live", timeout=30_000)
        gateway.send_marker(
            run, {"event": "answered", "id": "q2", "decision": "allow", "by": "keyboard"}
        )
        expect(page.locator(".toast")).to_contain_text("Allowed at the keyboard: the plan")
        page.reload()
        card(page, "Run this command?").get_by_role("button", name="Allow once").click()

        assert sent_answer(gateway, run)["id"] == "q1"


def test_a_tap_without_a_network_is_told_and_repeated(
    browser: Browser, gateway: EmbeddedGateway
) -> None:
    """It says that nothing was sent, and the next tap sends it once."""
    allowed = ("Failed", "ERR_")
    with Visitor(browser, gateway, size=PHONE, allowed=allowed, logged_in=True) as person:
        run = begin_asking(gateway, asked())
        page = person.open_run(run.id)
        allow = page.get_by_role("button", name="Allow once")
        person.context.set_offline(True)
        allow.click()
        expect(page.locator(".ask [role=alert]")).to_contain_text("cannot be reached")
        assert sent(gateway, run) == []

        person.context.set_offline(False)
        allow.click()

        assert sent_answer(gateway, run)["decision"] == "allow"
        expect(page.locator(".ask-status")).to_contain_text("Waiting for the runner")
        expect(page.locator(".ask [role=alert]")).to_be_hidden()


def test_a_stale_tap_is_refused_and_says_why(browser: Browser, gateway: EmbeddedGateway) -> None:
    """A page that has not heard of the answer is told by the gateway."""
    with Visitor(browser, gateway, size=PHONE, allowed=FAILED_LOADS, logged_in=True) as person:
        run = begin_asking(gateway, asked())
        page = person.open_run(run.id)
        expect(page.locator("article.ask")).to_have_count(1)
        page.route("**/conversation", lambda route: route.abort())
        gateway.send_marker(
            run, {"event": "answered", "id": "q1", "decision": "deny", "by": "keyboard"}
        )

        page.get_by_role("button", name="Allow once").click()

        problem = page.locator(".ask [role=alert]")
        expect(problem).to_contain_text("Too late: it was answered already, by the keyboard.")
        assert sent(gateway, run) == []


def test_what_the_runner_refuses_is_told_on_the_card(
    phone: Visitor, gateway: EmbeddedGateway
) -> None:
    """And it can be answered anew; once it is, the page of everybody says by whom."""
    page = phone.page
    run = begin_asking(gateway, asked())
    phone.open_run(run.id)
    allow = page.get_by_role("button", name="Allow once")
    allow.click()
    expect(page.locator(".ask-status")).to_contain_text("Waiting for the runner")
    page.reload()  # another page knows it too
    expect(page.locator(".ask-status")).to_contain_text("Waiting for the runner")
    wait_for_sent(gateway, run)

    acknowledge(gateway, run, error="refused: the question has changed")

    expect(page.locator(".ask [role=alert]")).to_contain_text("The question has changed.")
    allow.click()
    assert sent_answer(gateway, run)["decision"] == "allow"


def test_others_see_who_answered(
    browser: Browser, phone: Visitor, gateway: EmbeddedGateway
) -> None:
    """Without a reload; the cards are gone."""
    run = begin_asking(gateway, asked(), asked("q2"))
    phone.open_run(run.id)
    with Visitor(browser, gateway, logged_in=True) as other:
        page = other.open_run(run.id)
        expect(page.locator("article.ask")).to_have_count(2)
        phone.page.get_by_role("button", name="Allow once").first.click()
        wait_for_sent(gateway, run)
        fields = {"decision": "allow", "by": "operator", "scope": "allow Bash(pytest:*)"}
        gateway.send_marker(run, {"event": "answered", "id": "q1", **fields})
        gateway.send_marker(run, {"event": "withdrawn", "id": "q2", "reason": "interrupted"})

        for each in (page, phone.page):
            expect(each.locator("article.ask")).to_have_count(0)
            closed = each.locator(".answered-entry").all_inner_texts()
            assert any("Withdrawn: the turn was interrupted" in text for text in closed)
            allowed = "Allowed by the operator, for this run: allow Bash(pytest:*)"
            assert any(allowed in text for text in closed)


def test_hostile_markers_are_text_and_break_nothing(
    phone: Visitor, gateway: EmbeddedGateway
) -> None:
    """Markup, wrong types, far too many and far too much: the page goes on, and so does Stop."""
    page = phone.page
    option = {"label": MARKUP, "description": MARKUP}
    choice = {"question": MARKUP, "header": MARKUP, "multiSelect": True, "options": [option]}
    everything = {
        **dict.fromkeys(("tool", "title", "reason", "agent", "diff", "plan"), MARKUP),
        "input": {MARKUP: MARKUP, "command": MARKUP},
        "questions": [choice],
        "scopes": [{"id": "s1", "label": MARKUP}],
    }
    run = begin_asking(
        gateway,
        *(asked(kind, kind=kind, **everything) for kind in ("permission", "question", "plan")),
        {"event": "queued", "id": "m1", "text": MARKUP},
    )
    values: list[Any] = [None, 7, [], {}, "x" * 100_000, [[[]]], {"a": {"b": 1}}]
    for value in values:
        names = [*asked(), "questions", "plan", "diff", "agent", "text", "by", "decision"]
        for event in ("asked", "answered", "withdrawn", "queued", "taken", "taken back"):
            fields = {name: value for name in names if name not in ("event", "kind", "digest")}
            gateway.send_marker(run, {**asked(), **fields, "event": event})
    for number in range(120):
        gateway.send_marker(run, asked(f"q{number}", input={"command": "x" * 5_000}))

    phone.open_run(run.id)

    expect(page.locator("article.ask").nth(2)).to_contain_text(MARKUP)
    expect(page.locator(".waiting-list li")).to_contain_text(MARKUP)
    assert page.locator("main img, main script, main svg, main b").count() == 0
    gateway.send_marker(
        run,
        {"event": "answered", "id": "plan", "by": MARKUP, "decision": MARKUP, "message": MARKUP},
    )
    expect(page.locator(".toast")).to_contain_text(MARKUP[:20])
    page.get_by_role("button", name="Stop", exact=True).dblclick()
    assert "__STOP__" in wait_for_sent(gateway, run)


# --- a card ---------------------------------------------------------------------------------------


def test_what_is_hidden_or_not_whole_is_told(phone: Visitor, gateway: EmbeddedGateway) -> None:
    """What is not shown whole can be denied, and nothing else; and no is no less than yes."""
    page = phone.page
    run = begin_asking(
        gateway,
        asked("q1", hidden=True, defaultsToNo=True),
        asked("q2", whole=False, input="the \u202ebeginning\U000e0041", inputChars=123_456),
    )
    phone.open_run(run.id)

    first, second = page.locator("article.ask").all()
    expect(first).to_contain_text("A secret in it is hidden here")
    expect(first.get_by_role("button", name="Allow once")).not_to_have_class("primary")
    expect(second).to_contain_text("123,456 characters")
    expect(second).to_contain_text("the ⟨U+202E⟩beginning⟨U+E0041⟩")
    expect(second.get_by_role("button")).to_have_text(["Deny…"])
    second.get_by_role("button", name="Deny…").click()
    second.get_by_role("button", name="Deny", exact=True).click()

    assert sent_answer(gateway, run) == {"id": "q2", "digest": DIGEST, "decision": "deny"}


def test_what_may_be_allowed_for_the_run_is_named(phone: Visitor, gateway: EmbeddedGateway) -> None:
    """Several rules stand behind one button, each in full; the one that is tapped is sent."""
    page = phone.page
    scopes = [{"id": f"s{number}", "label": f"allow Bash(tool-{number}:*)"} for number in (1, 2)]
    run = begin_asking(gateway, asked(scopes=scopes))
    phone.open_run(run.id)
    page.get_by_role("button", name="Allow for this run…").click()
    expect(page.get_by_role("button", name="Allow once")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Allow for this run…")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="allow Bash(tool-2:*)").click()

    assert sent_answer(gateway, run)["scope"] == "s2"


def test_nothing_is_sent_before_all_is_answered(phone: Visitor, gateway: EmbeddedGateway) -> None:
    """Each choice says what is missing, in sight and until it is made; own words are long, and take
    the place of the options.
    """
    page = phone.page
    words = "äöü😀" * 2_000
    long = [{"label": f"Number {number}", "description": "so " * 40} for number in range(8)]
    questions = [{**CHOICES[0], "options": [*CHOICES[0]["options"], *long]}, CHOICES[1]]
    run = begin_asking(gateway, asked(kind="question", questions=questions, input={}))
    phone.open_run(run.id)
    first, second = page.get_by_role("group").filter(has=page.locator("legend")).all()
    send = page.get_by_role("button", name="Send").first
    page.get_by_role("radio", name="Number 7").scroll_into_view_if_needed()
    send.click()
    expect(first.get_by_role("alert")).to_have_text("Choose one.")
    expect(first.get_by_role("alert")).to_be_in_viewport(ratio=1)
    expect(first.get_by_role("radio").first).to_be_focused()
    page.get_by_role("radio", name="PostgreSQL").check()
    expect(first.get_by_role("alert")).to_be_hidden()
    send.click()
    expect(second.get_by_role("alert")).to_have_text("Choose at least one.")
    expect(second.get_by_role("alert")).to_be_in_viewport(ratio=1)
    page.get_by_role("checkbox", name="Names").check()
    page.get_by_role("checkbox", name="my own words").check()
    expect(page.get_by_role("checkbox", name="Names")).not_to_be_checked()
    send.click()
    expect(second.get_by_role("alert")).to_have_text("Write your answer.")
    own = page.get_by_label("Your own words").last
    expect(own).to_be_focused()
    own.fill(words)
    expect(second.get_by_role("alert")).to_be_hidden()
    send.click()

    assert sent_answer(gateway, run)["answers"] == [{"options": [1]}, {"text": words}]


def test_a_new_question_takes_no_focus_and_is_told(
    phone: Visitor, gateway: EmbeddedGateway
) -> None:
    """Who types goes on typing; the title, the icon and a screen reader say that something came."""
    page = phone.page
    run = begin_asking(gateway)
    phone.open_run(run.id)
    assert not page.title().startswith("●")
    message = page.get_by_label("Message to Claude Code")
    message.press_sequentially("first ")

    gateway.send_marker(run, asked())
    expect(page.locator("article.ask")).to_have_count(1)
    page.keyboard.type("second")

    expect(message).to_have_value("first second")
    expect(page.locator("#announcer")).to_contain_text("Run this command? pytest -q q1")
    assert page.title().startswith("● fix it")
    assert page.locator("link[rel=icon]").get_attribute("href") == "/static/icon-asks.svg"
    gateway.send_marker(
        run, {"event": "answered", "id": "q1", "decision": "allow", "by": "time limit"}
    )
    expect(page.locator(".toast")).to_contain_text("by the time limit")
    expect(message).to_be_focused()
    assert page.locator("link[rel=icon]").get_attribute("href") == "/static/icon.svg"


def test_the_keyboard_is_enough(browser: Browser, gateway: EmbeddedGateway) -> None:
    """The cards come before the output, Enter answers, and the focus goes to the next card."""
    run = begin_asking(gateway, asked(), asked("q2"))
    with Visitor(browser, gateway, size=DESK, logged_in=True) as person:
        page = person.open_run(run.id)
        first = page.locator("article.ask").first
        expect(first).to_be_visible()
        page.get_by_role("button", name="Halt", exact=True).focus()
        for _ in range(10):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent") == "Deny…":
                break
        page.keyboard.press("Enter")
        expect(first.get_by_label("What should it do instead?")).to_be_focused()
        page.keyboard.press("Escape")
        expect(first.get_by_role("button", name="Deny…")).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")  # twice, as by mistake
        assert sent_answer(gateway, run)["id"] == "q1"
        gateway.send_marker(
            run, {"event": "answered", "id": "q1", "decision": "allow", "by": "operator"}
        )

        expect(page.locator("[data-question=q2] h3")).to_be_focused()
        page.keyboard.press("Enter")
        assert len(sent(gateway, run)) == 1


@pytest.mark.parametrize("size", [DESK, PHONE, (320, 640)], ids=str)
def test_cards_fit_and_pass_axe(
    browser: Browser, gateway: EmbeddedGateway, size: tuple[int, int]
) -> None:
    """Nothing scrolls sideways, what is tapped is large enough, and the buttons are in sight."""
    long = "a-very-long-word-" * 30
    scopes = [{"id": "s1", "label": f"allow Bash({long})"[:200]}]
    run = begin_asking(
        gateway,
        asked("q1", hidden=True, title=long, reason=long, input={"command": long}, scopes=scopes),
        asked("q2", kind="question", questions=CHOICES, input={}),
        asked("q3", kind="plan", plan=f"# Plan\n\n{long}\n" * 30, input={}),
        asked("q4", tool="Edit", input={"file_path": long}, diff=f"@@ -1 +1 @@\n-{long}\n+b"),
        asked("q5", whole=False, defaultsToNo=True),
        {"event": "queued", "id": "m1", "text": long},
        {"event": "state", "state": "waiting"},
    )
    with Visitor(browser, gateway, size=size, logged_in=True) as person:
        page = person.open_run(run.id)
        expect(page.locator("article.ask")).to_have_count(5)
        first = page.locator("article.ask").first
        expect(first.get_by_role("button", name="Allow once")).to_be_in_viewport()
        page.locator("article.ask").nth(2).get_by_role("button", name="Keep planning…").click()
        only: Scheme = "light" if size == DESK else "dark"
        person.check_layout("button, label:has(input), textarea", only)
        if size != DESK:
            # The cards have the room, and the only Send.
            message = page.get_by_label("Message to Claude Code")
            expect(message).to_be_hidden()
            page.get_by_role("button", name="Hide").click()
            expect(message).to_be_visible()


# --- beside the cards -----------------------------------------------------------------------------


def test_what_is_typed_outlives_a_reload(phone: Visitor, gateway: EmbeddedGateway) -> None:
    """For each run apart, and for a new one, until it is sent; the field grows with its text."""
    page = phone.page
    run, other = begin_asking(gateway), begin_asking(gateway)
    phone.open_run(run.id)
    message = page.get_by_label("Message to Claude Code")

    def height() -> float:
        box = message.bounding_box()
        assert box is not None
        return box["height"]

    low = height()
    message.fill("a line\n" * 4)
    assert height() > low + 40
    message.fill("a line\n" * 40)
    assert height() <= PHONE[1] / 3 + 1
    page.get_by_role("link", name="All runs").first.click()
    page.get_by_role("button", name="New Run").click()
    page.get_by_role("textbox", name="Prompt").fill("a new thing")
    phone.open_run(other.id)
    expect(message).to_have_value("")
    phone.open_run(run.id)
    expect(message).to_have_value("a line\n" * 40)
    assert height() > low + 40
    page.get_by_role("button", name="Send").click()
    wait_for_sent(gateway, run)
    expect(message).to_have_value("")
    assert height() == low
    acknowledge(gateway, run, result="Message sent")
    expect(page.locator(".talk [role=status]")).to_have_text("Message sent.")
    expect(page.locator(".history-name")).to_have_text("Message")
    expect(page.locator(".talk [role=status]")).to_be_empty()  # after a few seconds
    page.reload()
    expect(message).to_have_value("")

    phone.open_list()
    page.get_by_role("button", name="New Run").click()
    prompt = page.get_by_role("textbox", name="Prompt")
    expect(prompt).to_have_value("a new thing")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="New Run").click()
    expect(prompt).to_have_value("")
    prompt.fill("another")
    page.evaluate(
        "document.querySelector('form[action$=\"/logout\"]').dispatchEvent(new Event('submit'))"
    )
    assert page.evaluate("sessionStorage.length") == 0


def test_talking_with_a_run_that_listens(phone: Visitor, gateway: EmbeddedGateway) -> None:
    """Messages with what waits, taking one back, the interrupt, the mode, and each outcome."""
    page = phone.page
    run = begin_asking(gateway)
    phone.open_run(run.id)
    status = page.locator(".talk [role=status]")
    page.get_by_label("Message to Claude Code").fill("and then\nthe changelog")
    page.get_by_role("button", name="Send").click()
    assert wait_for_sent(gateway, run) == ["__INPUT__:and then\nthe changelog"]
    expect(page.get_by_label("Message to Claude Code")).to_have_value("")
    acknowledge(gateway, run, result="Message sent; it waits for Claude Code")
    expect(status).to_have_text("Message sent; it waits for Claude Code.")

    gateway.send_marker(run, {"event": "queued", "id": "m1", "text": "and then\nthe changelog"})
    page.get_by_role("button", name="Take back: and then").click()
    assert wait_for_sent(gateway, run) == ["__TAKE_BACK__:m1"]
    acknowledge(gateway, run, result="asked for the message back")
    gateway.send_marker(run, {"event": "taken back", "id": "m1", "text": "and then"})
    expect(page.locator(".waiting-list li")).to_have_count(0)

    # The mode in force is marked: as the run tells, and as it takes another one.
    ask, accept = (
        page.get_by_role("button", name=name) for name in ("Ask for each", "Accept edits")
    )
    gateway.send_marker(run, {"event": "progress", "permissionMode": "default"})
    expect(ask).to_have_attribute("aria-pressed", "true")
    accept.click()
    assert wait_for_sent(gateway, run) == ["__MODE__:acceptEdits"]
    acknowledge(gateway, run, result="Mode: acceptEdits")
    expect(accept).to_have_attribute("aria-pressed", "true")
    expect(ask).to_have_attribute("aria-pressed", "false")
    accept.click()
    assert wait_for_sent(gateway, run) == ["__MODE__:acceptEdits"]
    acknowledge(gateway, run, error="refused: this mode is not allowed from afar; allowed: none")
    expect(page.locator(".talk [role=alert]")).to_contain_text("not allowed from afar")

    interrupt = page.get_by_role("button", name="Interrupt")
    interrupt.click()
    expect(page.locator(".toast")).to_contain_text("no message waits. Press again.")
    expect(interrupt).to_be_visible()  # after three seconds
    assert sent(gateway, run) == []
    interrupt.dblclick()
    assert wait_for_sent(gateway, run) == ["__ESCAPE__"]
    acknowledge(gateway, run, result="sent")
    expect(page.get_by_text("Interrupt: done.", exact=True).first).to_be_attached()


@pytest.mark.parametrize(
    ("fields", "is_shown"),
    [
        ({"listens": False}, False),
        ({"mode": "interactive"}, False),
        ({"remoteInput": False}, True),
    ],
    ids=str,
)
def test_only_what_a_run_takes_is_offered(
    phone: Visitor, gateway: EmbeddedGateway, fields: dict[str, Any], is_shown: bool
) -> None:
    """Nobody listens, or nobody may type; interrupting needs no permission to type."""
    page = phone.page
    run = begin_asking(gateway, **fields)
    phone.open_run(run.id)

    assert page.locator(".talk").is_visible() == is_shown
    expect(page.get_by_label("Message to Claude Code")).to_be_hidden()
    if is_shown:
        expect(page.get_by_role("button", name="Interrupt")).to_be_visible()


def test_the_list_shows_who_asks(browser: Browser, tmp_path: Path) -> None:
    """And who waits; a run that ended says how many tools were refused in it."""
    with EmbeddedGateway(tmp_path / "gateway") as gateway:
        waiting = begin_asking(gateway, {"event": "state", "state": "waiting"})
        asking = begin_asking(gateway, asked(), asked("q2"))
        result = {"denials": 3}
        ended = {"event": "finished", "exitCode": 0, "reason": "exited", "result": result}
        over = begin_asking(gateway, ended)
        with Visitor(browser, gateway, size=PHONE, allowed=FAILED_LOADS) as person:
            page = person.log_in()
            rows = page.locator(".run")
            expect(rows).to_have_count(3)
            links = [row.get_attribute("href") for row in rows.all()]
            assert links == [f"/runs/{run.id}" for run in (asking, waiting, over)]
            expect(rows.nth(0)).to_contain_text("Asks you")
            expect(rows.nth(0)).to_contain_text("2 questions")
            expect(rows.nth(2)).to_contain_text("3 tools refused")
            assert page.title().startswith("(2 waiting)")
            gateway.send_marker(asking, {"event": "finished", "exitCode": 0})
            expect(rows.nth(0)).to_contain_text("Waiting for you")


def test_a_run_that_is_over_says_how_to_go_on(phone: Visitor, gateway: EmbeddedGateway) -> None:
    """With the session in the line, and a new run for it."""
    page = phone.page
    run = begin_asking(gateway, asked(), options={"ask": "remote", "stay": "30m"})
    phone.open_run(run.id)
    expect(page.get_by_role("heading", name="Go on with this session")).to_be_hidden()
    gateway.send_marker(run, {"event": "finished", "exitCode": 130, "reason": "interrupted"})

    expect(page.locator(".badge")).to_have_text("Interrupted")
    expect(page.locator(".toast")).to_contain_text("Not answered: the run has ended")
    go_on = page.locator(".card", has_text="Go on with this session")
    # What can be copied is a line that starts: a run of its own, with its token.
    go_on.get_by_role("button", name="New run…").click()
    page.get_by_role("textbox", name="Prompt").fill("and now?")
    page.get_by_role("button", name="Create the run").click()
    line = page.locator("#start-line")
    for part in ("CLAUDE_RUNNER_TOKEN=", "--run-id run_", "--stay 30m", "--resume"):
        expect(line).to_contain_text(part)
    page.get_by_role("button", name="Close").click()
    # On a phone it is at the lower edge as well; a session at the keyboard is no other.
    session = begin_asking(gateway, mode="interactive", listens=False)
    gateway.send_marker(session, {"event": "finished", "exitCode": 0, "reason": "exited"})
    phone.open_run(session.id)
    go_on = page.get_by_role("button", name="Go on with this session…")
    expect(go_on).to_be_in_viewport(ratio=1)
    go_on.click()
    page.get_by_role("textbox", name="Prompt").fill("go on")
    page.get_by_role("button", name="Create the run").click()
    expect(page.locator("#start-line")).to_contain_text(f"--resume {TALKS['sessionId']}")
