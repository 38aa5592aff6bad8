"""A real server on a loopback port: uvicorn, the production app, gateway, replica and scheduler, and the fake engine.

The fake engine is scripted by the prompt: the last user message says what the model answers.

    say TEXT             TEXT
    count N              0 1 2 ... N-1
    think THOUGHT | TEXT <think> THOUGHT </think> TEXT
    call NAME JSON ...   calls in the Hermes format, a line each
    anything else        Hello, world!
"""

import asyncio
import json
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
import tokenizers
import uvicorn
from anthropic import Anthropic
from openai import AsyncOpenAI, OpenAI
from pytest_asyncio import is_async_test
from tokenizers import decoders, pre_tokenizers
from tokenizers.models import BPE

from speciate.admission.admit import AdmissionOptions, QueueLimits
from speciate.api.app import create_app
from speciate.api.auth import KeyRing
from speciate.api.batches_lines import LineRunner
from speciate.api.call import Services
from speciate.api.options import ApiOptions
from speciate.batch.jobs import BatchJobs
from speciate.batch.open import BatchPorts, open_jobs
from speciate.batch.options import BatchOptions
from speciate.core.denoise import DenoiseShape, Stage
from speciate.core.engine import SequenceSpec, TokenEngineShape
from speciate.core.ports import Clock
from speciate.core.request import SamplingParams
from speciate.core.segment import Segment, Slo, Tier
from speciate.costs.pass_table import PassCost, PassTable
from speciate.engines.fake import FakeEngine, StepCost
from speciate.engines.fake_denoise import FakeDenoiseEngine
from speciate.engines.grammar import GrammarCompiler
from speciate.models.chat_template import ChatTemplate
from speciate.models.fim import find_fim_format
from speciate.models.text_model import TextModel
from speciate.models.tokenizer import Tokenizer
from speciate.models.tool_formats import HERMES
from speciate.runtime.clock import MonotonicClock
from speciate.runtime.device import Device
from speciate.runtime.embedder import Embedder
from speciate.runtime.gateway import Gateway, ServedModel
from speciate.runtime.model_shelf import LoadedShelf
from speciate.runtime.painter import Painter
from speciate.runtime.picture_door import PictureDoor
from speciate.runtime.replica import Replica
from speciate.scheduling.denoise.scheduler import DenoiseScheduler
from speciate.scheduling.token import TokenScheduler
from speciate.telemetry.metrics import BatchMetrics, Metrics, ReplicaMetrics
from speciate.telemetry.picture_metrics import PictureMetrics

T = TypeVar("T")

