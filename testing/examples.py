"""The worked examples of CONTRIBUTING.md, followed step by step."""

from __future__ import annotations

import re

from testing.programs.runner_files import ROOT

_STEP = re.compile(
    r"^(?:In `(?P<file>[^`]+)`, below `(?P<line>[^`]+)`, add|Write `(?P<new>[^`]+)`):\n\n"
    r"```\w+\n(?P<text>.*?)```$",
    re.MULTILINE | re.DOTALL,
)


def follow(example: str) -> dict[str, str]:
    """Return the files that a section of CONTRIBUTING.md changes, as they are afterwards."""
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    section = page.partition(f"### {example}\n")[2].partition("\n### ")[0]
    files: dict[str, str] = {}
    for step in _STEP.finditer(section):
        if step["new"]:
            assert not (ROOT / step["new"]).exists()
            files[step["new"]] = step["text"]
            continue
        text = files.get(step["file"]) or (ROOT / step["file"]).read_text("utf-8")
        assert text.count(f"{step['line']}\n") == 1, step["line"]
        files[step["file"]] = text.replace(f"{step['line']}\n", f"{step['line']}\n{step['text']}")
    assert files, example
    return files
