"""Joules that the processor has used, from the kernel's counters (RAPL, Linux powercap). Knows nothing of requests."""

import logging
from pathlib import Path

log = logging.getLogger(__name__)

POWERCAP = Path("/sys/class/powercap")


class RaplCounter:
    """Sum over the processor packages. Counters wrap round; read it more often than they do (minutes)."""

    def __init__(self, packages: list[Path]) -> None:
        """Raises OSError where one cannot be read."""
        self._packages = packages
        self._spans_j = [_number(package / "max_energy_range_uj") / 1e6 for package in packages]
        self._last_j = [_number(package / "energy_uj") / 1e6 for package in packages]
        self._total_j = 0.0

    def read_j(self) -> float:
        """Since this object was made; never falls. Raises OSError."""
        for i, package in enumerate(self._packages):
            now_j = _number(package / "energy_uj") / 1e6
            used_j = now_j - self._last_j[i]
            self._total_j += used_j if used_j >= 0 else used_j + self._spans_j[i]
            self._last_j[i] = now_j
        return self._total_j


def find_rapl(folder: Path = POWERCAP) -> RaplCounter | None:
    """None where the machine has no counter, or only root may read it; the log says which."""
    try:
        packages = sorted(p for p in folder.glob("*rapl:*") if (p / "name").read_text().startswith("package"))
        if not packages:
            log.info("energy is not known: %s has no processor package", folder)
            return None
        return RaplCounter(packages)
    except (OSError, ValueError) as error:
        log.info("energy is not known: the counters under %s cannot be read (%s)", folder, error)
        return None


def _number(path: Path) -> float:
    return float(path.read_text())
