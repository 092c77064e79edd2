// The CUDA backend through its public face, on the emulated device and, where there is one, on the real device: every
// operation against `ref`, with all memory of the device's own. Without a device those tests skip aloud.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/backend_cuda.h"
#include "kernels/backend_ref.h"
#include "tests/kernels/cpu_problem.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/cuda/needs_device.h"
#include "tests/kernels/paged_attention_problem.h"

namespace quire {
namespace {

enum class Where { kEmulated, kDevice };

class CudaDeviceTest : public testing::TestWithParam<Where> {
 protected:
  void SetUp() override {
    if (!is_device()) return;
    QUIRE_NEEDS_CUDA_DEVICE();
    has_wgmma_ = DeviceHasWgmma();
  }

  // Made once for a test.
  Backend& BackendOf(bool deterministic, bool by_wgmma = false) {
    std::unique_ptr<Backend>& backend = backends_[by_wgmma ? 1 : 0][deterministic ? 1 : 0];
    if (backend == nullptr) backend = MakeBackend(deterministic, by_wgmma);
    return *backend;
  }
  std::unique_ptr<Backend> MakeBackend(bool deterministic, bool by_wgmma) {
    std::unique_ptr<Backend> backend;
    if (is_device()) {
      BackendOptions options;
      options.kind = BackendKind::kCuda;
      options.deterministic = deterministic;
      options.prefill_attention = by_wgmma ? PrefillAttention::kWgmma : PrefillAttention::kMma;
      absl::StatusOr<std::unique_ptr<Backend>> made = CreateBackend(options);
      EXPECT_TRUE(made.ok()) << made.status();
      backend = *std::move(made);
    } else {
      backend = MakeEmulatedCudaBackend({}, deterministic, nullptr, by_wgmma);
    }
    WorkspaceShape shape;
    shape.max_rows = 4096;
    shape.max_head_rows = shape.max_sequences = 300;
    shape.vocab_size = 5000;
    shape.q_heads = 64;
    shape.kv_heads = 1;
    shape.head_dim = 256;
    shape.max_context = is_device() ? 140000 : 4096;
    shape.num_kv_groups = 2;
    EXPECT_TRUE(backend->AllocateWorkspace(shape).ok());
    return backend;
  }

  bool is_device() const { return GetParam() == Where::kDevice; }

  static Buffer OnDevice(Backend& backend, const void* data, size_t bytes) {
    absl::StatusOr<Buffer> buffer = backend.Allocate(bytes);
    Check(buffer.ok(), "device memory");
    Check(backend.CopyToDevice(buffer->data(), data, bytes).ok(), "copy");
    return *std::move(buffer);
  }
  // The values of a contiguous float32 tensor.
  static std::vector<float> FromDevice(Backend& backend, const Tensor& tensor) {
    std::vector<float> values(static_cast<size_t>(tensor.rows * tensor.cols));
    Check(backend.CopyToHost(values.data(), tensor.data, values.size() * sizeof(float)).ok(), "copy");
    return values;
  }

  // Calls attention on the device with copies of everything, and brings the answer back.
  static std::vector<float> Attend(Backend& backend, PagedAttentionProblem& problem) {
    return problem.Call([&](const PagedAttentionArgs& args) {
      const size_t cache_bytes =
          args.kv.quantized()
              ? static_cast<size_t>(args.kv.RecordBegin(args.kv.num_blocks, 0, 0))
              : static_cast<size_t>(args.kv.num_blocks * args.kv.BlockElements()) * DTypeBytes(args.kv.dtype);
      const size_t q_bytes = static_cast<size_t>(args.q.rows * args.q.row_stride) * sizeof(float);
      const size_t out_bytes = static_cast<size_t>(args.out.rows * args.out.row_stride) * DTypeBytes(args.out.dtype);
      Buffer k = OnDevice(backend, args.kv.k, cache_bytes), v = OnDevice(backend, args.kv.v, cache_bytes);
      Buffer q = OnDevice(backend, args.q.data, q_bytes), out = OnDevice(backend, args.out.data, out_bytes);
      PagedAttentionArgs on_device = args;
      on_device.kv.k = k.data();
      on_device.kv.v = v.data();
      on_device.q.data = q.data();
      on_device.out.data = out.data();
      Check(backend.BeginStep().ok(), "step");
      backend.PagedAttention(on_device);
      backend.PagedAttention(on_device);  // another layer
      Check(backend.EndStep().ok() && backend.AwaitStep().ok(), "step");
      Check(backend.CopyToHost(args.out.data, out.data(), out_bytes).ok(), "copy");
    });
  }

