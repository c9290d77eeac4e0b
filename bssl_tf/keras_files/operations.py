"""The functions of TensorFlow that a saved model may name: they compute, and do nothing else.

`tf.nn.relu(x)` in a functional model becomes a layer that names its function, and Keras calls whatever is named there
while it builds the model. So each is listed; a prefix would not do: `nn.fixed_unigram_candidate_sampler` reads files.
"""

from __future__ import annotations

_PLAIN = """
    abs acos acosh add add_n argmax argmin argsort asin asinh atan atan2 atanh batch_to_space broadcast_to cast
    clip_by_norm clip_by_value concat cos cosh cumsum divide einsum equal exp expand_dims floor gather gather_nd
    greater greater_equal identity less less_equal logical_and logical_not logical_or matmul maximum minimum multiply
    negative norm not_equal one_hot ones_like pad pow rank realdiv reduce_all reduce_any reduce_logsumexp reduce_max
    reduce_mean reduce_min reduce_prod reduce_sum repeat reshape reverse roll round scalar_mul shape sigmoid sign sin
    sinh size slice sort space_to_batch space_to_batch_nd split sqrt square squeeze stack stop_gradient strided_slice
    subtract tan tanh tensordot tile transpose truediv unstack where zeros_like
"""

_MATH = """
    abs accumulate_n acos acosh add add_n angle argmax argmin asin asinh atan atan2 atanh bessel_i0 bessel_i0e
    bessel_i1 bessel_i1e betainc ceil conj cos cosh count_nonzero cumprod cumsum cumulative_logsumexp digamma divide
    divide_no_nan equal erf erfc erfcinv erfinv exp expm1 floor floordiv floormod greater greater_equal igamma igammac
    imag in_top_k invert_permutation is_finite is_inf is_nan is_non_decreasing is_strictly_increasing l2_normalize
    lbeta less less_equal lgamma log log1p log_sigmoid log_softmax logical_and logical_not logical_or logical_xor
    maximum minimum mod multiply multiply_no_nan ndtri negative nextafter not_equal polygamma polyval pow real
    reciprocal reciprocal_no_nan reduce_all reduce_any reduce_euclidean_norm reduce_logsumexp reduce_max reduce_mean
    reduce_min reduce_prod reduce_std reduce_sum reduce_variance rint round rsqrt scalar_mul segment_max segment_mean
    segment_min segment_prod segment_sum sigmoid sign sin sinh softmax softplus softsign sqrt square
    squared_difference subtract tan tanh top_k truediv xdivy xlog1py xlogy zero_fraction zeta
"""

_NN = """
    atrous_conv2d atrous_conv2d_transpose avg_pool avg_pool1d avg_pool2d avg_pool3d
    batch_norm_with_global_normalization batch_normalization bias_add conv1d conv1d_transpose conv2d conv2d_transpose
    conv3d conv3d_transpose conv_transpose convolution crelu depth_to_space depthwise_conv2d dilation2d dropout elu
    erosion2d gelu in_top_k l2_loss l2_normalize leaky_relu local_response_normalization log_softmax lrn max_pool
    max_pool1d max_pool2d max_pool3d max_pool_with_argmax moments normalize_moments pool relu relu6 selu
    separable_conv2d sigmoid silu softmax softplus softsign space_to_batch space_to_depth sufficient_statistics swish
    tanh top_k weighted_moments with_space_to_batch zero_fraction
"""

_NN_V1 = "avg_pool_v2 depthwise_conv2d_native fused_batch_norm max_pool_v2 relu_layer xw_plus_b"

_LINALG = """
    adjoint band_part cholesky cross det diag diag_part einsum expm inv l2_normalize logdet matmul matrix_transpose
    matvec norm normalize pinv qr set_diag slogdet solve svd tensor_diag tensor_diag_part tensordot trace
    triangular_solve
"""

_IMAGE = """
    adjust_brightness adjust_contrast central_crop crop_to_bounding_box flip_left_right flip_up_down grayscale_to_rgb
    pad_to_bounding_box per_image_standardization resize resize_with_crop_or_pad resize_with_pad rgb_to_grayscale
    rot90 transpose
"""

_IMAGE_V1 = "resize resize_area resize_bicubic resize_bilinear resize_image_with_pad resize_nearest_neighbor"

_OPERATORS = "add eq getitem ne"


def _names(prefix: str, names: str) -> set[str]:
    return {f"{prefix}{name}" for name in names.split()}


_V2 = _names("", _PLAIN) | _names("math.", _MATH) | _names("nn.", _NN) | _names("linalg.", _LINALG)

# By the names that TFOpLambda and SlicingOpLambda save.
OPERATIONS = frozenset(
    _V2
    | {f"compat.v1.{name}" for name in _V2}
    | _names("compat.v1.nn.", _NN_V1)
    | _names("image.", _IMAGE)
    | _names("compat.v1.image.", _IMAGE_V1)
    | _names("__operators__.", _OPERATORS)
)
