"""A model with everything bent in it made straight, for one text.

Three things in a transformer are not linear: where attention looks, how normalisation scales, and the MLP's
neurons. Held at what they were on one text, the rest is sums and matrix products: every activation is then an affine
function of every earlier one, and its contributions add up exactly.

* An attention pattern is kept: heads still move what is there, from where they took it.
* A normalisation divides by the length that it divided by.
* A neuron multiplies its input by the number that it multiplied it with: gelu(x)/x (the rule of layer-wise relevance
  propagation; Ali et al. 2022, arXiv 2202.07304, do the same with attention and LayerNorm).

On the text itself this model computes what the real one computes. On anything else it does not.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from solutions.attribution.nodes import OneText, one_row
from solutions.errors import InputError, unknown_name
from solutions.models import check_hooks
from solutions.models.hooks import hook_points

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

#: What can be held besides neurons, and the hook points of each block where it is.
HOLDABLE = {"scales": ("ln1.hook_scale", "ln2.hook_scale"), "patterns": ("attn.hook_pattern",)}

#: How far the frozen model's logits may be from the real model's on the text that it was frozen on.
TOLERANCE = 1e-3


@contextmanager
def frozen(model: TransformerBridge, text: OneText) -> Iterator[TransformerBridge]:
    """As long as the block lasts, attention patterns, normalisation scales and neurons are those of one text.

    Only rows of that text's length may be run meanwhile. The hooks are taken down at the end, after an error too.
    With the neurons held nothing bends any more. `logits_without` holds less, so that the MLPs can answer to an edit.

    Args:
        model: a loaded model.
        text: one text, or its tokens (one row).

    Yields:
        The model.

    Raises:
        InputError: more texts than one, or a model that cannot be frozen in this way: a kind of layer without these
            hook points, say. It is found out by running the text.

    Example:
        >>> tokens = tokenize(model, "The old man went to the")
        >>> real = model(tokens.ids)
        >>> with frozen(model, tokens):
        ...     held = model(tokens.ids)
        >>> bool((held - real).abs().max() < 1e-3)
        True
    """
    tokens = one_row(model, text)
    inputs, kept = _pieces(model)
    values = _values(model, tokens.ids, [*inputs.values(), *kept, *inputs])
    gates = {
        post: torch.where(values[pre] == 0, torch.zeros_like(values[pre]), values[post] / values[pre])
        for post, pre in inputs.items()
    }
    with holding(model, {name: values[name] for name in kept}, _neurons(inputs, gates)):
        with torch.no_grad():
            apart = (model(tokens.ids) - values["logits"]).abs().max().item()
        if not apart < TOLERANCE:
            raise InputError(
                f"this model cannot be frozen: with everything held its logits are off by {apart:.2g}. Some layer "
                "of it computes in a way that its hook points do not show."
            )
        yield model


def names_to_hold(model: TransformerBridge, what: Iterable[str]) -> list[str]:
    """The hook points of what is to be held.

    Args:
        model: a loaded model.
        what: "scales" (of the normalisations), "patterns" (of attention), or both.

    Returns:
        Their names, over all layers.

    Raises:
        InputError: something else to hold.
    """
    what = list(what)
    for one in what:
        if one not in HOLDABLE:
            raise unknown_name("part to hold:", one, HOLDABLE)
    parts = [part for one in what for part in HOLDABLE[one]]
    names = [f"blocks.{layer}.{part}" for layer in range(model.cfg.n_layers) for part in parts]
    return names + (["ln_final.hook_scale"] if "scales" in what else [])


@contextmanager
def holding(
    model: TransformerBridge, values: Mapping[str, Tensor], others: Sequence[tuple[str, Any]] = ()
) -> Iterator[TransformerBridge]:
    """As long as the block lasts, hook points say what they are given, the same for every row, whatever is run.

    Args:
        model: a loaded model.
        values: hook point to what it says, [1, ...].
        others: more hooks for the same time: (hook point, function).

    Yields:
        The model.
    """
    hooks = [*((name, _put(value)) for name, value in values.items()), *others]
    with warnings.catch_warnings(), model.hooks(fwd_hooks=hooks):
        warnings.filterwarnings("ignore", message="(?s).*native-autograd path")  # editing a scale is what we want
        yield model


def _pieces(model: TransformerBridge) -> tuple[dict[str, str], list[str]]:
    """(hook after a neuron → hook of the input that it multiplies; hooks that are kept as they are)."""
    names = set(hook_points(model, "pattern|scale|mlp")["name"])
    inputs, kept = {}, names_to_hold(model, HOLDABLE)
    for block in range(model.cfg.n_layers):
        mlp = f"blocks.{block}.mlp"
        linear = f"{mlp}.hook_pre_linear"        # a gated MLP multiplies this by a function of the gate
        inputs[f"{mlp}.hook_post"] = linear if linear in names else f"{mlp}.hook_pre"
    check_hooks(model, [*inputs, *inputs.values(), *kept])
    return inputs, kept


@torch.no_grad()
def _values(model: TransformerBridge, ids: Tensor, hooks: list[str]) -> dict[str, Tensor]:
    """What the hook points hold on one text, and its logits."""
    seen: dict[str, Tensor] = {}

    def keep(acts: Tensor, hook: Any, name: str) -> None:
        seen[name] = acts.detach().clone()

    def keeper(name: str) -> Any:
        return lambda acts, hook: keep(acts, hook, name)

    seen["logits"] = model.run_with_hooks(ids, fwd_hooks=[(name, keeper(name)) for name in dict.fromkeys(hooks)])
    silent = [name for name in hooks if name not in seen]
    if silent:
        raise InputError(f"this model cannot be frozen: its hook point {silent[0]!r} never fires.")
    return seen


def _put(value: Tensor) -> Any:
    """A hook that puts a value, the same for every row."""
    return lambda acts, hook: value.expand_as(acts)


def _neurons(inputs: dict[str, str], gates: dict[str, Tensor]) -> list[tuple[str, Any]]:
    """Hooks by which every neuron multiplies its input by its gate."""
    current: dict[str, Tensor] = {}

    def see(pre: str) -> Any:
        def look(acts: Tensor, hook: Any) -> None:
            current[pre] = acts

        return look

    def multiply(post: str, pre: str) -> Any:
        return lambda acts, hook: current.pop(pre) * gates[post]

    return [pair for post, pre in inputs.items() for pair in ((pre, see(pre)), (post, multiply(post, pre)))]
