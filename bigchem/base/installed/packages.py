"""How packages are installed into this environment, and whether another project's `bigchem` is in it."""

import os
import shlex
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

DISTRIBUTION, OTHER = "bigchem-t5", "bigchem"
"""This project's name on PyPI, and the name of a quantum-chemistry project whose package has the same import name."""
OTHERS_FILES = ("algos.py", "app.py", "canvas.py")
"""Of that project's package, versions 0.3 to 0.11; this one's has none of these names."""
EXTRAS = {
    "bertscore": ["bert-score>=0.3.13"],
    "cuda": ["triton>=3.6", "flash-attn-4[cu13]>=4.0.0b36"],
    "fcd": ["fcd>=1.2.2"],
    "mlflow": ["mlflow-skinny>=3"],
    "names": ["py2opsin>=1.2"],
    "selfies": ["selfies>=2.1"],
    "serve": ["gradio>=6"],
    "wandb": ["wandb>=0.19"],
}
"""What the optional parts need, as in pyproject.toml: a hint names the packages themselves, since `bigchem-t5[fcd]`
is found only where an index has bigchem-t5."""


def install_extra(extra: str) -> str:
    """The command that installs what an optional part needs: `pip install 'fcd>=1.2.2'`."""
    return install(*EXTRAS[extra])


def install(*words: str) -> str:
    """The command that installs packages into this environment. words: requirements and options.

    Without activation, `pip` is another environment's. Those that uv makes have no pip.
    """
    if find_spec("pip") is None:
        installer = ["uv", "pip", "install", "--python", sys.executable]
    elif sys.prefix in (sys.base_prefix, os.environ.get("VIRTUAL_ENV"), os.environ.get("CONDA_PREFIX")):
        installer = ["pip", "install"]
    else:
        installer = [sys.executable, "-m", "pip", "install"]
    return shlex.join([*installer, *words])


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution, without importing it; None if there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def clash(folder: Path = Path(__file__).parents[2]) -> str | None:
    """What else is installed under this package's name, in one sentence; None if nothing is. folder: the package's."""
    version = version_of(OTHER)
    if version is not None:
        return f"the distribution {OTHER} {version} is installed too: it overwrites files of {DISTRIBUTION}"
    strange = [name for name in OTHERS_FILES if (folder / name).exists()]
    return f"{folder} holds another project's {', '.join(strange)}" if strange else None
