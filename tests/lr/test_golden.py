"""`compat=PEER` gives the peer's curve: against golden values that the peers' own code produced, and live peers."""

import json
from pathlib import Path

import pytest

from trainer.config.resolve import plan_of
from trainer.config.settings import settings_of

GOLDEN = Path(__file__).parent / "golden"
CURVES = [
    (peer["peer"], entry, peer["tolerance"])
    for peer in (json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*.json")))
    for entry in peer["curves"]
]
KNOWN = [(peer, entry, tolerance) for peer, entry, tolerance in CURVES if entry["ours"] is not None]


def overrides(peer, entry):
    """What of the entry is not in its overrides: how the file says that the peer was called."""
    given = [f"compat={peer}", f"optimizer.lr={entry['lr']}", f"trainer.duration={entry['total']}", *entry["ours"]]
    given += ["data=synthetic", "data.batch_size=1", f"data.samples={entry['updates_per_epoch'] or 10}"]
    units, schedule = entry.get("units") or {}, entry["ours"][0].partition("=")[2]
    if peer == "optax":
        given += [f"compat.absolute={'[all]' if units.get('schedule.floor') == 'lr' else '[]'}"]
    if peer == "timm":
        given += [] if entry["updates_per_epoch"] else ["compat.every=update"]
        given += ["compat.from_start=[]"] if entry.get("join") == "prefix" else []
    if peer == "megatron" and schedule == "inverse_sqrt":
        given += ["schedule.clip=true"]
    return given


@pytest.mark.parametrize(("peer", "entry", "tolerance"), KNOWN, ids=[f"{p}-{e['name']}" for p, e, _ in KNOWN])
def test_a_peers_curve_is_reproduced_at_every_update(compose, peer, entry, tolerance):
    cfg = compose(*overrides(peer, entry))
    rates = plan_of(settings_of(cfg)).policy
    skipped = entry.get("quirks") or []
    ours = [rates.lr(t) for t in range(entry["total"]) if t not in skipped]
    theirs = [value for t, value in enumerate(entry["values"]) if t not in skipped]
    assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-16 if tolerance <= 1e-12 else tolerance * entry["lr"])
