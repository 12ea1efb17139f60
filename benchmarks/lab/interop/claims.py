"""What the card or manifest of an artifact says about a client, so that a cell can be held against it."""

from pathlib import Path

from ....files.storage import read_json

_ANY = "any client of ONNX Runtime"
# Artifact and client → the words of the card that name the client.
_WORDS = {
    ("checkpoint", "sentence_transformers"): "from sentence_transformers import",
    ("gptq", "transformers"): "from transformers import",
    ("awq", "transformers"): "from transformers import",
    ("gptq", "vllm_cpu"): "vllm serve",
    ("awq", "vllm_cpu"): "vllm serve",
    ("gguf", "llama_cpp"): "llama.cpp",
    ("onnx", "node"): _ANY,
    ("onnx", "browser"): _ANY,
    ("onnx", "browser_webgpu_software"): _ANY,
    ("onnx_hub", "optimum"): "from optimum.onnxruntime import",
    ("onnx_hub", "transformers_js"): "@huggingface/transformers",
    ("onnx_hub", "transformers_js_browser"): "@huggingface/transformers",
}


def claimed(artifact: Path, form: str, client: str) -> bool | None:
    """Whether ``artifact`` says that ``client`` opens it; None where it says nothing of it either way."""
    if (form, client) == ("checkpoint", "transformers"):
        answer = read_json(artifact / "edgepress.json")["opens_in"]["transformers"]["answer"]
        return None if answer == "differs" else answer == "yes"  # it opens, and other numbers are announced
    if (form, client) == ("onnx", "onnxruntime_genai"):
        return (artifact / "genai_config.json").is_file()  # its own file, written for it alone
    if (form, client) not in _WORDS:
        return None
    return _WORDS[form, client] in (artifact / "README.md").read_text(encoding="utf-8")
