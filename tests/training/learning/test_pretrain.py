"""Pretraining without labels: learns, does not collapse, resumes to the bit, and sees nobody it must not see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from data_specs.bundle import TrainingData
from models.networks import FilmNet, RecordingNet
from tests.training.cohorts.test_checks import made, planted, write
from training.cohorts.cohort import Cohort
from training.learning import pretrain as module
from training.learning.pretrain import CannotPretrain, Pretext, Unlabelled, pooled_features, pretrain, unlabelled_cases
from training.learning.start import fill_backbone, parts_of
from training.learning.vicreg import vicreg
from training.organs import lung as workflow


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def network() -> RecordingNet:
    torch.manual_seed(3)
    return RecordingNet(1, widths=(8, 16), blocks=1, kernels=(5, 7))


def cases(n: int = 64) -> Unlabelled:
    """Waves of eight rates with eight shapes over the leads, in noise."""
    generator = torch.Generator().manual_seed(1)
    rate, shape = torch.arange(n) % 8, (torch.arange(n) // 8) % 8
    time = torch.arange(200) / 100.0
    leads = torch.randn(8, 12, 1, generator=generator)[shape]
    x = leads * torch.sin(2 * torch.pi * (1.0 + rate[:, None, None]) * time)
    return Unlabelled(x + 0.1 * torch.randn(n, 12, 200, generator=generator), ("waves",), n)


PRETEXT = Pretext(epochs=6, batch_size=32, learning_rate=3e-3, bf16=False)


@torch.no_grad()
def features(net: nn.Module, x: Tensor) -> Tensor:
    return pooled_features(net.eval(), x)


def test_the_loss_falls_and_the_features_stay_apart(tmp_path: Path) -> None:
    short = pretrain(network(), cases(), module.recordings, PRETEXT, tmp_path / "short.pt")
    long = pretrain(
        network(), cases(), module.recordings, Pretext(**{**PRETEXT.__dict__, "epochs": 24}), tmp_path / "long.pt"
    )
    assert float(long["loss"]) < 0.9 * float(short["loss"])
    assert float(long["spread"]) > 0.5
    trained = network()
    fill_backbone(trained, str(tmp_path / "long.pt"))
    # Two looks at a case lie closer than two cases do, and more than one direction is used.
    x = cases().x
    generator = torch.Generator().manual_seed(9)
    a, b = (features(trained, module.recordings(x, generator)) for _ in range(2))
    centre, deviation = a.mean(dim=0), a.std(dim=0) + 1e-6
    a, b = (a - centre) / deviation, (b - centre) / deviation
    own, others = (a - b).norm(dim=1).mean(), torch.cdist(a, b).mean()
    untrained = features(network(), module.recordings(x, generator))
    assert own < 0.75 * others
    assert a.std(dim=0).min() > 0.5
    assert rank(a) > 2
    assert rank(a) > 0.5 * rank(untrained)


def rank(z: Tensor) -> float:
    """Participation ratio of the features' principal values: 1 where all say the same."""
    values = torch.linalg.svdvals(z - z.mean(dim=0)).square()
    return float(values.sum().square() / values.square().sum())


def test_the_terms_are_what_they_are_named_after() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4096, 4, generator=generator)
    z = (z - z.mean(dim=0)) / z.std(dim=0)
    assert vicreg(z, z) < 0.01
    # Both looks have collapsed: 25 times the hinge, whose root starts at epsilon.
    assert float(vicreg(torch.zeros(64, 4), torch.zeros(64, 4))) == pytest.approx(25 * 0.99, rel=1e-3)
    # All four features say the same: 12 of 16 covariances are one, over four features, in each look.
    same = z[:, :1].expand(-1, 4)
    assert float(vicreg(same, same)) == pytest.approx(2 * 12 / 4, rel=1e-3)
    assert float(vicreg(z, -z)) == pytest.approx(25 * 4, rel=1e-2)


def test_an_interrupted_run_ends_as_it_would_have(tmp_path: Path) -> None:
    pretrain(network(), cases(), module.recordings, PRETEXT, tmp_path / "whole.pt")

    class Killed(Exception):
        pass

    def killed(batch: Tensor, generator: torch.Generator) -> Tensor:
        calls.append(len(batch))
        if len(calls) > 3 * 16 + 5:  # 16 looks of eight cases an epoch
            raise Killed
        return module.recordings(batch, generator)

    calls: list[int] = []
    with pytest.raises(Killed):
        pretrain(network(), cases(), killed, PRETEXT, tmp_path / "part.pt")
    assert (tmp_path / "part.pt.run").exists()
    longer = Pretext(**{**PRETEXT.__dict__, "epochs": 9})
    with pytest.raises(CannotPretrain, match="another epochs"):
        pretrain(network(), cases(), module.recordings, longer, tmp_path / "part.pt")
    pretrain(network(), cases(), module.recordings, PRETEXT, tmp_path / "part.pt")
    assert not (tmp_path / "part.pt.run").exists()
    whole, part = (torch.load(tmp_path / f, weights_only=True) for f in ("whole.pt", "part.pt"))
    assert whole["made_by"] == part["made_by"]
    for name, value in whole["backbone"].items():
        torch.testing.assert_close(part["backbone"][name], value, atol=0, rtol=0, msg=name)


