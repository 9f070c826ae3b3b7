"""Show the whole learning-rate curve of a run before training it: a table, a sketch, a picture, lint findings.

Takes every override that cadence train takes. Needs neither data nor torch, unless the groups depend on the model.
Examples:

    cadence plan optimizer=sgd schedule=cosine_warmup trainer.duration=30ep --out outputs/plan
    cadence plan schedule=wsd warmup=linear --updates 100000 --csv
    cadence plan optimizer=sgd --updates 5000 --compare schedule=cosine "schedule=wsd schedule.decay=10%"
    cadence plan --applied outputs/NAME        what a finished run planned, and what it applied
"""

import argparse
import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from trainer.cli.compose import add_config_options, add_file_options, compose_config, find_own_packages, with_length
from trainer.cli.messages import one_line
from trainer.cli.plain_yaml import plain_yaml
from trainer.cli.run_id import register_run_id
from trainer.cli.streams import shown
from trainer.config.instantiate import instantiate
from trainer.config.lr_policy import GroupFacts, Groups
from trainer.config.resolve import plan_of
from trainer.config.settings import Settings, settings_of
from trainer.files.plain import read_text
from trainer.lr import ConfigError, Plan, rules
from trainer.lr.backoff import rollbacks
from trainer.tools.drawing import needed_for_pictures
from trainer.tools.plan import files, tables


def main(words: list[str] | None = None) -> None:
    """Compose the config, plan the run, and show it."""
    options = parsed(words)
    if not options.no_files:
        needed_for_pictures()
    if options.compare:
        return compare(options)
    if options.applied:
        settings, log = recorded(options.applied), applied(options.applied)
        groups, history = facts_of_run(options.applied)
        plan = planned(settings, groups, history)
        with _reading(history):
            back = rollbacks(history if groups else (), plan.horizon.batch_size)
    else:
        settings, log, back = composed(options.overrides, options), {}, []
        plan = planned(settings)
    lines = [*tables.format_plan(plan, settings.lint_ignore, back), *tables.format_rollbacks(back)]
    print(shown("\n".join(lines)))
    if not options.no_files:
        print(f"\n{files.save({'planned': plan}, options.out, options.csv, log, back)}")
    return None


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_options(parser)
    add_file_options(parser, "outputs/plan")
    parser.add_argument("--csv", action="store_true", help="write every value of every group and update, too")
    parser.add_argument("--updates", type=int, metavar="N", help="the length of the run, where it needs no data")
    parser.add_argument("--applied", type=Path, metavar="FOLDER", help="a run's folder: its plan, and what it applied")
    parser.add_argument(
        *("--compare", "-c"), nargs="+", metavar="OVERRIDES", help="several policies, on top of the overrides before"
    )
    options = parser.parse_intermixed_args(words)
    for name in ("overrides", "updates", "compare"):
        if options.applied and getattr(options, name):
            raise ConfigError(f"--applied={options.applied} takes the config of that run: leave out {name}.")
    return options


def compare(options: argparse.Namespace) -> None:
    """Show several policies beside each other."""
    plans: dict[str, Plan] = {}
    ignores: list[Sequence[str]] = []
    for text in options.compare:
        try:
            settings = composed([*options.overrides, *shlex.split(text)], options)
            plans[text] = planned(settings)
        except ConfigError as error:
            raise ConfigError(f"--compare {text}: {error}") from error
        ignores.append(settings.lint_ignore)
    print("\n".join(tables.format_plans(plans, ignores)))
    if not options.no_files:
        print(f"\n{files.save(plans, options.out, options.csv)}")


def composed(overrides: list[str], options: argparse.Namespace) -> Settings:
    """The settings that cadence train would see; with --updates, the data may lack settings."""
    cfg = compose_config(overrides, options)
    return settings_of(cfg if options.updates is None else with_length(cfg, options.updates, "--updates"))


def recorded(folder: Path) -> Settings:
    """The settings of a run that has been started."""
    find_own_packages(reading=folder)
    register_run_id()
    try:
        with plain_yaml():
            cfg = OmegaConf.load(folder / "config.yaml")
    except OSError as error:
        raise ConfigError(f"--applied={folder} is not the folder of a run: it has no config.yaml.") from error
    except (ValueError, YAMLError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{folder / 'config.yaml'} cannot be read: {one_line(str(error))}") from error
    if not isinstance(cfg, DictConfig):
        raise ConfigError(f"{folder / 'config.yaml'} is not the config of a run: it holds a list.")
    cfg["allow"] = []  # only who reads the folder allows packages
    return settings_of(cfg)


def facts_of_run(folder: Path) -> tuple[Groups | None, list[Any]]:
    """The parameter groups and the curve history that a run has recorded; None and [] where it has not."""
    try:
        facts = json.loads(read_text(folder / "plan.json"))
        keys = ("lr_mult", "weight_decay", "schedule")
        groups = {group["name"]: GroupFacts(*(group[key] for key in keys)) for group in facts["groups"]}
        return groups, facts["curve_history"]
    except (OSError, ValueError, LookupError, TypeError):
        return None, []


def planned(settings: Settings, groups: Groups | None = None, history: Sequence[Any] = ()) -> Plan:
    """The plan of a run; of one that was resumed, by its curve history. Refused as the run would be."""
    policy, duration = settings.resume.policy, settings.trainer.duration
    if policy is not None and not history:
        raise ConfigError(f"resume.policy={policy}: a new run is planned here; --applied shows a resumed one.")
    if settings.data.get("samples") is None and str(duration).strip().endswith("ep"):
        raise ConfigError(
            f"trainer.duration={duration} counts epochs, and only the data knows their length: "
            "give --updates N, or data.samples."
        )
    if settings.plateau:
        rule = instantiate(settings.plateau, "plateau", settings.allow)
        scored = ["val/loss", *(f"val/{name}" for name in settings.task.get("metrics") or {})]
        for line in rules.unlogged(rule.monitor, scored):
            raise ConfigError(f"lint monitor: {line}")
    with _reading(history):
        return plan_of(settings, groups, history if groups else ())


@contextmanager
def _reading(history: Sequence[Any]) -> Iterator[None]:
    """Refuse a curve history that is not as a run writes it."""
    try:
        yield
    except ConfigError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if not history:
            raise
        raise ConfigError(
            f"--applied: curve_history in plan.json cannot be read ({type(error).__name__}: {one_line(str(error))}): "
            "the file was changed since the run wrote it."
        ) from error


def applied(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What the log of a run holds of its learning rate (the first group's) and its loss, update by update."""
    from trainer.log.scalars import scalars  # late: protobuf

    logged = scalars(folder, ("lr/", "train/loss"))
    rates = [tag for tag in logged if tag.startswith("lr/")]
    if not rates:
        raise ConfigError(
            f"--applied={folder} holds no log of a learning rate: was it trained with logger=tensorboard?"
        )
    return {"lr": logged[rates[0]], "loss": logged.get("train/loss", [])}
