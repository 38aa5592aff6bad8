"""Text generation and embeddings on OpenVINO's CPU plugin; no torch. Knows no scheduler and no HTTP."""

from speciate.engines.openvino.embedder import OpenVinoEmbedder
from speciate.engines.openvino.engine import OpenVinoEngine
from speciate.engines.openvino.options import AdapterFolder, EmbedOptions, OpenVinoOptions

__all__ = ["AdapterFolder", "EmbedOptions", "OpenVinoEmbedder", "OpenVinoEngine", "OpenVinoOptions"]
