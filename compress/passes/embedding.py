"""Embedding and head rounded so that the model's answers change least, in place of to nearest, which is what
exports do with them otherwise.

How: :mod:`edgepress.compress.solve.table_solving`. What is stored is each table in its own type, with values
on the grid, which exports round to the same codes (:mod:`edgepress.compress.numbers.table_rounding`).
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from ...errors import RecipeError, ShapeError
from ..model.anatomy import Anatomy
from ..model.block_anatomy import BlockAnatomy
from ..numbers.scheme import Scheme
from ..numbers.table_scheme import MOST_BITS, TableScheme, TableSchemeOption, rows_of
from ..pipeline.advance import Work
from ..pipeline.algorithm import EVERY, Fixed, whole_model
from ..pipeline.block import LayerStatus
from ..pipeline.block_shards import BlockWriter
from ..pipeline.model_pass import ModelPass, Workload
from ..pipeline.stage import COMPARED, Stage, StageResult
from ..solve.damped_cholesky import damping_status
from ..solve.group_solving import DAMPING
from ..solve.table_solving import TOKENS, gains, round_table, table_hessians
from ..text.micro_batches import MEASURED_TOKENS


class Embedding(ModelPass):
    """Options of ``embedding``."""

    works_on: ClassVar[frozenset[str]] = EVERY
    fixed: ClassVar[Mapping[str, Fixed]] = {
        **whole_model("embedding and head are no layers"),
        **COMPARED,
        "samples": Fixed(None, f"it reads the first {TOKENS} tokens"),
    }
    samples: ClassVar[None] = None  # type: ignore[misc]  # not an option here
    on_tables: ClassVar[bool] = True
    scheme: TableSchemeOption = Field(
        description=f"how embedding and head are stored, of at most {MOST_BITS} bits; "
        "W4A16-g16+W3A16-g32@4096 has the rows of rare tokens, from 4096 on, in W3A16-g32"
    )
    head: TableSchemeOption | None = Field(
        None, description="how a head that is not the embedding is stored; null: as the embedding"
    )

    @property
    def tables(self) -> tuple[Scheme, Scheme]:
        return self.scheme, self.head or self.scheme

    @property
    def calibrated(self) -> bool:
        return True

    @property
    def measures(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return self.scheme.name

    def observers_bytes(self, block: BlockAnatomy) -> int:
        """Both Hessians, as large as a layer that reads the hidden states."""
        return 2 * 4 * min(linear.in_features for linear in block.linears()) ** 2

    def working_bytes(self, weights: int) -> int:
        """Embedding and head as they are read, which the plan counts for any model."""
        return 0

    def disk_bytes(self, anatomy: Anatomy, tokens: int, scales: int) -> int:
        """States of the tokens that other backward sweeps do not read; of text whose targets are shorter than
        it is all may be read.
        """
        read = tokens if anatomy.kind == "encoder_decoder" else min(tokens, TOKENS)
        more = max(0, read - MEASURED_TOKENS)
        return more * (len(anatomy.blocks) + 3) * anatomy.hidden_size * 4

    def work(self, load: Workload) -> Work:
        """A sweep forth and back; of each row the recursion, its error, three descents and four refits."""
        anatomy = load.anatomy
        tables = 1 if anatomy.tied else 2
        solved = 40.0 * tables * anatomy.vocab_size * anatomy.hidden_size**2
        return Work(load.backward * min(load.tokens, TOKENS) + solved)

    def anatomy_after(self, anatomy: Anatomy) -> Anatomy:
        """As it was."""
        if not gains(anatomy):
            why = "it has no head" if anatomy.head is None else "a norm or a projection stands behind it"
            raise RecipeError(
                f"embedding is for decoders and encoder–decoders that read their embedding as it is, not for "
                f"{anatomy.model_type}: " + why,
                fix="leave it out: exports round the embedding to nearest",
            )
        for scheme in self.tables:
            for _, part in rows_of(scheme, anatomy.vocab_size):
                size = part.group_size
                if size is not None and anatomy.hidden_size % size:
                    raise ShapeError(
                        f"{scheme.name}: groups of {size} do not divide "
                        f"a hidden size of {anatomy.hidden_size}"
                    )
            if isinstance(scheme, TableScheme) and scheme.rare_from >= anatomy.vocab_size:
                raise ShapeError(
                    f"{scheme.name}: a vocabulary of {anatomy.vocab_size} has no rows from token "
                    f"{scheme.rare_from} on",
                    fix="name a smaller number behind @, or one scheme for all rows",
                )
        return anatomy

    def apply(self, stage: Stage) -> StageResult:
        """Measure the Hessians, round, and copy everything else."""
        source, statuses = stage.source, []
        changed: dict[str, Tensor] = {}
        for name, hessian in table_hessians(stage, "embedding").items():
            scheme = self.tables[name == source.anatomy.head]
            table = source.stored(f"{name}.weight")
            with stage.progress.task(f"rounding {name}", len(table)) as task:
                rounded = round_table(table, hessian.to(stage.device), scheme, task.advance)
            changed[f"{name}.weight"] = rounded.table
            status, detail = damping_status(DAMPING, rounded.damping, "fallback-rtn")
            statuses.append(
                LayerStatus(name, "embedding", scheme.name, status, rounded.error, "outputs", detail)
            )
        writer = BlockWriter(source, source.schemes, stage.directory)
        parts = [
            writer.part(block, source.quantized(block, stage.device), {}, stage.masks.of(block, stage.device))
            for block in source.anatomy.blocks
        ]
        return StageResult([*parts, writer.outer(changed)], statuses, dict(source.schemes), writer.forms)


PASS = Embedding
