"""Claude Code's words are shown while it writes them, once, and no two things in one line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinds.claude_stream import ClaudeStream
from kinds.claude_text import LiveText, clean, shown_text
from kinds.profile import Message, Part, Passed
from kinds.text_layout import SIGNS, WORDS, Line, WordsWriter, write_line
from tests.kinds.test_claude_messages import ends, init, line, retry, returns, says, uses

# --- what the tests say messages with ---------------------------------------------------------


def event(kind: str, *, parent: str | None = None, **fields: Any) -> bytes:
    """Return a piece of a message, as Claude Code prints it."""
    return line(type="stream_event", event={"type": kind, **fields}, parent_tool_use_id=parent)


def begins(kind: str = "text", **fields: Any) -> bytes:
    """Return what begins a block."""
    return event("content_block_start", index=0, content_block={"type": kind}, **fields)


def writes(text: str, **fields: Any) -> bytes:
    """Return some more words of a block."""
    delta = {"type": "text_delta", "text": text}
    return event("content_block_delta", index=0, delta=delta, **fields)


STOPS = event("content_block_stop", index=0)
MESSAGE = event("message_start", message={"id": "m"})


def show(chunks: list[bytes], *, is_live: bool = True) -> str:
    """Return what is shown; `|` stands between words that were shown at different times."""
    stream, writer, waiting = ClaudeStream(), WordsWriter(), ""
    stream.is_live = is_live
    shown, is_open = "", False
    for item in [*(item for chunk in chunks for item in stream.feed(chunk)), *stream.flush()]:
        if isinstance(item, Part):
            shown += "\n" if item.is_apart else ""
            shown += f"|{writer.feed(item.text)}" if item.text else ""
            is_open = not item.is_last
            if item.is_last:
                shown += writer.end_line() + "".join(p.finish(p.text) for p in item.pieces)
                shown, waiting = shown + waiting, ""
        else:
            assert isinstance(item, (Message, Passed))
            pieces = item.pieces if isinstance(item, Message) else ()
            text = "".join(piece.finish(piece.text) for piece in pieces)
            shown, waiting = (shown, waiting + text) if is_open else (shown + text, waiting)
    assert not is_open
    assert not waiting
    return shown


# --- what is shown ----------------------------------------------------------------------------

HELLO = [MESSAGE, begins(), writes("Hello"), writes(" there."), says("Hello there."), STOPS]
SHOWN = [
    pytest.param(HELLO, "|Hello| there.\n", id="words"),
    pytest.param([init(), *HELLO, says(uses("Bash", command="ls")), returns("a"), *HELLO],
                 "◆ Claude Code 2.1.330, claude-x\n\n|Hello| there.\n\n● Bash: ls\n⎿ a\n\n"
                 "|Hello| there.\n", id="among other things"),
    pytest.param([*HELLO, ends(result="Hello there.")],
                 "|Hello| there.\n\n■ Done in 1.5 s\n", id="a result that repeats it"),
    pytest.param([begins(), writes("Hel"), says("Hello."), STOPS], "|Hel|lo.\n", id="a rest"),
    pytest.param([begins(), writes("Hel"), line(type="user", uuid="u", isReplay=True, message={
                  "content": [{"type": "text", "text": "the prompt"}]}), writes("lo."),
                  says("Hello."), STOPS], "|Hel|lo.\n", id="a person's message that comes back"),
    pytest.param([begins(), writes("Hello."), ends(), says("Hello.")],
                 "|Hello.\n\n■ Done in 1.5 s\n", id="whole, but late"),
    pytest.param([begins(), writes("Hello, and"), says("Hello"), ends()],
                 "|Hello, and\n\n■ Done in 1.5 s\n", id="interrupted, and told shorter"),
    pytest.param([begins(), writes("Hello"), line(type="user", message={"content": [{"type": "text",
                  "text": "[Request interrupted by user]"}]}), ends(result="Hello")],
                 "|Hello\n\n▲ Request interrupted by user\n\n■ Done in 1.5 s\n", id="interrupted"),
    pytest.param([begins(), writes("half an ans"), says("Whole now.")],
                 "|half an ans\n\n▲ the answer above was broken off\n\nWhole now.\n",
                 id="cut off, and begun anew without a word"),
    pytest.param([begins(), writes("half"), retry(attempt=1, error="overloaded"), *HELLO],
                 "|half\n\n▲ the answer above was broken off\n▲ API: overloaded; retry 1\n\n"
                 "|Hello| there.\n", id="retried"),
    pytest.param([begins(), writes("half"), *HELLO],
                 "|half\n\n▲ the answer above was broken off\n\n|Hello| there.\n",
                 id="another message"),
    pytest.param([begins(), writes("half"), says(uses("Bash", command="ls"))],
                 "|half\n\n▲ the answer above was broken off\n\n● Bash: ls\n",
                 id="no whole message"),
    pytest.param([begins(), writes("half"), says("API Error: 500", is_api_error_message=True)],
                 "|half\n\n▲ the answer above was broken off\n▲ API Error: 500\n", id="an error"),
    pytest.param([begins(), writes("half")], "|half\n", id="the end of everything"),
    pytest.param([begins(), writes("\n"), writes(" "), says("\n "), STOPS], "", id="nothing"),
    pytest.param([begins(), writes("\n\n a"), writes(" \n"), writes("\n"), writes("b\n"),
                  says("\n\n a \n\nb\n")], "| a| \n\nb\n", id="blanks around"),
    pytest.param([begins(), writes("a"), says("Sub.", parent_tool_use_id="p"), writes("b"),
                  says("ab"), STOPS], "|a|b\n\n┊ Sub.\n", id="a subagent's words wait"),
    pytest.param([begins(), writes("a"), begins(parent="p"), writes("no", parent="p"),
                  writes("b"), says("ab")], "|a|b\n", id="a subagent's pieces are left out"),
    pytest.param([begins(), writes("a"), line(type="command_lifecycle", state="queued"),
                  line(type="system", subtype="status", permissionMode="plan"), writes("b"),
                  says("ab")], "|a|b\n\n◆ permission mode plan\n", id="a notice waits"),
    pytest.param([begins("thinking"), event("content_block_delta", delta={"thinking": "Hm."}),
                  says({"type": "thinking", "thinking": "Hm."}), STOPS, *HELLO],
                 "∴ Hm.\n\n|Hello| there.\n", id="a thought is shown whole"),
    pytest.param([begins(), writes("\\"), writes("●"), writes(" x\n\\"), says("\\● x\n\\")],
                 "||\\\\●| x\n\\\n", id="signs of ours"),
    pytest.param([event("content_block_delta", delta=7), event("x"), writes("y"), STOPS,
                  line(type="stream_event"), begins(), writes("a"), event("message_stop")],
                 "|a\n", id="pieces of nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("chunks", "text"), SHOWN)
def test_words_are_shown_while_they_are_written(chunks: list[bytes], text: str) -> None:
    """They are shown once, and what comes meanwhile has lines of its own."""
    assert show(chunks) == text


@pytest.mark.parametrize(("chunks", "_text"), SHOWN)
def test_where_nobody_asks_for_it_nothing_is_shown_early(chunks: list[bytes], _text: str) -> None:
    """A user may have given the argument; the gateway gets whole messages all the same."""
    whole = [chunk for chunk in chunks if b'"stream_event"' not in chunk]

    assert show(chunks, is_live=False) == show(whole)


# --- for any text -----------------------------------------------------------------------------

LETTERS = st.sampled_from(
    ["a", " ", "\n", "\\", "\r", "\x1b", "[", "]", "3", "m", "\x07", "\x00", "\u2028", "\t", "\x9b",
     "\ud83d", "\ude00", "é", *SIGNS.values()]
)  # fmt: skip
PIECES = st.lists(st.lists(LETTERS, max_size=4).map("".join), max_size=12)


@given(PIECES)
def test_pieces_are_the_whole_text(pieces: list[str]) -> None:
    """However it is cut, the pieces are what the message has whole, and its lines too."""
    live, writer = LiveText(), WordsWriter()
    # Claude Code prints the halves of a character as one in the whole message.
    text = "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    whole = shown_text(clean(text))

    parts = [live.feed(piece) for piece in pieces]

    # What may still become an escape sequence or a line end is held back.
    assert whole.startswith("".join(parts))
    assert live.text == "".join(parts)
    rest = whole[len(live.text) :]
    lines = "".join(writer.feed(part) for part in [*parts, rest]) + writer.end_line()
    assert lines == "".join(f"{write_line(Line(WORDS, each))}\n" for each in whole.split("\n"))


@given(PIECES)
def test_a_whole_message_is_shown_once(pieces: list[str]) -> None:
    """With or without its pieces the same is shown."""
    text = "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    written = [begins(), *(writes(piece) for piece in pieces), says(text), STOPS]

    assert show([*written, ends()]).replace("|", "") == show([says(text), ends()])
