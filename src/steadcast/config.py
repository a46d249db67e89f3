"""Settings: `STEADCAST_*` in the environment, then a TOML file, then the defaults; CLI flags stand on top."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Meta

from steadcast.core.scopes import TokenRule  # noqa: TC001 - msgspec reads the annotations at run time
from steadcast.errors import InvalidSettings

PREFIX: Final = "STEADCAST_"
"""What the names of environment variables begin with."""

Port = Annotated[int, Meta(ge=0, le=65535)]
FlushWindow = Annotated[float, Meta(ge=0, le=1)]
LONGEST: Final = 1e9
"""Seconds, some thirty years. What has no end, as TOML's `inf`, is no time that a log can reckon with."""
LARGEST: Final = 2**53 - 1
"""The largest number that JSON tells everybody exactly."""
AtLeast0 = Annotated[float, Meta(ge=0, le=LONGEST)]
Above0 = Annotated[float, Meta(gt=0, le=LONGEST)]
AtLeast1 = Annotated[int, Meta(ge=1, le=LARGEST)]


class _FromText(NamedTuple):
    """What the environment said, until it is known of which type it must be."""

    text: str


class Default:
    """Makes a field's value where none is given: the environment's, else the default."""

    def __init__(self, value: Any) -> None:
        """Have `value` as the default."""
        self.value = value
        self.name = ""

    def __call__(self) -> Any:
        """Give the environment's text or the default; an empty variable counts as none."""
        text = os.environ.get(variable(self.name))
        return _FromText(text) if text else self.value


def _default(value: Any) -> Any:
    return msgspec.field(default_factory=Default(value))


def variable(name: str) -> str:
    """Name the environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set; times are in seconds, sizes in bytes.

    What isn't given comes from the environment. Raises `InvalidSettings`, which names all that are wrong.
    """

    host: str = _default("127.0.0.1")
    port: Port = _default(8765)
    base_path: str = _default("")
    engine: str = _default("sqlite:///steadcast.db")
    token: str | None = _default(None)
    tokens: list[TokenRule] = _default([])
    jwt_secret: str | None = _default(None)
    jwt_jwks: Path | None = _default(None)
    jwt_issuer: str | None = _default(None)
    jwt_audience: str | None = _default(None)
    jwt_leeway: AtLeast0 = _default(0.0)
    allowed_hosts: list[str] = _default([])
    cors_origins: list[str] = _default([])
    trusted_proxies: list[str] = _default(["127.0.0.1", "::1"])
    server_url: str | None = _default(None)
    rate_connects: str = _default("50/second")
    rate_publishes: str = _default("off")
    rate_guesses: str = _default("10/minute")
    admit_at_once: AtLeast1 = _default(16)
    admit_waiting: AtLeast1 = _default(5_000)
    masking: bool = _default(True)
    mask_patterns: list[str] = _default([])
    mask_keys: list[str] = _default([])
    dead_file: Path | None = _default(None)
    certfile: Path | None = _default(None)
    keyfile: Path | None = _default(None)
    node: str | None = _default(None)
    log_format: Literal["text", "json"] = _default("text")
    log_level: Literal["debug", "info", "warning", "error"] = _default("info")
    otel: bool = _default(False)

    retention_age: Above0 = _default(7 * 24 * 3600.0)
    retention_events: AtLeast1 = _default(1_000_000)
    retention_bytes: AtLeast1 = _default(2 * 1024**3)

    trim_interval: Above0 = _default(30.0)

    window_events: AtLeast1 = _default(1_024)
    window_bytes: AtLeast1 = _default(1024 * 1024)
    ack_overdue: Above0 = _default(40.0)

    fanout: Literal["preframed", "single", "stock"] = _default("preframed")
    flush_window: FlushWindow = _default(0.005)
    websocket_deflate: bool = _default(False)

    ping_interval: Above0 = _default(30.0)
    ping_timeout: Above0 = _default(10.0)
    stale_check_interval: Above0 = _default(60.0)

    handler_timeout: Above0 | None = _default(5.0)
    handler_timeouts: dict[str, Above0 | None] = _default({})

    retry_interval: Above0 = _default(2.0)
    max_retries: AtLeast1 = _default(3)
    retry_delay: Above0 = _default(1.0)
    retry_delay_max: Above0 = _default(8.0)
    retry_age_limit: Above0 = _default(30.0)
    retry_queue_size: AtLeast1 = _default(1_000)
    drain_limit: Above0 = _default(10.0)

    def __repr__(self) -> str:
        shown = {name: "…" if is_secret(name) else getattr(self, name) for name in FIELDS}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def guarded(self) -> bool:
        """Whether clients must show something."""
        return bool(self.token or self.tokens or self.jwt_secret or self.jwt_jwks)

    def __post_init__(self) -> None:
        """Read what came as text, and see that every value is one that its setting may have."""
        wrong = {}
        for field in msgspec.structs.fields(self):
            given = getattr(self, field.name)
            try:
                msgspec.structs.force_setattr(self, field.name, _read(given, field.type))
            except msgspec.MsgspecError as error:
                shown = given.text if isinstance(given, _FromText) else given
                wrong[field.name] = (_in_words(error, field.name), shown)
        if not wrong and self.retry_delay > self.retry_delay_max:
            wrong["retry_delay"] = (
                f"expected at most retry_delay_max, {self.retry_delay_max:g}",
                self.retry_delay,
            )
        if wrong:
            raise _refused(wrong)