  void ExpectNearRef(AttentionShape shape, const std::vector<ChunkOf>& chunks) {
    shape.key_layout = KeyLayout::kRows;
    PagedAttentionProblem problem(shape, chunks);
    const std::vector<float> expected = problem.Ref();
    const float tolerance = shape.dtype == DType::kFloat32 ? 2e-5f : shape.dtype == DType::kFloat16 ? 2e-3f : 8e-3f;
    for (const auto& [deterministic, by_wgmma] :
         {std::pair{false, false}, {true, false}, {false, true}, {true, true}}) {
      if (by_wgmma && !has_wgmma_) continue;
      const std::vector<float> found = Attend(BackendOf(deterministic, by_wgmma), problem);
      ASSERT_EQ(found.size(), expected.size());
      float worst = 0;
      for (size_t i = 0; i < found.size(); ++i) {
        const float difference = std::abs(found[i] - expected[i]);
        ASSERT_FALSE(std::isnan(difference)) << i;
        worst = std::max(worst, difference);
      }
      EXPECT_LE(worst, tolerance) << shape.q_heads << "/" << shape.kv_heads << " heads of " << shape.head_dim
                                  << ", block " << shape.block_size << ", deterministic " << deterministic << ", wgmma "
                                  << by_wgmma << " " << KvTypeName(shape.dtype, shape.quantization);
    }
  }

  // Device memory with copies of what an operation reads and writes, while it lives.
  class Copies {
   public:
    explicit Copies(Backend& backend) : backend_(backend) {}
    void* Of(const void* data, size_t bytes) {
      buffers_.push_back(OnDevice(backend_, data, bytes));
      return buffers_.back().data();
    }
    Tensor Of(const Tensor& host) {
      Tensor copy = host;
      copy.data = Of(host.data, BytesOf(host));
      return copy;
    }
    const float* Of(const Matrix& host) { return Of(host.tensor()).template Row<float>(0); }
    void Back(const Tensor& copy, const Tensor& host) {
      Check(backend_.CopyToHost(host.data, copy.data, BytesOf(host)).ok(), "copy");
    }

   private:
    static size_t BytesOf(const Tensor& host) {
      return static_cast<size_t>(host.rows * host.row_stride) * DTypeBytes(host.dtype);
    }
    Backend& backend_;
    std::vector<Buffer> buffers_;
  };

  // Calls operation(backend, y) on a copy of `got` and on `want` by the definition, and compares.
  template <typename Operation>
  void ExpectAsRef(Matrix& got, Matrix& want, float unit, const Operation& operation) {
    Backend& backend = BackendOf(true);
    Copies copies(backend), none(*ref_);
    const Tensor y = copies.Of(got.tensor());
    ASSERT_TRUE(backend.BeginStep().ok());
    operation(backend, copies, y);
    ASSERT_TRUE(backend.EndStep().ok() && backend.AwaitStep().ok());
    copies.Back(y, got.tensor());
    operation(*ref_, none, want.tensor());
    for (int64_t r = 0; r < want.tensor().rows; ++r) {
      for (int64_t i = 0; i < want.tensor().cols; ++i)
        ASSERT_NEAR(got.At(r, i), want.At(r, i), unit * std::abs(want.At(r, i)) + 2e-6f) << "row " << r << " col " << i;
    }
  }

