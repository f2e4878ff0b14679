"""The counter of crossings can count. What is not listed here may go unseen, as does `torch.tensor(x, device=...)`."""

from contextlib import suppress

import pytest
import torch
from crossings import META, Crossings


@pytest.mark.parametrize(
    ("copies", "reads", "call"),
    [
        (1, 0, lambda x: torch.zeros(3).to(META)),
        (1, 0, lambda x: x.copy_(torch.zeros(3))),
        (0, 0, lambda x: x * torch.tensor(2.0)),
        (0, 0, lambda x: torch.zeros(3).clone()),
        (0, 1, lambda x: x[0].item()),
        (0, 1, lambda x: x[x > 0]),
        (0, 1, lambda x: (x > 0).nonzero()),
        (0, 1, lambda x: x.masked_select(x > 0)),
        (0, 1, lambda x: x.repeat_interleave(torch.zeros(3, dtype=torch.int64, device=META))),
        (0, 1, lambda x: x.index_put_((x > 0,), x.new_zeros(()))),
        (0, 0, lambda x: x[torch.zeros(2, dtype=torch.int64, device=META)]),
        (0, 0, lambda x: x.where(x > 0, 0)),
    ],
)
def test_copies_and_reads_are_seen(copies: int, reads: int, call) -> None:
    x = torch.zeros(3, device=META)
    with Crossings() as found, suppress(RuntimeError):  # the meta device has no values to read
        call(x)
    assert (len(found.copies), len(found.reads)) == (copies, reads)
