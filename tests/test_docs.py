"""What the documentation says is there, and what is there is in the documentation."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

import claude_runner
from allowlist import DOCUMENTED_COMMANDS, Allowlist, Refused
from config import SETTINGS
from kinds.claude import ClaudeProfile
from kinds.profile import Profile
from places import program_files
from redact import Rules, parse_token_shapes
from rev_runner import RevProfile
from runner.plan import ARTIFACT_TYPES
from testing.ci_scripts import load
from testing.examples import follow
from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.strict_gateway import StrictGateway
from testing.needs import needs
from testing.programs.runner import Kind, RunnerProcess, child, plan
from testing.programs.runner_files import ROOT, RUNNER_FILES, copy_runner
from testing.programs.shared_terminal import public_key
from testing.tables import each_row
from tests import reference
from tools.command_line import build_command_line

PYTHONS = (ROOT / ".ci" / "pythons").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
GET_STARTED = (ROOT / "docs" / "get-started.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "integration.md").read_text(encoding="utf-8")
MESSAGES = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
PAGES = sorted(
    str(page.relative_to(ROOT)) for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
)
ENV_EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")


PROFILES = (ClaudeProfile(), RevProfile())
EVERY_SETTING = (*SETTINGS, *(setting for profile in PROFILES for setting in profile.settings))


def shell_blocks(page: str) -> Iterator[list[str]]:
    """Yield the lines of each block of shell commands in a page."""
    text = (ROOT / page).read_text("utf-8")
    for indent, block in re.findall(r"^( *)```bash\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        yield [line[len(indent) :] for line in block.splitlines() if line.strip()]


@each_row("setting", EVERY_SETTING)
def test_each_setting_is_documented(setting: object) -> None:
    """Each variable is in docs/reference.md and in .env.example."""
    variable = getattr(setting, "variable")  # noqa: B009 - the type of a parameter is not known

    assert f"\n| `{variable}` |" in REFERENCE
    assert re.search(rf"^(# )?{variable}=", ENV_EXAMPLE, re.MULTILINE)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_each_option_is_documented_and_has_help(profile: Profile) -> None:
    """Each option of each subcommand is in docs/reference.md, and `--help` describes it."""
    parsers = build_command_line(profile).parsers
    text = parsers[""].format_help()
    for command, parser in parsers.items():
        assert command in text
        for action in (action for action in parser._actions if action.option_strings):
            assert action.help
            assert any(f"`{option}" in REFERENCE for option in action.option_strings)


def test_the_documented_lines_of_the_environment_are_the_example() -> None:
    """The four lines of docs/get-started.md are in .env.example as they are."""
    for line in (
        "GATEWAY_URL=https://localhost:3100",
        "HMAC_SECRET=<must match gateway>",
        "ALLOW_SELF_SIGNED=true",
        "CLAUDE_COMMAND=claude",
    ):
        assert f"\n{line}\n" in ENV_EXAMPLE
        assert f"\n{line}\n" in GET_STARTED


def test_the_documented_kind_of_runner_runs(tmp_path: Path) -> None:
    """The file of docs/adding-a-runner.md, written down as it stands, is a third runner."""
    page = (ROOT / "docs" / "adding-a-runner.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    copy_runner(tmp_path)
    (tmp_path / "quill_runner.py").write_text(source, encoding="utf-8")
    quill = Kind("quill", "quill")
    with StrictGateway(rate_limit=None) as gateway:
        planned = plan(gateway, child("exits.py", "5", "done"), tmp_path, kind=quill)
        argv = [planned.argv[0], str(tmp_path / "quill_runner.py"), *planned.argv[2:]]
        launch = replace(planned, argv=argv)
        with RunnerProcess(launch) as runner:
            assert runner.wait() == 5

        assert gateway.markers(launch.run.id, "started")[0]["runner"] == "quill"
        assert gateway.text(launch.run.id) == "done go\n"
        assert [each.name for each in gateway.artifacts(launch.run.id)] == ["quill.log"]
        looked = subprocess.run(
            [*argv[:2], "doctor", "--data-dir", str(launch.data_dir)],
            env=launch.env,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (looked.returncode, looked.stderr) == (0, "")
    assert re.search("^ok    program: .*; it is not known to be quill", looked.stdout, re.MULTILINE)


def test_the_readme_begins_with_two_commands() -> None:
    """They lead from nothing to a run of one's own; the one that runs the tests comes later."""
    first, *later = shell_blocks("README.md")

    assert [line.split()[:2] for line in first] == [[PROGRAMS[0], "demo"], [PROGRAMS[0], "up"]]
    assert ["make check"] in later
    assert len(README.splitlines()) < 150


