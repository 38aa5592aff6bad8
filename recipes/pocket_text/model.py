# ruff: noqa: N803, N806, N812 - a tensor's name ends in its shape, and F is what everyone calls it
"""The network that the recipe trains: Llama's mathematics over packed sequences, written short and fast for a CPU.

Knows nothing of data, files or text. Parameter names equal those inside transformers' LlamaForCausalLM.model, so that
`export.py` can write them as they are.

Shapes: T tokens of all sequences, D hidden, H query heads, K key/value heads, E size of one head, V vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.pocket_text.attention import PackedAttention, Rows


@dataclass(frozen=True, slots=True)
class TextConfig:
    """Sizes of the model; the defaults are those of the shipped weights."""

    vocab_size: int = 1536
    hidden_size: int = 256
    num_layers: int = 4
    num_heads: int = 8
    num_kv_heads: int = 4
    head_dim: int = 32
    inner_size: int = 640
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    max_positions: int = 2048


class RMSNorm(nn.Module):
    """Scales each token to unit mean square, then by a learned weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x_TD: Tensor) -> Tensor:
        return F.rms_norm(x_TD, (x_TD.shape[-1],), self.weight.to(x_TD.dtype), self.eps)


def rotary_tables(config: TextConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables of shape [max_positions, head_dim] for the rotate-half form of RoPE."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angles = torch.outer(torch.arange(config.max_positions, dtype=torch.float32), config.rope_theta**-exponents)
    doubled = torch.cat((angles, angles), dim=-1)
    return doubled.cos(), doubled.sin()


def rotate(x_THE: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
    """Turns queries or keys by their position."""
    first, second = x_THE.chunk(2, dim=-1)
    return x_THE * cos_TE[:, None] + torch.cat((-second, first), dim=-1) * sin_TE[:, None]


class Attention(nn.Module):
    """Causal attention in which each key/value head serves several query heads."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, config.num_heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.num_kv_heads * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.num_kv_heads * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.num_heads * config.head_dim, config.hidden_size, bias=False)

    def forward(self, x_TD: Tensor, cos_TE: Tensor, sin_TE: Tensor, groups: list[Rows]) -> Tensor:
        q_THE = rotate(self.q_proj(x_TD).unflatten(-1, (-1, self.head_dim)), cos_TE, sin_TE)
        k_TKE = rotate(self.k_proj(x_TD).unflatten(-1, (-1, self.head_dim)), cos_TE, sin_TE)
        v_TKE = self.v_proj(x_TD).unflatten(-1, (-1, self.head_dim))
        return self.o_proj(PackedAttention.apply(q_THE, k_TKE, v_TKE, groups).flatten(-2))


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.inner_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.inner_size, bias=False)
        self.down_proj = nn.Linear(config.inner_size, config.hidden_size, bias=False)

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_TD)) * self.up_proj(x_TD))


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x_TD: Tensor, cos_TE: Tensor, sin_TE: Tensor, groups: list[Rows]) -> Tensor:
        x_TD = x_TD + self.self_attn(self.input_layernorm(x_TD), cos_TE, sin_TE, groups)
        return x_TD + self.mlp(self.post_attention_layernorm(x_TD))


class TextModel(nn.Module):
    """Embedding, layers and final norm; `logits` shares the embedding's weights."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        cos, sin = rotary_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.apply(_initialise)

    def forward(self, ids_T: Tensor, positions_T: Tensor, groups: list[Rows]) -> Tensor:
        """Hidden states [T, D] after the final norm."""
        x_TD = self.embed_tokens(ids_T).bfloat16()
        cos_TE = self.cos[positions_T].to(x_TD.dtype)
        sin_TE = self.sin[positions_T].to(x_TD.dtype)
        for layer in self.layers:
            x_TD = layer(x_TD, cos_TE, sin_TE, groups)
        return self.norm(x_TD)

    def logits(self, x_TD: Tensor) -> Tensor:
        """Scores over the vocabulary [T, V]."""
        return F.linear(x_TD, self.embed_tokens.weight)


class LowRankLinear(nn.Module):
    """A frozen linear layer plus (alpha / rank) B A. `lora_A` is [rank, in] and `lora_B` [out, rank], as in PEFT."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features) * base.in_features**-0.5)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.base(x_TD) + F.linear(F.linear(x_TD, self.lora_A), self.lora_B) * self.scale


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
