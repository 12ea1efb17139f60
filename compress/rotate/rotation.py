"""Rotations fused into weights: other weights, other hidden states, the same model.

With ``R`` orthogonal, hidden states ``x`` become ``x R``: the outputs of what adds to the residual stream are
multiplied by ``R``, and so are the inputs of what reads it (through a norm, whose scales go into its readers
first). RMSNorm commutes with any rotation, LayerNorm with those that keep the mean. A norm's bias ``b``
cannot go where no linear has one, so it stays behind the norm as ``(b / g) R``, with ``g`` the norm's scales.

The norm before experts is read by the router and the gate of a shared expert too, which stay in float; what
all experts and a shared one give is rotated.

The two stacks of an encoder–decoder share the embedding and so the rotation; the scales of the norm behind
the encoder go into the keys and values of every block that reads its states.

Within a head, attention mixes tokens and never channels: the channels of v may be rotated if o turns them
back (Ashkboos et al. 2024, "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", arXiv 2404.00456).

Random rotations are randomised Hadamard matrices where the size has a power of two in it, else come from QR.
A Hadamard matrix of order 2ᵏ (Sylvester 1867) spreads any one channel evenly over all, and random signs in
front make it as good on average for every direction. A size ``2ᵏ · m`` gets the Kronecker product with a
random orthogonal matrix of order m (576 = 64 · 9). All are float64.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...errors import InputError
from ..model.anatomy import Anatomy
from ..model.block_anatomy import Attention, BlockAnatomy, Linear, Norm
from ..solve.links import index, values_link

Read = Callable[[str], Tensor]
Tensors = dict[str, Tensor]

# A scale below this fraction of the norm's largest cannot divide its bias without losing digits.
_SMALLEST_SCALE = 1e-4
# With fewer rows than this in its Hadamard part, a product spreads less than a matrix from QR does.
_SMALLEST_HADAMARD = 16
_ROWS = 4096  # of a matrix that are float64 at once


class FusedTensors:
    """Parameters by stored name, read when they are first asked for, and those that were changed, float32.
    Products are made in float64.
    """

    def __init__(self, read: Read, names: Sequence[str]) -> None:
        self.read, self.names = read, frozenset(names)
        self.changed: Tensors = {}

    def get(self, name: str) -> Tensor:
        """The parameter ``name`` as it is now."""
        return self.changed[name] if name in self.changed else self.read(name)

    def rotate_inputs(self, linear: Linear | str, rotation: Tensor) -> None:
        """Multiply the weight ``[out, in]`` of a linear that reads rotated states."""
        name = f"{linear if isinstance(linear, str) else linear.name}.weight"
        self.changed[name] = _product(self.get(name), rotation)

    def rotate_outputs(self, linear: Linear, rotation: Tensor) -> None:
        """Multiply the weight ``[out, in]`` and the bias of a linear whose outputs are to be rotated."""
        weight = f"{linear.name}.weight"
        self.changed[weight] = _product(self.get(weight).T, rotation).T
        bias = f"{linear.name}.bias"
        if bias in self.names:
            self.changed[bias] = _product(self.get(bias), rotation)

    def scale_inputs(self, linear: str, scales: Tensor) -> None:
        """Multiply the weight of a linear as its inputs were multiplied by ``scales [in]``."""
        self.changed[f"{linear}.weight"] = self.get(f"{linear}.weight") * scales

    def fold_norm(self, norm: Norm, readers: Sequence[str], rotation: Tensor) -> None:
        """Move the scales of a norm into its readers; its bias then stands for rotated states."""
        weight, bias = f"{norm.name}.weight", f"{norm.name}.bias"
        scales = scales_of(norm, self.get)
        for reader in readers:
            self.scale_inputs(reader, scales)
        self.changed[weight] = torch.full_like(scales, 1 - norm.offset)
        if norm.bias:
            smallest = float(scales.abs().min())
            if smallest < _SMALLEST_SCALE * float(scales.abs().max()):
                raise InputError(
                    f"{norm.name} has a scale of {smallest:.2g}: its bias cannot pass to rotated states",
                    fix="rotate the heads only: residual: false",
                )
            self.changed[bias] = _product(self.get(bias) / scales, rotation)


def _product(weight: Tensor, rotation: Tensor) -> Tensor:
    """``weight @ rotation`` in float64, some rows at a time; float32."""
    rows = torch.split(weight if weight.ndim == 2 else weight.unsqueeze(0), _ROWS)
    parts = [(part.to(torch.float64) @ rotation).to(torch.float32) for part in rows]
    return torch.cat(parts).view(*weight.shape[:-1], -1)


def rotate_residual(
    tensors: FusedTensors, block: BlockAnatomy, rotation: Tensor, memory: Tensor | None = None
) -> None:
    """Make ``block`` read and write hidden states rotated by ``rotation [hidden, hidden]``; so are those of
    an encoder that it reads, whose norm had the scales ``memory [hidden]``.
    """
    attention, cross = block.attention, block.cross
    if cross is not None:
        assert memory is not None
        for linear in (cross.k, cross.v):
            tensors.scale_inputs(linear.name, memory)
            tensors.rotate_inputs(linear, rotation)
        tensors.rotate_outputs(cross.o, rotation)
    for norm, readers in block.norm_readers().items():
        tensors.fold_norm(norm, readers, rotation)
        for reader in readers:
            tensors.rotate_inputs(reader, rotation)
    tensors.rotate_outputs(attention.o, rotation)
    for mlp in block.mlps():
        tensors.rotate_outputs(mlp.down, rotation)


def scales_of(norm: Norm, read: Read) -> Tensor:
    """What ``norm`` multiplies each channel by ``[hidden]``."""
    return norm.offset + read(f"{norm.name}.weight")


def attentions_of(block: BlockAnatomy) -> list[Attention]:
    """Each attention whose value heads are rotated: that to an encoder comes second."""
    return [block.attention] if block.cross is None else [block.attention, block.cross]


def rotate_heads(tensors: FusedTensors, attention: Attention, rotations: Tensor) -> None:
    """Rotate the channels of each value head by ``rotations [kv_heads, value_dim, value_dim]``."""
    link = values_link(attention)
    source, rows = link.source, index(link, torch.device("cpu"))
    assert isinstance(source, Linear)
    heads, size = attention.kv_heads, attention.value_dim
    for name in (f"{source.name}.weight", f"{source.name}.bias"):
        if name in tensors.names:
            values = tensors.get(name).to(torch.float64)
            grouped = values[rows].reshape(heads, size, -1)
            values[rows] = (rotations.mT @ grouped).reshape(values[rows].shape)
            tensors.changed[name] = values.to(torch.float32)
    name = f"{attention.o.name}.weight"
    repeated = rotations.repeat_interleave(attention.heads // heads, 0)
    columns = tensors.get(name).to(torch.float64).view(-1, attention.heads, size)
    rotated = torch.einsum("ohd,hde->ohe", columns, repeated).reshape(len(columns), -1)
    tensors.changed[name] = rotated.to(torch.float32)


def rotate_outside(tensors: FusedTensors, anatomy: Anatomy, rotation: Tensor) -> None:
    """Rotate what embeds tokens and positions, and make the head read rotated states.

    A head that was the embedding becomes a matrix of its own, since the final norm's scales go into it; that
    of an encoder–decoder takes in the factor of its logits, which those with a head of their own have not.
    """
    assert anatomy.head is not None and anatomy.final_norm is not None
    table, head = f"{anatomy.embedding}.weight", f"{anatomy.head}.weight"
    if anatomy.tied:
        tensors.changed[head] = tensors.get(table)
    if anatomy.encoder_norm is not None:
        tensors.fold_norm(anatomy.encoder_norm, [], rotation)
        if anatomy.logit_form is not None:
            tensors.changed[head] = tensors.get(head) * anatomy.logit_form.scale
    tensors.fold_norm(anatomy.final_norm, [anatomy.head], rotation)
    tensors.rotate_inputs(anatomy.head, rotation)
    tensors.rotate_inputs(anatomy.embedding, rotation)
    if anatomy.position_embedding is not None:
        tensors.rotate_inputs(anatomy.position_embedding, rotation)


def why_not(anatomy: Anatomy) -> str | None:
    """Why the residual stream of a model cannot be rotated; None when it can."""
    if anatomy.head is None:
        return "its hidden states are its result"
    if anatomy.embedding_norm is not None:
        return "it normalises its embeddings, and this norm's scales cannot go into linears"
    if anatomy.hearing is not None:
        return "what its encoder hears comes through an activation, which no rotation passes through"
    for block in anatomy.blocks:
        if block.order == "behind":
            return "its attention and MLP read the states without a norm that could take in scales"
        if block.order == "post":
            return "its norms give the residual, so their scales cannot go into linears"
        if block.attention_norm is not None or block.mlp_norm is not None:
            return "it normalises what attention and MLP give, and these norms' scales cannot go into linears"
    return None if anatomy.final_norm is not None else "no norm stands before its head"


def hadamard(order: int) -> Tensor:
    """The Sylvester-Hadamard matrix ``[order, order]`` divided by the root of its order, a power of two."""
    if order < 1 or order & (order - 1):
        raise ValueError(f"{order} is not a power of two")
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < order:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix.mul_(order**-0.5)


def random_orthogonal(size: int, generator: torch.Generator) -> Tensor:
    """``[size, size]``, uniform over all orthogonal matrices: QR of a Gaussian one, signs made unique."""
    gaussian = torch.randn(size, size, generator=generator, dtype=torch.float64)
    matrix, triangle = torch.linalg.qr(gaussian)
    return torch.mul(matrix, triangle.diagonal().sign())


def random_rotation(size: int, generator: torch.Generator) -> Tensor:
    """``[size, size]`` orthogonal: random signs, then Hadamard ⊗ random orthogonal, or the latter alone."""
    power = size & -size
    if power < min(_SMALLEST_HADAMARD, size):
        return random_orthogonal(size, generator)
    signs = torch.randint(0, 2, (size,), generator=generator).to(torch.float64) * 2 - 1
    rest = random_orthogonal(size // power, generator)
    return signs.unsqueeze(1) * torch.kron(hadamard(power), rest.contiguous())


def mean_preserving(size: int, generator: torch.Generator) -> Tensor:
    """``[size, size]`` orthogonal that leaves the vector of equal entries where it is.

    A LayerNorm takes out the mean, which is the part along that vector: so such a rotation, and only such a
    one, passes through it.
    """
    inner = torch.eye(size, dtype=torch.float64)
    inner[1:, 1:] = random_orthogonal(size - 1, generator)
    # The Householder reflection that exchanges the first unit vector with that of equal entries.
    normal = torch.full((size,), -(size**-0.5), dtype=torch.float64)
    normal[0] += 1
    length = normal.norm()
    if length > 0:
        normal /= length
    reflection = torch.eye(size, dtype=torch.float64) - 2 * torch.outer(normal, normal)
    return reflection @ inner @ reflection
