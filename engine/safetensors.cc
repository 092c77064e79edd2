#include "engine/safetensors.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/json_text.h"

namespace quire {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // of the format
constexpr size_t kMaxDims = 8;

std::optional<DType> ParseStoredDType(const std::string& name) {
  if (name == "F32") return DType::kFloat32;
  if (name == "BF16") return DType::kBFloat16;
  if (name == "F16") return DType::kFloat16;
  return std::nullopt;
}

// Codes and scales of MXFP4 weights are bytes; no other tensor that anybody reads is.
bool IsMxfp4Part(absl::string_view name) { return absl::EndsWith(name, "_blocks") || absl::EndsWith(name, "_scales"); }

// Reads the header as it comes and stops at the first thing out of place, so that memory is bounded by well-formed
// entries. The parser does not recurse.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  struct Entry {
    StoredTensor tensor;
    std::vector<uint64_t> shape, offsets;
    bool has_dtype = false, has_shape = false, has_offsets = false;
    bool is_bytes = false;  // U8: a part of MXFP4 weights
  };

  std::vector<Entry>& entries() { return entries_; }
  const std::string& error() const { return error_; }

  bool start_object(size_t) override {
    if (place_ == Place::kStart) return Go(Place::kTop);
    if (place_ == Place::kTensorValue) return Go(Place::kTensor);
    if (place_ == Place::kMetadataValue) return Go(Place::kMetadata);
    return Misplaced("an object");
  }

  bool end_object() override {
    if (place_ == Place::kTop) return Go(Place::kEnd);
    if (place_ == Place::kMetadata) return Go(Place::kTop);
    const Entry& entry = entries_.back();
    if (!entry.has_dtype || !entry.has_shape || !entry.has_offsets) {
      return Error("found no ",
                   !entry.has_dtype   ? "dtype"
                   : !entry.has_shape ? "shape"
                                      : "data_offsets",
                   ", allowed: all three");
    }
    return Go(Place::kTop);
  }

  bool key(std::string& key) override {
    if (place_ == Place::kMetadata) return Go(Place::kMetadataText);
    if (place_ == Place::kTop) {
      const bool is_new = names_.insert(key).second;
      subject_ = key == "__metadata__" ? "header" : absl::StrCat("tensor ", Quoted(key));
      if (!is_new) return Error("found twice in the header, allowed once");
      if (key == "__metadata__") return Go(Place::kMetadataValue);
      entries_.emplace_back();
      entries_.back().tensor.name = key;
      return Go(Place::kTensorValue);
    }
    Entry& entry = entries_.back();
    bool* seen = key == "dtype"          ? &entry.has_dtype
                 : key == "shape"        ? &entry.has_shape
                 : key == "data_offsets" ? &entry.has_offsets
                                         : nullptr;
    if (seen == nullptr) return Error("found key ", Quoted(key), ", allowed: dtype, shape, data_offsets");
    if (std::exchange(*seen, true)) return Error("found key ", Quoted(key), " twice, allowed once");
    return Go(key == "dtype" ? Place::kDType : key == "shape" ? Place::kShapeValue : Place::kOffsetsValue);
  }

  bool string(std::string& text) override {
    if (place_ == Place::kDType && text == "U8" && IsMxfp4Part(entries_.back().tensor.name)) {
      entries_.back().is_bytes = true;
      return Go(Place::kTensor);
    }
    if (place_ == Place::kMetadataText) return Go(Place::kMetadata);
    if (place_ != Place::kDType) return Misplaced("a text");
    StoredTensor& tensor = entries_.back().tensor;
    const std::optional<DType> dtype = ParseStoredDType(text);
    if (!dtype.has_value() && text != "F8_E4M3")
      return Error("found dtype ", Quoted(text), ", allowed: F32, BF16, F16, F8_E4M3");
    if (dtype.has_value()) {
      tensor.dtype = *dtype;
    } else {
      tensor.fp8 = std::make_shared<Fp8Scales>();
    }
    return Go(Place::kTensor);
  }

  bool start_array(size_t) override {
    if (place_ == Place::kShapeValue) return Go(Place::kShape);
    if (place_ == Place::kOffsetsValue) return Go(Place::kOffsets);
    return Misplaced("an array");
  }

  bool end_array() override { return Go(Place::kTensor); }

  bool number_unsigned(number_unsigned_t number) override {
    if (place_ != Place::kShape && place_ != Place::kOffsets) return Misplaced("a number");
    std::vector<uint64_t>& list = place_ == Place::kShape ? entries_.back().shape : entries_.back().offsets;
    if (list.size() == kMaxDims) return Error("found more than ", kMaxDims, " numbers in a list");
    list.push_back(number);
    return true;
  }

  bool number_integer(number_integer_t number) override {
    return Error("found ", number, " in ", place_ == Place::kShape ? "shape" : "data_offsets",
                 ", allowed: numbers >= 0");
  }
  bool number_float(number_float_t, const std::string&) override { return Misplaced("a fraction"); }
  bool null() override { return Misplaced("null"); }
  bool boolean(bool) override { return Misplaced("a boolean"); }
  bool binary(nlohmann::json::binary_t&) override { return Misplaced("binary"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    subject_ = "header";
    return Error("found no JSON at byte ", position);
  }

 private:
  enum class Place {
    kStart,
    kTop,
    kEnd,
    kMetadataValue,
    kMetadata,
    kMetadataText,
    kTensorValue,
    kTensor,
    kDType,
    kShapeValue,
    kShape,
    kOffsetsValue,
    kOffsets,
  };

  bool Go(Place place) {
    place_ = place;
    return true;
  }
  template <typename... Parts>
  bool Error(const Parts&... parts) {
    error_ = absl::StrCat(subject_, ": ", parts...);
    return false;
  }
  bool Misplaced(absl::string_view what) {
    return Error("found ", what, " where the format has none, allowed: {name: {dtype, shape, data_offsets}}");
  }

  Place place_ = Place::kStart;
  std::string subject_ = "header";
  std::string error_;
  std::set<std::string> names_;
  std::vector<Entry> entries_;
};

