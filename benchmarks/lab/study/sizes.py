"""Columns that are read from a row's files: what it stores, what is left, and what making it cost."""

from collections.abc import Callable

from ....compress.model.models import resolve
from ....compress.model.weights import WeightSource
from ....compress.prune.structured.budget import WEIGHTS, Budget
from ....runtime.bundle.bundle import Bundle
from .making import Workshop
from .peer_rows import tool
from .schema import StudyRow

# What a decoded token reads: the blocks, and the head once.
READ = Budget(of="bytes")


def opened(shop: Workshop, row: StudyRow) -> WeightSource:
    """The row's checkpoint."""
    return WeightSource.open(resolve(shop.checkpoint(row)).path)


def block_bytes(shop: Workshop, row: StudyRow) -> tuple[int, int]:
    """Bytes of the linears of all blocks as stored, and their weights."""
    source = opened(shop, row)
    linears = list(source.anatomy.linears())
    weights = sum(linear.out_features * linear.in_features for linear in linears)
    return sum(source.stored_bytes(f"{linear.name}.weight") for linear in linears), weights


def fraction_left(shop: Workshop, row: StudyRow, counted: Budget) -> float:
    """What a row has of the original: of the weights of blocks, or of all that a token reads."""
    whole = counted.total(WeightSource.open(shop.original_path(row)).anatomy)
    return counted.total(opened(shop, row).anatomy) / whole


def bundle_bytes(shop: Workshop, row: StudyRow) -> int:
    """Bytes of the exported bundle."""
    return sum(file.stat().st_size for file in shop.bundle(row).rglob("*") if file.is_file())


def _bits(shop: Workshop, row: StudyRow) -> str:
    if row.peer is not None and row.peer.kind == "quantizers":  # its checkpoint is dense, its format is not
        return f"{tool(row.peer).VARIANTS[row.peer.variant].stored_bits:.2f}"
    stored, weights = block_bytes(shop, row)
    return f"{8 * stored / weights:.2f}"


def _checkpoint_mb(shop: Workshop, row: StudyRow) -> str:
    source = opened(shop, row)
    return f"{sum(map(source.stored_bytes, source.shapes)) / 1e6:.1f}"


def _blocks_left(shop: Workshop, row: StudyRow) -> str:
    left = f"{fraction_left(shop, row, WEIGHTS):.1%}"
    asked = row.passes[0].get("keep") if row.passes else None
    return left if asked is None else f"{left} (asked {asked:.0%})"


def _of_original(shop: Workshop, row: StudyRow) -> str:
    original = next(one for one in shop.table.rows if one.original)
    return f"{bundle_bytes(shop, row) / bundle_bytes(shop, original):.3f}"


def _damage(shop: Workshop, row: StudyRow) -> str:
    steps = shop.steps(row)
    damage = (steps[-1].get("damage") or {}) if steps else {}
    return "–" if damage.get("kl") is None else f"{damage['kl']:.3f}"


def _zeros(shop: Workshop, row: StudyRow) -> str:
    first = row.passes[0] if row.passes else {}
    return str(first.get("pattern") or (f"{first['sparsity']:.0%}" if "sparsity" in first else "–"))


def _cost(name: str) -> Callable[[Workshop, StudyRow], str]:
    def cell(shop: Workshop, row: StudyRow) -> str:
        cost = shop.cost(row)
        return f"{cost[name]:.0f}" if name in cost else "–"

    return cell


def _cached_token(shop: Workshop, row: StudyRow) -> str:
    return f"{Bundle.open(shop.bundle(row)).decoder.kv_bytes_per_token:,}"


def _layers(shop: Workshop, row: StudyRow) -> str:
    return " + ".join(map(str, opened(shop, row).anatomy.layers()))


COLUMNS: dict[str, tuple[str, Callable[[Workshop, StudyRow], str]]] = {
    "bits": ("bits a weight", _bits),
    "checkpoint_mb": ("checkpoint MB", _checkpoint_mb),
    "blocks_mb": ("blocks MB", lambda shop, row: f"{block_bytes(shop, row)[0] / 1e6:.1f}"),
    "blocks_left": ("blocks left", _blocks_left),
    "bundle_mb": ("bundle MB", lambda shop, row: f"{bundle_bytes(shop, row) / 1e6:.1f}"),
    "of_original": ("of the original's", _of_original),
    "zeros": ("zeros", _zeros),
    "damage": ("KL, probe text", _damage),
    "layers": ("layers", _layers),
    "cached_token": ("cache, bytes a token", _cached_token),
    "cpu_s": ("CPU s", _cost("cpu_seconds")),
    "rss_mb": ("peak RSS MB", _cost("rss_mb")),
}