def test_the_file_is_for_init_and_is_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "film.pt"
    x = torch.randint(0, 256, (16, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    film = FilmNet(2)
    before = parts_of(film).state_dict()["backbone._conv_stem.weight"].clone()
    pretrain(film, Unlabelled(x, ("films",), 16), module.films, Pretext(epochs=1, batch_size=16), out)
    assert torch.equal(film.backbone._conv_stem.weight, before)
    says = fill_backbone(film, str(out))
    assert "16 training cases of films, 1 epochs" in says
    assert not torch.equal(film.backbone._conv_stem.weight, before)
    with pytest.raises(FileExistsError):
        pretrain(film, Unlabelled(x, ("films",), 16), module.films, Pretext(epochs=1), out)


def cohort(part: list[str], person: list[str]) -> Cohort:
    n = len(part)
    return Cohort(
        name="local",
        x=np.arange(n, dtype=np.float32)[:, None],
        labels=pd.DataFrame({"abnormal": np.full(n, np.nan)}),
        person=np.array(person),
        part=np.array(part),
        subgroups=pd.DataFrame(index=range(n)),
        source=TrainingData(name="local", citation="none", licence="none", n_persons=1, n_items=n),
    )


def test_only_the_train_part_is_looked_at() -> None:
    part = ["train", "validation", "test", "unused"] * 20
    person = [f"{p}{i // 8}" for i, p in enumerate(part)]
    found = unlabelled_cases([cohort(part, person), cohort(part, person)])
    assert found.x[:, 0].tolist() == [*range(0, 80, 4), *range(0, 80, 4)]
    assert found.n_persons == len({p for p in person if p.startswith("train")})
    with pytest.raises(CannotPretrain, match="1 persons of the train part"):
        unlabelled_cases([cohort(part, ["everybody", "everybody", *person[2:]])])
    with pytest.raises(CannotPretrain, match="at least 16"):
        unlabelled_cases([cohort(["train"] * 5 + ["test"] * 50, [str(i) for i in range(55)])])


def test_views_keep_shape_rate_and_side() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.ones(16, 12, 1000)
    view = module.recordings(x, generator)
    seen = (view != 0).any(dim=1).float().mean(dim=1)
    assert view.shape == x.shape
    assert seen.min() >= 0.4
    assert seen.max() <= 1
    film = torch.zeros(16, 1, 64, 64, dtype=torch.uint8)
    film[..., :32] = 255
    looks = module.films(film, generator)
    assert looks.shape == film.shape
    assert 0 <= float(looks.min()) <= float(looks.max()) <= 255
    # The bright side stays on its side, as far as it is in the window: no flip.
    brighter = looks[..., :16].mean(dim=(1, 2, 3)) - looks[..., -16:].mean(dim=(1, 2, 3))
    assert brighter.min() > -10
    assert brighter.mean() > 100


def test_the_command_refuses_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert module.main(["cardiac", "--data", nowhere, "--out", str(tmp_path / "a.pt"), "--epochs", "1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("cannot pretrain: ")
    assert "Traceback" not in said


def test_the_command_from_a_hospitals_films(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"person": "patient", "file": "image", "split": "part"}
    path = write(tmp_path, made(tmp_path), columns=columns, age_years=[18, 90])
    out = tmp_path / "pretrained.pt"
    options = ["--cohort", str(path), "--out", str(out), "--epochs", "1", "--threads", "1"]
    assert module.main(["lung", *options]) == 0
    assert f"written: {out}" in capsys.readouterr().out
    network = workflow.task((), tmp_path).network(1)
    before = parts_of(network).state_dict()["backbone._conv_stem.weight"].clone()
    assert "training cases of" in fill_backbone(network, str(out))
    assert not torch.equal(parts_of(network).state_dict()["backbone._conv_stem.weight"], before)
    assert module.main(["lung", *options]) == 2
    assert "exists" in capsys.readouterr().err


def test_the_command_stops_at_an_unusable_cohort(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = planted(tmp_path)
    assert module.main(["lung", "--cohort", str(path), "--out", str(tmp_path / "a.pt"), "--epochs", "1"]) == 2
    said = capsys.readouterr().err
    assert "person in two splits" in said
    assert not (tmp_path / "a.pt").exists()
