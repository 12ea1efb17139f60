"""From a config and tensor shapes to an ``Anatomy``, through the row or file of its ``model_type``."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal

from ... import plugins
from ...errors import CheckpointError, UnknownName
from .anatomy import Anatomy, Shapes
from .families._config import SizeKeys
from .families._experts import ExpertNames
from .families._llama_rows import ROWS, LlamaRow
from .pooling import STAGES

Reads = Literal["text", "images", "sounds"]
FAMILIES = f"{__package__}.families"
_HEADLESS = "Model"  # how the names of models without a head end
# Models of two encoders whose vectors are compared; see :mod:`.towers`.
PAIRS = ("clip", "siglip")


def anatomy_of(config: Mapping[str, Any], shapes: Shapes) -> Anatomy:
    """The anatomy of a model.

    Args:
        config: the content of ``config.json``.
        shapes: logical shape of each tensor by its dense name (``….weight``, ``….bias``), linears
            ``(out, in)``.

    Raises:
        UnknownName: no family file for this ``model_type``; names those that there are.
        CheckpointError: config and tensors disagree; names the setting or the tensor.
    """
    anatomy: Anatomy = _family(config).anatomy(config, shapes)
    return anatomy


def embedder_of(config: Mapping[str, Any], shapes: Shapes) -> Anatomy:
    """As :func:`anatomy_of`, of a model that sentence-transformers opens: its last states become vectors, so
    that no head is read, nor need be stored, and a decoder (Qwen3-Embedding) is an encoder that looks back.
    """
    found = anatomy_of(_of_any_head(config), shapes)
    if found.kind == "encoder_decoder":
        raise CheckpointError(
            f"the model embeds sentences ({STAGES}) and is of the kind {found.kind}",
            why="states of one stack alone become vectors here",
            fix=f"to compress it as a model that writes, remove {STAGES} from a copy of it",
        )
    return found.without_head()


def _of_any_head(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` of a model that need not have the head of a decoder, nor store it."""
    names = [str(name) for name in config.get("architectures") or []]
    bare = bool(names) and all(name.endswith(_HEADLESS) and "LMHead" not in name for name in names)
    return {**config, "tie_word_embeddings": True, **({"architectures": None} if bare else {})}


def stored_transposed(config: Mapping[str, Any]) -> tuple[str, ...]:
    """How the names of dense tensors end that a family stores ``[in, out]``; a family file may list them as
    ``TRANSPOSED``.
    """
    if config.get("model_type") in PAIRS:  # whose encoders are families, and store none so
        return ()
    return tuple(getattr(_family(config), "TRANSPOSED", ()))


def expert_names(config: Mapping[str, Any]) -> ExpertNames | None:
    """How a family of mixtures stores router and experts; a family file says so as ``EXPERTS``."""
    found: ExpertNames | None = getattr(_family(config), "EXPERTS", None)
    return found


def flattens_tokens(config: Mapping[str, Any]) -> bool:
    """Whether the family's transformers module gives its MLP rows ``[tokens, in]`` instead of
    ``[batch, tokens, in]``; a family file may say so as ``FLATTENS_TOKENS``. compressed-tensors then finds a
    scale for each number where it should find one for each token.
    """
    return bool(getattr(_family(config), "FLATTENS_TOKENS", False))


def looks_at_weights(config: Mapping[str, Any]) -> bool:
    """Whether transformers looks at the weight of every linear before the whole model runs, as it opens a
    model of the family or where ``generate`` runs an encoder by itself; a family file may say so as
    ``LOOKS_AT_WEIGHTS``. A linear that is packed has none then.
    """
    return bool(getattr(_family(config), "LOOKS_AT_WEIGHTS", False))


def splits_matrices(config: Mapping[str, Any]) -> bool:
    """Whether transformers makes two matrices of one as it opens a model of the family, whether that has such
    or not; a family file may say so as ``SPLITS_MATRICES``. It cannot where linears have codes.
    """
    return bool(getattr(_family(config), "SPLITS_MATRICES", False))


def gives_tuples(config: Mapping[str, Any]) -> bool:
    """Whether the family's transformers model takes the states from a tuple that a block gives; a family file
    may say so as ``GIVES_TUPLES``.
    """
    return bool(getattr(_family(config), "GIVES_TUPLES", False))


def pooler(config: Mapping[str, Any]) -> str:
    """The linear of the pooling layer that transformers adds to an encoder which is saved without one; a
    family file may say its own as ``POOLER``.
    """
    return str(getattr(_family(config), "POOLER", "pooler.dense"))


def reads(config: Mapping[str, Any]) -> Reads:
    """What a model of the family reads; a family file says so as ``READS_IMAGES`` or ``HEARS``."""
    family = _family(config)
    if getattr(family, "HEARS", False):
        return "sounds"
    return "images" if getattr(family, "READS_IMAGES", False) else "text"


def read_by(anatomy: Anatomy) -> Reads:
    """What a model of ``anatomy`` reads."""
    if anatomy.hearing is not None:
        return "sounds"
    return "text" if anatomy.patches is None else "images"


def size_keys(config: Mapping[str, Any]) -> SizeKeys:
    """How ``config`` names the sizes that pruning changes."""
    keys: SizeKeys = getattr(_family(config), "SIZES", SizeKeys())
    return keys


def family_names() -> list[str]:
    """Every ``model_type`` that has a row or a file."""
    return sorted({*ROWS, *plugins.names(FAMILIES)})


def _family(config: Mapping[str, Any]) -> ModuleType | LlamaRow:
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise CheckpointError(
            "config.json has no model_type", fix=f"known families: {', '.join(family_names())}"
        )
    known = family_names()
    if model_type in PAIRS:
        raise CheckpointError(
            f"a {model_type} model is two encoders, of texts and of images, which are compressed one by one",
            fix="give its path with :text or :image behind it, as in MODEL:image",
        )
    if model_type.replace("-", "_") not in known:
        # Without the nearest: a family of a similar name is another network.
        raise UnknownName("model family", model_type, known, fix=f"known: {', '.join(known)}")
    return ROWS.get(model_type.replace("-", "_")) or plugins.load(FAMILIES, model_type, "model family")
