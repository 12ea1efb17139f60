"""torchao: int4 weights of group 64 simulated in training. It brings the simulation; the loop is the plainest
there is, with the forward KL from the teacher as its loss.
"""

import math
from typing import Any

from ..contract import TrainingTask

TITLE = "torchao"
PACKAGES = ("torchao==0.18.0", "transformers==5.24.0", "torch", "accelerate")
DISTRIBUTIONS = ("torchao", "transformers", "torch")
VARIANTS = {"w4": "QAT, int4, group 64"}
_GROUP = 64
_PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def train(task: TrainingTask, variant: str) -> None:
    """Prepare, train, and write what the simulated weights are at the end."""
    import torch
    from torchao.quantization import quantize_
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig
    from transformers import AutoModelForCausalLM

    student, teacher = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        for path in (task.checkpoint, task.teacher)
    )
    four_bits: Any = getattr(torch, "int4")  # noqa: B009 (an older torch's stubs do not know it)
    weights = IntxFakeQuantizeConfig(four_bits, group_size=_GROUP, is_symmetric=True)
    quantize_(
        student,
        QATConfig(weight_config=weights, step="prepare"),
        filter_fn=lambda module, name: name.endswith(_PARTS),
    )
    _learn(student, teacher, task)
    state = {name: value for name, value in student.state_dict().items() if "fake_quantizer" not in name}
    with torch.no_grad():
        for name, module in student.named_modules():
            if name.endswith(_PARTS):
                state[f"{name}.weight"] = module.weight_fake_quantizer(module.weight)
    plain = AutoModelForCausalLM.from_pretrained(task.checkpoint, dtype=torch.float32)
    plain.load_state_dict(state)
    plain.save_pretrained(task.result)


def _learn(student: Any, teacher: Any, task: TrainingTask) -> None:
    import torch

    sequences = task.tokens()
    steps = len(sequences) // task.rows
    warm = max(1, steps // 10)
    optimizer = torch.optim.AdamW(student.parameters(), lr=task.learning_rate, weight_decay=0.0)
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(0)).tolist()
    for step in range(steps):
        falling = 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / (steps - warm)))
        for group in optimizer.param_groups:
            group["lr"] = task.learning_rate * min(1.0, (step + 1) / warm) * falling
        ids = torch.tensor([sequences[index] for index in order[step * task.rows : (step + 1) * task.rows]])
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                wanted = torch.log_softmax(teacher(ids).logits.float(), -1)
            found = torch.log_softmax(student(ids).logits.float(), -1)
        loss: Any = (wanted.exp() * (wanted - found)).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
