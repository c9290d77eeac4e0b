"""The classes and functions that a saved Keras model may name; what is not listed here is not built."""

from __future__ import annotations

from typing import Any

from bssl_tf.backend import functional_model, keras, lq, op_layers

# Without those that run code (Lambda), that read files (lookups, TextVectorization, DenseFeatures), and base classes.
_LAYERS = """
    Activation ActivityRegularization Add AdditiveAttention AlphaDropout Attention Average AveragePooling1D
    AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CategoryEncoding CenterCrop Concatenate Conv1D
    Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D
    Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding
    Flatten GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization Identity
    InputLayer LSTM LSTMCell LayerNormalization LeakyReLU LocallyConnected1D LocallyConnected2D Masking MaxPooling1D
    MaxPooling2D MaxPooling3D Maximum Minimum MultiHeadAttention Multiply Normalization PReLU Permute RNN
    RandomBrightness RandomContrast RandomCrop RandomFlip RandomHeight RandomRotation RandomTranslation RandomWidth
    RandomZoom ReLU RepeatVector Rescaling Reshape Resizing SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell
    Softmax SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells Subtract
    ThresholdedReLU TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D
    ZeroPadding2D ZeroPadding3D
"""
# larq's functions that may be a layer's activation, and the layers that do the same.
QUANTIZERS = {
    "approx_sign": "ApproxSign",
    "ste_heaviside": "SteHeaviside",
    "ste_sign": "SteSign",
    "ste_tern": "SteTern",
    "swish_sign": "SwishSign",
}
# Functions, and layers that may stand for one.
_ACTIVATIONS = """
    elu exponential gelu hard_sigmoid linear mish relu selu sigmoid softmax softplus softsign swish tanh hard_tanh
    leaky_tanh ELU LeakyReLU PReLU ReLU Softmax ThresholdedReLU
"""
_OURS = "bssl_tf>"


def known_classes() -> dict[str, list[type]]:
    """Every class that a configuration may name, by the names it may go by; Keras has two of the name Identity."""
    found: list[type] = [getattr(keras.layers, name) for name in _LAYERS.split()]
    found += [keras.Sequential, functional_model(), *op_layers(), keras.mixed_precision.Policy]
    rooms = (keras.initializers, keras.regularizers, keras.constraints, lq.layers, lq.quantizers, lq.constraints)
    for room in rooms:
        found += [value for value in _own(room).values() if isinstance(value, type)]
    known: dict[str, list[type]] = {}
    for value in dict.fromkeys(found):
        known.setdefault(value.__name__, []).append(value)
    for name, value in keras.utils.get_custom_objects().items():
        if name.startswith(_OURS):
            known[name] = known[name.removeprefix(_OURS)] = [value]
    # Keras up to 2.2 called a functional model so.
    return known | {"Model": [functional_model()]}


def known_names() -> dict[str, frozenset[str]]:
    """What a setting may be as text, by the end of its key: the names that Keras looks up and builds or calls."""
    registered = keras.utils.get_custom_objects().items()
    aliases = {name for name, value in registered if value.__module__ == lq.quantizers.__name__}
    quantizers = {*_own(lq.quantizers), *aliases}
    initializers = {*_own(keras.initializers), "normal", "one", "uniform", "zero"}
    return {
        "activation": frozenset({*_ACTIVATIONS.split(), *quantizers}),
        "initializer": frozenset(initializers),
        "regularizer": frozenset(_own(keras.regularizers)),
        "constraint": frozenset({*_own(keras.constraints), *_own(lq.constraints)}),
        "quantizer": frozenset(quantizers),
    }


def _own(room: Any) -> dict[str, Any]:
    """The public classes and functions of a module of Keras or larq, without its ways to look up others."""
    return {
        name: value
        for name, value in vars(room).items()
        if callable(value)
        and str(getattr(value, "__module__", "")).startswith(("tf_keras.", "larq."))
        and not name.startswith("_")
        and name not in ("get", "serialize", "deserialize", "get_kernel_quantizer")
    }
