"""What the gateway does for those who read a run: Markdown, the search, the whole text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gateway.page.changes import MAX_FILES, files_of
from testing.gateways.embedded_gateway import Answer, EmbeddedGateway

EVENTS = [("stdout", "one\nneedle "), ("stderr", "an error\n"), ("info", "a Needle beside"),
          ("stdout", "and more\n▲ it failed\n")]  # fmt: skip


@pytest.fixture(scope="module")
def gw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedGateway]:
    """A gateway for this module."""
    with EmbeddedGateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


def checked(gw: EmbeddedGateway, path: str, method: str, answer: Answer) -> Any:
    """Return what an answer holds, if that is what the document says."""
    document = gw.api("GET", "/api/openapi.json").json()
    content = document["paths"][path][method]["responses"][str(answer.status)]["content"]
    schema = content["application/json"]["schema"]
    jsonschema.validate(answer.json(), {**schema, "components": document["components"]})
    return answer.json()


def test_a_run_is_searched_and_its_text_is_downloaded(gw: EmbeddedGateway, tmp_path: Path) -> None:
    """Hits lead to their lines, over events and pages; without a text the failures are found."""
    run = gw.create_run()
    other = gw.create_run()
    for number, (kind, text) in enumerate(EVENTS, 1):
        gw.send_event(run, kind, text, number)
        gw.send_event(other, "stdout", "needle\n", number)

    def search(query: str) -> Any:
        answer = gw.api("GET", f"/api/runs/{run.id}/search?{query}")
        return checked(gw, "/api/runs/{run_id}/search", "get", answer)

    found = search("q=NEEDLE")
    assert [hit["text"] for hit in found["hits"]] == ["a Needle beside", "needle and more"]
    assert found["next"] is None
    first = search("q=needle&limit=1")
    second = search(f"q=needle&limit=1&from={first['next']}")
    assert [*first["hits"], *second["hits"]] == found["hits"]
    assert [hit["text"] for hit in search("")["hits"]] == ["an error", "▲ it failed"]
    place = search("q=failed")["hits"][0]
    assert search(f"from={place['event']}.{place['line'] + 1}")["hits"] == []
    for wrong in ("from=x", "from=1.2-3.4", "q=" + "x" * 201, "limit=0"):
        assert gw.api("GET", f"/api/runs/{run.id}/search?{wrong}").status == 400

    text = "".join(text for kind, text in EVENTS if kind in ("stdout", "stderr"))
    whole = gw.api("GET", f"/api/runs/{run.id}/text")
    assert whole.body.decode() == text
    assert whole.headers["content-disposition"] == f'attachment; filename="{run.id}.txt"'
    session = gw.log_in()
    ours = {"Origin": f"http://127.0.0.1:{gw.port}", "Content-Type": "application/json"}
    link = gw.request("POST", f"/api/runs/{run.id}/text/link", b"{}", {**session, **ours})
    address = checked(gw, "/api/runs/{run_id}/text/link", "post", link)["address"]
    cookie = {"Cookie": session["Cookie"]}
    assert gw.request("GET", address, headers=cookie).body == whole.body
    assert gw.request("GET", address).status == 401
    assert gw.request("GET", address.replace(run.id, other.id), headers=cookie).status == 401


DIFF = """diff --git a/src/cart.py b/src/cart.py
index 1111111..2222222 100644
--- a/src/cart.py
+++ b/src/cart.py
@@ -1,3 +1,4 @@ def total(items):
 def total(items):
