"""Which policies are compared: families of one idea with its knobs swept, and ours with one idea taken out each."""

from collections.abc import Iterable

from speciate.core.errors import ConfigError

OURS = "speciate"
FAMILIES: dict[str, tuple[str, ...]] = {
    OURS: ("speciate", "speciate-reserved"),
    "fcfs": ("fcfs-256", "fcfs-512", "fcfs-2048"),
    "vllm-priority": ("vllm-priority-256", "vllm-priority-512", "vllm-priority-2048"),
    "sglang": ("sglang-512", "sglang-2048", "sglang-mixed-256", "sglang-mixed-512"),
    "edf": ("edf-256", "edf-512", "edf-2048"),
    "qoserve": ("qoserve", "qoserve-alpha-1ms", "qoserve-careful"),
    "aimd": ("aimd-256", "aimd-512"),
    "silo": ("silo-30-50-20", "silo-20-50-30", "silo-40-40-20"),
}
ABLATIONS: dict[str, tuple[str, ...]] = {
    name: (name,)
    for name in (
        "speciate-without-guard",
        "speciate-without-pausing",
        "speciate-fixed-margin",
        "speciate-fixed-chunk",
        "speciate-without-admission",
    )
}
NO_ADMISSION = "-without-admission"


def family_of(policy: str) -> str:
    """Raises ConfigError for a policy that belongs to none."""
    for family, policies in (FAMILIES | ABLATIONS).items():
        if policy in policies:
            return family
    raise ConfigError(f"{policy!r} is in no family. Known: {', '.join(all_policies())}.")


def all_policies() -> Iterable[str]:
    return (policy for policies in (FAMILIES | ABLATIONS).values() for policy in policies)


def has_admission(policy: str) -> bool:
    """Ours refuses at the door; other engines let everything in."""
    return policy.startswith(OURS) and not policy.endswith(NO_ADMISSION)


def scheduler_name(policy: str) -> str:
    """What `sim.policies` calls it."""
    return policy.removesuffix(NO_ADMISSION)
