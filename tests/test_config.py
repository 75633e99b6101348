"""The configuration: where each value comes from, what is refused, and what no child sees."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
from pathlib import Path
from typing import Callable

import pytest

import config
from config import SETTINGS, Config, ConfigError, prepare_data_dir, tell_open_modes
from kinds.claude import ClaudeProfile

SECRET = "s3" * 16


# With the settings of Claude Code's runner.
load_config = functools.partial(config.load_config, own=ClaudeProfile.settings)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with the runner's files in it."""
    (tmp_path / "project" / "wrapper").mkdir(parents=True)
    (tmp_path / "project" / "wrapper" / "claude-runner").touch()
    return tmp_path / "project"


def write_env(root: Path, *lines: str) -> Path:
    """Write the project's `.env`."""
    file = root / ".env"
    file.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return file


def git(folder: Path, *arguments: str) -> None:
    """Run git there."""
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


# --- precedence ------------------------------------------------------------------------------


def test_option_goes_before_environment_before_file_before_default(root: Path) -> None:
    """Each value is taken from the first place that has one, and the place is told."""
    names = ("CLAUDE_RUNNER_POLL_INTERVAL", "CLAUDE_RUNNER_COMMAND_TIMEOUT", "CLAUDE_COMMAND")
    file = write_env(root, *(f"{name}=30" for name in names))

    config = load_config(
        root,
        {names[0]: "20", names[1]: "20"},
        options={names[0]: "10"},
    )

    assert config.poll_interval_s == 10
    assert config.command_timeout_s == 20
    assert config.own["program"] == ("30",)
    assert config.own["flavor"] == "auto"
    sources = [config.sources[name] for name in (*names, "CLAUDE_RUNNER_FLAVOR")]
    assert sources == ["option", "environment", str(file), "default"]


def test_an_empty_value_is_no_value(root: Path) -> None:
    """A variable that is set to nothing leaves the decision to the next place."""
    file = write_env(root, "GATEWAY_URL=https://example.test", "CLAUDE_COMMAND=")

    config = load_config(root, {"GATEWAY_URL": "  "})

    assert (config.gateway_url, config.sources["GATEWAY_URL"]) == (
        "https://example.test",
        str(file),
    )
    assert (config.own["program"], config.sources["CLAUDE_COMMAND"]) == (("claude",), "default")


def test_the_documented_four_lines_work_once_the_secret_is_there(root: Path) -> None:
    """The lines of the guide, copied as they stand, lack nothing but the secret, and say so."""
    lines = [
        "GATEWAY_URL=https://localhost:3100",
        "HMAC_SECRET=<must match gateway>",
        "ALLOW_SELF_SIGNED=true",
        "CLAUDE_COMMAND=claude",
    ]
    file = write_env(root, *lines)

    with pytest.raises(ConfigError) as caught:
        load_config(root, {}).require_secret()
    write_env(root, lines[0], f"HMAC_SECRET={SECRET}", *lines[2:])
    config = load_config(root, {})
    config.require_secret()

    assert str(caught.value) == (
        "HMAC_SECRET still has the example's placeholder; put the gateway's own secret in its "
        f"place ({file})"
    )
    assert config.gateway_url == "https://localhost:3100"
    assert config.hmac_secret == SECRET
    assert config.allow_self_signed is True
    assert config.own["program"] == ("claude",)


def test_the_example_file_is_readable_and_every_line_has_its_default() -> None:
    """What the example shows is what the runner takes, and it names every setting."""
    example = Path(__file__).resolve().parent.parent / ".env.example"

    config = load_config(Path("/nowhere"), {}, env_file=example)

    assert list(config.placeholders) == ["HMAC_SECRET"]
    content = example.read_text("utf-8")
    assert [each.variable for each in SETTINGS if f"{each.variable}=" not in content] == []


