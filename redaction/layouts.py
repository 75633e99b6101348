"""Layouts: where the value of a name stands when no operator leads to it.

Elements, forms and tables, fields called `value` next to one called `name`, and blocks.
"""

# ruff: noqa: FBT001, FBT003 - all judges have one signature, so that they fit one table
from __future__ import annotations

import re

from redaction.evidence import SECRET, Span, Verdict, Wait, looks_secret
from redaction.values import Pair, is_made_up, is_strong, judge_value, require_end

# name: TOKEN, value: …, with up to two other fields between them
_FIELD = (
    rb"""(?:\\?"(?!(?:parameter)?value\\?")\w{1,24}\\?"[ ]?:[ ]?"""
    rb"""(?:\\?"[^"\\\r\n]{0,24}\\?"|true|false|null)[ ]?,\s{0,16})"""
)
_PAIR = re.compile(
    rb"""
    \\?["']?[ \t]*(?:,\s{0,24}|\s{1,24})(?:[-+~][ ]{1,3})? FIELD{0,2}
    \\?["']?(?:parametervalue=|value(?:\\?["']?[ ]?:|[ ]{1,12}=)[ \t]{0,4})
    """.replace(b"FIELD", _FIELD),
    re.VERBOSE | re.IGNORECASE,
)
# 1) "requirepass", then 2) "…"
_ITEM = re.compile(rb"""["']\r?\n[ ]{0,8}[0-9]{1,3}\)[ ](?=["'])""")
# "db_password": {"sensitive": true, "value": …
NESTED = re.compile(
    rb"""\{\s{0,24}FIELD{0,3}\\?"(?:value|default|defaultvalue)\\?"[ ]?:[ ]?(?=\\?")""".replace(
        b"FIELD", _FIELD
    ),
    re.VERBOSE | re.IGNORECASE,
)
# variable "db_password" { default = "…"
_BLOCK = re.compile(
    rb"""
    "[ ]\{\s{1,24}
    (?:\w{1,24}[ ]{1,16}=[ ](?:"[^"\r\n]{0,80}"|[\w.()]{1,24})\s{1,24}){0,3}
    (?:value|default)[ ]{1,16}=[ ](?=")
    """,
    re.VERBOSE,
)
MAY_BE_BLOCK = re.compile(rb"""" \{[^{}]{0,200}""")
MAY_BE_NESTED = re.compile(rb"""\{[\s\w"\\:,]{0,240}""")
# <input name="csrf_token" type="hidden" value="…">, and a form sent in parts
_NAME_ATTRIBUTE = re.compile(rb"""(?:name|id|property)=["']$""", re.IGNORECASE)
_KEY_ATTRIBUTE = re.compile(rb"""(?:name|id|property|key)=["']$""", re.IGNORECASE)
ATTRIBUTE = re.compile(
    rb"""
    ["'](?:
        (?:\s{1,2}(?!value|content)[a-z-]{2,12}=(?:"[^"<>]{0,16}"|'[^'<>]{0,16}')){0,2}
        \s{1,2}(?:value|content)=(?=["'])
      | \r?\n\r?\n
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
# | SecretAccessKey | … |, in ASCII or drawn with lines
_CELL = re.compile(rb"[`*]{0,2}[ ]{1,40}(?:\||\xe2\x94\x82)[ ]{1,40}[`*]{0,2}(?=[^\s|\xe2`*])")
_CELL_BEFORE = re.compile(rb"(?:(?:\||\xe2\x94\x82)[ ]{1,40}|(?:^|[\r\n])[ ]{0,40})[`*]{0,2}$")
_CELL_END = re.compile(rb"[`*]{0,2}(?:&\#?\w{2,4};)?[ ]{0,40}(?:\||\xe2\x94\x82|[\r\n]|<)")
_MAY_BE_CELL_END = re.compile(rb"[`*]{0,2}(?:&\#?\w{0,4};?)?[ ]{0,40}(?:\xe2\x94?)?")
_ELEMENT_BEGINS = re.compile(rb"(?:^|[\s>\"'`])<(?:[\w.-]{1,16}:)?$")
# <token>value, <wsse:Password Type="…">value
_ELEMENT = re.compile(
    rb"""(?:[ ][\w:.-]{1,32}="[^"<>\r\n]{0,120}"){0,3}"""
    rb"""> \s{0,40} (?:<[Vv]alue>)? (?P<raw><!\[CDATA\[)?""",
    re.VERBOSE,
)
# <key>token</key><string>value
_NEXT_ELEMENT = re.compile(rb"</(?:key|name)>\s{0,32}<(?:string|value)>", re.IGNORECASE)
# <td>token</td><td>value
_NEXT_CELL = re.compile(
    rb"[ ]?</t[dh]>\s{0,32}<td[^<>]{0,32}>\s{0,8}(?:<(?:pre|code)>)?(?:&\#(?:x27|39|34);|&quot;)?"
)
_HTML_STOP = re.compile(rb"[\s<]|&(?:#(?:x27|39|34)|quot);")
_CLOSING = re.compile(rb"\s{0,40}</")
_MAY_BE_CLOSING = re.compile(rb"\s{0,40}<?")
_ELEMENT_STOP = re.compile(rb"[\s<]")
_RAW_STOP = re.compile(rb"\]\]>|[\r\n]")
_CELL_STOP = re.compile(rb"[\s`*|]")


