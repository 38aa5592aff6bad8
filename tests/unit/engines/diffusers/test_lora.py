"""LoRA adapters: as diffusers and PEFT apply them, row by row, with strengths; broken files are told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from speciate.core.denoise import AdapterUse, DenoiseSpec, Stage
from speciate.core.errors import LoadFailed

MODULES = ["to_q", "to_v", "to_out.0", "conv1", "proj_in"]


def save_lora(folder: Path, base: Path, seed: int, rank: int = 4, alpha: int = 8, with_text: bool = False) -> Path:
    """Through PEFT, as training scripts do."""
    torch.manual_seed(seed)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(base)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=MODULES, init_lora_weights=False)
    pipeline.unet.add_adapter(config)
    parts = {"unet_lora_layers": get_peft_model_state_dict(pipeline.unet)}
    if with_text:
        text = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        pipeline.text_encoder.add_adapter(text)
        parts["text_encoder_lora_layers"] = get_peft_model_state_dict(pipeline.text_encoder)
        configs = {"unet_lora_adapter_metadata": config.to_dict(), "text_encoder_lora_adapter_metadata": text.to_dict()}
    else:
        configs = {"unet_lora_adapter_metadata": config.to_dict()}
    parts = {part: {k: 0.3 * v for k, v in tensors.items()} for part, tensors in parts.items()}
    diffusers.StableDiffusionPipeline.save_lora_weights(folder, **parts, **configs)
    return folder


@pytest.fixture(scope="module")
def loras(sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("loras")
    return {
        "ink": save_lora(folder / "ink", sd_folder, 1),
        "glow": save_lora(folder / "glow", sd_folder, 2, rank=2, alpha=2, with_text=True),
    }


def spec_of(number: int, *uses: AdapterUse) -> DenoiseSpec:
    return DenoiseSpec(number, "a red circle", 32, 32, 4, seed=5, guidance=3.0, sampler="ddim", adapters=uses)


def stock(base: Path, loras: dict[str, Path], uses: tuple[AdapterUse, ...]) -> Tensor:
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(base)
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    for use in uses:
        pipeline.load_lora_weights(loras[use.name], adapter_name=use.name)
    if uses:
        pipeline.set_adapters([use.name for use in uses], [use.scale for use in uses])
    drawn = pipeline("a red circle", num_inference_steps=4, guidance_scale=3.0, output_type="latent",
                     generator=torch.Generator().manual_seed(5))  # fmt: skip
    latents: Tensor = drawn.images
    return latents


SETS = [(), (AdapterUse("ink"),), (AdapterUse("glow", 0.7),), (AdapterUse("ink", 0.5), AdapterUse("glow", 1.2))]


@pytest.mark.filterwarnings("ignore")  # PEFT's advice to the stock pipeline
def test_rows_with_sets_of_their_own_equal_the_stock_pipeline(
    sd: Any, sd_folder: Path, loras: dict[str, Path], differ: Callable[[Tensor, Tensor], float]
) -> None:
    for name, path in loras.items():
        assert sd.engine.attach(name, str(path)) > 0
    assert sd.engine.shape.adapters == ("ink", "glow")
    sd.add(*(spec_of(n, *uses) for n, uses in enumerate(SETS)))
    sd.finish_passes(*range(len(SETS)))
    drawn = [sd.latents(n) for n in range(len(SETS))]
    for n, uses in enumerate(SETS):
        assert differ(drawn[n], stock(sd_folder, loras, uses)) < 1e-4, uses
    assert min(differ(drawn[0], other) for other in drawn[1:]) > 0.05


def test_detached_it_leaves_no_trace(sd: Any, loras: dict[str, Path]) -> None:
    before = sd.draw(spec_of(1))
    sd.engine.attach("ink", str(loras["ink"]))
    sd.engine.detach("ink")
    sd.engine.remove(1)
    assert torch.equal(sd.draw(spec_of(1)), before)
    assert not sd.engine._denoiser_network._hooks


def test_kohya_files_are_read(sd: Any, tmp_path: Path, loras: dict[str, Path], differ: Any) -> None:
    """The same weights under kohya's names: alpha as a tensor, dots as underscores."""
    tensors = load_file(loras["ink"] / "pytorch_lora_weights.safetensors")
    kohya: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        layer, _, end = name.removeprefix("unet.").rpartition(".lora")
        layer = layer.removesuffix(".lora") if end.startswith((".down", ".up")) else layer
        way = "down" if "down" in end or "_A" in end else "up"
        flat = "lora_unet_" + layer.replace(".", "_")
        kohya[f"{flat}.lora_{way}.weight"] = tensor
        kohya[f"{flat}.alpha"] = torch.tensor(8.0)
    save_file(kohya, tmp_path / "kohya.safetensors")
    sd.engine.attach("ink", str(loras["ink"]))
    sd.engine.attach("kohya", str(tmp_path / "kohya.safetensors"))
    ours = sd.draw(spec_of(1, AdapterUse("ink")))
    assert differ(sd.draw(spec_of(2, AdapterUse("kohya"))), ours) < 1e-6


def damaged(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], source: Path) -> str:
    save_file(change(load_file(source / "pytorch_lora_weights.safetensors")), path)
    return str(path)


def test_broken_adapters_are_refused_and_the_engine_goes_on(sd: Any, tmp_path: Path, loras: dict[str, Path]) -> None:
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes((loras["ink"] / "pytorch_lora_weights.safetensors").read_bytes()[:2000])

    def wider(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: v.repeat(2, *[1] * (v.dim() - 1)) for name, v in tensors.items()}

    other = damaged(tmp_path / "other.safetensors", wider, loras["ink"])
    strange = damaged(tmp_path / "strange.safetensors", lambda t: {k.replace("mid_block", "side_block"): v
                                                                     for k, v in t.items()}, loras["ink"])  # fmt: skip
    half = damaged(tmp_path / "half.safetensors", lambda t: {k: v for k, v in t.items() if "lora_B" not in k and
                                                             ".up." not in k}, loras["ink"])  # fmt: skip
    nothing = damaged(tmp_path / "nothing.safetensors", lambda t: {"transformer.x.lora_A.weight": torch.ones(2, 2)},
                      loras["ink"])  # fmt: skip
    for path, words in [
        (str(torn), "cannot be read as safetensors"),
        (other, "for another base|is not whole|another"),
        (strange, "no layer"),
        (half, "no lora_B|can be read"),
        (nothing, "no LoRA weights"),
        (str(tmp_path / "missing"), "holds 0 .safetensors"),
    ]:
        with pytest.raises(LoadFailed, match=words):
            sd.engine.attach("bad", path)
    assert sd.engine.shape.adapters == ()
    sd.draw(spec_of(1))
    sd.step(Stage.DECODE, [(1, 0)])
