"""Draws untrusted molecules and reactions in a separate process.

A molecule that takes too long or crashes the process loses its drawing, nothing else. RDKit holds the GIL while it
works, so a thread would not do.
"""

import multiprocessing
import re
import resource
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

MOST_ATOMS = 300
"""Heavy atoms: a drawing of this size shows nothing beyond."""
MOST_CHARACTERS = 2000
"""Characters of a SMILES."""
EACH_S, ALL_S = 3.0, 8.0
"""Time limits of one drawing, and of all drawings of a request."""
START_S = 60.0
"""Time limit of the process's start: it imports RDKit."""
MOST_MEMORY = 4 << 30
SIZE = (260, 180)
"""Pixels of a molecule. A reaction is as high, and as wide as its molecules and an arrow, up to WIDEST."""
WIDEST = 900
_ARROW = re.compile("(?<!-)>")
"""Separates the sides of a reaction; `->` is a dative bond."""

UNREAD = "RDKit cannot parse this SMILES."
LARGE = f"More than {MOST_ATOMS} atoms or {MOST_CHARACTERS:,} characters of SMILES."
LATE = "Drawing this takes too long."


class Drawing(NamedTuple):
    """An SVG; or an empty string and the reason."""

    svg: str
    why: str = ""


def drawn(smiles: str) -> Drawing:
    """Draws a reaction (`reactants>agents>products`), or one molecule or several separated by `.` or `~`, in this
    process. Text after a blank is not SMILES."""
    if len(smiles) > MOST_CHARACTERS:
        return Drawing("", LARGE)
    sides = _ARROW.split(smiles)
    if len(sides) == 3:
        return _reaction(*([compound for compound in side.split(".") if compound] for side in sides))
    (molecule,) = _parsed([smiles])
    if molecule is None:
        return Drawing("", UNREAD)
    if molecule.GetNumAtoms() > MOST_ATOMS:
        return Drawing("", LARGE)
    return _svg(SIZE, lambda draw, drawer: draw.PrepareAndDrawMolecule(drawer, molecule))


def _reaction(reactants: list[str], agents: list[str], products: list[str]) -> Drawing:
    from rdkit.Chem.rdChemReactions import ChemicalReaction

    sides = [_parsed(side) for side in (reactants, agents, products)]
    molecules = [molecule for side in sides for molecule in side]
    if not (sides[0] and sides[2]) or None in molecules:
        return Drawing("", UNREAD)
    if sum(molecule.GetNumAtoms() for molecule in molecules) > MOST_ATOMS:
        return Drawing("", LARGE)
    reaction = ChemicalReaction()
    adds = (reaction.AddReactantTemplate, reaction.AddAgentTemplate, reaction.AddProductTemplate)
    for add, side in zip(adds, sides, strict=True):
        for molecule in side:
            add(molecule)
    width = min(SIZE[0] * (len(sides[0]) + len(sides[2]) + 1), WIDEST)
    return _svg((width, SIZE[1]), lambda draw, drawer: drawer.DrawReaction(reaction))


def _parsed(compounds: Sequence[str]) -> list[Any]:
    """RDKit's molecules; None for what it cannot read."""
    from bigchem.chemistry import dotted, try_parse

    return [try_parse(dotted(compound)) for compound in compounds]


def _svg(size: tuple[int, int], draw: Callable[[Any, Any], object]) -> Drawing:
    from rdkit.Chem.Draw import rdMolDraw2D

    drawer = rdMolDraw2D.MolDraw2DSVG(*size)
    draw(rdMolDraw2D, drawer)
    drawer.FinishDrawing()
    svg: str = drawer.GetDrawingText()
    return Drawing(svg[svg.index("<svg") :])


class Artist:
    """Draws in a separate process, started on demand. Thread-safe: callers take turns."""

    def __init__(self, each_s: float = EACH_S, all_s: float = ALL_S) -> None:
        self._each_s, self._all_s = each_s, all_s
        self._lock = threading.Lock()
        self._process: Any = None
        self._to: Connection | None = None

    def draw(self, texts: Sequence[str]) -> list[Drawing]:
        """A drawing of each text, in order."""
        with self._lock:
            self._ready()  # before the clock runs: on a busy machine the first start takes longer than all drawings may
            deadline, made = time.monotonic() + self._all_s, []
            for text in texts:
                if len(text) > MOST_CHARACTERS:
                    made.append(Drawing("", LARGE))
                elif (to := self._ready()) is None or (left := deadline - time.monotonic()) <= 0:
                    made.append(Drawing("", LATE))
                else:
                    made.append(self._one(to, text, min(left, self._each_s)))
            return made

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            self._end()

    def _ready(self) -> Connection | None:
        """The pipe to the process; None if it does not start."""
        if self._process is not None and self._process.is_alive():
            return self._to
        self._end()
        context = multiprocessing.get_context("spawn")
        self._to, remote = context.Pipe()
        self._process = context.Process(target=_draw_for, args=(remote,), name="bigchem-drawing", daemon=True)
        self._process.start()
        remote.close()
        if self._answer(self._to, START_S) is None:
            self._end()
        return self._to

    def _one(self, to: Connection, text: str, within_s: float) -> Drawing:
        answer = None
        with suppress(OSError):
            to.send(text)
            answer = self._answer(to, within_s)
        if answer is None:
            self._end()
        return answer or Drawing("", LATE)

    @staticmethod
    def _answer(to: Connection, within_s: float) -> Drawing | None:
        with suppress(EOFError, OSError):
            if to.poll(within_s):
                return Drawing(*to.recv())
        return None

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._to is not None:
            self._to.close()
        self._process = self._to = None


def _draw_for(client: Connection) -> None:
    """The process: answers requests until the pipe is closed."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    drawn("C")
    client.send(Drawing(""))
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            text = client.recv()
            try:
                made = drawn(text)
            except Exception:  # RDKit raises several kinds of error
                made = Drawing("", UNREAD)
            client.send(tuple(made))
