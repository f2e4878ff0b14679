import pytest

from bigchem.model.kernels.bias_gradient import MARGIN
from bigchem.model.kernels.tiles import ARCHITECTURES, KERNELS, all_tiles, padded_head_dim, tile


@pytest.mark.parametrize(("head_dim", "expected"), [(8, 16), (16, 16), (24, 32), (64, 64), (80, 128), (128, 128)])
def test_head_dimensions_are_padded_to_powers_of_two(head_dim: int, expected: int) -> None:
    assert padded_head_dim(head_dim) == expected


@pytest.mark.parametrize("arch", [*ARCHITECTURES, 86, 89, 100, 120])
@pytest.mark.parametrize("head_dim", [16, 64, 128])
@pytest.mark.parametrize("fp32", [False, True])
@pytest.mark.parametrize("max_len", [1, 64, 512, 513, 4096])
def test_every_setting_has_tiles_that_the_kernels_can_use(arch: int, head_dim: int, fp32: bool, max_len: int) -> None:
    tiles = all_tiles(max_len, head_dim, arch, fp32=fp32)
    assert tiles == tuple(tile(kernel, max_len, head_dim, arch, fp32=fp32) for kernel in KERNELS)
    assert tiles.grad_queries.block_m % tiles.grad_queries.block_n == 0
    assert tiles.grad_bias.block_m == tiles.grad_queries.block_m
    assert tiles.grad_bias.block_m % tiles.grad_bias.block_n == 0
    assert tiles.grad_bias.block_n % tiles.grad_queries.block_n == 0
    assert all(t.block_m + t.block_n <= MARGIN for t in tiles), "a far tile would read past the table"
    assert tiles.grad_short.block_m == tiles.grad_short.block_n
