#!/usr/bin/env python3
"""Holds quire to transformers on models whose shapes nobody chose: random configs of every family, random weights, random storage.

    python3 -m venv /tmp/oracle && /tmp/oracle/bin/pip install torch transformers safetensors
    /tmp/oracle/bin/python tests/oracle/sweep.py [--families llama,falcon] [--seeds 0-9] [--backends ref,cpu] [--keep DIR]

Each (family, seed) draws a config: group sizes, head dims, odd widths and vocabularies, windows of one token, every RoPE scaling, biases,
experts, norms, tied or not; the keys of the hub's files or those that transformers 5 saves; weights stored as float32, float16, bfloat16 or
FP8 with one scale or blocks, in one file or shards. The oracle is transformers in memory, in float32, with the numbers that the files
hold. Compared in float32, over prompt and greedy answer: every log-probability, and every token that is clear of its second by 1e-2, within
the tolerances of compare.py, or twice what rounding moves transformers itself (see noise()) where that is more. Prints a line per model and backend, with the draw where one fails; exit code 1 where one does.
"""

import argparse
import copy
import json
import math
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from safetensors.torch import save_file

import compare
import make_family_fixtures as fixtures

MAX_LEN = 400  # served; longer than some models' trained positions
LENGTHS = (1, 5, 130, 330)
NUM_TOKENS = 24
FP8_MAX = 448.0
FP8_BLOCK = 128
MAX_HEAD_DIM = 256


# ---- draws ----

def heads(r, most=16):
    """(query heads, KV heads) with groups of 1, 2, 3, 4, 7, 8 or all."""
    group = r.choice([1, 2, 3, 4, 7, 8, 0])
    kv = r.choice([1, 2, 3])
    q = kv * group if group else r.choice([2, 3, 5, 6, 11, 16])
    return (q, kv if group else 1) if q <= most else (8, 1)


