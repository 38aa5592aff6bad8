"""`speciate serve`: settings from a file and flags, models loaded, the front door opened; drains on SIGTERM."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from speciate.assembly import serve
from speciate.cli.parser import Parser, count, port, positive
from speciate.config import ModelSettings, Settings, load_settings
from speciate.core.errors import ConfigError
from speciate.image_assembly import POCKET_IMAGE
from speciate.scaling.spec import MarketsSpec


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM (then status 0) or SIGINT (130)."""
    given = _parser().parse_args(arguments)
    settings = _with_flags(load_settings(given.config), given)
    logging.basicConfig(
        level=settings.server.log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    return serve(settings)


def _parser() -> Parser:
    parser = Parser(
        prog="speciate serve",
        usage="speciate serve [MODEL ...] [OPTIONS]",
        description="Serve models behind one OpenAI-compatible endpoint. Flags win over the settings file; model flags "
        "apply to every model in it.",
    )
    add = parser.add_argument
    add("model", nargs="*", metavar="MODEL", help="model folders (default: the settings' models, else pocket)")
    add("-c", "--config", type=Path, metavar="FILE", help="a speciate.yaml")
    add("--host", metavar="ADDRESS", help="listen on this address (default 127.0.0.1)")
    add("--port", type=port, metavar="N", help="listen on this port (default 8000; 0: a free one)")
    add("--name", help="name to serve MODEL under (default: its folder's)")
    add("--weights", choices=["f32", "f16", "bf16", "int8", "int4"], metavar="FORMAT",
        help="f32, f16, bf16, int8 (default) or int4")  # fmt: skip
    add("--kv", choices=["u8", "f16", "bf16", "f32"], metavar="FORMAT", help="KV cache: u8 (default), f16, bf16 or f32")
    add("--kv-mib", type=positive, metavar="MIB", help="memory of the KV cache (default 512)")
    add("--max-context", type=count, metavar="TOKENS", help="longest prompt plus output (default: the model's)")
    add("--threads", type=count, metavar="N", help="CPU threads of the engine (default: all cores)")
    add("--data-dir", metavar="FOLDER", help="for files and batches (default: the user's data folder)")
    add("--market", choices=["dedicated", "on_demand", "spot", "edge"], metavar="MARKET",
        help="how this machine is held: dedicated (default), on_demand, spot, edge (for provenance)")  # fmt: skip
    add("--usd-per-h", type=positive, metavar="USD", help="what an hour of this machine costs (default: not known)")
    add("--log-level", choices=["debug", "info", "warning", "error"], metavar="LEVEL",
        help="debug, info (default), warning or error")  # fmt: skip
    return parser


def _model(path: str, name: str | None) -> ModelSettings:
    """A model of the package comes with its adapters."""
    known = {model.path: model for model in (*Settings().models, POCKET_IMAGE)}
    model = known.get(path) or ModelSettings(name=Path(path).resolve().name, path=path)
    return model if name is None else msgspec.structs.replace(model, name=name)


def _with_flags(settings: Settings, given: argparse.Namespace) -> Settings:
    """Flags win over the file; model flags apply to every model."""
    models = settings.models
    if given.model:
        if given.name and len(given.model) > 1:
            raise ConfigError(f"--name names one model, and {len(given.model)} are given; use a settings file.")
        models = tuple(_model(path, given.name) for path in given.model)
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
        markets=_markets_with_flags(settings.markets, given),
        models=tuple(msgspec.structs.replace(model, **wanted) for model in models),
        server=msgspec.structs.replace(settings.server, **{k: v for k, v in server.items() if v is not None}),
    )


def _markets_with_flags(markets: MarketsSpec, given: argparse.Namespace) -> MarketsSpec:
    """A price given by flag is the only one."""
    here = markets.here
    if given.market is not None:
        here = msgspec.structs.replace(here, market=given.market)
    if given.usd_per_h is not None:
        here = msgspec.structs.replace(here, usd_per_h=given.usd_per_h, hourly=(), price=None)
    return msgspec.structs.replace(markets, here=here)
