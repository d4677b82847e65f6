"""The loop: batches, the optimiser of rows, validation, Ctrl-C."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

import numpy as np
import scipy.sparse as sp

from ssbhash import SSBVAE, VDSH
from ssbhash.inputs.rows import padded, row_source, standardise
from ssbhash.inputs.shards import CsrShards
from ssbhash.nn.autoencoder import TrainingBatch
from ssbhash.nn.layers import BatchNorm, Encoder
from ssbhash.training.adam import FlatAdam, RowAdam
from ssbhash.training.loop import Data, shuffle
from ssbhash.training.optimizer import Optimizer

# Networks this small are slower on several threads.
torch.set_num_threads(1)

SMALL: dict[str, Any] = {"n_bits": 8, "n_epochs": 4, "n_hidden_units": 16, "batch_size": 32}
PAPER: dict[str, Any] = SMALL | {"preset": "paper", "alpha": 1e-3, "gamma": 1e3}


@pytest.fixture(scope="module")
def items() -> tuple[Any, np.ndarray]:
    """200 sparse items of 3 topics, half of the labels hidden."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    X = rng.poisson(0.1, (200, 30)) + rng.poisson(1.0, (200, 30)) * (
        np.arange(30) % 3 == y[:, None]
    )
    y[::2] = -1
    return sp.csr_array(X.astype(np.float32)), y


@pytest.mark.parametrize("ids", [[], [3], [5, 0, 199, 0], range(200)])
def test_batches_are_the_rows(items: Any, ids: Any) -> None:
    X, _ = items
    ids = np.array(ids, dtype=np.int64)
    sparse, dense = row_source(X).take(ids), row_source(X.toarray()).take(ids)
    assert len(sparse) == len(dense) == len(ids)
    np.testing.assert_array_equal(sparse.dense(), dense)
    weight = torch.randn(30, 4)
    torch.testing.assert_close(sparse.product(weight), dense @ weight)
    torch.testing.assert_close(padded(sparse, 16).dense(), padded(dense, 16))
    rows = row_source(X).normalised().take(ids).dense()
    torch.testing.assert_close(rows, row_source(X.toarray()).normalised().take(ids))
    torch.testing.assert_close(rows.sum(1), (dense.sum(1) > 0).float())


@pytest.mark.parametrize("n_columns", [1, 30])
def test_a_sparse_product_has_the_gradient_of_a_dense_one(
    items: Any, n_columns: int, kernels: str
) -> None:
    X, _ = items
    batch = row_source(sp.csr_array(X[:, :n_columns])).take(np.arange(40))
    weight = torch.randn(n_columns, 4, requires_grad=True)
    product, expected = batch.product(weight), batch.dense() @ weight
    torch.testing.assert_close(product, expected)
    upstream = torch.randn_like(product)
    (gradient,) = torch.autograd.grad(product, weight, upstream)
    (plain,) = torch.autograd.grad(expected, weight, upstream)
    torch.testing.assert_close(gradient.to_dense(), plain)
    assert gradient.is_sparse
    assert gradient.is_coalesced()
    torch.testing.assert_close(gradient.indices()[0], torch.unique(batch.columns))


def test_standardised_rows(items: Any) -> None:
    X, _ = items
    dense = X.toarray() - 1.0
    rows = standardise(row_source(dense)).take(np.arange(200))
    torch.testing.assert_close(rows.mean(0), torch.zeros(30), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows.std(0, correction=0), torch.ones(30))
    sparse = standardise(row_source(X)).take(np.arange(200)).dense()
    torch.testing.assert_close(sparse, torch.from_numpy(X.toarray() / X.toarray().std(0)))


