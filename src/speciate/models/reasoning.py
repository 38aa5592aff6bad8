"""Splits a thinking model's text into what it thought and what it says, while it is being written."""

from msgspec import Struct

from speciate.core.request import Grammar
from speciate.models.lark import as_rules
from speciate.models.tokenizer import Tokenizer

OPEN, CLOSE = "<think>", "</think>"


class ReasoningStep(Struct, frozen=True, gc=False):
    """New text of each part; either may be empty."""

    reasoning: str
    content: str


def opens_thinking(prompt: str) -> bool:
    """Whether a rendered prompt leaves the model inside a block of thought: then the answer holds only its end."""
    return prompt.rstrip().endswith(OPEN)


def has_thought(prompt: str) -> bool:
    """Whether a rendered prompt ends with a finished block of thought: nothing may be thought any more."""
    return prompt.rstrip().endswith(CLOSE)


class ReasoningStream:
    """One answer. A block of thought is only looked for at the start; blank lines around its marks are dropped."""

    def __init__(self, starts_inside: bool) -> None:
        """`starts_inside`: the prompt has opened the block already."""
        self._pending = ""
        self._is_inside = starts_inside
        self._is_over = False
        """Nothing but content may follow."""
        self._trims = True
        """Whether whitespace at the start of the current part is dropped."""

    def push(self, text: str) -> ReasoningStep:
        if self._is_over and not self._trims:
            return ReasoningStep("", text)
        self._pending += text
        if not self._is_inside and not self._is_over:
            self._look_for_start()
        reasoning = self._take_reasoning() if self._is_inside else ""
        return ReasoningStep(reasoning, self._take_content() if self._is_over else "")

    def flush(self) -> ReasoningStep:
        """What was held back; a block that never closed is all reasoning."""
        held, self._pending = self._pending, ""
        if self._is_inside:
            return ReasoningStep(held.rstrip(), "")
        return ReasoningStep("", "" if self._is_over else held)

    def _look_for_start(self) -> None:
        body = self._pending.lstrip()
        if body.startswith(OPEN):
            self._pending = body[len(OPEN) :]
            self._is_inside = True
        elif not OPEN.startswith(body):
            self._is_over, self._trims = True, False

    def _take_reasoning(self) -> str:
        """Thought up to the closing mark, or up to what may become one; blanks before it are held back too."""
        if self._trims:
            self._pending = self._pending.lstrip()
            self._trims = not self._pending
        if CLOSE in self._pending:
            thought, _, self._pending = self._pending.partition(CLOSE)
            self._is_inside, self._is_over, self._trims = False, True, True
            return thought.rstrip()
        safe = len(self._pending) - _overlap(self._pending)
        safe = len(self._pending[:safe].rstrip())
        thought, self._pending = self._pending[:safe], self._pending[safe:]
        return thought

    def _take_content(self) -> str:
        content, self._pending = self._pending, ""
        if self._trims:
            content = content.lstrip()
            self._trims = not content
        return content


def _overlap(text: str) -> int:
    """Length of the longest end of the text that begins the closing mark."""
    return next((n for n in range(min(len(CLOSE) - 1, len(text)), 0, -1) if CLOSE.startswith(text[-n:])), 0)


def grammar_after_thinking(grammar: Grammar, tokenizer: Tokenizer, starts_inside: bool) -> Grammar:
    """The same constraint on what follows the block of thought, which stays free. Without it a model whose prompt opens
    the block would have to write its JSON as a thought."""
    close, opening = tokenizer.added_id(CLOSE), tokenizer.added_id(OPEN)
    if close is None:
        thought = "thought[lazy]: /(.|\\n)*<\\/think>/"
    else:
        barred = ",".join(map(str, sorted(tokenizer.special_ids | {close})))
        thought = f"thought: <[^{barred}]>* <[{close}]>"
    begin = f'"{OPEN}"' if opening is None else f"<[{opening}]>"
    start = "start: thought blank thought_out" if starts_inside else f"start: ({begin} thought blank)? thought_out"
    rules = (start, thought, 'blank: ("\\n" "\\n"?)?', as_rules(grammar, "thought_out"))
    return Grammar("lark", "\n".join(rules), asked_as=grammar.asked_as or grammar.kind)
