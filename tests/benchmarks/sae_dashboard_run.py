"""Runs in an environment of its own, with sae-dashboard in it: its dashboards' data for all latents of an SAE.

Reads a job (JSON) from standard input and prints one line of JSON: CPU and wall seconds, memory, version.
"""

import json
import resource
import shutil
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

warnings.simplefilter("ignore")


def for_older_tools(folder: str) -> str:
    """A copy of a GPT-2 folder whose config also says `n_ctx`, which newer transformers leave out."""
    copy = Path(tempfile.mkdtemp(prefix="model-")) / "gpt2"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "n_ctx": config["n_positions"]}))
    return str(copy)


def main(job: dict) -> dict:
    import torch
    import transformer_lens.loading_from_pretrained as loading
    from sae_dashboard.sae_vis_data import SaeVisConfig
    from sae_dashboard.sae_vis_runner import SaeVisRunner
    from sae_lens import SAE, HookedSAETransformer
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_grad_enabled(False)
    folder = for_older_tools(job["model"])
    tokenizer, hf = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    config = loading.get_pretrained_model_config(folder, hf_cfg=hf.config.to_dict(), fold_ln=False, device="cpu")
    model = HookedSAETransformer(config, tokenizer)
    plain = {"fold_ln": False, "center_writing_weights": False, "center_unembed": False, "fold_value_biases": False}
    model.load_and_process_state_dict(loading.get_pretrained_state_dict(folder, config, hf.float()), **plain)
    sae = SAE.load_from_disk(job["sae"], device="cpu")
    sae.fold_W_dec_norm = lambda: None  # a TopK SAE cannot be rescaled; the dashboards show its own values
    tokens = load_file(job["tokens"])["tokens"]
    settings = SaeVisConfig(hook_point=job["hook"], features=list(range(job["n_latents"])),
                            minibatch_size_features=256, minibatch_size_tokens=64, verbose=False, device="cpu")
    wall, cpu = time.perf_counter(), time.process_time()
    SaeVisRunner(settings).run(encoder=sae, model=model, tokens=tokens)
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "n_tokens": tokens.numel(),
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "version": version("sae-dashboard")}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
