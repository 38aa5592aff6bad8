"""Turns any stateful decoder into one that reads and writes *our* KV blocks. Knows no plan and no checkpoint.

OpenVINO's `paged_attention_transformation` replaces attention and its state by paged attention over block tables; after
it the batch is one row of tokens of many sequences. Here are the steps around it: names that it goes by, sliding
windows that it does not find by itself, and the output head computed only for the rows that are sampled.
"""

from collections.abc import Iterator, Sequence

from openvino import Model, Node, Type
from openvino import opset15 as ops
from openvino._offline_transformations import paged_attention_transformation

from speciate.core.errors import LoadFailed

SAMPLED_ROWS = "sampled_rows"
"""Input: places in the step's tokens whose logits are wanted, int32 [S]."""
SLIDING_WINDOW_INPUT = 10
"""Of a paged attention node: 0 to 4 are query, key, value and the caches, 5 to 8 the block tables, 9 the scale."""
NAMED_INPUTS = ("input_ids", "inputs_embeds", "attention_mask", "position_ids", "beam_idx")


def page(model: Model, windows: Sequence[int] = ()) -> None:
    """Change `model` in place. `windows` is the sliding window a layer, 0 for none; layers past its end keep what the
    model says. Raises LoadFailed when the model is not a stateful decoder that can be paged."""
    if not model.get_variables():
        raise LoadFailed("the model keeps no KV state: export it with --task text-generation-with-past")
    for port in model.inputs:
        known = [name for name in NAMED_INPUTS if name in port.get_names()]
        if known:
            port.get_node().set_friendly_name(known[0])
    try:
        paged_attention_transformation(model)
    except RuntimeError as error:
        raise LoadFailed(f"the model cannot be turned to paged attention: {_first_line(error)}") from error
    nodes = list(paged_nodes(model))
    if not nodes or any(name.startswith("beam_idx") for port in model.inputs for name in port.get_names()):
        raise LoadFailed("no attention over KV state was recognised in the model: export it with a current optimum")
    _set_windows(nodes, windows)
    model.validate_nodes_and_infer_types()


def paged_nodes(model: Model) -> Iterator[Node]:
    """The attention nodes, in the order of execution."""
    return (node for node in model.get_ordered_ops() if node.get_type_name() == "PagedAttentionExtension")


def head_of(model: Model) -> Node:
    """The matmul that makes the logits."""
    node = model.output("logits").get_node()
    for _ in range(8):
        if node.get_type_name() == "MatMul":
            return node
        node = node.input_value(0).get_node()
    raise LoadFailed("the output `logits` does not come from a matrix product: the model cannot be paged")


def gather_sampled_rows(model: Model) -> None:
    """Let the output head see only the rows named by the new input `sampled_rows`: [tokens, 1, C] to [S, 1, C]."""
    rows = ops.parameter([-1], Type.i32)
    rows.set_friendly_name(SAMPLED_ROWS)
    rows.output(0).get_tensor().set_names({SAMPLED_ROWS})
    head = head_of(model)
    picked = ops.gather(head.input_value(0), rows, ops.constant(0, Type.i32))
    head.input(0).replace_source_output(picked.output(0))
    model.add_parameters([rows])
    model.validate_nodes_and_infer_types()


def _set_windows(nodes: Sequence[Node], windows: Sequence[int]) -> None:
    for node, window in zip(nodes, windows, strict=False):
        if window:
            node.input(SLIDING_WINDOW_INPUT).replace_source_output(ops.constant(window, Type.i32).output(0))


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
