#include "kernels/backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend_cuda.h"
#include "kernels/cpu/isa.h"
#include "kernels/cuda/device_info.h"
#include "tests/kernels/cpu_problem.h"

namespace quire {
namespace {

using testing::HasSubstr;

absl::StatusOr<std::unique_ptr<Backend>> Cpu(int num_threads, const std::string& isa,
                                             const std::vector<int>& bind = {}) {
  return CreateBackend({BackendKind::kCpu, num_threads, bind, isa});
}

std::unique_ptr<Backend> Make(BackendKind kind) { return *CreateBackend({kind, 0, {}, "auto"}); }

TEST(CreateBackendTest, MakesWhatWasAskedFor) {
  EXPECT_EQ(Make(BackendKind::kRef)->kind(), BackendKind::kRef);
  EXPECT_EQ(Make(BackendKind::kRef)->Description(), "ref");
  const std::unique_ptr<Backend> cpu = *Cpu(2, "portable");
  EXPECT_EQ(cpu->kind(), BackendKind::kCpu);
  EXPECT_THAT(cpu->Description(), HasSubstr("cpu portable, 2 threads"));
  for (CpuIsa isa : SupportedCpuIsas()) {
    EXPECT_THAT((*Cpu(1, std::string(CpuIsaName(isa))))->Description(),
                HasSubstr(std::string(CpuIsaName(isa)) + ", 1 thread"));
  }
}

TEST(CreateBackendTest, AutoTakesTheBestSupportedInstructionSet) {
  const CpuIsa chosen = ChooseCpuIsa();
  EXPECT_THAT(SupportedCpuIsas(), testing::Contains(chosen));
  EXPECT_GE(chosen, std::min(SupportedCpuIsas().back(), CpuIsa::kAvx512));  // the only doubt is whether vdpbf16ps pays
}

TEST(CreateBackendTest, RefusalsNameTheOptionTheValueAndWhatIsAllowed) {
  const absl::Status isa = Cpu(0, "sse9").status();
  EXPECT_EQ(isa.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(isa.message()),
              testing::AllOf(HasSubstr("cpu_isa is \"sse9\""), HasSubstr("auto, portable")));
  const absl::Status threads = Cpu(-1, "auto").status();
  EXPECT_EQ(threads.code(), absl::StatusCode::kInvalidArgument);
  const absl::Status bind = Cpu(1, "auto", {1 << 20}).status();
  EXPECT_THAT(std::string(bind.message()), HasSubstr("cpu_bind: CPU 1048576"));
}

TEST(CreateBackendTest, RefusesWhatIsForAnotherBackendByName) {
  for (const BackendKind kind : {BackendKind::kRef, BackendKind::kCuda}) {
    const std::string in_use = kind == BackendKind::kRef ? "ref" : "cuda";
    const auto refusal = [&](BackendOptions options) {
      options.kind = kind;
      const absl::Status status = CreateBackend(options).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      return std::string(status.message());
    };
    EXPECT_EQ(refusal({.num_threads = 2}), "--threads: is for backend cpu; in use is " + in_use);
    EXPECT_EQ(refusal({.cpu_bind = {0}}), "--cpu-bind: is for backend cpu; in use is " + in_use);
    EXPECT_EQ(refusal({.cpu_isa = "avx2"}), "--cpu-isa: is for backend cpu; in use is " + in_use);
    EXPECT_EQ(refusal({.prefault = Prefault::kStart}), "--prefault: is for backend cpu; in use is " + in_use);
  }
  for (const BackendKind kind : {BackendKind::kRef, BackendKind::kCpu}) {
    EXPECT_EQ(CreateBackend({.kind = kind, .prefill_attention = PrefillAttention::kMma}).status().message(),
              std::string("--prefill-attention: is for backend cuda; in use is ") +
                  (kind == BackendKind::kRef ? "ref" : "cpu"));
    EXPECT_THAT(std::string(CreateBackend({.kind = kind, .deterministic = false}).status().message()),
                HasSubstr("--deterministic: found false, allowed true"));
  }
}

// Where the toolkit is missing, or the device.
TEST(CreateBackendTest, CudaThatCannotBeSaysSoInOneLine) {
  if (HasCudaDevice()) GTEST_SKIP() << "there is a device";
  const absl::Status status = CreateBackend({.kind = BackendKind::kCuda}).status();
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(testing::AnyOf(HasSubstr("backend cuda: this build has no CUDA backend"),
                                            HasSubstr("backend cuda: found no CUDA device")),
                             testing::Not(HasSubstr("\n"))));
  EXPECT_EQ(Make(BackendKind::kAuto)->kind(), BackendKind::kCpu);
}

TEST(CudaDeviceInfoTest, DevicesThatDoNotDoSayWhatIsAllowed) {
  cuda::DeviceInfo info{.name = "Tesla V100", .major = 7, .minor = 0, .max_shared_bytes = 98304};
  EXPECT_EQ(cuda::CheckCapability(info).message(),
            "backend cuda: found Tesla V100 of compute capability 7.0, allowed 8.0 and later; --backend cpu needs no "
            "device");
  info.major = 8;
  EXPECT_TRUE(cuda::CheckCapability(info).ok());
  EXPECT_FALSE(*cuda::PrefillsByWgmma(info, PrefillAttention::kMma));
  EXPECT_EQ(
      cuda::PrefillsByWgmma(info, PrefillAttention::kWgmma).status().message(),
      "--prefill-attention: found wgmma, allowed auto and mma: Tesla V100 is of compute capability 8.0, and wgmma "
      "needs 9.0");
  for (const int32_t major : {9, 10, 12}) {
    info.major = major;
    EXPECT_EQ(cuda::PrefillsByWgmma(info, PrefillAttention::kWgmma).ok(), major == 9) << major;
    EXPECT_FALSE(*cuda::PrefillsByWgmma(info, PrefillAttention::kAuto));
  }
  EXPECT_TRUE(cuda::CheckSharedMemory(info, 98304, 8, 128).ok());
  EXPECT_THAT(std::string(cuda::CheckSharedMemory(info, 98305, 8, 256).message()),
              testing::AllOf(HasSubstr("98304 bytes"), HasSubstr("heads of 256 dims takes 98305")));
  EXPECT_THAT(std::string(cuda::OutOfDeviceMemory(300, 200, 1000).message()),
              testing::AllOf(HasSubstr("needed 300 bytes more, free 200 of 1000"), HasSubstr("--kv-cache-memory")));
}

TEST(IsaTest, NamesAreParsedBack) {
  for (CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16})
    EXPECT_EQ(ParseCpuIsa(CpuIsaName(isa)), isa);
  EXPECT_EQ(ParseCpuIsa("auto"), std::nullopt);
  EXPECT_EQ(SupportedCpuIsas().front(), CpuIsa::kPortable);
}

