"""Transcoders: opening them, letting them stand in for the MLPs of a model, and changing their latents.

An SAE rewrites what stands at one place. A transcoder reads what an MLP reads and predicts what the MLP writes
(Dunefsky et al. 2024, section 3), so between its input and its output lies a whole computation, and only sparse latents
are left of it. What it misses of the output is its error.

    replaced(...)              the MLP's output becomes the transcoder's: the error is lost
    mlp_latents_edited(...)    only what the edit changes is added: the error stays
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from solutions import hub
from solutions.data import Text, Tokens
from solutions.errors import InputError, ModelNotAvailable, check_count, check_model, whole_number
from solutions.models import as_tokens, check_hooks, read_hooks
from solutions.sae import load_sae_from_disk
from solutions.smallworld.artifacts import list_transcoders
from solutions.targets import Target, check_target

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

#: Where a transcoder reads and writes, in TransformerLens's names.
MLP_IN, MLP_OUT = "blocks.{}.mlp.hook_in", "blocks.{}.hook_mlp_out"

#: From layer to the transcoder of its MLP.
Transcoders = Mapping[int, "SAE"]

#: From latents [batch, pos, d_sae] to new ones of the same shape.
MlpEdit = Callable[[Tensor], Tensor]


def has_transcoders(target: Target) -> bool:
    """Whether transcoders of the target's model are part of this repository.

    Args:
        target: what is being studied.

    Returns:
        True or False.

    Raises:
        InputError: `target` is the name of one.

    Example:
        >>> has_transcoders(get_target("smallworld")), has_transcoders(get_target("gpt2-small"))
        (True, False)
    """
    return bool(list_transcoders(check_target(target).model))


def load_transcoders(target: Target, device: str | torch.device | None = None) -> dict[int, SAE]:
    """Load a transcoder for the MLP of every layer of the target's model.

    Args:
        target: what is being studied.
        device: where to put them; by default the GPU where there is one, else the CPU.

    Returns:
        Layer to transcoder, a SAELens `JumpReLUTranscoder` in float32.

    Raises:
        ModelNotAvailable: there are none of this model in the repository.
        InputError: `target` is the name of one, or this machine has no such device.

    Example:
        >>> transcoders = load_transcoders(get_target("smallworld"), "cpu")
        >>> sorted(transcoders), transcoders[0].cfg.d_sae
        ([0, 1, 2, 3], 1024)
    """
    names = list_transcoders(check_target(target).model)
    if not names:
        raise ModelNotAvailable(
            f"there are no transcoders of the model {target.model!r} here. Train some with solutions.sae.train, from "
            f"{MLP_IN.format(0)!r} to {MLP_OUT.format(0)!r}, and open them with load_sae_from_disk."
        )
    opened = [load_sae_from_disk(hub.embedded(name), device).requires_grad_(False) for name in names]
    return {_layer(transcoder): transcoder for transcoder in opened}


def _layer(transcoder: SAE) -> int:
    return int(transcoder.cfg.metadata.hook_name.split(".")[1])


def check_transcoders(model: TransformerBridge, transcoders: Transcoders) -> dict[int, SAE]:
    """Return the transcoders by layer if they fit the model's MLPs.

    Args:
        model: a loaded model.
        transcoders: layer to transcoder.

    Returns:
        The same, in the order of the layers.

    Raises:
        InputError: there are none, a layer that the model does not have, or another width.
    """
    check_model(model)
    if not isinstance(transcoders, Mapping) or not transcoders:
        raise InputError("transcoders must map layers to transcoders, e.g. load_transcoders(target); found none.")
    width = model.cfg.d_model
    for layer, transcoder in transcoders.items():
        check_hooks(model, [MLP_IN.format(layer), MLP_OUT.format(layer)])
        shapes = tuple(transcoder.W_enc.shape)[:1], tuple(transcoder.W_dec.shape)[1:]
        if shapes != ((width,), (width,)):
            raise InputError(
                f"the transcoder of layer {layer} reads {shapes[0][0]} numbers and writes {shapes[1][0]}; "
                f"the model's MLP reads and writes {width}."
            )
    return dict(sorted(transcoders.items()))


@torch.no_grad()
def mlp_latents(
    model: TransformerBridge, transcoders: Transcoders, texts: str | Sequence[str] | Sequence[Text] | Tokens
) -> dict[int, Tensor]:
    """The latents of every transcoder on some texts, in the model as it is.

    Args:
        model: a loaded model.
        transcoders: layer to transcoder.
        texts: texts, or tokens.

    Returns:
        Layer to latents [batch, pos, d_sae]. On BOS, which no transcoder has seen, they are zero.

    Raises:
        InputError: transcoders that do not fit the model, or an empty text.

    Example:
        >>> transcoders = load_transcoders(get_target("smallworld"), "cpu")
        >>> mlp_latents(model, transcoders, text)[2].shape
        torch.Size([1, 8, 1024])
    """
    transcoders = check_transcoders(model, transcoders)
    tokens = as_tokens(model, texts)
    read = read_hooks(model, tokens.ids, [MLP_IN.format(layer) for layer in transcoders])
    content = tokens.content[..., None]
    return {layer: t.encode(read[MLP_IN.format(layer)]) * content for layer, t in transcoders.items()}


# ---- standing in


#: From what the MLP read, what it wrote, and the layer, to what is to be written: all [batch, pos, d_model].
Rewrite = Callable[[int, Tensor, Tensor], Tensor]


@contextmanager
def rewritten(model: TransformerBridge, layers: Sequence[int], rewrite: Rewrite) -> Iterator[None]:
    """While this is open, the output of these MLPs is what `rewrite` makes of it.

    Args:
        model: a loaded model. Its weights stay as they are, and the hooks go when the block ends.
        layers: whose MLPs.
        rewrite: from the layer, what its MLP read and what it wrote, to what is to be written.
    """
    read: dict[int, Tensor] = {}

    def look(layer: int) -> Callable:
        def keep(acts: Tensor, hook: Any) -> None:
            read[layer] = acts

        return keep

    def write(layer: int) -> Callable:
        return lambda acts, hook: rewrite(layer, read.pop(layer), acts)

    hooks = [(MLP_IN.format(layer), look(layer)) for layer in layers]
    hooks += [(MLP_OUT.format(layer), write(layer)) for layer in layers]
    with model.hooks(fwd_hooks=hooks):
        yield


@contextmanager
def replaced(
    model: TransformerBridge, transcoders: Transcoders, bos: bool = True, keep_error: float = 0.0
) -> Iterator[None]:
    """While this is open, the transcoders stand in for the MLPs of their layers, and their errors are lost.

    This is the replacement model of Ameisen et al. 2025 ("Circuit Tracing", section "From Cross-Layer Transcoder to
    Replacement Model"), with a transcoder for each layer instead of cross-layer ones.

    Args:
        model: a loaded model. Its weights stay as they are, and the hooks go when the block ends.
        transcoders: layer to transcoder; other layers keep their MLP.
        bos: texts begin with BOS. It keeps what the MLP wrote there: no transcoder has seen it.
        keep_error: share of the error that is added back, 0 to 1. With 1 the model is what it was.

    Yields:
        Nothing.

    Raises:
        InputError: transcoders that do not fit the model, or a share outside 0 to 1.

    Example:
        >>> transcoders = load_transcoders(get_target("smallworld"), "cpu")
        >>> with replaced(model, transcoders):
        ...     logits = model(tokenize(model, text).ids)
        >>> logits.shape
        torch.Size([1, 8, 4096])
    """
    transcoders = check_transcoders(model, transcoders)
    if isinstance(keep_error, bool) or not isinstance(keep_error, int | float) or not 0 <= keep_error <= 1:
        raise InputError(f"keep_error must be a share from 0 to 1, got {keep_error!r}.")

    def stand_in(layer: int, read: Tensor, written: Tensor) -> Tensor:
        rebuilt = transcoders[layer](read)
        rebuilt = rebuilt + keep_error * (written - rebuilt)
        return torch.cat([written[:, :1], rebuilt[:, 1:]], dim=1) if bos else rebuilt

    with rewritten(model, list(transcoders), stand_in):
        yield


@contextmanager
def mlp_latents_edited(
    model: TransformerBridge, transcoders: Transcoders, edits: Mapping[int, MlpEdit], bos: bool = True
) -> Iterator[None]:
    """While this is open, the MLPs write what they would, and what the edits of their transcoders' latents change.

    Nothing is frozen: the latents that are edited are those that the running model has just then, and the error stays.

    Args:
        model: a loaded model. Its weights stay as they are, and the hooks go when the block ends.
        transcoders: layer to transcoder.
        edits: layer to a function from latents [batch, pos, d_sae] to new ones.
        bos: texts begin with BOS, where nothing is edited.

    Yields:
        Nothing.

    Raises:
        InputError: transcoders that do not fit the model, an edit of a layer without a transcoder, or one that
            returns another shape.

    Example:
        >>> transcoders = load_transcoders(get_target("smallworld"), "cpu")
        >>> with mlp_latents_edited(model, transcoders, {2: lambda latents: 0 * latents}):
        ...     logits = model(tokenize(model, text).ids)
        >>> logits.shape
        torch.Size([1, 8, 4096])
    """
    transcoders = check_transcoders(model, transcoders)
    for layer in edits:
        if layer not in transcoders:
            raise InputError(f"no transcoder for layer {layer!r}; there are some for {list(transcoders)}.")

    def change(layer: int, read: Tensor, written: Tensor) -> Tensor:
        latents = transcoders[layer].encode(read)
        edited = edits[layer](latents)
        if not isinstance(edited, Tensor) or edited.shape != latents.shape:
            found = list(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
            raise InputError(f"an edit must return a tensor of shape {list(latents.shape)}, got {found}.")
        difference = (edited - latents) @ transcoders[layer].W_dec
        if bos:
            difference = torch.cat([0 * difference[:, :1], difference[:, 1:]], dim=1)
        return written + difference

    with rewritten(model, list(edits), change):
        yield


def ablate(nodes: Sequence[tuple[int, int, int]], transcoders: Transcoders) -> dict[int, MlpEdit]:
    """Edits that set latents at positions to zero, for `mlp_latents_edited`.

    Args:
        nodes: (layer, position, latent) of each; positions count from the start of the row, BOS included.
        transcoders: layer to transcoder.

    Returns:
        Layer to edit.

    Raises:
        InputError: a layer without a transcoder, or a latent that it does not have. (A position beyond the text is
            refused when the model runs.)

    Example:
        >>> transcoders = load_transcoders(get_target("smallworld"), "cpu")
        >>> edits = ablate([(2, 5, 17), (3, 5, 40)], transcoders)
        >>> with mlp_latents_edited(model, transcoders, edits):
        ...     logits = model(tokenize(model, text).ids)
    """
    places: dict[int, list[tuple[int, int]]] = {}
    for layer, position, latent in nodes:
        if layer not in transcoders:
            raise InputError(f"no transcoder for layer {layer!r}; there are some for {sorted(transcoders)}.")
        d_sae, number = transcoders[layer].W_dec.shape[0], whole_number(latent)
        if number is None or not 0 <= number < d_sae:
            raise InputError(f"latent must be a whole number from 0 to {d_sae - 1}, got {latent!r}.")
        places.setdefault(int(layer), []).append((check_count(position, "position", least=0), number))
    return {layer: _zero(chosen) for layer, chosen in places.items()}


def _zero(chosen: list[tuple[int, int]]) -> MlpEdit:
    positions, latents = (torch.tensor(column) for column in zip(*chosen, strict=True))

    def edit(z: Tensor) -> Tensor:
        if int(positions.max()) >= z.shape[1]:
            raise InputError(f"position {int(positions.max())} is beyond the text, which has {z.shape[1]} tokens.")
        z = z.clone()
        z[:, positions, latents] = 0.0
        return z

    return edit
