"""The distance from vectors that were learnt from, against scipy's and by its own scale."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.distance import mahalanobis

from models.likeness import Likeness, WithDistance, pooled
from models.networks import RecordingNet


def fitted(vectors: torch.Tensor, n_components: int) -> Likeness:
    likeness = Likeness(vectors.shape[1], n_components)
    likeness.fit(vectors)
    return likeness


def test_with_all_but_one_component_it_is_the_mahalanobis_distance() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6))
    likeness = fitted(torch.from_numpy(vectors).float(), 5)
    covariance = np.cov(vectors.T, bias=True)
    values, directions = np.linalg.eigh(covariance)
    others = rng.normal(scale=3.0, size=(20, 6))
    # within: over five components; outside: the least one, whose deviation is spread over six values
    within = [mahalanobis(o, vectors.mean(0), _inverse(values, directions)) ** 2 / 5 for o in others]
    along_least = ((others - vectors.mean(0)) @ directions[:, 0]) ** 2 / values[0]
    found = likeness(torch.from_numpy(others).float())[:, 0].numpy()
    np.testing.assert_allclose(found, within + along_least, rtol=1e-3)


def _inverse(values: np.ndarray, directions: np.ndarray) -> np.ndarray:
    return np.asarray(directions[:, 1:] / values[1:] @ directions[:, 1:].T)


def test_an_average_vector_of_those_learnt_from_lies_at_two() -> None:
    vectors = torch.randn(2000, 100, generator=torch.Generator().manual_seed(1))
    assert abs(float(fitted(vectors, 40)(vectors).mean()) - 2.0) < 1e-3


def test_an_exported_network_answers_as_before_and_gives_the_distance_of_its_features() -> None:
    torch.manual_seed(2)
    network = RecordingNet(3, widths=(16, 24), blocks=1).eval()
    x = torch.randn(80, 12, 160)
    measured = WithDistance(network, network.classifier.in_channels)
    features = pooled(network.features(x)).detach()
    measured.likeness.fit(features)
    logits, evidence, distance = measured(x)
    torch.testing.assert_close((logits, evidence), network(x))
    torch.testing.assert_close(distance, measured.likeness(features))
    assert distance.shape == (80, 1)