def rope(r, dim, kinds=("default", "linear", "dynamic", "yarn", "llama3"), positions=1024):
    """rope_parameters of a random kind. `dim` is what is rotated."""
    kind, theta = r.choice(kinds), r.choice([1e3, 1e4, 5e5, 1e6])
    if kind == "dynamic" and dim == 2:  # transformers divides by dim - 2
        kind = "linear"
    more = {}
    if kind in ("linear", "dynamic"):
        more = {"factor": r.choice([1.0, 1.5, 2.0, 8.0])}
    if kind == "llama3":
        more = {"factor": r.choice([2.0, 8.0, 32.0]), "low_freq_factor": 1.0, "high_freq_factor": r.choice([2.0, 4.0]),
                "original_max_position_embeddings": r.choice([64, 256, 8192])}
    if kind == "yarn":
        original = r.choice([64, 128, positions // 4])
        more = {"factor": positions / original, "original_max_position_embeddings": original}
        if r.random() < 0.5:
            more |= {"beta_fast": r.choice([16.0, 32.0]), "beta_slow": r.choice([1.0, 2.0])}
        if r.random() < 0.3:
            more["attention_factor"] = r.choice([0.8, 1.3])
        if r.random() < 0.3:
            more["truncate"] = False
        if r.random() < 0.3:
            more |= {"mscale": r.choice([0.7, 1.0]), "mscale_all_dim": r.choice([0.7, 1.0])}
    if kind == "longrope":
        more = {"short_factor": [1 + 0.02 * i for i in range(dim // 2)], "long_factor": [1 + 0.4 * i for i in range(dim // 2)]}
    return {"rope_type": kind, "rope_theta": theta, **more}


def head_dim(r):
    return r.choice([2, 6, 8, 10, 16, 18, 24, 32, 34, 64, 80, 96, 112, 128, 160, 192, 256])


def common(r, square=False, **more):
    """What Llama's relatives share. `square`: heads * head_dim = hidden."""
    q, kv = heads(r)
    dim = head_dim(r)
    if square:
        while q * dim > 512:
            dim = r.choice([6, 8, 10, 16, 24, 32])
    hidden = q * dim if square else -(-r.choice([20, 33, 36, 48, 63, 64, 100, 130, 192]) // q) * q  # transformers wants a multiple
    return {
        "vocab_size": r.choice([31, 97, 255, 256, 503, 1003, 1024, 4099]),
        "hidden_size": hidden,
        "intermediate_size": r.choice([7, 24, 31, 64, 96, 129]),
        "num_hidden_layers": r.choice([1, 2, 3, 4]),
        "num_attention_heads": q,
        "num_key_value_heads": kv,
        "max_position_embeddings": 1024,
        "rms_norm_eps": r.choice([1e-5, 1e-6, 1e-3]),
        "tie_word_embeddings": r.random() < 0.5,
        "pad_token_id": None,
    } | ({} if square else {"head_dim": dim}) | more


def dim_of(fields):
    return fields.get("head_dim") or fields["hidden_size"] // fields["num_attention_heads"]


def with_rope(r, fields, **options):
    return fields | {"rope_parameters": rope(r, dim_of(fields), **options)}


def window(r):
    return r.choice([1, 2, 7, 15, 16, 17, 33, 100, 1000])


def layer_types(r, fields):
    return {"layer_types": [r.choice(["full_attention", "sliding_attention"]) for _ in range(fields["num_hidden_layers"])]}


def llama(r):
    fields = common(r, square=r.random() < 0.3, attention_bias=r.random() < 0.4, mlp_bias=r.random() < 0.3)
    if r.random() < 0.2:
        return "Llama", fields | {"max_position_embeddings": 128, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}
    return "Llama", with_rope(r, fields)


def mistral(r):
    return "Mistral", with_rope(r, common(r, sliding_window=r.choice([None, window(r)])))


def experts(r):
    count = r.choice([1, 2, 3, 5, 8, 13])
    return {"num_local_experts": count, "num_experts_per_tok": r.choice([1, min(2, count), count])}


def mixtral(r):
    return "Mixtral", with_rope(r, common(r, sliding_window=r.choice([None, window(r)]), **experts(r)))


def qwen_windows(r, fields):
    if r.random() < 0.5:
        return fields
    fields = fields | {"use_sliding_window": True, "sliding_window": window(r), "max_window_layers": r.choice([0, 1, 2])}
    return fields | (layer_types(r, fields) if r.random() < 0.5 else {})


def qwen2(r):
    return "Qwen2", qwen_windows(r, with_rope(r, common(r, square=True)))


def qwen3(r):
    return "Qwen3", qwen_windows(r, with_rope(r, common(r, attention_bias=r.random() < 0.3)))


def qwen3_moe(r):
    drawn = experts(r)
    fields = with_rope(r, common(r, attention_bias=r.random() < 0.3, num_experts=drawn["num_local_experts"],
                                 num_experts_per_tok=drawn["num_experts_per_tok"], moe_intermediate_size=r.choice([5, 16, 33]),
                                 norm_topk_prob=r.random() < 0.5, decoder_sparse_step=r.choice([1, 1, 2])))
    return "Qwen3Moe", fields | {"mlp_only_layers": r.choice([[], [0], [fields["num_hidden_layers"] - 1]])}


def gemma2(r):
    fields = common(r, query_pre_attn_scalar=r.choice([7, 16, 144, 256]), sliding_window=window(r), attention_bias=r.random() < 0.2,
                    attn_logit_softcapping=r.choice([None, 2.0, 50.0]), final_logit_softcapping=r.choice([None, 5.0, 30.0]), pad_token_id=0)
    fields = with_rope(r, fields, kinds=("default", "default", "linear"))
    return "Gemma2", fields | (layer_types(r, fields) if r.random() < 0.4 else {})


def gemma3(r):
    fields = common(r, query_pre_attn_scalar=r.choice([7, 16, 144, 256]), sliding_window=window(r), attention_bias=r.random() < 0.2,
                    final_logit_softcapping=r.choice([None, 5.0]), pad_token_id=0)
    fields["num_hidden_layers"] = r.choice([1, 2, 3, 6, 7])
    full = rope(r, dim_of(fields), kinds=("default", "linear"))
    fields["rope_parameters"] = {"sliding_attention": {"rope_type": "default", "rope_theta": r.choice([1e4, 3e4])}, "full_attention": full}
    pattern = r.choice([0, 1, 2, 3, 6])
    types = ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(fields["num_hidden_layers"])] if pattern else None
    return "Gemma3Text", fields | ({"layer_types": types} if types and "full_attention" in types else {})


def phi3(r):
    fields = common(r, square=True, sliding_window=r.choice([None, window(r)]))
    part = r.choice([1.0, 0.5, 0.75])
    rotated = int(dim_of(fields) * part)
    if rotated % 2 or rotated < 2:
        part, rotated = 1.0, dim_of(fields)
    kind = r.choice(["default", "longrope"])
    if kind == "longrope":
        fields |= {"original_max_position_embeddings": r.choice([128, 256, 512])}
    parameters = rope(r, rotated, kinds=(kind,))
    if kind == "longrope":
        parameters["original_max_position_embeddings"] = fields["original_max_position_embeddings"]
    return "Phi3", fields | {"rope_parameters": parameters | ({"partial_rotary_factor": part} if part < 1 else {})}


def mla(r):
    fields = common(r)
    count = r.choice([1, 2, 3, 6])
    fields |= {"hidden_size": -(-fields["hidden_size"] // count) * count, "num_attention_heads": count, "num_key_value_heads": count, "kv_lora_rank": r.choice([6, 16, 40, 64]),
               "q_lora_rank": r.choice([None, 5, 24]), "qk_nope_head_dim": r.choice([3, 8, 17, 32]), "qk_rope_head_dim": r.choice([2, 6, 8, 16]),
               "v_head_dim": r.choice([1, 5, 16, 40]), "moe_intermediate_size": r.choice([5, 16, 33]), "n_shared_experts": r.choice([1, 2, 3]),
               "first_k_dense_replace": r.choice([0, 1, fields["num_hidden_layers"]]), "routed_scaling_factor": r.choice([1.0, 2.5])}
    fields.pop("head_dim")
    parameters = rope(r, fields["qk_rope_head_dim"], kinds=("default", "yarn", "yarn"))
    return fields | {"rope_parameters": parameters}


def deepseek_v2(r):
    fields = mla(r)
    fields["qk_nope_head_dim"] += fields["qk_nope_head_dim"] % 2  # transformers' rotation by complex numbers wants it even
    if r.random() < 0.5:
        return "DeepseekV2", fields | {"n_routed_experts": r.choice([3, 7, 16]), "num_experts_per_tok": r.choice([1, 3]), "topk_method": "greedy"}
    groups = r.choice([1, 2, 4])
    per_group = r.choice([1, 3, 4])
    top = r.randint(1, groups)
    return "DeepseekV2", fields | {"n_routed_experts": groups * per_group, "n_group": groups, "topk_group": top,
                                   "num_experts_per_tok": r.randint(1, top * per_group), "topk_method": "group_limited_greedy"}


def deepseek_v3(r):
    groups = r.choice([1, 2, 4])
    per_group = r.choice([2, 3, 5])
    top = r.randint(1, groups)
    return "DeepseekV3", mla(r) | {"n_routed_experts": groups * per_group, "n_group": groups, "topk_group": top,
                                   "num_experts_per_tok": r.randint(1, top * per_group), "norm_topk_prob": r.random() < 0.5,
                                   "rope_interleave": r.random() < 0.7}


def gpt_oss(r):
    drawn = experts(r)
    fields = common(r, sliding_window=window(r), attention_bias=r.random() < 0.8, **drawn)
    fields = with_rope(r, fields, kinds=("default", "yarn", "yarn"))
    return "GptOss", fields | (layer_types(r, fields) if r.random() < 0.5 else {})


def falcon(r):
    q, kv = heads(r)
    dim = r.choice([8, 10, 16, 24, 32])
    fields = {"vocab_size": r.choice([31, 257, 1003]), "hidden_size": q * dim, "num_hidden_layers": r.choice([1, 2, 3]), "num_attention_heads": q,
              "max_position_embeddings": 1024, "bias": r.random() < 0.5, "tie_word_embeddings": r.random() < 0.5,
              "layer_norm_epsilon": r.choice([1e-5, 1e-3]), "activation": r.choice(["gelu", "gelu_new", "relu"]),
              "ffn_hidden_size": r.choice([None, 31, 100])}
    if r.random() < 0.4:
        fields |= {"new_decoder_architecture": True, "num_kv_heads": kv, "num_ln_in_parallel_attn": r.choice([None, 1, 2]),
                   "multi_query": r.random() < 0.5}
    else:
        fields |= {"new_decoder_architecture": False, "multi_query": r.random() < 0.5, "parallel_attn": r.random() < 0.5}
    if r.random() < 0.3:
        return "Falcon", fields | {"alibi": True}
    return "Falcon", fields | {"rope_parameters": rope(r, dim)}


def gpt2(r):
    count = r.choice([1, 2, 3, 5, 8])
    return "GPT2", {"vocab_size": r.choice([31, 257, 1003]), "n_embd": count * r.choice([2, 6, 8, 16, 34, 64, 96]), "n_layer": r.choice([1, 2, 4]),
                    "n_head": count, "n_positions": r.choice([400, 700]), "n_inner": r.choice([None, 31, 100]),
                    "activation_function": r.choice(["gelu_new", "gelu", "relu", "silu", "gelu_pytorch_tanh"]),
                    "scale_attn_by_inverse_layer_idx": r.random() < 0.3, "scale_attn_weights": r.random() < 0.8,
                    "layer_norm_epsilon": r.choice([1e-5, 1e-3]), "tie_word_embeddings": r.random() < 0.7}


def opt(r):
    count = r.choice([1, 2, 3, 5, 8])
    hidden = count * r.choice([2, 6, 8, 16, 34, 64])
    return "OPT", {"vocab_size": r.choice([31, 257, 1003]), "hidden_size": hidden, "num_hidden_layers": r.choice([1, 2, 3]),
                   "num_attention_heads": count, "ffn_dim": r.choice([31, 64, 100]), "max_position_embeddings": r.choice([400, 700]),
                   "do_layer_norm_before": r.random() < 0.6, "word_embed_proj_dim": r.choice([hidden, hidden, 7, 32]),
                   "activation_function": r.choice(["relu", "gelu"]), "enable_bias": r.random() < 0.8, "tie_word_embeddings": r.random() < 0.7,
                   "pad_token_id": 1}


FAMILIES = {f.__name__: f for f in (llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, gemma2, gemma3, phi3, deepseek_v2, deepseek_v3, gpt_oss,
                                    falcon, gpt2, opt)}


# ---- files ----

def to_fp8(name, tensor, by_blocks):
    """{name: codes, its scale}, and the numbers that they stand for. Rows and columns that fill no block have one of their own."""
    rows, cols = tensor.shape
    block = (FP8_BLOCK, FP8_BLOCK) if by_blocks else (rows, cols)
    grid = [-(-rows // block[0]), -(-cols // block[1])]
    scales = torch.ones(grid)
    for i in range(grid[0]):
        for j in range(grid[1]):
            part = tensor[i * block[0]:(i + 1) * block[0], j * block[1]:(j + 1) * block[1]]
            scales[i, j] = part.abs().max().clamp(min=1e-6) / FP8_MAX
    spread = scales.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :cols]
    codes = (tensor / spread).to(torch.float8_e4m3fn)
    scale = {name + "_scale_inv": scales} if by_blocks else {name + "_scale": scales.reshape(())}
    return {name: codes} | scale, codes.float() * spread


def is_projection(name, tensor):
    return tensor.ndim == 2 and name.endswith("_proj.weight") and "embed" not in name


def store(r, fields, model, path):
    """Writes the model as a checkpoint of a random kind; rounds the model's own weights to what is stored. Returns its name."""
    model.save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    tensors = fixtures.load_file(path / "model.safetensors")
    for file in path.iterdir():
        file.unlink()
    kinds = ["float32", "bfloat16", "float16"]
    if config["model_type"] in ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "deepseek_v3"):
        kinds += ["fp8-tensor", "fp8-block"]
    kind = r.choice(kinds)
    dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(kind, torch.float32)
    stored, numbers = {}, {}
    for name, tensor in tensors.items():
        if kind.startswith("fp8") and is_projection(name, tensor):
            files, numbers[name] = to_fp8(name, tensor.float(), kind == "fp8-block")
            stored |= files
        else:
            stored[name] = tensor.to(dtype)
            numbers[name] = stored[name].float()
    config["dtype"] = "float32" if kind.startswith("fp8") else kind
    if kind.startswith("fp8"):
        config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                         "weight_block_size": [FP8_BLOCK, FP8_BLOCK] if kind == "fp8-block" else None}
    hub = r.random() < 0.5 and can_be_hub(config, fields)
    if hub:
        config = fixtures.to_hub_config(config)
        if "qwen" in config["model_type"] and fields.get("use_sliding_window"):
            config |= {k: fields[k] for k in ("use_sliding_window", "sliding_window", "max_window_layers")}
        stored = fixtures.to_hub_tensors(stored, config)
    shards = r.choice([1, 1, 2, 3])
    write(stored, config, shards, path)
    return f"{kind}{', hub' if hub else ''}, {shards} file{'s' if shards > 1 else ''}", numbers


def can_be_hub(config, fields):
    """Whether the hub's older keys can say it."""
    types = config.get("layer_types")
    if config["model_type"] == "gemma3_text":
        return types is not None and "full_attention" in types and all(
            (t == "full_attention") == ((i + 1) % (types.index("full_attention") + 1) == 0) for i, t in enumerate(types))
    if fields.get("layer_types"):
        return False
    if config["model_type"] == "phi3":
        return "partial_rotary_factor" not in config["rope_parameters"] and "partial_rotary_factor" not in config
    return config["model_type"] != "falcon" or config.get("tie_word_embeddings", True)


def write(tensors, config, shards, path):
    names = sorted(tensors)
    if shards == 1:
        save_file({k: v.contiguous() for k, v in tensors.items()}, path / "model.safetensors", metadata={"format": "pt"})
    else:
        files = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
        for i, file in enumerate(files):
            save_file({k: tensors[k].contiguous() for k in names[i::shards]}, path / file, metadata={"format": "pt"})
        weight_map = {name: files[i % shards] for i, name in enumerate(names)}
        (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))
    (path / "config.json").write_text(json.dumps(config))


def write_tokenizer(path, vocab):
    names = {f"t{i}": i for i in range(vocab)}
    (path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
                                                     "post_processor": None, "decoder": {"type": "ByteLevel"},
                                                     "model": {"type": "BPE", "vocab": names, "merges": []}}))


# ---- comparison ----

def make(family, seed, path):
    """The model with the numbers of the files in `path`, and what was drawn."""
    r = random.Random(f"{family}/{seed}")
    architecture, fields = FAMILIES[family](r)
    with torch.no_grad():
        model = fixtures.make_model(fixtures.Recipe(architecture, fields))
        fixtures.draw_weights(model, seed)
        fixtures.spread_logits(model)
        storage, numbers = store(r, fields, model, path)
    if not any(m == "config.json" for m in os.listdir(path)):
        raise AssertionError("no config.json")
    write_tokenizer(path, model.config.vocab_size)
    oracle_path = path / "oracle"
    model.save_pretrained(oracle_path)
    saved = fixtures.load_file(oracle_path / "model.safetensors")
    save_file({k: numbers[k].contiguous() for k in saved}, oracle_path / "model.safetensors", metadata={"format": "pt"})
    oracle = compare.load(oracle_path, torch.float32, model.config)
    shutil.rmtree(oracle_path)
    return oracle, fields, storage


def ask(args, target, ids):
    """Tokens after `ids` and log-probabilities of all but the first token."""
    command = [args.bin / "quire", "generate", "--target", target, "--prompt-ids", ",".join(map(str, ids)), "--max-tokens", NUM_TOKENS,
               "--temperature", 0, "--logprobs", 0, "--prompt-logprobs", 0, "--ignore-eos", "--json"]
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-300:])
    tokens, values = [], []
    for message in map(json.loads, done.stdout.splitlines()):
        values += [e.get("logprob", 0.0) for e in message.get("prompt_logprobs", {}).get("logprobs", [])]
        tokens += message.get("delta", {}).get("token_ids", [])
        values += [e.get("logprob", 0.0) for e in message.get("delta", {}).get("logprobs", [])]
    return tokens, values


