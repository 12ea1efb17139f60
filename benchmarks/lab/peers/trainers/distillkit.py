"""DistillKit: its trainer with the KL alone, with the teacher in memory."""

from ..contract import TrainingTask

TITLE = "DistillKit"
PACKAGES = (
    "distillkit @ git+https://github.com/arcee-ai/DistillKit@a61c2e7d25c2e990d45832e12bd8542bdee9c810",
    "transformers==4.57.3",
    "torch",
)
ENVIRONMENT: dict[str, str] = {"WANDB_MODE": "disabled"}
DISTRIBUTIONS = ("distillkit", "trl", "transformers", "torch")
VARIANTS = {"distill": "KL, temperature 1"}


def train(task: TrainingTask, variant: str) -> None:
    """One epoch by :func:`distillkit.main.do_distill`, as its command line does."""
    from datasets import Dataset
    from distillkit.configuration import DistillationRunConfig
    from distillkit.main import do_distill

    sequences = task.tokens()
    Dataset.from_dict({"input_ids": sequences}).save_to_disk(str(task.output / "data"))
    steps = len(sequences) // task.rows
    settings = {
        "model": str(task.checkpoint),
        "dataset": {"train_dataset": {"disk_path": str(task.output / "data")}, "prepacked": True, "seed": 0},
        "teacher": {"kind": "hf", "path": str(task.teacher)},
        "sequence_length": len(sequences[0]),
        "output_path": str(task.result),
        "use_flash_attention": False,
        "loss_functions": [{"function": "kl", "weight": 1.0, "temperature": 1.0}],
        "training_args": {
            "per_device_train_batch_size": task.rows,
            "num_train_epochs": 1,
            "learning_rate": task.learning_rate,
            "lr_scheduler_type": "cosine",
            "warmup_steps": max(1, steps // 10),
            "save_strategy": "no",
            "report_to": "none",
            "bf16": True,
            "use_cpu": True,
            "seed": 0,
        },
    }
    do_distill(DistillationRunConfig.model_validate(settings))
