"""The pieces that decoders and encoders are built of, in the forms that the CPU plugin fuses. Knows no checkpoint.

Shapes: B batch, L tokens, C channels, H heads, K key-value heads, D head width, P past tokens.
"""

# Shape suffixes follow STYLE; ruff knows them as mixed-case names.
# ruff: noqa: N803

from openvino import Node, Type
from openvino import opset15 as ops


def integers(*values: int) -> Node:
    return ops.constant(list(values), Type.i64)


def scalar(value: float) -> Node:
    return ops.constant(value, Type.f32)


def linear(x_BLC: Node, weight: Node, bias: Node | None, name: str) -> Node:
    """x W^T + b. The matmul is named for its module, which is how adapters find it."""
    out = ops.matmul(x_BLC, weight, False, True)
    out.set_friendly_name(name)
    return out if bias is None else ops.add(out, bias)


def rms_norm(x: Node, weight: Node, eps: float) -> Node:
    """Zhang and Sennrich 2019, over the last axis; becomes one node."""
    mean = ops.reduce_mean(ops.power(x, scalar(2.0)), integers(-1), True)
    root = ops.sqrt(ops.add(mean, scalar(eps)))
    return ops.multiply(ops.multiply(x, ops.divide(scalar(1.0), root)), weight)


def layer_norm(x: Node, weight: Node, bias: Node, eps: float) -> Node:
    return ops.add(ops.multiply(ops.mvn(x, integers(-1), True, eps, "inside_sqrt"), weight), bias)


def activate(x: Node, name: str) -> Node:
    if name == "silu":
        return ops.swish(x)
    return ops.gelu(x, "tanh" if name == "gelu_pytorch_tanh" else "erf")


def split_heads(x_BLC: Node, num_heads: int, head_dim: int) -> Node:
    """[B, L, H * D] to [B, L, H, D]."""
    return ops.reshape(x_BLC, integers(0, 0, num_heads, head_dim), True)


def heads_first(x_BLHD: Node) -> Node:
    return ops.transpose(x_BLHD, integers(0, 2, 1, 3))


def merge_heads(x_BHLD: Node, width: int) -> Node:
    """[B, H, L, D] to [B, L, H * D]."""
    return ops.reshape(ops.transpose(x_BHLD, integers(0, 2, 1, 3)), integers(0, 0, width), True)


def rotate(x_BHLD: Node, cos_B1LD: Node, sin_B1LD: Node, head_dim: int) -> Node:
    """Rotary positions over halves of the head (Su et al. 2021, in the layout of GPT-NeoX); becomes one node."""
    halves = ops.variadic_split(x_BHLD, ops.constant(3, Type.i64), integers(head_dim // 2, head_dim // 2))
    turned = ops.concat([ops.multiply(halves.output(1), scalar(-1.0)), halves.output(0)], -1)
    return ops.add(ops.multiply(x_BHLD, cos_B1LD), ops.multiply(turned, sin_B1LD))


def repeat_heads(x_BKPD: Node, repeats: int, num_heads: int, head_dim: int) -> Node:
    """Every key-value head for each of its query heads: [B, K, P, D] to [B, H, P, D]."""
    if repeats == 1:
        return x_BKPD
    grouped = ops.unsqueeze(x_BKPD, integers(2))
    spread = ops.broadcast(grouped, integers(1, 1, repeats, 1, 1), broadcast_spec="BIDIRECTIONAL")
    return ops.reshape(spread, integers(0, num_heads, -1, head_dim), True)
