"""A diff that the operator asks for: shown, redacted, and uploaded whole."""

from __future__ import annotations

from pathlib import Path

from testing.gateways.faults import Fault, JsonError, Status
from testing.gateways.strict_gateway import Ack, StrictGateway
from testing.waiting import eventually
from tests.runner.operated import Runner, assert_in, git, make_repository


def test_a_diff_is_uploaded_whole_and_redacted(plain: StrictGateway, tmp_path: Path) -> None:
    """`latest.diff` has every line of a large diff but no secret, and nothing that is no diff."""
    secret = "gh" + "p_" + "z9Y8" * 9
    runner = Runner(plain, tmp_path)
    make_repository(runner.cwd)
    git(runner.cwd, "config", "core.autocrlf", "input")  # git warns about CRLF on stderr
    lines = [f"line {number} of many\r\n" for number in range(100_000)]
    lines[50_000] = f"{secret}\r\n"
    (runner.cwd / "file.txt").write_bytes("".join(lines).encode())
    (runner.cwd / "staged.txt").write_text(f"staged {secret}\n")
    git(runner.cwd, "add", "staged.txt")

    with runner:
        shown, staged = runner.execute("git diff", "git diff --cached")
        plain.wait_for(lambda: len(plain.artifacts(runner.run.id)) == 2)
        uploads = plain.artifacts(runner.run.id)

    expected = [
        git(runner.cwd, *arguments).replace(secret, "[REDACTED]").encode()
        for arguments in (("diff",), ("diff", "--cached"))
    ]
    assert [(each.name, each.data) for each in uploads] == [
        ("latest.diff", expected[0]),
        ("latest.diff", expected[1]),
    ]
    assert len(expected[0]) > 1_500_000
    assert "bytes are left out here" in str(shown.result)
    assert "CRLF will be replaced by LF" in str(shown.result)
    assert staged.result is not None
    assert "staged [REDACTED]" in staged.result


def test_a_diff_over_the_limit_of_a_proxy_goes_in_parts(
    plain: StrictGateway, tmp_path: Path
) -> None:
    """After a 413 a diff is cut smaller at line ends, and its parts make the whole."""
    runner = Runner(plain, tmp_path)
    make_repository(runner.cwd)
    (runner.cwd / "file.txt").write_text("".join(f"line {n} of many\n" for n in range(10_000)))
    plain.faults.add(
        Fault(lambda r: r.endpoint == "artifact" and len(r.body) > 60_000, Status(413), every=1)
    )
    expected = git(runner.cwd, "diff").encode()

    def is_whole() -> None:
        assert b"".join(each.data for each in plain.artifacts(runner.run.id)) == expected

    with runner:
        runner.execute("git diff")
        eventually(is_whole)
        uploads = plain.artifacts(runner.run.id)

    names = [f"latest.{number}.diff" for number in range(2, len(uploads) + 1)]
    assert [each.name for each in uploads] == ["latest.diff", *names]
    assert len(uploads) > 2
    assert all(each.data.endswith(b"\n") for each in uploads)


def test_a_diff_that_cannot_be_uploaded_is_still_shown(
    plain: StrictGateway, tmp_path: Path
) -> None:
    """A refused upload is told to the user, and takes nothing from the result."""
    runner = Runner(plain, tmp_path)
    make_repository(runner.cwd)
    plain.faults.add(Fault("artifact", JsonError(413, "File too large")))

    with runner:
        (command_id,) = runner.queue("git diff")
        runner.acks(command_id)
        eventually(lambda: assert_in("latest.diff is not uploaded", runner.stderr))
        assert runner.execute("pwd")[0].result

    # Twice, if it was listed just before the gateway had it.
    acks = plain.acks(runner.run.id)[command_id]
    assert acks == [Ack(git(runner.cwd, "diff"), None)] * len(acks)


def test_a_folder_without_a_repository_is_told(plain: StrictGateway, tmp_path: Path) -> None:
    """Outside a repository git's own words are the error."""
    with Runner(plain, tmp_path) as runner:
        acks = runner.execute("git status", "git log --oneline -10")

    for ack in acks:
        assert (ack.error or "").startswith("exit code 128\n")
        assert "not a git repository" in (ack.error or "")
