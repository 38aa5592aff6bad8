"""/v1/embeddings and /v1/models with the official client."""

import numpy as np
import openai
import pytest


def test_base64_and_numbers_are_the_same_vectors(server):
    client = server.openai()
    default = client.embeddings.create(model="fake-embed", input=["ab", "longer text"])
    floats = client.embeddings.create(model="fake-embed", input=["ab", "longer text"], encoding_format="float")
    base64 = client.embeddings.create(model="fake-embed", input="ab", encoding_format="base64")
    assert isinstance(base64.data[0].embedding, str)
    assert [d.index for d in default.data] == [0, 1]
    assert np.allclose(default.data[0].embedding, floats.data[0].embedding)
    tokens = np.array(server.tokenizer.encode("ab"))
    expected = np.bincount(tokens % 8, minlength=8).astype("<f4")
    assert np.allclose(default.data[0].embedding, expected / np.linalg.norm(expected))
    assert default.usage.prompt_tokens == default.usage.total_tokens == len("ab") + len("longer text")


def test_token_input_and_dimensions(server):
    client = server.openai()
    answer = client.embeddings.create(model="fake-embed", input=[[1, 2, 3], [4]], dimensions=4)
    assert [len(d.embedding) for d in answer.data] == [4, 4]
    assert np.linalg.norm(answer.data[0].embedding) == pytest.approx(1.0)
    assert len(client.embeddings.create(model="fake-embed", input=[1, 2, 3]).data) == 1


def test_bad_input_is_named(server):
    client = server.openai()
    with pytest.raises(openai.BadRequestError) as too_long:
        client.embeddings.create(model="fake-embed", input=["ok", "x" * 600])
    assert too_long.value.code == "context_length_exceeded"
    assert "512" in too_long.value.message
    assert "600" in too_long.value.message
    with pytest.raises(openai.BadRequestError, match="at least one token"):
        client.embeddings.create(model="fake-embed", input=["ok", ""])
    with pytest.raises(openai.BadRequestError, match="makes no embeddings"):
        client.embeddings.create(model="fake", input="x")
    with pytest.raises(openai.BadRequestError) as dimensions:
        client.embeddings.create(model="fake-embed", input="x", dimensions=9)
    assert dimensions.value.param == "dimensions"


def test_models_are_listed_and_found_by_names_with_slashes(server):
    client = server.openai()
    served = {m.id for m in client.models.list()}
    assert served == {"fake", "org/fake-lora", "plain", "fake-embed", "fake-image", "fake-ink"}
    model = client.models.retrieve("org/fake-lora")
    assert (model.id, model.object, model.owned_by) == ("org/fake-lora", "model", "speciate")
    assert model.parent == "fake"
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("gpt-9")
    assert missing.value.code == "model_not_found"
    assert "org/fake-lora" in missing.value.message
