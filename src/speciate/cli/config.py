"""`speciate config`: check a settings file, or print the defaults or the JSON Schema."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import yaml

from speciate.config import Settings, load_settings, settings_schema


def main(arguments: Sequence[str]) -> int:
    """Prints the resolved settings, or the schema. Raises ConfigError for a bad file."""
    parser = argparse.ArgumentParser(prog="speciate config", description="Check or show settings.")
    parser.add_argument("file", nargs="?", type=Path, help="a speciate.yaml to check; without it, the defaults")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of speciate.yaml")
    given = parser.parse_args(arguments)
    if given.schema:
        print(json.dumps(settings_schema(), indent=2))
    else:
        settings: Settings = load_settings(given.file)
        print(yaml.safe_dump(msgspec.to_builtins(settings), sort_keys=False), end="")
    return 0
