# Digits and a table for the template of Hydra and Lightning.
import pandas
import torch
from lightning import LightningDataModule
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split


class Rows(LightningDataModule):
    def __init__(self, batch_size=32):
        super().__init__()
        self.batch_size = batch_size

    def split(self, inputs, targets, sizes):
        data = TensorDataset(inputs, targets)
        parts = random_split(data, sizes, generator=torch.Generator().manual_seed(0))
        self.train, self.val, self.test = parts

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(self.val, 4 * self.batch_size)

    def test_dataloader(self):
        return DataLoader(self.test, 4 * self.batch_size)


class Digits(Rows):
    def setup(self, stage=None):
        digits = load_digits()
        inputs = torch.tensor(digits.data / 16, dtype=torch.float32).view(-1, 1, 8, 8)
        self.split(inputs, torch.tensor(digits.target), [1257, 180, 360])


class Table(Rows):
    def __init__(self, path, target, batch_size=32, new=None):
        super().__init__(batch_size)
        self.new, self.target = new, target
        table = pandas.read_csv(path)
        self.labels = sorted(table[target].unique())
        self.columns = pandas.get_dummies(table.drop(columns=target)).columns
        self.mean, self.std = 0, 1
        inputs = self.inputs(table)
        self.mean, self.std = inputs.mean(0), inputs.std(0)
        self.all = self.inputs(table), torch.tensor([self.labels.index(one) for one in table[target]])

    def inputs(self, table):
        encoded = pandas.get_dummies(table.drop(columns=self.target, errors="ignore")).reindex(
            columns=self.columns, fill_value=0
        )
        return (torch.tensor(encoded.to_numpy("float32")) - self.mean) / self.std

    def setup(self, stage=None):
        self.split(*self.all, [1600, 200, 200])

    def predict_dataloader(self):
        return DataLoader(TensorDataset(self.inputs(pandas.read_csv(self.new))), batch_size=256)
