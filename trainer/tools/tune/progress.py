"""What a tune shows while it trains: a bar on a terminal, and a line for each training elsewhere."""

import math
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from trainer.tools.tune.members import Member, Outcome


class Lines:
    """A line for each stage and each training, on stdout."""

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing is open."""

    def stage(self, text: str) -> None:
        """A stage begins."""
        print(text, flush=True)

    def waiting(self, count: int) -> None:
        """So many trainings come next."""

    def ended(self, member: Member, outcome: Outcome) -> None:
        """A training has ended."""
        print(f"  {format_member(member, outcome)}", flush=True)


class Bar(Lines):
    """A bar on stderr, below a line for each training that did not end well."""

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task("range test", total=None)

    def __enter__(self) -> "Bar":
        self.bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.bar.stop()

    def stage(self, text: str) -> None:
        """A stage begins."""
        self.bar.update(self.task, description=text, completed=0, total=0)

    def waiting(self, count: int) -> None:
        """So many trainings come next; more may follow."""
        self.bar.update(self.task, total=(self.bar.tasks[0].total or 0) + count)

    def ended(self, member: Member, outcome: Outcome) -> None:
        """A training has ended."""
        self.bar.advance(self.task)
        if outcome.error:
            self.bar.console.print(format_member(member, outcome), markup=False, highlight=False)


def format_member(member: Member, outcome: Outcome) -> str:
    """A training in one line."""
    result = f"{outcome.cost:.4g}" if math.isfinite(outcome.cost) else outcome.error.partition(": ")[2] or outcome.error
    again = " (made before)" if outcome.reused else ""
    return f"{' '.join(member.words)} seed={member.seed}: {result}{again}"
