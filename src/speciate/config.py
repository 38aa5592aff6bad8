"""The one tree of settings: read from speciate.yaml, checked, resolved once. Nothing below imports it.

Unknown keys and values that do not parse are errors that name the place and the nearest key.
"""

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta, Struct, field

from speciate.admission.admit import AdmissionOptions
from speciate.core.errors import ConfigError
from speciate.core.segment import Segment, Slo, Tier
from speciate.scaling.spec import MarketsSpec, check_markets
from speciate.scheduling.options import Reservation, TokenSchedulerOptions
from speciate.telemetry.export import OtelOptions

API_KEYS_VARIABLE = "SPECIATE_API_KEYS"
"""Environment variable with comma-separated keys; secrets are never in the file."""

BATCH_POSTGRES_VARIABLE = "SPECIATE_BATCH_POSTGRES"
"""Environment variable with the URL of the Postgres that holds batches, for several machines."""


Port = Annotated[int, Meta(ge=0, le=65_535)]
Seconds = Annotated[float, Meta(gt=0.0)]
Mib = Annotated[float, Meta(gt=0.0, le=2.0**30)]
Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where and how the front door listens."""

    host: str = "127.0.0.1"
    port: Port = 8000
    max_body_mib: Mib = 8.0
    """Larger bodies are refused with 413."""
    heartbeat_s: Seconds = 15.0
    """A comment line is sent on a silent stream after this long."""
    write_stall_s: Seconds = 60.0
    """A client that reads nothing for this long is gone."""
    drain_s: float = 10.0
    """On shutdown, how long running requests may go on."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call from a browser; `*` is any."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class BatchSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Files and batches: durable jobs. Their Postgres, if any, is named by the environment variable
    SPECIATE_BATCH_POSTGRES, as its URL holds a secret."""

    enabled: bool = True
    directory: str | None = None
    """Where files and the SQLite store are; null: `speciate` in the user's data folder (`$XDG_DATA_HOME` or
    ~/.local/share). With Postgres, all machines must see the same folder."""
    max_lines: int = 50_000
    """Of one batch; 1000000 works."""
    max_file_mib: float = 200.0
    """Of one uploaded file."""
    tenant_gib: float = 20.0
    """All files of one tenant together."""
    max_open_batches: int = 1000
    """Of one tenant."""
    input_expires_after_days: float | None = 30.0
    """Uploaded files with purpose `batch` that name no expiry are deleted after so long; null keeps them."""
    max_in_flight: int = 512
    """Lines that run at once, at most."""
    max_attempts: int = 3
    """Runs of a line whose engine failed."""
    max_worker_deaths: int = 5
    """Processes that may die with a line before it is given up; from the third on it runs alone."""
    lease_s: float = 30.0
    """A worker that is silent so long is dead (Postgres; a folder with SQLite has one process, known to be dead at
    once)."""
    cancel_grace_s: float = 10.0
    """Running lines of a cancelled batch may finish so long."""


class SegmentSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The promise of a tier."""

    ttft_s: Seconds | None = None
    tpot_s: Seconds | None = None
    e2e_s: Seconds | None = None
    share: Share = 0.95
    jitter_buffer: float = 0.0
    preemptible: bool = True


class AdapterSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A LoRA adapter (PEFT folder), served under its own model name beside its base."""

    name: str
    path: str


class ImageSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How an image model runs; of no meaning to others."""

    device: str = "cpu"
    """As torch writes it: `cpu`, `cuda`, `cuda:1`."""
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    """auto: f32 on a CPU, bf16 elsewhere."""
    steps: Count = 50
    """Of requests that name none."""
    guidance: Annotated[float, Meta(ge=0.0)] | None = None
    """Of requests that name none; null: what the kind of model is usually run with."""
    max_rows: Annotated[int, Meta(ge=2)] = 32
    """Of one pass; a picture with guidance is two."""
    max_size: Count | None = None
    """Of each side in pixels; null: twice the model's own."""


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """One loaded model."""

    name: str
    path: str = "pocket"
    """A Hugging Face folder, an OpenVINO IR folder, a diffusers folder, or `pocket` and `pocket-image` for those in the
    package."""
    kind: Literal["generate", "embed", "both", "image"] = "generate"
    """A diffusers folder is `image` whatever is said here. `both` also answers /v1/embeddings with the decoder's pooled
    states (a second copy of the weights)."""
    weights: Literal["f32", "f16", "bf16", "int8", "int4"] = "int8"
    kv: Literal["u8", "f16", "bf16", "f32"] = "u8"
    kv_mib: Mib = 512.0
    """Memory for the KV cache."""
    max_context_tokens: Count | None = None
    """Null: what the model was made for."""
    threads: Count | None = None
    """Null: all cores."""
    aliases: tuple[str, ...] = ()
    adapters: tuple[AdapterSettings, ...] = ()
    pooling: Literal["auto", "mean", "last", "cls"] = "auto"
    """For embeddings; auto is what the folder says, else `last` for decoders and `mean` for encoders."""
    default_tier: Tier = Tier.INTERACTIVE
    """Of requests that name no tier."""
    segments: dict[Tier, SegmentSettings] = {}
    """What this model promises where that differs from the server's `segments`; a row replaces the tier's whole row."""
    image: ImageSettings = ImageSettings()


def _default_segments() -> dict[Tier, SegmentSettings]:
    return {
        Tier.REALTIME: SegmentSettings(ttft_s=0.1, tpot_s=0.05, share=0.99, preemptible=False),
        Tier.INTERACTIVE: SegmentSettings(ttft_s=1.0, tpot_s=0.1, share=0.95, jitter_buffer=0.5),
        Tier.BATCH: SegmentSettings(e2e_s=86_400.0, share=0.99),
    }


