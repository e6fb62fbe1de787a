"""Every latent, systematically: what it is active on, where, how strongly, and for which concept.

A dashboard shows one latent, and whoever picks the latent picks a good one. `latent_table` looks at all of
them in one pass over the feature index, with the same yardsticks for each and a control for each yardstick::

    table = latent_table(index, concepts, labels)
    table.filter(f1=(0.8, None), alive=True).sort("density").export("latents.csv")

`blocks` reads the entries some latents at a time, `enrichment` finds the tokens that a latent prefers (with a
correction for how many pairs were tried), `places` where in a text it is active, `truth` what the concept
labels say of it, `gather` puts it together and `table` is what one gets.
"""

from solutions.analysis.latents.enrichment import (
    benjamini_hochberg,
    enriched_pairs,
    enriched_tokens,
    false_discoveries,
)
from solutions.analysis.latents.gather import latent_table
from solutions.analysis.latents.places import boundary_preference, position_preference, sentence_marks
from solutions.analysis.latents.table import LatentTable
from solutions.analysis.latents.truth import average_precision, best_concepts

__all__ = [
    "LatentTable",
    "average_precision",
    "benjamini_hochberg",
    "best_concepts",
    "boundary_preference",
    "enriched_pairs",
    "enriched_tokens",
    "false_discoveries",
    "latent_table",
    "position_preference",
    "sentence_marks",
]