def noise(oracle, ids, rows, length):
    """How sensitive the model is: by how much transformers in float32 is off its own float64, and off itself with the frequencies of the
    rotary embedding, which no two libraries round alike, moved by one unit in the last place."""
    exact, moved = copy.deepcopy(oracle).double(), copy.deepcopy(oracle)
    for name, buffer in moved.named_buffers():
        if name.endswith("inv_freq"):
            buffer.copy_(torch.nextafter(buffer, torch.full_like(buffer, math.inf)))
    return max(float((compare.logprobs(model, ids, length) - rows).abs().max()) for model in (exact, moved))


def judge(args, target, oracle, max_len, backend):
    """Raises where quire differs; the figure."""
    length, worst, clear = compare.oracle_len(oracle.config, max_len), 0.0, 0
    for n in sorted({min(n, max_len - NUM_TOKENS) for n in LENGTHS}):
        ids = fixtures.prompt(n, n, oracle.config.vocab_size)
        tokens, values = ask(args, target, ids)
        whole = ids + tokens
        rows = compare.logprobs(oracle, whole[:-1], length)
        expected = rows.gather(1, torch.tensor(whole[1:])[:, None])[:, 0]
        if len(values) != len(expected):
            raise AssertionError(f"{len(values)} log-probabilities for {len(expected)} tokens")
        difference = (torch.tensor(values, dtype=torch.double) - expected).abs()
        allowed = torch.tensor([max(1e-4 if backend == "ref" else 1e-3, 1e-6 * i) for i in range(1, len(whole))])
        if not bool((difference <= allowed).all()):
            allowed = allowed.clamp(min=2 * noise(oracle, whole[:-1], rows, length))
        worst = max(worst, float(difference.max()))
        if not bool((difference <= allowed).all()):
            at = int((difference - allowed).argmax())
            raise AssertionError(f"prompt of {n}: log-probability {at + 1} is {values[at]:.6f}, not {float(expected[at]):.6f}; mean {float(difference.mean()):.2g}")
        best = rows[n - 1:].topk(2)
        for i, token in enumerate(tokens):
            gap = float(best.values[i, 0] - best.values[i, 1])
            clear += gap > compare.NEAR_TIE
            if token != int(best.indices[i, 0]) and gap > compare.NEAR_TIE:
                raise AssertionError(f"prompt of {n}: token {i} is {token}, not {int(best.indices[i, 0])}")
    return f"off by {worst:.1e} at most, {clear} clear choices"


