"""Reads the weights to export piece by piece: of one checkpoint, or the mean of several."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from torch import Tensor

from bigchem.base.errors import UserError
from bigchem.train.checkpoint.zero_layout import MASTER, ZeroFiles

PIECE = 1 << 20
"""Elements per read: 4 MiB. Memory use does not depend on the model."""

A = TypeVar("A")
B = TypeVar("B")


class Weights:
    """fp32 values of each parameter: of one checkpoint, or the mean over several. key: see ZeroFiles. UserError if the
    checkpoints do not have the same parameters."""

    def __init__(self, files: Sequence[ZeroFiles], key: str = MASTER) -> None:
        self._files, self._key = files, key
        self.shapes = files[0].shapes
        for other in files[1:]:
            if other.shapes != self.shapes:
                raise UserError("the checkpoints to average are of different models")

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """Elements start .. stop of a parameter, fp32 [stop - start]."""
        out = self._files[0].read(name, self._key, start, stop)
        for other in self._files[1:]:
            out += other.read(name, self._key, start, stop)
        return out if len(self._files) == 1 else out.div_(len(self._files))

    def full(self, name: str) -> Tensor:
        """A parameter, fp32, in its shape."""
        return self.read(name, 0, self.shapes[name].numel()).view(self.shapes[name])

    def pieces(self, names: Iterable[str], workers: int) -> Iterator[Tensor]:
        """The parameters in order, in pieces of at most PIECE elements; `workers` threads read ahead."""
        spans = (
            (name, start, min(start + PIECE, self.shapes[name].numel()))
            for name in names
            for start in range(0, self.shapes[name].numel(), PIECE)
        )
        return read_ahead(lambda span: self.read(*span), spans, workers)


def read_ahead(function: Callable[[A], B], arguments: Iterable[A], workers: int) -> Iterator[B]:
    """A threaded map: results in order, at most `workers` of them computed and not yet taken."""
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for argument in arguments:
                waiting.append(pool.submit(function, argument))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
