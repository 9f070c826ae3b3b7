"""The same task in the Trainer of transformers: python -m peers.transformers_trainer."""

from sklearn.metrics import f1_score
from token_classification import TAGS, Wishes, padded
from transformers import BertConfig, BertForTokenClassification, Trainer, TrainingArguments, set_seed

SIZES = {
    "num_labels": 4,
    "vocab_size": 20,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "initializer_range": 0.1,
}
ARGUMENTS = {
    "per_device_train_batch_size": 64,
    "per_device_eval_batch_size": 256,
    "num_train_epochs": 8,
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


def score(found):
    counted = found.label_ids != -100
    tags, labels = found.predictions.argmax(-1)[counted], found.label_ids[counted]
    return dict(zip(TAGS, f1_score(labels, tags, labels=range(len(TAGS)), average=None, zero_division=0).tolist()))


def main(folder="outputs/trainer", resume=None, **options):
    set_seed(0)
    trainer = Trainer(
        BertForTokenClassification(BertConfig(**SIZES)),
        TrainingArguments(folder, **ARGUMENTS | options),
        data_collator=padded,
        train_dataset=Wishes(1000, 1),
        eval_dataset=Wishes(250, 2),
        compute_metrics=score,
    )
    trainer.train(resume_from_checkpoint=resume)
    print(trainer.evaluate())


if __name__ == "__main__":
    main()
