"""Sensor logs: a heading that names the device, then readings, among them one alarm."""

from speciate.models.pocket.document import Document, filler_lines
from speciate.models.pocket.words import WordSource

SENSOR_LOG_FIELDS = ("device", "site", "date", "alarm_time", "alarm_code", "alarm_value")

_HEADINGS = (
    "Device: {device}\nSite: {site}\nDate: {date}",
    "Log of {device} at {site} on {date}",
    "{date} log, device {device}, site {site}",
    "Site: {site}\nDate: {date}\nDevice: {device}",
)
_QUANTITIES = ("temperature", "pressure", "current", "flow", "speed", "load")


def make_sensor_log(words: WordSource, target_tokens: int) -> Document:
    """A log of about `target_tokens`; the shortest that it can be is near 55."""
    fields = _draw_fields(words)
    quantity = words.rng.choice(_QUANTITIES)
    heading = words.rng.choice(_HEADINGS).format(**fields)
    alarm = f"ALARM {fields['alarm_time']} {quantity} {fields['alarm_value']} code {fields['alarm_code']}"
    readings = filler_lines([heading, alarm], lambda: _reading(words, quantity), target_tokens)
    readings.insert(words.rng.randint(0, len(readings)), alarm)
    return Document("sensor_log", "\n".join([heading, *readings]), fields)


def _draw_fields(words: WordSource) -> dict[str, str]:
    machine = words.machine()
    return {
        "device": f"{machine}-{words.rng.randint(1, 99)}",
        "site": words.city(),
        "date": words.date(),
        "alarm_time": words.clock_time(),
        "alarm_code": words.rng.choice("EFWX") + words.digits(words.rng.choice((2, 3))),
        "alarm_value": words.measure(),
    }


def _reading(words: WordSource, quantity: str) -> str:
    if words.rng.random() < 0.12:
        return f"INFO {words.clock_time()} {words.rng.choice(('self test passed', 'filter cleaned', 'shift change'))}"
    return f"OK {words.clock_time()} {quantity} {words.measure()}"
