"""A control for everything: an SAE of a model that knows nothing, because its weights have been shuffled.

    python -m solutions.analysis.bases.shuffled      # trains the stored one again; a minute or two

It is trained on what comes out of the model when the numbers inside every weight matrix have changed places (Heap et
al. 2025). It is of the same kind and width as the embedded SAE and sees as many tokens, in as many steps.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from solutions.analysis.bases.make import encode_all, read_texts
from solutions.analysis.texts import LabelledTexts
from solutions.errors import InputError
from solutions.targets import Target, check_target, get_target

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

#: The target it belongs to, and the seed of the shuffle: the weights themselves need not be stored.
TARGET, SEED = "smallworld", 0
TEXTS, TOKENS, LEARNING_RATE, K = 8000, 1_500_000, 6e-3, 16
REMEDY = "Get the folder back from version control, or train it again: python -m solutions.analysis.bases.shuffled"


def shuffled_model(target: Target, seed: int = SEED) -> TransformerBridge:
    """The target's model with its weights shuffled, on the CPU."""
    from solutions.analysis.sweeps import shuffle_weights
    from solutions.models import load_model

    return shuffle_weights(load_model(check_target(target), "cpu"), seed)


def shuffled_sae(target: Target) -> SAE:
    """The stored SAE of the embedded model with its weights shuffled.

    Args:
        target: what is being studied.

    Returns:
        A SAELens SAE.

    Raises:
        InputError: it is another target, or a file is missing or not what was written.
    """
    from solutions.analysis.by_sae_lens import FOLDER, stored_sae

    if check_target(target) != get_target(TARGET):
        raise InputError(f"an SAE of shuffled weights is stored for the target {TARGET!r} only, not for "
                         f"{target.name!r}. train_shuffled makes one for any target.")
    return stored_sae(FOLDER / "shuffled_weights", remedy=REMEDY)


def shuffled_features(target: Target, world: LabelledTexts) -> Tensor:
    """Latent activations of the shuffled model's SAE on labelled texts, [tokens, latents]: a basis to compare with.

    BOS and padding are left out, as in `labelled_tokens`.

    Args:
        target: what is being studied.
        world: from `labelled_texts`.

    Returns:
        [tokens, latents].

    Raises:
        InputError: as for `shuffled_sae`.
    """
    x = read_texts(shuffled_model(target), world, target.hook)
    return encode_all(shuffled_sae(target), x)


def train_shuffled(target: Target, folder: Path, n_texts: int = TEXTS, n_tokens: int = TOKENS, seed: int = SEED,
                   progress: bool = True) -> None:
    """Train a TopK SAE on the target's model with its weights shuffled, and save it in SAELens's format."""
    from solutions.data import load_texts
    from solutions.models import harvest
    from solutions.sae import Plan, StoreSource, make_sae, save_sae, train

    model = shuffled_model(target, seed)
    plan = Plan(n_tokens=n_tokens, batch_size=1024, lr=LEARNING_RATE, dead_after=100_000, seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        store = harvest(model, load_texts(target, n_texts, "train"), target.hook, Path(scratch) / "store",
                        dtype="float16", test_share=0.0, progress=progress)
        sae = make_sae("topk", d_in=target.d_in, d_sae=target.d_sae, k=K, seed=seed)
        source = StoreSource(store, target.hook)
        trained = train(sae, source, plan, progress=progress).sae
    save_sae(trained, folder, hook=target.hook, model_name=f"{target.model}, weights shuffled",
             context_size=target.context_size, prepend_bos=target.prepend_bos)


def main() -> None:
    """Train the stored SAE and put it in its place, in half precision."""
    from solutions.analysis.by_sae_lens import FOLDER, keep_sae

    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as scratch:
        train_shuffled(get_target(TARGET), Path(scratch) / "made")
        keep_sae(Path(scratch) / "made", FOLDER / "shuffled_weights")


if __name__ == "__main__":
    main()
