"""The stages found in nets of others: transformers, vision transformers, residual nets, wrappers, adapters."""

import pytest
import torch
from torch import nn

from models.gpt import GPT
from models.mlp import MLP
from models.resnet import ResNet18
from trainer.lr import ConfigError
from trainer.optim.groups import check_coverage
from trainer.optim.layers import backbone_head, gradual_unfreezing, layer_decay
from trainer.optim.stages import stages

WIDTH = 8


class Wrapper(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.pool = net, nn.Identity()


class Block(nn.Module):
    """A residual block, with a shortcut that is a Sequential, or a block of a vision transformer."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))


class ResNet(nn.Module):
    """The shape of torchvision's ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, WIDTH, 7), nn.BatchNorm2d(WIDTH), nn.ReLU()
        self.layer1, self.layer2 = nn.Sequential(Block(), Block()), nn.Sequential(Block(), Block())
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(WIDTH, 3)


class VisionTransformer(nn.Module):
    """The shape of timm's VisionTransformer and of BEiT."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, WIDTH))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, WIDTH, 4)
        self.norm_pre = nn.LayerNorm(WIDTH)
        self.blocks = nn.Sequential(*(nn.TransformerEncoderLayer(WIDTH, 2, 16) for _ in range(depth)))
        self.norm, self.fc_norm, self.head = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)


class TorchvisionViT(nn.Module):
    """The shape of torchvision's VisionTransformer: its encoder has positions of its own, and a norm at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.conv_proj = nn.Conv2d(3, WIDTH, 4)
        self.encoder = nn.Module()
        self.encoder.pos_embedding = nn.Parameter(torch.zeros(1, 5, WIDTH))
        layers = {f"encoder_layer_{i}": nn.TransformerEncoderLayer(WIDTH, 2, 16) for i in range(2)}
        self.encoder.layers = nn.Sequential()
        for name, layer in layers.items():
            self.encoder.layers.add_module(name, layer)
        self.encoder.ln = nn.LayerNorm(WIDTH)
        self.heads = nn.Sequential(nn.Linear(WIDTH, 3))


class Tagger(nn.Module):
    """A net around nn.TransformerEncoder."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, WIDTH), nn.Embedding(6, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16)
        self.encoder = nn.TransformerEncoder(layer, 3, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.classifier = nn.Linear(WIDTH, 3)


class Heads(nn.Module):
    """A block whose attention heads are a list, as tutorials write it."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList([Wrapper(nn.Linear(WIDTH, 4)), Wrapper(nn.Linear(WIDTH, 4))])
        self.feed_forward = nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, WIDTH))


def found(net):
    """The module names of each stage, each shortened to the shortest that tells it apart from the other stages."""
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    inside = [[names[id(parameter)] for parameter in stage] for stage in stages(net)]
    short = []
    for i, stage in enumerate(inside):
        others = [name for j, other in enumerate(inside) for name in other if j != i]
        starts = []
        for name in stage:
            words = name.split(".")
            cuts = [".".join(words[:n]) for n in range(1, len(words) + 1)]
            cut = next(one for one in cuts if not any(f"{other}.".startswith(f"{one}.") for other in others))
            if cut not in starts:
                starts.append(cut)
        short.append(" ".join(starts))
    return short


def test_a_residual_net_has_its_blocks_as_stages_and_the_first_norm_with_its_convolution():
    blocks = [f"layer{i}.{j}" for i in (1, 2) for j in (0, 1)]
    assert found(ResNet()) == ["conv1 bn1", *blocks, "fc"]


def test_a_vision_transformer_has_the_layer_ids_of_beit():
    depth = 3
    net = VisionTransformer(depth)

    def published(name):
        """`get_num_layer_for_vit` of BEiT (optim_factory.py), as timm has it too."""
        if name in ("cls_token", "mask_token", "pos_embed") or name.startswith("patch_embed"):
            return 0
        return int(name.split(".")[1]) + 1 if name.startswith("blocks") else depth + 1

    mine = {id(p): i for i, stage in enumerate(stages(net)) for p in stage}
    of_the_stem = ("norm_pre",)  # BEiT has none; it is before the blocks
    assert all(
        mine[id(p)] == (0 if name.startswith(of_the_stem) else published(name)) for name, p in net.named_parameters()
    )
    groups = layer_decay(net, 0.05, 1.0, decay=0.65)
    rates = {id(p): group.lr_mult for group in groups for p in group.parameters}
    scales = [0.65 ** (depth + 1 - i) for i in range(depth + 2)]  # LayerDecayValueAssigner of BEiT
    for name, p in net.named_parameters():
        assert rates[id(p)] == scales[0 if name.startswith(of_the_stem) else published(name)]


def test_tokens_and_positions_inside_an_encoder_belong_to_the_first_stage():
    net = TorchvisionViT()
    layers = [f"encoder.layers.encoder_layer_{i}" for i in (0, 1)]
    assert found(net) == ["class_token encoder.pos_embedding conv_proj", *layers, "encoder.ln heads"]


