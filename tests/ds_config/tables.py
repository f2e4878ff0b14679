"""DeepSpeed files as users have them: which are refused, by which key, and which notes the others get."""

from __future__ import annotations

from typing import Any

BUCKETS = {"reduce_bucket_size": 5e8, "allgather_bucket_size": 5e8, "overlap_comm": True, "contiguous_gradients": True}
SCALING = {"loss_scale": 0, "loss_scale_window": 1000, "initial_scale_power": 16, "hysteresis": 2, "min_loss_scale": 1}
SIZES = dict.fromkeys(
    ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"), "auto"
)
ADAMW = {"type": "AdamW", "params": dict.fromkeys(("lr", "betas", "eps", "weight_decay"), "auto")}
WARMUP = dict.fromkeys(("warmup_min_lr", "warmup_max_lr", "warmup_num_steps"), "auto")


def zero(stage: Any, **more: Any) -> dict[str, Any]:
    """A file with a ZeRO section alone."""
    return {"zero_optimization": {"stage": stage, **more}}


def z2(**top: Any) -> dict[str, Any]:
    """Stage 2, and other sections."""
    return {**zero(2, **BUCKETS), **top}


REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a misspelled section": ({"zero_optimisation": {"stage": 3}}, ("did you mean 'zero_optimization'",)),
    "a misspelled key": (zero(2, overlap_com=True), ("overlap_com", "did you mean 'overlap_comm'")),
    "a key out of its section": ({"stage": 2}, ("stage", "belongs in zero_optimization")),
    "buckets at the top": ({"reduce_bucket_size": 5e8, **zero(2)}, ("belongs in zero_optimization",)),
    "offload at the top": ({"offload_optimizer": {"device": "cpu"}, **zero(2)}, ("belongs in zero_optimization",)),
    "a stage that there is not": (zero(4), ("stage", "from 0 to 3")),
    "a stage in words": (zero("three"), ("stage", "whole number")),
    "a stage in quotes": (zero("2"), ("stage", "without quotes")),
    "a stage that nobody fills in": (zero("auto"), ("stage",)),
    "no stage": (zero(None), ("stage",)),
    "ZeRO as a switch": ({"zero_optimization": True}, ("should be an object", '{"stage": 1}')),
    "ZeRO as a list": ({"zero_optimization": [2]}, ("should be an object",)),
    "an empty bucket": (zero(2, reduce_bucket_size=0), ("reduce_bucket_size", "at least 1")),
    "a fraction of an element": (zero(3, stage3_prefetch_bucket_size=15099494.4), ("write 15099494",)),
    "a negative threshold": (zero(3, stage3_param_persistence_threshold=-1), ("at least 0",)),
    "a size in words": (zero(2, reduce_bucket_size="5e8"), ("without quotes",)),
    "a switch in quotes": (zero(2, overlap_comm="true"), ("true or false, without quotes",)),
    "a number for a switch": (zero(2, contiguous_gradients=1), ("true or false",)),
    "round robin": (zero(2, round_robin_gradients=True), ("round_robin_gradients", "exported or resumed")),
    "elastic checkpoints": (zero(1, elastic_checkpoint=True), ("elastic_checkpoint", "any number of ranks")),
    "universal checkpoints": (z2(checkpoint={"load_universal": True}), ("load_universal",)),
    "checkpoints on each node": (z2(checkpoint={"use_node_local_storage": True}), ("one folder",)),
    "the old curriculum": (z2(curriculum_learning={"enabled": True}), ("curriculum_learning", "has removed")),
    "elasticity": (z2(elasticity={"enabled": True, "max_train_batch_size": 64}), ("elasticity", "has removed")),
    "layer drop": (z2(progressive_layer_drop={"enabled": True, "theta": 0.5}), ("has removed",)),
    "Apex": (z2(amp={"enabled": True, "opt_level": "O1"}), ("amp", "train.precision")),
    "MiCS": (zero(3, mics_shard_size=8), ("mics_shard_size", "has removed")),
    "sparse attention": (z2(sparse_attention={"mode": "fixed", "block": 16}), ("has removed",)),
    "sparse gradients": (z2(sparse_gradients=True), ("has removed",)),
    "compression": (z2(compression_training={"weight_quantization": {"shared_parameters": 1}}), ("has removed",)),
    "offload as it was": (zero(2, cpu_offload=True), ("cpu_offload", '"offload_optimizer": {"device": "cpu"}')),
    "offload as a switch": (zero(2, offload_optimizer=True), ("offload_optimizer", "should be an object")),
    "weights offloaded as it was": (
        zero(3, cpu_offload_param=True),
        ("cpu_offload_param", '"offload_param": {"device": "cpu"} instead, at stage 3'),
    ),
    "weights offloaded as it was, misspelled": (
        zero(3, cpu_offload_params=True),
        (
            "cpu_offload_params: unknown key; 'cpu_offload_param' is refused too",
            '"offload_param": {"device": "cpu"} instead',
        ),
    ),
    "offload as it was, at the top": ({"cpu_offload": True, **zero(2)}, ('"offload_optimizer": {"device": "cpu"}',)),
    "MiCS misspelled": (zero(3, mics_shards_size=8), ("unknown key", "has removed it")),
    "sums in fp32 as it was": (z2(fp32_allreduce=True), ('"communication_data_type": "fp32"',)),
    "a bucket that no machine has": (
        zero(2, reduce_bucket_size=1e30),
        ("1e+30 should be at most 9,223,372,036,854,775,807",),
    ),
    "a norm that is none": (z2(gradient_clipping=1e200), ("should be at most 1e+100",)),
    "offload to nowhere": (zero(2, offload_optimizer={"device": "gpu"}), ('"none" or "cpu" or "nvme"',)),
    "weights offloaded at stage 2": (zero(2, offload_param={"device": "cpu"}), ("offload_param", "needs stage 3")),
    "offload without ZeRO": (zero(0, offload_optimizer={"device": "cpu"}), ("offload_optimizer", "needs stage 1 to 3")),
    "NVMe without a path": (zero(3, offload_optimizer={"device": "nvme"}), ("nvme_path", "missing")),
    "NVMe at stage 2": (zero(2, offload_optimizer={"device": "nvme", "nvme_path": "/x"}), ("needs stage 3",)),
    "a share of the optimizer": (zero(3, offload_optimizer={"device": "cpu", "ratio": 0.3}), ("ratio",)),
    "ZeRO++": (
        zero(3, zero_quantized_weights=True, zero_hpz_partition_size=16, zero_quantized_gradients=True),
        ("16 does not divide the run's 2 processes"),
    ),
    "ZenFlow": (zero(2, zenflow={"topk_ratio": 0.05}), ("zenflow",)),
    "bf16 masters": (z2(bf16={"enabled": True, "bf16_master_weights_and_grads": True}), ("no fp32 weights",)),
    "no check of overflow": (z2(bf16={"enabled": True, "check_grad_overflow": False}), ("not finite",)),
    "fp16 in a bf16 run": (z2(fp16={"enabled": True, **SCALING}), ("fp16.enabled = true", "train.precision")),
    "gradients in fp16": (z2(data_types={"grad_accum_dtype": "fp16"}), ("grad_accum_dtype", "overflows")),
    "fp16 on the way": (z2(communication_data_type="fp16"), ("communication_data_type", "overflows")),
    "pipelines": (z2(pipeline={"stages": 4}), ("pipeline",)),
    "tensor parallelism": (z2(tensor_parallel={"autotp_size": 4}), ("tensor_parallel",)),
    "sequence parallelism": (z2(sequence_parallel_size=2), ("sequence_parallel_size",)),
    "DeepCompile": (z2(compile={"deepcompile": True}), ("train.compile",)),
    "sums of gradients": (z2(gradient_allreduce_op="sum"), ("gradient_allreduce_op",)),
    "scaling before": (z2(prescale_gradients=True), ("prescale_gradients",)),
    "another optimizer": (
        z2(optimizer={"type": "Adam", "params": {"lr": 3e-5, "betas": [0.8, 0.999], "eps": 1e-8}}),
        ("belongs to the run configuration", "optimizer.lr = 3e-05", "optimizer.betas = [0.8, 0.999]"),
    ),
    "an optimizer that bigchem has not": (z2(optimizer={"type": "Lamb", "params": {}}), ('"Lamb"',)),
    "a schedule from a least rate": (
        z2(scheduler={"type": "WarmupCosineLR", "params": {"warmup_min_lr": 1e-6}}),
        ("no counterpart of warmup_min_lr",),
    ),
    "another schedule": (
        z2(scheduler={"type": "WarmupLR", "params": {**WARMUP, "warmup_num_steps": 500}}),
        ("schedule.kind = 'constant'", "schedule.warmup_steps = 500"),
    ),
    "a schedule with one value": (
        z2(scheduler={"type": "WarmupLR", "params": {**WARMUP, "warmup_max_lr": 3e-5}}),
        ("optimizer.lr = 3e-05",),
    ),
    "an unknown schedule of which all is auto": (
        z2(scheduler={"type": "OneCycle", "params": WARMUP}),
        ('no schedule.kind for "OneCycle"',),
    ),
    "Accelerate's file": (
        {"compute_environment": "LOCAL_MACHINE", "distributed_type": "DEEPSPEED", "num_processes": 8},
        ("an Accelerate configuration, not DeepSpeed's", "train.ds_config = 'zero2'"),
    ),
    "Accelerate's file with a stage": (
        {"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 3}},
        ("an Accelerate configuration", "train.ds_config = 'zero3'"),
    ),
    "Accelerate's file that names another": (
        {"distributed_type": "DEEPSPEED", "deepspeed_config": {"deepspeed_config_file": "/a/ds.json"}},
        ("an Accelerate configuration", "train.ds_config = '/a/ds.json'"),
    ),
    "sizes of batches": (
        z2(train_batch_size=64, train_micro_batch_size_per_gpu=8, gradient_clipping=0.5),
        ("train_batch_size", "data.micro_tokens gives 1", "optimizer.grad_clip gives 1.0"),
    ),
    "one key by two names": (zero(3, prefetch_bucket_size=1, stage3_prefetch_bucket_size=2), ("another name",)),
    "all at once": (
        {"zero_optimisation": {}, "amp": {"enabled": True}, "fp16": {"enabled": "yes"}, "autotuning": {"fast": True}},
        ("3 mistakes", "zero_optimisation", "amp", "fp16.enabled", "ignored: autotuning"),
    ),
}