@pytest.mark.parametrize("flush_every", [7, 1000])
@pytest.mark.parametrize("size", [1.0, 1e-5, 1e-6])
def test_row_adam_is_dense_adam(size: float, flush_every: int, kernels: str) -> None:
    # Gradients of size 1e-5 and less are where Keras' epsilon matters, and is approximated.
    close = {"rtol": 2e-4, "atol": 2e-5 if size == 1 else 5e-4}
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 11, generator=generator)
    dense, mean, square = weight.clone(), torch.zeros(40, 11), torch.zeros(40, 11)
    flat_weight = weight.clone().requires_grad_()
    flat = FlatAdam([flat_weight], 0.01, eps=1e-7)
    rows = RowAdam(weight, 0.01)
    for step in range(600):
        # Row 39 is touched once in 100 steps, row 0 at nearly every step.
        chance = torch.rand(40, generator=generator)
        touched = torch.nonzero(chance < 0.9 / (1 + torch.arange(40) / 4)).flatten()
        if step % 100 == 0:
            touched = torch.arange(40)
        gradient = size * torch.randn(40, 11, generator=generator)
        if step % 3:  # a step catches up by itself
            rows.catch_up(touched)
            rows.catch_up(touched[:5])  # does nothing
            torch.testing.assert_close(weight[touched], dense[touched], **close)
        rows.step(touched, gradient[touched])
        sparse = torch.zeros(40, 11).index_copy(0, touched, gradient[touched])
        mean.lerp_(sparse, 0.1)
        square.lerp_(sparse.square(), 0.001)
        rate = 0.01 * (1 - 0.999 ** (step + 1)) ** 0.5 / (1 - 0.9 ** (step + 1))
        dense -= rate * mean / (square.sqrt() + 1e-7)
        (flat_weight * sparse).sum().backward()
        flat.step(flat.take_gradients())
        if step % flush_every == 0:
            rows.flush()
    rows.flush()
    torch.testing.assert_close(weight, dense, **close)
    torch.testing.assert_close(flat_weight.detach(), dense, **close)


@pytest.mark.parametrize(("n_items", "width"), [(2, 1), (7, 5), (100, 130)])
def test_rectified_and_normalised_in_one_call(n_items: int, width: int, kernels: str) -> None:
    generator = torch.Generator().manual_seed(0)
    product, upstream = (torch.randn(n_items, width, generator=generator) for _ in range(2))
    bias = torch.randn(width, generator=generator)
    results = []
    for fused in (True, False):
        norm = BatchNorm(width)
        with torch.no_grad():
            norm.weight.copy_(bias.exp())
            norm.bias.copy_(bias.cos())
        inputs = product.clone().requires_grad_(), bias.clone().requires_grad_()
        out = norm.rectified(*inputs) if fused else norm(torch.relu(inputs[0] + inputs[1]))
        grads = torch.autograd.grad(out, (*inputs, norm.weight, norm.bias), upstream)
        results.append([out, *grads, *norm.state_dict().values()])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_batch_norm_forgets_its_start() -> None:
    x = 5 + 3 * torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    norm = BatchNorm(4)
    norm.train()
    for _ in range(3):
        norm(x)
    torch.testing.assert_close(norm.running_mean, x.mean(0))
    torch.testing.assert_close(norm.running_var, x.var(0))
    norm(x[:1])  # one item has no variance: nothing is learned from it
    torch.testing.assert_close(norm.running_mean, x.mean(0))


def test_sparse_training_equals_dense_training(items: Any) -> None:
    X, y = items
    sparse = SSBVAE(**PAPER).fit(X, y)
    dense = SSBVAE(**PAPER).fit(X.toarray(), y)
    for left, right in zip(sparse.history_, dense.history_, strict=True):
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-3)


@pytest.mark.parametrize(("n_units", "expected"), [(16, 1), (2500, 2)])
def test_small_products_run_on_one_thread(
    items: Any, n_units: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = items
    seen = []
    stepped = Optimizer.step

    def step(self: Any, *arguments: Any) -> None:
        seen.append(torch.get_num_threads())
        stepped(self, *arguments)

    monkeypatch.setattr(Optimizer, "step", step)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        options = PAPER | {"n_hidden_units": n_units, "n_epochs": 1}
        SSBVAE(**options).fit(X[:40], y[:40])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_threads)
    assert set(seen) == {expected}


def test_history_names_every_term(items: Any) -> None:
    X, y = items
    hasher = SSBVAE(**PAPER, validation_fraction=0.25).fit(X, y)
    terms = {"reconstruction", "kl", "point", "pair", "loss"}
    expected = terms | {f"val_{term}" for term in terms} | {"val_accuracy", "epoch", "seconds"}
    for row in hasher.history_:
        assert set(row) == expected
        supervised = hasher.gamma * row["point"] + row["pair"]
        total = row["reconstruction"] + hasher.beta * row["kl"] + hasher.alpha * supervised
        assert row["loss"] == pytest.approx(total, rel=1e-4)


