"""A toy model with TransformerLens's hook interface, so that hook exercises are graded in milliseconds.

It has the names, the shapes and the bad habit of the real one: a hook on an unknown name is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class HookPoint:
    """What a hook function gets as `hook`: it knows the name of its place in the model."""

    def __init__(self, name: str):
        self.name = name

    def layer(self) -> int:
        return int(self.name.split(".")[1])


def _same_shape(edited: Tensor, value: Tensor, name: str) -> Tensor:
    """What a hook returned; otherwise a lost axis is noticed far from the hook, or never."""
    if edited.shape != value.shape:
        raise ValueError(
            f"the hook function at {name} returned shape {list(edited.shape)}; the activation there has shape "
            f"{list(value.shape)}"
        )
    return edited


class ToyModel:
    """Random weights, `n_layers` blocks of an MLP each, and hooks.

    Args:
        n_layers, d_model, d_vocab: sizes.
        seed: for the weights.
    """

    described = "a small stand-in for the model"  # what a learner reads where a message describes the input

    def __init__(self, n_layers: int, d_model: int, d_vocab: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.n_layers = n_layers
        self.W_E = torch.randn(d_vocab, d_model, generator=generator)
        self.W_mlp = torch.randn(n_layers, d_model, d_model, generator=generator) / d_model**0.5
        self.W_U = torch.randn(d_model, d_vocab, generator=generator) / d_model**0.5
        places = [
            f"blocks.{i}.{place}"
            for i in range(n_layers)
            for place in ("hook_resid_pre", "hook_mlp_out", "hook_resid_post")
        ]
        self.hook_dict = {name: HookPoint(name) for name in ["hook_embed", *places]}

    def __call__(self, ids: Tensor) -> Tensor:
        return self.run_with_hooks(ids)

    def run_with_hooks(
        self,
        ids: Tensor,
        return_type: str = "logits",
        fwd_hooks: Sequence[tuple[str | Callable, Callable]] = (),
        stop_at_layer: int | None = None,
        **_ignored,
    ) -> Tensor:
        """Logits [batch, pos, d_vocab]. A hook is (name, function), called as `f(activation, hook=...)`."""

        def at(name: str, value: Tensor) -> Tensor:
            for wanted, function in fwd_hooks:
                if wanted == name or (callable(wanted) and wanted(name)):
                    edited = function(value, hook=self.hook_dict[name])
                    value = value if edited is None else _same_shape(edited, value, name)
            return value

        resid = at("hook_embed", self.W_E[ids])
        for i in range(self.n_layers if stop_at_layer is None else stop_at_layer):
            resid = at(f"blocks.{i}.hook_resid_pre", resid)
            resid = self.mixed(i, resid)
            resid = at(
                f"blocks.{i}.hook_resid_post",
                resid + at(f"blocks.{i}.hook_mlp_out", torch.tanh(resid @ self.W_mlp[i])),
            )
        return resid if stop_at_layer is not None else resid @ self.W_U

    def mixed(self, layer: int, resid: Tensor) -> Tensor:
        """Where attention would be: every token stays by itself."""
        return resid

    def run_with_cache(self, ids: Tensor, names_filter=None, stop_at_layer: int | None = None, **_ignored):
        """(logits, activations by name)."""
        if names_filter is None:
            wanted = set(self.hook_dict)
        elif callable(names_filter):
            wanted = {name for name in self.hook_dict if names_filter(name)}
        else:
            wanted = {names_filter} if isinstance(names_filter, str) else set(names_filter)
        cache: dict[str, Tensor] = {}

        def keep(value, hook):
            cache[hook.name] = value

        logits = self.run_with_hooks(
            ids, fwd_hooks=[(name, keep) for name in wanted], stop_at_layer=stop_at_layer
        )
        return logits, cache