def test_a_net_around_a_transformer_encoder_has_its_embeddings_first_and_its_layers_as_stages():
    layers = [f"encoder.layers.{i}" for i in range(3)]
    assert found(Tagger()) == ["tokens positions", *layers, "encoder.norm classifier"]


def test_lists_inside_of_repeated_blocks_are_not_opened():
    net = nn.Module()
    net.token_embedding, net.blocks = nn.Embedding(5, WIDTH), nn.Sequential(*(Heads() for _ in range(3)))
    net.ln_f, net.lm_head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)
    assert found(net) == ["token_embedding", "blocks.0", "blocks.1", "blocks.2", "ln_f lm_head"]


@pytest.mark.parametrize("net", [ResNet(), VisionTransformer(), Tagger(), MLP(4, 2, (3,)), ResNet18(3, 10, 4)])
def test_a_wrapper_counts_as_what_it_wraps(net):
    ids = [[id(p) for p in stage] for stage in stages(net)]
    for wrapped in (Wrapper(net), Wrapper(Wrapper(net)), nn.Sequential(nn.Identity(), net)):
        assert [[id(p) for p in stage] for stage in stages(wrapped)] == ids
        assert len(layer_decay(wrapped, 0.0, 1.0)) == len(ids)


def test_a_backbone_with_stages_of_its_own_beside_a_head_is_taken_by_them():
    backbone = GPT(11, 6, layers=2, heads=2, width=WIDTH)
    net = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(11, 3)})
    assert len(stages(net)) == len(stages(backbone)) + 1
    assert found(nn.Sequential(ResNet(), nn.Linear(3, 2)))[-2:] == ["0.fc", "1"]


class TestTransformers:
    """Models of transformers with small configs and random weights."""

    small = {"vocab_size": 19, "hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 2}

    def test_bert_has_the_depths_of_electra(self):
        transformers = pytest.importorskip("transformers")
        net = transformers.BertForSequenceClassification(
            transformers.BertConfig(**self.small, intermediate_size=16, max_position_embeddings=7)
        )
        layers = [f"bert.encoder.layer.{i}" for i in range(3)]
        assert found(net) == ["bert.embeddings", *layers, "bert.pooler", "classifier"]
        # ELECTRA (model/optimization.py): embeddings 0, layer i at i + 1, the task at n_layers + 2
        depths = {"bert.embeddings": 0, "classifier": 3 + 2, **{layer: i + 1 for i, layer in enumerate(layers)}}
        rates = {id(p): g.lr_mult for g in layer_decay(net, 0.01, 1.0, decay=0.8) for p in g.parameters}
        for name, p in net.named_parameters():
            for start, depth in depths.items():
                assert not name.startswith(f"{start}.") or rates[id(p)] == 0.8 ** (3 + 2 - depth)

    def test_gpt_2_has_the_norm_at_its_end_as_head_since_its_matrix_is_tied(self):
        transformers = pytest.importorskip("transformers")
        config = transformers.GPT2Config(vocab_size=19, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=7)
        layers = [f"transformer.h.{i}" for i in range(2)]
        embeddings = "transformer.wte transformer.wpe"
        assert found(transformers.GPT2LMHeadModel(config)) == [embeddings, *layers, "transformer.ln_f"]
        config.pad_token_id = 0
        untied = transformers.GPT2ForSequenceClassification(config)
        assert found(untied) == [embeddings, *layers, "transformer.ln_f score"]

    def test_llama_and_vit(self):
        transformers = pytest.importorskip("transformers")
        config = transformers.LlamaConfig(**self.small, intermediate_size=16, num_key_value_heads=2)
        layers = [f"model.layers.{i}" for i in range(3)]
        assert found(transformers.LlamaForCausalLM(config)) == ["model.embed_tokens", *layers, "model.norm lm_head"]
        small = {name: value for name, value in self.small.items() if name != "vocab_size"}
        vit = transformers.ViTForImageClassification(
            transformers.ViTConfig(**small, intermediate_size=16, image_size=8, patch_size=4)
        )
        assert len(stages(vit)) == 5
        assert found(vit)[0] == "vit.embeddings"
        assert found(vit)[-1].endswith("classifier")


def test_a_rule_that_finds_one_stage_is_refused():
    for net in (nn.Linear(3, 2), Wrapper(nn.Linear(3, 2)), MLP(4, 2, ())):
        for rule in (layer_decay, gradual_unfreezing):
            with pytest.raises(ConfigError, match=f"groups={rule.__name__}: .* has 1 stage with trainable parameters"):
                rule(net, 0.0, 1.0)
        with pytest.raises(ConfigError, match="no backbone before its last stage"):
            backbone_head(net, 0.0, 1.0)
    net = MLP(4, 2, (3,))
    net.layers[1].requires_grad_(False)
    with pytest.raises(ConfigError, match="has 1 stage"):
        layer_decay(net, 0.0, 1.0)


@pytest.mark.parametrize("net", [ResNet(), VisionTransformer(), Tagger()])
def test_every_rule_covers_the_nets_of_others(net):
    for rule in (layer_decay, backbone_head, gradual_unfreezing):
        check_coverage(net, rule(net, 0.1, 1.0))
