#!/usr/bin/env python3
"""What others' attention does on the same GPU, at the shapes of quire_cuda_bench and by its names.

  gpu_peers.py [--quire bench.json] [--json FILE]   on a GPU, with what is installed there of PyTorch, Triton, FlashInfer
  gpu_peers.py --check                              small shapes against plain sums in float32, on the CPU too

  torch       scaled_dot_product_attention over contiguous keys and values: nothing is paged, what a kernel need not look up
  triton      a paged decode kernel (below) in the way of FlashDecoding: contexts split, a second kernel merges; the best of
              a few tile sizes
  flashinfer  BatchDecodeWithPagedKVCacheWrapper, where it can be imported

Times are those of calls in a CUDA graph, which take copies of the cache in turn so that together they exceed any L2: the
best of several replays. --quire joins them with what quire_cuda_bench --json wrote in the same run.
"""

import argparse
import json
import math
import os
import sys

HEAD_DIM = 128
# (sequences, context, query heads, KV heads, block size), as in quire_cuda_bench.
DECODES = [(s, c, 32, 8, b) for b in (16, 64) for s, c in
           ((1, 1024), (1, 4096), (1, 32768), (8, 4096), (8, 16384), (8, 32768), (64, 1024), (256, 900))]
DECODES += [(8, 16384, 64, 8, 16), (8, 32768, 32, 1, 16), (8, 4096, 8, 8, 16)]
PREFILLS = [1024, 2048, 8192]
CACHE_BYTES = 256 << 20  # all copies of a cache together, at least


