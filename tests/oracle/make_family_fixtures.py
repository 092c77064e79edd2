#!/usr/bin/env python3
"""Makes a tiny random model of every family, and records what transformers computes on it.

    python3 -m venv /tmp/oracle && /tmp/oracle/bin/pip install torch transformers
    /tmp/oracle/bin/python tests/oracle/make_family_fixtures.py [--only PATTERN] [--out tests/oracle/fixtures/families]

Writes OUT/NAME/{config.json, model.safetensors, oracle.json}. The weights are bfloat16 numbers, so that one file serves every type;
what is recorded is computed in float32. For prompts of 1 to 600 tokens: the log-probability of every prompt token, 64 greedy tokens with
theirs, and by how much the best logit leads. Prompts come from the generator of tests/engine/engine_testing.cc, so they are not stored.
The files of a family alternate between the keys and names that checkpoints on the hub have and those that transformers 5 saves.

tests/oracle/make_gguf_fixtures.py adds GGUF files. tests/engine/family_oracle_test.cc holds quire to them; tests/oracle/compare.py does the same live for any model directory.
"""

import argparse
import dataclasses
import fnmatch
import json
import math
import os
import pathlib
import shutil

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from safetensors.torch import load_file, save_file

PROMPT_LENGTHS = [1, 2, 17, 64, 200, 600]
NUM_GREEDY = 64
LOGIT_SPREAD = 3.0  # standard deviation of a row of logits: neither flat nor certain


@dataclasses.dataclass
class Recipe:
    architecture: str  # transformers' class, without Config
    fields: dict
    hub: bool = False  # keys and names as on the hub
    max_model_len: int = 700
    oracle_len: int = 0  # transformers sees sequences padded to this length: scalings that depend on it
    mxfp4: bool = False


def rope(kind="default", theta=10000.0, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


def llama_like(q_heads, kv_heads, head_dim, vocab=257, hidden=36, layers=2, inner=48, **more):
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": q_heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
    } | more


def without(fields, *keys):
    return {k: v for k, v in fields.items() if k not in keys}


def falcon(q_heads, hidden, vocab, **more):
    return {"vocab_size": vocab, "hidden_size": hidden, "num_hidden_layers": 2, "num_attention_heads": q_heads, "max_position_embeddings": 1024} | more


def mla(heads=4, mscale=1.0, **more):
    yarn = rope("yarn", 10000.0, factor=8.0, original_max_position_embeddings=128, beta_fast=32.0, beta_slow=1.0, mscale=mscale, mscale_all_dim=0.7)
    return without(llama_like(heads, heads, 8, vocab=255, layers=3), "head_dim") | yarn | {
        "kv_lora_rank": 24,
        "q_lora_rank": 20,
        "qk_nope_head_dim": 12,
        "qk_rope_head_dim": 8,
        "v_head_dim": 10,
        "moe_intermediate_size": 12,
        "first_k_dense_replace": 1,
        "n_shared_experts": 2,
        "num_experts_per_tok": 3,
    } | more


def gpt_oss(**more):
    fields = llama_like(8, 2, 16, vocab=261, hidden=32, inner=32, num_local_experts=6, num_experts_per_tok=2, sliding_window=24)
    return fields | rope("yarn", 150000.0, factor=8.0, original_max_position_embeddings=128, beta_fast=32.0, beta_slow=1.0, truncate=False) | more


