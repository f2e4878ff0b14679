"""`bigchem bench gpu-check`, from a checkout: it needs only torch, triton and transformers."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bigchem.bench.gpu_check.check import main
from bigchem.cli import program

if __name__ == "__main__":
    program.run(program.app_of(main))
