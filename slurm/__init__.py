"""For Slurm: cluster profiles (clusters/), and a Slurm on one machine to try them on (testbed/)."""
