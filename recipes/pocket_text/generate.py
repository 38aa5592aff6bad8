"""Greedy decoding in batches through transformers, as an independent reader of the exported folder."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from recipes.pocket_text.adapter import merged_updates
from speciate.models.pocket.evaluate import max_answer_tokens
from speciate.models.pocket.prompts import END, render_prompt
from speciate.models.pocket.tasks import Task


class BatchedGenerator:
    """Answers many tasks at once; then `generate` returns each answer to `speciate.models.pocket.evaluate`."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.answers: dict[str, str] = {}

    def prepare(self, tasks: Sequence[Task], num_at_once: int = 48) -> None:
        """Answers all tasks, those of similar length together."""
        by_length = sorted(tasks, key=lambda task: len(render_prompt(task)))
        for i in range(0, len(by_length), num_at_once):
            self._answer(by_length[i : i + num_at_once])

    def generate(self, prompt: str, max_tokens: int) -> str:
        """The prepared answer. Raises KeyError for a prompt that was not prepared."""
        return self.answers[prompt]

    def apply_adapter(self, folder: Path) -> None:
        """Adds a LoRA adapter's update to the weights."""
        weights = self.model.state_dict()
        for name, update in merged_updates(folder).items():
            weights[name] += update

    @torch.inference_mode()
    def _answer(self, tasks: Sequence[Task]) -> None:
        prompts = [render_prompt(task) for task in tasks]
        inputs = self.tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
        most_tokens = max(max_answer_tokens(task) for task in tasks)
        outputs = self.model.generate(**inputs, max_new_tokens=most_tokens, do_sample=False)
        new_tokens = outputs[:, inputs["input_ids"].shape[1] :]
        for prompt, text in zip(prompts, self.tokenizer.batch_decode(new_tokens), strict=True):
            self.answers[prompt] = text.split(END)[0]
