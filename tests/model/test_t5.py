import copy
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from small_models import SOURCE_LENGTHS, TARGET_LENGTHS, V1_0, V1_1, build, grads, pack, sequences, transformers_model
from transformers import T5ForConditionalGeneration

from bigchem.model import dropout
from bigchem.model.functional import Objective
from bigchem.model.presets import Shape, to_hf_config
from bigchem.model.t5 import PackedT5, shift_right

pytestmark = pytest.mark.heavy


PLAIN = ("torch", "eager")


def padded_loss(model: T5ForConditionalGeneration, batch_sources: list, batch_targets: list) -> torch.Tensor:
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad(batch_sources, batch_first=True, padding_value=0)
    mask = pad([torch.ones_like(s) for s in batch_sources], batch_first=True)
    labels = pad(batch_targets, batch_first=True, padding_value=-100)
    logits = model(input_ids=ids, attention_mask=mask, labels=labels).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


NO_TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="no triton here")
INTERPRETED = pytest.param("triton", marks=NO_TRITON)
SHAPES_AND_BACKENDS = [
    *(pytest.param(shape, kind, id=f"{v}-{kind}") for v, shape in (("v1.0", V1_0), ("v1.1", V1_1)) for kind in PLAIN),
    pytest.param(V1_0, "triton", id="v1.0-triton", marks=NO_TRITON),
    pytest.param(V1_1, "triton", id="v1.1-triton", marks=[NO_TRITON, pytest.mark.thorough]),
]


@pytest.mark.parametrize(("shape", "backend"), SHAPES_AND_BACKENDS)
def test_packed_equals_transformers_padded_in_loss_and_every_gradient(
    shape: Shape, backend: str, tmp_path: Path
) -> None:
    model = build(shape, backend)
    theirs = transformers_model(model, tmp_path)
    longest = 18 if backend == "triton" else 150  # the interpreter is slow
    sources, targets = (
        sequences([min(n, longest) for n in lengths], seed)
        for seed, lengths in ((1, SOURCE_LENGTHS), (2, TARGET_LENGTHS))
    )
    targets[3][5:9] = -100
    loss = model(pack(sources, targets))
    expected = padded_loss(theirs, sources, targets)
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    their_grads = {name: p.grad for name, p in theirs.named_parameters()}
    for name, grad in grads(model, loss).items():
        error = (grad - their_grads[name]).abs().max() / their_grads[name].abs().max()
        assert error < 1e-5, f"{name}: {error:.1e}"


@pytest.mark.parametrize("shape", [V1_0, V1_1], ids=["v1.0", "v1.1"])
def test_state_dict_has_transformers_names(shape: Shape, tmp_path: Path) -> None:
    model = build(shape)
    theirs = transformers_model(model, tmp_path)
    copies = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"} | (
        {"lm_head.weight"} if shape.tied else set()
    )
    assert model.state_dict().keys() == theirs.state_dict().keys() - copies


@pytest.mark.parametrize("shape", [V1_0, V1_1], ids=["v1.0", "v1.1"])
def test_fresh_weights_have_transformers_spread(shape: Shape) -> None:
    from transformers import T5Config

    wide = Shape(**{**shape.__dict__, "vocab_size": 300, "d_model": 96, "d_ff": 200})
    config = {k: v for k, v in to_hf_config(wide, dropout=0.0).items() if k != "model_type"}
    theirs = dict(T5ForConditionalGeneration(T5Config(**config)).named_parameters())
    for name, parameter in PackedT5(wide).named_parameters():
        if name in theirs and parameter.dim() > 1:  # a tied copy hides their lm_head
            assert parameter.std().item() == pytest.approx(theirs[name].std().item(), rel=0.25), name
        elif parameter.dim() == 1:
            assert torch.equal(parameter, torch.ones_like(parameter)), name


def test_loss_does_not_depend_on_the_packing() -> None:
    model = build(V1_0).eval()
    sources, targets = sequences(SOURCE_LENGTHS, 1), sequences(TARGET_LENGTHS, 2)
    together = model(pack(sources, targets)).total
    apart = sum(model(pack([s], [t])).total for s, t in zip(sources, targets, strict=True))
    order = [3, 0, 4, 2, 1]
    shuffled = model(pack([sources[i] for i in order], [targets[i] for i in order])).total
    torch.testing.assert_close(together, apart, rtol=1e-6, atol=0)
    torch.testing.assert_close(together, shuffled, rtol=1e-6, atol=0)


