"""Trains the LoRA adapter for terse delivery notes: `python -m recipes.pocket_text.adapter --help`."""

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from recipes.pocket_text.batches import small_batches
from recipes.pocket_text.gradient_workers import GradientWorkers, Work
from recipes.pocket_text.model import LowRankLinear, TextConfig, TextModel
from recipes.pocket_text.optimiser import schedule
from recipes.pocket_text.training_log import Log
from speciate.models.pocket.tasks import Task, make_task

RANK = 8
ALPHA = 16
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_ADAPTED_KIND = "delivery_note"


@dataclass(frozen=True, slots=True)
class AdapterOptions:
    """How long to train, at which rate."""

    num_steps: int
    rate: float
    seed: int
    num_workers: int = 2
    batches_per_step: int = 4
    tokens_per_batch: int = 1024
    longest_tokens: int = 600


def load_base(folder: Path) -> TextModel:
    """The exported model, frozen."""
    weights = load_file(folder / "model.safetensors")
    model = TextModel(TextConfig())
    model.load_state_dict({name.removeprefix("model."): weight.float() for name, weight in weights.items()})
    return model.requires_grad_(False)


def add_adapter(model: TextModel) -> dict[str, LowRankLinear]:
    """Puts a low-rank part beside every target matrix; returns the parts by the path of the matrix."""
    parts: dict[str, LowRankLinear] = {}
    for path, module in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if isinstance(module, nn.Linear) and name in TARGETS:
            parts[path] = LowRankLinear(module, RANK, ALPHA)
            setattr(model.get_submodule(parent), name, parts[path])
    return parts


def adapter_tasks(rng: random.Random, longest_tokens: int) -> Iterator[Task]:
    """Endless delivery notes of all lengths."""
    while True:
        yield make_task(_ADAPTED_KIND, rng, rng.randint(40, longest_tokens), "train", rng.randint(1, 3))


def train_adapter(model: TextModel, tokenizer: Tokenizer, options: AdapterOptions) -> dict[str, LowRankLinear]:
    """Trains and returns the low-rank parts; the base stays as it is."""
    torch.manual_seed(options.seed)
    parts = add_adapter(model)
    parameters = [p for part in parts.values() for p in (part.lora_A, part.lora_B)]
    optimiser = torch.optim.AdamW(parameters, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.0)
    workers = GradientWorkers(model, tokenizer, options.num_workers)
    tasks = adapter_tasks(random.Random(options.seed), options.longest_tokens)
    batches = small_batches(tasks, tokenizer, options.tokens_per_batch)
    log = Log(every_steps=20)
    for step in range(options.num_steps):
        works = [Work(sequences, context_weight=0.0) for sequences in islice(batches, options.batches_per_step)]
        loss = workers.gather(works)
        optimiser.param_groups[0]["lr"] = options.rate * schedule(step / options.num_steps)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        log.add(step + 1, loss, sum(work.num_tokens for work in works))
    workers.stop()
    return parts


def write_adapter(parts: dict[str, LowRankLinear], folder: Path, base_name: str) -> None:
    """Writes adapter_config.json and adapter_model.safetensors (bfloat16) under PEFT's names."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for path, part in parts.items():
        tensors[f"base_model.model.model.{path}.lora_A.weight"] = part.lora_A.detach().bfloat16().contiguous()
        tensors[f"base_model.model.model.{path}.lora_B.weight"] = part.lora_B.detach().bfloat16().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": list(TARGETS),
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def merged_updates(folder: Path) -> dict[str, Tensor]:
    """What a written adapter adds to each weight of a LlamaForCausalLM, by the weight's name."""
    settings = json.loads((folder / "adapter_config.json").read_text())
    scale = settings["lora_alpha"] / settings["r"]
    tensors = {name: tensor.float() for name, tensor in load_file(folder / "adapter_model.safetensors").items()}
    paths = [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")]
    return {
        f"{path.removeprefix('base_model.model.')}.weight": scale
        * (tensors[f"{path}.lora_B.weight"] @ tensors[f"{path}.lora_A.weight"])
        for path in paths
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="folder of the trained base model")
    parser.add_argument("--folder", type=Path, required=True, help="where the adapter is written")
    parser.add_argument("--num-steps", type=int, default=650)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--quick", action="store_true", help="5 steps, to see that it runs")
    arguments = parser.parse_args()
    num_steps = 5 if arguments.quick else arguments.num_steps
    tokenizer = Tokenizer.from_file(str(arguments.base / "tokenizer.json"))
    options = AdapterOptions(num_steps, arguments.rate, arguments.seed)
    parts = train_adapter(load_base(arguments.base), tokenizer, options)
    write_adapter(parts, arguments.folder, "pocket-text")


if __name__ == "__main__":
    main()