--- a comment
++++ more
+items = "\u2028é"
diff --git a/old name b/new name
rename from old name
rename to new name
diff --git "a/l\\303\\251g\\"nd\\t" "b/l\\303\\251g\\"nd\\t"
new file mode 100644
diff --git a/image.png b/image.png
deleted file mode 100644
Binary files a/image.png and /dev/null differ
diff --git a/big b/big
--- a/big
+++ b/big
@@ -1 +1,1000 @@
"""
BIG = ["@@ -1 +1,1000 @@", *(f"+{n}" for n in range(1_499)), "+" + "x" * 3_000]


def test_what_a_run_changed_comes_file_by_file(gw: EmbeddedGateway) -> None:
    """Small files with their lines, of others a thousand at a time; only of the newest diff."""
    run = gw.create_run()
    path = f"/api/runs/{run.id}/changes"

    def listed() -> Any:
        return checked(gw, "/api/runs/{run_id}/changes", "get", gw.api("GET", path))

    assert listed() == {"parts": [], "files": []}
    second = "\n".join(BIG[1:]) + "\n"
    for name, part in (("changes.diff", DIFF), ("changes.2.diff", second)):
        assert gw.send_artifact(run, name, part.encode()).status == 200
    found = listed()
    assert [each["name"] for each in found["parts"]] == ["changes.diff", "changes.2.diff"]
    names = ("path", "from", "status", "is_binary", "added", "removed", "lines")
    assert [tuple(file[name] for name in names) for file in found["files"]] == [
        ("src/cart.py", None, "changed", False, 2, 1, 5),
        ("new name", "old name", "renamed", False, 0, 0, 0),
        ('lég"nd\t', None, "added", False, 0, 0, 0),
        ("image.png", None, "removed", True, 0, 0, 0),
        ("big", None, "changed", False, 1_500, 0, 1_501),
    ]
    cart, *others = found["files"]
    assert cart["text"].split("\n")[-3:] == ["--- a comment", "++++ more", '+items = "\u2028é"']
    assert "text" not in others[-1]

    of, begin, end = found["parts"][0]["id"], others[-1]["begin"], others[-1]["end"]
    query = f"{path}/lines?of={of}&end={end}&begin="
    lines = []
    while begin is not None:
        answer = gw.api("GET", f"{query}{begin}")
        piece = checked(gw, "/api/runs/{run_id}/changes/lines", "get", answer)
        lines.append(piece["text"].split("\n"))
        begin = piece["next"]
    assert [len(each) for each in lines] == [1_000, 501]
    shortened = f"+{'x' * 1_999}… (1001 more characters)"
    assert [line for each in lines for line in each] == [*BIG[:-1], shortened]

    assert gw.api("GET", f"{path}/lines?of={of}&begin=0").status == 400
    key = cart["key"]
    assert not any(file["was_changed"] for file in found["files"])
    front = 'changed before the run too: src/cart.py\nchanged before the run too: "l\\303\\251g"\n'
    moved = front + "diff --git a/a b/a\n" + DIFF
    assert gw.send_artifact(run, "changes.diff", moved.encode()).status == 200
    found = listed()
    assert [file["key"] for file in found["files"] if file["path"] == "src/cart.py"] == [key]
    assert [file["path"] for file in found["files"] if file["was_changed"]] == ["src/cart.py"]
    assert gw.api("GET", f"{query}0").status == 404


def test_what_is_no_diff_of_a_runner_is_read_in_part(gw: EmbeddedGateway) -> None:
    """A run may send any file under that name, and its page has to open."""
    assert len(files_of(b"diff --git a b\n" * (MAX_FILES + 1))) == MAX_FILES
    run = gw.create_run()
    endless = b"diff --git a/a b/a\n@@ -1 +1 @@\n" + b"+\n" * 9_000_000
    assert gw.send_artifact(run, "changes.diff", endless).status == 200

    (file,) = gw.api("GET", f"/api/runs/{run.id}/changes").json()["files"]

    assert file["end"] == 16 * 1024 * 1024


def test_markdown_comes_as_trees(gw: EmbeddedGateway) -> None:
    """One for each text, or null; not for what is no list of texts, and not without end."""
    answer = gw.api("POST", "/api/markdown", {"texts": ["*a*\n\n- b", "> " * 100 + "deep"]})
    tree, deep = checked(gw, "/api/markdown", "post", answer)["trees"]

    assert json.dumps(tree).count('"tag"') == 4
    assert deep is None
    for wrong in ({}, {"texts": "a"}, {"texts": [1]}):
        assert gw.api("POST", "/api/markdown", wrong).status == 400
    assert gw.api("POST", "/api/markdown", {"texts": ["a"] * 51}).status == 413
    assert gw.api("POST", "/api/markdown", {"texts": ["a" * 100_001]}).status == 413
