"""The text of a command and what becomes of it: nothing but whole entries, and git disarmed."""

from __future__ import annotations

import re
import shlex
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from allowlist import (
    DOCUMENTED_COMMANDS,
    MAX_COMMAND_CHARS,
    Allowed,
    Allowlist,
    AllowlistError,
    Refused,
    git_query,
    harden_git,
    override_git_config,
    parse_extra_commands,
)
from testing.tables import each_row

DOCUMENTED = [
    "npm test",
    "npm run test",
    "pnpm test",
    "yarn test",
    "pytest",
    "pytest -v",
    "go test ./...",
    "cargo test",
    "git diff",
    "git diff --cached",
    "git status",
    "git log --oneline -10",
    "ls -la",
    "pwd",
]
EXTRA = ("make build", "make test", "./custom-script.sh", "echo 'two words'", "git pull --rebase")


def test_the_documented_table_is_the_list() -> None:
    """The entries are those of the documentation, in its order, and then the user's own."""
    assert list(DOCUMENTED_COMMANDS) == DOCUMENTED
    assert Allowlist(EXTRA).commands == (*DOCUMENTED, *EXTRA)


@each_row("command", [*DOCUMENTED, *EXTRA])
def test_an_entry_is_allowed_under_its_own_name(command: str) -> None:
    """Each entry may run, and is told by the name that it was given."""
    decision = Allowlist(EXTRA).check(command)

    assert isinstance(decision, Allowed)
    assert decision.name == command
    assert decision.argv == harden_git(tuple(shlex.split(command)))


def test_a_users_entry_does_not_rename_a_documented_one() -> None:
    """An entry that is there already keeps its name, whatever blanks or quotes the user wrote."""
    decision = Allowlist(["git  'diff'"]).check("git diff")

    assert isinstance(decision, Allowed)
    assert decision.name == "git diff"


@each_row(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("   ", "it is empty"),
        ("''", "it is not in the allowlist of this run"),
        ("make build", "it is not in the allowlist of this run"),
        ("git diff --output=x", "it is not in the allowlist of this run"),
        ("pwd # comment", "it is not in the allowlist of this run"),
        ("__STOP__", "it is not in the allowlist of this run"),
        ("pwd 'x", "its quotes do not match"),
        ("pwd\\", "its quotes do not match"),
        ("pwd\n", "it contains a line break or another control character"),
        ("pwd\x00", "it contains a line break or another control character"),
        ("git\tstatus", "it contains a line break or another control character"),
        ("git\u00a0status", "it contains a line break or another control character"),
        ("pwd\ud800", "it contains a line break or another control character"),
        ("pwd" + " " * 998, "it is longer than 1000 characters"),
    ],
)
def test_a_refusal_says_why(text: str, reason: str) -> None:
    """The reason is a clause that fits after a colon."""
    assert Allowlist().check(text) == Refused(reason)


def test_the_longest_text_is_the_gateways_own_limit() -> None:
    """A thousand characters are looked at, one more is not."""
    assert isinstance(Allowlist().check("pwd".ljust(MAX_COMMAND_CHARS)), Allowed)
    assert isinstance(Allowlist().check("pwd".ljust(MAX_COMMAND_CHARS + 1)), Refused)


# --- for any text -----------------------------------------------------------------------------

# Pieces of which entries, and what looks like them, are made.
PIECES = [
    *("git", "diff", "--cached", "status", "log", "--oneline", "-10", "pwd", "ls", "-la", "npm"),
    *("make", "build", "test", "run", "./custom-script.sh", "echo", "two", "words", "pytest"),
    *(" ", "  ", "\t", "\n", "\r", "\0", "'", '"', "\\", "#", "=", "$", "`", "(", ")", "{", "}"),
    *(";", "&&", "||", "|", "&", ">", "<", "--", "-", "--output=x", "A=b", "__STOP__", "__"),
    *(
        "\u00a0",
        "\u2028",
        "\u200b",
        "\ud800",
        "é",
        "\uff50\uff57\uff44",
        "~",
        "*",
        "?",
        "$(touch x)",
    ),
]
entries = st.sampled_from([*DOCUMENTED, *EXTRA])
texts = st.one_of(
    st.text(),
    st.text(st.characters(codec=None)),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=8).map(" ".join),
    st.tuples(entries, st.sampled_from(PIECES), st.text(max_size=3)).map("".join),
    st.tuples(st.text(max_size=3), st.sampled_from(PIECES), entries).map("".join),
    entries,
)


