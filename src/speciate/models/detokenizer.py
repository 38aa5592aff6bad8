"""From token ids to text that may be shown now: whole characters, and nothing that could still become a stop string.

Knows no tokenizer library: a `TokenDecoder` turns one token at a time into text, `TextStream` watches for stop strings.
"""

import codecs
import re
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from speciate.core.errors import InvalidRequest


class TextStep(Struct, frozen=True, gc=False):
    """Text that is safe to show, and the stop string that ended the sequence, if one did."""

    text: str
    stopped_by: str | None = None


class TokenDecoder(Protocol):
    """Incremental decoding of one sequence. All pushed text plus `flush` is the text of all tokens."""

    def push(self, token_id: int) -> str:
        """The characters that this token completes; empty for a skipped token."""
        ...

    def flush(self) -> str:
        """What is left of an unfinished character, as U+FFFD."""
        ...


class TextStream:
    """One sequence's output text."""

    def __init__(self, decoder: TokenDecoder, stop: "StopMatcher | None" = None) -> None:
        self._decoder = decoder
        self._stop = stop

    def push(self, token_id: int) -> TextStep:
        """After a stop string nothing more comes."""
        text = self._decoder.push(token_id)
        if self._stop is None:
            return TextStep(text)
        return self._stop.push(text)

    def flush(self) -> str:
        """All that was held back. A stop string completed only by a broken last character still cuts the text."""
        text = self._decoder.flush()
        if self._stop is None:
            return text
        return self._stop.push(text).text + self._stop.flush()


class StopMatcher:
    """Finds the first of many stop strings in a stream (Aho and Corasick 1975): constant time a character however many
    strings there are. "First" is the one that ends first; of those that end together, the longest.

    The automaton's depth is the length of the longest end of the text that begins a stop string: exactly what must be
    held back.
    """

    def __init__(self, stop: tuple[str, ...], include_stop: bool) -> None:
        self._include_stop = include_stop
        self._next: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._found: list[str | None] = [None]
        for word in stop:
            self._insert(word)
        self._fail = self._link()
        self._first = re.compile("[" + "".join(map(re.escape, self._next[0])) + "]")
        self._state = 0
        self._held = ""
        self._stopped_by: str | None = None

    def push(self, text: str) -> TextStep:
        if self._stopped_by is not None:
            return TextStep("", self._stopped_by)
        if self._state == 0 and self._first.search(text) is None:
            return TextStep(text)
        held, self._held = self._held, ""
        for place, char in enumerate(text):
            self._advance(char)
            word = self._found[self._state]
            if word is not None:
                return self._stop(held + text[: place + 1], word)
        return TextStep(self._hold_back(held + text))

    def flush(self) -> str:
        held, self._held, self._state = self._held, "", 0
        return held

    def _advance(self, char: str) -> None:
        while self._state and char not in self._next[self._state]:
            self._state = self._fail[self._state]
        self._state = self._next[self._state].get(char, 0)

    def _stop(self, text: str, word: str) -> TextStep:
        self._stopped_by = word
        return TextStep(text if self._include_stop else text[: len(text) - len(word)], word)

    def _hold_back(self, text: str) -> str:
        shown = len(text) - self._depth[self._state]
        self._held = text[shown:]
        return text[:shown]

    def _insert(self, word: str) -> None:
        if not word:
            raise InvalidRequest("a stop string is empty; leave it out", param="stop")
        state = 0
        for char in word:
            if char not in self._next[state]:
                self._next[state][char] = len(self._next)
                self._next.append({})
                self._depth.append(self._depth[state] + 1)
                self._found.append(None)
            state = self._next[state][char]
        self._found[state] = word

    def _link(self) -> list[int]:
        """Failure links, breadth first: the state of the longest proper end that begins a stop string."""
        fail = [0] * len(self._next)
        queue = list(self._next[0].values())
        for state in queue:
            for char, child in self._next[state].items():
                back = fail[state]
                while back and char not in self._next[back]:
                    back = fail[back]
                fail[child] = self._next[back].get(char, 0)
                if self._found[child] is None:
                    self._found[child] = self._found[fail[child]]
                queue.append(child)
        return fail


class ByteDecoder:
    """For tokenizers whose every token stands for bytes (byte-level BPE): O(1) a token."""

    def __init__(self, token_bytes: Callable[[int], bytes], skipped: frozenset[int]) -> None:
        self._token_bytes = token_bytes
        self._skipped = skipped
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        if token_id in self._skipped:
            return ""
        return self._utf8.decode(self._token_bytes(token_id))

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


class FallbackDecoder:
    """For SentencePiece-like tokenizers: text pieces, and single bytes for what the vocabulary lacks. O(1) a token.

    A run of byte tokens that is not UTF-8 becomes one U+FFFD a byte, as the tokenizers library does; characters of the
    run that were complete before it broke have been shown by then and stay (the library would take them back).
    """

    def __init__(
        self, piece: Callable[[int], bytes | str], skipped: frozenset[int], strip_left: int, first: Callable[[str], str]
    ) -> None:
        """`piece` gives text, or bytes of length 1; up to `strip_left` spaces are dropped at the very start; `first`
        rewrites the first piece."""
        self._piece = piece
        self._skipped = skipped
        self._strip_left = strip_left
        self._first: Callable[[str], str] | None = first
        self._run = bytearray()
        self._is_broken = False

    def push(self, token_id: int) -> str:
        if token_id in self._skipped:
            return ""
        piece = self._piece(token_id)
        first, self._first = self._first, None
        if isinstance(piece, bytes):
            return self._push_byte(piece)
        text = self._end_run() + (piece if first is None else first(piece))
        return self._strip(text) if self._strip_left else text

    def flush(self) -> str:
        return self._end_run()

    def _push_byte(self, byte: bytes) -> str:
        self._run += byte
        if self._is_broken:
            return self._end_bytes()
        try:
            text = self._run.decode()
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":
                return ""
            self._is_broken = True
            return self._end_bytes()
        self._run.clear()
        return self._strip(text) if self._strip_left else text

    def _end_bytes(self) -> str:
        text = "\ufffd" * len(self._run)
        self._run.clear()
        self._strip_left = 0
        return text

    def _end_run(self) -> str:
        self._is_broken = False
        return self._end_bytes() if self._run else ""

    def _strip(self, text: str) -> str:
        num_spaces = len(text) - len(text.lstrip(" "))
        dropped = min(num_spaces, self._strip_left)
        self._strip_left = 0 if len(text) > dropped else self._strip_left - dropped
        return text[dropped:]


class WindowDecoder:
    """For every other tokenizer: decodes the tokens since the last safe place again, as TGI and vLLM do. The window
    grows while the text ends in half a character, up to `MAX_WINDOW` tokens."""

    MAX_WINDOW = 32

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._num_shown = 0
        """How many of `_ids` have had their text shown; they stay as context for the next."""

    def push(self, token_id: int) -> str:
        self._ids.append(token_id)
        text = self._new_text()
        if text.endswith("\ufffd") and len(self._ids) - self._num_shown < self.MAX_WINDOW:
            return ""
        self._move()
        return text

    def flush(self) -> str:
        text = self._new_text()
        self._move()
        return text

    def _new_text(self) -> str:
        shown = self._decode(self._ids[: self._num_shown])
        return self._decode(self._ids)[len(shown) :]

    def _move(self) -> None:
        self._ids = self._ids[self._num_shown :]
        self._num_shown = len(self._ids)
