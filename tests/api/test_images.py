"""/v1/images/* with the official client: whole, streamed, by URL, from pictures, in batches; and what is refused."""

import base64
import io
import json
import struct
import time
import urllib.request
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest
from PIL import Image

from speciate.api.picture_files import Recipe, read_recipe
from speciate.core.denoise import AdapterUse, DenoiseSpec, SourceImage, Stage
from speciate.engines.fake_denoise import expected_picture

# The fake engine paints bytes that tell its spec and every pass that it took.


def expected(server: Any, **more: Any) -> bytes:
    fields = {"item_id": 0, "prompt": "a red circle", "width": 64, "height": 64, "num_steps": 12, "seed": 7,
              "guidance": 3.0, **more}  # fmt: skip
    return expected_picture(server.image_engine.shape, DenoiseSpec(**fields)).rgb


def pixels(b64_json: str | None) -> bytes:
    with Image.open(io.BytesIO(base64.b64decode(b64_json or ""))) as image:
        return image.convert("RGB").tobytes()


def png(width: int, height: int, mode: str = "RGB", colour: Any = (10, 200, 30)) -> bytes:
    written = io.BytesIO()
    Image.new(mode, (width, height), colour).save(written, "PNG")
    return written.getvalue()


def test_a_picture_is_what_its_fields_say(server: Any) -> None:
    answer = server.openai().images.generate(model="fake-image", prompt="a red circle", extra_body={"seed": 7})
    (row,) = answer.data
    assert pixels(row.b64_json) == expected(server)
    assert row.seed == 7
    assert (answer.size, answer.output_format, answer.quality) == ("64x64", "png", "medium")
    assert answer.background == "opaque"
    assert answer.service_tier == "default"
    assert abs(answer.created - time.time()) < 60


def test_every_field_reaches_the_engine(server: Any) -> None:
    answer = server.openai().images.generate(
        model="fake-ink", prompt="a red circle", size="32x48", n=2, quality="low",
        extra_body={"seed": 3, "negative_prompt": "blue", "guidance": 1.0, "sampler": "euler", "reproducible": True,
                    "loras": [{"name": "ink", "scale": 0.5}], "service_tier": "flex"},
    )  # fmt: skip
    fields = {"width": 32, "height": 48, "num_steps": 6, "negative_prompt": "blue", "guidance": None,
              "sampler": "euler", "is_reproducible": True,
              "adapters": (AdapterUse("ink"), AdapterUse("ink", 0.5))}  # fmt: skip
    drawn = [pixels(row.b64_json) for row in answer.data]
    assert drawn == [expected(server, seed=seed, **fields) for seed in (3, 4)]
    assert answer.service_tier == "flex"


async def test_the_asynchronous_client_and_a_random_seed(server: Any) -> None:
    async with server.async_openai() as client:
        one = await client.images.generate(model="fake-image", prompt="a red circle")
        two = await client.images.generate(model="fake-image", prompt="a red circle")
    assert one.data[0].seed != two.data[0].seed
    assert pixels(one.data[0].b64_json) == expected(server, seed=one.data[0].seed)


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_files_hold_what_made_them(server: Any, kind: Any) -> None:
    answer = server.openai().images.generate(
        model="fake-image", prompt="a red circle, *ünïcode*", output_format=kind, output_compression=80,
        extra_body={"seed": 7, "steps": 4, "negative_prompt": "blue"},
    )  # fmt: skip
    data = base64.b64decode(answer.data[0].b64_json)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == kind.upper()
        assert image.size == (64, 64)
        if kind == "png":
            assert image.info["parameters"].startswith("a red circle, *ünïcode*\nNegative prompt: blue\nSteps: 4, ")
    assert read_recipe(data) == Recipe("a red circle, *ünïcode*", "fake-image", 7, 4, "64x64", "blue", 3.0)


def test_by_url_it_is_fetched_without_a_key(start_server: Any) -> None:
    from speciate.api.options import ApiKey, ApiOptions

    server = start_server(ApiOptions(api_keys=(ApiKey("secret"),)))
    client = server.openai(api_key="secret")
    answer = client.images.generate(model="fake-image", prompt="x", response_format="url", output_format="webp")
    url = answer.data[0].url
    assert url.startswith(f"{server.base_url}/v1/images/content/img_")
    with urllib.request.urlopen(url) as response:
        assert response.headers["content-type"] == "image/webp"
        with Image.open(io.BytesIO(response.read())) as image:
            assert image.size == (64, 64)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(url[:-8] + "0000.webp")


