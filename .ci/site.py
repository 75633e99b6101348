"""What mkdocs is told besides mkdocs.yml: links that leave docs/, and the list of the decisions."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
_LEAVING = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+)([^)#]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead a link to a file outside docs/ to the repository, or make its text of it."""
    depth = page.file.src_uri.count("/") + 1
    repository = os.environ.get("REPOSITORY_URL", "")

    def lead(found: re.Match[str]) -> str:
        text, ups, target, anchor = found.groups()
        if ups.count("../") < depth:
            return found[0]
        if not (_ROOT / target).exists():
            raise FileNotFoundError(f"{page.file.src_uri}: {target}")
        return f"[{text}]({repository}/blob/main/{target}{anchor or ''})" if repository else text

    return _LEAVING.sub(lead, markdown)


def on_config(config: Any) -> Any:
    """Put each decision into the contents, by its number."""
    decisions = sorted((_ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    pages = [f"decisions/{page.name}" for page in decisions]
    for section in config.nav:
        for entries in section.values():
            for entry in entries if isinstance(entries, list) else []:
                if isinstance(entry, dict) and "Decisions" in entry:
                    entry["Decisions"] = ["decisions/index.md", *pages]
    return config
