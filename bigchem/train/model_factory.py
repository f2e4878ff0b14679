"""A run's model, built with fresh or published weights, and its record in the run folder."""

import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import groups
from torch import Tensor, nn

from bigchem.base import atomic, environment
from bigchem.config import RunConfig
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.ds_config import completed, ds_config_for, refuse_on_cpu, zero_stage
from bigchem.model import attention, flops, presets
from bigchem.model.functional import Objective
from bigchem.model.t5 import PackedT5
from bigchem.model.weights import hf_config, hub
from bigchem.model.weights.pretrained import fill, read_weights
from bigchem.train.collectives import on_rank0, say
from bigchem.train.compiling import compiles
from bigchem.train.initial import check_rows, check_vocabulary


def with_local_weights(config: RunConfig) -> RunConfig:
    """The configuration with `model.init_from` as a folder. Rank 0 downloads a hub name first, then the other ranks."""
    name = config.model.init_from
    if name is None:
        return config
    folder = on_rank0(lambda: hub.fetched(name))
    if not folder.is_dir():  # this node has its own cache
        folder = hub.fetched(name)
    return config.model_copy(update={"model": config.model.model_copy(update={"init_from": str(folder)})})


def build(config: RunConfig, data: Data, device: torch.device) -> PackedT5:
    """The model with fresh weights, the same on every rank, or those of `model.init_from`. At ZeRO-3 its parameters are
    partitioned already."""
    torch.manual_seed(config.seed)
    environment.use_tf32(device, config.train.tf32)
    vocab_size = Tokenizer.load(data.tokenizer_dir).vocab_size
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.train.precision]
    init_from = config.model.init_from
    shape = (
        presets.shape(config.model.preset, vocab_size) if init_from is None else hf_config.read_shape(Path(init_from))
    )
    setting = attention.Setting(device, dtype, shape.d_kv, config.model.dropout)
    backends = attention.choose_backends(config.model.attention, setting)
    say(attention.describe(backends, setting))
    dropout, checkpointed = config.model.dropout, config.train.checkpoint_activations
    make = partial(PackedT5, shape, dropout, backends, checkpoint_activations=checkpointed)
    partitioning = partitioning_of(config, device)
    if init_from is None:
        with partitioning or nullcontext():
            model = make()
    else:
        folder = Path(init_from)
        check_vocabulary(folder, data)
        check_rows(shape, vocab_size, init_from)
        with torch.device("meta"):
            model = make()
        (partitioning.fill if partitioning else fill)(model, folder)
    compiled, why = compiles(config, device.type, zero_stage(ds_config_for(config, dist.get_world_size())))
    say(why)
    if compiled:
        model.compile_blocks()
    model.objective = Objective(config.train.z_loss, config.train.label_smoothing)
    return model


class Partitioning(deepspeed.zero.Init):  # type: ignore[misc]
    """deepspeed.zero.Init, a context in which each parameter is partitioned once its module is made. A whole build's
    weights, bit for bit: drawn on the host in fp32, and then rounded as deepspeed.initialize rounds a whole model's.

    zero.Init alone would draw on the device and in the run's precision: other numbers. ds_config: a completed table.
    """

    def __init__(self, ds_config: dict[str, object]) -> None:
        # DeepSpeed refuses to make hpZ's group again, for a process's second engine.
        group = groups._get_zero_param_intra_parallel_group()
        super().__init__(config_dict_or_path=ds_config, zero_param_parallel_group=group, tensor_overrides=())

    def fill(self, model: PackedT5, folder: Path) -> None:
        """Gives a model on the meta device a folder's weights, each partitioned before the next is read. Collective.

        Rank 0 alone reads, and sends. It maps the files; old pickles, which cannot be mapped, it holds whole. UserError
        on every rank if the folder's weights are refused.
        """
        weights: dict[str, Tensor] = {}
        on_rank0(lambda: weights.update(read_weights(folder, model.shape)))
        for name, empty in list(model.named_parameters()):
            read = weights.pop(name, None)
            if read is None:
                read = torch.empty(empty.shape, dtype=self.dtype, device=self.local_device)
            parameter = nn.Parameter(read.float())
            module, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(module), attribute, parameter)
            self._convert_to_zero_parameters([parameter])

    def _zero_init_param(self, param: nn.Parameter) -> None:
        param.data = param.data.to(self.dtype)
        super()._zero_init_param(param)


def partitioning_of(config: RunConfig, device: torch.device) -> Partitioning | None:
    """A run's partitioning; None below ZeRO-3, where every rank holds the model anyway. UserError for a DeepSpeed
    configuration that the device cannot run."""
    found = completed(config, dist.get_world_size())
    if device.type == "cpu":
        refuse_on_cpu(found)
    return Partitioning(found.table) if zero_stage(found.table) == 3 else None


def record(config: RunConfig, model: PackedT5, device: torch.device) -> None:
    """Writes model.json: what this attempt trains, and the attention chosen on this device.

    train_flops_per_token: of forward and backward, at 128 source and 128 target tokens.
    """
    table = {
        "preset": config.model.preset if config.model.init_from is None else None,
        "init_from": config.model.init_from,
        "parameters": presets.num_parameters(model.shape),
        "non_embedding_parameters": presets.num_parameters(model.shape) - presets.num_embeddings(model.shape),
        "attention": model.backends,
        "compiled": model.compiled,
        "precision": config.train.precision,
        "device": _device_name(device),
        "ranks": dist.get_world_size(),
        "train_flops_per_token": flops.training_flops(model.shape, [128], [128]) / 256,
        "config": presets.to_hf_config(model.shape, config.model.dropout),
    }
    atomic.write_atomically(config.run_dir / "model.json", json.dumps(table, indent=1))


def peak_flops(precision: str, device: torch.device) -> float | None:
    """Peak FLOP/s of all ranks' devices together, assuming equal ones; None if unknown."""
    tf32 = torch.get_float32_matmul_precision() != "highest"
    peak = flops.peak_flops(_device_name(device), precision, tf32=tf32)
    return None if peak is None else peak * dist.get_world_size()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
