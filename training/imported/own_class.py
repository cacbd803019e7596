"""Run by the interpreter of another environment: the logits of a class of a package there, with weights given to it.

It imports nothing of this project. ``CLASS ARGUMENTS WEIGHTS INPUT OUT``: arguments in JSON, weights as tensors alone.
"""

import importlib
import json
import sys
import warnings

import numpy as np
import torch

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    module, _, name = sys.argv[1].rpartition(".")
    network = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2])).eval()
    network.load_state_dict(torch.load(sys.argv[3], map_location="cpu", weights_only=True))
    with torch.inference_mode():
        rows = [network(part) for part in torch.from_numpy(np.load(sys.argv[4])).split(4)]
    np.save(sys.argv[5], torch.cat(rows).numpy())