@given(texts)
@example("git status; pwd")
@example("pwd ")
def test_what_runs_is_an_entry_and_nothing_but_one(text: str) -> None:
    """Whatever the text, either nothing runs or exactly an entry's words do, disarmed for git."""
    decision = Allowlist(EXTRA).check(text)

    by_words = {tuple(shlex.split(command)): command for command in (*DOCUMENTED, *EXTRA)}
    if isinstance(decision, Refused):
        assert text not in by_words.values()
        return
    words = tuple(shlex.split(text))
    assert by_words[words] == decision.name
    assert decision.argv == harden_git(words)
    assert decision.git_query == git_query(words)
    assert text.isprintable()


@given(entries, st.data())
def test_blanks_and_quotes_change_nothing(entry: str, data: st.DataObject) -> None:
    """The same words, however they are quoted and spaced, are the same command."""
    quotings = (shlex.quote, lambda word: f'"{word}"', lambda word: f"'{word}'")
    words = [data.draw(st.sampled_from(quotings))(word) for word in shlex.split(entry)]
    blanks = st.text(" ", min_size=1, max_size=3)
    text = "".join(word + data.draw(blanks) for word in words)

    decision = Allowlist(EXTRA).check(text)

    assert isinstance(decision, Allowed)
    assert decision.name == entry


@given(entries, st.text(string.printable, min_size=1, max_size=5), st.data())
def test_one_word_more_or_less_is_another_command(
    entry: str, word: str, data: st.DataObject
) -> None:
    """A word added anywhere, or left out, never runs the entry that it was."""
    words = shlex.split(entry)
    at = data.draw(st.integers(0, len(words)))
    for changed in ([*words[:at], word, *words[at:]], [*words[:at], *words[at + 1 :]]):
        decision = Allowlist(EXTRA).check(shlex.join(changed))
        if isinstance(decision, Allowed):
            # Only because it happens to be another entry (pytest and pytest -v), or the same one.
            assert tuple(shlex.split(decision.name)) == tuple(changed)


# --- the user's own entries -------------------------------------------------------------------


def test_entries_are_separated_by_commas() -> None:
    """Blanks around an entry and empty ones are left out."""
    value = " make build, make test,./custom-script.sh,, "

    assert parse_extra_commands(value) == ("make build", "make test", "./custom-script.sh")
    assert parse_extra_commands("") == ()
    assert parse_extra_commands("make X, echo # two") == ("make X", "echo # two")


@each_row(
    ("value", "words"),
    [
        ("make; x", "';', which needs a shell"),
        ("a && b", "'&&', which needs a shell"),
        ("a || b", "'||', which needs a shell"),
        ("a | b", "'|', which needs a shell"),
        ("a > b", "'>', which needs a shell"),
        ("a 2>&1", "'>&', which needs a shell"),
        ("a ;<>|& b", "which needs a shell, and commands run without one; put it into a script"),
        ("a # b; c", "';', which needs a shell"),
        ("a X; c", "';', which needs a shell"),
        ("A=b make", "write env A=b make"),
        ("make 'x", "do not match"),
        ("make\x07", "control character"),
        ("make\u00a0x", "control character"),
        ("__STOP__", "is not a command"),
        ("''", "is not a command"),
    ],
)
def test_an_entry_that_cannot_run_as_written_is_told(value: str, words: str) -> None:
    """The user reads what is wrong before a run, not the operator during it."""
    with pytest.raises(AllowlistError, match=re.escape(words)):
        parse_extra_commands(value)
    with pytest.raises(AllowlistError, match=re.escape(words)):
        Allowlist([value])


@pytest.mark.parametrize("value", ["echo 'a;b'", 'grep "x|y" file', "echo a\\;b", "env A=b make"])
def test_an_entry_may_quote_what_a_shell_would_obey(value: str) -> None:
    """What is quoted means itself."""
    decision = Allowlist([value]).check(value)

    assert isinstance(decision, Allowed)
    assert decision.argv == tuple(shlex.split(value))


# --- git, as arguments ------------------------------------------------------------------------


