"""Tests of Inception v3: published sizes, shapes, smallest pictures."""

from __future__ import annotations

import pytest
import torch

from leadline.core.errors import ModelError
from leadline.models.create import create_model


@pytest.mark.parametrize(("auxiliary", "count"), [(True, 27_161_264), (False, 23_834_568)])
def test_it_has_as_many_parameters_as_published(auxiliary: bool, count: int) -> None:
    with torch.device("meta"):
        model = create_model("inception_v3", aux_logits=auxiliary)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_the_width_scales_every_branch() -> None:
    model = create_model("inception_v3", num_classes=3, width=2, aux_logits=False, image_size=75)
    assert model.num_features == 128
    assert model.forward_features(torch.zeros(2, 3, 75, 139)).shape == (2, 128, 1, 3)


def test_smaller_pictures_need_it_without_the_auxiliary_head() -> None:
    with pytest.raises(ModelError) as caught:
        create_model("inception_v3", image_size=298)
    assert "at least 299 x 299 pixels" in caught.value.expected
    assert "say aux_logits=False" in caught.value.remedy
    with pytest.raises(ModelError, match="at least 75 x 75 pixels"):
        create_model("inception_v3", image_size=74, aux_logits=False)
