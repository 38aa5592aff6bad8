"""`speciate models [FOLDER ...] | --url URL`: what a model folder holds, or what a server serves."""

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from speciate.assembly import POCKET_FOLDERS
from speciate.cli.parser import Parser
from speciate.core.errors import ConfigError
from speciate.image_assembly import POCKET_IMAGE_FOLDERS
from speciate.models.catalog import (
    image_architecture,
    is_adapter_folder,
    is_diffusers_folder,
    read_adapter_folder,
    read_model_folder,
)
from speciate.models.text_model import load_text_model

FOLDERS = POCKET_FOLDERS | {"pocket-image": POCKET_IMAGE_FOLDERS["pocket-image"]}


def main(arguments: Sequence[str]) -> int:
    """Prints a table. Raises LoadFailed for a folder that cannot be read, ConfigError where no server answers."""
    parser = Parser(
        prog="speciate models", usage="speciate models [FOLDER ...] [--url URL]",
        description="Show what model folders hold, or what a server serves.",
    )  # fmt: skip
    parser.add_argument(
        "folders", nargs="*", metavar="FOLDER", help="model or adapter folders (default: those in the package)"
    )
    parser.add_argument("--url", help="a server that runs, as http://127.0.0.1:8000")
    given = parser.parse_args(arguments)
    table = _served(given.url) if given.url else _folders(given.folders or list(FOLDERS))
    Console().print(table)
    return 0


def _folders(paths: Sequence[str]) -> Table:
    table = Table(
        "folder",
        "architecture",
        "context",
        "weights",
        "chat",
        "tools",
        "fill-in",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for name in paths:
        path = FOLDERS.get(name, Path(name).expanduser())
        if is_adapter_folder(path):
            adapter = read_adapter_folder(path)
            table.add_row(name, f"LoRA, rank {adapter.rank}", "", _size(path), "", "", "")
            continue
        if is_diffusers_folder(path):
            table.add_row(name, image_architecture(path), "", _size(path), "", "", "")
            continue
        folder = read_model_folder(path)
        text = load_text_model(folder)
        tools = text.tool_format.family if text.tool_format else "no"
        table.add_row(
            name, folder.architecture, f"{folder.context_tokens:,}", _size(path),
            "yes" if text.chat_template else "no", tools, text.fim.family if text.fim else "no",
        )  # fmt: skip
    return table


def _size(path: Path) -> str:
    num_bytes = sum(f.stat().st_size for f in path.rglob("*") if f.suffix in (".safetensors", ".bin"))
    return f"{num_bytes / 2**20:,.1f} MiB"


def _served(url: str) -> Table:
    address = f"{url.rstrip('/')}/v1/models"
    try:
        with urllib.request.urlopen(address, timeout=10) as response:
            models = json.load(response)["data"]
    except (urllib.error.URLError, OSError, ValueError, KeyError) as error:
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        raise ConfigError(f"{address} did not answer with models: {why}. Is the server running there?") from error
    table = Table("model", "owned by", "root", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for model in models:
        table.add_row(model["id"], model["owned_by"], str(model.get("root", "")))
    return table
