"""The batcher: neighbours never matter, failures stay with who brought them, nobody waits for one who left."""

from __future__ import annotations

import asyncio
import threading
from typing import Literal

import numpy as np
import pytest

from inference.runtime.batcher import Batcher, InferenceFailed
from inference.runtime.choice import open_session
from inference.runtime.openvino_session import is_installed, precisions
from inference.runtime.session import REFERENCE, Array, Setup
from tests.conftest import ROOT
from tests.inference.conftest import until

BUNDLES = ROOT / "models" / "bundles"


class Doubling:
    """A session that doubles its rows: the smallest thing the batcher can drive, with the failures it must survive.

    A row that holds -1 makes the whole run fail, as a native error would; a row that holds -2 gives NaN.
    """

    outputs = ("logits",)
    provider, device = "numpy", "cpu"

    def __init__(self, setup: Setup = REFERENCE) -> None:
        self.setup = setup
        self.batches: list[int] = []
        self.is_begun = False
        self.gate = threading.Event()
        self.gate.set()

    def accepts(self, rows: Array) -> bool:
        return rows.dtype == np.float32 and rows.ndim == 2

    def run(self, batch: Array) -> tuple[Array, ...]:
        self.is_begun = True
        self.gate.wait()
        self.batches.append(len(batch))
        if (batch == -1).any():
            raise RuntimeError("native failure")
        return (np.where(batch == -2, np.nan, batch * 2).astype(np.float32),)


def rows(*values: float) -> Array:
    return np.array([[v] for v in values], dtype=np.float32)


async def failure(batcher: Batcher, value: Array) -> str:
    with pytest.raises(InferenceFailed) as caught:
        await batcher.infer(value)
    return caught.value.code


async def test_what_is_queued_while_the_device_is_busy_goes_together() -> None:
    session = Doubling()
    batcher = Batcher(session, name="t", max_batch=8)
    session.gate.clear()
    first = asyncio.ensure_future(batcher.infer(rows(1)))
    await until(lambda: session.is_begun)
    rest = [asyncio.ensure_future(batcher.infer(rows(v))) for v in range(2, 12)]
    await until(lambda: batcher.rows_waiting == 10)
    session.gate.set()
    results = await asyncio.gather(first, *rest)
    assert batcher.rows_waiting == 0
    assert [float(r[0][0, 0]) for r in results] == [2.0 * v for v in range(1, 12)]
    assert session.batches == [1, 8, 2]
    batcher.close()


async def test_rows_of_one_request_stay_together_and_come_back_alone() -> None:
    batcher = Batcher(Doubling(), name="t", max_batch=4)
    many, one = await asyncio.gather(batcher.infer(rows(*range(7))), batcher.infer(rows(50)))
    assert many[0].shape == (7, 1)
    assert float(one[0][0, 0]) == 100
    batcher.close()


async def test_a_failing_request_leaves_its_batchmates_untouched() -> None:
    session = Doubling()
    batcher = Batcher(session, name="t")
    session.gate.clear()
    blocker = asyncio.ensure_future(batcher.infer(rows(9)))
    await until(lambda: session.is_begun)
    good = [asyncio.ensure_future(batcher.infer(rows(v))) for v in (3, 4)]
    crash = asyncio.ensure_future(failure(batcher, rows(-1)))
    not_finite = asyncio.ensure_future(failure(batcher, rows(-2)))
    await until(lambda: batcher.rows_waiting == 4)
    session.gate.set()
    assert [float((await g)[0][0, 0]) for g in good] == [6.0, 8.0]
    assert await crash == "session"
    assert await not_finite == "not_finite"
    assert float((await batcher.infer(rows(5)))[0][0, 0]) == 10
    await blocker
    batcher.close()


async def test_a_wrong_shape_is_refused_before_it_is_queued() -> None:
    batcher = Batcher(Doubling(), name="t")
    assert await failure(batcher, np.zeros((1, 2, 3), dtype=np.float32)) == "shape"
    assert await failure(batcher, np.zeros((1, 2), dtype=np.float64)) == "shape"
    batcher.close()


async def test_who_leaves_frees_the_place() -> None:
    session = Doubling()
    batcher = Batcher(session, name="t", max_batch=8)
    session.gate.clear()
    blocker = asyncio.ensure_future(batcher.infer(rows(1)))
    await until(lambda: session.is_begun)
    leaving = [asyncio.ensure_future(batcher.infer(rows(v))) for v in range(5)]
    staying = asyncio.ensure_future(batcher.infer(rows(7)))
    await until(lambda: batcher.rows_waiting == 6)
    for request in leaving:
        request.cancel()
    await asyncio.sleep(0.01)
    session.gate.set()
    await blocker
    assert float((await staying)[0][0, 0]) == 14
    assert session.batches == [1, 1]
    assert batcher.counts.left == 5
    batcher.close()


