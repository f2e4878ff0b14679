"""Every key of DeepSpeed 0.19 outside `zero_optimization`, and what bigchem does with it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from bigchem.base.json_kinds import boolean, number, one_of, whole
from bigchem.ds_config.key import REMOVED, SHARDED, Key, block, ignored, refused, used
from bigchem.ds_config.zero_keys import QUANTIZED, ZERO, ZERO_ALIASES

MASTERS = "checkpoints would have no fp32 weights"

BF16 = {
    "enabled": used(boolean, False),
    "immediate_grad_update": used(boolean, False),
    "check_grad_overflow": refused("gradients that are not finite would reach the weights", boolean, True),
    "bf16_master_weights_and_grads": refused(MASTERS, boolean, False),
    "bf16_optimizer_states": refused(MASTERS, boolean, False),
}

FP16 = {
    "enabled": used(boolean, False),
    "auto_cast": ignored("the model casts itself", boolean, False),
    "loss_scale": used(number(0), 0),
    "initial_scale_power": used(whole(0, 127), 16),
    "loss_scale_window": used(whole(1), 1000),
    "hysteresis": used(whole(1), 2),
    "consecutive_hysteresis": used(boolean, False),
    "min_loss_scale": used(number(0), 1),
    "fp16_master_weights_and_grads": refused(MASTERS, boolean, False),
}

_TYPES = one_of("fp32", "bf16", "fp16")
CASTS = "train.precision sets the compute type"

DATA_TYPES = {
    "grad_accum_dtype": used(_TYPES, None, SHARDED),
    "param_dtype": refused(CASTS),
    "buffer_dtype": refused(CASTS),
    "keep_in_fp32_modules": refused(CASTS),
}

AIO = {
    "block_size": used(whole(1), 1 << 20),
    "queue_depth": used(whole(1), 8),
    "intra_op_parallelism": used(whole(1), 1),
    "thread_count": ignored("now called intra_op_parallelism", whole(1), 1),
    "single_submit": used(boolean, False),
    "overlap_events": used(boolean, True),
    "use_gds": used(boolean, False),
}

TIMERS = {"throughput": block({"enabled": used(boolean, True), "synchronized": used(boolean, True)})}

CHECKPOINTS = "bigchem writes checkpoints itself: [checkpoint]"

CHECKPOINT = {
    "load_universal": refused("bigchem resumes on any number of ranks without it", boolean, False),
    "use_node_local_storage": refused("all ranks must see one folder of checkpoints", boolean, False),
    "tag_validation": ignored(CHECKPOINTS),
    "checkpoint_serialization": ignored(CHECKPOINTS),
    "writer": ignored(CHECKPOINTS),
    "parallel_write": ignored(CHECKPOINTS),
    "async_io": ignored(CHECKPOINTS),
}

OWNED = "belongs to the run configuration"
LOGS = "bigchem logs itself: train.log_every"
PROFILES = "use train.profile"
ONE_DIMENSION = "bigchem has data parallelism only"

TOP: Mapping[str, Key] = {
    "zero_optimization": block(ZERO),
    "bf16": block(BF16),
    "fp16": block(FP16),
    "data_types": block(DATA_TYPES),
    "aio": block(AIO),
    "timers": block(TIMERS),
    "checkpoint": block(CHECKPOINT),
    "train_batch_size": refused(f"{OWNED}: data.global_tokens"),
    "train_micro_batch_size_per_gpu": used(whole(1), None),
    "gradient_accumulation_steps": used(whole(1), None),
    "gradient_clipping": used(number(0), 0.0),
    "optimizer": refused(f"{OWNED}: [optimizer]"),
    "scheduler": refused(f"{OWNED}: [schedule]"),
    "communication_data_type": used(_TYPES, None),
    "zero_allow_untested_optimizer": ignored("bigchem sets it", boolean, True),
    "zero_force_ds_cpu_optimizer": ignored("bigchem chooses the optimizer", boolean, True),
    "activation_checkpointing": ignored("use train.checkpoint_activations"),
    "autotuning": ignored("use bigchem plan"),
    "data_efficiency": ignored("bigchem orders the data itself: [data]"),
    "steps_per_print": ignored(LOGS, number(0)),
    "wall_clock_breakdown": ignored(PROFILES, boolean, False),
    "memory_breakdown": ignored(PROFILES, boolean, False),
    "flops_profiler": ignored(PROFILES),
    "comms_logger": ignored(PROFILES),
    "dump_state": ignored(LOGS, boolean, False),
    "log_level": ignored(LOGS),
    "tensorboard": ignored("bigchem writes the run folder's tensorboard/"),
    "wandb": ignored("use train.wandb"),
    "csv_monitor": ignored("bigchem writes metrics.jsonl"),
    "comet": ignored("bigchem writes metrics.jsonl"),
    "dataloader_drop_last": ignored("bigchem has its own loader", boolean, False),
    "vocabulary_size": ignored("the model knows it"),
    "disable_python_gc": ignored("bigchem leaves Python's collector on", boolean, False),
    "disable_allgather": ignored("DeepSpeed never reads it", boolean, False),
    "disable_trace_cache": ignored("DeepSpeed never reads it"),
    "seq_parallel_communication_data_type": ignored(ONE_DIMENSION),
    "use_data_before_expert_parallelism": ignored(ONE_DIMENSION, boolean, False),
    "managed_gradient_accumulation": refused("bigchem leaves the steps to DeepSpeed", boolean, True),
    "prescale_gradients": refused("bigchem scales the loss itself", boolean, False),
    "gradient_predivide_factor": refused("bigchem scales the loss itself", number(0), 1.0),
    "gradient_allreduce_op": refused("bigchem's loss needs the mean", one_of("mean", "sum"), "mean"),
    "compile": refused("use train.compile"),
    "torch_autocast": refused(f"{CASTS}: fp32, bf16"),
    "tensor_parallel": refused(ONE_DIMENSION),
    "expert_parallel": refused(ONE_DIMENSION),
    "sequence_parallel_size": refused(ONE_DIMENSION, whole(1), 1),
    "pipeline": refused(ONE_DIMENSION),
    "hybrid_engine": refused("bigchem evaluates with transformers"),
    "weight_quantization": refused(QUANTIZED),
    "datastates_ckpt": refused(CHECKPOINTS),
    "zenflow": refused("it brings its own optimizer"),
    "allgather_size": refused("write zero_optimization.allgather_bucket_size instead"),
    "fp32_allreduce": refused('write "communication_data_type": "fp32" instead', boolean, False),
    "curriculum_learning": refused(REMOVED),
    "progressive_layer_drop": refused(REMOVED),
    "elasticity": refused(f"{REMOVED}; bigchem resumes on any number of ranks without it"),
    "amp": refused(f"{REMOVED}, and set train.precision"),
    "sparse_gradients": refused(REMOVED, boolean, False),
    "sparse_attention": refused(REMOVED),
    "compression_training": refused(REMOVED),
    "quantize_training": refused(REMOVED),
    "eigenvalue": refused(REMOVED),
    "nebula": refused(REMOVED),
    "graph_harvesting": refused(REMOVED, boolean, False),
}

ALIASES = {"": {"bfloat16": "bf16"}, "zero_optimization.": ZERO_ALIASES}
"""Other names that DeepSpeed accepts, by section."""
REMARKS = ("_", "//", "#")
"""Keys that begin with these are comments, which DeepSpeed never reads."""
