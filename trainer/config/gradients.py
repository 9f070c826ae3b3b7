"""What a run does to the gradients of each update between the backward pass and the optimizer."""

from trainer.config.settings import TrainerSettings

WORDS = {
    "sam": "made at the top of an ascent of radius {:g} (trainer.sam), two passes each",
    "agc": "each unit's at most {:g} of its weights (trainer.agc)",
    "clip": "clipped to a norm of {:g} (trainer.clip)",
    "gradient_noise": "with noise of σ = {:g} (trainer.gradient_noise)",
}
"""In the order in which they happen."""


def chosen(settings: TrainerSettings) -> dict[str, float]:
    """The settings that are set, by name."""
    return {name: value for name in WORDS if (value := getattr(settings, name)) is not None}


def told(settings: dict[str, float]) -> list[str]:
    """The line of the table at the start, if any of them is set."""
    return [", ".join(WORDS[name].format(value) for name, value in settings.items())] if settings else []
