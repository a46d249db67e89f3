"""Settings: `STEADCAST_*` in the environment, then a TOML file, then the defaults; CLI flags stand on top."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads the annotations at run time
from typing import Any, ClassVar

from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)


class Settings(BaseSettings):
    """Everything that can be set; times are in seconds, sizes in bytes."""

    toml_file: ClassVar[Path | None] = None
    model_config = SettingsConfigDict(env_prefix="STEADCAST_", env_nested_delimiter="__", extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8765, ge=0, le=65535)
    base_path: str = ""
    engine: str = "sqlite:///steadcast.db"
    token: str | None = None
    allowed_hosts: list[str] = []
    server_url: str | None = None
    dead_file: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None
    node: str | None = None
    log_format: str = Field(default="text", pattern="^(text|json)$")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    retention_age: float = Field(default=7 * 24 * 3600.0, gt=0)
    retention_events: int = Field(default=1_000_000, gt=0)
    retention_bytes: int = Field(default=2 * 1024**3, gt=0)

    trim_interval: float = Field(default=30.0, gt=0)

    window_events: int = Field(default=1_024, gt=0)
    window_bytes: int = Field(default=1024 * 1024, gt=0)
    ack_overdue: float = Field(default=40.0, gt=0)

    ping_interval: float = Field(default=30.0, gt=0)
    ping_timeout: float = Field(default=10.0, gt=0)
    stale_check_interval: float = Field(default=60.0, gt=0)

    handler_timeout: float | None = Field(default=5.0, gt=0)
    handler_timeouts: dict[str, float | None] = {}

    retry_interval: float = Field(default=2.0, gt=0)
    max_retries: int = Field(default=3, ge=1)
    retry_delay: float = Field(default=1.0, gt=0)
    retry_delay_max: float = Field(default=8.0, gt=0)
    retry_age_limit: float = Field(default=30.0, gt=0)
    retry_queue_size: int = Field(default=1_000, ge=1)
    drain_limit: float = Field(default=10.0, gt=0)

    @classmethod
    def settings_customise_sources(  # noqa: D102 - pydantic-settings' own form
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not a source here
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not a source here
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = cls.toml_file
        return (
            init_settings,
            env_settings,
            *([TomlConfigSettingsSource(settings_cls, toml_file=toml)] if toml else []),
        )


def load(config: Path | None = None, **flags: Any) -> Settings:
    """Read the settings; `flags` that are None don't count. Raises pydantic's ValidationError in words."""
    given = {name: value for name, value in flags.items() if value is not None}
    if config is None:
        return Settings(**given)

    class FromFile(Settings):
        toml_file = config

    return FromFile(**given)