def test_a_placeholder_is_passed_over_and_told(root: Path) -> None:
    """A value like <…> counts as unset: a real one further down is taken, else it is named."""
    file = write_env(root, f"HMAC_SECRET={SECRET}", "GATEWAY_URL=<your gateway>")

    config = load_config(root, {"HMAC_SECRET": "<must match gateway>"})

    assert (config.hmac_secret, config.sources["HMAC_SECRET"]) == (SECRET, str(file))
    assert config.gateway_url == "https://localhost:3100"
    assert config.sources["GATEWAY_URL"] == f"default; a placeholder in {file}"
    assert config.placeholders == {"GATEWAY_URL": str(file)}


def test_a_placeholder_is_no_secret_to_redact(root: Path) -> None:
    """It is in the documentation, which Claude Code may well print."""
    write_env(root, "HMAC_SECRET=<must match gateway>")

    assert load_config(root, {}).dotenv == {}


def test_a_missing_secret_is_told_with_the_place_for_it(root: Path) -> None:
    """The sentence names the file that the runner reads."""
    with pytest.raises(ConfigError) as caught:
        load_config(root, {}).require_secret()

    assert str(caught.value) == (
        f"HMAC_SECRET is not set; put the gateway's own secret into {root / '.env'}"
    )


# --- bad values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("GATEWAY_URL", "localhost:3100", "write an address such as https://localhost:3100"),
        ("GATEWAY_URL", "ftp://host", "write an address such as"),
        ("GATEWAY_URL", "https://", "write an address such as"),
        ("GATEWAY_URL", "https://host:99999", "write an address such as"),
        ("GATEWAY_URL", "https://ho st", "write an address such as"),
        ("GATEWAY_URL", "https://[::1", "write an address such as"),
        ("GATEWAY_URL", "https://me:pw@host", "must not contain a user name or password"),
        ("GATEWAY_URL", "https://host/a//b", "write its path with letters, digits"),
        ("GATEWAY_URL", "https://host/a/../b", "write its path with letters, digits"),
        ("GATEWAY_URL", "https://host/%61", "write its path with letters, digits"),
        ("GATEWAY_URL", "https://host/?x=1", "write it without"),
        ("GATEWAY_URL", "https://host/a#", "write it without"),
        ("HMAC_SECRET", "a\udcff", "HMAC_SECRET is not UTF-8; copy it again"),
        ("CLAUDE_RUNNER_TOKEN", "a b", "contains a character that a token cannot have"),
        ("CLAUDE_RUNNER_TOKEN", "a\nX-Evil: 1", "contains a character that a token cannot have"),
        ("CLAUDE_RUNNER_TOKEN", "töken", "contains a character that a token cannot have"),
        ("ALLOW_SELF_SIGNED", "maybe", "ALLOW_SELF_SIGNED is 'maybe'; write true or false"),
        ("CLAUDE_RUNNER_ALLOW_HTTP", "2", "write true or false"),
        ("CLAUDE_RUNNER_ALLOW_REMOTE_INPUT", "ja", "write true or false"),
        ("CLAUDE_RUNNER_POLL_INTERVAL", "often", "write a number of seconds, such as 2"),
        ("CLAUDE_RUNNER_POLL_INTERVAL", "0", "write a number of seconds"),
        ("CLAUDE_RUNNER_POLL_INTERVAL", "-1", "write a number of seconds"),
        ("CLAUDE_RUNNER_COMMAND_TIMEOUT", "nan", "write a number of seconds"),
        ("CLAUDE_RUNNER_COMMAND_TIMEOUT", "1e9", "write a number of seconds"),
        ("CLAUDE_COMMAND", '"open', "has a quote that is not closed; close it, or leave it out"),
        ("CLAUDE_COMMAND", "'claude", "has a quote that is not closed"),
        ("CLAUDE_COMMAND", "claude\\", "ends with a backslash; leave it out"),
        ("CLAUDE_COMMAND", "''", "write the program to run"),
        ("CLAUDE_RUNNER_TMATE_COMMAND", '"" -v', "write the program to run"),
        ("EXTRA_ALLOWED_COMMANDS", "make 'x", "the quotes of"),
        ("EXTRA_ALLOWED_COMMANDS", "make && id", "needs a shell"),
        ("CLAUDE_RUNNER_FLAVOR", "vanilla", "write auto, claude or plain"),
    ],
)
def test_a_bad_value_is_one_sentence(variable: str, value: str, sentence: str, root: Path) -> None:
    """The variable is named, and what to write instead; nothing is guessed."""
    with pytest.raises(ConfigError) as caught:
        load_config(root, {variable: value})

    assert str(caught.value).startswith(variable)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_value_of_a_file_is_told_with_its_line(root: Path) -> None:
    """There may be two files, and the environment: the sentence says which to correct."""
    env = root / ".env"
    env.write_text("A=1\nALLOW_SELF_SIGNED=maybe\n")

    with pytest.raises(ConfigError) as caught:
        load_config(root, {})

    where = f"line 2 of {env}"
    assert str(caught.value) == f"ALLOW_SELF_SIGNED ({where}) is 'maybe'; write true or false"


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("TRUE", True), ("1", True), ("yes", True), ("off", False), ("No", False)],
)
def test_what_people_write_for_true_and_false(text: str, value: bool, root: Path) -> None:
    """The usual words work in any case."""
    assert load_config(root, {"ALLOW_SELF_SIGNED": text}).allow_self_signed is value


