"""IUPAC names compared as molecules: OPSIN (Lowe et al. 2011) reads them, from the optional package py2opsin."""

import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bigchem.base.installed.packages import install_extra
from bigchem.chemistry import same_molecule, try_parse

Floats = NDArray[np.float64]

COLUMNS = ("valid", "same")
"""Columns of compare: whether OPSIN reads the prediction, and as the reference's molecule."""


class NoReaderError(Exception):
    """OPSIN does not run; the message is the reason or the remedy."""


def compare(references: Sequence[str], predictions: Sequence[str]) -> Floats:
    """[pairs, COLUMNS]; `same` is NaN where OPSIN does not read the reference. NoReaderError without OPSIN."""
    read = smiles_of([*references, *predictions])
    rows = []
    for reference, prediction in zip(references, predictions, strict=True):
        wanted, made = (try_parse(read[name]) for name in (reference, prediction))
        same = wanted is not None and made is not None and same_molecule(wanted, made).same
        rows.append((made is not None, np.nan if wanted is None else same))
    return np.array(rows, dtype=np.float64).reshape(-1, len(COLUMNS))


def smiles_of(names: Sequence[str]) -> dict[str, str]:
    """SMILES by name, empty where OPSIN reads none. NoReaderError without OPSIN.

    The package's jar is run directly: its own function puts names into a file in the current folder.
    """
    java, jar = shutil.which("java"), _jar()
    if java is None or jar is None:
        raise NoReaderError(f"needs Java and the optional package py2opsin: {install_extra('names')}")
    asked = list(dict.fromkeys(names))
    lines = "".join(f"{' '.join(name.split())}\n" for name in asked)
    command = [java, "-Dfile.encoding=UTF-8", "-jar", str(jar), "-osmi"]
    done = subprocess.run(command, input=lines.encode(errors="replace"), capture_output=True, check=False)
    found = done.stdout.decode(errors="replace").splitlines()
    if done.returncode or len(found) != len(asked):
        raise NoReaderError(f"OPSIN answered {len(found)} of {len(asked)} names: {done.stderr.decode()[-300:]}")
    return dict(zip(asked, found, strict=True))


def _jar() -> Path | None:
    """OPSIN's jar in the package, without importing it: that starts Java."""
    spec = find_spec("py2opsin")
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((jar for folder in folders for jar in sorted(Path(folder).glob("opsin-cli-*.jar"))), None)