class BothBackends : public testing::TestWithParam<BackendKind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, BothBackends, testing::Values(BackendKind::kRef, BackendKind::kCpu),
                         [](const auto& info) { return info.param == BackendKind::kRef ? "ref" : "cpu"; });

TEST_P(BothBackends, AllocatesZeroesAlignedTo64Bytes) {
  const std::unique_ptr<Backend> backend = Make(GetParam());
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{4096}, size_t{5} << 20}) {
    absl::StatusOr<Buffer> buffer = backend->Allocate(bytes);
    ASSERT_TRUE(buffer.ok());
    EXPECT_EQ(buffer->bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
    for (size_t i = 0; i < bytes; i += 1021) ASSERT_EQ(static_cast<char*>(buffer->data())[i], 0);
    if (bytes > 0) static_cast<char*>(buffer->data())[bytes - 1] = 1;
  }
}

TEST_P(BothBackends, AnImpossibleAllocationIsRefusedWithItsSize) {
  const absl::Status status = Make(GetParam())->Allocate(size_t{1} << 60).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("1152921504606846976 bytes"));
  EXPECT_EQ(Make(GetParam())->Allocate(SIZE_MAX).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_P(BothBackends, PackedWeightsTakeTheBytesThatWereAnnounced) {
  const std::unique_ptr<Backend> backend = Make(GetParam());
  Matrix a(DType::kBFloat16, 70, 33), b(DType::kFloat32, 5, 33);
  a.FillRandom(1);
  b.FillRandom(2);
  for (DType dtype : kAllDTypes) {
    absl::StatusOr<LinearWeight> weight = backend->PackLinear({a.tensor(), b.tensor()}, dtype);
    ASSERT_TRUE(weight.ok());
    EXPECT_EQ(weight->n, 75);
    EXPECT_EQ(weight->k, 33);
    EXPECT_EQ(weight->data.bytes(), backend->PackedBytes(75, 33, dtype));
  }
}

// Two matrices through every operation but attention and sampling, which have tests of their own.
TEST_P(BothBackends, ALayerRunsThroughThePublicOperations) {
  const std::unique_ptr<Backend> backend = Make(GetParam());
  Matrix table(DType::kFloat32, 4, 2), x(DType::kFloat32, 2, 2), normal(DType::kFloat32, 2, 2),
      gate_up(DType::kFloat32, 2, 2), y(DType::kFloat32, 2, 1);
  table.Fill({{1, 1}, {3, 4}, {5, 6}, {-2, 2}});
  const LinearWeight weight = *backend->PackLinear({table.tensor()}, DType::kFloat32);
  const uint32_t ids[] = {3, 0};
  backend->Embedding({ids, &weight, x.tensor()});
  EXPECT_THAT(x.Row(0), testing::ElementsAre(-2, 2));
  const float ones[] = {1, 1};
  backend->RmsNorm({x.tensor(), ones, 1e-20f, nullptr, normal.tensor()});
  EXPECT_THAT(normal.Row(0), testing::ElementsAre(-1, 1));
  Matrix logits(DType::kFloat32, 2, 4);
  backend->Linear({normal.tensor(), &weight, nullptr, false, logits.tensor()});
  EXPECT_THAT(logits.Row(0), testing::ElementsAre(0, 1, 1, 4));
  gate_up.Fill({{0, 7}, {1, 2}});
  backend->GatedActivation({gate_up.tensor(), y.tensor()});
  EXPECT_EQ(y.At(0, 0), 0);
  EXPECT_NEAR(y.At(1, 0), 1.462117f, 1e-6f);
  backend->Linear(
      {x.tensor().Rows(0, 0), &weight, nullptr, false, logits.tensor().Rows(0, 0)});  // no rows: nothing to do
}

TEST_P(BothBackends, ABrokenContractAborts) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const std::unique_ptr<Backend> backend = Make(GetParam());
  Matrix table(DType::kFloat32, 4, 2), x(DType::kFloat32, 1, 2), narrow(DType::kFloat32, 1, 3),
      half(DType::kFloat16, 1, 2);
  table.FillRandom(1);
  x.FillRandom(2);
  const LinearWeight weight = *backend->PackLinear({table.tensor()}, DType::kFloat32);
  const uint32_t beyond[] = {4};
  EXPECT_DEATH(backend->Embedding({beyond, &weight, x.tensor()}), "id beyond the table");
  EXPECT_DEATH(backend->Linear({x.tensor(), &weight, nullptr, false, narrow.tensor()}), "Linear: widths");
  EXPECT_DEATH(backend->Linear({half.tensor(), &weight, nullptr, false, narrow.tensor()}),
               "Linear: x is not of the weight's dtype");
  EXPECT_DEATH(backend->GatedActivation({narrow.tensor(), x.tensor()}), "GatedActivation: shapes");
}

}  // namespace
}  // namespace quire
