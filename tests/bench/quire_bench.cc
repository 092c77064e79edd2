// quire_bench: how near the CPU backend comes to what the machine can do.
//
// Prints a Markdown table: whole decode steps at several batch sizes and a prefill step of a dummy model (random
// weights), through the real scheduler and runner, and paged attention alone; each beside the DRAM bandwidth or the
// arithmetic rate measured right before and right after it. See tests/bench/README.md for the command and the figures.

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "kernels/backend.h"
#include "kernels/check.h"
#include "kernels/dtype.h"
#include "kvcache/kv_cache.h"
#include "scheduler/scheduler.h"
#include "tests/bench/machine_limits.h"

namespace quire {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

struct Shape {
  const char* name;
  int layers, hidden, q_heads, kv_heads, head_dim, intermediate, vocab;
  bool tied;

  double LayerWeights() const {
    return double(hidden) * (q_heads + 2 * kv_heads) * head_dim + double(q_heads) * head_dim * hidden +
           3.0 * hidden * intermediate;
  }
  // Weights that a row multiplies with: all layers and, for a row that feeds the head, the head.
  double MatmulWeights(bool head) const { return layers * LayerWeights() + (head ? double(hidden) * vocab : 0.0); }
};

constexpr Shape kShapes[] = {
    {"1.1b", 22, 2048, 32, 4, 64, 5632, 32000, false},
    {"0.6b", 28, 1024, 16, 8, 128, 3072, 151936, true},
};

// A directory with the shape's config.json: all that --load-format dummy needs.
std::string WriteConfig(const Shape& shape) {
  const std::string directory = std::filesystem::temp_directory_path() / ("quire_bench." + std::to_string(getpid()));
  std::filesystem::create_directories(directory);
  std::ofstream(directory + "/config.json")
      << "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_act\": \"silu\", "
      << "\"num_hidden_layers\": " << shape.layers << ", \"hidden_size\": " << shape.hidden
      << ", \"num_attention_heads\": " << shape.q_heads << ", \"num_key_value_heads\": " << shape.kv_heads
      << ", \"head_dim\": " << shape.head_dim << ", \"intermediate_size\": " << shape.intermediate
      << ", \"vocab_size\": " << shape.vocab << ", \"tie_word_embeddings\": " << (shape.tied ? "true" : "false")
      << ", \"max_position_embeddings\": 8192, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, "
      << "\"torch_dtype\": \"bfloat16\"}\n";
  return directory;
}

// The machine's limits around a measurement: what was read before and after it, averaged.
struct Limits {
  double dram = 0, fma = 0, dot = 0;

