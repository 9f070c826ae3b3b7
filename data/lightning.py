"""Data from a project's own LightningDataModule, of `pytorch_lightning` or of `lightning.pytorch`, as it is."""

from typing import Any

from data.loaders import Loaders

PACKAGES = ("pytorch_lightning", "lightning")
LOADERS = {"train": "train_dataloader", "val": "val_dataloader", "test": "test_dataloader"}
HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class LightningData(Loaders):
    """The loaders of `module`, taken over as those of `data.loaders.Loaders`; its prepare_data, setup and teardown run.

    ValueError for a module without training data, and for one with hooks that move batches.
    """

    def __init__(self, *, module: Any, **base: Any) -> None:
        for name in {"train", "val", "test"} & set(base):
            raise ValueError(f"data.{name} is that of data.module: set it there.")
        super().__init__(**base)
        self.module = module
        if not hasattr(module, "train_dataloader") or not hasattr(module, "setup"):
            raise ValueError(f"data.module makes a {type(module).__name__}, but a LightningDataModule is needed.")
        for hook in HOOKS:
            if overrides(module, hook):
                raise ValueError(
                    f"data.module: {type(module).__name__} has {hook}, which is not called: do this in the data set, "
                    "the collate_fn or the step."
                )

    def prepare_data(self) -> None:
        self._call("prepare_data")

    def loaders(self) -> dict[str, Any]:
        for stage in ("fit", "test") if overrides(self.module, "test_dataloader") else ("fit",):
            self._call("setup", stage)
        found = {name: overrides(self.module, method) for name, method in LOADERS.items()}
        if not found["train"]:
            raise ValueError(f"data.module: {type(self.module).__name__} has no train_dataloader: give it one.")
        return {name: self._loader(name) if there else None for name, there in found.items()}

    def _loader(self, name: str) -> Any:
        try:
            return self._call(LOADERS[name])
        except NotImplementedError:  # as a module may answer that has no such split
            if name == "train":
                raise
            return None

    def _call(self, name: str, *arguments: str) -> Any:
        try:
            return getattr(self.module, name)(*arguments)
        except AttributeError as error:
            if getattr(self.module, "trainer", None) is None and "'NoneType' object has no attribute" in str(error):
                raise ValueError(
                    f"data.module: {name} of {type(self.module).__name__} fails ({error}). If it asks for "
                    "self.trainer: the data is read before there is a trainer, so this is None. Leave that out."
                ) from error
            raise

    def teardown(self, stage: str) -> None:
        super().teardown(stage)
        self.module.teardown(stage)


def overrides(module: Any, name: str) -> bool:
    """Whether a module has a method of its own, beside Lightning's."""
    if name in vars(module):
        return True
    owner = next((kind for kind in type(module).__mro__ if name in vars(kind)), object)
    return owner is not object and owner.__module__.partition(".")[0] not in PACKAGES
