"""Configs that try to run code which no training needs, and how many of them do: `python tests/config/hostile.py`.

Each is a command line, with the files that it needs. It is given to the command in a process of its own, in a folder
of its own. It has run where a file has appeared there, or another has vanished. All payloads are harmless.
"""

import argparse
import contextlib
import os
import pickle
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
SHORT = ("trainer.accelerator=cpu", "trainer.threads=1", "trainer.duration=40", "logger=none", "name=victim")
MARK, BYSTANDER = "mark", "bystander"


@dataclass(frozen=True)
class Attack:
    """`words`: of the command line, in which @ stands for the folder; `files`: what lies in it."""

    words: Sequence[str]
    files: dict[str, str] = field(default_factory=dict)
    flags: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The attack in one line."""
        return " ".join([*self.flags, *self.words, *(f"[{name}]" for name in self.files)])


def calls(target: str, *more: str, place: str = "callbacks.x") -> Attack:
    """A call of `target` with the arguments NAME:VALUE, or {…} where there is one, at a place of the config."""
    node = ",".join([f"_target_:{target}", *more])
    return Attack([f"+{place}={{{node}}}"])


def shared(text: str, *words: str, **files: str) -> Attack:
    """What an option of a folder with configs does that somebody else has written."""
    option = "# @package _global_\n" + text
    return Attack(
        ["experiment=shared", *words],
        {"conf/experiment/shared.yaml": option, **{name.replace("__", "/"): body for name, body in files.items()}},
        ["--config-dir", "@/conf"],
    )


SYSTEM = "_args_:['touch @/mark']"
LOAD = "{_target_: joblib.load, filename: @/p.pkl}"
TOUCH = "model:\n  _target_: planted.touch\n  path: @/mark\n"
WHOLE = "{version: 1, handlers: {x: {(): joblib.load, filename: @/p.pkl}}, root: {handlers: [x]}}"
CKPT = "weights_only:false"


def logs(part: str, text: str, of: str = "job_logging") -> Attack:
    """A log of Hydra's with such a handler, formatter or filter."""
    root = "    root: {handlers: [x]}\n" if part == "handlers" else ""
    return shared(f"hydra:\n  {of}:\n    {part}:\n      x: {text}\n{root}")


def late(part: str, text: str) -> Attack:
    """Such a log that is only known when Hydra has made the folder of the run."""
    payloads = ["{(): joblib.load, filename: @/p.pkl}", "ext://planted.touch", WHOLE]
    known = ", ".join(f"{{@/out: {payload}}}" for payload in payloads)
    log = f"\n    {part}:\n      x: {text}\n    root: {{handlers: [x]}}" if part else f" {text}"
    return shared(f"freeze: [{known}]\nhydra:\n  run: {{dir: @/out}}\n  job_logging:{log}\n")


