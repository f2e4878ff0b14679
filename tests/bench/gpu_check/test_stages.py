"""What stages compute from what tools report."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.bench.gpu_check.basics import findings
from bigchem.bench.gpu_check.step_profile import STEP, Span, busy, spans, summary


def event(category: str, name: str, begin: float, length: float) -> dict[str, object]:
    return {"ph": "X", "cat": category, "name": name, "ts": begin, "dur": length}


TRACE = {
    "traceEvents": [
        event("user_annotation", STEP, 100, 50),
        event("cuda_runtime", "cudaLaunchKernel", 90, 2),  # before the step
        event("cuda_runtime", "cudaLaunchKernel", 101, 2),
        event("cuda_driver", "cuLaunchKernelEx", 104, 2),  # Triton's
        event("cuda_runtime", "cudaStreamSynchronize", 110, 20),
        event("cuda_runtime", "cudaDeviceSynchronize", 151, 90),  # the profiler's own, after it
        event("kernel", "gemm", 105, 40),
        event("kernel", "varlen_attention", 125, 30),  # overlaps
        event("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", 170, 10),
        event("kernel", "gemm", 180, 20),
        {"ph": "i", "name": "an instant", "ts": 1},
    ]
}


def test_a_steps_row_counts_what_happens_inside_the_step() -> None:
    row, kernels = summary(spans(TRACE))
    assert row["ms"] == pytest.approx(0.1)  # from the step's begin to the last kernel's end
    assert row["host ms"] == pytest.approx(0.05)
    assert row["device busy %"] == pytest.approx(100 * (50 + 30) / 100)
    counts = {name: row[name] for name in ("launches", "kernels", "synchronisations", "copies", "pageable copies")}
    assert counts == {"launches": 2, "kernels": 3, "synchronisations": 1, "copies": 1, "pageable copies": 1}
    assert (kernels[0]["kernel"], kernels[0]["calls"], kernels[0]["kernel's ms"]) == ("gemm", 2, pytest.approx(0.06))


def test_overlapping_kernels_count_once() -> None:
    assert busy([]) == 0
    assert busy(Span("kernel", "", *ends) for ends in ((5, 9), (0, 10), (2, 3), (20, 21))) == 11


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10))))
def test_busy_time_is_the_length_of_the_union(parts: list[tuple[int, int]]) -> None:
    ticks = {tick for begin, length in parts for tick in range(begin, begin + length)}
    assert busy(Span("kernel", "", begin, begin + length) for begin, length in parts) == len(ticks)


@pytest.mark.parametrize(
    ("output", "number"),
    [
        ("========= ERROR SUMMARY: 0 errors\n", 0),
        ("========= ERROR SUMMARY: 12 errors\n", 12),
        ("========= RACECHECK SUMMARY: 3 hazards displayed (3 errors, 0 warnings)\n", 3),
    ],
)
def test_compute_sanitizers_summary_is_read(output: str, number: int) -> None:
    assert findings(f"========= COMPUTE-SANITIZER\n{output}") == number


def test_a_missing_summary_is_no_success() -> None:
    with pytest.raises(ValueError, match="no summary: no output"):
        findings("")
    with pytest.raises(ValueError, match="no summary: Device not supported"):
        findings("Device not supported")
