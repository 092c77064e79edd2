// quire_cuda_bench [--emulated] [--seconds S] [--json FILE]: the operations of the CUDA backend beside what the device
// can do in the same run: bandwidth of a copy (bytes read and written), rate of a large matrix product. Prints a
// Markdown table.
//
// Caches are as large as they must be to leave nothing in the L2 from one call to the next. --emulated runs every
// benchmark at tiny shapes on the emulated device: it says nothing of speed and keeps the code from rotting.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/backend_model_runner.h"
#include "engine/engine.h"
#include "engine/load_model.h"
#include "kernels/backend.h"
#include "kernels/check.h"
#include "tests/kernels/cuda/emulated_backend.h"

namespace quire {
namespace {

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

BackendOptions CudaOptions() {
  BackendOptions options;
  options.kind = BackendKind::kCuda;
  return options;
}

struct Result {
  std::string name;
  double micros = 0;
  double bytes = 0;   // that the call must move, at least
  double flops = 0;   // that it must do
  double tokens = 0;  // that it gives, for whole workloads
};

class Bench {
 public:
  Bench(bool emulated, double seconds) : emulated_(emulated), seconds_(emulated ? 0 : seconds) {
    if (emulated) {
      backend_ = MakeEmulatedCudaBackend({}, false);
      wgmma_ = MakeEmulatedCudaBackend({}, false, nullptr, /*prefills_by_wgmma=*/true);
    } else {
      BackendOptions options = CudaOptions();
      absl::StatusOr<std::unique_ptr<Backend>> backend = CreateBackend(options);
      if (!backend.ok()) {
        std::fprintf(stderr, "%s\n", std::string(backend.status().message()).c_str());
        std::exit(1);
      }
      backend_ = *std::move(backend);
      options.prefill_attention = PrefillAttention::kWgmma;
      if ((backend = CreateBackend(options)).ok()) wgmma_ = *std::move(backend);
    }
    WorkspaceShape shape;
    shape.max_rows = emulated ? 64 : 8192;
    shape.max_head_rows = shape.max_sequences = 256;
    shape.vocab_size = Vocab();
    shape.q_heads = 64;
    shape.kv_heads = 1;
    shape.head_dim = 256;
    shape.max_context = emulated ? 512 : 131072;
    Check(backend_->AllocateWorkspace(shape).ok(), "workspace");
    Check(wgmma_ == nullptr || wgmma_->AllocateWorkspace(shape).ok(), "workspace");
  }

  void Run() {
    Limits();
    Attention();
    Linears();
    Sampling();
  }

  const std::vector<Result>& results() const { return results_; }
  const std::string description() const { return backend_->Description(); }
  double bandwidth() const { return bandwidth_; }  // bytes per second
  double rate() const { return rate_; }            // floating-point operations per second, bfloat16

 private:
  int64_t Vocab() const { return emulated_ ? 500 : 151936; }

  Buffer Random(size_t bytes) {
    absl::StatusOr<Buffer> buffer = backend_->Allocate(bytes);
    Check(buffer.ok(), "memory");
    if (noise_.empty()) {
      noise_.resize(emulated_ ? 4096 : 32 << 20);
      uint64_t x = 1;
      for (uint16_t& bits : noise_) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        bits = ToBFloat16(static_cast<float>(static_cast<int32_t>(x >> 33) % 1000) / 500.0f - 1.0f).bits;
      }
    }
    for (size_t at = 0; at < bytes; at += noise_.size() * 2)
      Check(backend_
                ->CopyToDevice(static_cast<char*>(buffer->data()) + at, noise_.data(),
                               std::min(noise_.size() * 2, bytes - at))
                .ok(),
            "copy");
    return *std::move(buffer);
  }

  // Seconds of one call, which is a step or a part of one: many between two waits for the device, the best of several
  // such runs.
  double Time(const std::function<void()>& call, bool is_step = false) {
    double best = 1e9, spent = 0;
    int calls = 1;
    for (int round = 0; round < 3 || spent < seconds_; ++round) {
      Check(is_step || backend_->BeginStep().ok(), "device");
      const double begin = Now();
      for (int i = 0; i < calls; ++i) call();
      Check(is_step || (backend_->EndStep().ok() && backend_->AwaitStep().ok()), "device");
      const double took = Now() - begin;
      spent += took;
      if (round > 0) best = std::min(best, took / calls);
      if (!emulated_ && took < 0.02) calls = std::min(calls * 2, 1000);
    }
    return best;
  }

