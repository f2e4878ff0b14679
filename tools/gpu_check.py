"""`bigchem bench gpu-check`, from a checkout: it needs only torch, triton and transformers."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bigchem.bench.gpu_check import plain
from bigchem.bench.gpu_check.check import main

if __name__ == "__main__":
    plain.run(main, sys.argv[1:])
