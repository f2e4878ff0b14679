"""The run configuration: every field of a run's TOML, typed and documented.

Imported from outside: this package.
"""

from bigchem.config.conduct import (
    Alone,
    CheckpointConfig,
    EvaluateConfig,
    HealthConfig,
    NotifyConfig,
    SweepPoint,
    ValidationConfig,
)
from bigchem.config.learning import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    SpansConfig,
    TrainConfig,
)
from bigchem.config.run import HEADROOM, RunConfig, steps_for, tokens_of

__all__ = [
    "HEADROOM",
    "Alone",
    "CheckpointConfig",
    "DataConfig",
    "EvaluateConfig",
    "HealthConfig",
    "ModelConfig",
    "NotifyConfig",
    "OptimizerConfig",
    "RunConfig",
    "ScheduleConfig",
    "SpansConfig",
    "SweepPoint",
    "TrainConfig",
    "ValidationConfig",
    "steps_for",
    "tokens_of",
]