def test_an_address_is_kept_without_its_trailing_slash(root: Path) -> None:
    """There is one way to write the address, with the path below which the gateway is."""
    urls = ["https://h:1/", "HTTPS://h:1", "http://[::1]:3100", "https://h/a/b-1/", "https://h/~.a"]

    read = [load_config(root, {"GATEWAY_URL": url}).gateway_url for url in urls]

    assert read == [
        "https://h:1", "https://h:1", "http://[::1]:3100", "https://h/a/b-1", "https://h/~.a"
    ]  # fmt: skip


# --- the file --------------------------------------------------------------------------------


def test_a_file_in_the_current_folder_is_not_trusted(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository that was just cloned does not decide where output is sent."""
    (tmp_path / "cloned").mkdir()
    write_env(tmp_path / "cloned", "GATEWAY_URL=https://evil.example", "CLAUDE_COMMAND=evil")
    monkeypatch.chdir(tmp_path / "cloned")

    config = load_config(root, {})

    assert config.gateway_url == "https://localhost:3100"
    assert config.own["program"] == ("claude",)


def test_quotes_comments_dollars_and_a_byte_order_mark_are_read_right(root: Path) -> None:
    """A secret is taken as written, and an editor's mark does not hide the first name."""
    (root / ".env").write_bytes(
        b"\xef\xbb\xbfHMAC_SECRET='a${HOME}#b' # comment\r\n"
        b'export CLAUDE_COMMAND="my claude"\r\n\r\nNOT A LINE=\r\nEMPTY\r\n'
    )

    config = load_config(root, {"HOME": "/home/me"})

    assert config.hmac_secret == "a${HOME}#b"
    assert config.own["program"] == ("my", "claude")


def test_a_named_file_must_be_there_and_another_one_is_not_read(root: Path, tmp_path: Path) -> None:
    """--env-file takes the place of the usual file."""
    write_env(root, "GATEWAY_URL=https://usual.test")
    other = tmp_path / "other.env"
    other.write_text("CLAUDE_COMMAND=other\n")

    config = load_config(root, {}, env_file=other)
    with pytest.raises(ConfigError) as caught:
        load_config(root, {}, env_file=tmp_path / "missing.env")

    assert config.own["program"] == ("other",)
    assert config.gateway_url == "https://localhost:3100"
    assert str(caught.value) == f"{tmp_path}/missing.env does not exist; correct --env-file"


@pytest.mark.parametrize(
    "text",
    ['GATEWAY_URL="https://half.test\n', "export HMAC_SECRET='half\n", "CLAUDE_COMMAND claude\n"],
)
def test_a_setting_that_cannot_be_read_is_told(text: str, root: Path) -> None:
    """A default must not take its place; the run would go to another gateway."""
    write_env(root, "A=b", text)

    with pytest.raises(ConfigError, match=r"line 2 of .*\.env cannot be read; write NAME=value"):
        load_config(root, {})


def test_lines_of_somebody_else_are_passed_over(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The project's own file may hold what only its own tools understand."""
    write_env(
        root, "source other.env", "CLAUDE_COMMAND=mine", "MULTI='a", "b'", "it's fine", "X=it's"
    )

    config = load_config(root, {})

    assert config.own["program"] == ("mine",)
    assert config.dotenv["X"] == "it's"
    assert config.oddities == ()
    assert capfd.readouterr() == ("", "")


UNREADABLE = {
    # An open quote of another program takes in what follows, to the next quote.
    "before a secret": ('\nAPP_NAME="my app\nHMAC_SECRET="kkk"\n', 2),
    "single": ("A=b\n\n\nAPP_NAME='my app\nHMAC_SECRET='kkk'\n", 4),
    "the last line": ('HMAC_SECRET=k\nX="open\n', 2),
    "CRLF": ('HMAC_SECRET=k\r\nX="open\r\n', 2),
    "closed by an inch mark": ('A=b\nNAME="x\nHMAC_SECRET=kkk\nSIZE=5"\n', 2),
    "closed behind a comment": ("A='x # it\nexport GATEWAY_URL=https://a.test\n# isn't\n", 1),
    "closed by the next value": ('HMAC_SECRET="k\nOTHER="\n', 1),
    "a backslash": ('A=b\nCLAUDE_COMMAND="C:\\claude\\"\nX="y"\n', 2),
    "text behind the quote": ("HMAC_SECRET='k'k\n", 1),
    "another shell's": ("A=b\nset HMAC_SECRET=kkk\n", 2),
    "YAML": ("A=b\n\nHMAC_SECRET: kkk\n", 3),
}


@pytest.mark.parametrize(("text", "line"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_quote_that_is_not_closed_is_told(text: str, line: int, root: Path) -> None:
    """With its line; else a value is lost, or another program's secret is not known as one."""
    write_env(root).write_bytes(text.encode())

    with pytest.raises(ConfigError, match=rf"^line {line} of {root}/\.env (cannot|opens a quote)"):
        load_config(root, {})


@pytest.mark.parametrize(
    "line",
    [
        'PATH="/opt/bin":$PATH',
        "A='a'\"b\"",
        "A='a'; export A",
        'A="say \\"hi\\"" b',
        "A='x\ny' z",
    ],
)
def test_another_program_s_line_may_have_text_behind_a_quote(line: str, root: Path) -> None:
    """A shell reads it, python-dotenv leaves it out, and it takes no later line in."""
    write_env(root).write_text(f"{line}\nHMAC_SECRET=kkk\n", "utf-8")

    assert load_config(root, {}).hmac_secret == "kkk"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("HMAC_SECRET= # paste it here", ""),
        ('HMAC_SECRET=\t# it\'s "here"', ""),
        ("export HMAC_SECRET = #here", ""),
        ("'HMAC_SECRET'=# here", ""),
        ("HMAC_SECRET=#", ""),
        ("HMAC_SECRET='' # here", ""),
        ("HMAC_SECRET=#a1b2", "#a1b2"),
        ("HMAC_SECRET='# a'", "# a"),
        ("HMAC_SECRET=a#b # c", "a#b"),
    ],
)
def test_a_comment_is_no_value(written: str, value: str, root: Path) -> None:
    """Behind an empty one as behind any other, whatever python-dotenv makes of it."""
    write_env(root, "A=b", written, "CLAUDE_COMMAND=mine")

    config = load_config(root, {})

    assert config.hmac_secret == value
    assert config.own["program"] == ("mine",)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("HMAC_SECRET='\"kkk\"'", "HMAC_SECRET (line 2 of {}) begins and ends with a quote"),
        ("HMAC_SECRET=\u201ckkk\u201d", "HMAC_SECRET (line 2 of {}) begins and ends with a quote"),
        ("HMAC_SECRET=k\u200bk", "HMAC_SECRET (line 2 of {}) contains an invisible character "),
        ("HMAC_SECRET=kk\ufeff", "HMAC_SECRET (line 2 of {}) contains an invisible character "),
        ("CLAUDE_COMMAND=a\u00a0b", "CLAUDE_COMMAND (line 2 of {}) contains an invisible "),
        ("\u200bHMAC_SECRET=kkk", "line 2 of {} does not set HMAC_SECRET, because of "),
        ('"HMAC_SECRET"=kkk', "line 2 of {} does not set HMAC_SECRET, because of "),
        ("CLAUDE_COMMAND=\"'my claude'\"", ""),  # here quotes group words
        ("OTHER=k\u200bk", ""),
    ],
)
def test_what_nobody_sees_or_means_is_told(written: str, told: str, root: Path) -> None:
    """Quotes that count as part of a value, and invisible characters, in a name too."""
    file = write_env(root, "A=b", written)

    (*oddities,) = load_config(root, {}).oddities

    assert [each.startswith(told.format(file)) for each in oddities] == [True] * bool(told)


