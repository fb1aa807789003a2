"""How each operation turns what it read and the gradient of what it wrote into per-sample parameter gradients.

An operation with input x and output y contributes, for a loss with dL/dy = d, to its weight's gradient: a product sum_t
d_t x_t^T over its positions t; a convolution the same with x_t the unfolded patch; an embedding the same with x_t
one-hot; a norm sum_t d_t * normalised(x_t); and to what is added sum_t d_t. Contributions of several calls add up.

A rule is found by what is computed with a parameter, whatever the module that does it is called. It is two steps. In
the forward pass it takes what it needs of x, projected at once where that is cheaper, and returns the function that
finishes the work in the backward pass, (d, fold) -> [B, sketch.width]. `fold` says which rows belong to which sample.
No rule is trusted: see `tarot.gradients.preflight`.
"""

from tarot.gradients.rules.broadcast import added, elementwise, multiplied, repeated
from tarot.gradients.rules.convolution import convolution, transposed_convolution
from tarot.gradients.rules.embedding import embedding
from tarot.gradients.rules.linear import addmm, linear, matmul
from tarot.gradients.rules.mask import attention_mask
from tarot.gradients.rules.norms import batch_norm, group_norm, instance_norm, layer_norm, prelu, rms_norm
from tarot.gradients.rules.rule import AsItIs, Call, Rule, Step, Target, is_formed

__all__ = ["IN_PLACE", "NAMES", "RULES", "AsItIs", "Call", "Step", "Target", "is_formed"]

# What torch calls an operation -> (the kind that coverage tells, its rule).
RULES: dict[str, tuple[str, Rule]] = {
    "linear": ("linear", linear),
    "addmm": ("linear", addmm),
    "matmul": ("linear", matmul),
    "embedding": ("embedding", embedding),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), ("convolution", convolution)),
    **dict.fromkeys(
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        ("transposed convolution", transposed_convolution),
    ),
    "scaled_dot_product_attention": ("mask", attention_mask),
    "layer_norm": ("norm", layer_norm),
    "rms_norm": ("norm", rms_norm),
    "group_norm": ("norm", group_norm),
    "batch_norm": ("norm", batch_norm),
    "instance_norm": ("norm", instance_norm),
    "prelu": ("scale", prelu),
    **dict.fromkeys(("add", "sub", "rsub"), ("addend", added)),
    "mul": ("scale", multiplied),
    **dict.fromkeys(("div", "pow", "where", "maximum", "minimum", "lerp"), ("elementwise", elementwise)),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to", "repeat", "tile"), ("copies", repeated)),
}

# Other names of the same.
NAMES = {
    "mm": "matmul",
    "__matmul__": "matmul",
    "__rmatmul__": "rmatmul",
    "__add__": "add",
    "__radd__": "add",
    "__iadd__": "add",
    "add_": "add",
    "__sub__": "sub",
    "__isub__": "sub",
    "sub_": "sub",
    "subtract": "sub",
    "__rsub__": "rsub",
    "__mul__": "mul",
    "__rmul__": "mul",
    "multiply": "mul",
    "__truediv__": "div",
    "true_divide": "div",
    "divide": "div",
    "__pow__": "pow",
}
IN_PLACE = ("__iadd__", "__isub__", "add_", "sub_")  # of those that are known
