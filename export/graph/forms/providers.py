"""Execution providers as data: in which form a graph is written for each, read by :mod:`.forms`.

The builders know one form, that of the CPU; the others come of rewriting it. What a provider does not
support (``GroupQueryAttention`` in TensorRT) runs on the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ....errors import UnknownName

# What manifest, card and output say of a graph that its provider has not computed anything with.
NOT_RUN = "built, not run"


@dataclass(frozen=True)
class ProviderForm:
    """How graphs are written for one provider.

    Attributes:
        dtype: of activations, norms, scales and the cache.
        linears: ``nbits`` are ``MatMulNBits`` in a graph of ONNX Runtime's own operators; ``qdq`` are
            ``DequantizeLinear`` by blocks and ``MatMul`` in a graph of standard operators (but for the
            attention), which a provider fuses as it can.
    """

    name: str
    dtype: Literal["float32", "float16"]
    linears: Literal["nbits", "qdq"]

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        return {"name": self.name, "dtype": self.dtype, "linears": self.linears}


CPU = ProviderForm("cpu", "float32", "nbits")
FORMS = {
    form.name: form
    for form in (
        CPU,
        ProviderForm("cuda", "float16", "nbits"),
        ProviderForm("openvino", "float32", "qdq"),
        ProviderForm("tensorrt", "float16", "qdq"),
    )
}


def provider_form(name: str) -> ProviderForm:
    """The form for the provider ``name``.

    Raises:
        UnknownName: no graph is written for it.
    """
    if name not in FORMS:
        raise UnknownName("provider", name, FORMS)
    return FORMS[name]


def status_of(manifest: dict[str, Any]) -> str:
    """Whether the provider of a bundle has run it: empty for the CPU's, which every proof runs."""
    provider = manifest["graph"].get("provider", CPU.describe())
    if provider["name"] == CPU.name:
        return ""
    form = manifest["parity"].get("form", {"status": NOT_RUN, "why": "nothing was proven"})
    return f"{provider['name']}: {form['status']}" + (f" ({form['why']})" if form["why"] else "")
