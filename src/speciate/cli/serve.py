"""`speciate serve`: settings from a file and flags, models loaded, the front door opened; drains on SIGTERM."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from speciate.assembly import serve
from speciate.config import ModelSettings, Settings, load_settings


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM (then status 0) or SIGINT (130)."""
    given = _parser().parse_args(arguments)
    settings = _with_flags(load_settings(given.config), given)
    logging.basicConfig(
        level=settings.server.log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    return serve(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="speciate serve", description="Serve models behind one endpoint.")
    parser.add_argument("model", nargs="?", help="a model folder; without it, the settings' models (default: pocket)")
    parser.add_argument("-c", "--config", type=Path, help="a speciate.yaml")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8000; 0 picks a free one)")
    parser.add_argument("--name", help="name to serve MODEL under (default: its folder's name)")
    parser.add_argument(
        "--weights", choices=["f32", "f16", "bf16", "int8", "int4"], help="weight format (default int8)"
    )
    parser.add_argument("--kv", choices=["u8", "f16", "bf16", "f32"], help="KV cache format (default u8)")
    parser.add_argument("--kv-mib", type=float, help="KV cache memory in MiB (default 512)")
    parser.add_argument("--max-context", type=int, help="longest prompt plus output in tokens")
    parser.add_argument("--threads", type=int, help="CPU threads of the engine (default: all cores)")
    parser.add_argument("--data-dir", help="where files and batches are kept (default: the user's data folder)")
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"])
    return parser


def _with_flags(settings: Settings, given: argparse.Namespace) -> Settings:
    """Flags win over the file; model flags apply to every model."""
    models = settings.models
    if given.model is not None:
        name = given.name or Path(given.model).resolve().name
        models = (ModelSettings(name=name, path=given.model),)
    changes = {
        "weights": given.weights,
        "kv": given.kv,
        "kv_mib": given.kv_mib,
        "max_context_tokens": given.max_context,
        "threads": given.threads,
    }
    wanted = {key: value for key, value in changes.items() if value is not None}
    server = {"host": given.host, "port": given.port, "log_level": given.log_level}
    batch = settings.batch
    if given.data_dir is not None:
        batch = msgspec.structs.replace(batch, directory=given.data_dir)
    return msgspec.structs.replace(
        settings,
        batch=batch,
        models=tuple(msgspec.structs.replace(model, **wanted) for model in models),
        server=msgspec.structs.replace(settings.server, **{k: v for k, v in server.items() if v is not None}),
    )
