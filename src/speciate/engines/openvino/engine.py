"""A stepped text engine on OpenVINO's CPU plugin: our plan in, sampled tokens out.

    folder -> source (stateful model) -> adapters -> join (projections) -> paging (block tables, sampled rows)
           -> compile -> blocks
    plan   -> batch (arrays) -> infer -> sampler

Threads: one at a time, as StepEngine says; `infer` releases the interpreter lock while it computes.
"""

from pathlib import Path
from time import monotonic

from openvino import CompiledModel

from speciate.core.engine import SequenceSpec, SequenceStep, StepPlan, StepResult, TokenEngineShape
from speciate.core.errors import EngineFailed, InvalidRequest, LoadFailed
from speciate.engines.openvino.adapters import attach_adapters
from speciate.engines.openvino.batch import PADDING, SIZES, StepArrays, lay_out, sizes
from speciate.engines.openvino.blocks import BLOCK_TOKENS, KvBlocks, allocate_blocks
from speciate.engines.openvino.checkpoint import Array
from speciate.engines.openvino.compile import compile_model, runtime_settings
from speciate.engines.openvino.join import join_projections
from speciate.engines.openvino.options import OpenVinoOptions
from speciate.engines.openvino.paging import gather_sampled_rows, page
from speciate.engines.openvino.source import StatefulDecoder, load_decoder
from speciate.engines.sampling import Sampler

MOST_WARM_SAMPLES = 128
"""Rows that are sampled while kernels are made: logits of more would hold memory that nobody needs later."""


class OpenVinoEngine:
    """Implements `StepEngine`. Made by `load`; `close` frees the model and the blocks."""

    def __init__(
        self,
        shape: TokenEngineShape,
        compiled: CompiledModel,
        blocks: KvBlocks,
        sampler: Sampler,
        kept: tuple[object, ...],
    ) -> None:
        self._shape = shape
        self._blocks = blocks
        self._sampler = sampler
        self._request = compiled.create_infer_request()
        blocks.bind(self._request)
        self._adapter_numbers = {name: number for number, name in enumerate(shape.adapters, 1)}
        self._adapter_of: dict[int, int] = {}
        self._kept = (compiled, kept)

    @classmethod
    def load(cls, folder: Path, options: OpenVinoOptions) -> "OpenVinoEngine":
        """Read, build, compile and allocate. Raises LoadFailed, saying what to change."""
        source = load_decoder(folder, options.weights)
        attach_adapters(source.model, options.adapters)
        join_projections(source.model)
        page(source.model, source.windows)
        gather_sampled_rows(source.model)
        settings = runtime_settings(options.precision, options.threads, options.activation_group, options.kv)
        compiled = compile_model(source.model, settings)
        blocks = allocate_blocks(compiled, options.kv_bytes)
        shape = _shape(folder, options, source, blocks)
        sampler = Sampler(source.vocab_size, source.eos_token_ids, _read_tokenizer(folder))
        engine = cls(shape, compiled, blocks, sampler, source.kept)
        engine._warm(options)
        return engine

    @property
    def shape(self) -> TokenEngineShape:
        return self._shape

    @property
    def allocated_kv_bytes(self) -> int:
        """What the blocks take in all."""
        return self._blocks.allocated_bytes

    def add(self, sequence: SequenceSpec) -> None:
        if sequence.adapter is not None and sequence.adapter not in self._adapter_numbers:
            raise InvalidRequest(
                f"adapter {sequence.adapter!r} is not loaded; loaded are {', '.join(self._adapter_numbers) or 'none'}",
                param="model",
            )
        self._sampler.add(sequence)
        if sequence.adapter is not None:
            self._adapter_of[sequence.seq_id] = self._adapter_numbers[sequence.adapter]

    def step(self, plan: StepPlan) -> StepResult:
        if not plan.sequences:
            return StepResult(())
        adapter_of = self._adapter_of if self._adapter_numbers else None
        arrays = lay_out(plan.sequences, BLOCK_TOKENS, self._blocks.scratch, adapter_of)
        logits = self._infer(plan, arrays)
        if not arrays.sampled:
            return StepResult(())
        sampled = self._sampler.sample(arrays.sampled, logits)
        return StepResult(sampled.samples, sampled.failed)

    def remove(self, seq_id: int) -> None:
        self._sampler.remove(seq_id)
        self._adapter_of.pop(seq_id, None)

    def close(self) -> None:
        """Free the model and the blocks; steps after it fail."""
        del self._request, self._kept, self._blocks

    def _warm(self, options: OpenVinoOptions) -> None:
        """Decode in scratch blocks, one token a sequence. Raises LoadFailed where the model cannot run."""
        ends_s = monotonic() + options.warm_s
        try:
            for size in sizes(max(options.warm_tokens, options.max_step_tokens if options.warm_s else 0)):
                if size > options.warm_tokens and monotonic() >= ends_s:
                    return
                self._warm_size(size)
        except EngineFailed as error:
            raise LoadFailed(f"the model was loaded but cannot run: {error.message}") from error

    def _warm_size(self, num_rows: int) -> None:
        scratch = self._blocks.scratch
        steps = tuple(SequenceStep(PADDING, (0,), 0, scratch, n < MOST_WARM_SAMPLES) for n in range(num_rows))
        adapter_of = self._adapter_of if self._adapter_numbers else None
        self._infer(StepPlan(0, steps), lay_out(steps, BLOCK_TOKENS, scratch, adapter_of))

    def _infer(self, plan: StepPlan, arrays: StepArrays) -> Array:
        """Logits [sampled rows, vocabulary], in the runtime's own memory until the next step."""
        try:
            self._request.infer(arrays.inputs, share_inputs=True)
        except RuntimeError as error:
            raise EngineFailed(
                f"step {plan.step_id} of {len(plan.sequences)} sequences and {plan.num_tokens} tokens failed: {error}"
            ) from error
        logits: Array = self._request.get_output_tensor(0).data
        return logits.reshape(-1, self._shape.vocab_size)[: len(arrays.sampled)]


def _shape(folder: Path, options: OpenVinoOptions, source: StatefulDecoder, blocks: KvBlocks) -> TokenEngineShape:
    limits = (source.context_tokens, options.max_context_tokens, blocks.num_blocks * BLOCK_TOKENS)
    return TokenEngineShape(
        model=options.model_name or folder.name,
        vocab_size=source.vocab_size,
        context_tokens=min(limit for limit in limits if limit is not None),
        block_tokens=BLOCK_TOKENS,
        num_blocks=blocks.num_blocks,
        block_bytes=blocks.block_bytes,
        eos_token_ids=source.eos_token_ids,
        adapters=tuple(adapter.name for adapter in options.adapters),
        max_step_tokens=options.max_step_tokens,
        max_step_sequences=options.max_step_sequences,
        step_sizes=SIZES,
    )


def _read_tokenizer(folder: Path) -> str | None:
    path = folder / "tokenizer.json"
    return path.read_text(encoding="utf-8") if path.is_file() else None
