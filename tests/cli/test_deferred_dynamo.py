"""A process starts and trains without the compiler of PyTorch, and has it as soon as somebody asks for it."""

import subprocess
import sys

import pytest

START = """
import sys, trainer, pytorch_lightning, torch
from trainer.cli import deferred_dynamo
net = torch.nn.Linear(2, 2)
optimizer = torch.optim.AdamW(net.parameters(), fused=True)
def update(net):
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
update(net)
assert not isinstance(net, torch._dynamo.OptimizedModule)
assert "torch._dynamo.eval_frame" not in sys.modules, "imported too early"
"""
COMPILE = """
compiled = torch.compile(net, backend="eager")
assert isinstance(compiled, deferred_dynamo.OptimizedModule)
assert type(compiled) is torch._dynamo.OptimizedModule
from pytorch_lightning.utilities.compile import OptimizedModule
assert isinstance(compiled, OptimizedModule) and not isinstance(net, OptimizedModule)
update(compiled)
"""
NAMES = """
import torch._dynamo.config, torch._dynamo.eval_frame
assert torch._dynamo.eval_frame is sys.modules["torch._dynamo.eval_frame"]
assert torch._dynamo.eval_frame.__spec__.loader.__class__.__name__ == "SourceFileLoader"
for name in deferred_dynamo.NAMES:
    assert getattr(torch._dynamo, name) is not deferred_dynamo.NAMES[name]
assert torch._dynamo.utils.get_optimize_ddp_mode() == deferred_dynamo.NAMES["utils"].get_optimize_ddp_mode()
assert deferred_dynamo.NAMES["utils"].counters is torch._dynamo.utils.counters
torch._dynamo.trace_rules.clear_lru_cache()
update(net)
"""

SUBMODULE = """
from torch._dynamo.utils import counters
import torch._dynamo.convert_frame
assert torch._dynamo.convert_frame.counters is torch._dynamo.utils.counters is counters
assert torch._dynamo.utils.__spec__.loader.__class__.__name__ == "SourceFileLoader"
torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1))
assert counters["stats"]["unique_graphs"] == 1, counters
"""


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_optimizers_step_without_it_and_a_net_can_be_compiled_afterwards() -> None:
    run(START + COMPILE)


@pytest.mark.sample(0)
def test_its_names_are_its_own_once_a_submodule_is_imported() -> None:
    run(START + NAMES)


@pytest.mark.sample(0)
def test_a_submodule_is_imported_once() -> None:
    run(START + SUBMODULE)