  void Add(Result result, const std::function<void()>& call, bool is_step = false) {
    result.micros = Time(call, is_step) * 1e6;
    results_.push_back(std::move(result));
  }

  void Limits() {
    const size_t bytes = emulated_ ? 4096 : size_t{2} << 30;
    Buffer buffer = Random(2 * bytes);
    const BlockRegion region{buffer.data(), bytes, 2};
    const BlockCopy copy{0, 1};
    const CopyBlocksArgs args{&region, 1, &copy, 1};
    bandwidth_ = 2.0 * static_cast<double>(bytes) / Time([&] { backend_->CopyBlocks(args); });
    const int64_t n = emulated_ ? 16 : 8192;
    rate_ = 2.0 * double(n) * double(n) * double(n) / Time(LinearCall(n, n, n));
  }

  std::function<void()> LinearCall(int64_t rows, int64_t n, int64_t k) {
    Buffer x = Random(static_cast<size_t>(rows * k * 2));
    absl::StatusOr<Buffer> y = backend_->Allocate(static_cast<size_t>(rows * n * 4));
    Check(y.ok(), "memory");
    auto weight =
        std::make_shared<LinearWeight>(LinearWeight{n, k, DType::kBFloat16, Random(static_cast<size_t>(n * k * 2))});
    const Tensor x_view = Tensor::Contiguous(x.data(), DType::kBFloat16, rows, k);
    const Tensor y_view = Tensor::Contiguous(y->data(), DType::kFloat32, rows, n);
    auto memory = std::make_shared<std::pair<Buffer, Buffer>>(std::move(x), *std::move(y));
    return [this, weight, memory, x_view, y_view] { backend_->Linear({x_view, weight.get(), nullptr, false, y_view}); };
  }

  void Linears() {
    struct Shape {
      const char* name;
      int64_t n, k;
    };
    for (const Shape& shape : emulated_ ? std::vector<Shape>{{"tiny", 48, 32}}
                                        : std::vector<Shape>{{"8B qkv", 6144, 4096},
                                                             {"8B gate_up", 28672, 4096},
                                                             {"8B down", 4096, 14336},
                                                             {"0.6B qkv", 4096, 1024}}) {
      for (const int64_t rows : emulated_ ? std::vector<int64_t>{1, 5} : std::vector<int64_t>{1, 8, 64, 256, 2048}) {
        Add({.name = std::string("linear ") + shape.name + ", " + std::to_string(rows) + " rows",
             .bytes = double(shape.n * shape.k * 2 + rows * (shape.k * 2 + shape.n * 4)),
             .flops = 2.0 * double(rows * shape.n * shape.k)},
            LinearCall(rows, shape.n, shape.k));
      }
    }
  }

