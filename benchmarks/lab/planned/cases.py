"""The cases of ``programs/planned_and_taken.py``: models, recipes and verbs, and what a finished case is."""

from dataclasses import dataclass, field, replace

from ..makers.random_llama import Size

COMMAND = "python -m edgepress.benchmarks.lab.programs.planned_and_taken WORK"
SMALL = "67m"
SHAPES = {
    SMALL: Size(768, 2048, 6),
    "0.5b": Size(1024, 3584, 32),
    "1b": Size(2048, 5632, 22),
    "3b": Size(2560, 8960, 36),
    "7b": Size(4096, 14336, 32),
}
BLOCKS = "-"  # between a size and how many of its blocks a model has: 7b-2
# The small model's plans are held against enough text that nothing of a pass is too short to be measured;
# large ones take text enough to run every part of a pass, not enough to make the model better.
TEXT = {SMALL: (16, 256), "gptq": (16, 512)}
SHORT = (4, 128)
VOCABULARY = 49_152
_LEARN = "tokens: 4096, batch_tokens: 1024, measurements: 2"
_STEPS = "training: {{tokens: {tokens}, batch_tokens: 128, micro_batch_tokens: 128}}"
_W4 = "scheme: W4A16-g64"
# By name the passes of a recipe, or a packaged one.
RECIPES = {
    "rtn": f"[{{pass: rtn, {_W4}}}]",
    "w8a8": "[{pass: smoothquant, scheme: W8A8}]",
    "hqq": f"[{{pass: hqq, {_W4}}}]",
    "gptq": f"[{{pass: gptq, {_W4}}}]",
    "gptq-corrected": f"[{{pass: gptq, {_W4}, correction: 0.5, refinements: 2}}]",
    "awq": f"[{{pass: awq, {_W4}}}]",
    "autoround": f"[{{pass: autoround, {_W4}, iterations: 10, low_memory: true}}]",
    "block_qat": f"[{{pass: block_qat, {_W4}, epochs: 1}}]",
    "qat": f"[{{pass: qat, {_W4}, {_LEARN}}}]",
    "tune": f"[{{pass: rtn, {_W4}}}, {{pass: tune, {_STEPS.format(tokens=6400)}}}]",
    "distill": f"[{{pass: distill, {_LEARN}}}]",
    "ternary": f"[{{pass: ternary, {_LEARN}}}]",
    "prune": "[{pass: prune, score: wanda, sparsity: 0.5}]",
    "sparsegpt": "[{pass: sparsegpt, sparsity: 0.5}]",
    "alps": "[{pass: alps, sparsity: 0.5}]",
    "narrow": "[{pass: narrow, keep: 0.8}]",
    "width": "[{pass: width, keep: 0.8}]",
    "layers": "[{pass: layers, keep: 0.8}]",
    "vocabulary": "[{pass: vocabulary, size: 24000}]",
    "embedding": "[{pass: embedding, scheme: W4A16-g32}]",
    "rotate": "[{pass: rotate}]",
    "kv_cache": f"[{{pass: rtn, {_W4}}}, {{pass: kv_cache}}]",
    "allocate": "[{pass: allocate, bits: 3.5, using: {pass: rtn}}]",
    "best": "best",
}
# What a model with some of its blocks has in their place: 10 steps of learning, not 50.
SHORTER = {"tune": f"[{{pass: rtn, {_W4}}}, {{pass: tune, {_STEPS.format(tokens=1280)}}}]"}
WITHOUT_TEXT = ("rtn", "hqq")
# Arguments in which {model} and the names of other cases are paths.
VERBS = {
    "export": ("export", "{rtn}", "-o", "{out}"),
    "validate": ("validate", "{export}", "--against", "{model}", "--windows", "4"),
    "generate": ("generate", "{export}", "--prompt", "The weather today is", "--max-new-tokens", "32"),
    "profile": ("profile", "{export}", "--quick", "--prompt-tokens", "1000", "--max-new-tokens", "32"),
}
CASES = (*RECIPES, *VERBS)
READ_BY_OTHERS = ("rtn", "export")


@dataclass
class Taken:
    """What one case took: bytes and seconds; ``parts`` of these by kind of work, where they are known."""

    model: str
    case: str
    peak: int
    cpu_seconds: float
    wall_seconds: float
    disk: int
    written: int
    limit: str
    parts: dict[str, float] = field(default_factory=dict)


def shape_of(model: str) -> Size:
    """The dimensions of a size, ``7b``, or of a model that has only the first blocks of one, ``7b-2``."""
    name, _, blocks = model.partition(BLOCKS)
    return replace(SHAPES[name], blocks=int(blocks)) if blocks else SHAPES[name]


def passes_of(model: str, case: str) -> str:
    """The passes of the recipe of a ``case`` for ``model``, or the name of a packaged one."""
    return SHORTER.get(case, RECIPES[case]) if BLOCKS in model else RECIPES[case]


def weights_of(size: Size) -> tuple[int, int]:
    """How many weights a block and the whole model have."""
    keys = 64 * size.kv_heads
    block = 2 * size.hidden * (size.hidden + keys) + 3 * size.hidden * size.ffn
    return block, size.blocks * block + VOCABULARY * size.hidden
