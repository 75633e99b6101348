"""Markdown becomes a tree of allowed tags in which every letter of the text is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.page.markdown import ATTRIBUTES, MAX_CHARACTERS, TAGS, parse_markdown

PIECES = st.sampled_from(
    [
        *("# ", "- ", "1. ", "> ", "* ", "```", "```py", "~~", "**", "_", "`", "|", "|-|-|", "\n"),
        *("\n\n", "    ", "word", " ", "[a](", "![", "](http://x.org/y)", "](javascript:a())", ")"),
        *("<b>", "<script>alert(1)</script>", "&lt;", "&#106;", "\\", "[r]: /u", "<http://e.org>"),
        *("https://e.org/a_b.", "mailto:a@b.c", "data:text/html,x", "\t", "***", "---", "é", "\0"),
        *('<img src=x onerror="a()">', "[a][r]", '"title"', "<!-- c -->", "\r", "|a|b|c|", "+ "),
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=25).map("".join), st.text(max_size=60))


def nodes_of(tree: list[Any]) -> Iterator[Any]:
    """Yield all nodes of a tree."""
    for node in tree:
        yield node
        if isinstance(node, dict):
            yield from nodes_of(node.get("children", []))


def shown(tree: list[Any]) -> str:
    """Return all that a reader can see of a tree, and where its links lead."""
    return "".join(
        node if isinstance(node, str) else "".join(str(node.get(key, "")) for key in
                                                   ("href", "title", "language"))
        for node in nodes_of(tree)
    )  # fmt: skip


@given(TEXTS)
def test_nothing_comes_out_but_what_is_allowed_and_nothing_is_lost(text: str) -> None:
    """Whatever the text: allowed tags, attributes and links, and all of its letters."""
    tree = parse_markdown(text)
    if tree is None:
        return  # shown as it is

    for node in nodes_of(tree):
        assert isinstance(node, (str, dict))
        if isinstance(node, dict):
            assert node["tag"] in TAGS
            assert set(node) - {"tag", "children"} <= ATTRIBUTES
            href = node.get("href")
            assert href is None or href.lower().startswith(("http://", "https://", "mailto:"))
            assert (href is not None) == (node["tag"] == "a")
    letters = Counter(filter(str.isalpha, text))
    assert not letters - Counter(filter(str.isalpha, shown(tree)))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("# A *b*", [{"tag": "h1", "line": 0, "children": [
            "A ", {"tag": "em", "children": ["b"]}]}]),
        ("a\nb", [{"tag": "p", "line": 0, "children": ["a", {"tag": "br"}, "b"]}]),
        ("[a]() ![b]()", [{"tag": "p", "line": 0, "children": ["a", " ", "b"]}]),
        ("<b>a</b>", [{"tag": "p", "line": 0, "children": ["<b>a</b>"]}]),
        ("~~a~~", [{"tag": "p", "line": 0, "children": [{"tag": "s", "children": ["a"]}]}]),
        ("\n```py\nx\n```", [{"tag": "pre", "line": 2, "language": "py", "children": ["x\n"]}]),
        ("[a](javascript:b)", [{"tag": "p", "line": 0, "children": ["[a](javascript:b)"]}]),
        (
            "![a](http://e.org/a.png)",
            [{"tag": "p", "line": 0, "children": [
                {"tag": "a", "href": "http://e.org/a.png", "children": ["a"]}]}],
        ),
        (
            "(https://e.org/x_y).",
            [{"tag": "p", "line": 0, "children": [
                "(", {"tag": "a", "href": "https://e.org/x_y", "children": ["https://e.org/x_y"]},
                ")."]}],
        ),
        (
            "3. a",
            [{"tag": "ol", "line": 0, "start": 3, "children": [
                {"tag": "li", "line": 0, "children": ["a"]}]}],
        ),
        (
            "|a|\n|-:|\n|b|",
            [{"tag": "table", "line": 0, "children": [
                {"tag": "thead", "line": 0, "children": [{"tag": "tr", "line": 0, "children": [
                    {"tag": "th", "align": "right", "children": ["a"]}]}]},
                {"tag": "tbody", "line": 2, "children": [{"tag": "tr", "line": 2, "children": [
                    {"tag": "td", "align": "right", "children": ["b"]}]}]}]}],
        ),
        # A cell too many is no cell; deeper than anybody writes; longer than anybody writes.
        ("|a|\n|-|\n|b|lost|", None),
        ("> " * 100 + "a", None),
        ("**a " * 1_000 + "b** " * 1_000, None),
        ("a" * (MAX_CHARACTERS + 1), None),
    ],
)  # fmt: skip
def test_what_becomes_of_it(text: str, tree: list[Any] | None) -> None:
    """The trees that the page gets."""
    assert parse_markdown(text) == tree


def test_a_hostile_table_costs_nothing() -> None:
    """Each of its rows would have a thousand cells, and almost nothing is written in them."""
    began_s = time.thread_time()
    assert parse_markdown("|a" * 3_000 + "\n" + "|-" * 3_000 + "\n" + "|c\n" * 300) is None
    assert time.thread_time() - began_s < 0.3
