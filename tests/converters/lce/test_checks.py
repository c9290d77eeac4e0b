"""Each check finds its fault and names the layer; each refusal before conversion is what LCE then does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bssl_tf.backend import keras, lq, tf
from bssl_tf.errors import ConfigError, ConversionError
from bssl_tf_converters.lce import checks
from bssl_tf_converters.lce import converter as lce
from bssl_tf_converters.lce.checks import allow, check_binary, check_convertible, find_after, find_before, refuse
from bssl_tf_converters.lce.deployable import with_classifier
from bssl_tf_converters.lce.export import convert_model
from tests.converters.networks import settle_norms

layers = keras.layers
Layer = Callable[[Any], Any]


def conv(**changes: Any) -> Any:
    settings = {
        "filters": 32,
        "kernel_size": 3,
        "padding": "same",
        "pad_values": 1.0,
        "use_bias": False,
        "input_quantizer": "approx_sign",
        "kernel_quantizer": "magnitude_aware_sign",
        "name": "block_conv",
    }
    return lq.layers.QuantConv2D(**(settings | changes))


def a_conv(**changes: Any) -> Layer:
    """A new layer at every call."""
    return lambda x: conv(**changes)(x)


def network(layer: Layer, channels: int = 32) -> keras.Model:
    image = keras.Input((8, 8, channels))
    return keras.Model(image, layers.GlobalAveragePooling2D()(layer(image)), name="network")


def sign(x: Any) -> Any:
    return layers.Activation(lq.quantizers.ste_sign)(x)


def behind_a_sign(between: Layer) -> Layer:
    return lambda x: conv(input_quantizer=None)(between(sign(x)))


def with_a_dead_channel(x: Any) -> Any:
    layer = conv()
    y = layer(x)
    kernel = layer.get_weights()[0]
    kernel[..., 5] = 0
    layer.set_weights([kernel])
    return y


def per_input_channel(kernel: Any) -> Any:
    return tf.reduce_mean(tf.abs(kernel), axis=(0, 1, 3), keepdims=True) * lq.math.sign(kernel)


def in_half_precision(x: Any) -> Any:
    return layers.Conv2D(8, 3, dtype="mixed_float16", name="stem")(x)


# What is wrong, the check that says so, the layer it names, and words of its message and hint.
FAULTS: dict[str, tuple[Layer, str, str, str]] = {
    "no input quantiser": (
        a_conv(input_quantizer=None),
        "half-quantized",
        "block_conv",
        "has a kernel quantiser and no input quantiser.*Set input_quantizer",
    ),
    "no kernel quantiser": (
        a_conv(kernel_quantizer=None),
        "half-quantized",
        "block_conv",
        "has an input quantiser and no kernel quantiser.*Set kernel_quantizer",
    ),
    "pad -1": (a_conv(pad_values=-1.0), "pad-value", "block_conv", "pads with -1.*Set pad_values to 1"),
    "tf.sign": (
        a_conv(input_quantizer=tf.sign),
        "input-quantizer",
        "block_conv",
        "quantiser sign, which gives other numbers than .1 and -1.*Use one of ste_sign",
    ),
    "straight through by hand": (
        a_conv(input_quantizer=lambda x: x + tf.stop_gradient(lq.math.sign(x) - x)),
        "input-quantizer",
        "block_conv",
        r"in a form that LCE does not know.*tf\.where",
    ),
    "ternary input": (a_conv(input_quantizer="ste_tern"), "ternary-input", "block_conv", "SteTern.*numbers wrong"),
    "ternary activation": (
        lambda x: layers.Activation(lq.quantizers.ste_tern, name="tern")(x),
        "ternary-input",
        "tern",
        "ste_tern.*treats as a sign",
    ),
    "scaled input": (
        a_conv(input_quantizer="magnitude_aware_sign"),
        "batch-dependent",
        "block_conv",
        "over the batch.*Use one of ste_sign",
    ),
    "dense": (
        lambda x: lq.layers.QuantDense(8, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="dense")(x),
        "layer-kind",
        "dense",
        r"is a QuantDense.*Reshape\(\(1, 1, C\)\), QuantConv2D",
    ),
    "depthwise": (
        lambda x: lq.layers.QuantDepthwiseConv2D(
            3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign", name="dw"
        )(x),
        "layer-kind",
        "dw",
        "is a QuantDepthwiseConv2D.*Use QuantConv2D",
    ),
    "ReLU behind the sign": (
        behind_a_sign(lambda x: layers.ReLU(name="relu")(x)),
        "between-sign-and-convolution",
        "block_conv",
        "takes a sign through relu.*Put relu first",
    ),
    "max pool behind the sign": (
        behind_a_sign(lambda x: layers.MaxPool2D(name="pool")(x)),
        "between-sign-and-convolution",
        "block_conv",
        "through pool.*Pool before the sign",
    ),
    "two signs, concatenated": (
        behind_a_sign(lambda x: layers.Concatenate(name="joined")([x, x])),
        "between-sign-and-convolution",
        "block_conv",
        "through joined",
    ),
    "ternary kernel": (a_conv(kernel_quantizer="ste_tern"), "kernel-quantizer", "block_conv", "SteTern"),
    "scales for input channels": (
        a_conv(kernel_quantizer=per_input_channel),
        "kernel-quantizer",
        "block_conv",
        "per_input_channel, .*a scale for each input channel belongs in front",
    ),
    "a dead channel": (
        with_a_dead_channel,
        "kernel-zeros",
        "block_conv",
        r"in 1 of 32 output channels \(the first is 5\)",
    ),
    "channels first": (
        lambda x: layers.Permute((2, 3, 1))(conv(data_format="channels_first")(layers.Permute((3, 1, 2))(x))),
        "channels-first",
        "block_conv",
        "Put channels last",
    ),
    "narrow groups": (a_conv(groups=2), "group-grain", "block_conv", "2 groups of 16 input channels.*multiple of 32"),
    "half precision": (in_half_precision, "mixed-precision", "stem", "in float16.*without a mixed-precision policy"),
}


@pytest.mark.parametrize(("layer", "code", "name", "message"), FAULTS.values(), ids=FAULTS)
def test_what_lce_would_turn_to_float_is_refused_before_conversion(
    layer: Layer, code: str, name: str, message: str
) -> None:
    model = network(layer)
    errors = {(finding.code, finding.layer) for finding in find_before(model) if finding.severity == "error"}
    assert errors == {(code, name)}
    with pytest.raises(ConversionError, match=rf"layer {name} .*{message}") as caught:
        check_convertible(model)
    assert f"[{code}]" in str(caught.value)


def test_the_refusals_tell_the_truth() -> None:
    """All those of one layer in one model: LCE, asked to convert them as they are, makes no LceBconv2d of any."""
    faults = [layer for layer, code, name, _ in FAULTS.values() if name == "block_conv" and code != "ternary-input"]
    image = keras.Input((8, 8, 32))
    copies = []
    for number, layer in enumerate(faults):
        inner = network(layer)
        inner._name = f"fault{number}"
        copies.append(inner(image))
    model = keras.Model(image, layers.Concatenate()(copies), name="faults")
    conversion, _ = find_after(model, lce.convert(model, "arm64", fold=False))
    assert conversion.report.binary_convolutions == 0
    assert conversion.report.float_convolutions == len(faults) > 10


@pytest.mark.parametrize(
    "layer",
    [
        lambda x: layers.Conv2D(8, 3)(conv()(x)),
        behind_a_sign(lambda x: layers.Dropout(0.5)(x)),
        lambda x: conv(input_quantizer=None)(lq.quantizers.SteSign()(x)),
        conv(kernel_quantizer=lq.quantizers.NoOp(precision=1), kernel_initializer="ones"),
        conv(kernel_quantizer=lq.quantizers.DoReFa(1, mode="weights")),
        conv(kernel_quantizer=lambda w: 0.5 * tf.sign(w)),
        conv(input_quantizer=lambda x: tf.where(x < 0.25, -1.0, 1.0)),
    ],
    ids=["float layer", "dropout", "sign in front", "signs as weights", "DoReFa", "scaled kernel", "threshold"],
)
def test_what_lce_keeps_binary_is_let_through(layer: Layer) -> None:
    model = network(layer)
    assert find_before(model) == []
    assert check_binary(model, lce.convert(model, "arm64")).binary_convolutions == 1


def test_widths_and_groups_that_cost_more_are_warnings() -> None:
    for layer, channels, code, message in (
        (conv(), 40, "channel-grain", "40 input channels, which cost as much as 64"),
        (conv(groups=2), 64, "groups", "2 groups, which LCE's default kernel refuses"),
    ):
        (finding,) = check_convertible(network(layer, channels))
        assert (finding.code, finding.severity, finding.layer) == (code, "warning", "block_conv")
        assert message in finding.message


def test_a_float_model_is_told_that_lce_brings_nothing() -> None:
    (finding,) = check_convertible(network(lambda x: layers.Conv2D(8, 3)(x)))
    assert (finding.code, finding.severity, finding.layer) == ("nothing-binary", "warning", "")
    assert "network has no binary layer" in finding.message and "QuantConv2D" in finding.hint


def test_models_that_no_bundle_can_hold() -> None:
    image = keras.Input((8, 8, 3))
    other = keras.Input((8, 8, 3))
    with pytest.raises(ConversionError, match=r"2 inputs and 1 outputs \[one-input\]"):
        check_convertible(keras.Model([image, other], image + other))
    free = keras.Input((None, None, 3))
    with pytest.raises(ConversionError, match=r"images of any size .* \[unknown-size\]"):
        check_convertible(keras.Model(free, free * 2))


def test_a_keras_3_model_is_refused() -> None:
    import keras as keras_3  # type: ignore[import-untyped]

    image = keras_3.Input((8, 8, 3))
    with pytest.raises(ConversionError, match=r"not a Keras 2 model \[keras-3\]. Build it with tf-keras"):
        check_convertible(keras_3.Model(image, keras_3.layers.ReLU()(image)))


def test_all_errors_are_named_and_the_first_is_explained() -> None:
    model = network(lambda x: conv(name="second", groups=2)(conv(name="first", pad_values=2.0)(x)))
    with pytest.raises(
        ConversionError,
        match=r"layer first pads with 2.*\[pad-value\]; and 1 more: group-grain in second\. .*with --allow pad-value",
    ):
        check_convertible(model)


def test_an_allowed_error_is_a_warning_before_and_after_conversion(caplog: pytest.LogCaptureFixture) -> None:
    # Whole numbers between the two, so that both agree on every sign.
    model = network(lambda x: conv(name="second", pad_values=-1.0)(conv(name="first", kernel_quantizer="ste_sign")(x)))
    images = np.random.default_rng(0).normal(0, 1, (8, 8, 8, 32)).astype(np.float32)
    converted = convert_model(model, images, "arm64", allowed=["pad-value"])
    assert (converted.report.binary_convolutions, converted.report.float_convolutions) == (1, 1)
    [warning] = [one for one in caplog.records if one.levelname == "WARNING" and one.name.startswith("bssl")]
    assert warning.getMessage().startswith("layer second pads with -1")
    with pytest.raises(ConversionError, match="pad-value"):
        convert_model(model, images, "arm64", allowed=["half-quantized"])


def test_only_known_errors_can_be_allowed_and_not_all() -> None:
    with pytest.raises(ConfigError, match=r"--allow padvalue: no check is called that\. Choose from .*pad-value"):
        allow((), ["padvalue"])
    with pytest.raises(ConfigError, match="--allow ternary-input: this cannot be allowed"):
        allow((), ["ternary-input"])


def test_a_ternary_input_converts_to_wrong_numbers_without_a_word() -> None:
    """The reason why that cannot be allowed: after conversion nothing looks wrong."""
    model = network(conv(input_quantizer="ste_tern", kernel_quantizer="ste_sign"))
    converted = lce.convert(model, "arm64")
    check_binary(model, converted)
    images = np.random.default_rng(0).normal(0, 0.02, (4, 8, 8, 32)).astype(np.float32)
    assert np.abs(lce.LceInterpreter(converted).predict(images) - model(images).numpy()).max() > 0.5


def test_a_layer_that_fell_back_is_named() -> None:
    """pad_values=-1 after all: the kernel is nowhere in the flatbuffer, and the other layer's is."""
    model = network(lambda x: conv(name="second_conv", pad_values=-1.0)(conv(name="first_conv")(x)))
    with pytest.raises(ConversionError, match=r"layer second_conv is one of 1 of 2 binary layers .*\[lost-layer\]"):
        check_binary(model, lce.convert(model, "arm64"))


