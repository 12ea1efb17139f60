"""TRL: its GKD trainer with all data given and ``beta`` 0, which is the forward KL."""

from typing import Any

from ..contract import TrainingTask

TITLE = "TRL"
PACKAGES = ("trl==1.16.0", "transformers==5.24.0", "torch", "datasets", "accelerate")
ENVIRONMENT: dict[str, str] = {"TRL_EXPERIMENTAL_SILENCE": "1"}
DISTRIBUTIONS = ("trl", "transformers", "torch")
VARIANTS = {"distill": "GKD, lmbda 0, beta 0"}


def train(task: TrainingTask, variant: str) -> None:
    """One epoch of :class:`GKDTrainer`."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    def batch(rows: list[dict[str, Any]]) -> dict[str, Any]:
        ids = torch.tensor([row["input_ids"] for row in rows])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}

    arguments = GKDConfig(
        output_dir=str(task.output / "run"),
        lmbda=0.0,
        beta=0.0,
        per_device_train_batch_size=task.rows,
        num_train_epochs=1,
        learning_rate=task.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, len(task.tokens()) // task.rows // 10),
        save_strategy="no",
        report_to="none",
        bf16=True,
        use_cpu=True,
        seed=0,
    )
    trainer = GKDTrainer(
        model=AutoModelForCausalLM.from_pretrained(task.checkpoint, dtype=torch.float32),
        teacher_model=AutoModelForCausalLM.from_pretrained(task.teacher, dtype=torch.float32),
        args=arguments,
        data_collator=batch,
        train_dataset=Dataset.from_dict({"input_ids": task.tokens()}),
        processing_class=AutoTokenizer.from_pretrained(task.checkpoint),
    )
    trainer.train()
    trainer.save_model(str(task.result))
