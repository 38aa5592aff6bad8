"""Our scheduler with one idea taken out that its options cannot take out."""

from speciate.core.engine import TokenEngineShape
from speciate.scheduling.draft import Draft
from speciate.scheduling.fill import Stage
from speciate.scheduling.options import TokenSchedulerOptions
from speciate.scheduling.state import TokenState
from speciate.scheduling.token import TokenScheduler

UNBOUNDED_S = 1e6


class FixedChunkScheduler(TokenScheduler):
    """Steps of at most so many tokens, whatever the slack and whoever may arrive; all else as in production."""

    def __init__(self, shape: TokenEngineShape, options: TokenSchedulerOptions, step_tokens: int) -> None:
        super().__init__(shape, options)
        limits, *others = self._stages
        self._stages = (limits, _fixed(step_tokens), *others)


def _fixed(step_tokens: int) -> Stage:
    def stage(state: TokenState, draft: Draft) -> None:
        del state
        draft.limit_s = draft.realtime_limit_s = UNBOUNDED_S
        draft.tokens_left = min(draft.tokens_left, step_tokens)

    return stage
