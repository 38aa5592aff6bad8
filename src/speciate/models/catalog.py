"""What a model folder says about itself: a Hugging Face folder, an OpenVINO IR folder, a LoRA adapter.

Reads JSON files only; knows no weights and no engine.
"""

import json
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from speciate.core.errors import LoadFailed
from speciate.core.request import SamplingParams


class ModelFolder(Struct, frozen=True):
    """A model's facts, as its files give them."""

    path: Path
    kind: Literal["decoder", "encoder"]
    """Whether it writes text, or turns texts into vectors."""
    architecture: str
    """As `Qwen2ForCausalLM`."""
    model_type: str
    weights: Literal["openvino", "safetensors", "none"]
    vocab_size: int
    """Width of the logits; may exceed the tokenizer's."""
    context_tokens: int
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None = None
    pad_token_id: int | None = None
    special_tokens: tuple[tuple[str, str], ...] = ()
    """(name, text) as `("eos_token", "<|im_end|>")`: chat templates read them."""
    chat_templates: tuple[tuple[str, str], ...] = ()
    """(name, Jinja text); the unnamed one is `default`."""
    pooling: Literal["mean", "cls", "last"] | None = None
    """How an encoder's vectors become one, where its folder says so."""
    default_sampling: SamplingParams = SamplingParams()
    """What the model was published with (generation_config.json)."""

    @property
    def chat_template(self) -> str | None:
        return dict(self.chat_templates).get("default")


class AdapterFolder(Struct, frozen=True):
    """A LoRA adapter in PEFT's form."""

    path: Path
    base: str
    """Name or path of the model that it was trained on, as the folder gives it."""
    rank: int
    alpha: float
    target_modules: tuple[str, ...]


def is_adapter_folder(path: Path) -> bool:
    return (path / "adapter_config.json").is_file()


def is_diffusers_folder(path: Path) -> bool:
    return (path / "model_index.json").is_file()


def image_architecture(path: Path) -> str:
    """The pipeline that a diffusers folder is for. Raises LoadFailed that names the file and the key."""
    index = _JsonFile.required(path / "model_index.json")
    name = index.text("_class_name")
    if name is None:
        raise index.wrong("_class_name", "the name of a diffusers pipeline")
    return name


def read_model_folder(path: Path) -> ModelFolder:
    """Raises LoadFailed that names the file and the key."""
    if not path.is_dir():
        raise LoadFailed(f"{path} is not a folder; give the folder that holds the model's config.json")
    config = _JsonFile.required(path / "config.json")
    text_config = config.section("text_config")
    tokenizer = _JsonFile.optional(path / "tokenizer_config.json")
    generation = _JsonFile.optional(path / "generation_config.json")
    architecture = config.architecture()
    kind = _kind(path, architecture)
    return ModelFolder(
        path=path,
        kind=kind,
        architecture=architecture,
        model_type=config.text("model_type") or "",
        weights=_weights(path),
        vocab_size=text_config.count("vocab_size"),
        context_tokens=_context_tokens(path, text_config, tokenizer),
        eos_token_ids=_eos_token_ids(kind, path, (generation, text_config, config), tokenizer),
        bos_token_id=_first_id("bos_token_id", generation, text_config, config),
        pad_token_id=_first_id("pad_token_id", generation, text_config, config),
        special_tokens=_special_tokens(tokenizer),
        chat_templates=_chat_templates(path, tokenizer),
        pooling=_pooling(path),
        default_sampling=_default_sampling(generation),
    )


def read_adapter_folder(path: Path) -> AdapterFolder:
    """Raises LoadFailed that names the file and the key, also for adapters that are not plain LoRA."""
    config = _JsonFile.required(path / "adapter_config.json")
    if (config.text("peft_type") or "LORA").upper() != "LORA":
        raise LoadFailed(f"{config.path}: peft_type is {config.text('peft_type')}; only LORA is served")
    for key in ("use_dora", "use_rslora"):
        if config.get(key):
            raise LoadFailed(f"{config.path}: {key} is set; only plain LoRA is served")
    modules = config.get("target_modules") or []
    base = config.text("base_model_name_or_path") or ""
    return AdapterFolder(
        path=path,
        base=base,
        rank=config.count("r"),
        alpha=float(config.get("lora_alpha") or config.count("r")),
        target_modules=(modules,) if isinstance(modules, str) else tuple(modules),
    )


