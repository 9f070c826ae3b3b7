"""The steps of `cadence tune`: where to start, a coarse and a fine stage, whole runs, the answer; remedies."""

import json
import math
import time
from argparse import Namespace
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import DictConfig

from trainer.cli.environment import without_secrets
from trainer.config.resolve import Resolved, resolve
from trainer.config.settings import settings_of
from trainer.files.atomic import write_text
from trainer.lr import ConfigError
from trainer.tools.tune.advice import drift, expected_changes
from trainer.tools.tune.answer import Answer, StageResult
from trainer.tools.tune.axes import Axis, axes_of, present
from trainer.tools.tune.members import Many, Member, Members, Outcome
from trainer.tools.tune.progress import Lines
from trainer.tools.tune.race import Point, Stage, Table, is_flat, next_trainings, rivals, table_of, vertex
from trainer.tools.tune.start import Start, start_of_rate

COARSE, FINE = 2, 1
"""Steps of the lattice: half a decade, a quarter of a decade."""
LONGER = 10**0.5
"""The factor of the updates in the fine stage, and after a stage that could not tell the points apart."""
FEWEST = 20
"""The fewest updates of a training, where the run has as many."""
MOST_RUNS, LAST_RUNS, FEWEST_FINE = 6.5, 2, 3
"""A quarter of a grid of quarter-decades over three decades with two seeds: the fine stage leaves room for two whole
runs within it, but makes three trainings; a third whole run is made where there is room."""
LEVEL = 0.03
"""Half-decades whose scores differ by less than this share, and no more than their noise, need longer trainings."""
FURTHEST, LOWER, BAD = 2, 3, 0.1
"""Steps of the lattice by which whole runs begin lower, at most, and by which they go on lower after a bad one; bad is
one that is worse than shorter trainings by this share."""
CLIP = "trainer.clip=1.0"
"""What is tried where every training breaks."""


