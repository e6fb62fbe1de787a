"""The feature index: where every latent of an SAE is active, and how strongly, on all tokens of a store.

A dashboard needs the active tokens of one latent, a text needs the active latents of each token. Both are sparse:
of 24,576 latents about 50 are active on a token. `build_index` reads the store once and keeps what is active, twice:
token by token and latent by latent. Every question is then a read of a few pages of a file, however large::

    index = build_index(store, sae, hook, path, vocabulary=str_tokens(model, torch.arange(model.cfg.d_vocab)))
    where, values = index.latent(7)         # everything latent 7 does
    page = index.page(7)                    # what a dashboard shows of it

**The files.** A folder with

`manifest.json`
    what the index was made from (hook; checksums of the store's manifest, the SAE and the vocabulary), its sizes,
    the summed reconstruction error, and bytes and SHA-256 of every other file; it carries its own checksum.

`by_token.safetensors`
    rows (CSR): `starts` int64 [n_tokens + 1], `latents` int32 and `values` float32 [nnz]. Token i has the entries
    `starts[i]` to `starts[i + 1]`, latents ascending. BOS has none.

`by_latent.safetensors`
    the same entries as columns (CSC): `starts` int64 [n_latents + 1], `tokens` int32 (int64 from 2^31 tokens on) and
    `values` float32 [nnz], tokens ascending; `maximum` float32 [n_latents].

`places.safetensors`
    for every token of the store `ids`, `document`, `position` (int32), `is_bos`, `test` (bool), `error`, `norm`
    (float32: the squared lengths of x - reconstruction and of x).

`decoder.safetensors`
    for every latent `neighbours` and `cosines` [n_latents, 16]: the most similar decoder directions; and, if an
    unembedding was given, `positive`, `positive_effect`, `negative`, `negative_effect`: tokens and logits.

`vocabulary.json`
    every token as text, if a vocabulary was given.

Any safetensors reader opens them. Reading here goes through a memory map of the arrays inside them.

**Why float32.** Half precision would save a quarter of the two large files (8 bytes an entry become 6) and no time: a
question's cost is finding entries, and reading half as many bytes is used up by widening them. It would cost exactness.
On the embedded world it leaves one distinct value in sixty, so that values which differ become equal, and about one
latent in seven gets other top-ten examples. With float32 the index gives exactly what the SAE gives. Latent numbers
could be 16 bits wide below 65,536 latents: another quarter of one file, for a second format to test.
"""

from solutions.analysis.index.build import build_index
from solutions.analysis.index.concepts import ConceptTable, Scores, concept_table, place_labels, token_lookup
from solutions.analysis.index.read import FeatureIndex, SparseRows, nearest_latents

__all__ = [
    "ConceptTable",
    "FeatureIndex",
    "Scores",
    "SparseRows",
    "build_index",
    "concept_table",
    "nearest_latents",
    "place_labels",
    "token_lookup",
]