def test_quotes_that_docker_passes_on_are_told(root: Path) -> None:
    """`docker run --env-file` keeps them, so they come in the environment."""
    (told,) = load_config(root, {"HMAC_SECRET": "'kkk'"}).oddities

    assert told.startswith("HMAC_SECRET (environment) begins and ends with a quote")


def test_a_nul_character_is_told(root: Path) -> None:
    """Neither a path nor a process's arguments can hold one."""
    write_env(root, "A=b", "CLAUDE_RUNNER_DATA_DIR=/tmp/a\0b")

    with pytest.raises(ConfigError, match=r"^line 2 of .* contains a NUL character"):
        load_config(root, {})


def make_socket(path: Path) -> None:
    """Make a file to which programs connect."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path.name)  # the whole path may be too long for a socket


UNREADABLE_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "it is not UTF-8 (line 2)": (lambda p: p.write_bytes(b"A=b\nHMAC_SECRET=\xff\n"), ""),
    "UTF-16": (lambda p: p.write_bytes("A=b\n".encode("utf-16")), "it is not UTF-8 (line 1)"),
    "Is a directory": (Path.mkdir, ""),
    "it is a pipe without a writer": (os.mkfifo, ""),
    "a socket": (make_socket, "No such device or address"),
    "a circle of links": (lambda p: p.symlink_to(p), "Too many levels of symbolic links"),
    "endless": (lambda p: p.symlink_to("/dev/zero"), "it is larger than 1 MiB"),
}


@pytest.mark.parametrize("name", UNREADABLE_FILES)
def test_a_file_that_cannot_be_read_is_told(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not passed over, because the user thinks that it counts; nor waited for."""
    monkeypatch.chdir(root)
    make, reason = UNREADABLE_FILES[name]
    make(root / ".env")

    with pytest.raises(ConfigError) as caught:
        load_config(root, {})

    assert f"{root}/.env cannot be read: {reason or name}; " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipe_with_a_writer_is_read(root: Path, tmp_path: Path) -> None:
    """As in `--env-file <(decrypt .env)`, also one that comes late and writes in pieces."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = subprocess.Popen(
        ["sh", "-c", 'exec >"$1"; printf HMAC_SECRET=k1; printf "k2\n"', "-", pipe]
    )
    try:
        assert load_config(root, {}, env_file=pipe).hmac_secret == "k1k2"
    finally:
        writing.kill()
        writing.wait()


def test_secrets_and_the_file_stay_out_of_the_childs_environment(root: Path) -> None:
    """A child inherits what the user's shell gave, less the runner's own secrets."""
    write_env(root, f"HMAC_SECRET={SECRET}", "DATABASE_PASSWORD=from-the-file")
    environ = {"PATH": "/bin", "HMAC_SECRET": SECRET, "CLAUDE_RUNNER_TOKEN": "t" * 20}

    config = load_config(root, environ)

    assert config.child_environment(environ) == {"PATH": "/bin"}
    assert config.dotenv["DATABASE_PASSWORD"] == "from-the-file"


def test_a_configuration_shows_no_secret(root: Path) -> None:
    """A traceback or a debug print of it is harmless."""
    token = "tk" * 16
    write_env(root, f"HMAC_SECRET={SECRET}", "OTHER_PASSWORD=hidden-too")

    shown = repr(load_config(root, {"CLAUDE_RUNNER_TOKEN": token}))

    assert SECRET not in shown
    assert token not in shown
    assert "hidden-too" not in shown


# --- folders ---------------------------------------------------------------------------------


def test_a_project_keeps_its_data_beside_the_wrapper(root: Path) -> None:
    """Whatever the current folder is."""
    config = load_config(root, {"HOME": "/home/me", "XDG_STATE_HOME": "/state"})

    assert config.data_dir == root / ".data"
    assert config.sources[".env"] == str(root / ".env")


@pytest.mark.parametrize(
    ("environ", "env_file", "data_dir"),
    [
        (
            {"HOME": "/home/me"},
            "/home/me/.config/claude-runner/.env",
            "/home/me/.local/state/claude-runner",
        ),
        (
            {"HOME": "/home/me", "XDG_CONFIG_HOME": "/conf", "XDG_STATE_HOME": "/state"},
            "/conf/claude-runner/.env",
            "/state/claude-runner",
        ),
        (
            {"HOME": "/home/me", "XDG_CONFIG_HOME": "here", "XDG_STATE_HOME": "."},
            "/home/me/.config/claude-runner/.env",
            "/home/me/.local/state/claude-runner",
        ),
    ],
    ids=["home", "xdg", "relative"],
)
def test_without_a_wrapper_the_folders_are_the_users(
    environ: dict[str, str], env_file: str, data_dir: str, tmp_path: Path
) -> None:
    """Installed as a package the runner does not write beside its code, whoever lies there."""
    (tmp_path / "wrapper").mkdir()

    config = load_config(tmp_path, environ)

    assert config.sources[".env"] == env_file
    assert str(config.data_dir) == data_dir


def test_the_data_folder_is_private_and_ignored(tmp_path: Path) -> None:
    """Nobody else reads it, and git does not offer it."""
    folder = tmp_path / "a" / "data"

    prepare_data_dir(folder)
    prepare_data_dir(folder)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / ".gitignore").read_text() == "*\n"


def test_a_data_folder_that_came_with_the_project_is_refused(tmp_path: Path) -> None:
    """What git tracks there is a stranger's journal; a spelling of it that some disks take too."""
    git(tmp_path, "init", "-q")
    folder = tmp_path / ".data"
    prepare_data_dir(folder)
    prepare_data_dir(folder)
    (tmp_path / ".DATA" / "runs").mkdir(parents=True, exist_ok=True)
    (tmp_path / ".DATA" / "runs" / "planted").touch()
    git(tmp_path, "add", "--force", ".DATA")

    with pytest.raises(ConfigError, match="git tracks files in the data folder"):
        prepare_data_dir(folder)


