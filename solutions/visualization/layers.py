"""Features that go on from layer to layer, as a flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from solutions.errors import InputError
from solutions.visualization.lineage import flow_figure
from solutions.visualization.style import check_columns


def layer_flow(
    stages: Sequence[pd.DataFrame], layers: Sequence[str], latents: Sequence[int] | None = None,
    names: Sequence[Mapping[int, str]] | None = None, least: float = 0.4, most: int = 8, title: str | None = None,
) -> go.Figure:
    """Where latents of the first layer go: which latents of later layers are active on the same tokens.

    The thicker a band, the closer the two go together. A latent that ends has no companion at the next layer; bands
    that part are several latents that each take some of the tokens.

    Args:
        stages: for each step from a layer to the next a table with columns earlier, later, correlation and cosine, as
            `analysis.layer_links` gives it.
        layers: what the layers are called, one more than there are tables.
        latents: the latents of the first layer to follow; by default the `most` with the most companions.
        names: for each layer, latent to a name for it.
        least: bands with a lower correlation are left out.
        most: how many latents of the first layer.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: a column or a name is missing, or no correlation is high enough.
    """
    if isinstance(stages, pd.DataFrame):
        raise InputError("stages: expected a list of tables, one per step from a layer to the next, got one table.")
    for table in stages:
        check_columns(table, ["earlier", "later", "correlation", "cosine"])
    if not stages or len(layers) != len(stages) + 1:
        raise InputError(f"layers: expected {len(stages) + 1} names, one more than tables, got {len(layers)}.")
    renamed = [table.rename(columns={"earlier": "narrow", "later": "wide"}) for table in stages]
    first, last = layers[0], layers[-1]
    return flow_figure(
        renamed, layers, latents, names, least, most, "correlation", title,
        f"How latents go on from {first} to {last}, with the correlation of their activations.",
        lambda latent, parts: f"latent of {first}, {latent} goes on as {parts}")
