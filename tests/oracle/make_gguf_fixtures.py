#!/usr/bin/env python3
"""Converts fixtures of make_family_fixtures.py to GGUF with llama.cpp's own converter, so that what quire undoes is what llama.cpp does.

    git clone https://github.com/ggml-org/llama.cpp /tmp/llama.cpp        # beside the packages of make_family_fixtures.py; pip install gguf
    /tmp/oracle/bin/python tests/oracle/make_gguf_fixtures.py /tmp/llama.cpp [--only PATTERN]

Writes OUT/NAME/model.gguf beside what transformers computed on the same weights. The tiny models have no vocabulary, so none is
converted. Where only the GGUF file is wanted, config.json and model.safetensors go.
"""

import argparse
import fnmatch
import importlib
import json
import logging
import pathlib
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

# Fixtures that llama.cpp's format can tell in full, and whether they stay as safetensors too.
GGUF = {
    "llama-gqa4-bias": True,
    "llama-linear": True,
    "llama31": False,
    "mixtral-full": False,
    "qwen2": True,
    "qwen2-yarn-tied": True,
    "qwen3-yarn": True,
    "qwen3-moe-all": False,
    "gemma2-plain": False,
    "gemma3-six": False,
    "phi3-partial": True,
    "phi3-longrope": True,
    "deepseek-v2-lite": True,
    "deepseek-v3": True,
    "falcon-7b": True,
    "falcon-40b": True,
    "gpt2": True,
    "gpt-oss": True,
    "gpt-oss-mxfp4": True,
}


def prepare(source, to):
    """A copy that the converter takes: without what it stumbles over and nobody reads."""
    config, tensors = json.loads((source / "config.json").read_text()), load_file(source / "model.safetensors")
    if config["model_type"] == "gpt2":
        config["n_ctx"] = config["n_positions"]
        tensors = {k: v for k, v in tensors.items() if not k.endswith(".attn.bias")}
    if config["model_type"] == "falcon" and not config.get("new_decoder_architecture"):
        config["num_kv_heads"] = 1  # what multi_query means
    if config["model_type"] == "gemma3_text":  # cut to the vocabulary's size
        (to / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {str(i): i for i in range(config["vocab_size"])}}, "added_tokens": []}))
    (to / "config.json").write_text(json.dumps(config))
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})


def convert(llama_cpp, source, to):
    sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
    conversion, gguf = importlib.import_module("conversion"), importlib.import_module("gguf")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        prepare(source, pathlib.Path(scratch))
        architecture = json.loads((source / "config.json").read_text())["architectures"][0]
        base = conversion.get_model_class(architecture)
        model_class = type(base.__name__, (base,), {"set_vocab": lambda self: self.gguf_writer.add_tokenizer_model("none"),
                                                    "model_arch": base.model_arch})
        model_class(pathlib.Path(scratch), gguf.LlamaFileType.MOSTLY_BF16, to, model_name=source.name).write()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_cpp", type=pathlib.Path)
    parser.add_argument("--only", default="*")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "fixtures" / "families")
    args = parser.parse_args()
    for name, stays in GGUF.items():
        if not fnmatch.fnmatch(name, args.only):
            continue
        to = args.out / name / "model.gguf"
        convert(args.llama_cpp, args.out / name, to)
        if not stays:
            for file in ("config.json", "model.safetensors"):
                (args.out / name / file).unlink()
        print(f"{name:22} {to.stat().st_size:7} bytes", flush=True)


if __name__ == "__main__":
    main()