ACCEPTED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a file for the Trainer": (
        {**z2(optimizer=ADAMW, fp16={"enabled": "auto", **SCALING}, bf16={"enabled": "auto"}), **SIZES},
        ("bf16.enabled becomes true (train.precision)", "gradient_clipping becomes 1.0 (optimizer.grad_clip)"),
    ),
    "transformers' example for ZeRO-2": (
        {
            **z2(
                optimizer=ADAMW, scheduler={"type": "WarmupLR", "params": WARMUP}, fp16={"enabled": "auto", **SCALING}
            ),
            **SIZES,
            "steps_per_print": 2000,
        },
        (
            "scheduler becomes the run configuration's [schedule]: schedule.kind = 'cosine', not WarmupLR's 'constant'",
            "optimizer becomes the run configuration's [optimizer], which is the same",
        ),
    ),
    "stage 3 for the Trainer": (
        zero(3, reduce_bucket_size="auto", stage3_prefetch_bucket_size="auto", stage3_max_live_parameters=1e9),
        ("derived from the model's", "reduce_bucket_size = "),
    ),
    "activation checkpointing": (
        z2(activation_checkpointing={"partition_activations": True, "number_checkpoints": 4}),
        ("ignored: activation_checkpointing: use train.checkpoint_activations",),
    ),
    "activation checkpointing that is off": (z2(activation_checkpointing={"partition_activations": False}), ()),
    "autotuning": (z2(autotuning={"enabled": True, "fast": False}), ("ignored: autotuning: use bigchem plan",)),
    "random LTD": (z2(data_efficiency={"enabled": True, "seed": 1}), ("ignored: data_efficiency",)),
    "loggers": (
        z2(tensorboard={"enabled": True}, wandb={"enabled": False}, steps_per_print=10, wall_clock_breakdown=False),
        ("ignored: tensorboard", "ignored: steps_per_print"),
    ),
    "the profiler": (z2(flops_profiler={"enabled": True, "profile_step": 1}), ("use train.profile",)),
    "sizes as floats": (zero(2, reduce_bucket_size=2e8), ()),
    "explicitly no offload": (zero(3, offload_optimizer=None, offload_param={"device": "none"}), ()),
    "keys of another stage": (
        zero(2, stage3_prefetch_bucket_size=1000, sub_group_size=1e9),
        ("without effect at ZeRO-2: zero_optimization.stage3_prefetch_bucket_size",),
    ),
    "hpZ": (zero(3, zero_hpz_partition_size=2), ()),
    "switches that are off": (
        z2(round_robin_gradients=False) | zero(2, round_robin_gradients=False, elastic_checkpoint=False),
        (),
    ),
    "remarks": (z2(_comment="from the wiki", **{"//": "ours"}), ()),
    "bf16 by its old name": (z2(bfloat16={"enabled": True}), ()),
    "fewer waits": (z2(timers={"throughput": {"enabled": False}}), ()),
    "the run's own values": (
        z2(
            gradient_clipping=1.0,
            optimizer={"type": "AdamW", "params": {"lr": 6e-4, "torch_adam": True, "adam_w_mode": True}},
            scheduler={"type": "WarmupCosineLR", "params": {"warmup_num_steps": 100, "warmup_min_lr": 0}},
        ),
        ("optimizer becomes the run configuration's [optimizer]",),
    ),
}
ACCEPTED["switches that are off"][0].pop("round_robin_gradients")