  const std::unique_ptr<Backend> ref_ = CreateRefBackend();
  bool has_wgmma_ = true;
  std::unique_ptr<Backend> backends_[2][2];
};

INSTANTIATE_TEST_SUITE_P(Where, CudaDeviceTest, testing::Values(Where::kEmulated, Where::kDevice),
                         [](const auto& info) { return info.param == Where::kDevice ? "Device" : "Emulated"; });

// Also what compute-sanitizer has the time for.
TEST_P(CudaDeviceTest, AFewShapesOfAttentionAreNearTheDefinition) {
  const std::vector<ChunkOf> chunks = {{0, 70, 1}, {1, 0, 9}, {2, 15, 1}, {3, 60, 7}};
  ExpectNearRef({8, 2, 128, 16, DType::kBFloat16}, chunks);
  ExpectNearRef({4, 4, 64, 8, DType::kFloat32}, {{0, 70, 1}, {1, 0, 9}});
  for (const KvQuantization quantization : {KvQuantization::kFp8E4M3, KvQuantization::kInt8, KvQuantization::kInt4}) {
    AttentionShape shape{.q_heads = 8, .kv_heads = 2, .head_dim = 128, .dtype = DType::kBFloat16};
    shape.quantization = quantization;
    ExpectNearRef(shape, chunks);
  }
}

TEST_P(CudaDeviceTest, EveryShapeOfAttentionIsNearTheDefinition) {
  if (!is_device()) GTEST_SKIP() << "emulated by quire_cuda_attention_test";
  for (const int32_t group : {1, 2, 3, 4, 8, 16, 32, 64}) {
    for (const int32_t head_dim : {32, 64, 80, 128, 256}) {
      for (const int32_t block_size : {8, 16, 64, 256}) {
        ExpectNearRef({group * 2, 2, head_dim, block_size, DType::kBFloat16},
                      {{0, 1, 1}, {1, 0, 33}, {2, 4000, 1}, {3, 500, 20}, {4, 63, 1}, {5, 64, 1}});
      }
    }
  }
}

TEST_P(CudaDeviceTest, EveryShapeOfAQuantizedCacheIsNearTheDefinition) {
  if (!is_device()) GTEST_SKIP() << "emulated by quire_cuda_attention_test";
  for (const KvQuantization quantization : {KvQuantization::kFp8E4M3, KvQuantization::kInt8, KvQuantization::kInt4}) {
    AttentionShape shape{.q_heads = 8, .kv_heads = 2, .head_dim = 128, .dtype = DType::kBFloat16};
    shape.quantization = quantization;
    for (const int32_t group : {1, 4, 8, 16, 32, 64}) {
      for (const int32_t head_dim : {32, 64, 80, 128, 256}) {
        shape.q_heads = 2 * group;
        shape.head_dim = head_dim;
        shape.block_size = group % 3 == 1 ? 16 : 8 * group;
        shape.block_size = std::min(shape.block_size, 256);
        ExpectNearRef(shape, {{0, 1, 1}, {1, 0, 33}, {2, 3000, 1}, {3, 500, 20}, {4, 63, 1}, {5, 64, 1}});
      }
    }
  }
}

TEST_P(CudaDeviceTest, LongContextsAndManyRowsInOneCall) {
  std::vector<ChunkOf> chunks = {{0, is_device() ? 131071 : 700, 1}, {1, 100, 1}, {2, 9, is_device() ? 500 : 30}};
  for (uint32_t s = 3; s < (is_device() ? 200u : 20u); ++s)
    chunks.push_back({s, static_cast<int32_t>(s * 37 % 900), 1});
  if (is_device()) chunks.push_back({200, 70000, 5});
  for (const KvQuantization quantization : {KvQuantization::kNone, KvQuantization::kFp8E4M3}) {
    AttentionShape shape{.q_heads = 8, .kv_heads = 2, .head_dim = is_device() ? 128 : 64, .dtype = DType::kBFloat16};
    shape.quantization = quantization;
    ExpectNearRef(shape, chunks);
  }
}

TEST_P(CudaDeviceTest, SmallOperationsAreNearTheDefinition) {
  for (const DType dtype : kAllDTypes) {
    const float unit = dtype == DType::kFloat32 ? 4e-6f : dtype == DType::kFloat16 ? 0x1p-10f : 0x1p-7f;
    for (const int64_t cols : {31, 300, 5003}) {
      Matrix x(DType::kFloat32, 6, cols, 3), weight(DType::kFloat32, 1, cols), bias(DType::kFloat32, 1, cols);
      Matrix gate_up(DType::kFloat32, 6, 2 * cols, 1), got(dtype, 6, cols, 5), want(dtype, 6, cols, 5);
      x.FillRandom(1, 3.0f);
      weight.FillRandom(2);
      bias.FillRandom(3);
      gate_up.FillRandom(4, 9.0f);
      const int32_t rows[] = {5, 0, 1, 2, 2, 4};
      // What the definition reads is the host's.
      const auto in = [&](Copies& copies, Backend& backend, const Matrix& matrix) {
        return backend.kind() == BackendKind::kRef ? matrix.tensor() : copies.Of(matrix.tensor());
      };
      ExpectAsRef(got, want, unit, [&](Backend& backend, Copies& copies, const Tensor& y) {
        backend.RmsNorm({in(copies, backend, x), in(copies, backend, weight).Row<float>(0), 1e-5f, rows, y});
      });
      ExpectAsRef(got, want, unit, [&](Backend& backend, Copies& copies, const Tensor& y) {
        backend.LayerNorm({in(copies, backend, x), in(copies, backend, weight).Row<float>(0),
                           in(copies, backend, bias).Row<float>(0), 1e-5f, rows, y});
      });
      for (const GateKind kind : {GateKind::kSilu, GateKind::kGeluTanh, GateKind::kGeluErf, GateKind::kClampedSwiGlu}) {
        ExpectAsRef(got, want, unit, [&](Backend& backend, Copies& copies, const Tensor& y) {
          backend.GatedActivation({in(copies, backend, gate_up), y, {kind}});
        });
      }
      for (const ActivationKind kind : {ActivationKind::kRelu, ActivationKind::kGeluErf, ActivationKind::kSoftCap}) {
        ExpectAsRef(got, want, unit, [&](Backend& backend, Copies& copies, const Tensor& y) {
          backend.Activation({in(copies, backend, x), kind, y, 3.0f});
        });
      }
      const uint32_t ids[] = {49, 0, 7, 7, 1, 48};
      Matrix table(dtype, 50, cols), embedded(DType::kFloat32, 6, cols), found(DType::kFloat32, 6, cols);
      table.FillRandom(5);
      std::list<LinearWeight> weights;  // until the device has read them
      ExpectAsRef(found, embedded, 0, [&](Backend& backend, Copies&, const Tensor& y) {
        weights.push_back(*backend.PackLinear({table.tensor()}, dtype));
        backend.Embedding({ids, &weights.back(), y});
      });
    }
  }
}

// The records and elements of the definition, bit by bit.
TEST_P(CudaDeviceTest, RopeWritesWhatTheDefinitionWrites) {
  constexpr int32_t kQHeads = 3, kKvHeads = 2, kHeadDim = 128, kPositions = 90;
  Matrix cos(DType::kFloat32, kPositions, kHeadDim / 2), sin(DType::kFloat32, kPositions, kHeadDim / 2);
  Matrix k(DType::kFloat32, 3, kKvHeads * kHeadDim, 1), v(DType::kFloat32, 3, kKvHeads * kHeadDim, 2);
  cos.FillRandom(1);
  sin.FillRandom(2);
  k.FillRandom(4);
  v.FillRandom(5);
  const int32_t positions[] = {0, 89, 7};
  const int64_t slots[] = {23, 0, 9};
  for (const KvQuantization quantization :
       {KvQuantization::kNone, KvQuantization::kFp8E4M3, KvQuantization::kInt8, KvQuantization::kInt4}) {
    Matrix q(DType::kFloat32, 3, kQHeads * kHeadDim, 4), q_want(DType::kFloat32, 3, kQHeads * kHeadDim, 4);
    q.FillRandom(3);
    q_want.FillRandom(3);
    PagedKv kv{.dtype = DType::kBFloat16,
               .num_blocks = 3,
               .block_size = 8,
               .kv_heads = kKvHeads,
               .head_dim = kHeadDim,
               .key_layout = KeyLayout::kRows,
               .quantization = quantization};
    const size_t bytes = 3 * 8 * kKvHeads * KvHeadBytes(kv.dtype, quantization, kHeadDim);
    std::vector<char> k_bytes(bytes, 0x77), v_bytes(bytes, 0x77), k_want = k_bytes, v_want = v_bytes;
    Backend& backend = BackendOf(true);
    Copies copies(backend);
    const Tensor q_copy = copies.Of(q.tensor());
    kv.k = copies.Of(k_bytes.data(), bytes);
    kv.v = copies.Of(v_bytes.data(), bytes);
    ASSERT_TRUE(backend.BeginStep().ok());
    backend.RopeKvWrite({q_copy, copies.Of(k.tensor()), copies.Of(v.tensor()), positions, slots, copies.Of(cos),
                         copies.Of(sin), kv, RopePairing::kHalves, 96});
    ASSERT_TRUE(backend.EndStep().ok() && backend.AwaitStep().ok());
    copies.Back(q_copy, q.tensor());
    Check(backend.CopyToHost(k_bytes.data(), kv.k, bytes).ok() && backend.CopyToHost(v_bytes.data(), kv.v, bytes).ok(),
          "copy");
    kv.k = k_want.data();
    kv.v = v_want.data();
    ref_->RopeKvWrite({q_want.tensor(), k.tensor(), v.tensor(), positions, slots, cos.tensor().Row<float>(0),
                       sin.tensor().Row<float>(0), kv, RopePairing::kHalves, 96});
    EXPECT_TRUE(SameBits(q, q_want));
    EXPECT_TRUE(k_bytes == k_want && v_bytes == v_want) << KvTypeName(kv.dtype, quantization);
  }
}

// The same tokens bit by bit, for every parameter and for rows that name much.
TEST_P(CudaDeviceTest, SamplingGivesTheTokensOfTheDefinition) {
  constexpr int32_t kTopStride = 20;
  const int64_t vocab = is_device() ? 5000 : 700, num_rows = is_device() ? 300 : 12;
  std::vector<SamplingParams> params;
  std::vector<uint32_t> most;
  std::vector<TokenBias> bias;
  std::vector<TokenCount> counts;
  for (uint32_t id = 0; id < vocab; ++id) {
    if (id % 7 != 3) most.push_back(id);
    bias.push_back({id, static_cast<float>(id * 31 % 11) - 5});
    counts.push_back({id, id * 17 % 5});
  }
  for (uint64_t seed = 0; seed < 12; ++seed) {
    params.push_back({.temperature = seed % 4 == 0 ? 0.0f : 0.5f + static_cast<float>(seed) / 5,
                      .top_k = seed % 3 == 0 ? 40u : 0u,
                      .top_p = seed % 2 == 0 ? 0.9f : 1.0f,
                      .min_p = seed % 5 == 0 ? 0.05f : 0.0f,
                      .repetition_penalty = seed % 3 == 1 ? 1.3f : 1.0f,
                      .seed = seed});
  }
  Matrix logits(DType::kFloat32, num_rows, vocab);
  logits.FillRandom(7, 8.0f);
  logits.Set(1, 2, NAN);
  std::vector<SampleRow> rows(static_cast<size_t>(num_rows));
  for (size_t r = 0; r < rows.size(); ++r) {
    rows[r].params = &params[r % params.size()];
    rows[r].position = r;
    rows[r].wants_logprob = true;
    rows[r].num_top = static_cast<int32_t>(r % 21);
    if (r % 3 == 0) rows[r].allowed = most;
    if (r % 5 == 0) rows[r].bias = bias;
    if (rows[r].params->HasPenalties()) rows[r].counts = counts;
  }
  std::vector<SampledToken> want(rows.size()), got(rows.size());
  std::vector<TokenLogprob> want_top(rows.size() * kTopStride), got_top(rows.size() * kTopStride);
  Backend& backend = BackendOf(false);
  Copies copies(backend);
  const Tensor copy = copies.Of(logits.tensor());
  ASSERT_TRUE(backend.BeginStep().ok());
  backend.Sample({copy, rows.data(), got.data(), got_top.data(), kTopStride});
  ASSERT_TRUE(backend.EndStep().ok() && backend.AwaitStep().ok());
  ref_->Sample({logits.tensor(), rows.data(), want.data(), want_top.data(), kTopStride});
  for (size_t r = 0; r < rows.size(); ++r) {
    EXPECT_EQ(got[r].id, want[r].id) << "row " << r;
    EXPECT_EQ(got[r].finite, want[r].finite) << "row " << r;
    EXPECT_NEAR(got[r].logprob, want[r].logprob, 1e-5f) << "row " << r;
    for (int32_t i = 0; i < rows[r].num_top; ++i)
      EXPECT_EQ(got_top[r * kTopStride + static_cast<size_t>(i)].id,
                want_top[r * kTopStride + static_cast<size_t>(i)].id)
          << "row " << r;
  }
}

TEST_P(CudaDeviceTest, LinearsAreNearTheDefinition) {
  const std::unique_ptr<Backend> ref = CreateRefBackend();
  for (const bool deterministic : {false, true}) {
    Backend* const backend = &BackendOf(deterministic);
    for (const DType dtype : kAllDTypes) {
      for (const auto& [rows, n, k] : {std::tuple<int64_t, int64_t, int64_t>{1, 64, 32}, {5, 48, 64}, {70, 256, 128}}) {
        Matrix x(dtype, rows, k), w(dtype, n, k), bias(DType::kFloat32, 1, n), want(DType::kFloat32, rows, n);
        x.FillRandom(1);
        w.FillRandom(2);
        bias.FillRandom(3);
        for (const bool has_bias : {false, true}) {
          for (const bool accumulate : {false, true}) {
            want.FillRandom(4);
            Buffer y = OnDevice(*backend, want.tensor().data, static_cast<size_t>(rows * n) * 4);
            const LinearWeight ref_weight = *ref->PackLinear({w.tensor()}, dtype);
            const LinearWeight weight = *backend->PackLinear({w.tensor()}, dtype);
            ref->Linear(
                {x.tensor(), &ref_weight, has_bias ? bias.tensor().Row<float>(0) : nullptr, accumulate, want.tensor()});
            Buffer x_device = OnDevice(*backend, x.tensor().data, static_cast<size_t>(rows * k) * DTypeBytes(dtype));
            Buffer bias_device = OnDevice(*backend, bias.tensor().data, static_cast<size_t>(n) * 4);
            const Tensor y_view = Tensor::Contiguous(y.data(), DType::kFloat32, rows, n);
            ASSERT_TRUE(backend->BeginStep().ok());
            backend->Linear({Tensor::Contiguous(x_device.data(), dtype, rows, k), &weight,
                             has_bias ? static_cast<const float*>(bias_device.data()) : nullptr, accumulate, y_view});
            ASSERT_TRUE(backend->EndStep().ok() && backend->AwaitStep().ok());
            const std::vector<float> found = FromDevice(*backend, y_view);
            for (int64_t r = 0; r < rows; ++r) {
              for (int64_t j = 0; j < n; ++j)
                ASSERT_NEAR(found[static_cast<size_t>(r * n + j)], want.At(r, j), 1e-3f)
                    << DTypeName(dtype) << " " << rows << " rows";
            }
          }
        }
      }
    }
  }
}

// Law 5: a row's bits do not depend on how many rows there are, nor on which of them is the first; of rows that are no
// multiple of 16 bytes, too.
TEST_P(CudaDeviceTest, DeterministicLinearsGiveARowTheSameBitsInAnyCompany) {
  constexpr int64_t kRows = 130;
  std::vector<std::pair<int64_t, int64_t>> shapes = {{64, 32}, {50, 36}};  // n, k
  if (is_device()) shapes.insert(shapes.end(), {{4096, 4096}, {6144, 4096}, {28672, 512}, {512, 14336}});
  Backend& backend = BackendOf(true);
  for (const DType dtype : kAllDTypes) {
    for (const auto& [n, k] : shapes) {
      Matrix x(dtype, kRows, k), w(dtype, n, k);
      x.FillRandom(1);
      w.FillRandom(2);
      const LinearWeight weight = *backend.PackLinear({w.tensor()}, dtype);
      Copies copies(backend);
      const Tensor x_copy = copies.Of(x.tensor());
      Buffer y = *backend.Allocate(static_cast<size_t>(kRows * n) * sizeof(float));
      const auto multiply = [&](int64_t first, int64_t count) {
        const Tensor some = Tensor::Contiguous(y.data(), DType::kFloat32, count, n);
        Check(backend.BeginStep().ok(), "step");
        backend.Linear({x_copy.Rows(first, count), &weight, nullptr, false, some});
        Check(backend.EndStep().ok() && backend.AwaitStep().ok(), "step");
        return FromDevice(backend, some);
      };
      const std::vector<float> all = multiply(0, kRows);
      for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 1}, {1, 1}, {3, 2}, {7, 64}, {1, 129}}) {
        const std::vector<float> some = multiply(first, count);
        EXPECT_EQ(std::memcmp(some.data(), all.data() + first * n, some.size() * sizeof(float)), 0)
            << DTypeName(dtype) << " [" << n << ", " << k << "] rows " << first << " and " << count - 1 << " more";
      }
    }
  }
}