  // `sequences` rows at the end of contexts of `context` tokens (decode), or one chunk of `rows` behind it.
  void AttentionOf(int32_t sequences, int32_t context, int32_t rows, int32_t q_heads, int32_t kv_heads,
                   int32_t block_size, KvQuantization quantization = KvQuantization::kNone, const char* note = "") {
    constexpr int32_t kHeadDim = 128;
    const int32_t blocks = (context + rows + block_size - 1) / block_size;
    // Copies of the cache, used in turn, so that together they are larger than any L2.
    const int64_t head_bytes = KvHeadBytes(DType::kBFloat16, quantization, kHeadDim);
    const int64_t block_bytes = int64_t{block_size} * kv_heads * head_bytes;  // of K, or of V
    const int64_t copies =
        emulated_ ? 1 : std::max<int64_t>(1, (int64_t{256} << 20) / (int64_t{sequences} * blocks * block_bytes * 2));
    PagedKv kv{nullptr,     nullptr,  DType::kBFloat16, static_cast<int32_t>(sequences * blocks * copies),
               block_size,  kv_heads, kHeadDim,         backend_->key_layout(),
               quantization};
    Buffer k = Random(static_cast<size_t>(kv.num_blocks * block_bytes));
    Buffer v = Random(static_cast<size_t>(kv.num_blocks * block_bytes));
    kv.k = k.data();
    kv.v = v.data();
    const int64_t num_rows = int64_t{sequences} * rows, cols = int64_t{q_heads} * kHeadDim;
    Buffer q = Random(static_cast<size_t>(num_rows * cols * 4)), out = Random(static_cast<size_t>(num_rows * cols * 2));
    std::vector<float> zeroes(static_cast<size_t>(num_rows * cols), 0.25f);
    Check(backend_->CopyToDevice(q.data(), zeroes.data(), zeroes.size() * 4).ok(), "copy");
    std::vector<BlockId> table(static_cast<size_t>(sequences) * blocks);
    for (size_t i = 0; i < table.size(); ++i)  // not in order
      table[i] = static_cast<BlockId>((i * 7919) % table.size());
    std::vector<AttentionChunk> chunks;
    for (int32_t s = 0; s < sequences; ++s)
      chunks.push_back({table.data() + int64_t{s} * blocks, s * rows, rows, context});
    int64_t turn = 0;
    const double seen = double(context) + 0.5 * (rows + 1);  // positions that a row sees
    Add({.name = (rows == 1 ? "decode " : "prefill ") + std::to_string(sequences) + " x " +
                 std::to_string(rows == 1 ? context + 1 : rows) +
                 (rows == 1 ? "" : " after " + std::to_string(context)) + ", " + std::to_string(q_heads) + "/" +
                 std::to_string(kv_heads) + " heads, block " + std::to_string(block_size) + ", " +
                 std::string(KvTypeName(kv.dtype, quantization)) + note,
         .bytes = double(sequences) * (context + rows) * kv_heads * double(head_bytes) * 2.0,
         .flops = 4.0 * double(num_rows) * seen * double(cols)},
        [&] {
          PagedKv view = kv;
          const int64_t offset = turn++ % copies * sequences * blocks * block_bytes;
          view.k = static_cast<char*>(kv.k) + offset;
          view.v = static_cast<char*>(kv.v) + offset;
          view.num_blocks = sequences * blocks;
          backend_->PagedAttention({Tensor::Contiguous(q.data(), DType::kFloat32, num_rows, cols), chunks.data(),
                                    static_cast<int32_t>(chunks.size()), q_heads, 1 / std::sqrt(float(kHeadDim)), view,
                                    Tensor::Contiguous(out.data(), DType::kBFloat16, num_rows, cols)});
        });
  }

  void Attention() {
    Prefill("");
    if (wgmma_ != nullptr) {
      std::swap(backend_, wgmma_);
      Prefill(", wgmma");
      std::swap(backend_, wgmma_);
    }
    if (emulated_) {
      AttentionOf(2, 99, 1, 8, 2, 16);
      AttentionOf(2, 99, 1, 8, 2, 16, KvQuantization::kFp8E4M3);
      return;
    }
    for (const int32_t block_size : {16, 64}) {
      for (const auto& [sequences, context] :
           {std::pair{1, 1024}, {1, 4096}, {1, 32768}, {8, 4096}, {8, 16384}, {8, 32768}, {64, 1024}, {256, 900}})
        AttentionOf(sequences, context - 1, 1, 32, 8, block_size);
    }
    AttentionOf(8, 16383, 1, 64, 8, 16);
    AttentionOf(8, 32767, 1, 32, 1, 16);
    AttentionOf(8, 4095, 1, 8, 8, 16);
    for (const KvQuantization quantization : {KvQuantization::kFp8E4M3, KvQuantization::kInt8, KvQuantization::kInt4}) {
      for (const auto& [sequences, context] : {std::pair{1, 32768}, {8, 4096}, {8, 16384}, {8, 32768}, {64, 1024}})
        AttentionOf(sequences, context - 1, 1, 32, 8, 16, quantization);
    }
  }

  void Prefill(const char* note) {
    constexpr KvQuantization kNone = KvQuantization::kNone, kFp8 = KvQuantization::kFp8E4M3;
    if (emulated_) {
      AttentionOf(1, 10, 6, 8, 2, 16, kNone, note);
      AttentionOf(1, 10, 6, 8, 2, 16, kFp8, note);
      return;
    }
    for (const int32_t rows : {1024, 2048, 8192}) AttentionOf(1, 0, rows, 32, 8, 16, kNone, note);
    AttentionOf(1, 8192, 2048, 32, 8, 16, kNone, note);
    AttentionOf(1, 0, 8192, 32, 8, 16, kFp8, note);
  }

