"""The version of Cadence that runs, and the git commit that it was checked out from. Standard library only."""

import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def version() -> dict[str, str | None]:
    """The version as `cadence`, and as `commit` the full hash of the checkout; None for an installed wheel."""
    return {"cadence": _package_version(), "commit": git_commit(ROOT)}


def _package_version() -> str:
    """The version that was installed, or else the one in `pyproject.toml` of this clone."""
    try:
        return metadata.version("cadence")
    except metadata.PackageNotFoundError:
        project = ROOT / "pyproject.toml"
        if not project.exists():
            return "unknown"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


def git_commit(root: Path) -> str | None:
    """The commit that is checked out in `root`, read from its git files; None where `root` is no git checkout.

    No git is started. A checkout may be a worktree, whose `.git` is a file that names the folder.
    """
    try:
        folder = root / ".git"
        if folder.is_file():
            folder = root / folder.read_text(encoding="utf-8").partition("gitdir:")[2].strip()
        head = (folder / "HEAD").read_text(encoding="utf-8").strip()
        shared = folder / "commondir"
        common = folder / shared.read_text(encoding="utf-8").strip() if shared.exists() else folder
        return _resolved(head.removeprefix("ref:").strip(), common) if head.startswith("ref:") else head
    except OSError:
        return None


def _resolved(ref: str, folder: Path) -> str | None:
    """The commit of a branch: in a file of its own, or packed with others."""
    if (folder / ref).exists():
        return (folder / ref).read_text(encoding="utf-8").strip()
    packed = folder / "packed-refs"
    lines = packed.read_text(encoding="utf-8").splitlines() if packed.exists() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {ref}")), None)
