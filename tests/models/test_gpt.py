"""A language model that sees the future, or starts far from chance, wastes every run made with it."""

import math

import pytest
import torch
import torch.nn.functional as F

from models.gpt import GPT


def gpt(**changes: object) -> GPT:
    torch.manual_seed(0)
    return GPT(**{"vocab_size": 65, "context": 16, "layers": 3, "heads": 4, "width": 32, **changes})


def tokens(count: int = 4, length: int = 16) -> torch.Tensor:
    return torch.randint(0, 65, (count, length), generator=torch.Generator().manual_seed(1))


def test_every_position_has_logits_over_the_vocabulary() -> None:
    assert gpt()(tokens()).shape == (4, 16, 65)
    assert gpt()(tokens(length=5)).shape == (4, 5, 65)


@pytest.mark.parametrize("bias", [False, True])
def test_the_size_is_that_computed_by_hand(bias: bool) -> None:
    block = 3 * 32 * 32 + 32 * 32 + 2 * 4 * 32 * 32 + 2 * 32
    biases = 3 * 32 + 32 + 4 * 32 + 32 + 2 * 32
    expected = 65 * 32 + 16 * 32 + 3 * (block + bias * biases) + 32 + bias * 32
    assert sum(parameter.numel() for parameter in gpt(bias=bias).parameters()) == expected


def test_the_head_and_the_embedding_are_one_parameter() -> None:
    net = gpt()
    assert net.head.weight is net.tokens.weight
    assert [name for name, _ in net.named_parameters()].count("tokens.weight") == 1
    assert "head.weight" not in dict(net.named_parameters())


def test_a_later_token_changes_no_earlier_logits_and_its_own() -> None:
    net = gpt().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(8)
        before = net(tokens())
        for position in range(16):
            changed = tokens()
            changed[:, position] = (changed[:, position] + 1) % 65
            after = net(changed)
            assert torch.equal(before[:, :position], after[:, :position])
            assert not torch.allclose(before[:, position], after[:, position])
            assert not torch.allclose(before[:, -1], after[:, -1])


def test_the_heads_mix_as_one_written_out_attention() -> None:
    attention, x = gpt().blocks[0].attention, torch.randn(2, 6, 32)
    query, key, value = (part.view(2, 6, 4, 8).transpose(1, 2) for part in attention.qkv(x).split(32, dim=2))
    scores = (query @ key.transpose(2, 3) / math.sqrt(8)).masked_fill(torch.ones(6, 6).triu(1).bool(), -math.inf)
    mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(2, 6, 32)
    assert torch.allclose(attention(x), attention.out(mixed), atol=1e-6)


def test_it_starts_at_the_loss_of_chance() -> None:
    net, rows = gpt(width=128), torch.randint(0, 65, (32, 17), generator=torch.Generator().manual_seed(2))
    loss = F.cross_entropy(net(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(65), abs=0.1)


def test_what_writes_to_the_residual_stream_starts_smaller_by_the_root_of_twice_the_layers() -> None:
    block = gpt(width=256).blocks[1]
    for weight in (block.attention.qkv.weight, block.expand.weight):
        assert weight.std().item() == pytest.approx((2 / (5 * 256)) ** 0.5, rel=0.02)
    for weight in (block.attention.out.weight, block.contract.weight):
        assert weight.std().item() == pytest.approx((2 / (5 * 256)) ** 0.5 / math.sqrt(6), rel=0.02)


def test_it_runs_in_bfloat16_with_finite_gradients() -> None:
    net = gpt()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = net(tokens()).float().logsumexp(-1).mean()
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())


def test_dropout_acts_in_training_only() -> None:
    net = gpt(dropout=0.5)
    assert not torch.equal(net(tokens()), net(tokens()))
    assert torch.equal(net.eval()(tokens()), net(tokens()))


@pytest.mark.parametrize("wrong", [{"heads": 5}, {"layers": 0}, {"dropout": 1.0}])
def test_a_wrong_number_is_refused_in_one_line(wrong: dict) -> None:
    with pytest.raises(ValueError, match="model.") as error:
        gpt(**wrong)
    assert "\n" not in str(error.value)


def test_more_tokens_than_the_context_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"17 tokens .*context=16") as error:
        gpt()(tokens(length=17))
    assert "\n" not in str(error.value)
