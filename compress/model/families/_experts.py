"""Mixtures of experts in blocks of Llama's form: how a family stores router and experts."""

from dataclasses import dataclass

from ....errors import CheckpointError
from ..anatomy import Shapes
from ..block_anatomy import Experts, Mlp, Role, RouterForm
from ..block_parts.linear_anatomy import RANKED
from ._tensors import Config, flag, fused, integer, linear, number, shape_of


@dataclass(frozen=True)
class RouterNames:
    """Of a router that goes by sigmoids and groups: its tensor ``correction``, and the config's keys."""

    correction: str
    groups: str = "n_group"
    chosen_groups: str = "topk_group"
    scale: str = "routed_scaling_factor"

    def of(self, config: Config, shapes: Shapes, router: str, count: int, chosen: int) -> RouterForm:
        """The form of ``router`` before ``count`` experts, of which a token goes through ``chosen``."""
        shape_of(shapes, f"{router}.{self.correction}", count)
        groups, among = integer(config, self.groups), integer(config, self.chosen_groups)
        size = count // groups
        if count % groups or size < RANKED or among > groups or chosen > among * size:
            raise CheckpointError(
                f"config.json: {chosen} experts of {among} groups cannot be chosen where {count} experts are "
                f"in {groups} groups",
                why=f"groups are of equal size, and ranked by the best {RANKED} in each",
            )
        return RouterForm(f"{router}.{self.correction}", groups, among, number(config, self.scale, 1.0))


@dataclass(frozen=True)
class ExpertNames:
    """Names relative to a block: the ``module`` as stored; in it the router, and gate, up and down of one
    expert, or ``fused``, the one matrix of gate and up, whose rows alternate, and down.

    ``normalized`` is whether the weights of the chosen experts add up to one where the config's
    ``norm_topk_prob`` is silent; None where it has no say, and they do. ``shared`` is the module of an expert
    for all tokens, and ``shared_gate`` what its output is weighed by; ``shared_last`` and ``stacked`` are
    those of :class:`~..block_anatomy.Experts`; ``router_form`` is of a router that goes another way.
    """

    module: str = "mlp"
    router: str = "gate"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    normalized: bool | None = None
    shared: str | None = None
    shared_gate: str | None = None
    shared_last: bool = False
    stacked: bool = False
    fused: str | None = None
    router_form: RouterNames | None = None

    @property
    def linears(self) -> tuple[str, ...]:
        """The linears of an expert."""
        return (self.gate, self.up, self.down) if self.fused is None else (self.fused, self.down)

    def present(self, shapes: Shapes, prefix: str) -> bool:
        """Whether the block ``prefix`` has experts: some layers of a mixture may be dense."""
        return f"{prefix}.{self.module}.{self.router}.weight" in shapes

    def parts(self, shapes: Shapes, blocks: str) -> frozenset[str]:
        """Every module that experts add to a block."""
        start = f"{blocks}."
        found = (name.removeprefix(start).partition(".")[2] for name in shapes if name.startswith(start))
        indices = {int(name.split(".")[-3]) for name in found if self._is_expert(name)}
        parts = self.linears
        linears = {f"{self.module}.experts.{index}.{part}" for index in indices for part in parts}
        linears |= {f"{self.module}.{self.shared}.{part}" for part in parts if self.shared is not None}
        gates = (self.router, self.shared_gate)
        return frozenset(linears | {f"{self.module}.{gate}" for gate in gates if gate is not None})

    def _is_expert(self, name: str) -> bool:
        head, _, rest = name.partition(f"{self.module}.experts.")
        return not head and rest.partition(".")[0].isdigit() and rest.count(".") == 2

    def of(self, config: Config, shapes: Shapes, prefix: str, hidden: int) -> tuple[Mlp, Experts]:
        """The first expert of the block ``prefix``, and all of them."""
        module = f"{prefix}.{self.module}"
        count, _ = shape_of(shapes, f"{module}.{self.router}.weight", None, hidden)
        chosen = integer(config, "num_experts_per_tok")
        if chosen > count:
            raise CheckpointError(f"{module} has {count} experts, and a token goes through {chosen}")
        first = self._mlp(shapes, f"{module}.experts.0", hidden)
        for index in range(1, count):
            self._mlp(shapes, f"{module}.experts.{index}", hidden, first.up.out_features)
        gate = None if self.shared_gate is None else f"{module}.{self.shared_gate}"
        if gate is not None:
            shape_of(shapes, f"{gate}.weight", 1, hidden)
        router, form = f"{module}.{self.router}", self.router_form
        experts = Experts(
            router=router,
            prefix=f"{module}.experts",
            parts=self.linears,
            count=count,
            chosen=chosen,
            normalized=self.normalized is None or flag(config, "norm_topk_prob", self.normalized),
            shared=None if self.shared is None else self._mlp(shapes, f"{module}.{self.shared}", hidden),
            shared_gate=gate,
            shared_last=self.shared_last,
            stacked=self.stacked,
            router_form=None if form is None else form.of(config, shapes, router, count, chosen),
        )
        return first, experts

    def _mlp(self, shapes: Shapes, module: str, hidden: int, width: int | None = None) -> Mlp:
        if self.fused is not None:
            rows, _ = shape_of(shapes, f"{module}.{self.fused}.weight", width and 2 * width, hidden)
            if rows % 2:
                raise CheckpointError(
                    f"{module}.{self.fused} has {rows} rows, gate and up would not be alike"
                )
            sizes: dict[Role, int] = {"gate": rows // 2, "up": rows // 2}
            both, (gate, up) = fused(shapes, f"{module}.{self.fused}", "gate_up", sizes, hidden)
            down = linear(shapes, f"{module}.{self.down}", "down", inputs=rows // 2, outputs=hidden)
            return Mlp(gate, up, down, "", gate_up=both, interleaved=True)
        up = linear(shapes, f"{module}.{self.up}", "up", inputs=hidden, outputs=width)
        gate = linear(shapes, f"{module}.{self.gate}", "gate", inputs=hidden, outputs=up.out_features)
        down = linear(shapes, f"{module}.{self.down}", "down", inputs=up.out_features, outputs=hidden)
        return Mlp(gate, up, down, "")
