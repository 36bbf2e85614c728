"""The multilayer perceptron: the image as one long vector, then dense layers.

`depth` hidden layers of `width` units, each linear -> norm -> activation -> dropout, then a linear
head. It knows nothing of neighbourhood: the baseline that shows what convolution is worth, and the
plainest place to study signal propagation.

With the residual path on, every hidden layer but the first (which changes the width) becomes
h = activation(h + norm(linear(h))). The surprising choice: layer norm by default, which does not
care how many images are in the last, ragged batch.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from leadline.core.errors import ModelError
from leadline.models.architecture import Blueprint, Family, Images
from leadline.models.image_model import ImageModel
from leadline.nn.activations import make_activation
from leadline.nn.norms import make_feature_norm
from leadline.nn.residual import ResidualAdd, ResidualBlock
from leadline.nn.stochastic_depth import linear_rates

DEFAULTS = Blueprint(depth=2, width=256, norm="layer", activation="relu", init="he", residual=False)


class HiddenLayer(ResidualBlock):
    """linear -> norm -> (+ shortcut) -> activation -> dropout; B batch, D features."""

    def __init__(
        self, blueprint: Blueprint, *, inputs: int, residual: bool, drop_path_rate: float
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, blueprint.width, bias=blueprint.bias)
        self.norm = make_feature_norm(blueprint.norm, blueprint.width)
        self.join = ResidualAdd(
            residual=residual,
            drop_path_rate=drop_path_rate,
            scaled=residual and blueprint.fixup,
        )
        self.activation = make_activation(blueprint.activation)
        self.dropout = nn.Dropout(blueprint.dropout)

    def branches(self) -> tuple[tuple[nn.Module, ...], ...]:
        return ((self.linear, self.norm),)

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        joined = self.join(self.norm(self.linear(features)), shortcut=features)
        result: Tensor = self.dropout(self.activation(joined))
        return result


class MLP(ImageModel):
    """Images of one fixed size to logits; axes B batch, C channels, H = W side, K classes."""

    def __init__(self, blueprint: Blueprint, images: Images) -> None:
        super().__init__(images, num_features=blueprint.width)
        self.image_size = images.image_size
        inputs = images.in_chans * images.image_size**2
        rates = linear_rates(blueprint.drop_path_rate, blocks=max(1, blueprint.depth - 1))
        first = HiddenLayer(blueprint, inputs=inputs, residual=False, drop_path_rate=0.0)
        others = (
            HiddenLayer(
                blueprint,
                inputs=blueprint.width,
                residual=blueprint.residual,
                drop_path_rate=rate,
            )
            for rate in rates[: blueprint.depth - 1]
        )
        self.layers = nn.Sequential(first, *others)
        self.head = nn.Linear(blueprint.width, images.num_classes)

    def maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        side = self.image_size
        if images.shape[2:] != (side, side):
            raise ModelError(
                expected=f"images of {side} x {side} pixels: an MLP has a weight for each",
                received=f"shape {tuple(images.shape)}",
                remedy="resize the images, or build the model with their size as image_size",
            )
        features: Tensor = self.layers(images.flatten(1))
        return features

    def forward_head(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        logits: Tensor = self.head(features)
        return logits


def problems(blueprint: Blueprint) -> list[str]:
    """What an MLP cannot be asked for."""
    found = []
    if blueprint.norm == "instance":
        found.append("norm: 'instance' averages over height and width, which an MLP has not")
    if blueprint.residual and blueprint.depth < 2:
        found.append(
            f"residual: depth {blueprint.depth} leaves no hidden layer of equal width on both "
            "sides to put a shortcut around: use depth 2 or more"
        )
    return found


MODELS = {
    "mlp": Family(
        caption="multilayer perceptron: depth = hidden layers, width = units in each",
        build=MLP,
        defaults=DEFAULTS,
        image_size=28,
        fixed=frozenset({"preactivation"}),
        problems=problems,
    ),
}
