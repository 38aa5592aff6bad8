"""How fast a replica would do many equal lines of batch work, from what it says of itself. Reads no clock."""

from speciate.admission.admit import AdmissionOptions, Demand, expected_outputs, predict_e2e_s
from speciate.core.replica import ReplicaLoad
from speciate.core.segment import Tier


def predict_lines_per_s(demand: Demand, load: ReplicaLoad, limits: AdmissionOptions, num_at_once: int) -> float | None:
    """Lines a second with so many at once: the first costs what it takes alone, each further one its own share.

    None before the replica knows its step times. An optimist: KV that does not fit so many shows later, in the pace.
    """
    alone_s = predict_e2e_s(Tier.BATCH, demand, load, limits)
    num_outputs = expected_outputs(demand, load, limits)
    share_s = load.margin * (demand.new_tokens * load.prefill_token_s + num_outputs * load.decode_token_s)
    together_s = alone_s + (num_at_once - 1) * share_s
    return num_at_once / together_s if together_s > 0 else None