ENTRIES = re.findall(r"^### `(.+)`\n\n<!-- (tests/\S+\.py)::(\w+) -->$", MESSAGES, re.MULTILINE)


def pieces_of(message: str) -> list[str]:
    """Return the parts of a message that are always the same."""
    pieces = re.split(r"…|[:;] |'claude'|HMAC_SECRET|CLAUDE_COMMAND|\([^)]*\)", message)
    return [piece for piece in (each.strip(" ;/.,:()`") for each in pieces) if len(piece) > 5]


def texts_of(tree: ast.AST) -> set[str]:
    """Return the texts in a syntax tree; what a regular expression escapes stands as it is."""
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {each.value.replace("\\", "") for each in constants if isinstance(each.value, str)}


@functools.cache
def texts_of_the_program() -> str:
    """Return the source of everything that prints, each sentence whole."""
    files = [*map(Path, RUNNER_FILES), *(ROOT / "gateway").rglob("*.py")]
    sources = "".join((ROOT / file).read_text("utf-8") for file in files if file.suffix != ".txt")
    # A sentence that is broken over two string literals is one sentence.
    return re.sub(r'"\s*\n\s*(?:\+ )?f?"', "", sources)


def test_each_message_has_an_entry_of_the_same_form() -> None:
    """None is left out of the two checks below by a slip in its form."""
    assert len(ENTRIES) == MESSAGES.count("\n### ") > 30