def test_callbacks_get_the_figures_of_each_epoch(items: Any) -> None:
    X, y = items
    seen: list[dict[str, float]] = []
    hasher = SSBVAE(**PAPER, validation_fraction=0.25).fit(X, y, callbacks=[seen.append, len])
    assert seen == hasher.history_

    def change(row: dict[str, float]) -> None:
        row.clear()  # the history has rows of its own

    def fail(row: dict[str, float]) -> None:
        raise RuntimeError("no connection")

    assert hasher.fit(X, y, callbacks=[change]).history_[0]["epoch"] == 1
    with pytest.raises(RuntimeError, match="no connection"):
        hasher.fit(X, y, callbacks=[fail])
    with pytest.raises(TypeError, match="callbacks must be functions, got str"):
        hasher.fit(X, y, callbacks=["print"])


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_early_stopping_goes_back_to_the_best_epoch(items: Any, monitor: str) -> None:
    X, y = items
    parameters = PAPER | {"n_epochs": 200, "learning_rate": 0.05}
    hasher = SSBVAE(**parameters, validation_fraction=0.25, patience=3, monitor=monitor).fit(X, y)
    values = [row[monitor] for row in hasher.history_]
    best = int(np.argmin(values) if monitor == "val_loss" else np.argmax(values)) + 1
    assert hasher.best_epoch_ == best
    assert hasher.n_epochs_ == best + 3 < 200
    again = SSBVAE(**(parameters | {"n_epochs": best}), validation_fraction=0.25).fit(X, y)
    np.testing.assert_array_equal(hasher.logits(X), again.logits(X))


def test_monitor_that_is_not_measured(items: Any) -> None:
    X, _ = items
    with pytest.raises(ValueError, match="monitor='val_accuracy'"):
        VDSH(**SMALL, validation_fraction=0.2, monitor="val_accuracy").fit(X)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, n_batches: int) -> None:
    """Raise KeyboardInterrupt in the batch after `n_batches`, as Ctrl-C would."""
    calls = itertools.count()
    original = Data.batch

    def cut(self: Any, *args: Any) -> Any:
        if next(calls) == n_batches:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(Data, "batch", cut)


