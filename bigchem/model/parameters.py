"""Names and shapes of a T5's parameters, and which have weight decay; used for sharding and its arithmetic. Pure."""

from collections.abc import Iterable, Iterator

from bigchem.model.presets import Shape


def parameter_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Every parameter of model/t5.py by name, in the model's order; tied ones once."""
    found: dict[str, tuple[int, ...]] = {"shared.weight": (shape.vocab_size, shape.d_model)}
    found.update(_stack("encoder", shape, shape.num_layers, decoder=False))
    found.update(_stack("decoder", shape, shape.num_decoder_layers, decoder=True))
    if not shape.tied:
        found["lm_head.weight"] = (shape.vocab_size, shape.d_model)
    return found


def group_names(parameters: Iterable[tuple[str, int]]) -> tuple[list[str], list[str]]:
    """Names of the parameters, given as (name, ndim), with weight decay (matrices) and without (norms, embeddings)."""
    listed = list(parameters)
    plain = [n for n, ndim in listed if ndim != 2 or n == "shared.weight" or "relative_attention_bias" in n]
    return [n for n, _ in listed if n not in set(plain)], plain


def _stack(name: str, shape: Shape, layers: int, *, decoder: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    d, inner = shape.d_model, shape.inner_dim
    for block in range(layers):
        attentions = ["SelfAttention", "EncDecAttention"] if decoder else ["SelfAttention"]
        for i, kind in enumerate(attentions):
            layer = f"{name}.block.{block}.layer.{i}"
            yield from ((f"{layer}.{kind}.{p}.weight", (inner, d)) for p in ("q", "k", "v"))
            yield f"{layer}.{kind}.o.weight", (d, inner)
            if block == i == 0:
                table = (shape.relative_attention_num_buckets, shape.num_heads)
                yield f"{layer}.{kind}.relative_attention_bias.weight", table
            yield f"{layer}.layer_norm.weight", (d,)
        layer = f"{name}.block.{block}.layer.{len(attentions)}"
        wide = ("wi_0", "wi_1") if shape.gated else ("wi",)
        yield from ((f"{layer}.DenseReluDense.{p}.weight", (shape.d_ff, d)) for p in wide)
        yield f"{layer}.DenseReluDense.wo.weight", (d, shape.d_ff)
        yield f"{layer}.layer_norm.weight", (d,)
    yield f"{name}.final_layer_norm.weight", (d,)
