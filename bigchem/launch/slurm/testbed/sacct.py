"""A stand-in for sacct, which needs a database: it answers submitit's one call from the controller.

It is on the PATH of `bigchem testbed run` only. The controller forgets jobs after an hour (MinJobAge).
"""

import subprocess
import sys
from collections.abc import Sequence

FIELDS = "JobID,State,NodeList"
TIMEOUT_S = 10


def main(arguments: Sequence[str]) -> int:
    """`sacct -o JobID,State,NodeList --parsable2 -j ID [-j ID ...]`; its exit code."""
    if list(arguments[:3]) != ["-o", FIELDS, "--parsable2"] or not set(arguments[3::2]) <= {"-j"}:
        print(f"the testbed's sacct only knows: sacct -o {FIELDS} --parsable2 -j ID", file=sys.stderr)
        return 2
    jobs = ",".join(arguments[4::2])
    print(FIELDS.replace(",", "|"))
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%N", "--jobs", jobs]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    print(result.stdout, end="")
    return 0  # like sacct for unknown jobs


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
