"""Are SAE latents better inputs for a classifier than the activations that they were made from?

A task says what is to be told, where examples may be drawn and where the result is judged. `compare_probes` trains
a probe of every kind on the same few examples and judges all on the same tokens::

    world = labelled_texts(model, 600)
    text = labelled_tokens(world)
    tasks = probe_tasks(text, ["negation_scope", "in_quote"])
    found = compare_probes({"activations": x, "SAE latents": encode(sae, x)}, text.ids, tasks, n=64,
                           sparse=["SAE latents"])
    probe_means(found)                                              # a mean for each kind, with its interval
    probe_differences(found, "SAE latents", "activations")          # pair by pair
"""

from solutions.analysis.probing.compare import FittedProbe, compare_probes, fit_cross_validated
from solutions.analysis.probing.summary import best_probes, probe_differences, probe_means
from solutions.analysis.probing.tasks import (
    ProbeTask,
    choose_tasks,
    draw_examples,
    half_of_groups,
    probe_tasks,
    shifted_tasks,
)

__all__ = [
    "FittedProbe",
    "ProbeTask",
    "best_probes",
    "choose_tasks",
    "compare_probes",
    "draw_examples",
    "fit_cross_validated",
    "half_of_groups",
    "probe_differences",
    "probe_means",
    "probe_tasks",
    "shifted_tasks",
]
