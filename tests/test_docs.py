"""What the documentation says is there, and what is there is in the documentation."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from claude_profile import ClaudeProfile
from claude_runner import build_command_line
from rev_runner import RevProfile
from run_plan import Profile
from runner_config import SETTINGS
from testing.runner import Kind, RunnerProcess, child, plan
from testing.runner_files import ROOT, RUNNER_FILES, copy_runner
from testing.strict_gateway import StrictGateway

README = (ROOT / "README.md").read_text(encoding="utf-8")
ENV_EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")


PROFILES = (ClaudeProfile(), RevProfile())
EVERY_SETTING = (*SETTINGS, *(setting for profile in PROFILES for setting in profile.settings))


@pytest.mark.parametrize("setting", EVERY_SETTING, ids=lambda setting: setting.variable)
def test_each_setting_is_documented(setting: object) -> None:
    """Each variable stands in the README's table and in .env.example."""
    variable = getattr(setting, "variable")  # noqa: B009 - the type of a parameter is not known

    assert f"`{variable}`" in README
    assert re.search(rf"^(# )?{variable}=", ENV_EXAMPLE, re.MULTILINE)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_each_option_is_documented_and_has_help(profile: Profile) -> None:
    """Each option of each command is in the README, and `--help` says what it is for."""
    parsers = build_command_line(profile).parsers
    text = parsers[""].format_help()
    for command, parser in parsers.items():
        assert command in text
        for action in (action for action in parser._actions if action.option_strings):
            assert action.help
            assert any(option in README for option in action.option_strings)


def test_the_documented_lines_of_the_environment_are_the_example() -> None:
    """The four lines of the integration guide stand in .env.example as they are."""
    for line in (
        "GATEWAY_URL=https://localhost:3100",
        "HMAC_SECRET=<must match gateway>",
        "ALLOW_SELF_SIGNED=true",
        "CLAUDE_COMMAND=claude",
    ):
        assert f"\n{line}\n" in ENV_EXAMPLE


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


def test_the_readme_copies_the_one_list_of_files() -> None:
    """The README's copy command reads the list that the tests copy by."""
    assert "tar -cf - -T wrapper/FILES" in README
    assert "claude_runner.py" in RUNNER_FILES


@pytest.mark.parametrize(
    "message",
    re.findall(r"^\| `([^`]+)` \|", README.split("## When something goes wrong")[1], re.MULTILINE),
)
def test_the_readme_quotes_real_messages(message: str) -> None:
    """Each message in the README's table is one that the program prints."""
    sources = "".join(
        # A sentence that is broken over two string literals is one sentence.
        re.sub(r'"\s*\n\s*f?"', "", (ROOT / name).read_text(encoding="utf-8"))
        for name in RUNNER_FILES
        if name.endswith(".py")
    )
    pieces = re.split(r"…|\d+|HMAC_SECRET|'[^']*'|\([^)]*\)", message)
    for piece in (piece.strip(" ;/.,") for piece in pieces):
        assert piece in sources or len(piece) < 6


def test_relative_links_lead_somewhere() -> None:
    """A link in the documentation leads to a file that is there."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
