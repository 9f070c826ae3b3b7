"""Hyper-parameters beside the learning rate that change with the update: what the `hyper` config names."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from trainer.assemble.arguments import nearest
from trainer.assemble.nested import expanded
from trainer.assemble.targets import build, refusing
from trainer.lr import Dial, Horizon, Policy, Refusal

RUN = {
    "label_smoothing": "task.loss.label_smoothing",
    "dropout": "model.dropout",
    "gradient_noise": "trainer.gradient_noise",
}
"""Settings of the whole run, and where the config has them; all others are settings of parameter groups."""


def dials(cfg: DictConfig, policy: Policy, length: Horizon, settings: Mapping[str, Mapping[str, float]]) -> Policy:
    """The policy with a dial for each entry of `hyper`."""
    if "momentum" in cfg.hyper and "beta1" in cfg.hyper and "momentum" not in cfg.optimizer:
        raise Refusal("hyper.momentum and hyper.beta1 are the same number of this optimizer: keep one.")
    made = {str(name): _dial(cfg, str(name), length, settings) for name in cfg.hyper}
    return replace(policy, dials=made)


def _dial(cfg: DictConfig, name: str, length: Horizon, settings: Mapping[str, Mapping[str, float]]) -> Dial:
    key = f"hyper.{name}"
    if not isinstance(cfg.hyper[name], DictConfig):
        raise Refusal(f"{key}={cfg.hyper[name]} is no rule: give it a _target_, such as trainer.lr.tied.")
    if name in RUN:
        bases = [OmegaConf.select(cfg, RUN[name])]
        home = RUN[name]
    else:
        bases, home = [group.get(name) for group in settings.values()], f"optimizer.{name}"
        if bases[0] is None:
            known = sorted({*RUN, *next(iter(settings.values()))})
            raise Refusal(f"{key}: there is no such hyper-parameter here: {nearest(name, known)}")
    if not any(bases):
        raise Refusal(f"{key} would be 0 at every update, for {home}={bases[0]}: set it above zero.")
    node: Any = OmegaConf.to_container(cfg.hyper[name], resolve=True)
    with refusing(key):
        rule = build(OmegaConf.create(expanded(node, key)), key, list(cfg.allow))(length)
    return Dial(rule, [float(base) for base in bases])