  void Sampling() {
    const int64_t rows = emulated_ ? 3 : 256;
    Buffer logits = Random(static_cast<size_t>(rows * Vocab() * 4));
    std::vector<float> host(static_cast<size_t>(rows * Vocab()));
    for (size_t i = 0; i < host.size(); ++i) host[i] = static_cast<float>(i * 2654435761u % 10007) / 1000.0f;
    Check(backend_->CopyToDevice(logits.data(), host.data(), host.size() * 4).ok(), "copy");
    for (const auto& [name, params] : {std::pair<const char*, SamplingParams>{"greedy", {.temperature = 0}},
                                       {"temperature", {.temperature = 1}},
                                       {"top-k 50, top-p 0.95", {.temperature = 0.8f, .top_k = 50, .top_p = 0.95f}}}) {
      std::vector<SampleRow> sample_rows(static_cast<size_t>(rows));
      for (SampleRow& row : sample_rows) row.params = &params;
      std::vector<SampledToken> tokens(static_cast<size_t>(rows));
      std::vector<TokenLogprob> top(static_cast<size_t>(rows) * 20);
      Add(
          {.name = std::string("sampling ") + name + ", " + std::to_string(rows) + " rows",
           .bytes = double(rows * Vocab() * 4)},
          [&] {
            Check(backend_->BeginStep().ok(), "device");
            backend_->Sample({Tensor::Contiguous(logits.data(), DType::kFloat32, rows, Vocab()), sample_rows.data(),
                              tokens.data(), top.data(), 20});
            Check(backend_->EndStep().ok() && backend_->AwaitStep().ok(), "device");
          },
          /*is_step=*/true);
    }
  }