def test_more_float_than_the_model_has_is_refused() -> None:
    """The flatbuffer of another network, whose binary layer is the same."""
    model = network(conv())
    longer = keras.Model(model.input, layers.Dense(4, name="other")(layers.Conv2D(8, 3)(model.layers[1].output)))
    with pytest.raises(
        ConversionError, match=r"2 float convolutions and dense operators where network has 0: .*\[extra-float\]"
    ):
        check_binary(model, lce.convert(keras.Model(longer.input, layers.Flatten()(longer.output)), "arm64"))


def test_bits_turned_back_into_floats_are_refused() -> None:
    model = network(lambda x: conv()(sign(x)) + sign(x))
    with pytest.raises(ConversionError, match=r"1 operators that turn bits back into floats.*\[dequantize\]"):
        check_binary(model, lce.convert(model, "arm64"))


def test_operators_that_no_device_has_are_refused() -> None:
    model = network(lambda x: layers.Lambda(lambda t: tf.linalg.svd(t)[1])(conv()(x)))
    with pytest.raises(ConversionError, match=r"operator Svd exists in TensorFlow only.*\[tensorflow-operator\]"):
        check_binary(model, lce.convert(model, "arm64"))


def two_layers(between: Layer, **changes: Any) -> keras.Model:
    return network(lambda x: conv(name="second")(between(conv(name="first", **changes)(x))))