def judge_layout(pair: Pair, final: bool) -> Verdict:
    """Judge a value that stands next to its name in an element, in a form or in a table."""
    text, name, end = pair.text, pair.name_start, pair.name_end
    element = _ELEMENT.match(text, end)
    if element and _ELEMENT_BEGINS.search(text, max(0, name - 20), name):
        stop = _RAW_STOP if element["raw"] else _ELEMENT_STOP
        verdict = judge_value(pair, element.end(), final, loose=False, stop=stop)
        if isinstance(verdict, Span) and element.end() > end + 1 and not element["raw"]:
            return _require_closing(text, verdict, final)
        return verdict
    table_cell = _NEXT_CELL.match(text, end)
    if table_cell:
        return _judge_cell(pair, table_cell.end(), _HTML_STOP, final)
    next_element = _NEXT_ELEMENT.match(text, end)
    if next_element:
        return judge_value(pair, next_element.end(), final, loose=False, stop=_ELEMENT_STOP)
    attribute = ATTRIBUTE.match(text, end)
    if attribute and _NAME_ATTRIBUTE.search(text, max(0, name - 12), name):
        return judge_value(pair, attribute.end(), final, loose=False, stop=None)
    element = _ELEMENT.match(text, end + 1)
    if element and _KEY_ATTRIBUTE.search(text, max(0, name - 12), name):
        verdict = judge_value(pair, element.end(), final, loose=False, stop=_ELEMENT_STOP)
        return _require_closing(text, verdict, final) if isinstance(verdict, Span) else verdict
    cell = _CELL.match(text, end)
    if cell and _CELL_BEFORE.search(text, max(0, name - 48), name):
        return _judge_cell(pair, cell.end(), _CELL_STOP, final)
    return None


def find_field(pair: Pair) -> int | None:
    """Return where the value is that stands in a field of its own; None if there is none."""
    for spelling in (_PAIR, _ITEM, _BLOCK):
        field = spelling.match(pair.text, pair.name_end)
        if field:
            return field.end()
    return None


def _judge_cell(pair: Pair, at: int, stop: re.Pattern[bytes], final: bool) -> Verdict:
    """Judge the cell after a name: as often as a value it is a type, or what the name is for."""
    verdict = judge_value(pair, at, final, loose=True, stop=stop)
    if not isinstance(verdict, Span) or looks_secret(pair.text[slice(*verdict)]):
        return verdict
    value = pair.text[slice(*verdict)]
    in_code = pair.text[at - 1 : at] == b"`"
    if pair.weight != SECRET or not (is_made_up(value) or (in_code and is_strong(value))):
        return None
    return require_end(pair.text, verdict, _CELL_END, _MAY_BE_CELL_END, final)


def _require_closing(text: bytes, value: Span, final: bool) -> Verdict:
    """Take a value for that of an element only if the element is closed after it: `<token>` also
    stands for a token in a line of help, and what follows there is any text.
    """
    if _CLOSING.match(text, value.end):
        return value
    rest = text[value.end : value.end + 48]
    may_close = not final and len(rest) < 48 and _MAY_BE_CLOSING.fullmatch(rest)
    return Wait(value.start, True) if may_close else None
