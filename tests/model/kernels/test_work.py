import torch
from hypothesis import given
from hypothesis import strategies as st

from bigchem.model.kernels.tiles import Tile, Tiles
from bigchem.model.kernels.work import plan_work

LENGTHS = st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70)), min_size=1, max_size=12)


def rows(items: torch.Tensor, lengths: list[int], block: int) -> list[tuple[int, int]]:
    """(sequence, row) of all rows that the items cover, in order."""
    covered = []
    for sequence, first in items.tolist():
        if sequence >= 0:
            covered += [(sequence, row) for row in range(first, min(first + block, lengths[sequence]))]
    return covered


@given(lengths=LENGTHS, block=st.sampled_from([16, 32]), short=st.sampled_from([16, 32]), sequences=st.integers(1, 5))
def test_every_row_of_every_sequence_is_worked_on_once(
    lengths: list[tuple[int, int]], block: int, short: int, sequences: int
) -> None:
    queries, keys = map(list, zip(*lengths, strict=True))
    cu_q, cu_k = (torch.tensor([0, *torch.tensor(n).cumsum(0).tolist()], dtype=torch.int32) for n in (queries, keys))
    plain = Tile(block, block, 4, 1)
    work = plan_work(
        cu_q, cu_k, sum(queries), sum(keys), Tiles(plain, plain, plain, Tile(short, short, 4, 1, sequences))
    )
    assert rows(work.forward, queries, block) == [(i, r) for i, n in enumerate(queries) for r in range(n)]
    is_long = [max(pair) > short for pair in lengths]
    assert rows(work.grad_queries, queries, block) == [
        (i, r) for i, n in enumerate(queries) if is_long[i] for r in range(n)
    ]
    assert rows(work.grad_keys, keys, block) == [(i, r) for i, n in enumerate(keys) if is_long[i] for r in range(n)]
    chosen = [i for i in work.grad_short.flatten().tolist() if i >= 0]
    assert chosen == [i for i, long in enumerate(is_long) if not long]
    assert work.grad_short.shape[1] == sequences


def test_lists_are_as_long_as_tokens_and_not_as_the_longest_sequence_times_their_number() -> None:
    lengths = torch.tensor([2048, *[20] * 100])
    cu = torch.cat([torch.zeros(1), lengths.cumsum(0)]).int()
    plain = Tile(64, 64, 4, 1)
    work = plan_work(cu, cu, int(cu[-1]), int(cu[-1]), Tiles(plain, plain, plain, Tile(64, 64, 4, 1, 4)))
    assert len(work.forward) == 2048 // 64 + -(-2000 // 64) + 101
    assert (work.grad_queries[:, 0] >= 0).sum() == 32
