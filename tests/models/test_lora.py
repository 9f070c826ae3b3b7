"""LoRA: what is trained, what a checkpoint holds, resume to the bit, another base refused, loadable by peft."""

import pytest
import torch
from omegaconf import OmegaConf

import cadence
from models.gpt import GPT
from models.lora import lora
from models.mlp import MLP
from trainer.checkpoint.io import checkpoint_path, read
from trainer.config.run_summary import format_run, summary_of_run
from trainer.lr import ConfigError
from trainer.run import evaluate, fit, write_adapter

peft = pytest.importorskip("peft")
SMALL = (
    *("model.hidden=[8,8]", "data=synthetic", "data.samples=64", "data.batch_size=8", "data.val_samples=16"),
    *("data.test_samples=16", "logger=none", "trainer.duration=20", "trainer.validate=10", "trainer.keep=0"),
    *("lint.ignore=[unreached]", "optimizer.lr=0.05"),
)
LORA = ("adapter=lora", "adapter.r=2", "adapter.modules_to_save=[layers.7]")


def state(net):
    return {name: value.clone() for name, value in net.named_parameters()}


@pytest.fixture
def base(assembled, tmp_path):
    """A file with trained weights, as a run before it left them."""
    run = assembled(*SMALL, folder="base")
    fit(run)
    return run.folder / "checkpoints" / "best.ckpt"


def test_w_x_becomes_w_x_plus_a_low_rank_product():
    torch.manual_seed(0)
    net = MLP(4, 2, (3,))
    before = net(torch.eye(4))
    weight = net.layers[1].weight.detach().clone()
    adapted = lora(net, r=2, alpha=6, target_modules=["layers.1"])
    assert torch.equal(adapted(torch.eye(4)), before), "B starts at 0"
    layer = adapted.base_model.model.layers[1]
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(up)
    merged = weight + 6 / 2 * up @ down
    inputs = torch.randn(5, 4)
    expected = inputs @ merged.T + layer.base_layer.bias
    assert torch.allclose(layer(inputs), expected, atol=1e-6)
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert [name.split(".")[-3] for name in trained] == ["lora_A", "lora_B"]


def test_the_adapter_learns_the_base_stays_and_a_checkpoint_holds_the_adapter_alone(assembled, base):
    run = assembled(*SMALL, *LORA, f"init.path={base}")
    net = run.module.net
    before, frozen = state(net), {name for name, p in net.named_parameters() if not p.requires_grad}
    assert torch.equal(
        before["base_model.model.layers.1.base_layer.weight"], read(base)["state_dict"]["net.layers.1.weight"]
    )
    fit(run)
    after = state(net)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == before.keys() - frozen
    saved = read(checkpoint_path(run.folder / "checkpoints", 20))["state_dict"]
    assert {name.removeprefix("net.") for name in saved} == changed
    rows = dict(format_run(summary_of_run(run.resolved)))
    assert rows["weights"] == f"6 tensors from {base}"
    assert rows["frozen"] == "426 of 628 numbers in 6 of 12 tensors"


def test_a_resumed_run_has_the_same_bits_and_another_base_is_refused(assembled, base, tmp_path):
    words = (*SMALL, *LORA, f"init.path={base}", "adapter.dropout=0.1")
    whole = assembled(*words, folder="whole")
    fit(whole)
    half = checkpoint_path(whole.folder / "checkpoints", 10)
    resumed = assembled(*words, folder="resumed", resumed=half)
    fit(resumed)
    expected, got = state(whole.module.net), state(resumed.module.net)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    without = [word for word in words if not word.startswith("init")]
    for other in (without, [*without, "seed=1"], [*words, "adapter.modules_to_save=null"]):
        with pytest.raises(ConfigError, match="is of an adapter on frozen weights with the hash"):
            assembled(*other, folder="other", resumed=half)
    with pytest.raises(ConfigError, match="and this run has None"):
        assembled(*SMALL, folder="plain", resumed=half)
    with pytest.raises(ConfigError, match="holds an adapter without the net below it"):
        assembled(*SMALL, f"init.path={half}", folder="plain")


def test_peft_loads_the_best_adapter_onto_the_base(assembled, base):
    run = assembled(*SMALL, *LORA, f"init.path={base}", "average=ema")
    fit(run)
    evaluate(run)
    write_adapter(run)
    shape = run.data.shape
    net = MLP(shape["in_features"], shape["classes"], (8, 8))
    net.load_state_dict({name[4:]: value for name, value in read(base)["state_dict"].items() if name[:4] == "net."})
    loaded = peft.PeftModel.from_pretrained(net, str(run.folder / "adapter")).eval()
    inputs = torch.randn(6, shape["in_features"])
    ours = run.module.net.eval()
    assert torch.equal(loaded(inputs), ours(inputs))
    best = run.checkpointing.best_checkpoint()["state_dict"]
    for name, value in ours.state_dict().items():
        assert torch.equal(value, best[f"net.{name}"])
    merged = loaded.merge_and_unload()
    assert torch.allclose(merged(inputs), ours(inputs), atol=1e-5)


def test_a_loaded_run_has_the_net_below_the_adapter_and_is_exported_with_the_adapter_in_it(assembled, tmp_path):
    run = assembled(*SMALL, *LORA)
    net = run.module.net
    fit(run)
    (run.folder / "config.yaml").write_text(OmegaConf.to_yaml(run.resolved.settings.source))
    write_adapter(run)
    loaded = cadence.load(run.folder)
    inputs = torch.randn(6, run.data.shape["in_features"])
    assert torch.equal(loaded.net(inputs), net.eval()(inputs))
    plain = MLP(run.data.shape["in_features"], run.data.shape["classes"], (8, 8))
    plain.load_state_dict(torch.load(loaded.export(tmp_path / "net.pt")))
    assert torch.allclose(plain(inputs), net(inputs), atol=1e-5)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("adapter.target_modules=[nothing]",), "adapter: .*nothing"),
        (("adapter.r=0",), "adapter: .*r"),
        (("+adapter.rank=3",), r"adapter\.rank is not known to lora"),
        (("trainer=fsdp", "trainer.accelerator=cpu"), "adapter: the frozen net below it is not sharded"),
    ],
)
def test_a_wrong_adapter_is_refused_in_one_line(assembled, words, told):
    with pytest.raises(ConfigError, match=told):
        assembled(*SMALL, "adapter=lora", *words)


def test_a_causal_model_with_a_tied_head_takes_adapters_on_its_blocks():
    net = lora(GPT(7, 4, layers=2, heads=1, width=4), target_modules=["qkv", "out"])
    trained = {name.split(".lora_")[0] for name, p in net.named_parameters() if p.requires_grad}
    assert len(trained) == 4
    assert net(torch.zeros(1, 4, dtype=torch.int64)).shape == (1, 4, 7)
