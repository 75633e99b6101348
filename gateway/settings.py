"""What the gateway is told: options, the environment, `.env`; and the secrets that it makes itself.

`.env` is the runner's, and is read as the runner reads it: both have to find the same secret there.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from config import (
    ConfigError,
    Setting,
    load_config,
    parse_gateway_url,
    prepare_data_dir,
    write_private,
)
from gateway.access.proxy_login import ProxyLogin, Rule, header_key, parse_rules
from gateway.notify.words import QuietHours, parse_quiet_hours, split_addresses
from gateway.serving.forwarded import TrustedProxies
from gateway.serving.hosts import OWN_PATHS
from places import PROGRAM

DATABASE_URL: Final = "CLAUDE_RUNNER_GATEWAY_DATABASE_URL"
FILES_URL: Final = "CLAUDE_RUNNER_GATEWAY_FILES_URL"
RATE_LIMIT: Final = "CLAUDE_RUNNER_GATEWAY_RATE_LIMIT"
RETENTION_DAYS: Final = "CLAUDE_RUNNER_GATEWAY_RETENTION_DAYS"
OUTPUT_DAYS: Final = "CLAUDE_RUNNER_GATEWAY_OUTPUT_DAYS"
FILES_DAYS: Final = "CLAUDE_RUNNER_GATEWAY_FILES_DAYS"
AUDIT_DAYS: Final = "CLAUDE_RUNNER_GATEWAY_AUDIT_DAYS"
NOTIFY: Final = "CLAUDE_RUNNER_GATEWAY_NOTIFY"
NOTIFY_QUIET: Final = "CLAUDE_RUNNER_GATEWAY_NOTIFY_QUIET"
SIGN_IN_HEADER: Final = "CLAUDE_RUNNER_GATEWAY_SIGN_IN_HEADER"
GROUPS_HEADER: Final = "CLAUDE_RUNNER_GATEWAY_GROUPS_HEADER"
ROLES: Final = "CLAUDE_RUNNER_GATEWAY_ROLES"
DRAIN_SECONDS: Final = "CLAUDE_RUNNER_GATEWAY_DRAIN_SECONDS"
LOG: Final = "CLAUDE_RUNNER_GATEWAY_LOG"
METRICS: Final = "CLAUDE_RUNNER_GATEWAY_METRICS"
TRUSTED_PROXIES: Final = "CLAUDE_RUNNER_GATEWAY_TRUSTED_PROXIES"


def _text(text: str, _: str) -> str:
    return text


def _number(text: str, variable: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise ConfigError(f"{variable} is {text!r}; write a whole number, such as 30")
    return float(text)


def _own_number(text: str, variable: str) -> float | None:
    return _number(text, variable) if text else None


def parse_files_url(text: str, variable: str) -> str:
    """Return the address of a place for files. Raises: ConfigError."""
    parts = urlsplit(text)
    is_folder = parts.scheme == "file" and not parts.netloc and parts.path.startswith("/")
    is_bucket = parts.scheme == "s3" and parts.netloc and "@" not in parts.netloc
    if text and not ((is_folder or is_bucket) and not parts.query and not parts.fragment):
        # Not said again: somebody may have written a key into it.
        raise ConfigError(
            f"{variable} is no address of a folder or a bucket; write one such as "
            "file:///srv/files or s3://bucket/prefix, and keys as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY in the environment"
        )
    return text


def _quiet_hours(text: str, variable: str) -> QuietHours | None:
    try:
        return parse_quiet_hours(text) if text else None
    except ValueError:
        raise ConfigError(
            f"{variable} is {text!r}; write the hours of a day, such as 22:00-07:00"
        ) from None


def _is_json(text: str, variable: str) -> bool:
    if text not in ("text", "json"):
        raise ConfigError(f"{variable} is {text!r}; write text or json")
    return text == "json"


def _address(text: str, variable: str) -> tuple[str, int] | None:
    if not text:
        return None
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+)):([0-9]{1,5})", text, re.ASCII)
    if found is None or int(found[3]) > 65_535:
        raise ConfigError(f"{variable} is {text!r}; write an address such as 127.0.0.1:9464")
    return found[1] or found[2], int(found[3])


def _networks(text: str, variable: str) -> TrustedProxies:
    try:
        return TrustedProxies.parse(text)
    except ValueError as error:
        raise ConfigError(
            f"{variable} is {text!r} ({error}); write networks, such as 127.0.0.1 10.0.0.0/8"
        ) from None


def _header(text: str, variable: str) -> str:
    try:
        header_key(text)
    except ValueError:
        raise ConfigError(
            f"{variable} is {text!r}; write the name of a header, such as X-Forwarded-Email"
        ) from None
    return text


def _rules(text: str, variable: str) -> tuple[Rule, ...]:
    try:
        return parse_rules(text)
    except ValueError as error:
        raise ConfigError(
            f"{variable} has {str(error)!r}; write who has which role, such as "
            "admin=ann@example.org operator=@developers viewer=*"
        ) from None


# They decide where all that runs send goes to, how long it is kept, and who hears of it: not for a
# `.env` that came with a project to say.
OWN: Final = (
    Setting(
        *("rate_limit", RATE_LIMIT, "100", _number),
        "requests of runners in 60 s from one address; 0 for no limit",
        grants=True,
    ),
    Setting(
        *("gateway_retention_days", RETENTION_DAYS, "30", _number),
        "days after which a run in which nothing happens is removed; 0 keeps all",
        grants=True,
    ),
    Setting(
        *("gateway_output_days", OUTPUT_DAYS, "", _own_number),
        "the same for what a run printed, asked and was told (default: as the run)",
        grants=True,
    ),
    Setting(
        *("gateway_files_days", FILES_DAYS, "", _own_number),
        "the same for the files of a run (default: as the run)",
        grants=True,
    ),
    Setting(
        *("gateway_audit_days", AUDIT_DAYS, "", _own_number),
        "days after which a note of what operators did is removed (default: as a run)",
        grants=True,
    ),
    Setting(
        *("notify", NOTIFY, "", _text),
        "addresses of services that are told of runs, with blanks or commas between them",
        secret=True,
        grants=True,
    ),
    Setting(
        *("notify_quiet", NOTIFY_QUIET, "", _quiet_hours),
        "hours in which services are told nothing, such as 22:00-07:00, in this machine's time",
        grants=True,
    ),
    Setting(
        *("database_url", DATABASE_URL, "", _text),
        "another database, as SQLAlchemy writes its address (default: a file in the data folder)",
        grants=True,
    ),
    Setting(
        *("drain_seconds", DRAIN_SECONDS, "0", _number),
        "seconds for which requests are answered after SIGTERM, until a balancer has noticed",
        grants=True,
    ),
    Setting(
        *("files_url", FILES_URL, "", parse_files_url),
        "where uploaded files lie: file:///folder or s3://bucket/prefix (default: the data folder)",
        grants=True,
    ),
    Setting(
        *("log", LOG, "text", _is_json),
        "text, or json: each line is an object, and requests are logged with an id",
        grants=True,
    ),
    Setting(
        *("metrics", METRICS, "", _address),
        "where Prometheus may read numbers without a login, such as 127.0.0.1:9464; off if empty",
        grants=True,
    ),
    Setting(
        *("trusted_proxies", TRUSTED_PROXIES, "", _networks),
        "networks of the proxies in front, whose X-Forwarded- headers count, with blanks between",
        grants=True,
    ),
    Setting(
        *("sign_in_header", SIGN_IN_HEADER, "", _header),
        "the header in which a trusted proxy names who is signed in, such as X-Forwarded-Email",
        grants=True,
    ),
    Setting(
        *("groups_header", GROUPS_HEADER, "X-Forwarded-Groups", _header),
        "the header in which it names their groups, with commas between",
        grants=True,
    ),
    Setting(
        *("roles", ROLES, "", _rules),
        "who of them has which role, such as `admin=ann@example.org operator=@developers viewer=*`",
        grants=True,
    ),
)


class SettingsError(Exception):
    """A setting that the user has to correct; the message is one plain sentence."""


@dataclass(frozen=True)
class Settings:
    """Every setting of the gateway. `runner_…` is what a runner with the same `.env` goes by;
    `notes` are sentences for the user: what was made. `shares_secret`: it is in `env_file`.
    """

    data_dir: Path
    env_file: Path
    hmac_secret: str = field(repr=False)
    admin_token: str = field(repr=False)
    database_url: str = field(repr=False)
    files_url: str
    rate_limit: int
    output_days: float
    files_days: float
    audit_days: float
    redact_patterns: Path | None
    notify: tuple[str, ...] = field(repr=False)
    notify_quiet: QuietHours | None
    runner_url: str
    runner_allows_self_signed: bool
    notes: tuple[str, ...]
    shares_secret: bool = False
    drain_s: float = 0.0
    metrics: tuple[str, int] | None = None
    logs_json: bool = False
    proxy_login: ProxyLogin | None = None
    trusted_proxies: TrustedProxies = field(default_factory=TrustedProxies)

    @property
    def admin_token_file(self) -> Path:
        """Where the admin token is."""
        return self.data_dir / "admin-token"


def load_settings(
    environ: Mapping[str, str], data_dir: str | None, env_file: str | None
) -> Settings:
    """Read and check everything, and make what is missing. Raises: SettingsError."""
    options = {} if data_dir is None else {"CLAUDE_RUNNER_DATA_DIR": data_dir}
    file = None if env_file is None else Path(env_file).expanduser().absolute()
    notes: list[str] = []
    try:
        config = load_config(PROGRAM, environ, own=OWN, options=options, env_file=file)
        file = Path(config.sources[".env"])
        prepare_data_dir(config.data_dir)
        folder = config.data_dir / "gateway"
        folder.mkdir(mode=0o700, exist_ok=True)
        if not config.hmac_secret:
            _make_secret(file, notes)
            config = load_config(PROGRAM, environ, own=OWN, options=options, env_file=file)
        admin_token = _read_or_make(folder / "admin-token")
    except ConfigError as error:
        raise SettingsError(str(error)) from error
    except OSError as error:
        raise SettingsError(f"{error.filename} cannot be written: {error.strerror}") from error
    return Settings(
        data_dir=folder,
        env_file=file,
        hmac_secret=config.hmac_secret,
        admin_token=admin_token,
        database_url=config.own["database_url"] or f"sqlite:///{folder / 'gateway.db'}",
        files_url=config.own["files_url"],
        rate_limit=int(config.own["rate_limit"]),
        **{name: _days(config.own, name) for name in ("output_days", "files_days", "audit_days")},
        redact_patterns=config.redact_patterns,
        notify=split_addresses(config.own["notify"]),
        notify_quiet=config.own["notify_quiet"],
        metrics=config.own["metrics"],
        logs_json=config.own["log"],
        drain_s=config.own["drain_seconds"],
        trusted_proxies=config.own["trusted_proxies"],
        proxy_login=_proxy_login(config.own),
        runner_url=config.gateway_url,
        runner_allows_self_signed=config.allow_self_signed,
        notes=tuple(notes),
        shares_secret=config.sources["HMAC_SECRET"] == str(file),
    )


def _days(own: Mapping[str, Any], name: str) -> float:
    found = own[f"gateway_{name}"]
    return float(own["gateway_retention_days"] if found is None else found)


def _proxy_login(own: Mapping[str, Any]) -> ProxyLogin | None:
    header, rules, proxies = own["sign_in_header"], own["roles"], own["trusted_proxies"]
    if not header and not rules:
        return None
    lacking = [
        variable
        for variable, value in (
            (SIGN_IN_HEADER, header),
            (ROLES, rules),
            (TRUSTED_PROXIES, proxies),
        )
        if not value
    ]
    if lacking:
        raise SettingsError(
            f"to sign in by a header, {' and '.join(lacking)} must be set too; see "
            "docs/gateway-team.md"
        )
    return ProxyLogin(header, own["groups_header"], rules)


def _read_or_make(path: Path) -> str:
    """Return the secret that a file holds, a new one if there is none."""
    try:
        found = path.read_text("utf-8").strip()
    except FileNotFoundError:
        found = ""
    if not found:
        found = secrets.token_urlsafe(32)
        write_private(path, f"{found}\n")
    return found


# The line of the example, or one without a value: it becomes the secret's own.
_UNSET_SECRET = re.compile(
    r"^[ \t]*(?:export[ \t]+)?HMAC_SECRET[ \t]*=[ \t]*(?:<[^\n]*>)?[ \t]*(?:#[^\n]*)?$", re.M
)


def _make_secret(file: Path, notes: list[str]) -> None:
    """Write a new secret into `.env`, and leave its other lines as they are."""
    file = Path(os.path.realpath(file))  # a link stays one
    secret = secrets.token_hex(32)
    line = f"HMAC_SECRET={secret}"
    if file.exists() and not file.is_file():
        raise SettingsError(
            f"{file} is not a file, so HMAC_SECRET cannot be written there; set HMAC_SECRET"
        )
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        text = ""
    if not text:
        # Without the second line the runner refuses the gateway's own certificate.
        text = f"{line}\nALLOW_SELF_SIGNED=true\n"
    elif _UNSET_SECRET.search(text):
        text = _UNSET_SECRET.sub(line, text, count=1)
    else:
        text = f"{text}{'' if text.endswith(chr(10)) else chr(10)}{line}\n"
    partial = file.with_name(f"{file.name}.partial")
    write_private(partial, text)
    os.replace(partial, file)
    notes.append(f"made a new HMAC_SECRET in {file}; runners on other machines need the same")


# Of these a path with the base, and one from which the proxy has taken it, cannot be told apart.
_NO_BASES = OWN_PATHS - {"", "runs"}


def parse_public_url(text: str) -> str:
    """Return an address as browsers write it, with the path below which the page is.

    Raises: ValueError.
    """
    try:
        parts = urlsplit(parse_gateway_url(text, "--public-url"))
    except ConfigError:
        raise ValueError(text) from None
    if _NO_BASES.intersection(parts.path.split("/")[1:2]):
        raise ValueError(text)  # a proxy may take the path off, or not
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path}"