// Of every region those blocks and no others.
TEST_P(CudaDeviceTest, BlocksAreCopiedAndScrubbed) {
  Backend& backend = BackendOf(true);
  constexpr int32_t kBlocks = 5;
  std::vector<std::vector<char>> want;
  std::vector<Buffer> buffers;
  std::vector<BlockRegion> regions;
  for (const size_t block_bytes : {size_t{1024}, size_t{272}}) {
    std::vector<char>& bytes = want.emplace_back(kBlocks * block_bytes);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7 + i / block_bytes + 1);
    buffers.push_back(OnDevice(backend, bytes.data(), bytes.size()));
    regions.push_back({buffers.back().data(), block_bytes, kBlocks});
    std::copy_n(&bytes[3 * block_bytes], block_bytes, &bytes[0]);
    std::copy_n(&bytes[2 * block_bytes], block_bytes, &bytes[4 * block_bytes]);
    std::fill_n(&bytes[1 * block_bytes], block_bytes, '\0');
  }
  const BlockCopy copies[] = {{.from = 3, .to = 0}, {.from = 2, .to = 4}};
  const BlockId scrubbed[] = {1};
  ASSERT_TRUE(backend.BeginStep().ok());
  backend.CopyBlocks({.regions = regions.data(), .num_regions = 2, .copies = copies, .num_copies = 2});
  backend.ScrubBlocks({.regions = regions.data(), .num_regions = 2, .blocks = scrubbed, .num_blocks = 1});
  ASSERT_TRUE(backend.EndStep().ok() && backend.AwaitStep().ok());
  for (size_t r = 0; r < want.size(); ++r) {
    std::vector<char> got(want[r].size());
    ASSERT_TRUE(backend.CopyToHost(got.data(), buffers[r].data(), got.size()).ok());
    EXPECT_EQ(got, want[r]) << "region " << r;
  }
}

}  // namespace
}  // namespace quire
