"""A stage that needs no torch: by its name it ends well, hangs, crashes, fails, or has a child that hangs."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

name, out, seconds, *_ = sys.argv[1:]
print(f"{name} has {float(seconds):.0f} s")
Path(out).write_text(json.dumps({"machine": {}, "rows": [{"stage": name}], "figures": [], "skipped": []}))
if name == "kernels":
    code = "import os, time; print('child', os.getpid()); time.sleep(600)"
    subprocess.run([sys.executable, "-c", code], check=True, process_group=0)  # as ninja starts compilers
if name == "profile":
    os.abort()
if name == "steps":
    sys.exit("error: no CUDA device here")
if name == "attention":
    time.sleep(600)