def test_interrupt_keeps_the_last_finished_epoch(
    items: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = items
    two = SSBVAE(**(PAPER | {"n_epochs": 2})).fit(X, y)
    interrupt_after(monkeypatch, 2 * 7 + 3)  # in the third epoch
    hasher = SSBVAE(**PAPER).fit(X, y)
    assert hasher.interrupted_
    assert not two.interrupted_
    assert hasher.n_epochs_ == 2
    np.testing.assert_array_equal(hasher.logits(X), two.logits(X))


def test_interrupt_before_the_first_epoch_is_raised(
    items: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, 3)
    hasher = SSBVAE(**PAPER)
    with pytest.raises(KeyboardInterrupt):
        hasher.fit(*items)
    assert not hasattr(hasher, "history_")


def test_diverging_loss_is_an_error(items: Any) -> None:
    X, y = items
    with pytest.raises(RuntimeError, match="lower learning_rate"):
        SSBVAE(**PAPER, learning_rate=1e30).fit(X, y)


def test_progress_bar_is_silent_off_a_terminal(items: Any, capsys: Any) -> None:
    SSBVAE(**PAPER, verbose=True).fit(*items)
    assert capsys.readouterr() == ("", "")


def test_bfloat16_trains_to_about_the_same_loss(items: Any) -> None:
    X, y = items
    full = SSBVAE(**PAPER).fit(X.toarray(), y).history_[-1]["loss"]
    for features in (X, X.toarray()):
        half = SSBVAE(**PAPER, precision="bfloat16").fit(features, y)
        assert half.history_[-1]["loss"] == pytest.approx(full, rel=0.01)
        assert half.logits(X).dtype == np.float32


def test_gradient_flows_through_the_predictions_of_ssb_vae_alone() -> None:
    from ssbhash.nn.autoencoder import Shape, Weights
    from ssbhash.nn.phs_gs import PHSGSNetwork
    from ssbhash.nn.ssb_vae import SSBVAENetwork

    shape = Shape(n_features=5, n_targets=5, n_bits=3, n_classes=2, n_hidden_units=4)
    x = torch.rand(6, 5, generator=torch.Generator().manual_seed(0))
    hidden = torch.zeros(6, 2), torch.zeros(6, dtype=torch.bool)
    for kind, flows in ((SSBVAENetwork, True), (PHSGSNetwork, False)):
        generator = torch.Generator().manual_seed(0)
        network = kind(shape, Weights(alpha=1.0), generator)
        assert isinstance(network.encoder, Encoder)
        network.terms(TrainingBatch(x, x, *hidden), generator)["loss"].backward()
        gradient = network.classifier.weight.grad
        assert (gradient is not None and bool(gradient.abs().sum() > 0)) is flows


@pytest.mark.parametrize("validation_fraction", [0.0, 0.2])
@pytest.mark.parametrize("dense", [False, True])
def test_resumed_training_gives_the_weights_of_an_uninterrupted_one(
    items: Any,
    dense: bool,
    validation_fraction: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = items
    X = X.toarray() - 0.5 if dense else X
    parameters = SMALL | {"validation_fraction": validation_fraction}
    if validation_fraction:
        parameters["patience"] = 10
    whole = SSBVAE(**parameters).fit(X, y)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2 * 9 + 3)
        part = SSBVAE(**parameters, checkpoint=tmp_path).fit(X, y)
    assert part.interrupted_
    assert part.n_epochs_ < 4
    resumed = SSBVAE(**parameters, checkpoint=str(tmp_path)).fit(X, y)
    assert resumed.n_epochs_ == 4
    np.testing.assert_array_equal(resumed.logits(X), whole.logits(X))
    for left, right in zip(resumed.history_, whole.history_, strict=True):
        assert left | {"seconds": 0} == right | {"seconds": 0}
    again = SSBVAE(**parameters, checkpoint=tmp_path).fit(X, y)  # nothing is left to do
    np.testing.assert_array_equal(again.logits(X), whole.logits(X))
    longer = SSBVAE(**(parameters | {"n_epochs": 6}), checkpoint=tmp_path).fit(X, y)
    assert [row["epoch"] for row in longer.history_] == [1, 2, 3, 4, 5, 6]


def test_checkpoint_of_another_training_is_refused(items: Any, tmp_path: Path) -> None:
    X, y = items
    SSBVAE(**SMALL, checkpoint=tmp_path).fit(X, y)
    with pytest.raises(ValueError, match="another training"):
        SSBVAE(**SMALL, checkpoint=tmp_path, seed=1).fit(X, y)
    with pytest.raises(ValueError, match="another training"):
        SSBVAE(**SMALL, checkpoint=tmp_path).fit(X, np.where(y == 2, -1, y))
    with pytest.raises(ValueError, match="4 epochs, more than"):
        SSBVAE(**(SMALL | {"n_epochs": 2}), checkpoint=tmp_path).fit(X, y)
    file = tmp_path / "checkpoint.safetensors"
    for content in (file.read_bytes()[:-10], b"PK", b""):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="truncated or foreign"):
            SSBVAE(**SMALL, checkpoint=tmp_path).fit(X, y)
    with pytest.raises(TypeError, match="checkpoint"):
        SSBVAE(**SMALL, checkpoint=3).fit(X, y)


def test_memory_mapped_items_train_as_those_in_memory(items: Any, tmp_path: Path) -> None:
    X, y = items
    for features in (X.toarray(), X.toarray().astype(np.float16), X.toarray() - 1):
        np.save(tmp_path / "X.npy", features)
        mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
        assert isinstance(mapped, np.memmap)
        hasher, other = SSBVAE(**SMALL).fit(mapped, y), SSBVAE(**SMALL).fit(features, y)
        np.testing.assert_array_equal(hasher.logits(mapped), other.logits(features))
    features[70, 3] = np.nan
    np.save(tmp_path / "X.npy", features)
    with pytest.raises(ValueError, match="NaN"):
        SSBVAE(**SMALL).fit(np.load(tmp_path / "X.npy", mmap_mode="r"), y)


def write_shards(folder: Path, X: Any, ends: list[int]) -> None:
    for number, (start, end) in enumerate(itertools.pairwise([0, *ends, X.shape[0]])):
        sp.save_npz(folder / f"{number}.npz", sp.csr_array(X[start:end]))


