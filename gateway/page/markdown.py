"""Markdown to a tree that the page builds its elements from: no HTML, a few tags, safe links. Pure.

The text is Claude's, and so may be anybody's. A node is a text or a `Node`; which tags and which
attributes there are is said here, and the page knows no others. HTML in a text is text, a picture
is a link to it, a link leads to the web or to an address for mail.

Nothing may be hidden by the way it is written: a text of which the tree would lack a letter, or
that is nested deeper than any person writes, has no tree, and is shown as it is.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import Any, Final, Union

from markdown_it import MarkdownIt
from markdown_it.token import Token

# The page cuts longer answers. A hostile text of this length is half a second's work.
MAX_CHARACTERS: Final = 20_000
# Of all nodes of a text: more than a browser should draw for one answer.
MAX_NODES: Final = 10_000
MAX_DEPTH: Final = 24
# With emphasis in emphasis, which the parser does not count. JSON and browsers have limits too.
_MAX_OPEN: Final = 2 * MAX_DEPTH

TAGS: Final = frozenset(
    {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "table"}
    | {"thead", "tbody", "tr", "th", "td", "em", "strong", "s", "a", "code", "br", "hr"}
)
# `line` is the number of the source's line at which a block begins.
ATTRIBUTES: Final = frozenset({"line", "href", "title", "start", "align", "language"})

_LINK: Final = re.compile(r"(?:https?://|mailto:)[^\s\x00-\x20<>\\]+\Z", re.IGNORECASE)
_BARE_LINK: Final = re.compile(r"https?://[^\s<>\"'`\\\x00-\x20]+", re.IGNORECASE)
_AFTER_LINK: Final = ".,;:!?*_~)]}"
_ALIGN: Final = re.compile(r"text-align:(left|right|center)")
_MAX_LANGUAGE: Final = 40
# The line below a table's head: it says how many cells each row has, also a row of one letter.
_COLUMNS: Final = re.compile(r"^(?=[^\n]*\|)[ \t>|:*+\d.)-]+$", re.MULTILINE)

Node = dict[str, Any]
Tree = list[Union[Node, str]]


def _build_parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": MAX_DEPTH})
    parser.enable(["table", "strikethrough"])
    # What would make text vanish: definitions of links, and names of characters.
    parser.disable(["reference", "entity", "html_block", "html_inline"])
    parser.validateLink = lambda url: bool(_LINK.match(url))  # type: ignore[method-assign]
    # As it was written: what is not a letter there is none here.
    parser.normalizeLink = lambda url: url  # type: ignore[method-assign]
    parser.normalizeLinkText = lambda link: link  # type: ignore[method-assign]
    return parser


_PARSER: Final = _build_parser()


@functools.lru_cache(maxsize=256)
def parse_markdown(text: str) -> Tree | None:
    """Return the tree of a text, or None if it is to be shown as it is.

    The tree is kept, so nobody may change it.
    """
    if len(text) > MAX_CHARACTERS or "\x00" in text or _has_wide_table(text):
        return None
    tokens = _PARSER.parse(text)
    builder = _Builder()
    for token in tokens:
        builder.add(token)
    if builder.is_deep or builder.count > MAX_NODES or _letters(text) - builder.letters:
        return None
    return builder.tree


def _has_wide_table(text: str) -> bool:
    """Whether a table would have more cells than may be drawn: it would take seconds to find out.

    It ends at an empty line.
    """
    for found in _COLUMNS.finditer(text):
        end = text.find("\n\n", found.end())
        rows = text.count("\n", found.end(), end if end >= 0 else len(text))
        if found[0].count("|") * rows > MAX_NODES:
            return True
    return False


def _letters(text: str) -> Counter[str]:
    return Counter(filter(str.isalpha, text))


class _Builder:
    """Tokens in, one after the other; the tree out. Iterative: a text decides how deep it is."""

    def __init__(self) -> None:
        self.tree: Tree = []
        self.letters: Counter[str] = Counter()
        self.count = 0
        self.is_deep = False
        self._open: list[Tree] = [self.tree]
        self._in_link = 0

    def add(self, token: Token) -> None:
        if token.type == "inline":
            for child in token.children or ():
                self.add(child)
        elif token.hidden:
            pass  # the paragraph of a tight list's item
        elif token.nesting == 1:
            self._enter(token)
        elif token.nesting == -1:
            self._in_link -= token.type == "link_close"
            self._open.pop()
        else:
            self._add_leaf(token)

    def _enter(self, token: Token) -> None:
        if token.type == "link_open":
            href = str(token.attrs.get("href", ""))
            self._in_link += 1
            if not href:
                self._open.append(self._open[-1])  # `[words]()` are words
                return
            node = self._node("a", token, href=href, title=str(token.attrs.get("title", "")))
            # Of a bare address the letters stand in its text.
            if token.markup != "autolink":
                self._count_letters(href, node.get("title", ""))
        else:
            align = _ALIGN.match(str(token.attrs.get("style", "")))
            node = self._node(
                token.tag, token, align=align and align[1], start=token.attrs.get("start")
            )
        node["children"] = []
        self._open.append(node["children"])
        self.is_deep = self.is_deep or len(self._open) > _MAX_OPEN

    def _add_leaf(self, token: Token) -> None:
        if token.type in ("fence", "code_block"):
            language = token.info.strip()
            node = self._node("pre", token, language=language[:_MAX_LANGUAGE])
            if token.type == "fence" and "line" in node:
                node["line"] += 1  # the first line of the code
            node["children"] = [token.content]
            self._count_letters(language[:_MAX_LANGUAGE], token.content)
        elif token.type == "code_inline":
            self._node("code", token)["children"] = [token.content]
            self._count_letters(token.content)
        elif token.type in ("hardbreak", "softbreak"):
            # A line's end in the text is meant as one.
            self._node("br", token)
        elif token.type == "hr":
            self._node("hr", token)
        elif token.type == "image":
            self._add_image(token)
        else:
            self._add_text(token.content)

    def _add_image(self, token: Token) -> None:
        href = str(token.attrs.get("src", ""))
        text = token.content or href
        title = str(token.attrs.get("title", ""))
        if not href:
            self._add_text(text)
            return
        if self._in_link:
            # Nothing leads to two places.
            self._push(f"{text} ({href})")
            self._count_letters(title)
            return
        self._node("a", token, href=href, title=title)["children"] = [text]
        self._count_letters(text, href if token.content else "", title)

    def _add_text(self, text: str) -> None:
        self._count_letters(text)
        last = 0
        for found in () if self._in_link else _BARE_LINK.finditer(text):
            href = _without_tail(found[0])
            if not _LINK.match(href):
                continue
            self._push(text[last : found.start()])
            self._append({"tag": "a", "href": href, "children": [href]})
            last = found.start() + len(href)
        self._push(text[last:])

    def _node(self, tag: str, token: Token, **attributes: Any) -> Node:
        if tag not in TAGS:
            raise AssertionError(f"no tag of ours: {tag}")
        node: Node = {"tag": tag}
        if token.block and token.map:
            node["line"] = token.map[0]
        node.update({name: each for name, each in attributes.items() if each not in (None, "")})
        self._append(node)
        return node

    def _push(self, text: str) -> None:
        if text:
            self._append(text)

    def _append(self, node: Node | str) -> None:
        self.count += 1
        self._open[-1].append(node)

    def _count_letters(self, *texts: str) -> None:
        for text in texts:
            self.letters += _letters(text)


def _without_tail(href: str) -> str:
    """Return an address without what ends the sentence around it; a bracket may be its own."""
    while href[-1] in _AFTER_LINK and not (href[-1] == ")" and href.count("(") >= href.count(")")):
        href = href[:-1]
    return href