@pytest.mark.parametrize("backend", ["torch", "eager", pytest.param("triton", marks=[NO_TRITON, pytest.mark.thorough])])
def test_zero_length_sequences_change_nothing(backend: str) -> None:
    model = build(V1_0, backend)
    sources, targets = sequences([5, 9], 1), sequences([4, 2], 2)
    none = torch.empty(0, dtype=torch.int64)
    plain = model(pack(sources, targets, [0, 1]))
    loss = model(pack([none, *sources, none, none], [none, *targets, none, none], [4, 0, 1, 4, 4]))
    torch.testing.assert_close(loss.total, plain.total)
    assert torch.equal(loss.counts, plain.counts)
    for name, grad in grads(model, loss).items():
        assert grad.isfinite().all(), name


def test_an_empty_source_is_no_error() -> None:
    model = build(V1_0)
    loss = model(pack([torch.empty(0, dtype=torch.int64), *sequences([4], 1)], sequences([3, 2], 2)))
    assert loss.total.isfinite()
    assert all(g.isfinite().all() for g in grads(model, loss).values())


@pytest.mark.parametrize("shape", [V1_0, V1_1], ids=["v1.0", "v1.1"])
def test_a_batch_with_nothing_to_learn_has_a_zero_loss_with_a_graph(shape: Shape) -> None:
    model = build(shape)
    loss = model(pack(sequences([4, 3], 1), [torch.full((n,), -100) for n in (3, 2)]))
    assert loss.total.item() == 0
    assert loss.counts.sum() == 0
    assert all(g.abs().max() == 0 for g in grads(model, loss).values())


def test_losses_and_counts_per_task() -> None:
    model = build(V1_0).eval()
    sources, targets = sequences([5, 6, 7], 1), sequences([4, 3, 9], 2)
    targets[2][:2] = -100
    loss = model(pack(sources, targets, [1, 3, 1]))
    assert loss.counts.tolist() == [0, 11, 0, 3, 0, 0, 0]
    torch.testing.assert_close(loss.per_task.sum(), loss.total)
    torch.testing.assert_close(loss.per_task[3], model(pack(sources[1:2], targets[1:2])).total)
    assert not loss.per_task.requires_grad


@pytest.mark.parametrize("shape", [V1_0, V1_1], ids=["v1.0", "v1.1"])
def test_the_objective_counts_in_training_and_losses_stay_plain(shape: Shape) -> None:
    model = build(shape)
    batch = pack(sequences(SOURCE_LENGTHS, 1), sequences(TARGET_LENGTHS, 2))
    plain = model(batch)
    model.objective = Objective(z_loss=0.1, label_smoothing=0.2)
    training, evaluation = model(batch), model.eval()(batch)
    nll = -model.logits(batch).log_softmax(-1)
    log_z = model.logits(batch).logsumexp(-1)
    of_target = nll.gather(1, batch.target_ids[:, None]).squeeze(1)
    expected = (0.8 * of_target + 0.2 * nll.mean(-1) + 0.1 * log_z.square()).sum()
    torch.testing.assert_close(training.total, expected, rtol=1e-5, atol=0)
    assert torch.equal(training.per_task, plain.per_task)
    assert evaluation.total == plain.total


def test_dropout_acts_in_training_only_and_follows_the_seed() -> None:
    model = build(V1_0, dropout=0.2)
    batch = pack(sequences(SOURCE_LENGTHS, 1), sequences(TARGET_LENGTHS, 2))

    def loss(seed: int) -> float:
        return model(batch, seed).total.item()

    assert loss(1) == loss(1) != loss(2)
    model.eval()
    assert loss(1) == loss(2) == build(V1_0).eval()(batch).total.item()


def test_dropout_is_everywhere_t5_has_it_each_with_a_seed_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    places, seeds, head_seeds = [], [], dropout.head_seeds

    def of_rows(x: torch.Tensor, hashes: torch.Tensor, seed: int, p: float) -> torch.Tensor:
        places.append(tuple(x.shape))
        seeds.append(seed)
        assert torch.equal(hashes, batch.source_hashes if len(x) == 6 else batch.target_hashes)
        return x

    def of_heads(seed: int, heads: int) -> torch.Tensor:
        places.append("probabilities")
        seeds.append(seed)
        return head_seeds(seed, heads)

    monkeypatch.setattr(dropout, "dropout", of_rows)
    monkeypatch.setattr(dropout, "head_seeds", of_heads)
    batch = pack(sequences([6], 1), sequences([4], 2))
    build(V1_0, dropout=0.1)(batch)
    encoder, decoder = V1_0.num_layers, V1_0.num_decoder_layers
    assert places.count("probabilities") == encoder + 2 * decoder
    assert places.count((6, V1_0.d_model)) == 2 + 2 * encoder  # embedding, final norm, sublayers
    assert places.count((4, V1_0.d_model)) == 2 + 3 * decoder
    assert places.count((6, V1_0.d_ff)) == encoder
    assert places.count((4, V1_0.d_ff)) == decoder
    assert len(set(seeds)) == len(places)


