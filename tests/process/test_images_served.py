"""Text and pictures from one server on one device, as `speciate serve pocket pocket-image` has them."""

import asyncio
import base64
import io
import re
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image

from speciate.config import ModelSettings
from speciate.core.errors import LoadFailed
from speciate.image_assembly import is_image_model, load_image_model
from speciate.models.pocket import IMAGE_DIR

needs_weights = pytest.mark.skipif(
    not (IMAGE_DIR / "model_index.json").is_file(),
    reason="the pocket image model is not trained: see recipes/pocket_image",
)
ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@needs_weights
async def test_text_and_pictures_side_by_side(pocket_image_server: Any) -> None:
    async with openai.AsyncOpenAI(base_url=f"{pocket_image_server.url}/v1", api_key="none") as client:
        chat = [
            client.chat.completions.create(
                model="pocket", messages=[{"role": "user", "content": "What is 17 + 25?"}], temperature=0
            )
            for _ in range(3)
        ]
        pictures = [
            client.images.generate(model=model, prompt="a red circle", extra_body={"seed": 5, "steps": 8})
            for model in ("pocket-image", "pocket-stripes", "pocket-image")
        ]
        answers = await asyncio.gather(*chat, *pictures)
    assert {answer.choices[0].message.content for answer in answers[:3]} == {answers[0].choices[0].message.content}
    drawn = [base64.b64decode(answer.data[0].b64_json) for answer in answers[3:]]
    with Image.open(io.BytesIO(drawn[0])) as image:
        assert image.size == (32, 32)
    assert drawn[1] != drawn[0]


@needs_weights
def test_reproducible_pictures_are_bit_for_bit_equal_whatever_else_runs(pocket_image_server: Any) -> None:
    with openai.OpenAI(base_url=f"{pocket_image_server.url}/v1", api_key="none") as client:
        extra = {"seed": 5, "steps": 6, "reproducible": True}
        one = client.images.generate(model="pocket-image", prompt="a red circle", extra_body=extra)
        two = client.images.generate(model="pocket-image", prompt="a red circle", n=2, extra_body=extra)
    assert two.data[0].b64_json == one.data[0].b64_json


@needs_weights
def test_the_example_of_the_reference_runs(
    pocket_image_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "reference" / "images.md").read_text(encoding="utf-8")
    (example,) = FENCE.findall(page)
    exec(compile(example.replace("http://127.0.0.1:8000", pocket_image_server.url), "images.md", "exec"), {})
    with Image.open(tmp_path / "circle.png") as image:
        assert image.format == "PNG"


def test_a_diffusers_folder_is_an_image_model_without_being_told(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    settings = ModelSettings(name="x", path=str(tmp_path))
    assert is_image_model(settings)
    assert not is_image_model(ModelSettings(name="y"))
    with pytest.raises(LoadFailed, match=r"model_index\.json cannot be read"):
        load_image_model(settings)