EOS = "<|im_end|>"
SPECIAL = [EOS, "<|im_start|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
IMAGE_SHAPE = DenoiseShape(
    "fake-image", 8, 16, 512, default_size=(64, 64), default_steps=12, default_guidance=3.0, adapters=("ink",)
)
PASSES = PassTable("here", tuple(PassCost("fake-image", stage, 16, 1, 0.0005) for stage in Stage))
CONTEXT_TOKENS = 4096
NUM_BLOCKS = 4096
DIMENSIONS = 8

TEMPLATE = """\
{%- if tools %}<|im_start|>system
Tools: {{ tools | tojson }}<|im_end|>
{% endif -%}
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}
{%- for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking %}<think>
{% endif %}{% endif %}"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """langchain-openai keeps one connection pool a process: its tests share an event loop."""
    for item in items:
        if item.path.name == "test_langchain.py" and is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


def make_tokenizer() -> Tokenizer:
    """One token a byte, and the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(BPE({char: i for i, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    return Tokenizer(tokenizer.to_str())


def reply_to(prompt: str) -> str:
    """What the scripted model says."""
    asked = prompt.rpartition("<|im_start|>user\n")[2].partition(EOS)[0] or prompt
    verb, _, rest = asked.strip().partition(" ")
    match verb:
        case "say":
            return rest
        case "count":
            return " ".join(map(str, range(int(rest))))
        case "think":
            thought, _, text = rest.partition(" | ")
            opening = "" if prompt.endswith("<think>\n") else "<think>\n"
            return f"{opening}{thought}\n</think>\n\n{text}"
        case "call":
            return "\n".join(_call(line) for line in rest.splitlines())
    return "Hello, world!"


def _call(line: str) -> str:
    name, _, arguments = line.partition(" ")
    call = json.dumps({"name": name, "arguments": json.loads(arguments)})
    return f"<tool_call>\n{call}\n</tool_call>"


class CompilingEngine(FakeEngine):
    """Compiles grammars as real engines do, so that a bad one is refused; what it says is scripted all the same, and
    `obeyed` tells whether the grammar would have let it."""

    def __init__(self, tokenizer: Tokenizer, cost: StepCost) -> None:
        self.obeyed: list[bool] = []
        eos = tokenizer.token_id(EOS)
        assert eos is not None
        shape = TokenEngineShape("fake", tokenizer.vocab_size, CONTEXT_TOKENS, 16, NUM_BLOCKS, 1, (eos,))
        self._say = lambda ids: tokenizer.encode(reply_to(tokenizer.decode(ids, False)), False)
        super().__init__(shape, cost=cost, script=self._say)
        self._compiler = GrammarCompiler(tokenizer.json_text, tokenizer.vocab_size, (eos,))

    def add(self, sequence: SequenceSpec) -> None:
        if sequence.grammar is not None:
            matcher = self._compiler.matcher(sequence.grammar)
            said = self._say(sequence.prompt_tokens)
            self.obeyed.append(all(matcher.allowed()[token] and matcher.accept(token) for token in said))
        super().add(sequence)


class CountingEmbedEngine:
    """A real, tiny embedding function: how often each residue occurs among the token ids."""

    model = "fake-embed"
    dimensions = DIMENSIONS
    context_tokens = 512

    def embed(self, inputs: tuple[tuple[int, ...], ...]) -> tuple[bytes, ...]:
        return tuple(embedding(row).tobytes() for row in inputs)

    def close(self) -> None:
        pass


def embedding(row: tuple[int, ...]) -> "np.ndarray[Any, np.dtype[np.float32]]":
    counts = np.bincount(np.array(row) % DIMENSIONS, minlength=DIMENSIONS)
    return (counts / np.linalg.norm(counts)).astype("<f4")


class ApiServer:
    """The server on a thread of its own, so that synchronous and asynchronous clients can both call it."""

    def __init__(
        self,
        options: ApiOptions,
        cost: StepCost,
        limits: AdmissionOptions,
        send_buffer_bytes: int | None = None,
        batch: BatchOptions | None = None,
        wall: Clock | None = None,
    ) -> None:
        self._batch = batch or BatchOptions(poll_s=0.05, cancel_grace_s=0.2)
        self._wall = wall
        self.tokenizer = make_tokenizer()
        self.engine = CompilingEngine(self.tokenizer, cost)
        self.image_engine = FakeDenoiseEngine(IMAGE_SHAPE, PASSES)
        self.metrics = Metrics()
        self._options = options
        self._limits = limits
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        if send_buffer_bytes is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        self.port: int = self._listener.getsockname()[1]
        self._ready = threading.Event()
        self._clients: list[OpenAI | Anthropic] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="api-server")

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "ApiServer":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *error: object) -> None:
        for client in self._clients:
            client.close()
        self._uvicorn.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()

    def on_loop(self, call: Callable[[], T]) -> T:
        """Run something on the server's event loop."""

        async def run() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def is_idle(self) -> bool:
        """Nothing runs or waits, and every block is free."""
        load = self.on_loop(self.gateway.loads)["fake"]
        num_busy = sum(t.num_running + t.num_waiting for t in load.tiers.values())
        return num_busy == 0 and load.free_blocks == load.total_blocks

    def openai(self, **more: Any) -> OpenAI:
        client = OpenAI(base_url=f"{self.base_url}/v1", **{"api_key": "none", "max_retries": 0, "timeout": 30, **more})
        self._clients.append(client)
        return client

    def async_openai(self, **more: Any) -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=f"{self.base_url}/v1", **{"api_key": "none", "max_retries": 0, "timeout": 60, **more}
        )

    def anthropic(self, **more: Any) -> Anthropic:
        client = Anthropic(base_url=self.base_url, **{"api_key": "none", "max_retries": 0, "timeout": 30, **more})
        self._clients.append(client)
        return client

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self._gateway() as gateway, self._jobs(gateway) as jobs:
            self.gateway = gateway
            app = create_app(gateway, self._options, self.metrics.render, jobs)
            config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
            self._uvicorn = uvicorn.Server(config)
            serving = asyncio.create_task(self._uvicorn.serve(sockets=[self._listener]))
            while not self._uvicorn.started:
                assert not serving.done()
                await asyncio.sleep(0.005)
            self._ready.set()
            await serving

    @asynccontextmanager
    async def _jobs(self, gateway: Gateway) -> AsyncIterator[BatchJobs]:
        names = {model.name for model in gateway.served()}
        runner = LineRunner(Services(gateway, self._options, KeyRing(())))
        ports = BatchPorts(
            runner.run, lambda model: gateway.loads()["fake"].tiers[Tier.BATCH].num_running, names.__contains__
        )
        with tempfile.TemporaryDirectory() as folder:
            async with open_jobs(
                Path(folder), None, ports, self._batch, BatchMetrics(self.metrics), self._wall
            ) as jobs:
                self.jobs = jobs
                yield jobs

    @asynccontextmanager
    async def _gateway(self) -> AsyncIterator[Gateway]:
        text = TextModel(
            name="fake",
            tokenizer=self.tokenizer,
            default_sampling=SamplingParams(),
            chat_template=ChatTemplate(TEMPLATE),
            tool_format=HERMES,
            fim=find_fim_format(self.tokenizer),
            reasons=True,
        )
        plain = TextModel(name="plain", tokenizer=self.tokenizer, default_sampling=SamplingParams())
        device, clock = Device("test"), MonotonicClock()
        replica_metrics = ReplicaMetrics(self.metrics, "fake")
        replica = Replica(
            self.engine, TokenScheduler(self.engine.shape), self.tokenizer, device, clock, replica_metrics
        )
        embedder = Embedder(CountingEmbedEngine(), device, clock)
        served = (
            ServedModel("fake", "fake", "generate", CONTEXT_TOKENS, 1_700_000_000, "/models/fake", text),
            ServedModel(
                "org/fake-lora", "fake", "generate", CONTEXT_TOKENS, 1_700_000_000, "/models/lora", text, "lora"
            ),
            ServedModel("plain", "fake", "generate", CONTEXT_TOKENS, 1_700_000_000, "/models/plain", plain),
            ServedModel("fake-embed", "fake-embed", "embed", 512, 1_700_000_000, "/models/embed", plain),
        )
        drawing, engines = DenoiseScheduler(PASSES), {"fake-image": self.image_engine}
        painter = Painter(LoadedShelf(engines), drawing, device, clock, watch=PictureMetrics(self.metrics))
        self.pictures = painter
        pictures = PictureDoor(engines, painter, drawing, self._limits.pictures, clock)
        drawn = tuple(
            ServedModel(
                name, "fake-image", "image", 0, 1_700_000_000, "/models/image", None, adapter, image=IMAGE_SHAPE
            )
            for name, adapter in (("fake-image", None), ("fake-ink", "ink"))
        )
        segments = patient_segments()
        gateway = Gateway(
            tuple(msgspec.structs.replace(model, segments=segments) for model in (*served, *drawn)),
            {"fake": replica},
            {"fake-embed": embedder},
            self._limits,
            clock,
            self.metrics,
            pictures,
        )
        gateway.start()
        yield gateway
        await gateway.stop()
        await device.close()


def patient_segments() -> dict[Tier, Segment]:
    """Promises that a slow test machine keeps: admission refuses nothing."""
    return {tier: Segment(f"{tier}-text", tier, Slo(ttft_s=60.0, tpot_s=10.0)) for tier in Tier}


def deep_queues() -> AdmissionOptions:
    """Room for whatever a test sends at once."""
    limits = QueueLimits(max_waiting=100_000, max_tokens=100_000_000)
    return AdmissionOptions(realtime=limits, interactive=limits, batch=limits)


@pytest.fixture(scope="session")
def server() -> Iterator[ApiServer]:
    """Fast: steps cost nothing."""
    with ApiServer(ApiOptions(), StepCost(), deep_queues()) as running:
        yield running


@pytest.fixture
def start_server() -> Iterator[Callable[..., ApiServer]]:
    """Servers with their own options, costs and limits, stopped after the test."""
    running: list[ApiServer] = []

    def start(
        options: ApiOptions | None = None,
        cost: StepCost | None = None,
        limits: AdmissionOptions | None = None,
        send_buffer_bytes: int | None = None,
        batch: BatchOptions | None = None,
        wall: Clock | None = None,
    ) -> ApiServer:
        made = ApiServer(
            options or ApiOptions(), cost or StepCost(), limits or deep_queues(), send_buffer_bytes, batch, wall
        )
        running.append(made.__enter__())
        return made

    yield start
    for made in running:
        made.__exit__()


@pytest.fixture
def slow_steps() -> StepCost:
    """Slow enough to meet a request while it runs."""
    return StepCost(fixed_s=0.005)


@pytest.fixture
def tiny_queues() -> AdmissionOptions:
    """Limits that one running and one waiting request fill."""
    limits = QueueLimits(max_waiting=0, max_tokens=0)
    return AdmissionOptions(realtime=limits, interactive=limits, batch=limits)


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Poll without blocking the loop."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 -- what is awaited happens on the server's thread
            await asyncio.sleep(0.01)


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    return until
