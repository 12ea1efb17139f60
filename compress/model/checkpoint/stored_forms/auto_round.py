"""AutoRound's own checkpoints (Cheng et al., Optimize Weight Rounding via Signed Gradient Descent, 2023,
arXiv 2309.05516): integers packed as GPTQ's forms pack them, without ``g_idx``, or as AWQ's does.

``packing_format`` says which: ``auto_round:auto_gptq`` stores zero points less by one, ``auto_round`` and
``auto_round:gptqmodel`` as they are. ``extra_config`` gives some layers other bits.
"""

from collections.abc import Mapping
from typing import Any

from .....errors import CheckpointError
from ..coded_weights import CodedWeight, Read, StoredForm
from ..header import TensorEntry
from ._parts import Parts, modules_with
from .awq import awq_weight
from .gptq import gptq_weight, groups_said

_FIRST = "auto_round:auto_gptq"
_SECOND = ("auto_round", "auto_round:gptqmodel", "auto_round:gptq")
_AWQ = ("auto_round:auto_awq", "auto_round:awq")


class AutoRound:
    """The form."""

    def described(self, settings: Mapping[str, Any]) -> str:
        """With the size of its groups."""
        return f"AutoRound, {groups_said(settings.get('group_size', -1))}"

    def weights(
        self, settings: Mapping[str, Any], tensors: Mapping[str, TensorEntry], read: Read
    ) -> dict[str, CodedWeight]:
        """Every linear with a ``qweight``."""
        packing, kind = settings.get("packing_format", _FIRST), settings.get("data_type", "int")
        if kind != "int" or packing not in (_FIRST, *_SECOND, *_AWQ):
            raise CheckpointError(
                f"quantization_config has the packing_format {packing!r:.80} of the data_type {kind!r:.80}: "
                f"of AutoRound's forms integers in {', '.join((_FIRST, *_SECOND, *_AWQ))} are read",
                fix="start from the model as it was before it was quantized",
            )
        own = settings.get("extra_config") or {}
        found = {}
        for module in modules_with("qweight", tensors):
            parts = Parts(module, tensors)
            if packing in _AWQ:
                found[module] = awq_weight(parts)
                continue
            layer = own.get(module) if isinstance(own, dict) else None
            bits = layer.get("bits") if isinstance(layer, dict) else None
            given = {"bits": settings.get("bits") if bits is None else bits}
            found[module] = gptq_weight(parts, given, first=packing == _FIRST)
        return found


FORM: StoredForm = AutoRound()