def test_shards_train_as_the_matrix_that_they_make(items: Any, tmp_path: Path) -> None:
    X, y = items
    write_shards(tmp_path, X, [50, 50, 120])
    shards = CsrShards(tmp_path, n_open=4)
    assert shards.shape == (200, 30)
    ids = np.array([199, 0, 60, 60, 3])
    np.testing.assert_array_equal(shards[ids].toarray(), X[ids].toarray())
    hasher, other = SSBVAE(**SMALL).fit(shards, y), SSBVAE(**SMALL).fit(X, y)
    np.testing.assert_array_equal(hasher.logits(shards), other.logits(X))
    few = CsrShards(tmp_path, n_open=1)
    hasher = SSBVAE(**PAPER, reconstruction="gaussian").fit(few, y, target=few)
    assert len(few._open) == 1
    np.testing.assert_array_equal(hasher.logits(few), hasher.logits(X))
    with pytest.raises(ValueError, match="30 features"):
        hasher.transform(X[:, :20])


def test_bad_shards(items: Any, tmp_path: Path) -> None:
    X, _ = items
    with pytest.raises(ValueError, match=r"no \.npz shard"):
        CsrShards(tmp_path)
    write_shards(tmp_path, X, [50])
    sp.save_npz(tmp_path / "2.npz", sp.csr_array(X[:, :20]))
    with pytest.raises(ValueError, match="numbers of columns"):
        CsrShards(tmp_path)
    sp.save_npz(tmp_path / "2.npz", sp.csr_array(X * np.nan))
    with pytest.raises(ValueError, match="NaN"):
        CsrShards(tmp_path)
    (tmp_path / "2.npz").write_bytes((tmp_path / "1.npz").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"2\.npz"):
        CsrShards(tmp_path)


@pytest.mark.parametrize("starts", [None, [0, 7, 90]])
def test_shuffle_takes_every_item_once_and_windows_whole(starts: Any) -> None:
    windows = None if starts is None else np.array(starts)
    ids = np.delete(np.arange(120), [3, 50])
    shuffled = shuffle(ids, np.random.default_rng(0), windows)
    np.testing.assert_array_equal(np.sort(shuffled), ids)
    assert not np.array_equal(shuffled, ids)
    if starts is not None:
        window = np.searchsorted(starts, shuffled, side="right")
        assert (np.diff(window) != 0).sum() == 2


TWO_PROCESSES = """
import json, sys
import numpy as np
import scipy.sparse as sp
import torch.distributed as dist
from ssbhash import SSBVAE

folder, parameters = sys.argv[1], json.loads(sys.argv[2])
dist.init_process_group("gloo")
X, y = sp.load_npz(folder + "/X.npz"), np.load(folder + "/y.npy")
hasher = SSBVAE(**parameters).fit(X, y)
np.savez(f"{folder}/rank{dist.get_rank()}.npz", logits=hasher.logits(X),
         loss=[row["loss"] for row in hasher.history_], classes=hasher.predict(X))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_train_as_one(items: Any, tmp_path: Path) -> None:
    X, y = items
    parameters = SMALL | {"n_epochs": 15, "batch_size": 40, "preset": "paper"}
    parameters |= {"alpha": 0.01, "gamma": 100.0}
    sp.save_npz(tmp_path / "X.npz", X)
    np.save(tmp_path / "y.npy", y)
    (tmp_path / "train.py").write_text(TWO_PROCESSES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node=2", str(tmp_path / "train.py"), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, json.dumps(parameters)], check=True, env=environment, timeout=120)
    ranks = [np.load(tmp_path / f"rank{rank}.npz") for rank in range(2)]
    np.testing.assert_array_equal(ranks[0]["logits"], ranks[1]["logits"])
    np.testing.assert_array_equal(ranks[0]["loss"], ranks[1]["loss"])
    one = SSBVAE(**parameters).fit(X, y)
    other_seed = SSBVAE(**parameters, seed=1).fit(X, y)
    losses = [[row["loss"] for row in hasher.history_] for hasher in (one, other_seed)]
    noise = abs(losses[0][-1] - losses[1][-1])
    assert abs(ranks[0]["loss"][-1] - losses[0][-1]) < max(3 * noise, 0.1 * abs(losses[0][-1]))
    known = y >= 0
    right = (ranks[0]["classes"] == y)[known].mean()
    assert abs(right - (one.predict(X) == y)[known].mean()) < 0.15
