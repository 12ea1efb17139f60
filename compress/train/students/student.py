"""``Student``: a checkpoint in memory as a model that learns: quantized layers as codes, the rest as stored.

Five kinds of parameters may learn while the codes stay: the scales of quantized layers, their zero points,
the norms, the biases, and the embedding with what is tied to it. The weights of layers that are not quantized
are a sixth, and the codes themselves a seventh; pruned weights stay zero.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from ....errors import TrainingError
from ...model.anatomy import module_name
from ...model.block_anatomy import BlockAnatomy, Linear, Norm
from ...model.torch_model import load_model
from ...model.weights import WeightSource
from ...numbers.fake_quant import TokenQuantLinear, quantize_tokens
from ...numbers.qtensor import QTensor
from ...numbers.scheme import Scheme
from ...pipeline.block_shards import Masks
from ...pipeline.processes import Processes
from .lsq_linear import LsqLinear, on_its_side
from .quant_linear import QuantLinear, TiedHead, multiplied
from .relative import Learned, Rounding, block_modules, learn, learn_low_rank, spread, whole
from .rounded_linear import RoundedLinear
from .streamed_blocks import StreamedBlocks

Coded = LsqLinear | RoundedLinear
Kind = Literal["scales", "zero_points", "norms", "biases", "embedding"]

# A zero point that moves by one moves its group by a whole step: it learns in larger units than a scale.
_ZERO_POINT_UNIT = 16.0
# A weight behind a code moves in steps of the grid; as many of them are its unit.
_LATENT_UNIT = 4.0


class Student:
    """The model at ``source`` with its quantized layers as :class:`QuantLinear`.

    One that ``streams`` reads the frozen matrices of a block whenever it runs (:mod:`.streamed_blocks`), and
    can learn all kinds of parameters, and changes of low rank, but neither whole weights nor codes.
    """

    def __init__(self, source: WeightSource, device: torch.device, *, streams: bool = False) -> None:
        self.source, self.device = source, device
        self.streamed = StreamedBlocks(source, device) if streams else None
        # Scales of a quantized cache belong to the weights as they were: a model that learns has none.
        self.model = self.streamed.model if self.streamed else load_model(source, device=device, cache=False)
        self.model.requires_grad_(False)
        self.quantized: dict[str, QuantLinear | Coded] = {}
        for name in source.schemes:
            self._quantize(name)
        self.learned: list[Learned] = []
        self.began: dict[str, QTensor] = {}

    def _quantize(self, name: str) -> None:
        tensor = self.source.linear(name)
        assert isinstance(tensor, QTensor)
        whole_numbers = tensor.scheme.format == "int" or tensor.scheme.of_trellis
        if not whole_numbers or tensor.scheme.calibrated:
            raise TrainingError(
                f"{name} is {tensor.scheme.name}: what learns after quantization is for integer codes "
                "without static inputs",
                fix="put the pass that learns before the one that quantizes",
            )
        module = QuantLinear(tensor.to(self.device), self.bias(name))
        if self.streamed is not None:
            self.streamed.quantized(name, module, partial(self._codes, name))
        self._replace(name, module)

    def _codes(self, name: str) -> Tensor:
        tensor = self.source.linear(name)
        assert isinstance(tensor, QTensor)
        return multiplied(tensor)

    def _replace(self, name: str, quantized: QuantLinear | Coded, activations: int | None = None) -> None:
        path = module_name(self.source.anatomy, name)
        module = self.model.get_submodule(path)
        self.quantized[name] = quantized
        if isinstance(module, TokenQuantLinear):
            module.linear = quantized
        elif quantized.scheme.activations or activations:
            rounding = partial(quantize_tokens, bits=activations or 8)
            self.model.set_submodule(path, TokenQuantLinear(quantized, rounding))
        else:
            self.model.set_submodule(path, quantized)

    def learn(self, kinds: tuple[Kind, ...], masked: frozenset[str] = frozenset()) -> list[Learned]:
        """Let the parameters of ``kinds`` learn; zero points of ``masked`` layers stand for pruned weights
        and stay.
        """
        for kind in kinds:
            self.learned += {
                "scales": self._scales,
                "zero_points": lambda: self._zero_points(masked),
                "norms": self._norms,
                "biases": self._biases,
                "embedding": self._embedding,
            }[kind]()
        return self.learned

    def learn_weights(
        self, linears: Sequence[Linear], masks: Masks, rank: int | None = None, seed: int = 0
    ) -> None:
        """Let the weights of ``linears``, none of them quantized, learn where their masks keep them, or
        change by a product of that ``rank``.
        """
        for block in self.source.anatomy.blocks:
            kept = masks.of(block, self.device)
            with self.whole(block.index):
                for linear in block.linears():
                    if linear in linears:
                        name, module = f"{linear.name}.weight", self.module(linear.name)
                        unit = module.get_parameter("weight").detach().square().mean().sqrt().clamp_min(1e-6)
                        mask, rounded = kept.get(linear.name), self._as_stored(name)
                        if rank is None:
                            learned = learn(name, module, "weight", unit, rounded, mask)
                        else:
                            learned = learn_low_rank(name, module, unit, rounded, rank, seed, mask)
                        self.learned.append(learned)
                        if self.streamed is not None:
                            self.streamed.factored(linear, module, masks)

    def learn_codes(
        self,
        selects: Callable[[Linear], bool],
        masks: Masks,
        make: Callable[[Linear, Tensor | None], Coded],
        activations: int | None = None,
        rate: float = 1.0,
    ) -> None:
        """Let the codes of the linears that ``selects`` says learn: what ``make`` gives of one and its mask
        takes its place, whose weight behind them moves in units of its scales, ``rate`` times as fast as
        others do. Inputs are rounded to so many bits, in training alone where schemes leave them in float.
        """
        for block in self.source.anatomy.blocks:
            kept = masks.of(block, self.device)
            for linear in filter(selects, block.linears()):
                name, module = linear.name, make(linear, kept.get(linear.name))
                self._replace(name, module, activations)
                self.began[name] = tensor = module.tensor()
                unit = rate * _LATENT_UNIT * tensor.scale.detach().abs().unsqueeze(-1)
                self.learned.append(learn(f"{name}.latent", module, "latent", unit, lambda value: value))

    def module(self, name: str) -> nn.Module:
        """The linear ``name`` in the model, without what quantizes its inputs."""
        module = self.model.get_submodule(module_name(self.source.anatomy, name))
        return module.linear if isinstance(module, TokenQuantLinear) else module

    def bias(self, name: str) -> Tensor | None:
        """The bias ``[out]`` of the linear ``name``, or None."""
        return self.module(name).bias  # type: ignore[return-value]

    def changes(self) -> list[nn.Parameter]:
        """What the optimizer moves, in a fixed order."""
        return [change for learned in self.learned for change in learned.changes]

    def blocks(self) -> nn.ModuleList:
        """The blocks in the order of the anatomy."""
        return block_modules(self.model, self.source.anatomy)

    def decay(self, share: float) -> None:
        """Take so much of every weight away, behind codes or not."""
        for learned in self.learned:
            if learned.attribute == "latent" or learned.value.ndim == 2:
                learned.decay(share)

    def schemes(self) -> dict[str, Scheme]:
        """The scheme of every linear that is quantized now, in the order of the model."""
        return {
            linear.name: self.quantized[linear.name].scheme
            for linear in self.source.anatomy.linears()
            if linear.name in self.quantized
        }

    def tensor(self, name: str) -> QTensor:
        """The quantized weight of the linear ``name`` as it is now."""
        module = self.quantized[name]
        if not (isinstance(module, QuantLinear) and module.scheme.of_trellis):
            return module.tensor()
        stored = self.source.linear(name)
        assert isinstance(stored, QTensor)
        return module.tensor(stored.codes.to(self.device))

    @contextmanager
    def whole(self, index: int) -> Iterator[None]:
        """All of the block ``index`` is in memory, for as long as the context lasts."""
        with whole(self.blocks()[index]), self.streamed.loaded(index) if self.streamed else nullcontext():
            yield

    def spread(self, device: torch.device, processes: Processes) -> None:
        """Keep this process's part of each block, on ``device``."""
        spread(self.model, self.blocks(), device, processes)
        self.device = device

    def values(self, block: BlockAnatomy | None) -> dict[str, Tensor]:
        """The float parameters that learned in ``block``, or outside all of them, by stored name, as they
        are now.
        """
        blocks = self.source.anatomy.blocks if block is None else [block]
        prefixes = tuple(f"{one.prefix}." for one in blocks)
        return {
            learned.name: learned.value
            for learned in self.learned
            if learned.attribute in ("weight", "bias")
            and learned.name.startswith(prefixes) == (block is not None)
        }

    def _scales(self) -> Iterator[Learned]:
        for name, module in self.quantized.items():
            if isinstance(module, RoundedLinear):
                continue
            start = module.scale.detach()
            rounded = partial(on_its_side, start=start)
            yield learn(f"{name}.weight_scale", module, "scale", None, rounded)

    def _zero_points(self, masked: frozenset[str]) -> Iterator[Learned]:
        for name, module in self.quantized.items():
            if not isinstance(module, QuantLinear) or module.zero_point is None or name in masked:
                continue
            lowest, highest = module.scheme.code_range

            def rounded(zero_point: Tensor, low: int = lowest, high: int = highest) -> Tensor:
                return zero_point.round().clamp_(low, high)

            unit = torch.tensor(_ZERO_POINT_UNIT, device=self.device)
            yield learn(f"{name}.weight_zero_point", module, "zero_point", unit, rounded)

    def _norms(self) -> Iterator[Learned]:
        anatomy = self.source.anatomy
        norms = [norm for block in anatomy.blocks for norm in block.norms()]
        outer = (anatomy.embedding_norm, anatomy.encoder_norm, anatomy.final_norm)
        norms += [norm for norm in outer if norm is not None]
        for norm in norms:
            yield from self._norm(norm)

    def _norm(self, norm: Norm) -> Iterator[Learned]:
        module = self.model.get_submodule(module_name(self.source.anatomy, norm.name))
        weight: Tensor = module.get_parameter("weight").detach()
        unit = (weight + norm.offset).abs()
        yield learn(f"{norm.name}.weight", module, "weight", unit, self._as_stored(f"{norm.name}.weight"))
        bias = getattr(module, "bias", None)
        if bias is not None:
            # A bias is small beside what it is added to: the weight is the measure of both.
            name = f"{norm.name}.bias"
            yield learn(name, module, "bias", unit, self._as_stored(name))

    def _biases(self) -> Iterator[Learned]:
        for linear in self.source.anatomy.linears():
            inner = self.module(linear.name)
            if isinstance(inner.bias, Tensor):
                name, bias = f"{linear.name}.bias", inner.bias.detach()
                unit = bias.square().mean().sqrt().clamp_min(1e-3)
                yield learn(name, inner, "bias", unit, self._as_stored(name))

    def _embedding(self) -> Iterator[Learned]:
        anatomy = self.source.anatomy
        own_head = [] if anatomy.tied or anatomy.head is None else [anatomy.head]
        if self.streamed is not None:
            self.streamed.hold_tables()
        for name in (anatomy.embedding, *own_head, *anatomy.position_biases):
            module = self.model.get_submodule(module_name(anatomy, name))
            weight = module.get_parameter("weight").detach()
            unit = weight.square().mean().sqrt().clamp_min(1e-6)
            yield learn(f"{name}.weight", module, "weight", unit, self._as_stored(f"{name}.weight"))
        if anatomy.tied and anatomy.head is not None:
            head, table = (module_name(anatomy, name) for name in (anatomy.head, anatomy.embedding))
            bias = getattr(self.model.get_submodule(head), "bias", None)
            self.model.set_submodule(head, TiedHead(self.model.get_submodule(table), bias))

    def _as_stored(self, name: str) -> Rounding:
        stored = self.source.stored_type(name)
        return lambda value: value.to(stored).to(torch.float32)
