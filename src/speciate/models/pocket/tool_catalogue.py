# ruff: noqa: SIM905 - word lists read better as running text
"""Names of tools, parameters and descriptions for `tool_tasks.py`. Data only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """A tool with natural ways to ask for it; `parameters` maps each name to its JSON type."""

    name: str
    description: str
    parameters: dict[str, str]
    requests: tuple[str, ...]


FAMILIES = (
    Family(
        "set_device",
        "Sets a device to a level.",
        {"device": "string", "level": "integer"},
        ("Set the device {device} to {level}", "Set {device} to {level}.", "Turn the {device} to {level}."),
    ),
    Family(
        "set_device",
        "Set a device to a value.",
        {"name": "string", "value": "integer"},
        ("Set the device {name} to {value}", "Set {name} to {value}.", "Please set the {name} to {value}."),
    ),
    Family(
        "get_weather",
        "Get the current weather in a given location.",
        {"location": "string"},
        ("What is the weather in {location}?", "What's the weather like in {location}?", "Weather in {location}"),
    ),
    Family(
        "get_weather",
        "Get the weather of a city.",
        {"city": "string"},
        ("What is the weather in {city}?", "How is the weather in {city} today?", "Tell me the weather in {city}."),
    ),
    Family(
        "get_time",
        "Get the local time of a city.",
        {"city": "string"},
        ("What time is it in {city}?", "Tell me the time in {city}."),
    ),
    Family(
        "add",
        "Adds two numbers.",
        {"a": "integer", "b": "integer"},
        ("What is {a} + {b}? Use the tool.", "Add {a} and {b}.", "What is {a} plus {b}? Use the tool."),
    ),
    Family(
        "my_adder_tool",
        "Takes two integers, a and b, and returns their sum.",
        {"a": "integer", "b": "integer"},
        ("What is {a} + {b}", "What is {a} + {b}? Use the tool.", "Add {a} and {b}."),
    ),
    Family(
        "multiply",
        "Multiplies two numbers.",
        {"a": "integer", "b": "integer"},
        ("What is {a} * {b}? Use the tool.", "Multiply {a} and {b}.", "What is {a} times {b}? Use the tool."),
    ),
    Family(
        "send_message",
        "Sends a message to a person.",
        {"to": "string", "text": "string"},
        ("Send {to} the message {text}", "Send a message to {to}: {text}", "Tell {to} this: {text}"),
    ),
    Family(
        "search",
        "Searches the documents.",
        {"query": "string"},
        ("Search for {query}.", "Find {query}", "Look up {query}."),
    ),
    Family(
        "book_table",
        "Books a table in a city.",
        {"city": "string", "people": "integer"},
        ("Book a table in {city} for {people} people.", "I need a table in {city} for {people}."),
    ),
    Family(
        "set_timer",
        "Starts a timer.",
        {"minutes": "integer"},
        ("Set a timer for {minutes} minutes.", "Wake me in {minutes} minutes."),
    ),
    Family(
        "read_sensor",
        "Reads a sensor.",
        {"sensor": "string"},
        ("Read the sensor {sensor}.", "What does the sensor {sensor} say?"),
    ),
)

VERBS = (
    "set get open close start stop move read write find check update delete create send book order lock unlock reset "
    "raise lower switch turn load save"
).split()

NOUNS = (
    "lamp device door valve pump fan light motor file order ticket invoice room alarm sensor heater account user robot "
    "camera window gate timer price stock table message"
).split()

PARAMETERS = (
    "input value name city location level count amount device text query a b x y id number unit room minutes key size "
    "speed user item code"
).split()

DESCRIPTIONS = (
    "Applies a magic function to an input.",
    "Apply a magic function to an input.",
    "Does what its name says.",
    "Returns a value.",
    "Calculates a magic function.",
    "Changes the state of a thing.",
    "Runs a command on the device.",
    "Gets a value from the store.",
    "A tool.",
)
