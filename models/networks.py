"""The networks of the shipped bundles: one for films, one for recordings, one for the gate.

The last layer is linear after global average pooling, so a finding's logit is the mean of its class activation map
plus a bias (Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016, equation 2): logits and
evidence maps come from the same pass.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from monai.networks.blocks.squeeze_and_excitation import ChannelSELayer
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.efficientnet import EfficientNet
from torch import Tensor, nn
from torch.nn.functional import interpolate

from models.likeness import Likeness


def standardise(films: Tensor) -> Tensor:
    """Each film to mean 0 and deviation 1, ``(n, 1, rows, columns) float32``; a blank one becomes zero.

    The mean is taken of each row and then of the rows: one sum over a whole film loses digits in fp32, and not the same
    ones in every runtime.
    """
    centred = films - films.mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
    return centred / (centred.square().mean(dim=3, keepdim=True).mean(dim=2, keepdim=True).sqrt() + 1.0)


class ChannelDropout(nn.Module):
    """Leaves out whole channels, each with probability ``p``; in ``eval`` mode the identity.

    Neighbours in time and space are nearly equal, so dropping single values would drop little; before the last layer it
    is the usual dropout of pooled features. Every process draws the mask of the whole batch from the same random state
    and uses its own rows, so that two processes drop what one would.

    References
    ----------
    Tompson et al., Efficient Object Localization Using Convolutional Networks, CVPR 2015, section 3.2.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        several = dist.is_available() and dist.is_initialized()
        world_size, rank = (dist.get_world_size(), dist.get_rank()) if several else (1, 0)
        n, channels = x.shape[:2]
        kept = torch.rand(world_size * n, channels, device=x.device)[rank * n : (rank + 1) * n] >= self.p
        return x * (kept.to(x.dtype) / (1 - self.p)).view(n, channels, *[1] * (x.ndim - 2))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class DepthwiseConv2d(nn.Conv2d):
    """One filter for each channel; in fp32 under bf16 autocast on a CPU, where its bf16 gradient is slow."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(x.dtype)


class FilmNet(nn.Module):
    """EfficientNet-lite0 over a film (3.4 million weights); ImageNet weights exist for it.

    Parameters
    ----------
    n_findings
        Columns of the logits.

    Notes
    -----
    Input ``(n, 1, side, side) uint8`` (float in training). Each film is brought to mean 0 and deviation 1 inside the
    graph, so that exposure and window width, which differ between hospitals, carry no information. Output
    ``logits (n, n_findings) float32`` and ``evidence (n, n_findings, side/32, side/32) float32``, the class
    activation maps.

    References
    ----------
    Tan and Le, EfficientNet, ICML 2019, table 1; the `lite` variants (2020) leave out squeeze-and-excitation and
    bound the activations at 6.
    """

    BLOCKS = (
        "r1_k3_s11_e1_i32_o16",
        "r2_k3_s22_e6_i16_o24",
        "r2_k5_s22_e6_i24_o40",
        "r3_k3_s22_e6_i40_o80",
        "r3_k5_s11_e6_i80_o112",
        "r4_k5_s22_e6_i112_o192",
        "r1_k3_s11_e6_i192_o320",
    )
    """Stages in MONAI's notation: repeats, kernel, stride, expansion, channels in and out."""

    def __init__(self, n_findings: int, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.backbone = EfficientNet(
            blocks_args_str=list(self.BLOCKS),
            spatial_dims=2,
            in_channels=1,
            width_coefficient=1.0,
            depth_coefficient=1.0,
            dropout_rate=0.0,
            image_size=224,
            drop_connect_rate=0.0,
        )
        channels = self.backbone._fc.in_features
        del self.backbone._fc
        for part in self.backbone.modules():
            if hasattr(part, "_swish"):
                part._swish = nn.ReLU6(inplace=True)
            if hasattr(part, "_depthwise_conv"):
                part._depthwise_conv = _depthwise(part._depthwise_conv)
        self.dropout = ChannelDropout(dropout)
        self.classifier = nn.Conv2d(channels, n_findings, kernel_size=1)

    def features(self, films: Tensor) -> Tensor:
        """``(n, 1280, side/32, side/32)``: what the classifier looks at."""
        net = self.backbone
        x = net._swish(net._bn0(net._conv_stem(net._conv_stem_padding(standardise(films.float())))))
        return torch.as_tensor(net._swish(net._bn1(net._conv_head(net._blocks(x)))))

    def head(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and evidence of :meth:`features`."""
        evidence = self.classifier(self.dropout(features))
        return evidence.mean(dim=(2, 3)), evidence

    def forward(self, films: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.features(films))


def _depthwise(plain: nn.Conv2d) -> DepthwiseConv2d:
    return DepthwiseConv2d(
        plain.in_channels, plain.out_channels, plain.kernel_size, plain.stride, groups=plain.groups, bias=False
    )


class _Residual(nn.Module):
    """Two convolutions over time with squeeze-and-excitation (Hu et al., CVPR 2018) and an identity path."""

    def __init__(self, channels_in: int, channels: int, *, kernel: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv1d(channels_in, channels, kernel, stride=stride, padding=kernel // 2, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(inplace=True),
            ChannelDropout(dropout),
            nn.Conv1d(channels, channels, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm1d(channels),
            ChannelSELayer(spatial_dims=1, in_channels=channels, r=8),
        )
        same = stride == 1 and channels_in == channels
        self.identity: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.AvgPool1d(stride, ceil_mode=True) if stride > 1 else nn.Identity(),
                nn.Conv1d(channels_in, channels, 1, bias=False),
                nn.BatchNorm1d(channels),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.path(x) + self.identity(x))


class Member(nn.Module):
    """One residual network over a recording: ``(n, 12, n_samples)`` to ``(n, channels, n_samples/16)``."""

    def __init__(self, *, widths: tuple[int, ...], blocks: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(12, widths[0], 15, padding=7, bias=False), nn.BatchNorm1d(widths[0]), nn.ReLU(inplace=True)
        )
        stages: list[nn.Module] = []
        channels = widths[0]
        for width in widths:
            for block in range(blocks):
                stages.append(_Residual(channels, width, kernel=kernel, stride=2 if block == 0 else 1, dropout=dropout))
                channels = width
        self.stages = nn.Sequential(*stages)

    def forward(self, recordings: Tensor) -> Tensor:
        return torch.as_tensor(self.stages(self.stem(recordings)))


class RecordingNet(nn.Module):
    """An ensemble of small residual networks over a twelve-lead recording, with one linear layer over all of them.

    After the 1-D networks of He et al. 2019 as used by Strodthoff et al. 2021. Four members of half the width take the
    time of one of the full width. In training, each member gives logits by its own part of the last layer and has its
    own loss; in serving, the last layer takes all members at once and gives the mean of their logits.

    Parameters
    ----------
    kernels
        Width of the convolutions of each member, in samples.

    Notes
    -----
    Input ``(n, 12, n_samples) float32``, standard deviations. Output ``logits (n, n_findings) float32`` and
    ``evidence (n, n_findings, n_samples/16) float32``, the class activation maps over time; in training
    ``(n_members, n, n_findings)`` and the features.

    References
    ----------
    Strodthoff et al., Deep Learning for ECG Analysis: Benchmarks and Insights from PTB-XL, IEEE JBHI 2021;25:1519.
    """

    def __init__(
        self,
        n_findings: int,
        *,
        kernels: tuple[int, ...] = (5, 7, 5, 7),
        widths: tuple[int, ...] = (32, 48, 64, 96),
        blocks: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            Member(widths=widths, blocks=blocks, kernel=kernel, dropout=dropout) for kernel in kernels
        )
        self.dropout = ChannelDropout(dropout)
        self.classifier = nn.Conv1d(len(kernels) * widths[-1], n_findings, kernel_size=1)

    def features(self, recordings: Tensor) -> Tensor:
        """``(n, channels of all members, n_samples/16)``: what the classifier looks at."""
        return torch.cat([member(recordings) for member in self.members], dim=1)

    def head(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and evidence of :meth:`features`, of all members together."""
        evidence = self.classifier(features / len(self.members))
        return evidence.mean(dim=2), evidence

    def forward(self, recordings: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(recordings)
        if self.training:
            return self.member_logits(self.dropout(features)), features
        return self.head(features)

    def member_logits(self, features: Tensor) -> Tensor:
        """Logits ``(n_members, n, n_findings)``, each member's by its own part of the last layer."""
        pooled = features.mean(dim=2).unflatten(1, (len(self.members), -1))
        weight = self.classifier.weight.squeeze(2).unflatten(1, (len(self.members), -1))
        bias = self.classifier.bias
        return torch.einsum("nmc,kmc->mnk", pooled, weight) + (0 if bias is None else bias)


class GateNet(nn.Module):
    """Is this an upright frontal chest film, is its grey scale right, are the lungs whole, on which side is the heart?

    A small U-Net (Ronneberger et al., MICCAI 2015) outlines the lung fields, and four logits come from its deepest
    layer. A linear model of real chest films, the principal components of their thumbnails, gives the distance of this
    film from all of them: it finds pictures that are like none of the negatives of the training.

    Notes
    -----
    Input ``(n, 1, side, side) uint8``. Output ``logits (n, 4) float32`` (``chest``, ``inverted``, ``cut_off``,
    ``heart_on_the_right``), ``distance (n, 1) float32`` and ``lungs (n, 1, side, side) float32`` (logits of the lung
    fields).
    """

    THUMBNAIL = 32

    def __init__(self, n_components: int = 48) -> None:
        super().__init__()
        self.unet = BasicUNet(
            spatial_dims=2, in_channels=1, out_channels=1, features=(16, 32, 48, 64, 96, 16), act="relu", norm="batch"
        )
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * 96, 4))
        self.likeness = Likeness(self.THUMBNAIL**2, n_components)

    def forward(self, films: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        films = films.float()
        x = standardise(films)
        net = self.unet
        x0 = net.conv_0(x)
        x1 = net.down_1(x0)
        x2 = net.down_2(x1)
        x3 = net.down_3(x2)
        x4 = net.down_4(x3)
        logits = self.head(torch.cat([x4.mean(dim=(2, 3)), x4.amax(dim=(2, 3))], dim=1))
        lungs = net.final_conv(net.upcat_1(net.upcat_2(net.upcat_3(net.upcat_4(x4, x3), x2), x1), x0))
        return logits, self.likeness(self.thumbnail(films)), lungs

    def thumbnail(self, films: Tensor) -> Tensor:
        """``(n, 1, side, side)`` to standardised thumbnails ``(n, 1024)``."""
        small = interpolate(films, size=(self.THUMBNAIL, self.THUMBNAIL), mode="bilinear")
        return standardise(small).flatten(1)

    @torch.no_grad()
    def fit_distance(self, films: Tensor) -> None:
        """Learn the thumbnails of real films ``(n, 1, side, side) uint8``."""
        self.likeness.fit(torch.cat([self.thumbnail(part.float()) for part in films.split(256)]))