@each_row("entry", ENTRIES)
def test_each_message_is_produced_by_a_test(entry: tuple[str, str, str]) -> None:
    """A message that users look up is one that the program prints, and the named test sees it."""
    message, file, test = entry
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert test in functions
    called = {node.id for node in ast.walk(functions[test]) if isinstance(node, ast.Name)}
    shared = [node for node in tree.body if not isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    seen = {
        text
        for node in (*shared, *(functions[name] for name in {test, *called} & functions.keys()))
        for text in texts_of(node)
        if len(text) > 8
    }

    pieces = pieces_of(message)
    assert any(
        piece[at : at + 15] in text
        for piece in pieces
        for at in range(max(1, len(piece) - 14))
        for text in seen
    )
    for piece in pieces:
        assert piece in texts_of_the_program(), piece


def anchor(heading: str) -> str:
    """Return the name by which a heading is linked to."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@each_row("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """A link in the documentation leads to a file that is there, and to a heading in it."""
    text = (ROOT / page).read_text("utf-8")
    # ../../issues and its like are pages of the repository at GitHub, not files.
    for target, _, name in re.findall(r"\]\((?!https?://|\.\./\.\./)([^)#]*)(#([^)]*))?\)", text):
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), target
        if name:
            linked = re.sub(r"^```.*?^```$", "", file.read_text("utf-8"), flags=re.M | re.S)
            headings = re.findall(r"^#+ (.*)$", linked, re.MULTILINE)
            assert name in map(anchor, headings), f"{target}#{name}"


@functools.cache
def members_of_classes() -> dict[tuple[str, str], set[str]]:
    """Return, by module and class, what each class of the program has."""
    found: dict[tuple[str, str], set[str]] = {}
    ours = [ROOT / name for name in program_files() if name.endswith(".py")]
    for path in (*ours, *ROOT.glob("gateway/**/*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                found[module, node.name] = set(map(name_of, node.body))
    return found


def name_of(member: ast.stmt) -> str:
    """Return what a statement of a class defines, or an empty text."""
    if isinstance(member, ast.FunctionDef):
        return member.name
    if isinstance(member, ast.AnnAssign):
        return ast.unparse(member.target)
    return ast.unparse(member.targets[0]) if isinstance(member, ast.Assign) else ""


@each_row("page", PAGES)
def test_the_code_that_a_page_names_is_there(page: str) -> None:
    """A class is in the module that is named with it, and has the method that is."""
    classes = members_of_classes()
    ours = {"", *(module for module, _ in classes)}
    text = (ROOT / page).read_text("utf-8")
    named = re.findall(r"`(?:([\w.]+)\.)?(_?[A-Z]\w*[a-z]\w*)(?:\.(\w+))?(?:\(\))?`", text)
    for module, name, member in named:
        if module in ours and (module or member):
            homes = [
                members
                for (home, each), members in classes.items()
                if each == name and module in ("", home)
            ]
            assert homes, f"{module}.{name}"
            assert not member or any(member in members for members in homes), f"{name}.{member}"


def test_the_guide_is_complete() -> None:
    """Every subcommand, operator's command and artifact type is in the integration guide."""
    parsers = build_command_line(ClaudeProfile()).parsers
    for command in filter(None, parsers):
        assert f"`{command}`" in GUIDE
    for suffix in ARTIFACT_TYPES:
        assert suffix in GUIDE
    for command in DOCUMENTED_COMMANDS:
        assert f"`{command}`" in GUIDE


def test_the_reference_is_what_the_program_says() -> None:
    """`make reference` would write the page as it is: options and settings are described once."""
    assert reference.PAGE.read_text("utf-8") == reference.write()
    assert reference.DECISIONS.read_text("utf-8") == reference.write_decisions()
    assert reference.ROOMS.read_text("utf-8") == reference.write_rooms()


def test_each_decision_has_a_status() -> None:
    """A decision that is superseded, whole or in part, names the later one, which names it too."""
    said: dict[str, set[tuple[str, str]]] = {"superseded by": set(), "Supersedes": set()}
    for page in sorted(reference.DECISIONS.parent.glob("[0-9]*.md")):
        status = page.read_text("utf-8").splitlines()[2]
        assert re.match(r"Status: (accepted|accepted in part|superseded by .*)[.:]", status), status
        others = re.findall(r"ecision \d+\]\((\d{4}-[\w-]+\.md)\)", status)
        assert ("in part" in status or "uperse" in status) <= ("](" in status), status
        for other in others:
            newer = re.match(r"Status: accepted\. Supersedes ", status)
            pair = (page.name, other) if newer else (other, page.name)
            said["Supersedes" if newer else "superseded by"].add(pair)

    assert said["Supersedes"] == said["superseded by"] != set()


# Words by which a sentence has to be decoded: it says who does what instead.
_RIDDLES = (
    r"\bwhoso(?:ever)?\b", r"\bwhosoever\b", r"\bhe who\b", r"\bis told of\b", r"\bin its midst\b",
    r"\bwhat is none\b", r"\bnobody who\b", r"\bthat which\b", r"\bof one's own\b(?! to)",
    r"\bmust be mended\b", r"\bis ill\b", r"\bthe like of which\b",
)  # fmt: skip
# What one learns with one task in mind; pages for reading code keep their own style.
_USERS_PAGES = (
    "README.md", "docs/get-started.md", "docs/gateway-team.md", "docs/gateway-proxy.md",
    "docs/troubleshooting.md", "docs/index.md", "docs/glossary.md", "docs/api.md",
    "CONTRIBUTING.md", "SECURITY.md",
)  # fmt: skip
_USERS_RIDDLES = (
    *_RIDDLES,
    r"\bwhoever\b",
    r"\bno longer is\b",
    r"(?<!there )\bis no [a-z]+\b",
    r"\bthat is none\b",
)


@each_row("page", PAGES)
def test_a_page_speaks_plainly(page: str) -> None:
    """No page has a phrase that stands on the list, and a page for users has none of the longer."""
    text = re.sub(r"```.*?```|`[^`]*`", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
    riddles = _USERS_RIDDLES if page in _USERS_PAGES else _RIDDLES

    assert not [found for each in riddles for found in re.findall(each, text, re.IGNORECASE)]


def test_a_list_begins_after_an_empty_line() -> None:
    """GitHub shows it in any case; the site takes it for a part of the sentence before."""
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text("utf-8"), flags=re.M | re.S)
        assert not re.findall(r"^(?![-|#>\s]|\d+\.).+\n- .*$", text, re.MULTILINE), page


def test_every_page_is_in_the_contents() -> None:
    """docs/index.md leads to each page, and the README to the index."""
    index = (ROOT / "docs" / "index.md").read_text("utf-8")

    assert "(docs/index.md)" in README
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in index, page.name


@pytest.mark.parametrize("page", ["docs/comparison.md", "docs/security.md"])
def test_each_claim_has_its_test(page: str) -> None:
    """The test that a page names is there."""
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / page).read_text("utf-8"))

    assert len(named) > 10
    for file, test in named:
        assert re.search(rf"^def {test}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE) or (
            not test and (ROOT / file).exists()
        ), f"{file}::{test}"