LONG = [1.0 + 0.9 * i for i in range(8)]
RECIPES = {
    "llama-mha": Recipe("Llama", without(llama_like(6, 6, 8, hidden=48, rms_norm_eps=1e-5), "head_dim"), hub=True),
    "llama-gqa4-bias": Recipe("Llama", llama_like(8, 2, 12, hidden=40, vocab=301, attention_bias=True, mlp_bias=True)),
    "llama3-tied": Recipe("Llama", llama_like(4, 2, 16, tie_word_embeddings=True, rms_norm_eps=1e-5) | rope(
        "llama3", 500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=128), hub=True),
    "llama31": Recipe("Llama", llama_like(4, 2, 16, max_position_embeddings=16384, rms_norm_eps=1e-5) | rope(
        "llama3", 500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)),
    "llama-linear": Recipe("Llama", llama_like(4, 1, 14) | rope("linear", factor=4.0)),
    "llama-dynamic": Recipe("Llama", llama_like(4, 2, 16, max_position_embeddings=256) | rope("dynamic", factor=3.0), hub=True,
                            max_model_len=700, oracle_len=700),
    "mistral-window": Recipe("Mistral", llama_like(8, 1, 10, hidden=40, vocab=263, sliding_window=19), hub=True),
    "mixtral": Recipe("Mixtral", llama_like(4, 2, 16, num_local_experts=5, num_experts_per_tok=2, sliding_window=45) | rope(theta=1e6)),
    "mixtral-full": Recipe("Mixtral", llama_like(4, 2, 16, num_local_experts=5, num_experts_per_tok=2) | rope(theta=1e6)),
    "qwen2": Recipe("Qwen2", without(llama_like(6, 2, 8, vocab=271, hidden=48), "head_dim") | rope(theta=1e6), hub=True),
    "qwen2-yarn-tied": Recipe("Qwen2", without(llama_like(4, 2, 12, hidden=48, tie_word_embeddings=True), "head_dim") | rope(
        "yarn", 1e6, factor=4.0, original_max_position_embeddings=256)),
    "qwen2-window": Recipe("Qwen2", without(llama_like(4, 2, 12, hidden=40, layers=3), "head_dim") | {
        "use_sliding_window": True, "sliding_window": 33, "max_window_layers": 1}),
    "qwen3": Recipe("Qwen3", llama_like(16, 2, 8, hidden=48, tie_word_embeddings=True) | rope(theta=1e6), hub=True),
    "qwen3-yarn": Recipe("Qwen3", llama_like(4, 4, 20) | rope("yarn", 1e4, factor=4.0, original_max_position_embeddings=256, beta_fast=8.0,
                                                              beta_slow=2.0)),
    "qwen3-moe": Recipe("Qwen3Moe", llama_like(4, 1, 16, layers=3, num_experts=12, num_experts_per_tok=4, moe_intermediate_size=12,
                                               norm_topk_prob=True, mlp_only_layers=[1]), hub=True),
    "qwen3-moe-all": Recipe("Qwen3Moe", llama_like(4, 1, 16, num_experts=12, num_experts_per_tok=4, moe_intermediate_size=12, norm_topk_prob=True)),
    "gemma2": Recipe("Gemma2", llama_like(4, 2, 16, layers=3, tie_word_embeddings=True, query_pre_attn_scalar=24, sliding_window=21,
                                          attn_logit_softcapping=4.0, final_logit_softcapping=9.0, pad_token_id=0), hub=True),
    "gemma2-plain": Recipe("Gemma2", llama_like(4, 2, 16, layers=3, tie_word_embeddings=True, query_pre_attn_scalar=16, sliding_window=21,
                                                attn_logit_softcapping=4.0, final_logit_softcapping=9.0, pad_token_id=0)),
    "gemma3": Recipe("Gemma3Text", llama_like(4, 1, 18, layers=4, tie_word_embeddings=True, query_pre_attn_scalar=20, sliding_window=26,
                                              pad_token_id=0, layer_types=["sliding_attention", "sliding_attention", "full_attention"] +
                                              ["sliding_attention"]) | {"rope_parameters": {
                                                  "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                                                  "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}}}, hub=True),
    "gemma3-five": Recipe("Gemma3Text", llama_like(4, 2, 12, layers=3, tie_word_embeddings=True, query_pre_attn_scalar=12, sliding_window=40,
                                                   pad_token_id=0, layer_types=["full_attention", "sliding_attention", "full_attention"]) |
                          {"rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                                               "full_attention": {"rope_type": "default", "rope_theta": 1e6}}}),
    "gemma3-six": Recipe("Gemma3Text", llama_like(4, 2, 12, hidden=24, inner=36, layers=7, tie_word_embeddings=True, query_pre_attn_scalar=12,
                                                  sliding_window=40, pad_token_id=0) | {
                                                      "rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
                                                                          "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}}}),
    "phi3-window": Recipe("Phi3", without(llama_like(4, 4, 12, hidden=40, sliding_window=37, pad_token_id=None), "head_dim"), hub=True),
    "phi3-partial": Recipe("Phi3", without(llama_like(6, 2, 8, hidden=48, pad_token_id=None), "head_dim") | rope(partial_rotary_factor=0.5)),
    "phi3-longrope": Recipe("Phi3", without(llama_like(3, 3, 16, hidden=48, original_max_position_embeddings=256, pad_token_id=None), "head_dim") | rope(
        "longrope", original_max_position_embeddings=256, short_factor=[1.0] * 8, long_factor=LONG), hub=True, oracle_len=700),
    "phi3-longrope-short": Recipe("Phi3", without(llama_like(3, 1, 16, hidden=48, original_max_position_embeddings=800, pad_token_id=None), "head_dim") |
                                  rope("longrope", original_max_position_embeddings=800, short_factor=[1.0 + 0.03 * i for i in range(8)],
                                       long_factor=LONG)),
    "falcon-7b": Recipe("Falcon", falcon(5, 60, 259, multi_query=True, parallel_attn=True), hub=True),
    "falcon-40b": Recipe("Falcon", falcon(8, 64, 259, new_decoder_architecture=True, num_kv_heads=2, tie_word_embeddings=False)),
    "falcon-11b": Recipe("Falcon", falcon(4, 48, 265, new_decoder_architecture=True, num_kv_heads=1, num_ln_in_parallel_attn=1,
                                          ffn_hidden_size=100)),
    "falcon-rw": Recipe("Falcon", falcon(6, 48, 267, multi_query=False, parallel_attn=False, alibi=True, bias=True)),
    "deepseek-v2-lite": Recipe("DeepseekV2", mla(mscale=0.7, q_lora_rank=None, n_routed_experts=8, topk_method="greedy", routed_scaling_factor=1.0), hub=True),
    "deepseek-v2": Recipe("DeepseekV2", mla(n_routed_experts=16, num_experts_per_tok=4, topk_method="group_limited_greedy", n_group=8,
                                            topk_group=3, routed_scaling_factor=3.0)),
    "deepseek-v3": Recipe("DeepseekV3", mla(mscale=0.7, n_routed_experts=16, n_group=4, topk_group=2, routed_scaling_factor=2.5, norm_topk_prob=True,
                                            n_shared_experts=1), hub=True),
    "deepseek-v3-halves": Recipe("DeepseekV3", mla(heads=2, n_routed_experts=8, n_group=2, topk_group=1, routed_scaling_factor=1.5,
                                                   norm_topk_prob=False, rope_interleave=False)),
    "gpt-oss": Recipe("GptOss", gpt_oss()),
    "gpt-oss-mxfp4": Recipe("GptOss", gpt_oss(), hub=True, mxfp4=True),
    "gpt2": Recipe("GPT2", {"vocab_size": 273, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 700}, hub=True),
    "gpt2-inverse-layer": Recipe("GPT2", {"vocab_size": 273, "n_embd": 40, "n_layer": 3, "n_head": 2, "n_positions": 700, "n_inner": 90,
                                          "scale_attn_by_inverse_layer_idx": True}),
    "opt": Recipe("OPT", {"vocab_size": 275, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 80,
                          "max_position_embeddings": 700}, hub=True),
    "opt-350m": Recipe("OPT", {"vocab_size": 275, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "ffn_dim": 80,
                               "max_position_embeddings": 700, "word_embed_proj_dim": 32, "do_layer_norm_before": False}),
}


def prompt(seed, length, vocab):
    """RandomPrompt of tests/engine/engine_testing.cc."""
    ids = []
    for _ in range(length):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        ids.append((seed >> 33) % vocab)
    return ids


def attention_of(fields):
    """transformers' eager attention adds ALiBi's bias twice, in the mask and to the scores; its default one does not."""
    return "sdpa" if fields.get("alibi") else "eager"


def make_model(recipe):
    config_class = getattr(transformers, recipe.architecture + "Config")
    config = config_class(**{"bos_token_id": 1, "eos_token_id": 2} | recipe.fields)
    name = recipe.architecture.removesuffix("Text")
    return getattr(transformers, name + ("LMHeadModel" if name == "GPT2" else "ForCausalLM"))._from_config(
        config, attn_implementation=attention_of(recipe.fields), experts_implementation="eager").eval()


def draw_weights(model, seed):
    """Random weights that leave nothing out: attention has peaks, routing differs by token, norms and biases are no identities."""
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter, std, mean=0.0):
        parameter.data = mean + std * torch.randn(parameter.shape, generator=generator)

    is_post_norm = not getattr(model.config, "do_layer_norm_before", True)
    peaked = type(model).__name__.startswith(("Gemma", "Falcon", "OPT", "GPT2"))
    head = model.get_output_embeddings()
    for module_name, module in model.named_modules():
        kind = type(module).__name__
        leaf = module_name.rsplit(".", 1)[-1]
        for name, parameter in module.named_parameters(recurse=False):
            if module is head and model.config.tie_word_embeddings:
                continue
            if "Norm" in kind and name == "weight":
                normal(parameter, 0.25, 0.0 if "Gemma" in kind else 1.1 if leaf in ("q_norm", "k_norm") else 1.0)
            elif name == "sinks":
                normal(parameter, 1.0, 1.0)
            elif "bias" in name:
                normal(parameter, 0.15)
            elif "Embedding" in kind:
                normal(parameter, 0.7 if is_post_norm else 0.4 / math.sqrt(parameter.shape[1]))
            elif kind.endswith("Router"):
                normal(parameter, 2.0 / math.sqrt(parameter.shape[-1]))
            else:
                fan_in = parameter.shape[-2] if kind == "Conv1D" or kind == "GptOssExperts" else parameter.shape[-1]
                gain = 0.5 if is_post_norm and leaf in ("fc2", "out_proj") else 1.8 if peaked else 1.4
                normal(parameter, gain / math.sqrt(fan_in))
        for name, buffer in module.named_buffers(recurse=False):
            if name == "e_score_correction_bias":
                buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))


