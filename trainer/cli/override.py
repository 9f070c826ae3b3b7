"""An override as it is typed: `KEY=VALUE`, `+KEY=VALUE`, `++KEY=VALUE` or `~KEY`."""

from collections.abc import Iterable


def key_of(override: str) -> str:
    """The key that an override sets, adds or removes.

    >>> [key_of(word) for word in ("seed=1", "++task.mode=max", "~callbacks.doctor")]
    ['seed', 'task.mode', 'callbacks.doctor']
    """
    return override.partition("=")[0].lstrip("+~")


def typed_values(overrides: Iterable[str]) -> dict[str, str | None]:
    """The values of overrides by key, as typed: None for a key that is removed."""
    return {key_of(word): word.partition("=")[2] if "=" in word else None for word in overrides}