def test_the_table_of_the_threads_is_the_programs() -> None:
    """It stands on the first page of the program, and in the documentation word for word."""
    page = (ROOT / "docs" / "how-it-works.md").read_text("utf-8")
    table = page.partition("```text\n")[2].partition("```")[0]

    assert table.startswith("thread ")
    assert table in inspect.cleandoc(claude_runner.__doc__ or "").replace("\n    ", "\n")


def test_the_table_of_the_benchmarks_is_the_scripts() -> None:
    """It is there, with the machine, and every row has a figure for the runner."""
    text = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    table = text.split("<!-- bench: written by")[1].split("<!-- bench: end -->")[0]
    rows = [line.split("|")[1:-1] for line in table.splitlines() if "claude-runner" not in line]
    figures = [row[5] for row in rows if len(row) == 7 and row[0].strip(" -")]

    assert "load average" in table
    assert len(figures) >= 7
    assert all(re.search(r"\d", figure) for figure in figures)


# --- what a page says to type ------------------------------------------------------------------


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@each_row("path", WORKFLOWS)
def test_a_workflow_is_bounded_and_pinned(path: Path) -> None:
    """Its jobs end by themselves and may do what they name; an action is a commit and no tag."""
    text = path.read_text("utf-8")
    workflow = yaml.safe_load(text)
    makefile = (ROOT / "Makefile").read_text("utf-8")

    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert "permissions" in job
        assert str(job.get("uses", "./")).startswith("./")
        assert "uses" in job or {"runs-on", "timeout-minutes"} <= set(job)
        assert all(("run" in step) != ("uses" in step) for step in job.get("steps", []))
    for action in re.findall(r"uses: ([^.\s].*)$", text, re.MULTILINE):
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
    for script in re.findall(r"\.ci/[\w.]+", text):
        assert (ROOT / script).exists(), script
    for target in re.findall(r"make ([\w-]+) PYTHON", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_workflow_runs_the_script_and_both_ends_of_python() -> None:
    """On Linux all of .ci/run; on macOS the suite, with the oldest and the newest Python."""
    check = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text("utf-8"))
    steps = " ".join(step.get("run", "") for step in check["jobs"]["linux"]["steps"])
    minors = re.findall(r"for minor in (.*); do", PYTHONS)[0].split()
    ends = [f"3.{minors[0]}", f"3.{minors[-1]}"]

    assert f'requires-python = ">={ends[0]}"' in (ROOT / "pyproject.toml").read_text("utf-8")
    assert "bash .ci/run" in steps
    assert f"uv python install {' '.join(ends)}" in steps
    assert check["jobs"]["macos"]["strategy"]["matrix"]["python"] == ends
    assert check["jobs"]["macos"]["runs-on"].startswith("macos")