def test_a_data_folder_in_what_looks_like_a_repository_is_refused(tmp_path: Path) -> None:
    """The files of a bare repository can come with a clone; git finds nothing to say there."""
    git(tmp_path, "init", "-q")
    git(tmp_path, "init", "-q", "--bare", "bare")
    folder = tmp_path / "bare" / "data"
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / "planted").touch()
    git(tmp_path, "add", "--force", "bare")

    with pytest.raises(ConfigError, match="git tracks files in the data folder"):
        prepare_data_dir(folder)


def test_what_other_users_can_read_is_told(root: Path) -> None:
    """The data folder and `.env` are named, with what mends it, until they are private."""
    config = load_config(root, {})
    prepare_data_dir(config.data_dir)
    env = write_env(root, "HMAC_SECRET=x\n")
    config = load_config(root, {})
    env.chmod(0o600)
    assert list(tell_open_modes(config)) == []
    for path in (config.data_dir, env):
        mode = path.stat().st_mode
        path.chmod(mode | 0o044)
        (told,) = tell_open_modes(config)
        assert told == f"other users can read {path}; `chmod go= {path}` ends that"
        path.chmod(mode)


GRANTS = {
    "CLAUDE_RUNNER_ALLOW_HTTP": "true",
    "CLAUDE_RUNNER_ALLOW_REMOTE_INPUT": "true",
    "CLAUDE_RUNNER_DATA_DIR": "../another-project/.data",
    "CLAUDE_RUNNER_TMATE_COMMAND": "./tools/tmate",
    "CLAUDE_RUNNER_TMATE_HOST": "tmate.example",
    "EXTRA_ALLOWED_COMMANDS": "sh -c id",
}


