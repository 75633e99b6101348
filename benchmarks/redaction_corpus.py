"""How well the redactor does on texts of its own making: what it documents, what terminals show,
and what is harmless.

    python benchmarks/redaction_corpus.py [--texts 40] [--seed 11] [--show 3] [--tree DIR ...]

The texts are those of `testing/redaction_corpus.py`. A text is right if nothing of its secret is
left and the text around it is as it was; a harmless one if it comes out as it went in. `--tree`
counts the marks in installed source and documents: how many a megabyte, and the first ones.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from redact import MARK, Rules  # noqa: E402 - the repository is put on the path first
from testing import redaction_corpus as corpus  # noqa: E402

SOURCE = (".py", ".js", ".mjs", ".ts", ".c", ".h", ".go", ".rs", ".rb", ".php", ".sh", ".pl")
DOCUMENTS = (".md", ".rst", ".txt", ".html", ".json", ".yml", ".yaml", ".toml", ".xml", ".css")
# Escapes are hidden in the documented texts.
_TABLES = {"escapes": "documented"}


def score(templates: list[str], options: argparse.Namespace, kind: str) -> float:
    """Print and return the percentage of texts that came out right, with the worst templates."""
    rules, rng = Rules(), random.Random(options.seed)
    wrong: dict[str, list[tuple[bytes, bytes]]] = {}
    total = 0
    for template in templates:
        for _ in range(options.texts):
            text = corpus.fill(template, rng)
            if kind == "escapes":
                text = corpus.hide(text, rng)
            out = corpus.redact(text.raw, rules)
            total += 1
            if not corpus.is_right(text, out, harmless=kind == "harmless"):
                wrong.setdefault(template, []).append((text.raw, out))
    count = sum(map(len, wrong.values()))
    percent = 100 * (total - count) / total
    print(f"{kind:<12} {total - count}/{total}  {percent:.2f} %")
    for template, cases in sorted(wrong.items(), key=lambda item: -len(item[1])):
        if options.show:
            print(f"    {len(cases):3d} of {options.texts}: {template!r}")
        for raw, out in cases[: max(0, options.show - 1)]:
            print(f"        {raw!r}\n     -> {out!r}")
    return percent


def count_marks(tree: Path, show: int) -> None:
    """Print how many marks a megabyte of source and of documents gets."""
    rules = Rules()
    for name, endings in (("source", SOURCE), ("documents", DOCUMENTS)):
        size = marks = 0
        for path in sorted(tree.rglob("*")):
            if path.suffix in endings and path.is_file() and size < 40e6:
                raw = path.read_bytes()[:1_000_000]
                out = corpus.redact(raw, rules)
                new = out.count(MARK) - raw.count(MARK)
                size, marks = size + len(raw), marks + max(0, new)
                for line, before in zip(out.splitlines(), raw.splitlines()) if new and show else ():
                    if line != before:
                        print(f"    {path.name}: {before[:160]!r}\n      {line[:160]!r}")
        megabytes = size / 1e6
        rate = marks / megabytes if size else 0
        print(f"{tree} {name}: {marks} marks in {megabytes:.1f} MB, {rate:.1f} a MB")


def main() -> int:
    """Print the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--texts", type=int, default=40, help="how many texts of each template")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--show", type=int, default=0, help="1: what went wrong; 2: also the texts")
    parser.add_argument("--tree", type=Path, action="append", default=[], help="count marks here")
    options = parser.parse_args()
    for tree in options.tree:
        count_marks(tree, options.show)
    if not options.tree:
        tables = corpus.read_templates()
        for kind in ("documented", "escapes", "terminal", "harmless"):
            score(tables[_TABLES.get(kind, kind)], options, kind)
    return 0


if __name__ == "__main__":
    sys.exit(main())
