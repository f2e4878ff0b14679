"""Every key of DeepSpeed 0.19, and what bigchem does with it. Pure.

A test compares the table with DeepSpeed's classes; another trains, exports and resumes with each key that is used.
"""

from collections.abc import Mapping

from bigchem.base.json_kinds import MAX_INTEGER, anything, boolean, number, one_of, text, whole
from bigchem.ds_config.key import FLAT, REMOVED, SHARDED, WHOLE, Key, block, ignored, refused, used

EXPORTS = "bigchem export always writes the weights"
LAYOUT = "bigchem's checkpoints could not be exported or resumed with it"
QUANTIZED = "the model would compute with other weights than it saves"

_OFFLOAD = {
    "device": used(one_of("none", "cpu", "nvme"), "none", auto=False),
    "nvme_path": used(text, None),
    "pin_memory": used(boolean, True),
}

OFFLOAD_PARAM = {
    **_OFFLOAD,
    "buffer_count": used(whole(1), 5),
    "buffer_size": used(whole(1), 100_000_000),
    "max_in_cpu": used(whole(0), 1_000_000_000),
}

OFFLOAD_OPTIMIZER = {
    **_OFFLOAD,
    "buffer_count": used(whole(1), 4),
    "pipeline_read": used(boolean, False),
    "pipeline_write": used(boolean, False),
    "fast_init": used(boolean, False),
    "ratio": refused("splitting the optimizer between GPU and CPU needs DeepSpeed's optimizers", number(0, 1), 1.0),
    "super_offload": refused("it brings its own optimizer", boolean, False),
    "cpuadam_cores_perc": ignored("only for super_offload", number(0, 1), 0.8),
}

ZERO = {
    "stage": used(whole(0, 3), 0, auto=False),
    "contiguous_gradients": used(boolean, True, SHARDED),
    "reduce_scatter": used(boolean, True, SHARDED),
    "reduce_bucket_size": used(whole(1), 500_000_000, SHARDED),
    "use_multi_rank_bucket_allreduce": used(boolean, True, FLAT),
    "allgather_partitions": used(boolean, True, FLAT),
    "allgather_bucket_size": used(whole(1), 500_000_000, FLAT),
    "overlap_comm": used(boolean, None, SHARDED),
    "compute_grad_norm": refused("bigchem logs the norm and skips steps by it", boolean, True),
    "load_from_fp32_weights": refused("resuming would round the weights", boolean, True),
    "elastic_checkpoint": refused(f"{LAYOUT}; bigchem resumes on any number of ranks without it", boolean, False),
    "offload_param": block(OFFLOAD_PARAM),
    "offload_optimizer": block(OFFLOAD_OPTIMIZER),
    "zenflow": refused("it brings its own optimizer"),
    "sub_group_size": used(whole(1), 1_000_000_000, WHOLE),
    "cpu_offload": refused('write "offload_optimizer": {"device": "cpu"} instead', boolean, False),
    "cpu_offload_param": refused('write "offload_param": {"device": "cpu"} instead, at stage 3', boolean, False),
    "cpu_offload_use_pin_memory": refused("write pin_memory in offload_optimizer or offload_param", boolean, False),
    "stage3_prefetch_bucket_size": used(whole(0), 50_000_000, WHOLE),
    "stage3_param_persistence_threshold": used(whole(0), 100_000, WHOLE),
    "stage3_model_persistence_threshold": used(whole(0), MAX_INTEGER, WHOLE),
    "stage3_max_live_parameters": used(whole(0), 1_000_000_000, WHOLE),
    "stage3_max_reuse_distance": used(whole(0), 1_000_000_000, WHOLE),
    "stage3_gather_16bit_weights_on_model_save": ignored(EXPORTS, boolean, False),
    "stage3_gather_fp16_weights_on_model_save": ignored(EXPORTS, boolean, False),
    "stage3_module_granularity_threshold": used(whole(0), 0, WHOLE),
    "stage3_use_all_reduce_for_fetch_params": used(boolean, False, WHOLE),
    "stage3_allgather_sequential": used(boolean, False, WHOLE),
    "ignore_unused_parameters": used(boolean, True, FLAT),
    "legacy_stage1": refused(REMOVED, boolean, False),
    "round_robin_gradients": refused(f"it assigns parameters to ranks in another order: {LAYOUT}", boolean, False),
    "parameter_alignment": refused("untested: its padding in checkpoints", boolean, False),
    "zero_hpz_partition_size": used(whole(1), 1, WHOLE),
    "zero_quantized_weights": used(boolean, False, WHOLE, auto=False),
    "zero_quantized_nontrainable_weights": refused("all weights are trained", boolean, False),
    "zero_quantized_gradients": used(boolean, False, WHOLE, auto=False),
    "memory_efficient_linear": used(boolean, True, WHOLE),
    "pipeline_loading_checkpoint": ignored("bigchem loads checkpoints itself", boolean, False),
    "override_module_apply": ignored("only for zero.Init", boolean, True),
    "log_trace_cache_warnings": used(boolean, False, WHOLE),
    "enable_sanity_checks": used(boolean, False, WHOLE),
    "save_muon_momentum_buffer_in_memory": ignored("only for the Muon optimizer", boolean, False),
    "leaf_module": refused("T5 has no such modules"),
    "mics_shard_size": refused(REMOVED, anything, -1),
    "mics_hierarchical_params_gather": refused(REMOVED, boolean, False),
    "zeropp_loco_param": refused(REMOVED),
}

NEEDS_CUDA = {
    "zero_quantized_weights": "weights are sent with 8 bits: the model computes with others than it saves",
    "zero_quantized_gradients": "gradients are sent with 4 bits",
}
"""Keys of ZeRO++ whose kernels exist for CUDA only, so that bigchem has never run them: what they change."""

ZERO_ALIASES = {
    name.removeprefix("stage3_"): name
    for name in ZERO
    if name.startswith("stage3_") and name != "stage3_gather_fp16_weights_on_model_save"
}
"""DeepSpeed accepts both names."""


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
