"""`speciate serve` around the fake engine, batches in FOLDER: `python -m benchmarks.batch.server PORT FOLDER`."""

import asyncio
import sys

import uvicorn

from benchmarks.batch.stand import fake_engine
from speciate.api.app import create_app
from speciate.assembly import LoadedModel, Server, api_options, build_server
from speciate.assembly_batches import open_batches
from speciate.config import BatchSettings, ModelSettings, Settings
from speciate.models.catalog import read_model_folder
from speciate.models.pocket import TEXT_DIR
from speciate.models.text_model import load_text_model
from speciate.runtime.garbage import collect_seldom


def main(port: int, folder: str) -> None:
    """Serve `fake` on a loopback port until killed, on the event loop that `speciate serve` runs on."""
    text = load_text_model(read_model_folder(TEXT_DIR))
    model = LoadedModel(ModelSettings(name="fake"), TEXT_DIR, text, fake_engine(text), None)
    batch = BatchSettings(directory=folder, max_lines=1_000_000, max_file_mib=1024)
    settings = Settings(models=(model.settings,), batch=batch)
    server = build_server(settings, [model])
    collect_seldom()
    config = uvicorn.Config("", port=port, log_level="error", access_log=False)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_run(settings, server, config))


async def _run(settings: Settings, server: Server, config: uvicorn.Config) -> None:
    server.start()
    options = api_options(settings)
    async with open_batches(settings, options, server.gateway, server.metrics) as jobs:
        config.app = create_app(server.gateway, options, server.metrics.render, jobs)
        await uvicorn.Server(config).serve()
    await server.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
