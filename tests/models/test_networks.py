"""Networks: logits are the mean of their maps, shapes are what the manifest says, a case does not see its batch."""

from __future__ import annotations

import pytest
import torch

from models.networks import FilmNet, GateNet, RecordingNet


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def test_film_logits_are_the_mean_of_the_maps() -> None:
    logits, evidence = FilmNet(5).eval()(torch.randint(0, 256, (2, 1, 224, 224), dtype=torch.uint8))
    assert logits.shape == (2, 5)
    assert evidence.shape == (2, 5, 7, 7)
    torch.testing.assert_close(logits, evidence.mean(dim=(2, 3)))


def test_recording_logits_are_the_mean_of_the_maps() -> None:
    logits, evidence = RecordingNet(6).eval()(torch.randn(2, 12, 1000))
    assert logits.shape == (2, 6)
    assert evidence.shape == (2, 6, 63)
    torch.testing.assert_close(logits, evidence.mean(dim=2))


def test_an_ensemble_answers_with_the_mean_of_its_members() -> None:
    network, x = RecordingNet(6), torch.randn(2, 12, 1000)
    of_each, _ = network(x)
    assert of_each.shape == (4, 2, 6)
    network.eval()
    torch.testing.assert_close(network.member_logits(network.features(x)).mean(dim=0), network(x)[0])


def test_exposure_and_window_carry_no_information() -> None:
    network = FilmNet(3).eval()
    film = torch.rand(1, 1, 224, 224) * 100 + 20
    same_film_brighter = film * 1.8 + 15
    torch.testing.assert_close(network(film)[0], network(same_film_brighter)[0], atol=0.1, rtol=0)


def test_distance_grows_away_from_the_films_it_was_fitted_to() -> None:
    gate = GateNet(n_components=8).eval()
    ramp = torch.linspace(0, 200, 64).expand(64, 64)
    films = (ramp + 20 * torch.randn(200, 1, 64, 64)).clamp(0, 255).to(torch.uint8)
    gate.fit_distance(films)
    near = gate(films[:20])[1]
    far = gate(films[:20].flip(3))[1]
    assert near.max() < far.min()