@pytest.mark.parametrize("variable", GRANTS)
def test_a_tracked_env_file_grants_nothing(root: Path, variable: str) -> None:
    """A program, an allowlist, a permission, a place: the user says them, or names the file."""
    env = write_env(root, f"GATEWAY_URL=https://gateway.example\n{variable}={GRANTS[variable]}\n")
    git(root, "init", "-q")
    load_config(root, {})

    git(root, "add", "--force", ".env")

    with pytest.raises(ConfigError) as caught:
        load_config(root, {variable: ""})
    assert str(caught.value) == (
        f"git tracks {env}, so it may have come with the project, and it sets {variable}; "
        f"look at it, and if you want that, start with --env-file {env}"
    )
    load_config(root, {}, env_file=env)
    (root / ".git" / "index").write_bytes(b"no index")  # git cannot say
    with pytest.raises(ConfigError, match="git cannot say whether it tracks"):
        load_config(root, {})


def test_a_tracked_env_file_with_an_address_is_fine(root: Path) -> None:
    """A team may share where its gateway is, and what is the default anyway."""
    write_env(
        root,
        "GATEWAY_URL=https://gateway.example\nALLOW_SELF_SIGNED=true\nEXTRA_ALLOWED_COMMANDS=\n"
        "CLAUDE_RUNNER_ALLOW_HTTP=no\nCLAUDE_RUNNER_TMATE_COMMAND=tmate\n",
    )
    git(root, "init", "-q")
    git(root, "add", "--force", ".env")

    assert load_config(root, {}).gateway_url == "https://gateway.example"


