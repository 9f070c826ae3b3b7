# Digits and a table in the Trainer of transformers: python train.py --help
from dataclasses import dataclass

import pandas
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, random_split
from transformers import HfArgumentParser, Trainer, TrainingArguments, set_seed

TARGET = "let_fast"


@dataclass
class Options:
    data: str = "digits"
    net: str = "mlp"
    find_lr: bool = False
    resume: str | None = None
    predict: str | None = None


class Rows(Dataset):
    def __init__(self, inputs, labels=None):
        self.inputs, self.labels = inputs, labels

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        row = {"inputs": self.inputs[index]}
        return row if self.labels is None else row | {"labels": self.labels[index]}


class Table:
    def __init__(self, path="flats.csv"):
        table = pandas.read_csv(path)
        self.labels = sorted(table[TARGET].unique())
        self.columns = pandas.get_dummies(table.drop(columns=TARGET)).columns
        self.mean, self.std = 0, 1
        inputs = self.inputs(table)
        self.mean, self.std = inputs.mean(0), inputs.std(0)
        self.rows = Rows(self.inputs(table), torch.tensor([self.labels.index(one) for one in table[TARGET]]))

    def inputs(self, table):
        encoded = pandas.get_dummies(table.drop(columns=TARGET, errors="ignore")).reindex(
            columns=self.columns, fill_value=0
        )
        return (torch.tensor(encoded.to_numpy("float32")) - self.mean) / self.std


def layers(name, features, classes):
    if name == "mine":
        return nn.Sequential(nn.Flatten(), nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, classes))
    hidden = [nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(256, classes))


class Net(nn.Module):
    def __init__(self, name, features, classes):
        super().__init__()
        self.layers = layers(name, features, classes)

    def forward(self, inputs, labels=None):
        logits = self.layers(inputs)
        if labels is None:
            return {"logits": logits}
        return {"loss": cross_entropy(logits, labels, label_smoothing=0.1), "logits": logits}


def score(found):
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


def main():
    options, arguments = HfArgumentParser([Options, TrainingArguments]).parse_args_into_dataclasses()
    set_seed(arguments.seed)
    if options.data == "digits":
        digits = load_digits()
        rows = Rows(torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target))
        sizes, shape = [1257, 180, 360], (64, 10)
    else:
        table = Table()
        rows, sizes, shape = table.rows, [1600, 200, 200], (len(table.columns), 2)
    train, val, test = random_split(rows, sizes, generator=torch.Generator().manual_seed(0))
    trainer = Trainer(
        model_init=lambda: Net(options.net, *shape),
        args=arguments,
        train_dataset=train,
        eval_dataset=val,
        compute_metrics=score,
    )
    if options.find_lr:
        best = trainer.hyperparameter_search(
            lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-5, 1, log=True)},
            compute_objective=lambda metrics: metrics["eval_loss"],
            n_trials=10,
        )
        print("suggestion", best.hyperparameters)
    elif options.predict:
        new = pandas.read_csv(options.predict)
        trainer._load_from_checkpoint(options.resume)
        found = trainer.predict(Rows(table.inputs(new))).predictions.argmax(-1)
        new.assign(prediction=[table.labels[index] for index in found]).to_csv("predictions.csv", index=False)
    else:
        trainer.train(resume_from_checkpoint=options.resume)
        print(trainer.evaluate(test, metric_key_prefix="test"))


if __name__ == "__main__":
    main()