  static Limits Measure(int threads) {
    return {MeasureDramReadBandwidth(threads), MeasureFmaRate(threads), MeasureBf16DotRate(threads)};
  }
  Limits Mean(const Limits& other) const {
    return {(dram + other.dram) / 2, (fma + other.fma) / 2, (dot + other.dot) / 2};
  }
};

std::shared_ptr<Request> MakeRequest(RequestId id, int prompt_len, int max_tokens, int vocab) {
  auto request = std::make_shared<Request>();
  std::mt19937 rng(static_cast<uint32_t>(id));
  for (int i = 0; i < prompt_len; ++i) request->prompt.push_back(rng() % vocab);
  request->id = id;
  request->use_prefix_cache = false;
  request->sampling.temperature = 0;
  request->max_tokens = max_tokens;
  request->arrival = absl::Now();
  return request;
}

// One turn of the loop; its seconds.
double Step(Scheduler& scheduler, ModelRunner& runner, Batch& batch, std::vector<TokenEvent>& events) {
  const auto begin = Clock::now();
  events.clear();
  scheduler.Schedule(absl::Now(), batch, events);
  Check(runner.Launch(batch).ok(), "Launch failed");
  auto result = runner.Collect();
  Check(result.ok(), "Collect failed");
  scheduler.Commit(absl::Now(), batch, **result, events);
  return Seconds(begin);
}

void BenchModel(const Shape& shape, int threads, int steps) {
  EngineOptions options;
  options.model = WriteConfig(shape);
  options.load_format = LoadFormat::kDummy;
  options.backend.kind = BackendKind::kCpu;
  options.backend.num_threads = threads;
  for (int t = 0; t < threads; ++t) options.backend.cpu_bind.push_back(t);
  options.max_num_seqs = 16;
  options.max_num_batched_tokens = 512;
  options.max_model_len = 1024;
  options.enable_prefix_caching = false;
  absl::StatusOr<LoadedModel> model = LoadModel(options);
  std::filesystem::remove_all(options.model);
  if (!model.ok()) {
    std::fprintf(stderr, "quire_bench: %s\n", std::string(model.status().message()).c_str());
    std::exit(1);
  }
  Batch batch;
  std::vector<TokenEvent> events;
  RequestId next_id = 1;
  std::printf("\n%s, bfloat16 weights, %s\n\n", shape.name, model->backend_description.c_str());
  std::printf("| step | median ms | tok/s | achieved | measured limit | fraction |\n|---|---|---|---|---|---|\n");

  // Decode: every sequence has a context of 256 tokens when timing begins.
  for (int num_sequences : {1, 4, 16}) {
    Scheduler scheduler(model->plan.scheduler);
    for (int i = 0; i < num_sequences; ++i) {
      Check(scheduler.Add(MakeRequest(next_id++, 256, steps + 4, shape.vocab)).ok(), "Add failed");
    }
    do Step(scheduler, *model->runner, batch, events);
    while (batch.num_tokens != num_sequences || static_cast<int>(batch.chunks.size()) != num_sequences);
    const Limits before = Limits::Measure(threads);
    std::vector<double> seconds;
    for (int i = 0; i < steps; ++i) seconds.push_back(Step(scheduler, *model->runner, batch, events));
    const Limits limits = before.Mean(Limits::Measure(threads));
    const double median = Median(seconds);
    const double kv_bytes = double(model->plan.kv.BytesPerToken()) * num_sequences * (256 + steps / 2.0);
    const double bandwidth = (2 * shape.MatmulWeights(true) + kv_bytes) / median;
    std::printf("| decode, batch %d | %.2f | %.1f | %.1f GB/s | %.1f GB/s DRAM read | %.2f |\n", num_sequences,
                median * 1e3, num_sequences / median, bandwidth / 1e9, limits.dram / 1e9, bandwidth / limits.dram);
    std::fflush(stdout);
  }

  // Prefill: one chunk of 512 rows.
  std::vector<double> seconds;
  const Limits before = Limits::Measure(threads);
  for (int i = 0; i < std::max(3, steps / 8); ++i) {
    Scheduler scheduler(model->plan.scheduler);
    Check(scheduler.Add(MakeRequest(next_id++, 512, 1, shape.vocab)).ok(), "Add failed");
    seconds.push_back(Step(scheduler, *model->runner, batch, events));
  }
  const Limits limits = before.Mean(Limits::Measure(threads));
  const double median = Median(seconds);
  const double attention = 4.0 * shape.layers * shape.q_heads * shape.head_dim * 512 * 513 / 2;
  const double flops =
      (2 * (512 * shape.MatmulWeights(false) + double(shape.hidden) * shape.vocab) + attention) / median;
  const double best = std::max(limits.fma, limits.dot);
  std::printf("| prefill, 512 tokens | %.1f | %.1f | %.0f GFLOP/s | %.0f f32 FMA, %.0f bf16 dot GFLOP/s | %.2f |\n",
              median * 1e3, 512 / median, flops / 1e9, limits.fma / 1e9, limits.dot / 1e9, flops / best);
  std::fflush(stdout);
}

// The thread that creates a pool is not pinned by it (kernels/cpu/thread_pool.h), but is worker 0 of the benchmark.
void PinToFirstCpu() {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(0, &set);
  Check(pthread_setaffinity_np(pthread_self(), sizeof set, &set) == 0, "cannot pin to CPU 0");
}

// Decode attention alone: 32 query over 4 KV heads of 64, bfloat16, blocks of 16, each in a place of its own (shuffled)
// or one after another as a fresh pool hands them out; caches flushed by the size of the pool.
void BenchAttention(int threads, int rounds) {
  constexpr std::pair<int, int> kCases[] = {{1, 512},  {1, 2048},  {1, 8192},  {1, 32768},
                                            {16, 512}, {16, 2048}, {16, 8192}, {16, 32768}};
  constexpr int kQHeads = 32, kKvHeads = 4, kHeadDim = 64, kBlock = 16, kMaxContext = 32768;
  BackendOptions options;
  options.kind = BackendKind::kCpu;
  options.num_threads = threads;
  for (int t = 0; t < threads; ++t) options.cpu_bind.push_back(t);
  auto backend = CreateBackend(options);
  Check(backend.ok(), "CreateBackend failed");
  // Enough layers that consecutive calls never find their K and V in a cache: every call reads another layer.
  constexpr int64_t kPoolTokens = int64_t{1} << 20;
  const KvCacheSpec spec = MakeKvCacheSpec({.kv_heads = kKvHeads, .head_dim = kHeadDim, .block_size = kBlock}, 1);
  const int num_blocks = kPoolTokens / kBlock;
  auto cache = KvCache::Create(spec, num_blocks, **backend);
  Check(cache.ok(), "KvCache::Create failed");
  const PagedKv kv = cache->LayerView(0);
  std::mt19937 rng(1);
  for (int64_t i = 0; i < kv.BlockElements() * num_blocks; ++i) {
    const uint16_t bits = static_cast<uint16_t>(0x3c00 + (rng() & 0x83ff));  // small numbers of both signs
    static_cast<BFloat16*>(kv.k)[i] = {bits};
    static_cast<BFloat16*>(kv.v)[i] = {bits};
  }
  WorkspaceShape shape;
  shape.max_rows = 16;
  shape.max_head_rows = 1;
  shape.max_cols = kQHeads * kHeadDim;
  shape.vocab_size = 32;
  shape.q_heads = kQHeads;
  shape.kv_heads = kKvHeads;
  shape.head_dim = kHeadDim;
  shape.max_context = kMaxContext;
  shape.max_sequences = 16;
  Check((*backend)->AllocateWorkspace(shape).ok(), "AllocateWorkspace failed");
  std::vector<BlockId> blocks(num_blocks);
  for (int i = 0; i < num_blocks; ++i) blocks[i] = i;
  std::vector<float> q(16 * kQHeads * kHeadDim, 0.1f), out(q.size());

  std::printf("\npaged decode attention, %d query over %d KV heads of %d, bfloat16, block %d, %s\n\n", kQHeads,
              kKvHeads, kHeadDim, kBlock, (*backend)->Description().c_str());
  std::printf(
      "| blocks | sequences x context | median us | achieved | measured DRAM read | fraction "
      "|\n|---|---|---|---|---|---|\n");
  PinToFirstCpu();
  for (const bool shuffled : {false, true}) {
    if (shuffled) std::shuffle(blocks.begin(), blocks.end(), rng);
    for (const auto& [sequences, context] : kCases) {
      const int table = context / kBlock;
      std::vector<AttentionChunk> chunks(sequences);
      int at = 0;
      std::vector<double> seconds;
      const double before = MeasureDramReadBandwidth(threads);
      for (int round = 0; round < rounds; ++round) {
        for (int i = 0; i < sequences; ++i) {
          if (at + table > num_blocks) at = 0;
          chunks[i] = {blocks.data() + at, i, 1, context - 1};
          at += table;
        }
        PagedAttentionArgs args;
        args.q = Tensor::Contiguous(q.data(), DType::kFloat32, sequences, kQHeads * kHeadDim);
        args.chunks = chunks.data();
        args.num_chunks = sequences;
        args.q_heads = kQHeads;
        args.scale = 1 / std::sqrt(float{kHeadDim});
        args.kv = kv;
        args.out = Tensor::Contiguous(out.data(), DType::kFloat32, sequences, kQHeads * kHeadDim);
        const auto begin = Clock::now();
        (*backend)->PagedAttention(args);
        seconds.push_back(Seconds(begin));
      }
      const double dram = (before + MeasureDramReadBandwidth(threads)) / 2;
      const double median = Median(seconds);
      const double bandwidth = double(spec.BytesPerToken()) * context * sequences / median;
      std::printf("| %s | %d x %d | %.1f | %.1f GB/s | %.1f GB/s | %.2f |\n", shuffled ? "shuffled" : "in order",
                  sequences, context, median * 1e6, bandwidth / 1e9, dram / 1e9, bandwidth / dram);
      std::fflush(stdout);
    }
  }
}

int Main(int argc, char** argv) {
  std::string what = "all";
  int threads = 0, steps = 24;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--only" && i + 1 < argc) {
      what = argv[++i];
    } else if (arg == "--threads" && i + 1 < argc) {
      threads = std::atoi(argv[++i]);
    } else if (arg == "--steps" && i + 1 < argc) {
      steps = std::atoi(argv[++i]);
    } else {
      std::fprintf(stderr, "usage: quire_bench [--only 1.1b|0.6b|attention|all] [--threads N] [--steps N]\n");
      return 1;
    }
  }
  if (threads <= 0) threads = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  if (steps < 4) steps = 4;
  bool any = false;
  for (const Shape& shape : kShapes) {
    if (what == "all" || what == shape.name) BenchModel(shape, threads, steps), any = true;
  }
  if (what == "all" || what == "attention") BenchAttention(threads, 40), any = true;
  if (!any) std::fprintf(stderr, "quire_bench: --only %s: want 1.1b, 0.6b, attention or all\n", what.c_str());
  return any ? 0 : 1;
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) { return quire::Main(argc, argv); }