LISTED = [
    calls("os.system", SYSTEM),
    calls("subprocess.run", "args:[touch,@/mark]"),
    calls("subprocess.Popen", "args:[touch,@/mark]"),
    calls("builtins.eval", "_args_:[\"open('@/mark','w')\"]"),
    calls("builtins.exec", "_args_:[\"open('@/mark','w')\"]"),
    calls("builtins.open", "_args_:['@/mark',w]"),
    calls("shutil.rmtree", "path:@/bystander"),
    calls(
        "pickle.loads", "_args_:[{_target_:pathlib.Path.read_bytes,_args_:[{_target_:pathlib.Path,_args_:[@/p.pkl]}]}]"
    ),
    calls("importlib.import_module", "name:planted"),
    calls("runpy.run_path", "path_name:@/planted.py"),
    calls("ctypes.CDLL", "name:null"),
    calls("multiprocessing.Process"),
    calls("torch.load", "f:@/p.pt", "weights_only:false"),
    calls("torch.hub.load", "repo_or_dir:@/hub", "model:touch", "source:local"),
    calls("pandas.read_pickle", "_args_:[@/p.pkl]"),
    calls("pandas.eval", "_args_:[1+1]"),
    calls("joblib.load", "filename:@/p.pkl"),
    calls("sympy.sympify", "_args_:[\"open('@/mark','w')\"]"),
    calls("pathlib.Path.write_text", "_args_:[{_target_:pathlib.Path,_args_:[@/mark]},x]"),
    calls("numpy.load", "file:@/p.npy", "allow_pickle:true"),
    calls(
        "fsspec.implementations.local.LocalFileSystem.rm",
        "_args_:[{_target_:fsspec.implementations.local.LocalFileSystem},@/bystander,true]",
    ),
    calls("dill.load_session", "filename:@/p.pkl"),
    calls("cloudpickle.load", "_args_:[{_target_:builtins.open,_args_:[@/p.pkl,rb]}]"),
    calls("timeit.timeit", "stmt:\"open('@/mark','w')\"", "number:1"),
    calls("planted.touch", "path:@/mark"),
]
"""The targets of `docs/adr/0010-targets.md`'s evidence: what was called through a `_target_` of plain Hydra."""
BYPASSES = [
    calls("trainer.sweep.spawn.fresh", "command:[touch,@/mark]", "environment:{PATH:/usr/bin:/bin}", "log:@/log"),
    calls("trainer.cli.command.run_program", "words:[@/planted.py]"),
    Attack(["+hydra.callbacks.x={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["+hydra.callbacks.x={_target_:torch.load,f:@/p.pt,weights_only:false}"]),
    shared("allow: [joblib]\ncallbacks:\n  x: {_target_: joblib.load, filename: @/p.pkl}\n"),
    shared("allow: [planted]\n" + TOUCH),
    shared("allow: [os]\nmodel:\n  _target_: os.system\n  _args_: ['touch @/mark']\n"),
]
"""Row B14 of the findings: what has got around the list of allowed packages."""
OWN = [
    calls("torch.nn.modules.sys.modules.clear"),
    calls("torch.os.system", SYSTEM),
    calls("torch.nn.modules.module.torch.os.system", SYSTEM),
    calls("torch.nn.functional.torch.load", "f:@/p.pt", "weights_only:false"),
    calls("torch.optim.optimizer.torch.hub.load", "repo_or_dir:@/hub", "model:touch", "source:local"),
    calls("models.mlp.os.system", SYSTEM, place="model.x"),
    calls("trainer.sweep.fork_server.os.system", SYSTEM),
    calls("trainer.log.tensorboard.Path.write_text", "_args_:[{_target_:pathlib.Path,_args_:[@/mark]},x]"),
    calls("trainer.checkpoint.io.write_file", "path:@/mark", "write:null"),
    calls("trainer.tools.writable.write_new_file", "path:@/mark", "write:{_target_:pathlib.Path.touch,_partial_:true}"),
    calls("trainer.config.run_summary._write", "path:@/mark", "text:x"),
    calls("trainer.sweep.fork_server._redirect", "log:@/mark"),
    calls("trainer.cli.run_cli._append", "path:@/mark", "error:null"),
    calls("trainer.config.instantiate.instantiate", "node:{a:1}", "key:x", "allow:[os]"),
    calls("trainer.config.instantiate.instantiate_checked", "_args_:[{x:1},[os]]"),
    calls("hydra.utils.get_method", "path:os.system"),
    calls("hydra_plugins.grid_sweeper.OmegaConf.save", "config:{a:1}", "f:@/mark"),
    calls("pytorch_lightning.callbacks.lambda_function.LambdaCallback",
          "on_fit_start:{_target_:os.system,_partial_:true,_args_:['touch @/mark']}"),
    calls("pytorch_lightning.callbacks.LambdaCallback",
          "setup:{_target_:trainer.sweep.spawn.fresh,_partial_:true}"),
    calls("pytorch_lightning.callbacks.model_checkpoint.shutil.rmtree", "path:@/bystander"),
    calls("pytorch_lightning.core.module.LightningModule.load_from_checkpoint", "checkpoint_path:@/p.pt", CKPT),
    calls("pytorch_lightning.utilities.cloud_io.pl_load", "path_or_url:@/p.pt", "weights_only:false"),
    calls("data.digits.Digits.load_from_checkpoint", "checkpoint_path:@/p.pt", CKPT, place="data.x"),
    Attack(["data._target_=data.digits.Digits.load_from_checkpoint", "+data.checkpoint_path=@/p.pt"]),
    Attack(["model._target_=trainer.sweep.spawn.fresh", "~model.hidden", "+model.command=[touch,@/mark]"]),
    Attack(["optimizer._target_=trainer.cli.command.run_program", "+optimizer.words=[@/planted.py]"]),
    Attack(["schedule._target_=trainer.log.eventfile.EventFile", "+schedule.path=@/mark"]),
    Attack(["schedule._target_=joblib.load", "+schedule.filename=@/p.pkl"]),
    Attack(["warmup._target_=importlib.import_module", "+warmup.name=planted"]),
    Attack(["+group_schedule.decay={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["+hyper_schedule.beta1={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["+hyper_schedule.beta1={_target_:trainer.lr.scheduled,_partial_:true,of:{_target_:joblib.load,filename:@/p.pkl}}"]),
    Attack(["schedule=product", "schedule.factors=[{_target_:joblib.load,filename:@/p.pkl},constant]"]),
    Attack(["data.samples={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["data=dataset", "data.train={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["+data.collate_fn={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["+task.metrics.x={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["+task.step={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["+logger.x={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["adapter={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["+measure={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["+groups.patterns=[{optimizer:{_target_:joblib.load,filename:@/p.pkl}}]"]),
    Attack(["+optimizer.base={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["+trainer.lightning.profiler={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["+init.x={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["+a={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["seed={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["resume.path={_target_:joblib.load,filename:@/p.pkl}"]),
    Attack(["+model.x=[[{y:{_target_:joblib.load,filename:@/p.pkl}}]]"]),
    shared("callbacks:\n  x: {_target_: '${oc.decode:joblib}.load', filename: @/p.pkl}\n"),
    shared("callbacks:\n  x: {_target_: '${oc.env:WHAT,joblib.load}', filename: @/p.pkl}\n"),
    shared("callbacks:\n  x: '${oc.create:\"{_target_: joblib.load, filename: @/p.pkl}\"}'\n"),
    shared("callbacks:\n  x: ${.y}\n  y: {_target_: joblib.load, filename: @/p.pkl}\n"),
    shared("hydra:\n  callbacks:\n    x: {_target_: joblib.load, filename: @/p.pkl}\n"),
    shared("hydra:\n  callbacks:\n    x: ${init.rename}\ninit:\n  rename: " + LOAD + "\n"),
    shared("hydra:\n  callbacks:\n    x: {_target_: '${oc.env:WHAT,joblib.load}', filename: @/p.pkl}\n"),
    shared(
        "hydra:\n  callbacks:\n    x:\n      _target_: hydra.experimental.callbacks.LogJobReturnCallback\n      y: "
        + LOAD
    ),
    logs("handlers", "{(): joblib.load, filename: @/p.pkl}"),
    logs("handlers", "{class: joblib.load, filename: @/p.pkl}"),
    logs("formatters", "{(): joblib.load, filename: @/p.pkl}"),
    logs("filters", "{(): planted.touch, path: @/mark}"),
    logs("handlers", "{(): joblib.load, filename: @/p.pkl}", "hydra_logging"),
    logs("handlers", "{class: logging.StreamHandler, stream: ext://planted.touch}"),
    logs("handlers", "{class: logging.FileHandler, filename: @/mark}"),
    late("handlers", "${freeze.0.${hydra.runtime.output_dir}}"),
    late("formatters", "${freeze.0.${hydra.runtime.output_dir}}"),
    late("handlers", "{class: logging.StreamHandler, stream: '${freeze.1.${hydra.runtime.output_dir}}'}"),
    late("handlers", "\"${oc.select:'freeze.0.${oc.select:hydra.runtime.output_dir,x}',{}}\""),
    late("", "${freeze.2.${hydra.runtime.output_dir}}"),
    shared("hydra:\n  launcher:\n    jobs: " + LOAD + "\n", "-m", "seed=0,1"),
    shared("hydra:\n  sweeper:\n    zip: " + LOAD + "\n", "-m", "seed=0,1"),
    shared(
        "hydra:\n  sweeper:\n    params:\n      allow: '[planted]'\n      model._target_: planted.touch\n"
        "      +model.path: @/mark\n      seed: '0,1'\n", "-m"
    ),
    shared("hydra:\n  job:\n    env_set: {CADENCE_ALLOW: planted}\n" + TOUCH),
    shared("hydra:\n  job:\n    env_set: {PYTHONPATH: '@', LD_PRELOAD: '@/x.so'}\n" + TOUCH),
    shared("hydra:\n  overrides:\n    task: ['allow=[planted]']\nallow: [planted]\n" + TOUCH),
    Attack([], {"conf/train.yaml": "hydra:\n  searchpath: ['pkg://planted']\n"}, ["--config-path", "@/conf"]),
    *(Attack([f"allow=[{name}]", f"+callbacks.x={{_target_:{target},{more}}}"]) for name, target, more in (
        ("os", "os.system", SYSTEM),
        ("subprocess", "subprocess.Popen", "args:[touch,@/mark]"),
        ("builtins", "builtins.open", "_args_:['@/mark',w]"),
        ("joblib", "joblib.load", "filename:@/p.pkl"),
        ("joblib.numpy_pickle", "joblib.numpy_pickle.load", "filename:@/p.pkl"),
        ("pandas", "pandas.read_pickle", "_args_:[@/p.pkl]"),
        ("shutil", "shutil.rmtree", "path:@/bystander"),
        ("importlib", "importlib.import_module", "name:planted"),
        ("runpy", "runpy.run_path", "path_name:@/planted.py"),
        ("torch", "torch.load", "f:@/p.pt,weights_only:false"),
        ("torch.hub", "torch.hub.load", "repo_or_dir:@/hub,model:touch,source:local"),
        ("numpy", "numpy.load", "file:@/p.npy,allow_pickle:true"),
        ("trainer", "trainer.sweep.spawn.fresh", "command:[touch,@/mark],environment:{PATH:/bin},log:@/log"),
        ("hydra", "hydra.utils.get_method", "path:planted.touch"),
        ("timeit", "timeit.timeit", "stmt:\"open('@/mark','w')\",number:1"),
        ("own", "own.os.system", SYSTEM),
        ("own", "own.planted.touch", "path:@/mark"),
    )),
]  # fmt: skip
"""Our own: attribute walks, other groups, nested nodes, interpolations, settings of Hydra, packages that run code."""
ALL = [*LISTED, *BYPASSES, *OWN]
MODULE = """\
from pathlib import Path

Path(__file__).with_name("mark").touch()


def touch(path="mark"):
    Path(path).touch()
"""


class Bomb:
    """Pickled, it writes the mark where it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def lay_out(folder: Path, attack: Attack) -> list[str]:
    """Write the files of an attack, and return its words."""
    import torch

    place, bomb = str(folder), Bomb(str(folder / MARK))
    (folder / BYSTANDER).mkdir(parents=True)
    (folder / "planted.py").write_text(MODULE)
    (folder / "own.py").write_text("import importlib\nimport os\n\n\nclass Net:\n    pass\n")
    (folder / "hub").mkdir()
    (folder / "hub" / "hubconf.py").write_text(f"open('{place}/mark', 'w')\n\n\ndef touch():\n    return 1\n")
    (folder / "p.pkl").write_bytes(pickle.dumps(bomb))
    torch.save(bomb, folder / "p.pt")
    array = np.empty(1, dtype=object)
    array[0] = bomb
    np.save(folder / "p.npy", array, allow_pickle=True)
    for name, text in attack.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.replace("@/", f"{place}/").replace("'@'", f"'{place}'"))
    flags = ["-m"] if "-m" in attack.words else []
    words = [*flags, *attack.flags, *SHORT, *(word for word in attack.words if word != "-m")]
    return [word.replace("@/", f"{place}/") for word in words]


def ran(folder: Path) -> bool:
    """Whether a payload has run."""
    return (folder / MARK).exists() or not (folder / BYSTANDER).exists()


def executed(attack: Attack, folder: Path) -> tuple[bool, str]:
    """Whether an attack runs, and the last line that the command says; in a fork of this process."""
    words, log = lay_out(folder, attack), folder / "output.txt"
    child = os.fork()
    if child == 0:
        code = 70
        with contextlib.suppress(BaseException):
            code = _command(words, folder, log)
        os._exit(code)
    _, status = os.waitpid(child, 0)
    lines = log.read_text().strip().splitlines() or [""]
    return ran(folder), f"{os.waitstatus_to_exitcode(status)} {lines[-1][:230]}"


def _command(words: Sequence[str], folder: Path, log: Path) -> int:
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.chdir(folder)
    os.environ.pop("CADENCE_ALLOW", None)
    sys.argv = ["train.py", *words]
    from cadence.train import main
    from trainer.cli.run_cli import run_cli

    code = run_cli(main)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def preloaded() -> None:
    """Import what a run needs, once for all forks."""
    import trainer.config.components
    import trainer.run

    assert trainer.run
    assert trainer.config.components


def main() -> int:
    """Run all attacks, and print those that ran and how many."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    sys.path.insert(0, str(ROOT))
    preloaded()
    found = []
    with tempfile.TemporaryDirectory() as base:
        for number, attack in enumerate(ALL):
            has_run, said = executed(attack, Path(base, str(number)))
            found.append(has_run)
            print(f"{'RAN    ' if has_run else 'refused'} {attack.name}\n        {said}", flush=True)
    counts = [len(LISTED), len(BYPASSES), len(OWN)]
    print(f"{len(ALL)} attacks ({counts[0]} listed, {counts[1]} bypasses, {counts[2]} others): {sum(found)} ran")
    return int(any(found))


if __name__ == "__main__":
    sys.exit(main())
