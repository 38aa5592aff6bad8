"""`speciate config`: check a settings file, or print the defaults or the JSON Schema."""

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import yaml

from speciate.cli.parser import Parser
from speciate.config import Settings, load_settings, settings_schema


def main(arguments: Sequence[str]) -> int:
    """Prints the resolved settings, or the schema. Raises ConfigError for a bad file."""
    parser = Parser(
        prog="speciate config", usage="speciate config [FILE] [--schema]", description="Check or show settings."
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a speciate.yaml (default: the defaults)")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of speciate.yaml")
    given = parser.parse_args(arguments)
    if given.schema:
        print(json.dumps(settings_schema(), indent=2))
    else:
        settings: Settings = load_settings(given.file)
        print(yaml.safe_dump(msgspec.to_builtins(settings), sort_keys=False), end="")
    return 0