def spread_logits(model):
    """Scales what feeds the logits until their spread is LOGIT_SPREAD: the head, or the last norm where the head is the embedding."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    if cap is not None:
        model.config.final_logit_softcapping = None
    norms = [m for n, m in model.named_modules() if "Norm" in type(m).__name__ and not n.rsplit(".", 1)[-1].endswith(("q_norm", "k_norm"))]
    ids = torch.tensor([prompt(5, 80, model.config.vocab_size)])
    for _ in range(3):
        scale = LOGIT_SPREAD / model(ids).logits.std(-1).mean()
        if not model.config.tie_word_embeddings:
            model.get_output_embeddings().weight.data *= scale
        elif "Gemma" in type(model).__name__:
            norms[-1].weight.data = scale * (1 + norms[-1].weight.data) - 1
        else:
            norms[-1].weight.data *= scale
            if getattr(norms[-1], "bias", None) is not None:
                norms[-1].bias.data *= scale
    if cap is not None:
        model.config.final_logit_softcapping = cap


MXFP4_VALUES = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def draw_mxfp4(model, seed):
    """Random codes and scales for gpt-oss's experts; the model gets the values that they stand for. Returns the tensors of the file."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor(MXFP4_VALUES + [-v for v in MXFP4_VALUES])
    tensors = {}
    for name, parameter in model.named_parameters():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            continue
        experts, cols, rows = parameter.shape  # [experts, in, out]; the file has [experts, out, in]
        codes = torch.randint(16, (experts, rows, cols), generator=generator)
        scales = torch.randint(122, 126, (experts, rows, cols // 32), generator=generator)
        parameter.data = (values[codes] * 2.0 ** (scales - 127).repeat_interleave(32, -1)).transpose(1, 2).contiguous()
        low, high = codes[..., 0::2], codes[..., 1::2]
        tensors[name + "_blocks"] = (low + 16 * high).to(torch.uint8).reshape(experts, rows, cols // 32, 16)
        tensors[name + "_scales"] = scales.to(torch.uint8)
    return tensors


def to_hub_config(config):
    """config.json with the keys of the family's checkpoints on the hub."""
    c = dict(config)
    c["torch_dtype"] = c.pop("dtype")
    scaling = c.pop("rope_parameters", None) or {}
    if "full_attention" in scaling:
        full, local = dict(scaling["full_attention"]), scaling["sliding_attention"]
        c["rope_theta"], c["rope_local_base_freq"] = full.pop("rope_theta"), local["rope_theta"]
        c["rope_scaling"] = None if full["rope_type"] == "default" else full
        c["sliding_window_pattern"] = c["layer_types"].index("full_attention") + 1
    elif scaling:
        kind = scaling.pop("rope_type")
        c["rope_theta"] = scaling.pop("rope_theta")
        if c["model_type"] == "phi3":
            scaling.pop("original_max_position_embeddings", None)  # stands beside max_position_embeddings
            scaling.pop("partial_rotary_factor", None)
        c["rope_scaling"] = None if kind == "default" else {"type": kind} | scaling
    for key in ("layer_types", "_sliding_window_pattern"):
        c.pop(key, None)
    if c["model_type"].startswith("qwen"):  # there, and switched off
        c |= {"use_sliding_window": False, "sliding_window": 16, "max_window_layers": 1}
    if c["model_type"] == "qwen3_moe":
        c["num_experts"] = c.pop("num_local_experts", None) or c["num_experts"]
    if c["model_type"].startswith("deepseek"):
        c.pop("head_dim", None)
        c |= {"moe_layer_freq": 1, "scoring_func": "sigmoid" if c["model_type"] == "deepseek_v3" else "softmax"}
        if c["model_type"] == "deepseek_v3":
            c["topk_method"] = "noaux_tc"
    return c


def to_hub_tensors(tensors, config):
    """Names of the family's checkpoints on the hub, with what they carry and nobody reads."""
    kind, layers = config["model_type"], config.get("num_hidden_layers")
    if kind == "gpt2":
        n = config["n_positions"]
        masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 4, 4) for i in range(config["n_layer"])}
        return {k.removeprefix("transformer."): v for k, v in tensors.items()} | masks
    if kind == "opt":
        return {k.removeprefix("model."): v for k, v in tensors.items()}
    if kind == "llama":
        return tensors | {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(layers)}
    if kind == "deepseek_v3":
        return tensors | {f"model.layers.{layers}.{w}.weight": torch.ones(8) for w in ("enorm", "hnorm")}
    if kind == "falcon":  # a tied head, written out
        return tensors | {"lm_head.weight": tensors["transformer.word_embeddings.weight"].clone()}
    return tensors


def round_weights(model):
    """To bfloat16 numbers. Not by model.to(), which would round the frequencies of rotary embeddings as well."""
    for tensor in [*model.parameters(), *(b for n, b in model.named_buffers() if n.endswith("e_score_correction_bias"))]:
        tensor.data = tensor.data.to(torch.bfloat16).to(torch.float32)


def load(directory, dtype, recipe):
    return transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, attn_implementation=attention_of(recipe.fields), experts_implementation="eager").eval()


