"""How much each tenant was served: virtual token counters (VTC, Sheng et al., OSDI 2024), input 1 and output 2."""

from dataclasses import dataclass

OUTPUT_WEIGHT = 2
MAX_IDLE = 1024
"""Idle tenants remembered beyond as many as are active; then all idle ones are forgotten and start level again."""


@dataclass(slots=True, eq=False)
class Tenant:
    """Service so far, in weighted tokens; `num_live` sequences are waiting or running."""

    name: str
    served: int = 0
    num_live: int = 0


class Tenants:
    """Joins and leaves. A tenant that returns starts level with whoever was served last: idling saves up nothing."""

    def __init__(self) -> None:
        self._tenants: dict[str, Tenant] = {}
        self._num_active = 0
        self._level = 0

    def join(self, name: str) -> Tenant:
        tenant = self._tenants.setdefault(name, Tenant(name))
        if tenant.num_live == 0:
            tenant.served = max(tenant.served, self._level)
            self._num_active += 1
        tenant.num_live += 1
        return tenant

    def leave(self, tenant: Tenant) -> None:
        tenant.num_live -= 1
        if tenant.num_live == 0:
            self._num_active -= 1
            if tenant.served <= self._level:
                del self._tenants[tenant.name]
            elif len(self._tenants) > 2 * self._num_active + MAX_IDLE:
                self._tenants = {name: other for name, other in self._tenants.items() if other.num_live}

    def raise_level(self, tenant: Tenant) -> None:
        """`tenant` was just chosen as the least served."""
        self._level = max(self._level, tenant.served)
