"""Networks of bundles that shipped before those of :mod:`models.networks`, so that they can be trained further.

The graphs of these bundles were optimised at export: batch norms were merged into the convolutions before them. So the
networks here have no batch norms and a bias in each convolution, and learn like a network with fixed statistics. They
are only ever filled from a bundle.
"""

from __future__ import annotations

from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn, zeros

from models.networks import ChannelDropout, Member, standardise


def without_norms(network: nn.Module) -> nn.Module:
    """``network`` as if its batch norms were merged into the convolutions: they are gone, and these have a bias."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
        if isinstance(module, nn.Conv1d | nn.Conv2d) and module.bias is None:
            module.bias = nn.Parameter(zeros(module.out_channels))
    return network


class FilmNet1(nn.Module):
    """The network of ``lung`` 1.0.0: residual, 18 layers of half the usual width. Input and output as ``FilmNet``.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016, table 1.
    """

    def __init__(self, n_findings: int, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.backbone = without_norms(
            ResNet(
                block="basic",
                layers=[2, 2, 2, 2],
                block_inplanes=[32, 64, 128, 256],
                spatial_dims=2,
                n_input_channels=1,
                conv1_t_stride=2,
                feed_forward=False,
            )
        )
        self.dropout = ChannelDropout(dropout)
        self.classifier = nn.Conv2d(256, n_findings, kernel_size=1)

    def features(self, films: Tensor) -> Tensor:
        """``(n, 256, side/32, side/32)``: what the classifier looks at."""
        net = self.backbone
        x = net.maxpool(net.act(net.bn1(net.conv1(standardise(films.float())))))
        found: Tensor = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        return found

    def head(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and evidence of :meth:`features`."""
        evidence = self.classifier(self.dropout(features))
        return evidence.mean(dim=(2, 3)), evidence

    def forward(self, films: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.features(films))


class RecordingNet1(Member):
    """The network of ``cardiac`` 1.0: one member of the full width. Input and output as ``RecordingNet``."""

    def __init__(self, n_findings: int, *, dropout: float = 0.2) -> None:
        super().__init__(widths=(64, 96, 128, 192), blocks=2, kernel=7, dropout=dropout)
        without_norms(self)
        self.dropout = ChannelDropout(dropout)
        self.classifier = nn.Conv1d(192, n_findings, kernel_size=1)

    def features(self, recordings: Tensor) -> Tensor:
        """``(n, 192, n_samples/16)``: what the classifier looks at."""
        return super().forward(recordings)

    def head(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and evidence of :meth:`features`."""
        evidence = self.classifier(self.dropout(features))
        return evidence.mean(dim=2), evidence

    def forward(self, recordings: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return self.head(self.features(recordings))


EARLIER = {"lung": (FilmNet1,), "cardiac": (RecordingNet1,)}
"""By bundle, the networks that its earlier versions may hold."""