def test_a_tracked_env_file_says_nothing_of_the_users_own_gateway(root: Path) -> None:
    """Which certificate is good enough for an address that the user has named elsewhere."""
    git(root, "init", "-q")
    write_env(root, "ALLOW_SELF_SIGNED=true\n")
    git(root, "add", "--force", ".env")
    own = {"GATEWAY_URL": "https://gateway.example"}

    with pytest.raises(ConfigError, match="sets ALLOW_SELF_SIGNED; look at it"):
        load_config(root, own)
    assert not load_config(root, {**own, "ALLOW_SELF_SIGNED": "false"}).allow_self_signed
    assert load_config(root, {}).allow_self_signed


def test_a_device_is_not_read_without_end(root: Path) -> None:
    """A link to one can come with a clone."""
    (root / ".env").symlink_to("/dev/zero")

    with pytest.raises(ConfigError, match=r"\.env cannot be read: it is larger than 1 MiB"):
        load_config(root, {})


def test_a_data_folder_of_no_use_is_told(tmp_path: Path) -> None:
    """With the reason, and the variable that names another one."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError) as caught:
        prepare_data_dir(tmp_path / "file" / "data")

    assert str(caught.value) == (
        f"the data folder {tmp_path}/file/data cannot be written (Not a directory); "
        "set --data-dir or CLAUDE_RUNNER_DATA_DIR to another one"
    )


def test_a_configuration_cannot_be_changed(root: Path) -> None:
    """What was checked at the door stays as it was checked."""
    config: Config = load_config(root, {})

    with pytest.raises(AttributeError):
        config.gateway_url = "https://evil.example"  # type: ignore[misc]