def run(args, family, seed, backend, path, oracle):
    trained = oracle.config.max_position_embeddings
    parameters = getattr(oracle.config, "rope_parameters", None) or {}
    scaled = trained * (parameters.get("factor", 1) if parameters.get("rope_type") in ("dynamic", "linear") else 1)
    max_len = int(min(MAX_LEN, scaled))
    log = open(path / "quired.log", "w+")
    command = [args.bin / "quired", "--model", path, "--backend", backend, "--dtype", "float32", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
               "--max-model-len", max_len, "--kv-cache-memory", "256MiB", "--log-level", "error", "--block-size", args.block_size]
    daemon = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        ready = daemon.stdout.readline()
        if "ready" not in ready:
            daemon.wait()
            log.seek(0)
            raise AssertionError(f"refused: {log.read().strip()[-400:]}")
        return judge(args, ready.split("grpc=")[1].split()[0], oracle, max_len, backend)
    finally:
        daemon.kill()
        daemon.wait()
        daemon.stdout.close()
        log.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=compare.BIN)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--seeds", default="0-4", help="FIRST-LAST")
    parser.add_argument("--backends", default="ref,cpu")
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--keep", type=pathlib.Path, help="where directories of models that fail are kept")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    first, _, last = args.seeds.partition("-")
    passed = failed = 0
    for family in args.families.split(","):
        for seed in range(int(first), int(last or first) + 1):
            with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
                path = pathlib.Path(folder)
                oracle, fields, storage = make(family, seed, path)
                for backend in args.backends.split(","):
                    try:
                        figure = run(args, family, seed, backend, path, oracle)
                        passed += 1
                        print(f"ok   {family}-{seed} {backend} ({storage}): {figure}", flush=True)
                    except (AssertionError, RuntimeError) as error:
                        failed += 1
                        print(f"FAIL {family}-{seed} {backend} ({storage}): {error}\n     {json.dumps(fields)}", flush=True)
                        if args.keep:
                            shutil.copytree(path, args.keep / f"{family}-{seed}", dirs_exist_ok=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
