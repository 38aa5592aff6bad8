"""Reads one tool call's JSON object as it is written. Knows no marks and no events."""

import json
import re
from collections.abc import Callable

_STRING_SIGNS = re.compile(r'["\\]')


class CallReader:
    """Reads `{"name": ..., "arguments": {...}}` character by character: a state is the method that takes the next
    character and returns the next state."""

    def __init__(self, arguments_keys: tuple[str, ...], is_list: bool) -> None:
        """With `is_list` the object is the first of a list whose bracket comes first."""
        self._arguments_keys = arguments_keys
        self.name: str | None = None
        self.has_arguments = False
        """Whether the value of the arguments has begun."""
        self.is_started = False
        """Set by the stream once the call was told."""
        self.is_broken = False
        """This is no such object."""
        self.is_done = False
        """Its last bracket was read."""
        self._key = ""
        self._value: list[str] = []
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        self._arguments: list[str] = []
        self._state: _State = self._open_list if is_list else self._open

    def read(self, text: str) -> int:
        """Take characters until the object ends or breaks; how many were taken."""
        at = 0
        while at < len(text) and not self.is_done and not self.is_broken:
            end = self._plain_run(text, at)
            if end > at:
                self._value.append(text[at:end])
                self._share(text[at:end])
                at = end
            else:
                self._state = self._state(text[at])
                at += 1
        return at

    def take_arguments(self) -> str:
        """Arguments read since the last call."""
        text = "".join(self._arguments)
        self._arguments.clear()
        return text

    def _plain_run(self, text: str, at: int) -> int:
        """Where a run of characters inside a string value ends that change no state."""
        if not self._in_string or self._is_escaped or self._state != self._in_value:
            return at
        special = _STRING_SIGNS.search(text, at)
        return len(text) if special is None else special.start()

    def _break(self) -> "_State":
        self.is_broken = True
        return self._over

    def _over(self, char: str) -> "_State":
        return self._over

    def _open_list(self, char: str) -> "_State":
        if char.isspace():
            return self._open_list
        return self._open if char == "[" else self._break()

    def _open(self, char: str) -> "_State":
        if char.isspace():
            return self._open
        return self._before_key if char == "{" else self._break()

    def _before_key(self, char: str) -> "_State":
        if char.isspace():
            return self._before_key
        if char == "}":
            return self._end()
        if char != '"':
            return self._break()
        self._begin_value(char)
        return self._in_key

    def _in_key(self, char: str) -> "_State":
        self._track(char)
        if self._in_string:
            return self._in_key
        key = _parse("".join(self._value))
        if not isinstance(key, str):
            return self._break()
        self._key = key
        return self._before_colon

    def _before_colon(self, char: str) -> "_State":
        if char.isspace():
            return self._before_colon
        return self._before_value if char == ":" else self._break()

    def _before_value(self, char: str) -> "_State":
        if char.isspace():
            return self._before_value
        if char in ",:}]":
            return self._break()
        self._begin_value(char)
        if self._key in self._arguments_keys:
            self.has_arguments = True
            self._share(char)
        return self._in_value

    def _in_value(self, char: str) -> "_State":
        if self._depth == 0 and not self._in_string and (char in ",}]" or char.isspace()):
            return self._end_value()(char)
        self._track(char)
        self._share(char)
        is_closed = self._depth == 0 and not self._in_string and char in '"}]'
        return self._end_value() if is_closed else self._in_value

    def _share(self, text: str) -> None:
        """Arguments given as an object flow on at once; given as a string they are decoded at its end."""
        if self._key in self._arguments_keys and self._value[0] == "{":
            self._arguments.append(text)

    def _end_value(self) -> "_State":
        text = "".join(self._value)
        if self._key == "name":
            name = _parse(text)
            if not isinstance(name, str):
                return self._break()
            self.name = name
        elif self._key in self._arguments_keys and text[0] != "{":
            self._arguments.append(_arguments_of(text))
        return self._after_value

    def _after_value(self, char: str) -> "_State":
        if char.isspace():
            return self._after_value
        if char == ",":
            return self._before_key
        return self._end() if char == "}" else self._break()

    def _end(self) -> "_State":
        if self.name is None:
            return self._break()
        if not self.has_arguments:
            self._arguments.append("{}")
        self.is_done = True
        return self._over

    def _begin_value(self, char: str) -> None:
        self._value = []
        self._depth = 0
        self._in_string = self._is_escaped = False
        self._track(char)

    def _track(self, char: str) -> None:
        """Follow strings and brackets."""
        self._value.append(char)
        if self._is_escaped:
            self._is_escaped = False
        elif self._in_string:
            self._is_escaped = char == "\\"
            self._in_string = char != '"'
        elif char == '"':
            self._in_string = True
        else:
            self._depth += (char in "{[") - (char in "}]")


_State = Callable[[str], "_State"]


def _parse(text: str) -> object:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _arguments_of(text: str) -> str:
    """Arguments that are no object: JSON inside a string is taken out of it; null means none."""
    value = _parse(text)
    if isinstance(value, str):
        return value
    return "{}" if value is None else text