def _default_image_segments() -> dict[Tier, SegmentSettings]:
    return {
        Tier.REALTIME: SegmentSettings(e2e_s=10.0, share=0.95),
        Tier.INTERACTIVE: SegmentSettings(e2e_s=60.0, share=0.95),
        Tier.BATCH: SegmentSettings(e2e_s=86_400.0, share=0.99),
    }


class TelemetrySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where requests are told beside /metrics."""

    otel: OtelOptions | None = None
    """Null: OpenTelemetry is off."""


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of speciate.yaml."""

    server: ServerSettings = ServerSettings()
    models: tuple[ModelSettings, ...] = (
        ModelSettings(
            name="pocket",
            kind="both",
            pooling="mean",
            adapters=(AdapterSettings("pocket-delivery", "pocket-delivery"),),
        ),
    )
    segments: dict[Tier, SegmentSettings] = field(default_factory=_default_segments)
    scheduler: TokenSchedulerOptions = TokenSchedulerOptions()
    admission: AdmissionOptions = AdmissionOptions()
    batch: BatchSettings = BatchSettings()
    markets: MarketsSpec = MarketsSpec()
    telemetry: TelemetrySettings = TelemetrySettings()

    def scheduler_of(self, *names: str) -> TokenSchedulerOptions:
        """What a model's scheduler is told: reservations under its names, and what real-time work is promised here."""
        ttft_s = self.segment_table()[Tier.REALTIME].slo.ttft_s
        expected = None if ttft_s is None else Reservation(ttft_s=ttft_s)
        own = tuple(row for row in self.scheduler.reservations if row.model is None or row.model in names)
        return msgspec.structs.replace(self.scheduler, reservations=own, expected=self.scheduler.expected or expected)

    def segment_table(self) -> dict[Tier, Segment]:
        """The rows that requests are tagged with; tiers that the file leaves out keep their default promise."""
        return _table({**_default_segments(), **self.segments})

    def image_segments(self, model: ModelSettings) -> dict[Tier, Segment]:
        """What an image model promises: whole pictures in time. The server's `segments` are about text."""
        return _table({**_default_image_segments(), **model.segments}, "image")

    def model_segments(self, model: ModelSettings) -> dict[Tier, Segment]:
        """The same for one model's requests: its own rows count before the server's."""
        return _table({**_default_segments(), **self.segments, **model.segments})


def load_settings(path: Path | None) -> Settings:
    """Read and check a settings file; None gives the defaults. Raises ConfigError."""
    if path is None:
        return Settings()
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read settings {path}: {error.strerror}. Check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    return parse_settings(tree or {}, source=str(path))


def parse_settings(tree: Any, source: str) -> Settings:
    """Check a tree of plain values. Raises ConfigError naming the place and, for unknown keys, the nearest one."""
    _check_keys(tree, msgspec.inspect.type_info(Settings), source, "")
    try:
        settings = msgspec.convert(tree, Settings, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}. See docs/reference/settings.md for what each key takes.") from error
    _check_names(settings, source)
    check_markets(settings.markets)
    return settings


def settings_schema() -> dict[str, Any]:
    """JSON Schema of speciate.yaml, for editors."""
    schema = msgspec.json.schema(Settings)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "speciate.yaml", **schema}


def api_keys() -> tuple[str, ...]:
    """Keys from the environment; empty means that the server is open."""
    return tuple(key.strip() for key in os.environ.get(API_KEYS_VARIABLE, "").split(",") if key.strip())


def batch_postgres_url() -> str | None:
    """Of the batch store; None where SQLite serves."""
    return os.environ.get(BATCH_POSTGRES_VARIABLE) or None


def _table(rows: dict[Tier, SegmentSettings], modality: str = "text") -> dict[Tier, Segment]:
    return {tier: _segment(tier, row, modality) for tier, row in rows.items()}


def _segment(tier: Tier, row: SegmentSettings, modality: str) -> Segment:
    return Segment(
        name=f"{modality}-{tier.value}",
        modality=modality,
        tier=tier,
        slo=Slo(ttft_s=row.ttft_s, tpot_s=row.tpot_s, e2e_s=row.e2e_s, share=row.share),
        preemptible=row.preemptible,
        jitter_buffer=row.jitter_buffer,
    )


def _check_keys(tree: Any, expected: msgspec.inspect.Type, source: str, place: str) -> None:
    """Walk structs, tuples and dicts of structs; anything else is msgspec's to check."""
    if isinstance(expected, msgspec.inspect.StructType) and isinstance(tree, dict):
        fields = {f.encode_name: f.type for f in expected.fields}
        for key, value in tree.items():
            if key not in fields:
                raise ConfigError(_unknown_key(str(key), list(fields), source, place))
            _check_keys(value, fields[key], source, f"{place}.{key}" if place else str(key))
    elif isinstance(expected, msgspec.inspect.VarTupleType) and isinstance(tree, list):
        for index, value in enumerate(tree):
            _check_keys(value, expected.item_type, source, f"{place}[{index}]")
    elif isinstance(expected, msgspec.inspect.DictType) and isinstance(tree, dict):
        for key, value in tree.items():
            _check_keys(value, expected.value_type, source, f"{place}.{key}")


def _unknown_key(key: str, known: list[str], source: str, place: str) -> str:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else f" Known keys: {', '.join(known)}."
    return f"{source}: unknown key {key!r} in {place or 'the top level'}.{hint}"


def _check_names(settings: Settings, source: str) -> None:
    names = [n for m in settings.models for n in (m.name, *m.aliases, *(a.name for a in m.adapters))]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"{source}: the model name {name!r} is used {names.count(name)} times; make names unique."
            )
    if not settings.models:
        raise ConfigError(f"{source}: no models; name at least one under `models`.")