class _JsonFile:
    """A JSON object and the file that it came from, for messages."""

    def __init__(self, path: Path, fields: dict[str, Any]) -> None:
        self.path = path
        self._fields = fields

    @classmethod
    def required(cls, path: Path) -> "_JsonFile":
        if not path.is_file():
            raise LoadFailed(f"{path} does not exist; a model folder needs it")
        return cls(path, _read_object(path))

    @classmethod
    def optional(cls, path: Path) -> "_JsonFile":
        return cls(path, _read_object(path) if path.is_file() else {})

    def get(self, key: str) -> Any:
        return self._fields.get(key)

    def section(self, key: str) -> "_JsonFile":
        """A nested object of a multimodal config, or the file itself."""
        nested = self.get(key)
        return _JsonFile(self.path, nested) if isinstance(nested, dict) else self

    def text(self, key: str) -> str | None:
        value = self.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self.wrong(key, "a string")

    def count(self, key: str) -> int:
        value = self.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        raise self.wrong(key, "a positive integer")

    def ids(self, key: str) -> tuple[int, ...]:
        """A token id or a list of them; negative ones mean none."""
        value = self.get(key)
        listed = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(token_id, int) for token_id in listed):
            raise self.wrong(key, "a token id or a list of token ids")
        return tuple(token_id for token_id in listed if token_id >= 0)

    def architecture(self) -> str:
        """The class name of the weights, or the model type where a config leaves it out."""
        named = self.get("architectures")
        if isinstance(named, list) and named and isinstance(named[0], str):
            return named[0]
        model_type = self.text("model_type")
        if model_type is None:
            raise self.wrong("architectures", "a list with the model's class name")
        return model_type

    def wrong(self, key: str, wanted: str) -> LoadFailed:
        value = self.get(key)
        found = "is missing" if value is None else f"is {str(value)[:80]!r}"
        return LoadFailed(f"{self.path}: {key} {found}; it must be {wanted}")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LoadFailed(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise LoadFailed(f"{path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise LoadFailed(f"{path} holds {type(fields).__name__}, not a JSON object")
    return fields


def _kind(path: Path, architecture: str) -> Literal["decoder", "encoder"]:
    """Sentence-transformers folders are encoders whatever their backbone (Qwen3-Embedding is a causal model)."""
    if (path / "modules.json").is_file():
        return "encoder"
    writes = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    return "decoder" if architecture.endswith(writes) else "encoder"


def _weights(path: Path) -> Literal["openvino", "safetensors", "none"]:
    if (path / "openvino_model.xml").is_file():
        return "openvino"
    return "safetensors" if any(path.glob("*.safetensors")) else "none"


def _context_tokens(path: Path, config: _JsonFile, tokenizer: _JsonFile) -> int:
    """The smallest of what the position table, the sentence-transformers file and the tokenizer allow."""
    limits = [_JsonFile.optional(path / "sentence_bert_config.json").get("max_seq_length")]
    limits += [config.get(key) for key in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")]
    if config.get("model_type") in ("roberta", "xlm-roberta", "camembert"):  # Positions count from pad + 1.
        limits = [n and n - 2 for n in limits]
    known = [n for n in limits if isinstance(n, int) and n > 0]
    if not known:
        known = [n for n in [tokenizer.get("model_max_length")] if isinstance(n, int) and 0 < n < 2**31]
    if not known:
        raise config.wrong("max_position_embeddings", "the longest context in tokens")
    return min(known)


def _eos_token_ids(kind: str, path: Path, files: tuple[_JsonFile, ...], tokenizer: _JsonFile) -> tuple[int, ...]:
    """The generation config's, else the config's; and the tokenizer's own end token, which chat-tuned models end their
    turn with even where the configs name another."""
    found = next((ids for ids in (file.ids("eos_token_id") for file in files) if ids), ())
    own = _token_text(tokenizer.get("eos_token"))
    own_id = _added_token_id(path, tokenizer, own) if own is not None else None
    ids = tuple(dict.fromkeys((*found, *(() if own_id is None else (own_id,)))))
    if kind == "decoder" and not ids:
        raise files[-1].wrong("eos_token_id", "the id of the token that ends a text")
    return ids


def _added_token_id(path: Path, tokenizer: _JsonFile, text: str) -> int | None:
    decoder = tokenizer.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        return next((int(i) for i, token in decoder.items() if _token_text(token) == text), None)
    added = _JsonFile.optional(path / "tokenizer.json").get("added_tokens") or []
    return next((token["id"] for token in added if token.get("content") == text), None)


def _first_id(key: str, *files: _JsonFile) -> int | None:
    return next((file.ids(key)[0] for file in files if file.ids(key)), None)


def _token_text(token: Any) -> str | None:
    """Tokens are written as text or as an object with `content`."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _special_tokens(tokenizer: _JsonFile) -> tuple[tuple[str, str], ...]:
    names = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
    texts = ((name, _token_text(tokenizer.get(name))) for name in names)
    return tuple((name, text) for name, text in texts if text is not None)


def _chat_templates(path: Path, tokenizer: _JsonFile) -> tuple[tuple[str, str], ...]:
    """Files of their own win over tokenizer_config.json, as in transformers."""
    templates = _listed_templates(tokenizer)
    files = {"default": path / "chat_template.jinja"}
    files |= {file.stem: file for file in sorted(path.glob("additional_chat_templates/*.jinja"))}
    for name, file in files.items():
        if file.is_file():
            templates[name] = file.read_text(encoding="utf-8")
    return tuple(templates.items())


def _listed_templates(tokenizer: _JsonFile) -> dict[str, str]:
    listed = tokenizer.get("chat_template")
    if listed is None:
        return {}
    if isinstance(listed, str):
        return {"default": listed}
    try:
        return {template["name"]: template["template"] for template in listed}
    except (TypeError, KeyError):
        raise tokenizer.wrong("chat_template", "a template or a list of {name, template}") from None


def _pooling(path: Path) -> Literal["mean", "cls", "last"] | None:
    config = _JsonFile.optional(path / "1_Pooling" / "config.json")
    if config.get("pooling_mode_cls_token"):
        return "cls"
    if config.get("pooling_mode_lasttoken"):
        return "last"
    return "mean" if config.get("pooling_mode_mean_tokens") else None


def _default_sampling(generation: _JsonFile) -> SamplingParams:
    """The published settings; `do_sample: false` is no wish for greedy decoding, only the library's default."""
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    given = {name: generation.get(name) for name in names if generation.get(name) is not None}
    try:
        return msgspec.convert(given, SamplingParams)
    except msgspec.ValidationError as error:
        raise LoadFailed(f"{generation.path}: {error}") from error
