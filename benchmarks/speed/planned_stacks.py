"""``PlannedStack``: the planned nodes of an encoder of images, of one of texts whose tokens are not packed
(with ropes, or once a decoder), or of one of the two stacks of an encoder–decoder. Their products are as in a
decoder, their attention is the standard operator.
"""

from dataclasses import replace

from ...compress.model.block_anatomy import Attention, BlockAnatomy
from ...devices.kernel_table.operation import cached_attention, float_product, plain_attention
from ...devices.predict.run import Operations, Run
from .planned_graph import PlannedGraph, PlannedModel

_STANDARD = "GroupQueryAttention"
_CHANNELS = 3
# Nodes about masks, distances and shapes; of spectra those on each of their numbers.
_AROUND, _ON_SPECTRA = 12, 8


class PlannedStack(PlannedGraph):
    """The operations of one run of ``model``'s graph; ``deeper`` are the blocks of the decoder for which an
    encoder makes keys and values.
    """

    def __init__(self, model: PlannedModel, run: Run, deeper: tuple[BlockAnatomy, ...] = ()) -> None:
        super().__init__(model, run)
        for block in deeper:
            if block.cross is not None:
                self._projected(self._groups([block.cross.k, block.cross.v]))
        self.found.nodes = sum(self.found.counts.values()) + _AROUND

    def _table(self, decoder: bool) -> None:
        self.joins = False
        anatomy, run = self.model.anatomy, self.run
        width = anatomy.hidden_size
        if anatomy.patches is not None:
            rows, columns = anatomy.patches.grid
            count = run.rows // anatomy.patches.tokens
            self._convolved(count * rows * columns, _CHANNELS * anatomy.patches.side**2, width)
            self._rows("Add", run.rows, width)
        elif anatomy.hearing is not None and not decoder:
            self._heard(run.rows, width)
        else:
            self._looked_up(run.rows)
            for table in (anatomy.position_embedding, anatomy.token_type_embedding):
                if table is not None:
                    self._rows("Gather", run.rows, width)
                    self._rows("Add", run.rows, width, 3)
            if anatomy.embedding_norm is not None:
                self._norm(anatomy.embedding_norm.kind, run.rows)
        if (entry := anatomy.blocks[0].entry_norm) is not None:
            self._norm(entry.kind, run.rows)

    def _heard(self, tokens: int, width: int) -> None:
        """Spectra of a sound, two convolutions over them, of which the second halves their number."""
        hearing = self.model.anatomy.hearing
        assert hearing is not None and hearing.log_mel is not None
        window, frames = hearing.log_mel.window, 2 * tokens
        self._convolved(frames, window, window + 2)  # a cosine and a sine for each frequency
        self._convolved(frames, window // 2 + 1, hearing.bins)
        for _ in range(_ON_SPECTRA):
            self._rows("Add", frames, hearing.bins)
        self._convolved(frames, 3 * hearing.bins, width)
        self._rows("Gelu", frames, width)
        self._convolved(tokens, 3 * width, width)
        self._rows("Gelu", tokens, width)
        self._rows("Add", tokens, width)

    def _convolved(self, rows: int, inputs: int, outputs: int) -> None:
        self.found.taken["Conv"] = "FusedMatMul"
        self.found.counts[float_product(rows, inputs, outputs)] += 1

    def _block(self, block: BlockAnatomy, kept: int) -> None:
        groups = self._groups(list(block.attention.projections))
        self._projected(groups)
        self._taken_apart(groups, self.run.rows, stored=block.attention.qkv is not None)
        self._turned(block.attention)
        self._attended(block.attention)
        self._joined(block.attention.o, block.norm1.kind, kept)
        if block.cross is not None:
            self._projected(self._groups([block.cross.q]), kept)
            self._looked_back(block.cross, kept, self.run.length)
            self._joined(block.cross.o, block.norm1.kind, kept)
        self._feed_forward(block, kept)

    def _left(self, block: BlockAnatomy, rows: int) -> None:
        """In an encoder whose norms stand before, the sum is a node of its own, for every kind of norm."""
        if self.model.anatomy.kind == "decoder" or block.order == "post":
            super()._left(block, rows)
            return
        self._add(self._product(rows, [block.mlp.down]))
        self._rows("Sum", rows, self.model.anatomy.hidden_size, 3)
        self._norm(block.norm2.kind, rows)

    def _attended(self, part: Attention) -> None:
        rows, run = self.run.rows, self.run
        if self.model.anatomy.kind == "decoder":
            self._looked_back(part, rows, run.past + rows)
        else:
            sizes = (run.length or rows, part.heads, part.head_dim)
            self._add(plain_attention(rows, *sizes, kv_heads=part.kv_heads))

    def _turned(self, part: Attention) -> None:
        """Norms and ropes of queries and keys; what turns counts as a sum."""
        for linear, norm in ((part.q, part.q_norm), (part.k, part.k_norm)):
            if norm is not None:
                op = "RootMeanSquareNorm" if norm.kind == "rms" else "LayerNormalization"
                self._rows(op, self.run.rows, linear.out_features)
        for linear in (part.q, part.k) if part.rope is not None else ():
            self._rows("Add", self.run.rows, linear.out_features, 3)

    def _looked_back(self, part: Attention, rows: int, keys: int) -> None:
        self.found.taken["Attention"] = _STANDARD
        sizes = (part.heads, part.kv_heads, part.head_dim)
        self._add(cached_attention(_STANDARD, "float32", rows, max(keys - rows, 0), *sizes))


def reading(model: PlannedModel, run: Run) -> Operations:
    """What ``run`` of the encoder of an encoder–decoder does."""
    encoder, decoder = model.anatomy.stacks()
    return PlannedStack(replace(model, anatomy=encoder), run, decoder.blocks).found


def writing(model: PlannedModel, run: Run) -> Operations:
    """What ``run`` of the decoder of an encoder–decoder does."""
    return PlannedStack(replace(model, anatomy=model.anatomy.stacks()[1]), run).found