def write_for_readers(recipe, mxfp4, out):
    """Turns what save_pretrained wrote into the fixture: weights in bfloat16, which loses nothing, under the names that transformers
    saves or that the hub has."""
    config, tensors = json.loads((out / "config.json").read_text()), load_file(out / "model.safetensors")
    config["dtype"] = "bfloat16"
    tensors = {k: v.to(torch.bfloat16) for k, v in tensors.items()}
    if mxfp4:
        experts = [k for k in tensors if k.endswith(("experts.gate_up_proj", "experts.down_proj"))]
        tensors = {k: v for k, v in tensors.items() if k not in experts} | mxfp4
        config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    if recipe.hub:
        config = to_hub_config(config)
        tensors = to_hub_tensors(tensors, config)
    for file in out.iterdir():
        file.unlink()
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def logprobs(model, ids, oracle_len):
    """[len(ids), vocab], from one forward pass without a cache."""
    padded = ids + [3] * (oracle_len - len(ids))
    return model(torch.tensor([padded]), use_cache=False).logits[0, : len(ids)].float().log_softmax(-1)


def greedy(model, ids, oracle_len):
    """NUM_GREEDY tokens. With a cache, but where frequencies depend on the length, which a cache knows nothing of."""
    tokens, past, feed = list(ids), None, list(ids)
    for _ in range(NUM_GREEDY):
        if oracle_len:
            row = logprobs(model, tokens, oracle_len)[-1]
        else:
            step = model(torch.tensor([feed]), past_key_values=past, use_cache=True)
            past, row = step.past_key_values, step.logits[0, -1]
        tokens.append(int(row.argmax()))
        feed = tokens[-1:]
    return tokens[len(ids) :]


