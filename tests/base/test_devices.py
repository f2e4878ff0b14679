"""The device of a process, by what it is told and what torch sees: a table of cases."""

from __future__ import annotations

import os

import pytest
import torch

from bigchem.base import environment
from bigchem.base.environment import decide_device, refuse_shared
from bigchem.base.errors import UserError

CPU, CUDA = {"DS_ACCELERATOR": "cpu"}, {"DS_ACCELERATOR": "cuda"}


@pytest.mark.parametrize(
    ("env", "visible", "local_rank", "device"),
    [
        ({}, 0, 0, "cpu"),  # a laptop, a login node
        ({}, 0, 3, "cpu"),
        ({}, 1, 0, "cuda:0"),
        ({}, 8, 0, "cuda:0"),  # a tool: export, evaluate, predict, plan, doctor
        ({}, 8, 7, "cuda:7"),
        ({}, 1, 3, "cuda:0"),  # srun --gpus-per-task: each process sees its own
        ({"CUDA_VISIBLE_DEVICES": ""}, 0, 0, "cpu"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0, 0, "cpu"),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, 0, 0, "cpu"),  # Slurm's word for none
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, 2, 1, "cuda:1"),  # numbers count among those visible
        (CPU, 0, 0, "cpu"),
        (CPU, 8, 3, "cpu"),
        ({**CPU, "CUDA_VISIBLE_DEVICES": "0"}, 0, 0, "cpu"),
        ({"DS_ACCELERATOR": " CPU "}, 8, 0, "cpu"),
        (CUDA, 4, 2, "cuda:2"),
        ({"DS_ACCELERATOR": ""}, 2, 1, "cuda:1"),
    ],
)
def test_a_process_takes_this_device(env: dict[str, str], visible: int, local_rank: int, device: str) -> None:
    assert decide_device(env, visible, local_rank) == device


@pytest.mark.parametrize(
    ("env", "visible", "local_rank", "message"),
    [
        (CUDA, 0, 0, "DS_ACCELERATOR=cuda: torch sees no GPU"),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, 0, 0, "CUDA_VISIBLE_DEVICES=0,1: torch sees no GPU"),  # a broken driver
        ({"DS_ACCELERATOR": "xpu"}, 0, 0, "xpu is not supported"),
        ({"DS_ACCELERATOR": "mps"}, 1, 0, "mps is not supported"),
        ({}, 4, 4, "local rank 4 sees 4 GPUs"),
        ({}, 2, 7, "local rank 7 sees 2 GPUs"),
    ],
)
def test_no_device_is_guessed(env: dict[str, str], visible: int, local_rank: int, message: str) -> None:
    with pytest.raises(UserError) as found:
        decide_device(env, visible, local_rank)
    assert message in str(found.value)


@pytest.mark.parametrize(
    "gpus",
    [
        [("a", ""), ("a", "")],
        [("a", "GPU-1"), ("a", "GPU-2"), ("b", "GPU-3")],
        [("a", "GPU-1"), ("b", "GPU-1")],  # virtual machines can repeat them
    ],
)
def test_each_rank_has_a_gpu_to_itself_or_all_compute_on_the_cpu(gpus: list[tuple[str, str]]) -> None:
    refuse_shared(gpus)


@pytest.mark.parametrize(
    ("gpus", "message"),
    [
        ([("a", "GPU-1"), ("b", "GPU-1"), ("a", "GPU-1")], "ranks 0 and 2 share a GPU of a"),
        ([("a", "GPU-1"), ("b", "")], "rank 1 has no GPU, others have"),
    ],
)
def test_a_shared_gpu_and_a_missing_one_are_told(gpus: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        refuse_shared(gpus)


def test_here_the_tools_compute_on_the_cpu_and_deepspeed_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DS_ACCELERATOR")
    assert (environment.visible_gpus(), environment.device().type) == (0, "cpu")
    assert "DS_ACCELERATOR" not in os.environ
    assert environment.take_device(3).type == "cpu"
    assert os.environ["DS_ACCELERATOR"] == "cpu"


def test_a_tool_follows_deepspeeds_variable_on_a_machine_with_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_seen", lambda: 4)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    assert (environment.visible_gpus(), environment.device().type) == (0, "cpu")
    monkeypatch.delenv("DS_ACCELERATOR")
    assert environment.visible_gpus() == 4


@pytest.mark.parametrize("name", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_segments_grow_unless_the_user_has_set_the_allocator(name: str) -> None:
    own = {name: "max_split_size_mb:64"}
    environment.let_segments_grow(own)
    assert own == {name: "max_split_size_mb:64"}
    free: dict[str, str] = {}
    environment.let_segments_grow(free)
    assert free == {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}


def test_tf32_is_a_matter_of_gpus() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        environment.use_tf32(torch.device("cpu"), True)
        assert torch.get_float32_matmul_precision() == before
        environment.use_tf32(torch.device("cuda"), True)
        assert torch.get_float32_matmul_precision() == "high"
        environment.use_tf32(torch.device("cuda"), False)
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)
