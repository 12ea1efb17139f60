"""Which models there are figures for, so that budgets of them mean something; all others are refused."""

from collections.abc import Callable, Sequence

from ..compress.model.anatomy import Anatomy
from ..compress.model.models import ResolvedModel
from ..compress.model.pooling import pooling_of
from ..compress.model.weights import WeightSource
from ..errors import InputError
from .budgets import Budget, refuse_other_kinds
from .candidates import model_kind
from .quantities import ENCODER

_BY_SCHEME = "compress and export it: edgepress compress MODEL --scheme W4A16 -o OUT"
# Of models without figures: whether one is so, what it is, why that is in the way, and the way out.
_WITHOUT_FIGURES: tuple[tuple[Callable[[Anatomy], bool], str, str, str], ...] = (
    (
        lambda anatomy: anatomy.has_experts,
        "is a mixture of experts, which fit has no figures for",
        "what a token reads depends on the experts that it goes to",
        _BY_SCHEME,
    ),
    (
        lambda anatomy: anatomy.has_latents,
        "has latent attention, which fit has no figures for",
        "",
        _BY_SCHEME,
    ),
)


def require_known(resolved: ResolvedModel, source: WeightSource, budgets: Sequence[Budget]) -> None:
    """Refuse models, and budgets of them, that there are no figures for."""
    name, anatomy = resolved.name, source.anatomy
    for applies, what, why, fix in _WITHOUT_FIGURES:
        if applies(anatomy):
            raise InputError(f"{name} {what}", why=why, fix=fix)
    kind = model_kind(anatomy)
    refuse_other_kinds(budgets, kind, name)
    if kind == ENCODER and anatomy.tower is None and pooling_of(resolved.path).mode is None:
        raise InputError(
            f"{name} has no sentence embeddings: no file beside it says how to pool",
            fix="use a sentence-transformers model, with modules.json and 1_Pooling/config.json",
        )
    if source.schemes or source.reader.coded.quantized():
        raise InputError(f"{name} is quantized already", fix="give the model that it was made of")