def shortened(numbers):
    return [round(float(x), 6) for x in numbers]


def record(model, recipe):
    records = []
    vocab = model.config.vocab_size
    for i, length in enumerate(PROMPT_LENGTHS):
        ids = prompt(i + 1, length, vocab)
        new = greedy(model, ids, recipe.oracle_len)
        rows = logprobs(model, ids + new, recipe.oracle_len)
        chosen = rows[:-1].gather(1, torch.tensor((ids + new)[1:])[:, None])[:, 0]
        best = rows[length - 1 : -1].topk(2).values
        records.append({"greedy": new, "logprobs": shortened(chosen), "gaps": shortened(best[:, 0] - best[:, 1])})
    return records


def mean_distance(model, recipe, records):
    """Of what `model` computes from what is recorded."""
    distances = []
    for i, length in enumerate(PROMPT_LENGTHS):
        ids = prompt(i + 1, length, model.config.vocab_size) + records[i]["greedy"]
        rows = logprobs(model, ids, recipe.oracle_len)[:-1]
        distances.append((rows.gather(1, torch.tensor(ids[1:])[:, None])[:, 0] - torch.tensor(records[i]["logprobs"])).abs())
    return float(torch.cat(distances).mean())


def is_steady(model, recipe, records):
    """Rounding errors in the embeddings stay small: no token stands on the edge between two experts."""
    ids = prompt(len(PROMPT_LENGTHS), PROMPT_LENGTHS[-1], model.config.vocab_size) + records[-1]["greedy"]
    table = model.get_input_embeddings().weight
    exact, before = table.data.clone(), logprobs(model, ids, recipe.oracle_len)
    generator, worst = torch.Generator().manual_seed(1), 0.0
    for _ in range(4):
        table.data = exact * (1 + 1e-5 * torch.randn(table.shape, generator=generator))
        worst = max(worst, float((logprobs(model, ids, recipe.oracle_len) - before).abs().max()))
    table.data = exact
    return worst < 5e-3


