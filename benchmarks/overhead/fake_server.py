"""Our whole server, front door to scheduler, around the fake engine, whose step only sleeps."""

import asyncio
import sys

import uvicorn

from benchmarks.overhead.echo_server import STEP_S
from speciate.api.app import create_app
from speciate.assembly import LoadedModel, Server, api_options, build_server
from speciate.config import ModelSettings, Settings
from speciate.core.engine import TokenEngineShape
from speciate.engines.fake import FakeEngine, StepCost
from speciate.models.catalog import read_model_folder
from speciate.models.pocket import TEXT_DIR
from speciate.models.text_model import load_text_model
from speciate.runtime.garbage import collect_seldom

WORDS = (" the", " number", " of")


def main(port: int) -> None:
    """Serve `fake` on a loopback port until killed, on the event loop that `speciate serve` runs on."""
    server, config = build(port)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(run(server, config))


async def run(server: Server, config: uvicorn.Config) -> None:
    server.start()
    collect_seldom()
    await uvicorn.Server(config).serve()
    await server.stop()


def build(port: int) -> tuple[Server, uvicorn.Config]:
    folder = read_model_folder(TEXT_DIR)
    text = load_text_model(folder)
    shape = TokenEngineShape(
        model="fake", vocab_size=folder.vocab_size, context_tokens=2048, block_tokens=32, num_blocks=4096,
        block_bytes=1, eos_token_ids=folder.eos_token_ids,
    )  # fmt: skip
    answer = text.tokenizer.encode("".join(WORDS) * 100, False)
    engine = FakeEngine(shape, cost=StepCost(fixed_s=STEP_S), script=lambda prompt: answer)
    model = LoadedModel(ModelSettings(name="fake"), TEXT_DIR, text, engine, None)
    settings = Settings(models=(model.settings,))
    server = build_server(settings, [model])
    app = create_app(server.gateway, api_options(settings), server.metrics.render)
    return server, uvicorn.Config(app, port=port, log_level="error", access_log=False, proxy_headers=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