def _refused(wrong: dict[str, tuple[str, Any]]) -> InvalidSettings:
    return InvalidSettings("; ".join(f"{name}: {why}" for name, (why, _) in wrong.items()), wrong=wrong)


FIELDS: Final = {field.name: field for field in msgspec.structs.fields(Settings)}

for _name, _field in FIELDS.items():
    _field.default_factory.name = _name


def is_secret(name: str) -> bool:
    """Tell whether a setting's value is never shown."""
    return "token" in name or "secret" in name


def default_of(name: str) -> Any:
    """Give a setting's default, whatever the environment says."""
    return FIELDS[name].default_factory.value


def load(config: Path | None = None, **flags: Any) -> Settings:
    """Read the settings; `flags` that are None don't count.

    Raises `InvalidSettings`; for the file OSError, `tomllib.TOMLDecodeError` and UnicodeDecodeError.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    stored = tomllib.loads(config.read_text("utf-8")) if config is not None else {}
    for name, value in stored.items():
        if not os.environ.get(variable(name)):
            given.setdefault(name, value)
    unknown = {name: ("there is no such setting", None) for name in given if name not in FIELDS}
    try:
        settings = Settings(**{name: value for name, value in given.items() if name in FIELDS})
    except InvalidSettings as error:
        raise _refused(unknown | error.wrong) from error
    if unknown:
        raise _refused(unknown)
    return settings


def _read(given: Any, kind: Any) -> Any:
    if not isinstance(given, _FromText):
        return msgspec.convert(given, kind, dec_hook=_path)
    if _is_many(kind):
        return msgspec.json.decode(given.text, type=kind)
    return msgspec.convert(given.text, kind, strict=False, dec_hook=_path)


def _path(kind: type, given: Any) -> Any:
    if kind is not Path or not isinstance(given, str | Path):
        raise TypeError("expected a path")
    return Path(given)


def _is_many(kind: Any) -> bool:
    return get_origin(kind) in {dict, list, tuple} or any(map(_is_many, get_args(kind)))


def _in_words(error: msgspec.MsgspecError, name: str) -> str:
    if isinstance(error, msgspec.ValidationError):
        return str(error).replace("`", "").lower()
    return f'{variable(name)} takes JSON, as in ["a", "b"] for a list or {{"a": 1}} for a table'