def is_lively(records):
    """Generation neither repeats itself nor is undecided."""
    tokens, gaps = [t for r in records for t in r["greedy"]], [g for r in records for g in r["gaps"]]
    return len(set(tokens)) >= 30 and sum(g > 1e-2 for g in gaps) >= 0.9 * len(gaps)


def make(name, recipe, out):
    model = make_model(recipe)
    for seed in range(100, 140):
        draw_weights(model, seed)
        spread_logits(model)
        mxfp4 = draw_mxfp4(model, seed) if recipe.mxfp4 else {}
        round_weights(model)
        records = record(model, recipe)
        if is_lively(records) and is_steady(model, recipe, records):
            break
    else:
        raise RuntimeError(f"{name}: no lively and steady weights")
    shutil.rmtree(out / name, ignore_errors=True)
    model.save_pretrained(out / name)
    distance = mean_distance(load(out / name, torch.bfloat16, recipe), recipe, records)
    write_for_readers(recipe, mxfp4, out / name)
    oracle = {
        "made_by": f"transformers {transformers.__version__}, torch {torch.__version__}, seed {seed}",
        "max_model_len": recipe.max_model_len,
        "prompt_lengths": PROMPT_LENGTHS,
        "bfloat16_mean_distance": distance,
        "records": records,
    }
    (out / name / "oracle.json").write_text(json.dumps(oracle, separators=(",", ":")).replace('{"greedy"', '\n{"greedy"') + "\n")
    size = sum(f.stat().st_size for f in (out / name).iterdir())
    print(f"{name:22} seed {seed}, {size:7} bytes, bfloat16 mean distance {distance:.5f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "fixtures" / "families")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)  # the same bits whatever the machine
    with torch.no_grad():
        for name, recipe in RECIPES.items():
            if fnmatch.fnmatch(name, args.only):
                make(name, recipe, args.out)


if __name__ == "__main__":
    main()
