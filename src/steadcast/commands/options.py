"""The options that several commands share, and the values that are read from text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from steadcast.client.address import DEFAULT_URL

Url: TypeAlias = Annotated[
    str, typer.Option("--url", envvar="STEADCAST_URL", help="The server.", metavar="URL", show_default=True)
]
Token: TypeAlias = Annotated[
    str | None,
    typer.Option("--token", envvar="STEADCAST_TOKEN", help="The server's token.", metavar="TOKEN"),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]
Config: TypeAlias = Annotated[
    Path | None, typer.Option("--config", help="A TOML file with settings.", metavar="FILE")
]
Stream: TypeAlias = Annotated[str, typer.Argument(help="The stream's name.", show_default=False)]

DEFAULT: str = DEFAULT_URL
