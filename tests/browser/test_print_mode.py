"""Reading a run of print mode: blocks that fold, Markdown, changes in colour, links, the search."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from testing.gateways.embedded_gateway import EmbeddedGateway, finished
from testing.gateways.gateway_records import Run
from testing.waiting import eventually
from tests.browser.runs import begin
from tests.browser.visitor import Visitor

CASES = Path(__file__).parents[1] / "kinds" / "text_layout.json"
READ = """async cases => {
  const { readLine } = await import(new URL('/static/text-layout.js', location));
  return cases.map(each => readLine(each.shown));
}"""
RESULT = "".join(f"⎿ line {number} of the result\n" for number in range(1, 21))
TEXT = f"""◆ Claude Code 2.1.332, claude-opus-5-5

First **the test**, <b>then</b> [the docs](https://docs.example.org/a), not [this](javascript:pwned()).
\\● no tool

∴ It is rounded once a line.
∴ That is the fault.

● Read: cart.py
● Bash: pytest -q
◦ --verbose

○ Read: cart.py
⎿ 80 lines

○ Bash: pytest -q
▲ failed: Exit code 1
{RESULT}⋯ 12 more lines

● Edit: cart.py
⎿ 1 line added, 1 removed
▏ @@ -7,2 +7,2 @@
▏ -    return sum(rounded)
▏ +    return round_once(sum(exact))

● Task: look around

┊ A *subagent* speaks.

┊ ● Grep: total(
┊ ⎿ 3 files

○ Task: look around
⎿ nothing found

» operator: Use `pnpm`
» please

# What I did

| case | total |
|--|--:|
| one | 20.00 |

```python
def total(self): return {"round_once(" * 12}
```

▲ API: overloaded

■ Done in 12 s, 4 turns, $0.04
"""  # noqa: E501 - long lines are what it is about


def steps(count: int) -> list[str]:
    """Return so many events; every twentieth begins a tool.

    Few blocks, since whatever an assertion looks at, it looks at every element of the page.
    """
    return [
        ("" if number % 20 != 1 else f"\n● Bash: step {number}\n") + f"⎿ result {number}\n"
        for number in range(1, count + 1)
    ]


def send(gateway: EmbeddedGateway, run: Run, text: str, size: int, first: int = 1) -> None:
    """Send a text as output, cut anywhere."""
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    gateway.send_events(run, pieces, first)


def blocks(page: Page, kind: str) -> list[str]:
    """Return the texts of all blocks of a kind, as they can be read."""
    return page.locator(f".b-{kind}").all_inner_texts()


def test_a_run_is_read_in_blocks(browser: Browser, gateway: EmbeddedGateway) -> None:
    """What belongs together is one block, and looks as what it is; nothing a run says is markup."""
    run = begin(gateway, layout=1)
    send(gateway, run, TEXT, 7)
    with Visitor(browser, gateway, size=(1440, 900), logged_in=True) as person:
        page = person.open_run(run.id)
        cases = json.loads(CASES.read_text("utf-8"))
        wanted = [
            {"kind": case["kind"], "text": case["text"], "isSubagent": "isSubagent" in case}
            for case in cases
        ]
        assert page.evaluate(READ, cases) == wanted

        words = page.locator(".b-words").first
        expect(words.locator("strong")).to_have_text("the test")
        expect(words).to_contain_text("<b>then</b>")
        expect(words).to_contain_text("[this](javascript:pwned())")
        expect(words).to_contain_text("● no tool")
        link = words.get_by_role("link", name="the docs")
        assert link.get_attribute("rel") == "noreferrer noopener"
        expect(page.locator(".b-words th")).to_have_text(["case", "total"])
        expect(page.locator(".b-words td").last).to_have_class("md-right")
        expect(page.get_by_role("heading", name="What I did")).to_be_visible()
        expect(page.locator(".md-language")).to_have_text("python")

        read, bash, edit, task, grep = (page.locator(".b-tool").nth(at) for at in range(5))
        expect(read).to_have_text(re.compile(r"Read\s*cart.py\s*80 lines"))
        expect(bash.locator(".part-input")).to_have_text("--verbose")
        expect(bash).to_contain_text("line 8 of the result")
        expect(bash).not_to_contain_text("line 9 of the result")
        bash.get_by_role("button", name="Show all 23 lines").click()
        expect(bash).to_contain_text("line 20 of the result")
        expect(bash).to_contain_text("12 more lines")
        expect(edit.locator(".diff-line.removed")).to_have_text("-    return sum(rounded)")
        expect(edit.locator(".diff-line.added")).to_have_css("color", "rgb(44, 107, 63)")
        expect(task).to_contain_text("nothing found")
        expect(grep).to_have_class(re.compile("b-subagent"))
        thought = page.locator(".b-thought")
        expect(thought.get_by_text("That is the fault.")).to_be_hidden()
        thought.locator("summary").click()
        expect(thought.get_by_text("That is the fault.")).to_be_visible()
        assert blocks(page, "person") == ["Operator\nUse `pnpm`\nplease"]
        assert blocks(page, "failure") == ["API: overloaded"]
        assert blocks(page, "end") == ["Done in 12 s, 4 turns, $0.04"]

        page.get_by_role("button", name="Fold tools").click()
        expect(bash.locator(".part-result")).to_be_hidden()
        expect(bash.get_by_text("failed: Exit code 1").first).to_be_visible()
        assert "tools=folded" in page.url
        page.reload()
        expect(edit.locator(".diff-line.added")).to_be_hidden()
        edit.locator("summary").click()
        expect(edit.locator(".diff-line.added")).to_be_visible()
        expect(page.locator(".b-words h3")).to_be_visible()
        person.check_layout("button, .button")

        page.get_by_role("button", name="Text", exact=True).click()
        expect(page.locator(".text-line").last).to_be_visible()
        assert person.output() == TEXT
        assert "as=text" in page.url
        page.get_by_role("button", name="Reading", exact=True).click()
        expect(page.locator(".b-end")).to_be_visible()
        assert "as=" not in page.url


def test_an_answer_is_read_while_it_is_written(desk: Visitor, gateway: EmbeddedGateway) -> None:
    """Its text is there at once, and Markdown when it has paused. Answers of people come between,
    and what is error output; a run that says nothing of its layout is shown as it is.
    """
    page = desk.page
    run = begin(gateway, layout=1, listens=True, remoteAnswers=True)
    desk.open_run(run.id)
    expect(page.get_by_text("It has started.")).to_be_visible()
    gateway.send_event(run, "stdout", "● Bash: rm -r bu", 1)
    expect(page.locator(".b-tool summary")).to_contain_text("rm -r bu")
    gateway.send_event(run, "stdout", "ild\n", 2)
    asked = {"event": "asked", "id": "q1", "code": "ab12", "digest": "d", "kind": "permission"}
    gateway.send_marker(run, {**asked, "tool": "Bash", "title": "rm -r build", "whole": True})
    question = page.get_by_role("heading", name="Run this command?")
    expect(question).to_be_visible()  # its card comes a moment after the run's state
    page.get_by_role("button", name="Needs you").click()
    expect(question).to_be_focused()
    answered = {"event": "answered", "id": "q1", "decision": "allow", "by": "keyboard"}
    gateway.send_marker(run, {**answered, "message": "go on"})
    expect(page.locator(".b-answer")).to_contain_text("Allowed at the keyboard · Bash: rm -r build")
    gateway.send_event(run, "stdout", "⎿ gone\n\nIt is do", 3)
    expect(page.locator(".b-tool .part-result")).to_have_text("gone")
    expect(page.locator(".b-words")).to_contain_text("It is do")
    gateway.send_event(run, "stdout", "ne, **all", 4)
    gateway.send_event(run, "stderr", "a warning\n", 5)
    expect(page.locator(".b-stderr")).to_contain_text("a warning")
    gateway.send_event(run, "stdout", " of it**", 6)
    expect(page.locator(".b-words strong")).to_have_text("all of it")
    gateway.send_event(run, "stdout", "\n\n- one\n", 7)
    expect(page.locator(".b-words li")).to_have_text("one")
    assert page.locator(".block").count() == 5
    # So it is for who comes when it is written.
    page.reload()
    expect(page.locator(".b-words li")).to_have_text("one")
    page.get_by_role("button", name="Next error").click()
    expect(page.locator(".here")).to_have_text("a warning")

    # What a person has denied did not fail by itself; what is withdrawn is told too.
    gateway.send_event(run, "stdout", "\n● Edit: a.py\n", 8)
    for number, tool in ((2, "Edit"), (3, "Bash")):
        gateway.send_marker(run, {**asked, "id": f"q{number}", "tool": tool, "whole": True})
    gateway.send_marker(run, {**answered, "id": "q2", "decision": "deny"})
    gateway.send_event(run, "stdout", "▲ failed: not now\n\n● Edit: b.py\n▲ failed: no file\n", 9)
    gateway.send_marker(run, {"event": "withdrawn", "id": "q3", "reason": "interrupted"})
    expect(page.locator(".b-answer").last).to_have_text(
        "Withdrawn: the turn was interrupted · Bash"
    )
    assert page.locator(".part-failure").all_inner_texts() == ["denied: not now", "failed: no file"]

    other = begin(gateway, "another kind")
    gateway.send_event(other, "stdout", "● no tool\n\x1b[31mred\x1b[0m\n", 1)
    desk.open_run(other.id)
    expect(page.locator(".text-line .fg-1")).to_have_text("red")
    assert desk.output().startswith("● no tool\n")


def test_every_line_has_a_link_and_can_be_found(browser: Browser, gateway: EmbeddedGateway) -> None:
    """Far up in a long run too: by its address, by the search, as the next error."""
    run = begin(gateway, layout=1)
    texts = steps(1_301)
    texts[4] = "⎿ a needle is here\n"
    texts[20] = "\n● Bash: step 21\n▲ failed: it broke\n"
    gateway.send_events(run, texts)
    with Visitor(browser, gateway, size=(390, 844), logged_in=True, has_touch=True) as person:
        person.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = person.open_run(run.id)
        expect(page.get_by_text("result 1301", exact=True)).to_be_in_viewport()
        expect(page.get_by_text("step 21", exact=True)).not_to_be_attached()

        page.get_by_role("button", name="Find").click()
        page.get_by_label("Find in this run").fill("NEEDLE")
        hit = page.locator(".hit")
        expect(hit).to_have_text("⎿ a needle is here")
        assert "find=NEEDLE" in page.url
        hit.click()
        line = page.locator(".reading").get_by_text("a needle is here", exact=True)
        expect(line).to_be_in_viewport()
        expect(page.locator(".here")).to_have_text("a needle is here")
        expect(page.get_by_role("button", name="To the end")).to_be_visible()
        page.get_by_role("button", name="Close").click()
        assert "find" not in page.url
        address = page.url
        assert re.search(r"#e\d+\.0$", address)
        page.get_by_role("button", name="Copy link").click()
        assert page.evaluate("navigator.clipboard.readText()") == address
        page.get_by_role("button", name="Copied").wait_for()
        page.get_by_role("button", name="Copy block").click()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith("Bash: step 1\nresult 1\n")
        assert "a needle is here" in copied

        page.get_by_role("button", name="Next error").click()
        expect(page.locator(".here")).to_have_text("failed: it broke")
        page.get_by_text("result 42", exact=True).click()
        expect(page.locator(".here")).to_have_text("result 42")
        page.locator(".reading").press("j")
        expect(page.locator(".here")).to_have_text("result 43")
        page.get_by_role("button", name="Choose no line").click()
        assert "#e" not in page.url

        # What comes meanwhile moves nothing, and is there at the end.
        gateway.send_event(run, "stdout", "\n● Bash: the last step\n", len(texts) + 1)
        page.get_by_role("button", name="To the end").click()
        expect(page.get_by_text("the last step", exact=True)).to_be_in_viewport()

        page.goto("about:blank")
        page.goto(address)
        expect(line).to_be_in_viewport()
        page.goto("about:blank")
        page.goto(address.replace("#", "?as=text#"))
        expect(page.locator(".text-line", has_text="a needle is here")).to_be_in_viewport()


def test_a_hit_within_a_long_paragraph(browser: Browser, gateway: EmbeddedGateway) -> None:
    """Markdown makes one paragraph of many lines: the hit itself is led to, and marked."""
    run = begin(gateway, layout=1)
    words = [f"some words of line {number} and" for number in range(120)]
    words[3], words[60], words[100] = "a needle", "a **second** Needle or needle", "(nee-dle?) x"
    gateway.send_event(run, "stdout", "\n".join(words) + "\n", 1)
    gateway.send_events(run, steps(100), 2)
    marked = """() => {
      const [range] = CSS.highlights.get("find") ?? [];
      const pane = document.querySelector(".reading")?.getBoundingClientRect();
      const at = range?.getBoundingClientRect();
      const before = range?.startContainer.data.slice(0, range.startOffset);
      return range && [range.toString(), before, pane?.top < at.top && at.bottom < pane.bottom];
    }"""
    with Visitor(browser, gateway, size=(390, 844), logged_in=True, has_touch=True) as person:
        page = person.page
        page.goto(f"{gateway.url}/runs/{run.id}?find=needle")
        expect(page.locator(".hit")).to_have_count(2)
        expect(page.locator(".b-words p")).to_have_count(1)
        eventually(lambda: equal(page.evaluate(marked), ["needle", "a ", True]))
        page.locator(".hit").nth(1).tap()
        eventually(lambda: equal(page.evaluate(marked), ["Needle", " ", True]))
        # So it is for who comes with the address, before the text is Markdown.
        page.reload()
        eventually(lambda: equal(page.evaluate(marked), ["Needle", " ", True]))
        page.get_by_label("Find in this run").fill("(nee-dle?)")
        expect(page.locator(".hit")).to_have_text(["(nee-dle?) x"])
        page.locator(".hit").tap()
        eventually(lambda: equal(page.evaluate(marked)[0], "(nee-dle?)"))
        page.get_by_role("button", name="Choose no line").click()
        assert page.evaluate("CSS.highlights.has('find')") is False

        # Of a line that is too long for this view, the text shows all.
        gateway.send_event(run, "stdout", f"● Bash: x\n⎿ {'z' * 50_000} NEEDLES\n", 102)
        page.get_by_label("Find in this run").fill("needles")
        expect(page.locator(".hit")).to_have_text([re.compile("NEEDLES")])
        page.locator(".hit").tap()
        expect(page.locator(".toast")).to_contain_text("Text shows it whole")
        page.get_by_role("button", name="Text", exact=True).tap()
        page.locator(".hit").tap()
        text_marked = marked.replace(".reading", ".text-view")
        eventually(lambda: equal(page.evaluate(text_marked)[::2], ["NEEDLES", True]))


def equal(found: object, wanted: object) -> None:
    """Fail unless they are equal."""
    assert found == wanted


def test_a_reader_stays_where_he_is(desk: Visitor, gateway: EmbeddedGateway) -> None:
    """Earlier pages come at the top, later ones at the end, and what was unfolded stays so."""
    page = desk.page
    run = begin(gateway, layout=1)
    gateway.send_events(run, steps(490))
    desk.open_run(run.id)
    view = page.locator(".reading")
    expect(page.get_by_text("result 490", exact=True)).to_be_in_viewport()
    folded = page.locator(".b-tool", has=page.get_by_text("step 341", exact=True))
    folded.evaluate("each => { each.open = false; }")

    view.evaluate("view => { view.scrollTop = 0; }")
    expect(page.get_by_text("step 1", exact=True)).to_be_attached()
    expect(page.get_by_text("step 341", exact=True)).to_be_in_viewport()
    expect(folded).not_to_have_attribute("open", "")

    def is_at_the_beginning() -> None:
        view.evaluate("view => { view.scrollTop = 0; }")
        assert view.evaluate("view => view.scrollTop") == 0

    eventually(is_at_the_beginning)
    expect(page.get_by_text("step 1", exact=True)).to_be_in_viewport()
    assert page.locator(".block").count() == 25


@pytest.mark.parametrize("size", [(390, 844), (844, 390), (320, 640), (640, 400)], ids=str)
def test_the_output_has_the_window_and_a_thumb_the_rest(
    browser: Browser, gateway: EmbeddedGateway, size: tuple[int, int]
) -> None:
    """How a run stands is in its head, what is done at the lower edge. A tap says what became of
    it, while the gateway is away too.
    """
    run = begin(gateway, layout=1, branch="rounding", remoteInput=True, listens=True)
    progress = {"event": "progress", "totalCostUsd": 0.0412, "numTurns": 4}
    limits = ["5-hour limit: 91 % used", "weekly limit: 88 % used"]
    model = "claude-opus-5-5-20260101"
    gateway.send_marker(run, {**progress, "model": model, "limits": limits})
    gateway.send_event(run, "stdout", TEXT, 1)
    refused = "net::ERR_FAILED"
    with Visitor(
        browser, gateway, size=size, logged_in=True, allowed=(refused,), has_touch=True
    ) as person:
        page = person.open_run(run.id)
        expect(page.locator(".b-words strong").first).to_be_attached()
        facts = page.locator(".standing")
        expect(facts).to_contain_text("$0.04")
        expect(facts).to_contain_text("4 turns")
        expect(facts).to_contain_text("claude-opus-5-5")
        expect(facts).to_contain_text("rounding")
        for name in ("Send", "Interrupt", "Stop", "Halt"):
            button = page.get_by_role("button", name=name, exact=True)
            expect(button).to_be_in_viewport(ratio=1)
            box = button.bounding_box()
            assert box is not None
            assert box["y"] > size[1] / 2
        pane = page.locator(".pane").bounding_box()
        assert pane is not None
        assert pane["height"] > size[1] * 0.45
        is_first = size == (390, 844)
        person.check_layout("button, .button, textarea, input", None if is_first else "dark")
        if not is_first:
            return

        page.get_by_role("button", name="git status").tap()
        expect(page.locator(".toast")).to_have_text("git status: sent. Waiting for the runner…✕")
        commands = f"/api/runs/{run.id}/commands"
        (command,) = gateway.send("GET", commands, run=run).json()
        result = {"result": "\x1b[32mclean\x1b[0m\n"}
        gateway.send("POST", f"{commands}/{command['id']}/ack", result, run)
        expect(page.locator(".toast")).to_contain_text("git status: done.")
        expect(page.locator(".result .fg-2")).to_have_text("clean")
        page.get_by_role("button", name="Repeat the last one").tap()
        expect(page.locator(".history-entry")).to_have_count(2)

        page.context.route("**/stop", lambda route: route.abort())
        page.get_by_role("button", name="Stop", exact=True).dblclick()
        expect(page.locator(".toast.bad")).to_contain_text(
            "Not sent: the gateway cannot be reached"
        )
        gateway.send_marker(run, finished([TEXT]))
        expect(page.get_by_role("button", name="Stop", exact=True)).to_be_hidden()
        page.get_by_text("✓ complete").tap()
        expect(page.get_by_text("The one event was received as sent")).to_be_visible()
