#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_device.cuh"
#include "kernels/linear/cublas_lt.cuh"

namespace quire::cuda {
namespace {

absl::Status ToStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("CUDA: ", what, ": ", cudaGetErrorString(error)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Create(bool deterministic) {
  int num_devices = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&num_devices); error != cudaSuccess || num_devices == 0) {
    int driver_version = 0;  // 0: none, which the error calls an insufficient one
    (void)cudaDriverGetVersion(&driver_version);
    return NoDevice(error == cudaSuccess  ? "none is visible"
                    : driver_version == 0 ? "no driver is installed"
                                          : cudaGetErrorString(error));
  }
  cudaDeviceProp properties;
  size_t free_bytes = 0, total_bytes = 0;
  absl::Status status = ToStatus(cudaSetDevice(0), "device 0");
  status.Update(ToStatus(cudaGetDeviceProperties(&properties, 0), "properties of device 0"));
  status.Update(ToStatus(cudaMemGetInfo(&free_bytes, &total_bytes), "memory of device 0"));
  if (!status.ok()) return status;
  const DeviceInfo info{.name = properties.name,
                        .major = properties.major,
                        .minor = properties.minor,
                        .num_sms = properties.multiProcessorCount,
                        .max_shared_bytes = properties.sharedMemPerBlockOptin,
                        .total_bytes = total_bytes,
                        .free_bytes = free_bytes};
  if (absl::Status capable = CheckCapability(info); !capable.ok()) return capable;
  std::unique_ptr<CudaDevice> device(new CudaDevice(info));
  device->Require(cudaStreamCreateWithFlags(&device->stream_, cudaStreamNonBlocking), "a stream");
  for (cudaEvent_t& mark : device->marks_)
    device->Require(cudaEventCreateWithFlags(&mark, cudaEventDisableTiming), "an event");
  if (!device->status().ok()) return device->status();
  absl::StatusOr<std::unique_ptr<CublasLt>> blas = CublasLt::Create(deterministic);
  if (!blas.ok()) return blas.status();
  device->blas_ = *std::move(blas);
  return device;
}

CudaDevice::CudaDevice(DeviceInfo info) : info_(std::move(info)) {}

CudaDevice::~CudaDevice() {
  blas_.reset();
  for (cudaEvent_t mark : marks_) {
    if (mark != nullptr) cudaEventDestroy(mark);
  }
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void CudaDevice::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

void CudaDevice::Require(cudaError_t error, const char* what) {
  if (error != cudaSuccess) Fail(ToStatus(error, what));
}

absl::StatusOr<Buffer> CudaDevice::Allocate(size_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes == 0 ? 1 : bytes);
  if (error != cudaSuccess) {
    (void)cudaGetLastError();  // it is reported here and must not be found later
    size_t free_bytes = 0, total_bytes = 0;
    (void)cudaMemGetInfo(&free_bytes, &total_bytes);
    return OutOfDeviceMemory(bytes, free_bytes, total_bytes);
  }
  if (absl::Status status = ToStatus(cudaMemsetAsync(data, 0, bytes, stream_), "clearing memory"); !status.ok()) {
    cudaFree(data);
    return status;
  }
  return Buffer(data, bytes, [](void* p) { cudaFree(p); });
}

absl::StatusOr<Buffer> CudaDevice::AllocatePinned(size_t bytes) {
  void* data = nullptr;
  if (cudaMallocHost(&data, bytes == 0 ? 1 : bytes) != cudaSuccess) {
    (void)cudaGetLastError();
    return absl::ResourceExhaustedError(absl::StrCat("pinned host memory: ", bytes, " bytes are not to be had"));
  }
  return Buffer(data, bytes, [](void* p) { cudaFreeHost(p); });
}

void CudaDevice::Copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (bytes == 0 || !status_.ok()) return;
  Require(cudaMemcpyAsync(to, from, bytes, kind, stream_), "a copy");
}

void CudaDevice::Clear(void* to, size_t bytes) {
  if (status_.ok()) Require(cudaMemsetAsync(to, 0, bytes, stream_), "clearing memory");
}

absl::Status CudaDevice::Synchronize() {
  Require(cudaStreamSynchronize(stream_), "a step");
  return status_;
}

void CudaDevice::Record(int mark) {
  if (status_.ok()) Require(cudaEventRecord(marks_[mark], stream_), "an event");
}

absl::Status CudaDevice::Await(int mark) {
  Require(cudaEventSynchronize(marks_[mark]), "a step");
  return status_;
}

void CudaDevice::BeginCapture() {
  // Relaxed: kernels' attributes may be set meanwhile.
  if (status_.ok()) Require(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "capture of a graph");
}

CudaDevice::Graph CudaDevice::EndCapture() {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t made = nullptr;
  Require(cudaStreamEndCapture(stream_, &graph), "capture of a graph");
  if (status_.ok()) Require(cudaGraphInstantiate(&made, graph, 0), "a graph");
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (status_.ok()) Require(cudaGraphUpload(made, stream_), "a graph");
  return Graph(made, [](cudaGraphExec_t exec) {
    if (exec != nullptr) cudaGraphExecDestroy(exec);
  });
}

void CudaDevice::Replay(const Graph& graph) {
  if (status_.ok()) Require(cudaGraphLaunch(graph.get(), stream_), "a graph");
}

size_t CudaDevice::LinearWorkspaceBytes() { return kLinearWorkspaceBytes; }

void CudaDevice::Linear(const LinearArgs& args, void* workspace) {
  if (!status_.ok()) return;
  if (absl::Status status = blas_->Linear(args, workspace, stream_); !status.ok()) Fail(std::move(status));
}

}  // namespace quire::cuda
