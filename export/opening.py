"""``open_job``: the checkpoint that is exported, found and checked before anything is written."""

from pathlib import Path
from typing import Any

from ..compress.bundle_size import experts_in_float
from ..compress.model.image_processor import require_preprocessing
from ..compress.model.models import ResolvedModel, resolve
from ..compress.model.pooling import IMAGE_POOLING, TOWER_POOLING, Pooling, embeds_sentences, pooling_of
from ..compress.model.weights import WeightSource
from ..files.output_paths import refuse_nesting
from ..terminal.progress import Progress
from .graph.attention.cache_io import cache_type
from .graph.forms.providers import ProviderForm
from .job import ExportJob
from .proof.proof_text import proof_text
from .sentence_texts import Prompts, check_texts, prompts_of

# A form in half precision has its cache in it, too.
_CACHES = {"float16": "fp16"}


def open_job(
    checkpoint: str | Path,
    target: Path,
    text: Path | None,
    kv: str | None,
    form: ProviderForm,
    progress: Progress,
) -> ExportJob:
    """The job of exporting ``checkpoint`` to ``target``."""
    model = resolve(str(checkpoint), progress)
    refuse_nesting(target, [model.path])
    proof_text(text)  # a text that cannot be read is found now, not after the graph is written
    source = WeightSource.open(model.path)
    source.in_float(experts_in_float(source))
    if embeds_sentences(model.path):
        check_texts(model.path)
    decodes, encodes = (source.anatomy.kind == kind for kind in ("decoder", "encoder"))
    images = source.anatomy.patches is not None
    pooling, prompts = _pooling(source) if encodes else None, Prompts()
    if pooling is not None and embeds_sentences(model.path):
        prompts = prompts_of(model.path, pooling)
    origin = _origin(source, model)
    return ExportJob(
        source=source,
        name=str(origin["name"]),
        described=str(origin["described"]),
        made=source.manifest | {"source": origin},
        pooling=pooling,
        prompts=prompts,
        images=require_preprocessing(model.path) if images else None,
        text=text,
        form=form,
        kv_dtype=cache_type(source, model.name, kv or (_CACHES.get(form.dtype) if decodes else None)),
        progress=progress,
    )


def _pooling(source: WeightSource) -> Pooling:
    if source.anatomy.tower is not None:
        return TOWER_POOLING
    return IMAGE_POOLING if source.anatomy.patches is not None else pooling_of(source.reader.path)


def _origin(source: WeightSource, model: ResolvedModel) -> dict[str, Any]:
    """The base model: what was compressed, or the plain checkpoint itself."""
    known = source.manifest.get("source")
    stated = {"license": None if model.license is None else model.license.as_dict()}
    named = {"name": model.name, "described": model.described, "hub_id": model.hub_id} | stated
    # The licence of an older manifest may stand in the files beside it.
    return named | known | stated if isinstance(known, dict) else named
