"""The model families: MLP, small convolutional net and ResNet, with every choice a parameter."""