def test_a_stream_has_partial_pictures_and_the_whole_one(server: Any) -> None:
    stream = server.openai().images.generate(
        model="fake-image", prompt="a red circle", stream=True, partial_images=3, extra_body={"seed": 7}
    )
    events = list(stream)
    assert [event.type for event in events] == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:3]] == [0, 1, 2]
    assert pixels(events[-1].b64_json) == expected(server)
    assert len({pixels(event.b64_json) for event in events}) == 4
    assert (events[-1].size, events[-1].output_format, events[-1].background) == ("64x64", "png", "opaque")


async def test_an_asynchronous_stream_tells_progress_where_asked(server: Any) -> None:
    async with server.async_openai() as client:
        stream = await client.images.generate(
            model="fake-image", prompt="a red circle", stream=True, n=2,
            extra_body={"seed": 7, "steps": 200, "include_progress": True},
        )  # fmt: skip
        events = [event async for event in stream]
    done = [event for event in events if event.type == "image_generation.completed"]
    assert [pixels(event.b64_json) for event in done] == [expected(server, seed=s, num_steps=200) for s in (7, 8)]
    progress = [event for event in events if event.type == "image_generation.progress"]
    assert progress
    assert all(0 <= event.passes_done <= event.num_passes == 200 for event in progress)


def test_an_edit_starts_from_the_picture(server: Any) -> None:
    picture, mask = png(40, 24), png(40, 24, "RGBA", (0, 0, 0, 0))
    answer = server.openai().images.edit(
        model="fake-image", image=("a.png", picture), mask=("m.png", mask), prompt="a red circle",
        extra_body={"seed": 7},
    )  # fmt: skip
    source = SourceImage(bytes((10, 200, 30)) * 960, 40, 24, 1.0, bytes([255]) * 960)
    assert pixels(answer.data[0].b64_json) == expected(server, source=source)
    plain = server.openai().images.edit(
        model="fake-image", image=("a.png", picture), prompt="a red circle", extra_body={"seed": 7, "strength": 0.25}
    )
    source = SourceImage(bytes((10, 200, 30)) * 960, 40, 24, 0.25)
    assert pixels(plain.data[0].b64_json) == expected(server, source=source)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client's word on its own method
def test_variations_need_no_prompt(server: Any) -> None:
    answer = server.openai().images.create_variation(
        model="fake-image", image=("a.png", png(16, 16)), n=2, extra_body={"seed": 7}
    )
    source = SourceImage(bytes((10, 200, 30)) * 256, 16, 16, 0.6)
    drawn = [pixels(row.b64_json) for row in answer.data]
    assert drawn == [expected(server, prompt="", source=source, seed=seed) for seed in (7, 8)]


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that claims to be enormous."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100_000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"", "no picture|no file"),
        (b"GIF89a not really", "is no picture"),
        (png(64, 64)[:90], "cannot be read"),
        (bomb(60_000, 60_000), "exceeds limit"),
        (bomb(4000, 5000), "is 4000 x 5000 pixels"),
        (bomb(4000, 4000), "cannot be read"),
    ],
)
def test_uploads_that_are_no_pictures(server: Any, file: bytes, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        server.openai().images.edit(model="fake-image", image=("a.png", file), prompt="x")


def test_masks_must_fit(server: Any) -> None:
    for mask, words in ((png(8, 8, "RGBA", (0, 0, 0, 0)), "make them equal"), (png(16, 16), "no transparency")):
        with pytest.raises(openai.BadRequestError, match=words):
            server.openai().images.edit(
                model="fake-image", image=("a.png", png(16, 16)), mask=("m.png", mask), prompt="x"
            )


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"prompt": ""}, "prompt", "prompt is empty"),
        ({"n": 0}, "n", ">= 1"),
        ({"n": 10**9}, "n", "<= 10"),
        ({"size": "63x64"}, "size", "63"),
        ({"size": "8x8"}, "size", "8"),
        ({"size": "4096x4096"}, "size", "4096"),
        ({"size": "big"}, "size", "512x512"),
        ({"steps": 0}, "steps", "0"),
        ({"steps": 10**6}, "steps", "1000000"),
        ({"guidance": -1}, "guidance", ">= 0"),
        ({"loras": [{"name": "none"}]}, "adapters", "none"),
        ({"background": "transparent"}, "background", "transparent"),
        ({"output_format": "gif"}, "output_format", "gif"),
        ({"stream": True, "response_format": "url"}, "response_format", "b64_json"),
        ({"stream": True, "partial_images": 4}, "partial_images", "<= 3"),
        ({"model": "fake"}, "model", "draws no pictures"),
        ({"seed": 2**70}, None, "int"),
    ],
)
def test_fields_that_cannot_be_honoured(server: Any, fields: dict[str, Any], param: str | None, words: str) -> None:
    body = {"model": "fake-image", "prompt": "x", **fields}
    with pytest.raises(openai.BadRequestError) as caught:
        server.openai().post("/images/generations", body=body, cast_to=object)
    error = caught.value
    assert words in error.message
    if param is not None:
        assert error.param == param


