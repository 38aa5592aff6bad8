"""How often Python looks for reference cycles in a process that makes thousands of short-lived objects a step.

Every step allocates some hundred tuples and frees as many a little later. With the usual threshold of 700 the collector
wakes at every other large step, walks all that is young and finds nothing: up to a millisecond, now and then several.
"""

import gc

THRESHOLDS = (50_000, 20, 20)


def collect_seldom() -> None:
    """What is loaded by now is taken for good; from here on the collector waits for 50,000 more objects that stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
