"""The same task in the Trainer of transformers: python -m peers.transformers_trainer."""

from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed
from transformers_classifier import Reviews, padded

SIZES = {
    "vocab_size": 19,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
}
ARGUMENTS = {
    "per_device_train_batch_size": 64,
    "per_device_eval_batch_size": 256,
    "num_train_epochs": 5,
    "learning_rate": 0.004,
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


def score(found):
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


def main(folder="outputs/trainer", resume=None, **options):
    set_seed(0)
    trainer = Trainer(
        BertForSequenceClassification(BertConfig(num_labels=2, **SIZES)),
        TrainingArguments(folder, **ARGUMENTS | options),
        data_collator=padded,
        train_dataset=Reviews(1000, 1),
        eval_dataset=Reviews(250, 2),
        compute_metrics=score,
    )
    trainer.train(resume_from_checkpoint=resume)
    print(trainer.evaluate())


if __name__ == "__main__":
    main()