@pytest.mark.parametrize(
    ("between", "changes", "code", "message"),
    [
        (layers.BatchNormalization(beta_initializer="ones"), {"pad_values": 0.0}, "separate-quantize", "pads with 0"),
        (layers.BatchNormalization(beta_initializer="ones"), {}, None, ""),
        (
            # A ReLU there would be decided by a threshold.
            lambda x: layers.LeakyReLU()(x - 0.3) - 0.1,
            {},
            "float-between",
            "is followed by .*LEAKY_RELU",
        ),
    ],
    ids=["same-zero padding", "same-one padding", "leaky ReLU behind a shift"],
)
def test_float_on_the_way_between_bits_is_a_warning(
    between: Layer, changes: dict[str, Any], code: str | None, message: str
) -> None:
    model = two_layers(between, **changes)
    findings = find_after(model, lce.convert(model, "arm64"))[1]
    assert [finding.code for finding in findings] == ([] if code is None else [code])
    if findings:
        assert findings[0].layer == "first" and findings[0].severity == "warning"
        assert np.all([word in findings[0].message for word in message.split(".*")])


def test_a_flatbuffer_of_another_network_is_not_taken() -> None:
    """A kernel with one sign changed is another kernel."""
    layer = conv()
    model = network(layer)
    converted = lce.convert(model, "arm64")
    check_binary(model, converted)
    kernel = layer.get_weights()[0]
    kernel[1, 1, 5, 7] *= -1
    layer.set_weights([kernel])
    with pytest.raises(ConversionError, match="block_conv"):
        check_binary(model, converted)


