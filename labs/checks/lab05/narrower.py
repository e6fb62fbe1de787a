"""A narrower SAE to hold beside the one that is studied: the course's own, or one trained here."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from solutions.sae import Plan, TensorSource, as_sae_lens, load_sae, make_sae, train
from solutions.smallworld.artifacts import list_saes
from solutions.targets import Target


def narrower_sae(target: Target, x: Tensor, per_token: int):
    """An SAE of fewer latents for the target's hook point.

    Args:
        target: what is studied.
        x: [tokens, d_in] activations to train on, where the course has no narrower SAE of the same kind.
        per_token: latents that are active at a token in the SAE that is studied.
    """
    kind = target.sae_id.rsplit(".", 1)[0]  # all but the width
    ids = [name.rsplit("/", 1)[1] for name in list_saes(target.sae_release)]
    for sae_id in ids:
        if sae_id.startswith(f"{kind}.") and sae_id != target.sae_id:
            other = load_sae(replace(target, sae_id=sae_id), device="cpu")
            if other.cfg.d_sae < target.d_sae:
                return other
    d_sae = max(4, min(target.d_sae // 4, 2048))
    untrained = make_sae("topk", target.d_in, d_sae, k=max(1, min(per_token, d_sae // 4)), seed=0)
    plan = Plan(n_tokens=4 * len(x), batch_size=min(len(x), 512), lr=3e-3, decay=0.3)
    with torch.enable_grad():
        trained = train(untrained, TensorSource(x), plan, progress=False)
    return as_sae_lens(trained.sae, hook_name=target.hook, model_name=target.model)
