import pytest
import torch
import torchvision

from imageclf.network.architectures import cut_off_head
from imageclf.network.layers import layers_in_order

# The number of layers, and the first parameter of the first and of the last one.
EXPECTED = {
    "resnet18": (9, "conv1.weight", "layer4.1.conv1.weight"),
    "densenet121": (62, "features.conv0.weight", "features.denseblock4.denselayer16.norm1.weight"),
    "efficientnet_b0": (18, "features.0.0.weight", "features.8.0.weight"),
    "convnext_tiny": (22, "features.0.0.weight", "features.7.2.layer_scale"),
    "swin_t": (16, "features.0.0.weight", "features.7.1.norm1.weight"),
    "vit_b_16": (14, "class_token", "encoder.layers.encoder_layer_11.ln_1.weight"),
    "vgg11": (10, "features.0.weight", "classifier.3.weight"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_layers_are_all_of_a_backbone_in_order(name: str) -> None:
    with torch.device("meta"):
        backbone, _ = cut_off_head(torchvision.models.get_model(name, weights=None))
    names = {parameter: name for name, parameter in backbone.named_parameters()}
    layers = [[names[parameter] for parameter in layer] for layer in layers_in_order(backbone)]
    assert sorted(name for layer in layers for name in layer) == sorted(names.values())
    assert (len(layers), layers[0][0], layers[-1][0]) == EXPECTED[name]