  const bool emulated_;
  const double seconds_;
  std::unique_ptr<Backend> backend_, wgmma_;  // the second with prefill by wgmma, where the device has it
  std::vector<Result> results_;
  std::vector<uint16_t> noise_;  // bfloat16 in [-1, 1)
  double bandwidth_ = 0, rate_ = 0;
};

// Waits for all requests of a run.
class CountingSink : public EventSink {
 public:
  void OnEvents(std::vector<TokenEvent>& events) override {
    const std::lock_guard lock(mutex_);
    for (const TokenEvent& event : events) {
      if (event.kind == EventKind::kEnded || event.finish != FinishReason::kNone) ++num_ended_;
    }
    changed_.notify_all();
  }
  void OnEngineFailure(const absl::Status& status) override {
    std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    std::exit(2);
  }
  void Wait(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return num_ended_ >= count; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int num_ended_ = 0;
};

// How the backend goes about its steps.
enum class Mode { kGraphs, kEager, kDeterministic };

// The workload of nano-vllm's bench.py: prompts and outputs of uniform lengths, all at once; or steady decode streams.
Result Workload(std::string name, const std::string& model, bool emulated, int num_requests, int min_len, int max_len,
                int min_output, int max_output, Mode mode = Mode::kGraphs) {
  if (mode != Mode::kGraphs) name += mode == Mode::kEager ? ", --enforce-eager" : ", --deterministic";
  EngineOptions options;
  options.model = model;
  options.load_format = LoadFormat::kDummy;
  options.max_num_seqs = num_requests;
  options.max_num_batched_tokens = emulated ? 64 : 8192;
  options.max_model_len = max_len + max_output;
  options.backend.kind = BackendKind::kCuda;
  options.backend.deterministic = mode == Mode::kDeterministic;
  options.enforce_eager = mode == Mode::kEager;
  if (emulated) options.kv_cache_bytes = uint64_t{4} << 20;
  absl::StatusOr<LoadedModel> loaded =
      emulated ? LoadModel(options, MakeEmulatedCudaBackend({}, mode == Mode::kDeterministic)) : LoadModel(options);
  if (!loaded.ok()) {
    std::fprintf(stderr, "%s: %s\n", name.c_str(), std::string(loaded.status().message()).c_str());
    std::exit(1);
  }
  CountingSink sink;
  Engine engine(loaded->plan.scheduler, num_requests, int64_t{1} << 30, std::move(loaded->runner), &sink);
  uint64_t x = 1;
  const auto next = [&](int low, int high) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    return low + static_cast<int>((x >> 33) % static_cast<uint64_t>(high - low + 1));
  };
  double tokens = 0, kv_tokens = 0;  // given; read of the cache, at least
  uint32_t most_steps = 0;
  const double begin = Now();
  for (int i = 0; i < num_requests; ++i) {
    auto request = std::make_shared<Request>();
    request->id = static_cast<RequestId>(i);
    const int length = next(min_len, max_len);
    for (int t = 0; t < length; ++t)
      request->prompt.push_back(static_cast<uint32_t>(next(0, loaded->config.vocab_size - 1)));
    request->max_tokens = static_cast<uint32_t>(next(min_output, max_output));
    request->sampling.temperature = 0;
    request->use_prefix_cache = false;
    tokens += request->max_tokens;
    most_steps = std::max(most_steps, request->max_tokens);
    kv_tokens += double(request->max_tokens) * (length + 0.5 * request->max_tokens);
    Check(engine.Submit(std::move(request)).ok(), "submit");
  }
  sink.Wait(num_requests);
  const double micros = (Now() - begin) * 1e6;
  engine.Shutdown();
  return {.name = name,
          .micros = micros,
          .bytes = kv_tokens * double(loaded->plan.kv.BytesPerToken()) + most_steps * double(loaded->plan.weight_bytes),
          .tokens = tokens};
}

std::vector<Result> Workloads(bool emulated, const std::string& source_dir) {
  std::vector<Result> results;
  const std::string shapes = source_dir + "/tests/bench/shapes/", bundled = source_dir + "/deploy/models/tales-5m";
  for (const Mode mode : {Mode::kGraphs, Mode::kEager, Mode::kDeterministic}) {
    results.push_back(emulated ? Workload("nano-vllm's workload, tiny", bundled, true, 3, 3, 9, 2, 4, mode)
                               : Workload("nano-vllm's workload, 0.6B shape", shapes + "0.6b", false, 256, 100, 1024,
                                          100, 1024, mode));
  }
  // Whole steps: all sequences decode all the time.
  if (emulated) {
    results.push_back(Workload("1 stream of 4 tokens", bundled, true, 1, 8, 8, 4, 4));
    results.push_back(Workload("3 streams of 3 tokens after 8", bundled, true, 3, 8, 8, 3, 3));
    return results;
  }
  results.push_back(Workload("1 stream of 256 tokens, 8B shape", shapes + "8b", false, 1, 128, 128, 256, 256));
  results.push_back(
      Workload("64 streams of 128 tokens after 1024, 8B shape", shapes + "8b", false, 64, 1024, 1024, 128, 128));
  return results;
}

int Main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // whoever ends it early has what it measured
  bool emulated = false;
  double seconds = 0.3;
  std::string json;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--emulated") emulated = true;
    if (argument == "--seconds" && i + 1 < argc) seconds = std::atof(argv[++i]);
    if (argument == "--json" && i + 1 < argc) json = argv[++i];
  }
  std::string lines;
  double bandwidth = 0;
  {
    Bench bench(emulated, seconds);
    bench.Run();
    bandwidth = bench.bandwidth();
    std::printf("%s: copy %.0f GB/s, matrix product %.1f TFLOP/s (bfloat16)\n\n", bench.description().c_str(),
                bench.bandwidth() * 1e-9, bench.rate() * 1e-12);
    std::printf("| what | us | GB/s | of copy | TFLOP/s | of product |\n|---|---|---|---|---|---|\n");
    for (const Result& r : bench.results()) {
      const double moved = r.bytes / (r.micros * 1e-6), rate = r.flops / (r.micros * 1e-6);
      std::printf("| %s | %.1f | %.0f | %.0f %% | %.1f | %.0f %% |\n", r.name.c_str(), r.micros, moved * 1e-9,
                  100 * moved / bench.bandwidth(), rate * 1e-12, 100 * rate / bench.rate());
      char line[512];
      std::snprintf(line, sizeof line, "{\"name\": \"%s\", \"us\": %.3f, \"bytes\": %.0f, \"flops\": %.0f},\n",
                    r.name.c_str(), r.micros, r.bytes, r.flops);
      lines += line;
    }
    char limits[256];
    std::snprintf(limits, sizeof limits,
                  "{\"name\": \"limits\", \"copy_bytes_per_s\": %.0f, \"bf16_flops_per_s\": %.0f}", bench.bandwidth(),
                  bench.rate());
    lines += limits;
  }
  std::printf("\n| workload | s | tokens | tokens/s | of copy, weights and KV |\n|---|---|---|---|---|\n");
  for (const Result& r : Workloads(emulated, QUIRE_SOURCE_DIR)) {
    std::printf("| %s | %.2f | %.0f | %.0f | %.0f %% |\n", r.name.c_str(), r.micros * 1e-6, r.tokens,
                r.tokens / (r.micros * 1e-6), 100 * r.bytes / (r.micros * 1e-6) / bandwidth);
    std::fflush(stdout);
    char line[512];
    std::snprintf(line, sizeof line, ",\n{\"name\": \"%s\", \"us\": %.0f, \"tokens\": %.0f, \"bytes\": %.0f}",
                  r.name.c_str(), r.micros, r.tokens, r.bytes);
    lines += line;
  }
  if (!json.empty()) std::ofstream(json) << "[" << lines << "]\n";
  return 0;
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) { return quire::Main(argc, argv); }