@dataclass
class Tuner:
    """Tunes the numbers of `--of`; `options` are those of the command, `cfg` the composed config of the run."""

    options: Namespace
    cfg: DictConfig
    members: Members
    progress: Lines
    many: Many | None = None
    axes: list[Axis] = field(init=False)
    set_to: list[float | None] = field(init=False)
    resolved: Resolved = field(init=False)
    more: list[str] = field(default_factory=list)
    """Overrides that a remedy has added: they belong to the answer."""
    notes: list[str] = field(default_factory=list)
    trained: dict[Member, Outcome] = field(default_factory=dict)
    stages: list[StageResult] = field(default_factory=list)
    rivals: list[Point] = field(default_factory=list)
    """Half-decades apart from the coarse winner that were nearly as good."""
    swept: int = 0
    """The updates of the range test."""
    heading: str = ""
    """The heading of the stage that is shown."""

    def __post_init__(self) -> None:
        settings = settings_of(self.cfg)
        found = [present(axis, settings.record) for axis in axes_of(self.options.of)]
        self.axes, self.set_to = [axis for axis, _ in found], [number for _, number in found]
        self.resolved = resolve(settings)
        self.total = self.resolved.horizon.total
        budget = self.resolved.horizon.updates(self.options.budget, "--budget", least=1)
        if budget > self.total:
            given = f"--budget={self.options.budget} is {budget:,} updates, and the run has {self.total:,}"
            raise ConfigError(f"{given}: give 100% at most.")
        self.first_length = min(self.total, max(budget, FEWEST))
        self.seeds = tuple(range(self.first_seed, self.first_seed + self.options.seeds))

    @property
    def first_seed(self) -> int:
        """The seed of the run."""
        return self.resolved.settings.seed

    def run(self) -> Answer:
        """Tune to the end.

        Raises:
            ConfigError: the config is invalid, or no training ends with a finite metric, even with clipping.
        """
        started = time.monotonic()
        start = self._start()
        self.swept = start.updates
        coarse = self._coarse(start.points)
        fine = self._train_whole_runs(self._fine(coarse))
        changes = expected_changes(self.resolved, [axis.name for axis in self.axes], self.stages)
        return Answer(
            axes=self.axes,
            stages=self.stages,
            fine=fine,
            more=self.more,
            notes=[start.note, *self.notes],
            changes=changes,
            total=self.total,
            made=self._made,
            seconds=time.monotonic() - started,
            ratio=self._ratio_of_groups(),
        )

    def overrides_of(self, point: Point, updates: int) -> tuple[str, ...]:
        """The overrides of a point in a training of so many updates."""
        words = [axis.override(place) for axis, place in zip(self.axes, point)]
        if "lr" in (axis.name for axis in self.axes) and (ratio := self._ratio_of_groups()) is not None:
            rate = next(axis.at(place) for axis, place in zip(self.axes, point) if axis.name == "lr")
            words.append(f"groups.optimizer.lr={rate * ratio:.4g}")
        return (*words, *self.more, *self._shortened(updates))

    def _ratio_of_groups(self) -> float | None:
        """The rate of the second optimizer over the first one's, where groups have their own."""
        own = (self.resolved.settings.curve.groups.get("optimizer") or {}).get("lr")
        return None if own is None else float(own) / self.resolved.plan.policy.base_lr

    def _shortened(self, updates: int) -> list[str]:
        """Durations of the curve that are no share of the run, shortened with it."""
        words = []
        for key in ("warmup", "cooldown") if updates < self.total else ():
            duration = self.cfg[key].get("duration")
            tuned = f"{key}.duration" in (axis.key for axis in self.axes)
            if duration is None or duration == "auto" or str(duration).endswith("%") or tuned:
                continue
            whole = self.resolved.horizon.updates(duration, f"{key}.duration")
            words.append(f"{key}.duration={max(min(whole, 1), round(whole * updates / self.total))}")
        return words

    def _start(self) -> Start:
        """The first points: around the range test's rate, or around what the config says."""
        path = self.members.root / "start.json"
        if not path.exists():
            start = self._found_start()
            found = {"points": start.points, "note": without_secrets(start.note), "updates": start.updates}
            write_text(path, json.dumps(found) + "\n")
        return Start(**json.loads(path.read_text(encoding="utf-8")))

    def _found_start(self) -> Start:
        axis, *others = self.axes
        if axis.name == "lr" and not others:
            return start_of_rate(self.options, self.resolved, axis)
        middles = [one.point(value or one.fallback) for one, value in zip(self.axes, self.set_to)]
        said = " and ".join(f"{one.key} {one.at(place):.4g}{one.unit}" for one, place in zip(self.axes, middles))
        return Start([tuple(middles)], f"the walk starts at {said}, near what the config says", 0)

    def _coarse(self, start: list[Point]) -> Table:
        """Half-decades, walked until the winner is inside; longer trainings where these cannot tell the points apart.

        Where every training breaks, all is tried again with clipping.
        """
        length, points = self._possible_length(start[0]), start
        while True:
            table = self._train(self._stage(length, COARSE, points))
            if all(map(math.isinf, table.scores.values())):
                if self.more or self.cfg.trainer.get("clip") is not None:
                    raise ConfigError(self._why_nothing_trains())
                self.more.append(CLIP)
                self.notes.append(f"every training broke, so all were tried again with {CLIP}")
            elif self._tells_nothing(table) and length < self.total:
                longer = min(self.total, round(length * LONGER))
                self.notes.append(f"{length} updates could not tell the points apart, so {longer} were tried")
                length, points = longer, [table.best]
            else:
                return table

    @staticmethod
    def _tells_nothing(table: Table) -> bool:
        low = LEVEL * abs(table.scores[table.best])
        return len(table.scores) > 1 and is_flat(table) and all(table.excess(point) <= low for point in table.scores)

    def _possible_length(self, point: Point) -> int:
        """The length of the first trainings: that of the whole run, where a shorter one is refused."""
        try:
            self.members.check(Member(self.overrides_of(point, self.first_length), self.first_seed, self.first_length))
        except ConfigError as error:
            if self.first_length == self.total:
                raise
            self.notes.append(f"{self.first_length} updates are refused ({error}), so whole runs are trained")
            return self.total
        return self.first_length

    def _fine(self, coarse: Table) -> Table:
        """Quarter-decades around the winner, √10 times as long as the first trainings, or as long as the last ones.

        Where half-decades apart from it were nearly as good, half-decades come first, from them and from the winner.
        """
        length = min(self.total, max(self.stages[-1].updates, round(self.stages[0].updates * LONGER)))
        stage = self._stage(length, FINE, [coarse.best])
        if len(self.axes) > 1:
            return self._train(stage)
        self.rivals = rivals(coarse, COARSE, LEVEL)
        left = MOST_RUNS - LAST_RUNS * self._ends_with_whole_runs - self._made / self.total
        costs = dict(self.stages[-1].costs) if self.stages[-1].updates == length else {}
        least = 0 if costs else FEWEST_FINE
        stage = replace(stage, room=len(costs) + max(least, math.floor(left * self.total / length)))
        if self.rivals:
            start = tuple(sorted((coarse.best, *self.rivals)))
            costs = self._walk(replace(stage, step=COARSE, start=start, seeds=self.seeds[:1]), costs)
            stage = replace(stage, start=(table_of(costs).best,))
        return self._train(replace(stage, doubtful=not self._ends_with_whole_runs), costs)

    def _train_whole_runs(self, fine: Table) -> Table:
        """Whole runs with one seed, from where the best place is expected; `fine` where none are wanted.

        Where the first rate is much worse than the shorter trainings were, it is too high for so long a run, and the
        next one is lower by 3/4 of a decade. Otherwise the walk goes by quarter-decades. Of another number the value of
        the config is trained too: short runs can be best far away from it, and so all whole runs worse.
        """
        if not self._ends_with_whole_runs or self.stages[-1].updates == self.total:
            return fine
        low, high = self.axes[0].bounds
        broke = [point[0] - 1 for point, score in fine.scores.items() if math.isinf(score) and point > fine.best]
        high, moved = min([high, *broke]), drift(self.stages, rivals=self.rivals)
        begin = min(max(round(self._expected(fine, moved)), low), high)
        most = self._most_whole_runs()
        stage = Stage(self.total, FINE, ((begin,),), self.seeds[:1], ((low, high),), most)
        costs = self._walk(replace(stage, most=1), {})
        shorter = fine.scores[fine.best]
        bad = costs[(begin,), self.first_seed] > shorter + BAD * abs(shorter) + 2 * (fine.noise or 0.0)
        if bad and self._of_rate:
            return self._train(replace(stage, start=((max(begin - LOWER, low),),)), costs, fine)
        below = (fine.best[0] - FINE,)
        rises = moved > 0 and not (self._of_rate and (below not in fine.scores or fine.may_win(below)))
        beside = begin + 1 if begin < high and (rises or begin == low) else begin - 1
        more = tuple((place,) for place in (*self._configured, beside)[: most - 1])
        return self._train(replace(stage, start=more), costs, fine)

    def _most_whole_runs(self) -> int:
        """How many whole runs are made: those that are asked for, as far as they stay within the limit."""
        most = max(LAST_RUNS, min(self.options.whole, math.floor(MOST_RUNS - self._made / self.total)))
        if most < self.options.whole:
            limit = f"all trainings together stay within {MOST_RUNS:g} runs"
            self.notes.append(f"{most} whole runs at most, not the {self.options.whole} of --whole: {limit}")
        return most

    def _expected(self, fine: Table, moved: float) -> float:
        """Where on the lattice the best place of the whole run is expected, half a decade away at most.

        Half of the shift between two lengths a factor of √10 apart is expected again, of a rate only downwards; and of
        rates that are level the lower ones last longer.
        """
        found = vertex(fine, FINE)
        if not self._of_rate:
            return found + min(max(moved / 2, -FURTHEST), FURTHEST)
        lowest = min(point[0] for point in fine.scores if point == fine.best or fine.may_win(point))
        return found + max(min(moved / 2, 0.0) - max(found - lowest, 0.0) / 2, -FURTHEST)

    @property
    def _of_rate(self) -> bool:
        return self.axes[0].name == "lr"

    @property
    def _configured(self) -> list[int]:
        """The place of the config's value, of another number than the rate."""
        (axis,), (value,) = self.axes, self.set_to
        return [] if self._of_rate or value is None else [axis.point(value)]

    @property
    def _made(self) -> int:
        return self.swept + sum(outcome.updates for outcome in self.trained.values())

    @property
    def _ends_with_whole_runs(self) -> bool:
        return self.options.whole > 1 and len(self.axes) == 1

    def _stage(self, updates: int, step: int, points: list[Point]) -> Stage:
        bounds = tuple(axis.bounds for axis in self.axes)
        most = 24 if len(self.axes) == 1 else 45
        return Stage(updates, step, tuple(map(tuple, points)), self.seeds, bounds, most)

    def _train(
        self, stage: Stage, costs: dict[tuple[Point, int], float] | None = None, like: Table | None = None
    ) -> Table:
        """All trainings of a stage that `costs` lacks; the table has the noise of `like` where one seed tells none."""
        result = StageResult(stage.updates, stage.step, self._walk(stage, costs or {}), like)
        self.stages.append(result)
        return result.table

    def _walk(self, stage: Stage, costs: dict[tuple[Point, int], float]) -> dict[tuple[Point, int], float]:
        """The costs of a stage, with those that are known."""
        self._tell(stage)
        costs = dict(costs)
        while todo := next_trainings(stage, costs):
            self.progress.waiting(len(todo))
            members = [Member(self.overrides_of(point, stage.updates), seed, stage.updates) for point, seed in todo]
            for key, member, outcome in zip(todo, members, self.members.train_all(members, self.many)):
                self.trained[member] = outcome
                costs[key] = outcome.cost
                self.progress.ended(member, outcome)
        return costs

    def _tell(self, stage: Stage) -> None:
        """Head the trainings of a stage; those of one that goes on have their heading."""
        kind = "half-decades" if stage.step == COARSE else "quarter-decades"
        share = 100 * stage.updates / self.total
        heading = f"{kind}, {stage.updates:,} updates each ({share:.3g} % of the run)"
        if heading != self.heading:
            self.heading = heading
            self.progress.stage(heading)

    def _why_nothing_trains(self) -> str:
        errors = {outcome.error for outcome in self.trained.values() if outcome.error}
        lowest = min(self.trained, key=lambda member: member.words).words
        return (
            f"no training ends with a finite metric, down to {' '.join(lowest[:1])}, with clipping too: "
            f"{next(iter(sorted(errors)), 'no reason is known')}"
        )


def as_json(answer: Answer, options: Namespace) -> dict[str, Any]:
    """What tune.json holds."""
    given = {name: str(value) for name, value in vars(options).items() if name != "overrides"}
    return {"overrides": list(options.overrides), "options": given, **answer.as_dict()}
