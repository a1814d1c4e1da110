"""Attention, causality and positional codes."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from xr_spde.errors import ParameterError  # noqa: E402
from xr_spde.nets.positions import Positions, rotate, sinusoids  # noqa: E402
from xr_spde.nets.transformer import Attention, Block, PatchTransformer, Transformer  # noqa: E402

POSITIONS = ("none", "sinusoidal", "learned", "rope")
SMALL = {"dim": 32, "depth": 3, "heads": 4}


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_causal_stack_knows_nothing_of_later_tokens(white, positions):
    # specification A10
    fields = white(1, 2, 12, 16)
    changed = fields.clone()
    changed[..., -4:, -4:] += 1.0
    for causal in (True, False):
        torch.manual_seed(1)
        shape = Transformer(**SMALL, positions=positions, rope="raster", causal=causal)
        stack = PatchTransformer(2, 3, 4, shape).eval()
        with torch.no_grad():
            difference = (stack(changed) - stack(fields)).abs().amax(dim=(0, 1))
        assert difference[-4:, -4:].min() > 0
        difference[-4:, -4:] = 0
        assert (difference.max() == 0) if causal else (difference.max() > 1e-4)


def test_attention_is_the_softmax_of_scaled_products(white):
    attention, tokens = Attention(Transformer(**SMALL, dropout=0.0)), white(2, 5, 32)
    q, k, v = (
        part(tokens).view(2, 5, 4, 8).transpose(1, 2)
        for part in (attention.query, attention.key, attention.value)
    )
    heads = torch.softmax(q @ k.mT / math.sqrt(8), -1) @ v
    expected = attention.out(heads.transpose(1, 2).reshape(2, 5, 32))
    torch.testing.assert_close(attention(tokens, None), expected)
    assert all(part.bias is None for part in (attention.query, attention.key, attention.out))


def test_dropout_works_in_training_only(white):
    block, tokens = Block(Transformer(**SMALL)), white(1, 6, 32)
    assert not torch.equal(block(tokens, None), block(tokens, None))
    block.eval()
    assert torch.equal(block(tokens, None), block(tokens, None))
    # normalised after the last residual sum
    out = block(tokens, None)
    torch.testing.assert_close(out.mean(-1), torch.zeros(1, 6), rtol=0, atol=1e-6)


def scores(rope, rows, columns, head_dim=16):
    generator = torch.Generator().manual_seed(5)
    query, key = torch.randn(2, head_dim, generator=generator, dtype=torch.float64)
    turns = Positions("rope", rope, 64, head_dim).turns(rows, columns, torch.device("cpu"))
    count = rows * columns
    return rotate(query.expand(count, -1), turns) @ rotate(key.expand(count, -1), turns).T


def test_rotary_scores_depend_on_differences_of_rows_and_columns():
    table = scores("2d", 5, 7).view(5, 7, 5, 7)
    for j in range(4):
        for i in range(6):
            torch.testing.assert_close(
                table[j + 1 :, i + 1 :, j + 1, i + 1],
                table[: 4 - j, : 6 - i, 0, 0],
                rtol=0,
                atol=1e-5,
            )
    assert (table[0, 1, 0, 0] - table[1, 0, 0, 0]).abs() > 1e-3


def test_rotary_scores_in_raster_order_depend_on_the_index_difference():
    table = scores("raster", 5, 7)
    for shift in range(-34, 35):
        diagonal = table.diagonal(shift)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-4)
    assert table[0, 1:].std() > 1e-2


def test_rotation_starts_at_none_and_keeps_lengths(white):
    turns = Positions("rope", "2d", 64, 16).turns(3, 4, torch.device("cpu"))
    heads = white(2, 12, 16)
    turned = rotate(heads, turns)
    torch.testing.assert_close(turned[:, 0], heads[:, 0])
    torch.testing.assert_close(turned.norm(dim=-1), heads.norm(dim=-1))
    assert rotate(heads.bfloat16(), turns).dtype == torch.bfloat16
    # base 10000: the slowest pair of an axis of 8 entries turns by 10000^(-6/8) a cell
    torch.testing.assert_close(turns[1, 4:], torch.tensor([1.0, 1e-1, 1e-2, 1e-3]))
    torch.testing.assert_close(turns[4, :4], torch.tensor([1.0, 1e-1, 1e-2, 1e-3]))


def test_sinusoids_are_symmetric_in_row_and_column():
    table = sinusoids(3, 4, torch.device("cpu"))
    expected = [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    torch.testing.assert_close(table[2], torch.tensor(expected))
    codes = Positions("sinusoidal", "2d", 4, 4).add(torch.zeros(1, 3, 3, 4))
    torch.testing.assert_close(codes[0], codes[0].transpose(0, 1))


def test_learned_positions_end_at_64_tokens(tiny, white):
    network = tiny("vit", positions="learned", depth=1)
    with torch.no_grad():
        assert network(white(1, 4, 8, 256)).shape == (1, 3, 8, 256)
        with pytest.raises(ParameterError, match=r"2 x 65 tokens.*at most 64"):
            network(white(1, 4, 8, 257))


def test_positions_tell_tokens_apart(tiny):
    # a constant field: without codes every patch is alike
    fields = torch.ones(1, 4, 8, 12)
    for positions in POSITIONS:
        with torch.no_grad():
            maps = tiny("vit", positions=positions)(fields)
        alike = torch.allclose(maps[..., :4, :4], maps[..., 4:, 8:], atol=1e-6)
        # turning queries and keys cannot tell equal values apart
        assert alike == (positions in ("none", "rope"))


def test_lower_precision_runs(tiny, white):
    for architecture in ("vit", "stun"):
        with torch.no_grad():
            maps = tiny(architecture).bfloat16()(white(1, 4, 16, 16).bfloat16())
        assert maps.dtype == torch.bfloat16