@pytest.mark.parametrize("shape", [V1_0, V1_1], ids=["v1.0", "v1.1"])
def test_with_dropout_too_the_step_does_not_depend_on_its_division(shape: Shape) -> None:
    model = build(shape, dropout=0.2)
    sources, targets = sequences(SOURCE_LENGTHS, 1), sequences(TARGET_LENGTHS, 2)

    def losses_and_grads(*parts: list[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        total, found = torch.zeros(()), {}
        for part in parts:
            chosen = ([side[i] for i in part] for side in (sources, targets))
            loss = model(pack(*chosen, examples=part), seed=4)
            total = total + loss.total.detach()
            found = {name: found.get(name, 0) + grad for name, grad in grads(model, loss).items()}
        return total, found

    whole, expected = losses_and_grads([0, 1, 2, 3, 4])
    assert whole != model(pack(sources, targets), seed=5).total
    apart, found = losses_and_grads([3], [4, 1], [0, 2])
    torch.testing.assert_close(apart, whole, rtol=1e-6, atol=0)
    for name, grad in found.items():
        assert (grad - expected[name]).abs().max() <= 1e-5 * expected[name].abs().max(), name


@pytest.mark.parametrize("backend", ["torch", "eager", INTERPRETED])
def test_checkpointed_activations_give_equal_gradients_with_dropout(backend: str) -> None:
    plain, checkpointed = (build(V1_0, backend, dropout=0.2, checkpoint_activations=on) for on in (False, True))
    few = 2 if backend == "triton" else 3  # the interpreter is slow
    batch = pack(sequences([13, 1, 20][:few], 1), sequences([7, 3, 18][:few], 2))
    results = []
    for model in (plain, checkpointed):
        results.append(grads(model, model(batch, seed=5)))
    for name, grad in results[0].items():
        torch.testing.assert_close(results[1][name], grad, msg=name)


def test_shift_right_stays_inside_each_sequence() -> None:
    labels = torch.tensor([5, 6, 1, 7, -100, 1, 9])
    cu_seqlens = torch.tensor([0, 0, 3, 6, 7, 7], dtype=torch.int32)
    assert shift_right(labels, cu_seqlens).tolist() == [0, 5, 6, 0, 7, 0, 0]


def test_external_parameters_are_the_tied_matrix_only() -> None:
    tied = build(V1_0)
    assert tied.external_parameters == [tied.shared.weight]
    assert build(V1_1).external_parameters == []


def test_batch_moves_as_a_whole() -> None:
    moved = pack(sequences([2, 3], 1), sequences([1, 2], 2)).to("meta")
    assert moved.source_cu_seqlens.device.type == moved.task_ids.device.type == "meta"
    assert moved.source_lens.tolist() == [2, 3]


def test_bf16_weights_give_a_near_loss_in_fp32() -> None:
    model = build(V1_1).eval()
    batch = pack(sequences(SOURCE_LENGTHS, 1), sequences(TARGET_LENGTHS, 2))
    low = copy.deepcopy(model).bfloat16()
    loss = low(batch)
    loss.total.backward()
    assert loss.total.dtype == torch.float32
    assert loss.total.item() == pytest.approx(model(batch).total.item(), rel=0.05)
    assert all(p.grad.isfinite().all() for p in low.parameters())


def test_planning_reads_no_weight() -> None:
    """It runs in the loader's thread, at another time on each rank. ZeRO-3 gathers a weight that is read by its name,
    with a collective operation: two ranks hung in their first steps."""

    class Gathered(dict):
        def __getitem__(self, name: str) -> torch.Tensor:
            pytest.fail(f"plan reads {name}")

    model = build(V1_0, "triton")
    for module in model.modules():
        module._parameters = Gathered(module._parameters)
    with pytest.raises(pytest.fail.Exception):
        _ = model.shared.weight
    batch = pack(sequences(SOURCE_LENGTHS, 1), sequences(TARGET_LENGTHS, 2))
    assert set(model.plan(batch, torch.device("cpu")).work) == {"encoder_self", "decoder_self", "cross"}
