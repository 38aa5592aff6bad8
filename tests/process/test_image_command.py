"""`speciate image`: from a prompt to a file, in this process; and what goes wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from speciate.api.picture_files import read_recipe
from speciate.cli import main
from speciate.models.pocket import IMAGE_DIR

needs_weights = pytest.mark.skipif(
    not (IMAGE_DIR / "model_index.json").is_file(),
    reason="the pocket image model is not trained: see recipes/pocket_image",
)


@needs_weights
def test_it_draws_to_a_file_and_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "circle.webp"
    status = main(["image", "a red circle", "-o", str(out), "--steps", "3", "--seed", "5", "--show", "blocks",
                   "--sampler", "euler", "--lora", "pocket-stripes:0.5"])  # fmt: skip
    assert status == 0
    printed = capsys.readouterr().out
    assert f"{out}  (seed 5)" in printed
    assert "▀" in printed or "▄" in printed
    with Image.open(out) as image:
        assert image.size == (32, 32)
    recipe = read_recipe(out.read_bytes())
    assert recipe is not None
    assert (recipe.prompt, recipe.steps, recipe.seed, recipe.sampler) == ("a red circle", 3, 5, "euler")
    assert recipe.loras == (("pocket-stripes", 0.5),)


@needs_weights
def test_several_have_numbers_and_the_same_seed_gives_the_same_picture(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        arguments = ["image", "two blue squares", "-o", str(tmp_path / name), "--steps", "2", "--seed", "9", "-n", "2"]
        assert main([*arguments, "--size", "40x32", "--show", "never"]) == 0
    for number in (1, 2):
        with Image.open(tmp_path / f"a-{number}.png") as one, Image.open(tmp_path / f"b-{number}.png") as other:
            assert one.size == (40, 32)
            assert one.tobytes() == other.tobytes()


@needs_weights
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "x.bmp"], "end it in .png"),
        (["--size", "33x32"], "multiples of 8"),
        (["--size", "big"], "write it as 64x64"),
        (["--model", "/nowhere"], "no model_index.json"),
        (["--sampler", "magic"], "no sampler 'magic'"),
        (["--lora", "/nowhere.safetensors"], "holds 0 .safetensors"),
        (["--lora", "pocket-stripes:loud"], "'loud' is no number"),
        (["-o", "/nowhere/x.png"], "cannot be written"),
    ],
)
def test_it_says_what_is_wrong(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["image", "a red circle", "--steps", "1", "--show", "never", *arguments]) == 1
    assert words in capsys.readouterr().err


@needs_weights
def test_the_folder_is_one_that_stock_diffusers_loads() -> None:
    import diffusers

    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(IMAGE_DIR)
    assert pipeline.unet.config.sample_size == 8


def test_without_the_extra_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['diffusers'] = None; from speciate.cli import main; sys.exit(main(['image', 'x']))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 1
    assert "pip install 'speciate[image]'" in run.stderr
    assert "Traceback" not in run.stderr
