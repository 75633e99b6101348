"""JSON: redacts each string by itself, so that the result is JSON of the same structure.

A string alone does not tell that it is the next line of a private key, the word after `--password`
or the value of a member called `token`. The structure around it does, and is used here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from redaction.evidence import HEADER, is_secret, weigh_name

# The members with which an object gives a name and its value: of a variable, a header, a field.
_NAME_MEMBERS = ("name", "key", "variable", "field", "header")
_VALUE_MEMBERS = ("value", "values", "val", "content", "data")
# How a private key may begin, and a line that fits into any.
_KEY_HEADERS = ("-----BEGIN ", "---- BEGIN ", "PuTTY-User-Key-File")
_KEY_LINE = "Ab1+" * 16
# Takes the place of an item that is no word of a command line.
_NO_WORD = "_"


class JsonCleaner:
    """Cleans one JSON value. `redact` redacts a text, and `mark` stands for a whole value.

    Thread: one; make a cleaner for each value.
    """

    def __init__(self, redact: Callable[[str], str], mark: str) -> None:
        self._redact = redact
        self._mark = mark
        self._open_key = ""  # the header of a private key that the last string did not end

    def clean(self, value: Any) -> Any:
        """Return the value with every string redacted, also the names of members."""
        if isinstance(value, str):
            return self._clean_text(value)
        if isinstance(value, Mapping):
            return dict(self._clean_members(value))
        if isinstance(value, (list, tuple)):
            return [self.clean(item) for item in self._clean_words(value)]
        return value

    def _clean_text(self, text: str) -> str:
        """Redact a string, also as the continuation of a private key in the strings before it."""
        begins = any(header in text for header in _KEY_HEADERS)
        if not begins and not self._open_key:
            return self._redact(text)
        whole = f"{self._open_key}\n{text}" if self._open_key else text
        is_open = _KEY_LINE not in self._redact(f"{whole}\n{_KEY_LINE}")
        if begins:
            start = max(map(text.rfind, _KEY_HEADERS))
            self._open_key = text[text.rfind("\n", 0, start) + 1 :].splitlines()[0]
        if not is_open:
            self._open_key = ""
        return self._redact(whole)

    def _clean_members(self, members: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
        """Yield the members with their values cleaned: by what they look like, and by their own
        name or the one that another member gives them.
        """
        given = [members[key] for key in members if str(key).lower() in _NAME_MEMBERS]
        name = next((each for each in given if isinstance(each, str)), "")
        for key, item in members.items():
            is_named = name and str(key).lower() in _VALUE_MEMBERS
            cleaned = self._clean_named(name if is_named else str(key), item)
            yield self._redact(key) if isinstance(key, str) else key, cleaned

    def _clean_named(self, name: str, item: Any) -> Any:
        """Clean a value that has a name, also one inside a list or a `value` member."""
        if isinstance(item, (str, int)):
            return self._mark if _is_secret(name, item) else self.clean(item)
        if isinstance(item, (list, tuple)) and all(isinstance(each, str) for each in item):
            return [self._mark if _is_secret(name, each) else each for each in self.clean(item)]
        if isinstance(item, Mapping):
            wrapped = [key for key in item if str(key).lower() in _VALUE_MEMBERS]
            named = {key: self._mark for key in wrapped if _is_secret(name, item[key])}
            return self.clean({**item, **named})
        return self.clean(item)

    def _clean_words(self, items: Sequence[Any]) -> Sequence[Any]:
        """Redact a list with options in it like one line of text: it is a command line."""
        if not any(isinstance(item, str) and item.startswith("-") for item in items):
            return items
        words = [item if _is_word(item) else _NO_WORD for item in items]
        cleaned = self._redact(" ".join(words)).split(" ")
        if len(cleaned) != len(items):  # several words were one value, and nothing shows which
            return [self._mark if _is_word(item) else item for item in items]
        before = ["", *words]
        return [
            new if _is_word(item) else self._mark if _is_secret(option, item) else item
            for item, new, option in zip(items, cleaned, before)
        ]


def _is_word(item: Any) -> bool:
    return isinstance(item, str) and item.split() == [item]


def _is_secret(name: str, value: Any) -> bool:
    """Say whether a value is a secret by its name."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # a password of digits alone
    if not isinstance(value, str):
        return False
    raw_name, raw = (text.encode("utf-8", "surrogatepass") for text in (name.lstrip("-"), value))
    return weigh_name(raw_name) == HEADER or is_secret(raw_name, raw, quoted=True, loose=False)
