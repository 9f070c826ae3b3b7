"""The same task in the Trainer of transformers: python -m peers.transformers_trainer."""

import math

from causal_lm import Progressions, padded
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

SIZES = {"vocab_size": 10, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.1}
ARGUMENTS = {
    "per_device_train_batch_size": 64,
    "per_device_eval_batch_size": 256,
    "num_train_epochs": 5,
    "learning_rate": 0.01,
    "weight_decay": 0.01,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,
    "max_grad_norm": 0,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "load_best_model_at_end": True,
    "logging_steps": 1,
    "report_to": "tensorboard",
}


def main(folder="outputs/trainer", resume=None, **options):
    set_seed(0)
    trainer = Trainer(
        GPT2LMHeadModel(GPT2Config(**SIZES)),
        TrainingArguments(folder, **ARGUMENTS | options),
        data_collator=padded,
        train_dataset=Progressions(1000, 1),
        eval_dataset=Progressions(200, 2),
    )
    trainer.train(resume_from_checkpoint=resume)
    print("perplexity", math.exp(trainer.evaluate()["eval_loss"]))


if __name__ == "__main__":
    main()