def make_kernels(triton, tl):
    """A split of a context, and the merge of all splits by log-sum-exp. KV: [blocks, kv_heads, block, dim]."""

    @triton.jit
    def attend_split(q, k, v, tables, lengths, partial, maxima, sums, scale, table_stride, kv_heads, splits,
                     GROUP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr,
                     TILE: tl.constexpr):
        sequence, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
        length = tl.load(lengths + sequence)
        span = tl.cdiv(tl.cdiv(length, TILE), splits) * TILE
        begin = split * span
        end = tl.minimum(begin + span, length)
        rows, dims = tl.arange(0, ROWS), tl.arange(0, DIM)
        row = (sequence * kv_heads + head) * GROUP + rows
        counts = rows < GROUP
        queries = tl.load(q + row[:, None] * DIM + dims[None, :], mask=counts[:, None], other=0.0)
        largest = tl.full([ROWS], float("-inf"), tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        out = tl.zeros([ROWS, DIM], tl.float32)
        for start in range(begin, end, TILE):
            positions = start + tl.arange(0, TILE)
            seen = positions < end
            block = tl.load(tables + sequence * table_stride + positions // BLOCK, mask=seen, other=0).to(tl.int64)
            slots = ((block * kv_heads + head) * BLOCK + positions % BLOCK) * DIM
            keys = tl.load(k + slots[None, :] + dims[:, None], mask=seen[None, :], other=0.0)
            scores = tl.where(seen[None, :], tl.dot(queries, keys) * scale, float("-inf"))
            now = tl.maximum(largest, tl.max(scores, 1))
            alpha, weights = tl.exp2(largest - now), tl.exp2(scores - now[:, None])
            values = tl.load(v + slots[:, None] + dims[None, :], mask=seen[:, None], other=0.0)
            total = total * alpha + tl.sum(weights, 1)
            out = out * alpha[:, None] + tl.dot(weights.to(values.dtype), values)
            largest = now
        at = row * splits + split
        tl.store(partial + at[:, None] * DIM + dims[None, :], out, mask=counts[:, None])
        tl.store(maxima + at, largest, mask=counts)
        tl.store(sums + at, total, mask=counts)

    @triton.jit
    def merge_splits(partial, maxima, sums, out, splits, SPLITS: tl.constexpr, DIM: tl.constexpr):
        row = tl.program_id(0)
        split, dims = tl.arange(0, SPLITS), tl.arange(0, DIM)
        exists = split < splits
        largest = tl.load(maxima + row * splits + split, mask=exists, other=float("-inf"))
        factors = tl.exp2(largest - tl.max(largest, 0))
        total = tl.sum(tl.load(sums + row * splits + split, mask=exists, other=0.0) * factors, 0)
        parts = tl.load(partial + (row * splits + split)[:, None] * DIM + dims[None, :], mask=exists[:, None], other=0.0)
        tl.store(out + row * DIM + dims, (tl.sum(parts * factors[:, None], 0) / total).to(out.dtype.element_ty))

    return attend_split, merge_splits


class Paged:
    """Copies of a paged cache, queries and tables of one decode shape."""

    def __init__(self, torch, sequences, context, q_heads, kv_heads, block, dtype, device, cache_bytes):
        self.torch, self.context, self.kv_heads, self.group, self.block = torch, context, kv_heads, q_heads // kv_heads, block
        pages = -(-context // block)
        one = sequences * pages * kv_heads * block * HEAD_DIM
        self.copies = max(1, cache_bytes // (2 * one * 2))
        generator = torch.Generator(device=device).manual_seed(1)
        random = lambda *shape: torch.rand(*shape, generator=generator, device=device, dtype=torch.float32).mul_(2).sub_(1).to(dtype)
        self.q = random(sequences, q_heads, HEAD_DIM)
        self.k = [random(sequences * pages, kv_heads, block, HEAD_DIM) for _ in range(self.copies)]
        self.v = [random(sequences * pages, kv_heads, block, HEAD_DIM) for _ in range(self.copies)]
        order = torch.arange(sequences * pages, device=device, dtype=torch.int64) * 7919 % (sequences * pages)
        if math.gcd(7919, sequences * pages) != 1:
            order = torch.randperm(sequences * pages, generator=generator, device=device)
        self.tables = order.to(torch.int32).view(sequences, pages)
        self.lengths = torch.full((sequences,), context, dtype=torch.int32, device=device)
        self.out = torch.empty_like(self.q)

    def contiguous(self, copy):
        """Keys and values as [sequences, kv_heads, context, dim]."""
        def gather(cache):
            pages = cache[self.tables.long()]  # [sequences, pages, kv_heads, block, dim]
            return pages.transpose(1, 2).flatten(2, 3)[:, :, : self.context].contiguous()
        return gather(self.k[copy]), gather(self.v[copy])


def triton_call(paged, kernels, num_sms, tile, warps, stages):
    torch, (attend_split, merge_splits) = paged.torch, kernels
    sequences, q_heads, dim = paged.q.shape
    tiles = -(-paged.context // tile)
    splits = max(1, min(tiles, -(-2 * num_sms // (sequences * paged.kv_heads))))
    partial = torch.empty(sequences * q_heads * splits, dim, dtype=torch.float32, device=paged.q.device)
    maxima, sums = torch.empty_like(partial[:, 0]), torch.empty_like(partial[:, 0])
    scale = math.log2(math.e) / math.sqrt(dim)

    def call(copy):
        attend_split[(sequences, paged.kv_heads, splits)](
            paged.q, paged.k[copy], paged.v[copy], paged.tables, paged.lengths, partial, maxima, sums, scale,
            paged.tables.stride(0), paged.kv_heads, splits, GROUP=paged.group, ROWS=max(16, 1 << (paged.group - 1).bit_length()),
            DIM=dim, BLOCK=paged.block, TILE=tile, num_warps=warps, num_stages=stages)
        merge_splits[(sequences * q_heads,)](partial, maxima, sums, paged.out, splits, SPLITS=1 << (splits - 1).bit_length(),
                                             DIM=dim, num_warps=4)
        return paged.out
    return call


def torch_call(paged):
    functional = paged.torch.nn.functional
    caches = [paged.contiguous(copy) for copy in range(paged.copies)]
    return lambda copy: functional.scaled_dot_product_attention(paged.q[:, :, None], *caches[copy], enable_gqa=True)[:, :, 0]


def flashinfer_call(paged, flashinfer):
    torch = paged.torch
    sequences, q_heads, dim = paged.q.shape
    pages = paged.tables.shape[1]
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        torch.empty(256 << 20, dtype=torch.uint8, device=paged.q.device), "HND", use_tensor_cores=paged.group >= 4)
    wrapper.plan(torch.arange(0, (sequences + 1) * pages, pages, dtype=torch.int32, device=paged.q.device), paged.tables.flatten(),
                 torch.full((sequences,), (paged.context - 1) % paged.block + 1, dtype=torch.int32, device=paged.q.device),
                 q_heads, paged.kv_heads, dim, paged.block, q_data_type=paged.q.dtype, kv_data_type=paged.q.dtype)
    return lambda copy: wrapper.run(paged.q, (paged.k[copy], paged.v[copy]))


def micros(torch, call, copies):
    """Of one call: a graph of many, taking the copies in turn."""
    for copy in range(min(copies, 3)):
        call(copy)
    torch.cuda.synchronize()
    count = max(copies, 10)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(count):
            call(i % copies)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    best = math.inf
    for _ in range(6):
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        best = min(best, begin.elapsed_time(end) * 1000 / count)
    return best


def attempt(what, function):
    """Others may refuse a shape or be too old for it: said, not fatal."""
    try:
        return function()
    except Exception as error:  # whatever it is, it is theirs
        print(f"{what}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", file=sys.stderr)
        return None


def measure_decode(torch, shape, kernels, flashinfer, num_sms):
    sequences, context, q_heads, kv_heads, block = shape
    paged = Paged(torch, *shape, torch.bfloat16, "cuda", CACHE_BYTES)
    result = {"name": f"decode {sequences} x {context}, {q_heads}/{kv_heads} heads, block {block}, bfloat16",
              "bytes": 4 * sequences * context * kv_heads * HEAD_DIM}
    if kernels:
        times = [attempt("triton", lambda: micros(torch, triton_call(paged, kernels, num_sms, *config), paged.copies))
                 for config in ((32, 4, 3), (64, 4, 3), (128, 4, 2), (128, 8, 3))]
        result["triton"] = min((t for t in times if t), default=None)
    if flashinfer:
        result["flashinfer"] = attempt("flashinfer", lambda: micros(torch, flashinfer_call(paged, flashinfer), paged.copies))
    result["torch"] = attempt("torch", lambda: micros(torch, torch_call(paged), paged.copies))
    return result


def measure_prefill(torch, rows):
    q = torch.randn(1, 32, rows, HEAD_DIM, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(1, 8, rows, HEAD_DIM, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    call = lambda copy: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return {"name": f"prefill 1 x {rows} after 0, 32/8 heads, block 16, bfloat16",
            "flops": 4 * rows * 0.5 * (rows + 1) * 32 * HEAD_DIM, "torch": attempt("torch", lambda: micros(torch, call, 1))}


def limits(torch):
    a, b = torch.empty(1 << 30, device="cuda", dtype=torch.uint8), torch.empty(1 << 30, device="cuda", dtype=torch.uint8)
    x = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    y = torch.empty_like(x)
    return 2 * a.numel() / micros(torch, lambda copy: b.copy_(a), 1) * 1e6, 2 * 8192**3 / micros(torch, lambda copy: torch.mm(x, x, out=y), 1) * 1e6


def report(results, bandwidth, rate, quire):
    names = ["torch", "triton", "flashinfer"]
    print(f"copy {bandwidth * 1e-9:.0f} GB/s, matrix product {rate * 1e-12:.0f} TFLOP/s (by PyTorch)\n")
    print("| us | quire | " + " | ".join(names) + " | best of the others, of copy or product |\n|" + "---|" * (len(names) + 3))
    for result in results:
        times = [result.get(name) for name in names]
        best = min((t for t in times if t), default=None)
        share = ""
        if best:
            share = f"{100 * result['bytes'] / best * 1e6 / bandwidth:.0f} %" if "bytes" in result else f"{100 * result['flops'] / best * 1e6 / rate:.0f} %"
        cells = [quire.get(result["name"])] + times
        print(f"| {result['name']} | " + " | ".join(f"{t:.1f}" if t else "" for t in cells) + f" | {share} |")


def check(torch, kernels, flashinfer, device):
    failed = 0
    dtype = torch.bfloat16 if device == "cuda" else torch.float32  # Triton's interpreter knows no bfloat16
    for shape in ((1, 1, 4, 4, 16), (2, 100, 8, 2, 16), (3, 257, 8, 1, 64), (1, 300, 16, 1, 8)):
        paged = Paged(torch, *shape, dtype, device, 0)
        k, v = (cache.float() for cache in paged.contiguous(0))
        q = paged.q.float().unflatten(1, (paged.kv_heads, paged.group))
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(HEAD_DIM), -1)
        expected = (weights @ v).flatten(1, 2)
        calls = {"torch": lambda: torch_call(paged)(0)}
        if kernels:
            for tile in (16, 64):
                calls[f"triton, tiles of {tile}"] = lambda tile=tile: triton_call(paged, kernels, 3, tile, 4, 2)(0)
        if flashinfer and device == "cuda":
            calls["flashinfer"] = lambda: flashinfer_call(paged, flashinfer)(0)
        for name, call in calls.items():
            error = (call().float() - expected).abs().max().item()
            good = error < (2e-2 if dtype == torch.bfloat16 else 1e-5)
            failed += not good
            print(f"{name}, {shape}: {error:.1e}{'' if good else ' WRONG'}")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quire", help="what quire_cuda_bench --json wrote")
    parser.add_argument("--json", help="write the times here")
    parser.add_argument("--check", action="store_true", help="compare results instead of measuring")
    args = parser.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("not installed: PyTorch")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not args.check:
        sys.exit("PyTorch finds no CUDA device")
    if device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    kernels = flashinfer = None
    try:
        global tl  # compiled kernels look it up among this module's names
        import triton
        import triton.language as tl
        kernels = make_kernels(triton, tl)
    except ImportError:
        print("not installed: Triton", file=sys.stderr)
    try:
        import flashinfer
    except ImportError:
        print("not installed: FlashInfer", file=sys.stderr)
    if args.check:
        return check(torch, kernels, flashinfer, device)

    bandwidth, rate = limits(torch)
    num_sms = torch.cuda.get_device_properties(0).multi_processor_count
    results = [measure_decode(torch, shape, kernels, flashinfer, num_sms) for shape in DECODES]
    results += [measure_prefill(torch, rows) for rows in PREFILLS]
    quire = {}
    if args.quire:
        with open(args.quire) as file:
            quire = {line["name"]: line["us"] for line in json.load(file) if "us" in line}
    report(results, bandwidth, rate, quire)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"torch": torch.__version__, "copy_bytes_per_s": bandwidth, "bf16_flops_per_s": rate, "results": results}, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
