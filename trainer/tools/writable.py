"""The check that a command can write its files."""

from pathlib import Path

from trainer.lr import ConfigError


def check_writable(stem: Path) -> None:
    """Refuse a place that cannot be written, before anything is trained."""
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for path in (Path(f"{stem}.png"), Path(f"{stem}.json")):
            new = not path.exists()
            with path.open("a"):
                pass
            if new:
                path.unlink()
    except OSError as error:
        raise ConfigError(f"--out={stem} cannot be written ({error.strerror}): name another place.") from error
