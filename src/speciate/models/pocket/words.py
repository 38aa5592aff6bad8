"""Draws the names, numbers and codes that fill the pocket model's documents, from two splits that never share a value.

Knows nothing of documents or tasks. Every drawn value belongs to exactly one split by a checksum of its text, so a
held-out document holds names, codes, amounts and dates that no training document ever held. Trades, materials, things
and machines are closed lists that both splits share.
"""

import random
import zlib
from collections.abc import Callable
from typing import Literal

from speciate.models.pocket import word_lists

Split = Literal["train", "held_out"]

_HELD_OUT_SHARE = 5
_ONSETS = "b br c ch d dr f fl g gr h j k kr l m n p pr qu r s sh st t th tr v w x y z".split()  # noqa: SIM905
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "io", "ou"]
_CODAS = ["", "", "", "l", "n", "r", "s", "m", "t", "ck", "nd", "x"]
_WORD_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_BLENDED = [
    word_lists.COMMON_WORDS,
    word_lists.COMMON_WORDS,
    word_lists.SURNAMES,
    word_lists.CITIES,
    word_lists.TRADES,
    word_lists.MATERIALS,
    word_lists.THINGS,
    word_lists.MACHINES,
]
_CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


def is_held_out(value: str) -> bool:
    """Whether the value belongs to the held-out split: one in five does, by checksum, whatever its case."""
    return zlib.crc32(value.lower().encode()) % _HELD_OUT_SHARE == 0


def _trained_words(pool: list[str]) -> list[str]:
    return [word for word in pool if not is_held_out(word)]


_TRADES = _trained_words(word_lists.TRADES)
_MATERIALS = _trained_words(word_lists.MATERIALS)
_THINGS = _trained_words(word_lists.THINGS)
_MACHINES = _trained_words(word_lists.MACHINES)


class WordSource:
    """A seeded source of values of one split. Equal seeds give equal values in equal order."""

    def __init__(self, rng: random.Random, split: Split) -> None:
        self.rng = rng
        self.split = split

    def pick(self, pool: list[str]) -> str:
        """One of the pool's words that belong to this split."""
        return self._until_in_split(lambda: self.rng.choice(pool))

    def invented_word(self) -> str:
        """A pronounceable word in lower case that is in no list, so that it must be read, not guessed."""
        return self._until_in_split(self._blend if self.rng.random() < 0.4 else self._syllables)

    def known_or_invented(self, pool: list[str], known_share: float = 0.5) -> str:
        """A word of the pool, or one in lower case that is in no list."""
        return self.pick(pool) if self.rng.random() < known_share else self.invented_word()

    def person(self) -> str:
        """First name and surname, each of this split."""
        return f"{self.first_name()} {self.surname()}"

    def first_name(self) -> str:
        return self._name(word_lists.FIRST_NAMES, known_share=0.5)

    def surname(self) -> str:
        return self._name(word_lists.SURNAMES, known_share=0.4)

    def company(self) -> str:
        """Two or three words, such as "Maron Copper Ltd"."""
        name = self._name(word_lists.SURNAMES, known_share=0.2)
        trade = self.rng.choice(_TRADES)
        ending = self.rng.choice(word_lists.COMPANY_ENDINGS)
        return f"{name} {trade}{ending}"

    def city(self) -> str:
        return self._name(word_lists.CITIES, known_share=0.5)

    def item(self) -> str:
        """A thing that is sold, in two words."""
        return f"{self.rng.choice(_MATERIALS)} {self.rng.choice(_THINGS)}"

    def machine(self) -> str:
        return self.rng.choice(_MACHINES)

    def product(self) -> str:
        """A brand and a model number, such as "Vanto 320"."""
        return f"{self.invented_word().capitalize()} {self.digits(3)}"

    def digits(self, num_digits: int) -> str:
        """Digits without a leading zero."""
        return self._until_in_split(lambda: str(self.rng.randrange(10 ** (num_digits - 1), 10**num_digits)))

    def code(self, prefix: str, num_digits: int) -> str:
        """A reference such as "INV-48213" or "T-XK4821"."""
        letters = "".join(self.rng.choices(_CODE_LETTERS, k=self.rng.choice((0, 0, 1, 2))))
        return f"{prefix}-{letters}{self.digits(num_digits)}"

    def amount(self, most: int = 9999) -> str:
        """Money with two decimals."""
        return self._until_in_split(lambda: f"{int(most ** self.rng.uniform(0.3, 1.0))}.{self.rng.randrange(100):02d}")

    def measure(self) -> str:
        """A reading with one decimal."""
        return self._until_in_split(lambda: f"{self.rng.randrange(1, 400)}.{self.rng.randrange(10)}")

    def date(self) -> str:
        """An ISO date between 2015 and 2029."""
        return self._until_in_split(self._any_date)

    def clock_time(self) -> str:
        """Hours and minutes."""
        return self._until_in_split(lambda: f"{self.rng.randrange(24):02d}:{self.rng.randrange(60):02d}")

    def nonsense(self) -> str:
        """A run of letters or digits without meaning: practice in copying what cannot be guessed."""
        if self.rng.random() < 0.4:
            return self.digits(self.rng.randint(2, 6))
        letters = self._until_in_split(lambda: "".join(self.rng.choices(_WORD_LETTERS, k=self.rng.randint(3, 7))))
        return letters.upper() if self.rng.random() < 0.3 else letters

    def _name(self, pool: list[str], known_share: float) -> str:
        word = self.known_or_invented(pool, known_share)
        return word[0].upper() + word[1:]

    def _blend(self) -> str:
        """The beginning of one word and the end of another."""
        first, second = (self.pick(self.rng.choice(_BLENDED)).lower() for _ in range(2))
        return first[: self.rng.randint(2, 4)] + second[self.rng.randint(1, 3) :]

    def _syllables(self) -> str:
        num_syllables = self.rng.choice((2, 2, 3))
        parts = (self.rng.choice(_ONSETS) + self.rng.choice(_VOWELS) for _ in range(num_syllables))
        return "".join(parts) + self.rng.choice(_CODAS)

    def _any_date(self) -> str:
        year, month, day = self.rng.randrange(2015, 2030), self.rng.randrange(1, 13), self.rng.randrange(1, 29)
        return f"{year}-{month:02d}-{day:02d}"

    def _until_in_split(self, draw: Callable[[], str]) -> str:
        wants_held_out = self.split == "held_out"
        while True:
            value = draw()
            if is_held_out(value) == wants_held_out:
                return value