def test_chat_and_embeddings_of_an_image_model_are_refused(server: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="does not generate text"):
        server.openai().chat.completions.create(model="fake-image", messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(openai.BadRequestError, match="embeddings"):
        server.openai().embeddings.create(model="fake-image", input="hi")
    assert "fake-ink" in {model.id for model in server.openai().models.list()}


async def test_who_leaves_frees_the_device(
    server: Any, eventually: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    async with server.async_openai() as client:
        stream = await client.images.generate(
            model="fake-image", prompt="x", stream=True, extra_body={"steps": 1000, "include_progress": True}
        )
        async for _ in stream:
            break
        await stream.close()
    await eventually(lambda: server.on_loop(server.pictures.load).pending == ())


def test_a_lost_step_costs_no_picture(server: Any) -> None:
    server.image_engine.fail_next_step = True
    answer = server.openai().images.generate(model="fake-image", prompt="a red circle", extra_body={"seed": 7})
    assert pixels(answer.data[0].b64_json) == expected(server)


def test_a_picture_that_cannot_go_on_is_told(server: Any) -> None:
    spoil, server.image_engine.spoil = server.image_engine.spoil, set(range(10_000))
    try:
        with pytest.raises(openai.InternalServerError, match="its latents are NaN"):
            server.openai().images.generate(model="fake-image", prompt="x")
    finally:
        server.image_engine.spoil = spoil
    server.openai().images.generate(model="fake-image", prompt="x")


def test_a_deadline_that_passes_is_told(server: Any) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        server.openai().images.generate(
            model="fake-image", prompt="x", extra_body={"steps": 1000, "service_tier": "flex"},
            extra_headers={"x-speciate-deadline-ms": "40"},
        )  # fmt: skip
    assert caught.value.status_code in (429, 504)


async def test_in_batches(server: Any, eventually: Callable[..., Awaitable[None]]) -> None:
    lines = [
        {"custom_id": f"c{n}", "method": "POST", "url": "/v1/images/generations",
         "body": {"model": "fake-image", "prompt": "a red circle", "seed": n}}
        for n in range(4)
    ]  # fmt: skip
    lines[3]["body"] = {"model": "fake-image", "prompt": "x", "response_format": "url"}
    client = server.openai()
    file = client.files.create(file=("b.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/images/generations", completion_window="24h")
    await eventually(lambda: client.batches.retrieve(batch.id).status == "completed", timeout_s=30)
    done = client.batches.retrieve(batch.id)
    rows = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    drawn = {row["custom_id"]: row["response"]["body"]["data"][0]["b64_json"] for row in rows}
    assert {name: pixels(data) for name, data in drawn.items()} == {f"c{n}": expected(server, seed=n) for n in range(3)}
    failed = [json.loads(line) for line in client.files.content(done.error_file_id).text.splitlines()]
    assert [row["custom_id"] for row in failed] == ["c3"]


def test_metrics_count_pictures(server: Any) -> None:
    server.openai().images.generate(model="fake-image", prompt="x")
    text = server.metrics.render().decode()
    assert 'speciate:image_step_seconds_count{model_name="fake-image",stage="pass"}' in text
    assert 'vllm:request_success_total{finished_reason="stop",model_name="fake-image"' in text
    assert server.image_engine.plans[-1].stage is Stage.DECODE
