"""Model folders as they are found in the wild; what is missing is named by file and key."""

import json
from pathlib import Path
from typing import Any

import pytest

from speciate.core.errors import LoadFailed
from speciate.models.catalog import is_adapter_folder, read_adapter_folder, read_model_folder

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "eos_token_id": 2,
    "bos_token_id": 1,
}


def write(folder: Path, **files: Any) -> Path:
    """`config={...}` becomes config.json; text goes to the name as it is, with `__` for a dot."""
    for name, content in files.items():
        if isinstance(content, str):
            (folder / name.replace("__", ".")).write_text(content)
        else:
            (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_a_plain_decoder(tmp_path: Path) -> None:
    model = read_model_folder(write(tmp_path, config=LLAMA, model__safetensors=""))
    assert (model.kind, model.architecture, model.model_type) == ("decoder", "LlamaForCausalLM", "llama")
    assert (model.weights, model.vocab_size, model.context_tokens) == ("safetensors", 32000, 4096)
    assert (model.eos_token_ids, model.bos_token_id, model.pad_token_id) == ((2,), 1, None)
    assert model.chat_template is None
    assert model.path == tmp_path


def test_end_tokens_of_all_files(tmp_path: Path) -> None:
    """Llama 3's generation config lists several; a tokenizer's own end token may be missing from both configs."""
    write(
        tmp_path,
        config=LLAMA,
        generation_config={"eos_token_id": [7, 8], "pad_token_id": 0, "temperature": 0.6, "top_p": 0.9, "top_k": 20},
        tokenizer_config={
            "eos_token": {"content": "<|im_end|>"},
            "bos_token": "<s>",
            "added_tokens_decoder": {"9": {"content": "<|im_end|>", "special": True}},
        },
    )
    model = read_model_folder(tmp_path)
    assert model.eos_token_ids == (7, 8, 9)
    assert model.pad_token_id == 0
    assert dict(model.special_tokens) == {"bos_token": "<s>", "eos_token": "<|im_end|>"}
    sampling = model.default_sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.6, 0.9, 20)


def test_the_tokenizers_end_token_is_found_in_tokenizer_json(tmp_path: Path) -> None:
    write(
        tmp_path,
        config=LLAMA,
        tokenizer_config={"eos_token": "<|im_end|>"},
        tokenizer={"added_tokens": [{"id": 5, "content": "<|im_end|>"}]},
    )
    assert read_model_folder(tmp_path).eos_token_ids == (2, 5)


def test_chat_templates_by_name_and_by_file(tmp_path: Path) -> None:
    write(
        tmp_path,
        config=LLAMA,
        tokenizer_config={
            "chat_template": [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
        },
    )
    assert dict(read_model_folder(tmp_path).chat_templates) == {"default": "A", "tool_use": "B"}
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("C")
    write(tmp_path, chat_template__jinja="D")
    model = read_model_folder(tmp_path)
    assert dict(model.chat_templates) == {"default": "D", "tool_use": "B", "rag": "C"}
    assert model.chat_template == "D"


def test_encoders(tmp_path: Path) -> None:
    bert = {"architectures": ["BertModel"], "model_type": "bert", "vocab_size": 30522, "max_position_embeddings": 512}
    write(tmp_path, config=bert, sentence_bert_config={"max_seq_length": 256}, modules=[])
    (tmp_path / "1_Pooling").mkdir()
    write(tmp_path / "1_Pooling", config={"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True})
    model = read_model_folder(tmp_path)
    assert (model.kind, model.pooling, model.context_tokens, model.eos_token_ids) == ("encoder", "mean", 256, ())


def test_a_sentence_transformer_with_a_causal_backbone_is_an_encoder(tmp_path: Path) -> None:
    write(tmp_path, config=LLAMA, modules__json="[]")
    assert read_model_folder(tmp_path).kind == "encoder"


def test_roberta_counts_its_positions_from_two(tmp_path: Path) -> None:
    config = {
        "architectures": ["XLMRobertaModel"],
        "model_type": "xlm-roberta",
        "vocab_size": 9,
        "max_position_embeddings": 514,
    }
    assert read_model_folder(write(tmp_path, config=config)).context_tokens == 512


def test_a_multimodal_config_nests_the_text_model(tmp_path: Path) -> None:
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "eos_token_id": [1], "text_config": LLAMA}
    model = read_model_folder(write(tmp_path, config=config))
    assert (model.kind, model.vocab_size, model.eos_token_ids) == ("decoder", 32000, (2,))


def test_an_openvino_folder(tmp_path: Path) -> None:
    assert read_model_folder(write(tmp_path, config=LLAMA, openvino_model__xml="")).weights == "openvino"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": None}, r"config\.json: vocab_size is missing"),
        ({"vocab_size": "many"}, r"config\.json: vocab_size is 'many'; it must be a positive integer"),
        ({"vocab_size": True}, "vocab_size is 'True'"),
        ({"max_position_embeddings": None}, "max_position_embeddings is missing"),
        ({"eos_token_id": None}, "eos_token_id is missing"),
        ({"eos_token_id": "</s>"}, "eos_token_id is '</s>'"),
        ({"architectures": None, "model_type": None}, "architectures is missing"),
        ({"model_type": 3}, "model_type is '3'"),
    ],
)
def test_bad_configs_are_named_by_file_and_key(tmp_path: Path, changes: dict, message: str) -> None:
    config = {key: value for key, value in {**LLAMA, **changes}.items() if value is not None}
    with pytest.raises(LoadFailed, match=message):
        read_model_folder(write(tmp_path, config=config))


def test_files_that_are_no_json(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="is not a folder"):
        read_model_folder(tmp_path / "nothing")
    with pytest.raises(LoadFailed, match=r"config\.json does not exist"):
        read_model_folder(tmp_path)
    with pytest.raises(LoadFailed, match=r"config\.json is not JSON"):
        read_model_folder(write(tmp_path, config__json="{"))
    with pytest.raises(LoadFailed, match=r"config\.json holds list"):
        read_model_folder(write(tmp_path, config__json="[]"))
    with pytest.raises(LoadFailed, match=r"tokenizer_config\.json: chat_template"):
        read_model_folder(write(tmp_path, config=LLAMA, tokenizer_config={"chat_template": [1]}))
    with pytest.raises(LoadFailed, match=r"generation_config\.json"):
        read_model_folder(write(tmp_path, config=LLAMA, tokenizer_config={}, generation_config={"top_p": "x"}))


ADAPTER = {
    "peft_type": "LORA",
    "base_model_name_or_path": "org/base",
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["q_proj", "v_proj"],
}


def test_adapters(tmp_path: Path) -> None:
    assert not is_adapter_folder(tmp_path)
    adapter = read_adapter_folder(write(tmp_path, adapter_config=ADAPTER))
    assert is_adapter_folder(tmp_path)
    assert (adapter.base, adapter.rank, adapter.alpha) == ("org/base", 8, 16.0)
    assert adapter.target_modules == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"use_dora": True}, "use_dora"),
        ({"use_rslora": True}, "use_rslora"),
        ({"r": 0}, "r is '0'"),
    ],
)
def test_adapters_that_are_not_plain_lora(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(LoadFailed, match=message):
        read_adapter_folder(write(tmp_path, adapter_config={**ADAPTER, **changes}))