def test_git_diff_is_disarmed() -> None:
    """The documented git commands carry what switches a repository's programs off."""
    assert harden_git(("git", "diff", "--cached")) == (
        *("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"),
        *("-c", "core.pager=cat", "-c", "log.showSignature=false", "-c", "protocol.allow=never"),
        *("-c", "safe.bareRepository=explicit"),
        *("-c", "status.submoduleSummary=false", "--no-pager", "--no-optional-locks"),
        *("diff", "--no-ext-diff", "--no-textconv", "--ignore-submodules=dirty"),
        *("--submodule=short", "--cached"),
    )


@pytest.mark.parametrize(
    ("argv", "at"),
    [
        (("git", "-C", "sub", "diff"), 3),
        (("git", "-c", "x.y=z", "--no-pager", "show", "HEAD"), 4),
        (("/usr/bin/git", "status"), 1),
        (("git", "--git-dir=x", "log"), 2),
        (("git", "--attr-source", "HEAD", "stash", "show"), 3),
    ],
)
def test_options_before_the_subcommand_are_understood(argv: tuple[str, ...], at: int) -> None:
    """An entry of the user's own is disarmed too, and what the user sets in it wins."""
    hardened = harden_git(argv)

    assert hardened[0] == argv[0]
    assert "core.hooksPath=/dev/null" in hardened
    theirs = hardened.index("--no-optional-locks") - 1
    assert hardened[theirs - (at - 1) : theirs] == argv[1:at]
    assert hardened.index("core.hooksPath=/dev/null") < theirs - (at - 1)
    assert git_query(argv) == (
        *(argv[0], "-c", "safe.bareRepository=explicit", *argv[1:at]),
        *("config", "-z", "--show-scope", "--list"),
    )


@pytest.mark.parametrize("argv", [("git", "pull"), ("git", "commit", "-m", "diff"), ("git", "add")])
def test_a_git_command_that_does_more_than_show_keeps_its_programs(argv: tuple[str, ...]) -> None:
    """Hooks, filters and the network belong to what the user allowed; the monitor does not."""
    assert harden_git(argv) == (
        *("git", "-c", "core.fsmonitor=false", "--no-pager", "--no-optional-locks"),
        *argv[1:],
    )
    assert override_git_config(argv, listing(("local", "filter.x.clean=theirs"))) == argv


@pytest.mark.parametrize(
    "entry",
    [
        *("env LC_ALL=C git diff", "nice -n 5 git status", "/usr/bin/env git log"),
        *("nice env A=b /usr/bin/git diff", "sh -c 'git status'", "timeout 5 bash -c 'git show'"),
    ],
)
def test_git_behind_another_program_is_refused_with_the_form_that_works(entry: str) -> None:
    """There a repository's programs could not be switched off."""
    with pytest.raises(AllowlistError, match="write the git command alone"):
        Allowlist([entry])


@pytest.mark.parametrize(
    "entry", ["env GIT_TRACE=1 npm test", "nice pytest tests/git", "pytest -k git", "which git"]
)
def test_a_word_that_looks_like_git_is_no_git(entry: str) -> None:
    """A wrapped program of another name stays allowed."""
    assert isinstance(Allowlist([entry]).check(entry), Allowed)


@pytest.mark.parametrize(
    "entry",
    [
        *("git diff --ext-diff", "git log -p --textc", "git show --show-signature"),
        *(
            "git cat-file --textconv HEAD:a",
            "git diff --submodule=diff",
            "git status --ignore=none",
        ),
    ],
)
def test_an_entry_does_not_switch_a_repositorys_programs_on(entry: str) -> None:
    """An option of the entry comes last, and would win; git takes its beginning too."""
    with pytest.raises(AllowlistError, match="leave that out"):
        Allowlist([entry])


def test_an_alias_is_refused() -> None:
    """Whoever sets it, it may be any program, and nobody can tell what it would need."""
    for scope in ("local", "global"):
        with pytest.raises(AllowlistError, match="git St is an alias"):
            override_git_config(("git", "St"), listing((scope, "alias.st=!evil")))
    assert (
        override_git_config(("git", "diff"), listing(("local", "alias.diff=!evil")))[-1] == "diff"
    )


@pytest.mark.parametrize(
    "argv", [("npm", "test"), ("git",), ("git", "--version"), ("./git-x", "diff")]
)
def test_what_is_no_git_command_is_left_alone(argv: tuple[str, ...]) -> None:
    """Nothing is added to other programs."""
    assert harden_git(argv) == argv
    assert git_query(argv) == ()