async def test_a_closed_batcher_says_so() -> None:
    batcher = Batcher(Doubling(), name="t")
    batcher.close()
    assert await failure(batcher, rows(1)) == "closed"


class Slow(Doubling):
    """Says how many runs are under way at once."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.lock = threading.Lock()
        self.running = self.most = 0

    def run(self, batch: Array) -> tuple[Array, ...]:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        found = super().run(batch)
        with self.lock:
            self.running -= 1
        return found


async def test_every_stream_runs_and_none_takes_what_another_could() -> None:
    session = Slow(Setup("onnxruntime", "fp32", None, 2))
    batcher = Batcher(session, name="t", max_batch=8)
    session.gate.clear()
    results = [asyncio.ensure_future(batcher.infer(rows(v))) for v in range(2)]
    await until(lambda: session.most == 2)
    results += [asyncio.ensure_future(batcher.infer(rows(v))) for v in range(2, 40)]
    await until(lambda: batcher.rows_waiting == 38)
    session.gate.set()
    assert [float(r[0][0, 0]) for r in await asyncio.gather(*results)] == [2.0 * v for v in range(40)]
    assert session.most == 2
    assert sum(session.batches) == 40
    assert max(session.batches) <= 8
    assert batcher.counts.requests == batcher.counts.rows == 40
    batcher.close()


async def test_idle_streams_share_a_free_batch_and_fill_a_fixed_one() -> None:
    for batch, expected in ((None, [3, 3]), (8, [6])):
        session = Doubling(Setup("onnxruntime", "fp32", batch, 2))
        batcher = Batcher(session, name="t", max_batch=8)
        session.gate.clear()
        with batcher._wake:  # both streams are held back until all six wait
            waiting = [asyncio.ensure_future(batcher.infer(rows(v))) for v in range(6)]
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        session.gate.set()
        await asyncio.gather(*waiting)
        assert session.batches == expected
        batcher.close()


async def test_a_fixed_batch_is_never_exceeded_and_failures_stay_where_they_were() -> None:
    session = Slow(Setup("onnxruntime", "fp32", 4, 2))
    batcher = Batcher(session, name="t", max_batch=16)
    session.gate.clear()
    blockers = [asyncio.ensure_future(batcher.infer(rows(v))) for v in (8, 9)]
    await until(lambda: session.is_begun and batcher.rows_waiting == 0)
    good = [asyncio.ensure_future(batcher.infer(rows(v))) for v in range(9)]
    crash = asyncio.ensure_future(failure(batcher, rows(-1)))
    more = [asyncio.ensure_future(batcher.infer(rows(v))) for v in range(9)]
    await until(lambda: batcher.rows_waiting >= 15)  # where the blockers went together, the other stream took four
    session.gate.set()
    assert [float((await g)[0][0, 0]) for g in (*good, *more)] == [2.0 * v for v in (*range(9), *range(9))]
    assert await crash == "session"
    await asyncio.gather(*blockers)
    assert max(session.batches) == 4
    batcher.close()
    assert await failure(batcher, rows(1)) == "closed"


@pytest.mark.parametrize("bundle", ["lung-1.0.0", "cardiac-1.0.0", "cxr_gate-1.0.0"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
async def test_a_real_row_is_the_same_alone_and_among_others(bundle: str, precision: Literal["fp32", "bf16"]) -> None:
    if precision == "bf16" and not (is_installed() and "bf16" in precisions()):
        pytest.skip("these cores, or this installation, do not compute in bf16")
    setup = REFERENCE if precision == "fp32" else Setup("openvino", "bf16", 4, 2)
    folder = BUNDLES / bundle
    with np.load(folder / "golden.npz") as golden:
        x = golden["input"]
    session = open_session(folder / "models/model.onnx", ("logits",), setup, device="cpu", threads=2)
    batcher = Batcher(session, name="t", max_batch=4)
    alone = [(await batcher.infer(x[row : row + 1]))[0] for row in range(len(x))]
    order = np.random.default_rng(4).permutation(np.arange(len(x)).repeat(3))
    among = await asyncio.gather(*(batcher.infer(x[row : row + 1]) for row in order))
    batcher.close()
    assert batcher.counts.batches < len(x) + len(order), "nothing went together"
    for row, (found,) in zip(order, among, strict=True):
        if precision == "fp32":
            np.testing.assert_allclose(found, alone[row], atol=1e-5, rtol=1e-5)
        else:
            assert np.array_equal(found, alone[row])
