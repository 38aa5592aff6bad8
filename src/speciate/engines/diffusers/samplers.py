"""The samplers that a request may ask for. Each item gets an instance of its own: diffusers' schedulers keep state."""

from typing import Any

import diffusers
from msgspec import Struct

from speciate.core.errors import InvalidRequest


class Sampler(Struct, frozen=True):
    """A diffusers scheduler class, and how many latents an instance of it keeps between passes, at most."""

    class_name: str
    kept_latents: int = 0


SAMPLERS: dict[str, Sampler] = {
    "ddim": Sampler("DDIMScheduler"),
    "ddpm": Sampler("DDPMScheduler"),
    "pndm": Sampler("PNDMScheduler", 6),
    "euler": Sampler("EulerDiscreteScheduler"),
    "euler_a": Sampler("EulerAncestralDiscreteScheduler"),
    "heun": Sampler("HeunDiscreteScheduler", 2),
    "dpmpp_2m": Sampler("DPMSolverMultistepScheduler", 2),
    "unipc": Sampler("UniPCMultistepScheduler", 3),
    "deis": Sampler("DEISMultistepScheduler", 2),
    "lcm": Sampler("LCMScheduler"),
}
"""For models of noise; all can read one another's settings."""

FLOW_SAMPLERS: dict[str, Sampler] = {
    "flow_euler": Sampler("FlowMatchEulerDiscreteScheduler"),
}
"""For models of straight flow (SD3, Flux)."""


class SamplerTable:
    """The samplers of one model: its own first, under its own settings."""

    def __init__(self, own: Any) -> None:
        """`own` is the scheduler that the folder names."""
        self._config = own.config
        class_name = type(own).__name__
        known = FLOW_SAMPLERS if class_name.startswith("FlowMatch") else SAMPLERS
        own_name = next((name for name, s in known.items() if s.class_name == class_name), "own")
        self._own_class = type(own)
        self._table = {own_name: known.get(own_name, Sampler(class_name, 4))} | known

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._table)

    def kept_latents(self, name: str | None) -> int:
        return self._find(name).kept_latents

    def make(self, name: str | None) -> Any:
        """A new instance, its timesteps not set. Raises InvalidRequest for a name that is not there."""
        class_name = self._find(name).class_name
        kind = self._own_class if class_name == self._own_class.__name__ else getattr(diffusers, class_name)
        return kind.from_config(self._config)

    def _find(self, name: str | None) -> Sampler:
        sampler = self._table.get(name or self.names[0])
        if sampler is None:
            raise InvalidRequest(
                f"There is no sampler {name!r} for this model; it has {', '.join(self.names)}.", param="sampler"
            )
        return sampler
