// WeightSpecs: the one list of what a model's weights are and which tensors of a checkpoint they are made of. Loading,
// random weights, the check of a checkpoint and the memory plan all go through it.

#ifndef QUIRE_ENGINE_WEIGHT_SPECS_H_
#define QUIRE_ENGINE_WEIGHT_SPECS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/model_config.h"
#include "engine/weights.h"

namespace quire {

// How the elements of a tensor of the file are numbered.
enum class TensorEncoding {
  kPlain,
  kMxfp4,  // two tensors, NAME_blocks [..., cols / 32, 16] of bytes and NAME_scales [..., cols / 32]: see mxfp4.h
};

// A matrix [rows, cols] inside a tensor of the checkpoint: element (r, c) is the tensor's element
//
//   offset + r / run * run_stride + r % run * row_stride + c * col_stride
//
// Plain rows, slices of a stack, transposed matrices, every n-th row and the layouts of fused projections are all of
// this form.
struct TensorPart {
  std::string name = {};
  std::vector<int64_t> shape = {};  // of the whole tensor
  TensorEncoding encoding = TensorEncoding::kPlain;
  int64_t rows = 0, cols = 0;
  int64_t offset = 0;
  int64_t run = 0;
  int64_t run_stride = 0;
  int64_t row_stride = 0;
  int64_t col_stride = 1;

  int64_t Index(int64_t row, int64_t col) const {
    return offset + row / run * run_stride + row % run * row_stride + col * col_stride;
  }
  // Rows are contiguous in themselves: the part can be read where it lies.
  bool HasPlainRows() const { return col_stride == 1 && encoding == TensorEncoding::kPlain; }
};

// How a matrix is packed.
enum class Packing {
  kAsAsked,     // numbers by --dtype and --quantization; what is stored quantised stays so
  kVocabulary,  // the same, but int4 is too coarse for what every token and every logit is made of: int8
  kNumbers,     // as numbers of --dtype, stored quantised or not: for operations that take nothing else
};

// A weight of the model: a matrix of stacked parts, or a vector of parts laid end to end.
struct WeightSpec {
  LinearWeight* matrix = nullptr;  // where it goes: one of the two
  VectorWeight* vector = nullptr;
  std::vector<TensorPart> parts = {};
  Packing packing = Packing::kAsAsked;
  float fill = 0;    // of a vector of random weights: 1 for a norm's, where nothing is added
  float addend = 0;  // to every element of a vector: 1 for Gemma's norms

  // Of a matrix.
  int64_t rows() const;
  int64_t cols() const { return parts.front().cols; }
  // Elements of a vector.
  int64_t size() const;
};

// All of a model's weights. Sizes the vectors inside `weights`; the result points into it. `prefix` is that of the
// names: TensorNames::prefix, or "" for checkpoints that lack it.
std::vector<WeightSpec> WeightSpecs(const ModelConfig& config, absl::string_view prefix, Weights& weights);

// A tensor that a checkpoint of `config` must have.
struct TensorSpec {
  std::string name = {};
  std::vector<int64_t> shape;
  uint64_t num_parameters = 0;
  bool is_bytes = false;  // of U8, else of numbers
};
// Each once, in the order of the model. With the family's prefix, or with another one.
std::vector<TensorSpec> ExpectedTensors(const ModelConfig& config);
std::vector<TensorSpec> ExpectedTensors(const ModelConfig& config, absl::string_view prefix);

}  // namespace quire

#endif  // QUIRE_ENGINE_WEIGHT_SPECS_H_