def listing(*settings: tuple[str, str]) -> bytes:
    """Return what git prints for `scope`, `key` or `key=value`."""
    return b"".join(
        f"{scope}\0{setting.replace('=', chr(10), 1)}\0".encode() for scope, setting in settings
    )


def overrides(*settings: tuple[str, str]) -> list[str]:
    """Return the settings that are added for this configuration."""
    argv = override_git_config(("git", "diff"), listing(*settings))
    assert argv[0] == "git"
    assert argv[-1] == "diff"
    assert set(argv[1:-1:2]) <= {"-c"}
    return list(argv[2:-1:2])


def test_a_repositorys_filters_are_switched_off_and_the_users_stay() -> None:
    """Of what the repository names, the user's own takes the place, or nothing does."""
    assert overrides(
        ("system", "filter.lfs.clean=git-lfs clean"),
        ("global", "filter.mine.clean=mine"),
        ("global", "filter.lfs.required"),
        ("local", "filter.lfs.clean=evil"),
        ("local", "filter.new.process=evil"),
        ("local", "filter.lfs.required=false"),
        ("worktree", "filter.a.b c.smudge=evil"),
        ("submodule", "filter.x.required"),
        ("local", "filter..clean=evil"),
        ("local", "filter.x.unknown=1"),
        ("local", "filter.clean=no name"),
        ("local", "hook.x.command=evil"),
        ("local", "hook.x.event=post-index-change"),
        ("command", "filter.env.clean=the user's"),
        ("local", "user.name=somebody"),
    ) == [
        "filter.lfs.clean=git-lfs clean",
        "filter.lfs.required=true",
        "filter.a.b c.smudge=",
        "filter.x.required=false",
        "filter..clean=",
        "hook.x.enabled=false",
        "filter.new.clean=",
        "filter.new.smudge=",
        "filter.new.process=",
        "filter.new.required=false",
    ]


def test_a_repositorys_process_switches_the_whole_filter_off() -> None:
    """git does not use the user's `clean` beside a `process`, were it an empty one."""
    assert overrides(
        ("global", "filter.x.clean=mine"),
        ("global", "filter.x.required=true"),
        ("local", "filter.x.process=evil"),
        ("local", "filter.x.clean=evil"),
        ("local", "filter.x.required=true"),
    ) == ["filter.x.clean=", "filter.x.required=false", "filter.x.smudge=", "filter.x.process="]


def test_a_name_that_is_no_text_or_a_secret_is_overridden_too() -> None:
    """Names are compared as bytes, before anything is replaced in them."""
    raw = b"local\0filter.\xff\xfe.clean\nevil\0"

    argv = override_git_config(("git", "diff"), raw)

    assert argv == ("git", "-c", "filter.\udcff\udcfe.clean=", "diff")


@pytest.mark.parametrize("raw", [b"local", b"local\0", b"local\0filter.x.clean", b"a\0b\0c\0"])
def test_a_listing_that_makes_no_sense_lets_nothing_run(raw: bytes) -> None:
    """A list that was cut off might lack the one name that matters."""
    with pytest.raises(AllowlistError, match="incomplete"):
        override_git_config(("git", "diff"), raw)


def test_a_name_that_cannot_be_overridden_lets_nothing_run() -> None:
    """git would read the override of `a=b` as one of `a`."""
    with pytest.raises(AllowlistError, match="cannot be switched off"):
        override_git_config(("git", "diff"), b"local\0filter.a=b.clean\nevil\0")


key_names = st.text(st.characters(codec="utf-8", exclude_characters="\0\n="), max_size=8)


@given(st.lists(st.tuples(st.sampled_from(["local", "worktree", "global"]), key_names)))
def test_no_filter_of_a_repository_is_left(scopes_and_names: list[tuple[str, str]]) -> None:
    """Whatever the names, each filter that the repository sets is set again, to something else."""
    settings = [(scope, f"filter.{name}.clean=evil {scope}") for scope, name in scopes_and_names]

    added = overrides(*settings)

    last = {item.partition(".clean=")[0]: item.partition(".clean=")[2] for item in added}
    for scope, name in scopes_and_names:
        if scope != "global":
            assert last[f"filter.{name}"] in ("", "evil global")