def test_layers_are_found_in_a_chain_of_bits() -> None:
    """Batch norm between two signs: LCE writes bits, names the operator after the next layer, and where the batch
    norm's scale is negative turns the kernel's signs around. 40 channels leave the last word part empty."""

    def chain(x: Any) -> Any:
        for number in range(3):
            x = layers.BatchNormalization(name=f"norm{number}")(conv(filters=40, name=f"conv{number}")(x))
        return x

    model = network(chain, channels=40)
    images = np.random.default_rng(0).normal(0, 1, (32, 8, 8, 40)).astype(np.float32)
    settle_norms(model, images, seed=0)
    converted = lce.convert(model, "arm64")
    conversion, findings = find_after(model, converted)
    refuse(findings)
    assert findings == []
    assert conversion.report.operators["LceQuantize"] == 1
    assert [layer.name for layer in conversion.layers.values()] == ["conv0", "conv1", "conv2"]
    difference = np.abs(lce.LceInterpreter(converted).predict(images) - model(images).numpy())
    assert np.median(difference) < 1e-5


def test_layers_with_the_same_kernel_are_told_apart() -> None:
    model = two_layers(lambda x: layers.BatchNormalization()(x), kernel_initializer="ones", kernel_quantizer="ste_sign")
    model.get_layer("second").set_weights([np.ones((3, 3, 32, 32))])
    conversion, _ = find_after(model, lce.convert(model, "arm64"))
    assert sorted(layer.name for layer in conversion.layers.values()) == ["first", "second"]


def test_every_check_has_its_row_in_the_readme_one_line_and_a_code_of_its_own() -> None:
    readme = (Path(checks.__file__).parent / "README.md").read_text(encoding="utf-8")
    rows = readme.partition("|---|---|---|\n")[2].splitlines()
    assert rows == [f"| `{code}` | {severity} | {line} |" for code, severity, line in checks.table()]
    assert len({code for code, _, _ in checks.table()}) == len(rows)
    assert all("\n" not in line and line.endswith(".") for _, _, line in checks.table())


def test_every_check_is_tried_here() -> None:
    # What int8 leaves over is tried where int8 is, and likewise what interpreters do.
    files = ("test_checks.py", "test_int8.py", "test_interpreters.py")
    tried = "".join(Path(__file__).with_name(name).read_text("utf-8") for name in files)
    assert [code for code, _, _ in checks.table() if code not in tried] == []


def test_a_probe_that_does_not_fit_is_refused() -> None:
    model = network(conv())
    with pytest.raises(ConversionError, match="gives 32 features"):
        with_classifier(model, np.zeros((16, 10), np.float32), np.zeros(10, np.float32))
    with pytest.raises(ConversionError, match="logits/bias:0 holds numbers that are not finite"):
        with_classifier(model, np.zeros((32, 2), np.float32), np.array([0, np.nan], np.float32))
