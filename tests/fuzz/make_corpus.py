#!/usr/bin/env python3
"""Writes the seed corpus: small inputs that reach far into each reader. Standard library only; the files are committed."""
import json, os, struct

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def write(kind, name, data):
    os.makedirs(os.path.join(here, kind), exist_ok=True)
    with open(os.path.join(here, kind, name), "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def safetensors(header, data):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


write("safetensors", "empty", safetensors({}, b""))
write("safetensors", "one", safetensors({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)))
write("safetensors", "many", safetensors({
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]},
    "b.weight": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [8, 12]},
    "b.weight_scale_inv": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]},
    "c": {"dtype": "F16", "shape": [], "data_offsets": [16, 18]}}, bytes(18)))


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def pair(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def u32(key, value):
    return pair(key, 4, struct.pack("<I", value))


def f32(key, value):
    return pair(key, 6, struct.pack("<f", value))


def array(key, kind, elements):
    return pair(key, 9, struct.pack("<IQ", kind, len(elements)) + b"".join(elements))


def gguf(pairs, tensors, version=3):
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs)
    data = b""
    for name, dims, kind, size in tensors:
        head += text(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
        head += struct.pack("<IQ", kind, len(data))
        data += bytes((size + 31) // 32 * 32)
    return head + bytes(-len(head) % 32) + data if tensors else head


def model(name, extra=(), more=(), kind=0, size=4):
    sizes = [("context_length", 64), ("embedding_length", 8), ("block_count", 1), ("feed_forward_length", 8),
             ("attention.head_count", 2), ("attention.head_count_kv", 1), ("attention.key_length", 4)]
    pairs = [pair("general.architecture", 8, text(name))] + [u32(f"{name}.{key}", value) for key, value in sizes]
    pairs += [f32(f"{name}.attention.layer_norm_rms_epsilon", 1e-5), f32(f"{name}.rope.freq_base", 10000.0)]
    pairs += [pair("tokenizer.ggml.model", 8, text("t5" if name == "gemma3" else "llama")), array("tokenizer.ggml.tokens", 8, [text("a"), text("b")]),
              array("tokenizer.ggml.scores", 6, [struct.pack("<f", -1.0)] * 2),
              array("tokenizer.ggml.token_type", 5, [struct.pack("<i", 1)] * 2), u32("tokenizer.ggml.eos_token_id", 1)]
    tensors = [("token_embd.weight", [8, 4], 0, 128), ("blk.0.attn_norm.weight", [8], 0, 32),
               ("blk.0.attn_q.weight", [8, 8], 0, 256), ("blk.0.attn_k.weight", [8, 4], 0, 128),
               ("output_norm.weight", [8], 0, 32)]
    return gguf(pairs + list(extra), tensors + list(more))


write("gguf", "empty", gguf([], []))
write("gguf", "version2", gguf([u32("general.alignment", 32)], [("w", [32, 2], 8, 68)], version=2))
write("gguf", "llama", model("llama"))
write("gguf", "llama3", model("llama", more=[("rope_freqs.weight", [2], 0, 8)]))
write("gguf", "mixtral", model("llama", extra=[u32("llama.expert_count", 2), u32("llama.expert_used_count", 1)],
                               more=[("blk.0.ffn_up_exps.weight", [8, 4, 2], 0, 256)]))
write("gguf", "gemma3", model("gemma3", extra=[u32("gemma3.attention.sliding_window", 16)]))
write("gguf", "qwen3", model("qwen3"))
write("gguf", "phi3", model("phi3", extra=[pair("phi3.rope.scaling.type", 8, text("longrope")),
                                           f32("phi3.rope.scaling.attn_factor", 1.1)],
                            more=[("rope_factors_long.weight", [2], 0, 8), ("rope_factors_short.weight", [2], 0, 8)]))
deepseek = [u32(f"deepseek2.{key}", value) for key, value in [
    ("attention.kv_lora_rank", 4), ("attention.q_lora_rank", 4), ("attention.key_length_mla", 6), ("attention.value_length_mla", 4),
    ("rope.dimension_count", 2), ("expert_count", 2), ("expert_used_count", 1), ("expert_shared_count", 1), ("expert_gating_func", 2),
    ("expert_group_count", 1), ("leading_dense_block_count", 0), ("expert_feed_forward_length", 4), ("nextn_predict_layers", 0)]]
deepseek += [pair("deepseek2.rope.scaling.type", 8, text("yarn")), f32("deepseek2.rope.scaling.factor", 4.0),
             f32("deepseek2.rope.scaling.yarn_log_multiplier", 0.07), u32("deepseek2.rope.scaling.original_context_length", 16),
             f32("deepseek2.expert_weights_scale", 2.5), pair("deepseek2.expert_weights_norm", 7, b"\1")]
write("gguf", "deepseek3", model("deepseek2", extra=deepseek, more=[
    ("blk.0.attn_k_b.weight", [4, 4, 2], 0, 128), ("blk.0.attn_v_b.weight", [4, 4, 2], 0, 128), ("blk.0.exp_probs_b.bias", [2], 0, 8),
    ("blk.0.ffn_gate_exps.weight", [8, 4, 2], 0, 256)]))
write("gguf", "gpt_oss", model("gpt-oss", extra=[u32("gpt-oss.expert_count", 2), u32("gpt-oss.expert_used_count", 1),
                                                 u32("gpt-oss.attention.sliding_window", 16)],
                               more=[("blk.0.ffn_up_exps.weight", [32, 4, 2], 39, 136), ("blk.0.ffn_up_exps.bias", [4, 2], 0, 32),
                                     ("blk.0.attn_sinks.weight", [2], 0, 8)]))
write("gguf", "falcon", model("falcon", extra=[f32("falcon.attention.layer_norm_epsilon", 1e-5)],
                              more=[("blk.0.attn_norm_2.weight", [8], 0, 32), ("blk.0.attn_qkv.weight", [8, 16], 0, 512)]))
write("gguf", "gpt2", model("gpt2", extra=[f32("gpt2.attention.layer_norm_epsilon", 1e-5)],
                            more=[("position_embd.weight", [8, 64], 0, 2048), ("blk.0.attn_qkv.bias", [24], 0, 96)]))
write("gguf", "types", gguf([], [(f"t{kind}", [256], kind, size) for kind, size in
                                 [(1, 512), (2, 144), (3, 160), (6, 176), (7, 192), (8, 272), (10, 84), (11, 110), (12, 144),
                                  (13, 176), (14, 210), (30, 512), (39, 136)]]))

llama = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 64, "hidden_size": 16,
         "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 4, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
         "tie_word_embeddings": False, "torch_dtype": "bfloat16"}
write("config", "llama", json.dumps(llama))
write("config", "llama3", json.dumps(llama | {"rope_scaling": {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64}}))
write("config", "yarn", json.dumps(llama | {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True,
                                            "sliding_window": 16, "rope_scaling": {
    "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}))
write("config", "gemma3", json.dumps(llama | {"architectures": ["Gemma3ForCausalLM"], "sliding_window": 16,
                                              "layer_types": ["sliding_attention", "full_attention"],
                                              "rope_local_base_freq": 10000.0, "query_pre_attn_scalar": 4}))
write("config", "deepseek", json.dumps(llama | {
    "architectures": ["DeepseekV3ForCausalLM"], "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4, "v_head_dim": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2,
    "topk_group": 1, "moe_intermediate_size": 8, "n_shared_experts": 1, "first_k_dense_replace": 1}))
write("config", "gpt_oss", json.dumps(llama | {"architectures": ["GptOssForCausalLM"], "num_local_experts": 4,
                                               "num_experts_per_tok": 2, "sliding_window": 8}))
write("config", "nested", "[" * 100 + "]" * 100)

added = [{"id": 5, "content": "<s>", "special": True, "single_word": False, "lstrip": False, "rstrip": False,
          "normalized": False}]
vocab = {"a": 0, "b": 1, "ab": 2, "\u0120": 3, "\u0120a": 4}
bpe = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
       "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
       "post_processor": None, "decoder": {"type": "ByteLevel"},
       "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                 "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                 "vocab": vocab, "merges": ["a b", "\u0120 a"]}}
write("tokenizer", "bpe", json.dumps(bpe))
metaspace = {"a": 0, "\u2581": 1, "\u2581a": 2, "<unk>": 3, "<0x41>": 4}
write("tokenizer", "sentencepiece", json.dumps(bpe | {
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
                                                       {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
    "pre_tokenizer": None,
    "decoder": {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": bpe["model"] | {"unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True, "vocab": metaspace,
                             "merges": ["\u2581 a"]}}))
write("tokenizer", "unigram", json.dumps(bpe | {
    "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
    "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
    "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": False, "vocab": [["<unk>", 0.0], ["a", -1.0], ["\u2581a", -2.0]]}}))