def test_the_changes_of_a_release_are_those_of_its_section() -> None:
    """Nothing of the section below is in them, and no version has none."""
    changes_of = load("changes.py").changes_of
    text = (
        "# C\n\n## [Unreleased]\n\n## [2] - x\n\n- two\n\n## [1] - y\n\n- one\n\n[Unreleased]: a\n"
    )

    assert (changes_of("2", text), changes_of("1", text)) == ("- two\n", "- one\n")
    with pytest.raises(ValueError, match="no section 3"):
        changes_of("3", text)
    assert changes_of("0.1.0", (ROOT / "CHANGELOG.md").read_text("utf-8"))


def test_the_changelog_has_the_usual_form() -> None:
    """Versions from the newest on, each with sections of the six names, each with a link.

    Nothing stands twice, as it may after a merge that keeps both sides.
    """
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## \[(.+?)\](?: - \d{4}-\d\d-\d\d)?$", text, re.MULTILINE)
    usual = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}

    assert versions[0] == "Unreleased"
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= usual
    assert [*re.findall(r"^\[(.+)\]: ", text, re.MULTILINE)] == versions
    for version in re.split(r"^## ", text, flags=re.MULTILINE):
        lines = [line for line in version.splitlines() if line.startswith(("### ", "- "))]
        assert len(lines) == len(set(lines))


PROGRAMS = ("./wrapper/claude-runner", "./wrapper/rev-runner")
_SHELL_WORDS = ("$", "bash", "cd", "curl", "export", "git", "make", "npm", "pip", "pipx", "python")
# What is not started here: it needs the network, another project, or all the time there is.
_NOT_STARTED = (
    "pipx install .",
    "uvx --from . claude-runner --version",
    "python benchmarks/",
    # Of the machine as a whole: docs/team.md.
    "sudo ",
    "curl -fs --retry",
    "curl http://127.0.0.1:3100/",
)


@dataclass
class _Reader:
    """Somebody who types what a page says, in a project of their own with a gateway."""

    project: Path
    gateway: StrictGateway
    env: dict[str, str]

    def type(self, line: str) -> None:
        """Run one line of a shell block; it must succeed. A session is left once it is open."""
        run = self.gateway.create_run()
        other = self.project.parent / "other"
        if "--upgrade" in line or "--uninstall" in line:
            self.type("./wrapper/claude-runner install /path/to/your/project")
        for placeholder, value in (
            ("<run-id>", run.id),
            ("<token>", run.token),
            ("/path/to/your/project", shlex.quote(str(other))),
        ):
            line = line.replace(placeholder, value)
        process = subprocess.Popen(
            ["bash", "-c", line],
            cwd=self.project,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if words_of(line)[1] == "assist":
            self.gateway.wait_for(lambda: self.gateway.events(run.id, "assist"), 30)
            process.terminate()
        printed, _ = process.communicate(timeout=90)
        assert process.returncode == 0, f"{line}\n{printed}"


@pytest.fixture(scope="module")
def set_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the runner, and beside it programs that stand in for others."""
    folder = tmp_path_factory.mktemp("set-up")
    project, programs = folder / "project", folder / "bin"
    project.mkdir()
    copy_runner(project)
    (project / "prompt.txt").write_text("hello")
    (project / "friends.pub").write_text(public_key())
    programs.mkdir()
    tmate = shlex.join(child("fake_tmate.py"))
    for name, does in (("claude", "echo 2.9.9"), ("rev", "echo done"), ("tmate", f'{tmate} "$@"')):
        (programs / name).write_text(f"#!/bin/sh\nexec {does}\n")
        (programs / name).chmod(0o755)
    return project


@pytest.fixture
def reader(set_up: Path) -> Iterator[_Reader]:
    """A project that was installed and configured as the guide says, with a Claude Code."""
    other = set_up.parent / "other"
    other.mkdir()
    with StrictGateway() as gateway:
        (set_up / ".env").write_text(
            f"GATEWAY_URL={gateway.url}\nHMAC_SECRET={gateway.secret}\nCLAUDE_COMMAND=claude\n"
        )
        env = {
            **os.environ,
            "PATH": f"{set_up.parent / 'bin'}:{os.environ['PATH']}",
            "CLAUDE_RUNNER_PYTHON": sys.executable,
        }
        yield _Reader(set_up, gateway, env)
    for folder in (other, set_up / ".data"):
        shutil.rmtree(folder, ignore_errors=True)


def words_of(line: str) -> list[str]:
    """Return the words of a command, without a variable that is set before it."""
    return re.sub(r"^[A-Z_]+=\S+ ", "", line).split()


def commands_of(page: str) -> list[str]:
    """Return every line of a page's shell blocks that is tried."""
    lines = [line for block in shell_blocks(page) for line in block]
    return [line for line in lines if not line.startswith(_NOT_STARTED)]


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in commands_of(page)}))
def test_each_command_of_a_page_works(line: str, reader: _Reader) -> None:
    """What a page says to type succeeds, word for word, in a project that is set up."""
    words = words_of(line)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        return
    assert words[0] in PROGRAMS, f"a page says to type {line}, and nobody tries it"
    assert words[1] in build_command_line(ClaudeProfile()).parsers
    if words[1] not in ("demo", "gateway", "up", "wait"):  # tests/gateway and tests/tools try them
        reader.type(line)


