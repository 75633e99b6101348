"""What each subcommand's `--help` shows: lines to type, each with what it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_RUN: Final = "--run-id ID"
# Of these, the program's own `--help` shows the first example.
USUAL: Final = ("up", "start", "wait", "status", "doctor", "sync", "gateway", "demo")
EXAMPLES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "up": (
        ("~/shop", "a gateway, the runner in this project, a first run"),
        ('~/shop --cmd "fix the failing test"', ""),
        ('~/shop --cmd "fix the failing test" --ask remote', "approve from the page"),
        ("~/shop --no-start", "only its line, for another terminal"),
        ("~/shop -- {arguments}", "arguments of {title}"),
    ),
    "start": (
        (f'{_RUN} --token - --cmd "fix the failing test"', "it asks for the token"),
        (f"{_RUN} --token -", "a session at the keyboard"),
        (f"{_RUN} --token-file FILE --cmd - < prompt.txt", ""),
        (f'{_RUN} --token - --cmd "..." --ask remote', "approve from the page"),
        (f'{_RUN} --token - --cmd "..." -- {{arguments}}', "arguments of {title}"),
    ),
    "wait": (
        ("", "start here what the page sends"),
        ("--name shop --max-time 1h", ""),
        ("--ask remote", "runs may ask on the page"),
    ),
    "status": (
        ("", "what runs here, what is undelivered, the gateway"),
        ("--json", "the same for a program"),
    ),
    "doctor": (
        ("", "is everything as it should be?"),
        ("--fix", "mend what can be mended"),
        (f"{_RUN} --token -", "does the gateway know this run?"),
    ),
    "test-connection": (
        ("", "the gateway and the secret"),
        (f"{_RUN} --token -", "this run too"),
    ),
    "sync": (
        ("", "after an outage or a crash"),
        ("--discard ID", "give up on a run"),
    ),
    "info": (
        ("", "each setting, and where it comes from"),
        ("--json", ""),
    ),
    "assist": (
        (f"{_RUN} --token - --authorized-keys friends.pub", "a terminal for a helper"),
        (f"{_RUN} --token - --max-time 20m", "for anybody with its address"),
    ),
    "gateway": (
        ("", "a gateway of your own"),
        ("--host 0.0.0.0", "for a phone in the same network"),
        ("--public-url https://runs.example.org --http", "behind a proxy"),
        ("--login", "a login for the one that runs"),
        ("people add ann --role operator", "a token for somebody, shown once"),
        ("people list", "who has one"),
        ("people remove ann", ""),
        ("--stop", "end it"),
    ),
    "demo": (
        ("", "the whole loop, right here"),
        ('--cmd "say hello"', "with your own command"),
    ),
    "install": (
        ("~/shop", "the runner in another project"),
        ("~/shop --upgrade", "a newer version"),
        ("~/shop --uninstall", ""),
    ),
    "completion": (
        ('eval "$({typed} completion bash)"', "in ~/.bashrc"),
        ('eval "$({typed} completion zsh)"', "in ~/.zshrc, after compinit"),
        ("{typed} completion fish | source", "in ~/.config/fish/config.fish"),
    ),
}
