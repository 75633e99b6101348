"""One text of every kind in the corpus, with secrets that are made for it.

`benchmarks/redaction_corpus.py` measures with many.
"""

from __future__ import annotations

import random

import pytest

from testing.redaction import RULES
from testing.redaction_corpus import fill, hide, is_right, read_templates, redact


@pytest.mark.parametrize(
    ("kind", "percent"), [("documented", 99), ("terminal", 98.5), ("harmless", 98.5)]
)
def test_of_each_kind_nearly_all_texts_come_out_right(kind: str, percent: float) -> None:
    """No secret is left, no neighbour is eaten, and what is harmless comes out as it went in."""
    rng = random.Random(1)
    texts = [fill(template, rng) for template in read_templates()[kind]]

    wrong = [
        each.raw
        for each in texts
        if not is_right(each, redact(each.raw, RULES), harmless=kind == "harmless")
    ]

    assert len(texts) - len(wrong) >= percent / 100 * len(texts), wrong


def test_what_a_terminal_does_not_show_hides_nothing() -> None:
    """An escape in the middle of a secret is no end of it."""
    rng = random.Random(2)
    texts = [hide(fill(template, rng), rng) for template in read_templates()["documented"]]

    wrong = [
        each.raw for each in texts if not is_right(each, redact(each.raw, RULES), harmless=False)
    ]

    assert len(texts) - len(wrong) >= 0.99 * len(texts), wrong