@each_row("page", PAGES)
def test_what_is_to_be_typed_stands_where_it_is_tried(page: str) -> None:
    """A block that is only indented holds data or a drawing, and no command."""
    text = (ROOT / page).read_text("utf-8")
    unfenced = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    typed = {*PROGRAMS, *_SHELL_WORDS}

    indented = re.findall(r"^(?: {4,}|\t)(\S+)(.*)$", unfenced, re.MULTILINE)

    assert not [first + rest for first, rest in indented if first in typed]


@needs("curl")
def test_the_documented_request_creates_a_run(tmp_path: Path) -> None:
    """The lines of docs/api.md, as they stand but for the address."""
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    (lines,) = (each for each in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "curl " in each)
    with EmbeddedGateway(tmp_path, tls=True) as gateway:
        (tmp_path / ".data").symlink_to(gateway.data_dir)
        script = lines.replace("https://localhost:3100", gateway.url)
        done = subprocess.run(
            ["sh", "-ec", script], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        created = json.loads(done.stdout)
        assert gateway.api("GET", f"/api/runs/{created['id']}").json()["command"] == "fix the tests"


# --- the examples of CONTRIBUTING.md -------------------------------------------------------------


def test_the_example_of_a_redaction_rule() -> None:
    """The line is a shape that is new, and removes the token that it is about."""
    (text,) = follow("A redaction rule").values()
    before = (ROOT / "redaction" / "tokens.txt").read_text("utf-8").splitlines()
    (line,) = (each for each in text.splitlines() if each not in before)
    shapes = parse_token_shapes(line)
    shown = f"see quill_{'Ab3dE6gH' * 4} here"

    assert Rules(patterns=shapes).redact(shown) == "see [REDACTED] here"
    assert Rules().redact(shown) == shown


def test_the_example_of_a_command() -> None:
    """It is offered, and taken as it is and not otherwise."""
    ((name, text),) = follow("A command for the operator").items()
    module = types.ModuleType("allowlist_with_one_more")
    sys.modules[module.__name__] = module
    exec(compile(text, name, "exec"), module.__dict__)
    changed = module.Allowlist()

    assert isinstance(changed.check("mix test"), module.Allowed)
    assert isinstance(changed.check("mix test --force"), module.Refused)
    assert isinstance(Allowlist().check("mix test"), Refused)
