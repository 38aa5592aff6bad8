"""The project's own tiny models: where their folders lie, and the torch-free code that makes and checks their tasks."""

from pathlib import Path

TEXT_DIR = Path(__file__).parent / "text"
"""Folder of the pocket text model, in the Hugging Face layout."""

TEXT_ADAPTER_DIR = Path(__file__).parent / "text-delivery"
"""Folder of its LoRA adapter for terse delivery notes, in the PEFT layout."""

IMAGE_DIR = Path(__file__).parent / "image"
"""Folder of the pocket image model, in the diffusers layout."""

IMAGE_STYLES = {style: Path(__file__).parent / f"image-{style}" for style in ("outline", "stripes")}
"""Folders of its LoRA styles."""

IMAGE_JUDGE_DIR = Path(__file__).parent / "image-judge"
"""Folder of the classifier that says what a picture shows."""
