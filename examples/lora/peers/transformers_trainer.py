"""The same task in the Trainer of transformers, both trainings: python -m peers.transformers_trainer."""

from lora import Counting, padded
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

SIZES = {
    "vocab_size": 10,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "initializer_range": 0.1,
}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]
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
    "logging_steps": 1,
    "report_to": "tensorboard",
}


def trained(net, steps, folder, resume=None, **options):
    trainer = Trainer(
        net,
        TrainingArguments(folder, **ARGUMENTS | options),
        data_collator=padded,
        train_dataset=Counting(1000, steps, 1),
        eval_dataset=Counting(200, steps, 2),
    )
    trainer.train(resume_from_checkpoint=resume)
    print(trainer.evaluate())


def main(folder="outputs/trainer", resume=None, **options):
    set_seed(0)
    net = LlamaForCausalLM(LlamaConfig(**SIZES))
    trained(net, (1, 2, 3), f"{folder}/pretrained", **options)
    adapted = get_peft_model(net, LoraConfig(r=4, lora_alpha=16, target_modules=LINEAR))
    trained(adapted, (-1, -2, -3), f"{folder}/lora", resume, **options)
    adapted.save_pretrained(f"{folder}/adapter")


if __name__ == "__main__":
    main()
