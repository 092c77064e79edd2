// The CUDA backend through its public face, on the emulated device and, where there is one, on the real device: every
// operation against `ref`, with all memory of the device's own. Without a device those tests skip aloud.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/backend_cuda.h"
#include "kernels/backend_ref.h"
#include "tests/kernels/cpu_problem.h"
#include "tests/kernels/cuda/emulated_backend.h"
#include "tests/kernels/paged_attention_problem.h"

namespace quire {
namespace {

enum class Where { kEmulated, kDevice };

class CudaDeviceTest : public testing::TestWithParam<Where> {
 protected:
  void SetUp() override {
    if (is_device() && !HasCudaDevice()) GTEST_SKIP() << "no CUDA device: this ran emulated only";
  }

  std::unique_ptr<Backend> MakeBackend(bool deterministic) {
    std::unique_ptr<Backend> backend;
    if (is_device()) {
      BackendOptions options;
      options.kind = BackendKind::kCuda;
      options.deterministic = deterministic;
      absl::StatusOr<std::unique_ptr<Backend>> made = CreateBackend(options);
      EXPECT_TRUE(made.ok()) << made.status();
      backend = *std::move(made);
    } else {
      backend = MakeEmulatedCudaBackend({}, deterministic);
    }
    WorkspaceShape shape;
    shape.max_rows = 4096;
    shape.max_head_rows = shape.max_sequences = 300;
    shape.vocab_size = 5000;
    shape.q_heads = 64;
    shape.kv_heads = 1;
    shape.head_dim = 256;
    shape.max_context = is_device() ? 140000 : 4096;
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
      Check(backend.EndStep().ok(), "step");
      Check(backend.CopyToHost(args.out.data, out.data(), out_bytes).ok(), "copy");
    });
  }

  void ExpectNearRef(AttentionShape shape, const std::vector<ChunkOf>& chunks) {
    shape.key_layout = KeyLayout::kRows;
    PagedAttentionProblem problem(shape, chunks);
    const std::vector<float> expected = problem.Ref();
    const float tolerance = shape.dtype == DType::kFloat32 ? 2e-5f : shape.dtype == DType::kFloat16 ? 2e-3f : 8e-3f;
    for (const bool deterministic : {false, true}) {
      const std::unique_ptr<Backend> backend = MakeBackend(deterministic);
      const std::vector<float> found = Attend(*backend, problem);
      ASSERT_EQ(found.size(), expected.size());
      float worst = 0;
      for (size_t i = 0; i < found.size(); ++i) {
        const float difference = std::abs(found[i] - expected[i]);
        ASSERT_FALSE(std::isnan(difference)) << i;
        worst = std::max(worst, difference);
      }
      EXPECT_LE(worst, tolerance) << shape.q_heads << "/" << shape.kv_heads << " heads of " << shape.head_dim
                                  << ", block " << shape.block_size << ", deterministic " << deterministic;
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Where, CudaDeviceTest, testing::Values(Where::kEmulated, Where::kDevice),
                         [](const auto& info) { return info.param == Where::kDevice ? "Device" : "Emulated"; });

TEST_P(CudaDeviceTest, AttentionIsNearTheDefinition) {
  ExpectNearRef({8, 2, 128, 16, DType::kBFloat16}, {{0, 70, 1}, {1, 0, 9}, {2, 15, 1}, {3, 60, 7}});
  ExpectNearRef({4, 4, 64, 8, DType::kFloat32}, {{0, 70, 1}, {1, 0, 9}});
  if (!is_device()) return;
  for (const int32_t group : {1, 2, 3, 4, 8, 16, 32, 64}) {
    for (const int32_t head_dim : {32, 64, 80, 128, 256}) {
      for (const int32_t block_size : {8, 16, 64, 256}) {
        ExpectNearRef({group * 2, 2, head_dim, block_size, DType::kBFloat16},
                      {{0, 1, 1}, {1, 0, 33}, {2, 4000, 1}, {3, 500, 70}, {4, 63, 1}, {5, 64, 1}});
      }
    }
  }
  ExpectNearRef({32, 8, 128, 16, DType::kFloat16}, {{0, 131071, 1}, {1, 100, 1}, {2, 9, 500}});
}

TEST_P(CudaDeviceTest, LinearsAreNearTheDefinition) {
  const std::unique_ptr<Backend> ref = CreateRefBackend();
  for (const bool deterministic : {false, true}) {
    const std::unique_ptr<Backend> backend = MakeBackend(deterministic);
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
            ASSERT_TRUE(backend->EndStep().ok());
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

}  // namespace
}  // namespace quire
