"""Every key of DeepSpeed 0.19's `zero_optimization`, and what bigchem does with it. Pure.

A test compares the table with DeepSpeed's classes; another trains, exports and resumes with each key that is used.
"""

from __future__ import annotations

from bigchem.base.json_kinds import MAX_INTEGER, anything, boolean, number, one_of, text, whole
from bigchem.ds_config.key import FLAT, REMOVED, SHARDED, WHOLE, block, ignored, refused, used

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
    "zero_quantized_weights": refused(QUANTIZED, boolean, False),
    "zero_quantized_nontrainable_weights": refused("all weights are trained", boolean, False),
    "zero_quantized_gradients": refused("untested: rounded gradients", boolean, False),
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

ZERO_ALIASES = {
    name.removeprefix("stage3_"): name
    for name in ZERO
    if name.startswith("stage3_") and name != "stage3_gather_fp16_weights_on_model_save"
}
"""DeepSpeed accepts both names."""
