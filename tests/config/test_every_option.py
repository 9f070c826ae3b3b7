"""Every option that decides the curve trains 20 updates on digits, each with the rate that was planned."""

import pytest

from tests.config.test_conf import OPTIONS, overrides_for
from trainer.run import fit

GROUPS = (
    *(
        "schedule",
        "warmup",
        "cooldown",
        "compat",
        "hyper_schedule",
        "plateau",
        "scaling",
        "optimizer",
        "groups",
        "resume",
    ),
    "batch_schedule",
)
SMALL = (
    *("model.hidden=[8]", "data.batch_size=32", "logger=none", "trainer.duration=20", "trainer.validate=10"),
    *("trainer.steps_per_execution=4", "lint.ignore=[unreached]"),
)


CONSTANT = (
    "constant",
    "wsd_s",
    "timm",
    "own",
    "dog",
    "dowg",
    *(f"schedule_free_{name}" for name in ("sgd", "adamw", "radam")),
)
"""Options whose rate does not change within these 20 updates."""


def falling(t: int) -> float:
    """A user's own function of the update."""
    return 1.0 / (1.0 + t)


@pytest.mark.sample(30)
@pytest.mark.parametrize(
    ("group", "option"), [pair for pair in OPTIONS if pair[0] in GROUPS], ids=lambda word: str(word)
)
def test_an_option_trains_with_the_planned_rates(assembled, group, option):
    given = {word.partition("=")[0]: word for word in (*SMALL, *overrides_for(group, option, None))}
    if "model" in given:
        del given["model.hidden"]  # it is the MLP's
    assembly = assembled(*given.values())
    seen, configure = [], assembly.module.configure_optimizers

    def watched():
        optimizer = configure()
        optimizer.register_step_post_hook(lambda opt, *_: seen.append([entry["lr"] for entry in opt.param_groups]))
        return optimizer

    assembly.module.configure_optimizers = watched
    fit(assembly)
    policy = assembly.module.spec.policy
    assert seen == [policy.lrs(t) for t in range(15 if option == "grow" else 20)]
    assert len({tuple(rates) for rates in seen}) > 1 or option in CONSTANT
