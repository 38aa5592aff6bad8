"""How fast the text engine decodes and prefills, beside llama.cpp and openvino-genai on the same weights."""