// Bytes of a tensor of this shape; nullopt on overflow.
std::optional<uint64_t> ShapeBytes(const std::vector<uint64_t>& shape, uint64_t element_bytes) {
  uint64_t bytes = element_bytes;
  for (const uint64_t dim : shape) {
    if (__builtin_mul_overflow(bytes, dim, &bytes)) return std::nullopt;
  }
  return bytes > uint64_t{INT64_MAX} ? std::nullopt : std::optional<uint64_t>(bytes);
}

// Places one entry in the data and fills in its tensor; empty or what is wrong.
std::string Place(HeaderReader::Entry& entry, absl::Span<const std::byte> data) {
  if (entry.offsets.size() != 2) return absl::StrCat("found ", entry.offsets.size(), " data_offsets, allowed 2");
  const uint64_t begin = entry.offsets[0], end = entry.offsets[1];
  if (begin > end || end > data.size()) {
    return absl::StrCat("found data_offsets [", begin, ", ", end, "], allowed: rising, at most the ", data.size(),
                        " bytes of data in the file (is it truncated?)");
  }
  const bool has_bytes = entry.is_bytes || entry.tensor.fp8 != nullptr;
  const std::optional<uint64_t> bytes = ShapeBytes(entry.shape, has_bytes ? 1 : DTypeBytes(entry.tensor.dtype));
  if (bytes != end - begin) {
    return absl::StrCat("found ", end - begin,
                        " bytes between its data_offsets, allowed: those of its dtype and shape, ",
                        bytes.has_value() ? absl::StrCat(*bytes) : "which overflow 64 bits");
  }
  entry.tensor.shape.assign(entry.shape.begin(), entry.shape.end());
  entry.tensor.data = data.data() + begin;
  entry.tensor.bytes = *bytes;
  return "";
}

// Empty, or where the tensors (sorted by place) do not tile `data`.
std::string CheckTiling(const std::vector<StoredTensor>& tensors, absl::Span<const std::byte> data) {
  const std::byte* next = data.data();
  for (const StoredTensor& tensor : tensors) {
    if (tensor.data != next) {
      return absl::StrCat("tensor ", Quoted(tensor.name), ": found begin ", tensor.data - data.data(), ", allowed ",
                          next - data.data(),
                          tensor.data < next ? " (it overlaps the tensor before)" : " (there is a hole before it)");
    }
    next += tensor.bytes;
  }
  if (next == data.data() + data.size()) return "";
  const std::string last = tensors.empty() ? "header" : absl::StrCat("tensor ", Quoted(tensors.back().name));
  return absl::StrCat(last, ": found ", data.data() + data.size() - next,
                      " bytes of data after the last tensor, allowed 0");
}

}  // namespace

absl::StatusOr<std::vector<StoredTensor>> ParseSafetensors(absl::Span<const std::byte> file, absl::string_view name) {
  const auto error = [&](auto... parts) { return absl::InvalidArgumentError(absl::StrCat(name, ": ", parts...)); };
  if (file.size() < 8)
    return error("found ", file.size(), " bytes, allowed: at least the 8 of a safetensors header (is it truncated?)");
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | std::to_integer<uint64_t>(file[i]);
  if (header_bytes > kMaxHeaderBytes)
    return error("header: found a length of ", header_bytes, " bytes, allowed at most ", kMaxHeaderBytes);
  if (header_bytes > file.size() - 8) {
    return error("header: found a length of ", header_bytes, " bytes, allowed at most the ", file.size() - 8,
                 " that follow (is it truncated?)");
  }
  const absl::string_view header(reinterpret_cast<const char*>(file.data()) + 8, header_bytes);
  if (header.empty() || header[0] != '{') return error("header: found no '{' at its first byte");

  HeaderReader reader;
  if (!nlohmann::json::sax_parse(header.begin(), header.end(), &reader)) return error(reader.error());
  const absl::Span<const std::byte> data = file.subspan(8 + header_bytes);
  std::vector<StoredTensor> tensors;
  tensors.reserve(reader.entries().size());
  for (HeaderReader::Entry& entry : reader.entries()) {
    if (const std::string wrong = Place(entry, data); !wrong.empty())
      return error("tensor ", Quoted(entry.tensor.name), ": ", wrong);
    tensors.push_back(std::move(entry.tensor));
  }
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.data, a.bytes) < std::pair(b.data, b.bytes);
  });
  if (const std::string wrong = CheckTiling(tensors, data); !wrong.empty()) return error(wrong);
  return tensors;
}

}  // namespace quire
