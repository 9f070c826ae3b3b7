"""Where the shipped configs lie."""

from pathlib import Path

CONF = Path(__file__).resolve().parents[2] / "conf"
