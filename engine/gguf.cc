#include "engine/gguf.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/json_text.h"

namespace quire {
namespace {

constexpr size_t kMaxNameBytes = 65535;  // of a key or a tensor's name
constexpr uint32_t kMaxDims = 4;         // of ggml
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMinAlignment = 8, kMaxAlignment = uint64_t{1} << 20;

constexpr GgmlType Number(uint32_t number) { return static_cast<GgmlType>(number); }

constexpr GgmlTypeInfo kTypes[] = {
    {GgmlType::kF32, "F32", 1, 4},       {GgmlType::kF16, "F16", 1, 2},       {GgmlType::kQ4_0, "Q4_0", 32, 18},
    {GgmlType::kQ4_1, "Q4_1", 32, 20},   {GgmlType::kQ5_0, "Q5_0", 32, 22},   {GgmlType::kQ5_1, "Q5_1", 32, 24},
    {GgmlType::kQ8_0, "Q8_0", 32, 34},   {GgmlType::kQ2_K, "Q2_K", 256, 84},  {GgmlType::kQ3_K, "Q3_K", 256, 110},
    {GgmlType::kQ4_K, "Q4_K", 256, 144}, {GgmlType::kQ5_K, "Q5_K", 256, 176}, {GgmlType::kQ6_K, "Q6_K", 256, 210},
    {Number(16), "IQ2_XXS", 256, 66},    {Number(17), "IQ2_XS", 256, 74},     {Number(18), "IQ3_XXS", 256, 98},
    {Number(19), "IQ1_S", 256, 50},      {Number(20), "IQ4_NL", 32, 18},      {Number(21), "IQ3_S", 256, 110},
    {Number(22), "IQ2_S", 256, 82},      {Number(23), "IQ4_XS", 256, 136},    {Number(24), "I8", 1, 1},
    {Number(25), "I16", 1, 2},           {Number(26), "I32", 1, 4},           {Number(27), "I64", 1, 8},
    {Number(28), "F64", 1, 8},           {Number(29), "IQ1_M", 256, 56},      {GgmlType::kBF16, "BF16", 1, 2},
    {Number(34), "TQ1_0", 256, 54},      {Number(35), "TQ2_0", 256, 66},      {GgmlType::kMXFP4, "MXFP4", 32, 17},
};

// Bytes of a number; 0 for what is none.
size_t NumberBytes(GgufValueType type) {
  switch (type) {
    case GgufValueType::kUint8:
    case GgufValueType::kInt8:
    case GgufValueType::kBool:
      return 1;
    case GgufValueType::kUint16:
    case GgufValueType::kInt16:
      return 2;
    case GgufValueType::kUint32:
    case GgufValueType::kInt32:
    case GgufValueType::kFloat32:
      return 4;
    case GgufValueType::kUint64:
    case GgufValueType::kInt64:
    case GgufValueType::kFloat64:
      return 8;
    case GgufValueType::kText:
    case GgufValueType::kArray:
      break;
  }
  return 0;
}

constexpr bool IsKnown(uint32_t type) { return type <= static_cast<uint32_t>(GgufValueType::kFloat64); }

// A number of T at any alignment; the format and every machine of ours are little-endian.
template <typename T>
T LoadAs(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// A number as the widest of its kind.
GgufValue LoadNumber(GgufValueType type, const std::byte* from) {
  switch (type) {
    case GgufValueType::kUint8:
      return uint64_t{LoadAs<uint8_t>(from)};
    case GgufValueType::kInt8:
      return int64_t{LoadAs<int8_t>(from)};
    case GgufValueType::kUint16:
      return uint64_t{LoadAs<uint16_t>(from)};
    case GgufValueType::kInt16:
      return int64_t{LoadAs<int16_t>(from)};
    case GgufValueType::kUint32:
      return uint64_t{LoadAs<uint32_t>(from)};
    case GgufValueType::kInt32:
      return int64_t{LoadAs<int32_t>(from)};
    case GgufValueType::kFloat32:
      return double{LoadAs<float>(from)};
    case GgufValueType::kBool:
      return LoadAs<uint8_t>(from) != 0;
    case GgufValueType::kUint64:
      return LoadAs<uint64_t>(from);
    case GgufValueType::kInt64:
      return LoadAs<int64_t>(from);
    case GgufValueType::kFloat64:
      return LoadAs<double>(from);
    case GgufValueType::kText:
    case GgufValueType::kArray:
      break;
  }
  return uint64_t{0};
}

// Reads the file from its beginning. The first error stops it: what is read afterwards is empty.
class Reader {
 public:
  Reader(absl::Span<const std::byte> file, absl::string_view name) : file_(file), name_(name) {}

  absl::StatusOr<Gguf> Read() {
    Gguf gguf;
    uint64_t num_tensors = 0, num_pairs = 0;
    ReadHeader(gguf, num_tensors, num_pairs);
    std::map<std::string, GgufValue, std::less<>> pairs;
    for (uint64_t i = 0; i < num_pairs && ok(); ++i) ReadPair(pairs);
    gguf.metadata = GgufMetadata(name_, std::move(pairs));
    for (uint64_t i = 0; i < num_tensors && ok(); ++i) ReadInfo(gguf.tensors);
    if (ok()) PlaceData(gguf);
    if (!ok()) return status_;
    return gguf;
  }

 private:
  bool ok() const { return status_.ok(); }
  size_t left() const { return file_.size() - at_; }

  template <typename... Parts>
  void Error(const Parts&... parts) {
    if (ok()) status_ = absl::InvalidArgumentError(absl::StrCat(name_, ": ", subject_, ": ", parts...));
  }

  // The next `bytes` bytes; nullptr, and an error, where the file ends before.
  const std::byte* Take(uint64_t bytes, absl::string_view what) {
    if (!ok()) return nullptr;
    if (bytes > left()) {
      Error("found ", what, " of ", bytes, " bytes at byte ", at_, ", allowed at most the ", left(),
            " left in the file (is it truncated?)");
      return nullptr;
    }
    const std::byte* data = file_.data() + at_;
    at_ += bytes;
    return data;
  }

  template <typename T>
  T Take(absl::string_view what) {
    const std::byte* data = Take(sizeof(T), what);
    return data == nullptr ? T{} : LoadAs<T>(data);
  }

  absl::string_view TakeText(absl::string_view what) {
    const auto length = Take<uint64_t>(what);
    const std::byte* data = Take(length, what);
    return data == nullptr ? absl::string_view() : absl::string_view(reinterpret_cast<const char*>(data), length);
  }

  // A key or a tensor's name, which becomes the subject of errors.
  std::string TakeName(absl::string_view kind) {
    const absl::string_view text = TakeText("a name");
    if (ok() && (text.empty() || text.size() > kMaxNameBytes))
      Error("found a ", kind, " with a name of ", text.size(), " bytes, allowed 1 to ", kMaxNameBytes);
    if (ok()) subject_ = absl::StrCat(kind, " ", Quoted(text));
    return std::string(text.data(), text.size());
  }

  void ReadHeader(Gguf& gguf, uint64_t& num_tensors, uint64_t& num_pairs) {
    const std::byte* magic = Take(4, "the magic");
    if (ok() && std::memcmp(magic, "GGUF", 4) != 0) {
      const absl::string_view found(reinterpret_cast<const char*>(magic), 4);
      Error("found ", Quoted(found), " as first four bytes, allowed \"GGUF\"");
    }
    gguf.version = Take<uint32_t>("the version");
    if (ok() && gguf.version != 2 && gguf.version != 3)
      Error("found version ", gguf.version, ", allowed 2 and 3, little-endian");
    num_tensors = Take<uint64_t>("the number of tensors");
    num_pairs = Take<uint64_t>("the number of metadata pairs");
    // The smallest pair: an empty key, a type, one byte. The smallest info: an empty name, no dimension, type, offset.
    constexpr uint64_t kPairBytes = 13, kInfoBytes = 24;
    if (ok() && num_pairs > left() / kPairBytes)
      Error("found ", num_pairs, " metadata pairs, allowed at most the ", left() / kPairBytes, " that fit the file");
    if (ok() && num_tensors > left() / kInfoBytes)
      Error("found ", num_tensors, " tensors, allowed at most the ", left() / kInfoBytes, " that fit the file");
  }

  void ReadPair(std::map<std::string, GgufValue, std::less<>>& pairs) {
    subject_ = "metadata";
    std::string key = TakeName("key");
    const auto type = Take<uint32_t>("a type");
    if (!ok()) return;
    const auto [pair, is_new] = pairs.try_emplace(std::move(key));
    if (!is_new) return Error("found twice, allowed once");
    pair->second = ReadValue(type);
  }

  GgufValue ReadValue(uint32_t type_number) {
    if (!IsKnown(type_number)) {
      Error("found type ", type_number, ", allowed 0 to ", static_cast<uint32_t>(GgufValueType::kFloat64));
      return {};
    }
    const auto type = static_cast<GgufValueType>(type_number);
    if (type == GgufValueType::kText) return TakeText("a text");
    if (type == GgufValueType::kArray) return ReadArray();
    const std::byte* data = Take(NumberBytes(type), "a number");
    return data == nullptr ? GgufValue() : LoadNumber(type, data);
  }

  GgufValue ReadArray() {
    const auto type_number = Take<uint32_t>("a type");
    GgufArray array;
    array.count = Take<uint64_t>("a length");
    if (!ok()) return {};
    if (!IsKnown(type_number) || type_number == static_cast<uint32_t>(GgufValueType::kArray)) {
      Error("found an array of elements of type ", type_number, ", allowed: numbers, bools and texts");
      return {};
    }
    array.type = static_cast<GgufValueType>(type_number);
    const bool is_texts = array.type == GgufValueType::kText;
    const uint64_t element_bytes = is_texts ? sizeof(uint64_t) : NumberBytes(array.type);  // at least
    if (array.count > left() / element_bytes) {
      Error("found an array of ", array.count, " elements, allowed at most the ", left() / element_bytes,
            " that fit the file (is it truncated?)");
      return {};
    }
    if (!is_texts) {
      array.numbers = Take(array.count * element_bytes, "an array");
      return array;
    }
    array.texts.reserve(array.count);
    for (uint64_t i = 0; i < array.count && ok(); ++i) array.texts.push_back(TakeText("a text of an array"));
    return array;
  }

  void ReadInfo(std::vector<GgufTensor>& tensors) {
    subject_ = "tensors";
    GgufTensor& tensor = tensors.emplace_back();
    tensor.name = TakeName("tensor");
    if (ok() && !names_.insert(tensor.name).second) return Error("found twice, allowed once");
    const auto num_dims = Take<uint32_t>("a number of dimensions");
    if (num_dims < 1 || num_dims > kMaxDims) return Error("found ", num_dims, " dimensions, allowed 1 to ", kMaxDims);
    tensor.shape.resize(num_dims);
    for (uint32_t d = 0; d < num_dims; ++d) {
      const auto dim = Take<uint64_t>("a dimension");
      if (dim < 1 || dim > uint64_t{INT64_MAX}) return Error("found a dimension of ", dim, ", allowed 1 to 2^63 - 1");
      tensor.shape[num_dims - 1 - d] = static_cast<int64_t>(dim);
    }
    const auto type = Take<uint32_t>("a type");
    offsets_.push_back(Take<uint64_t>("an offset"));
    if (!ok()) return;
    tensor.type = FindGgmlType(type);
    if (tensor.type == nullptr) return Error("found type ", type, ", allowed: the types of ggml that quire knows");
    SetBytes(tensor);
  }

  void SetBytes(GgufTensor& tensor) {
    const auto cols = static_cast<uint64_t>(tensor.shape.back());
    if (cols % tensor.type->block_len != 0) {
      return Error("found rows of ", cols, " elements of type ", tensor.type->name, ", allowed: multiples of ",
                   tensor.type->block_len);
    }
    uint64_t bytes = cols / tensor.type->block_len;
    bool overflows = __builtin_mul_overflow(bytes, tensor.type->block_bytes, &bytes);
    for (size_t d = 0; d + 1 < tensor.shape.size(); ++d)
      overflows |= __builtin_mul_overflow(bytes, static_cast<uint64_t>(tensor.shape[d]), &bytes);
    if (overflows || bytes > file_.size()) {
      return Error("found a shape of ", overflows ? "more than 2^64" : absl::StrCat(bytes),
                   " bytes, allowed at most the file's ", file_.size(), " (is it truncated?)");
    }
    tensor.bytes = bytes;
  }

  void PlaceData(Gguf& gguf) {
    if (gguf.tensors.empty()) return;
    const uint64_t alignment = Alignment(gguf.metadata);
    if (!ok()) return;
    const auto align = [&](uint64_t n) { return (n + alignment - 1) / alignment * alignment; };
    const uint64_t begin = align(at_);
    uint64_t next = 0;  // in the data; no overflow: each tensor is checked to end within the file
    for (size_t i = 0; i < gguf.tensors.size() && ok(); ++i) {
      GgufTensor& tensor = gguf.tensors[i];
      subject_ = absl::StrCat("tensor ", Quoted(tensor.name));
      if (offsets_[i] != next) {
        return Error("found offset ", offsets_[i], ", allowed ", next,
                     offsets_[i] < next ? " (it overlaps the tensor before)" : " (there is a hole before it)");
      }
      if (begin + next > file_.size() || tensor.bytes > file_.size() - begin - next) {
        return Error("found ", tensor.bytes, " bytes from byte ", begin + next,
                     " on, allowed at most up to the file's ", file_.size(), " bytes (is it truncated?)");
      }
      tensor.data = file_.data() + begin + next;
      next = align(next + tensor.bytes);
    }
    if (file_.size() > begin + next)
      Error("found ", file_.size() - begin - next, " bytes after the last tensor, allowed 0");
  }

  uint64_t Alignment(const GgufMetadata& metadata) {
    if (!metadata.Has("general.alignment")) return kDefaultAlignment;
    const absl::StatusOr<int64_t> value = metadata.Integer("general.alignment", kMinAlignment, kMaxAlignment);
    if (!value.ok()) {
      status_ = value.status();
      return 0;
    }
    subject_ = "key \"general.alignment\"";
    if ((*value & (*value - 1)) != 0) Error("found ", *value, ", allowed: powers of two");
    return static_cast<uint64_t>(*value);
  }

  const absl::Span<const std::byte> file_;
  const std::string name_;
  size_t at_ = 0;
  std::string subject_ = "header";
  absl::Status status_;
  std::set<std::string> names_;    // of tensors
  std::vector<uint64_t> offsets_;  // of tensors in the data
};

// A value by kind and, where it is short, in full.
std::string Shown(const GgufValue& value) {
  if (const auto* number = std::get_if<uint64_t>(&value)) return absl::StrCat(*number);
  if (const auto* number = std::get_if<int64_t>(&value)) return absl::StrCat(*number);
  if (const auto* number = std::get_if<double>(&value)) return absl::StrCat(*number);
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* text = std::get_if<absl::string_view>(&value)) return Quoted(*text);
  const auto& array = std::get<GgufArray>(value);
  return absl::StrCat("an array of ", array.count, array.type == GgufValueType::kText ? " texts" : " numbers");
}

absl::Status WrongValue(const std::string& file, absl::string_view key, absl::string_view found,
                        absl::string_view allowed) {
  return absl::InvalidArgumentError(
      absl::StrCat(file, ": key ", Quoted(key), ": found ", found, ", allowed: ", allowed));
}

// The value of `key`; NOT_FOUND.
absl::StatusOr<const GgufValue*> Find(const GgufMetadata& metadata, absl::string_view key) {
  const auto pair = metadata.pairs().find(key);
  if (pair == metadata.pairs().end())
    return absl::NotFoundError(absl::StrCat(metadata.file(), ": key ", Quoted(key), ": found none"));
  return &pair->second;
}

// The value of `key` as a T, which messages call `kind`.
template <typename T>
absl::StatusOr<const T*> FindAs(const GgufMetadata& metadata, absl::string_view key, absl::string_view kind) {
  const absl::StatusOr<const GgufValue*> value = Find(metadata, key);
  if (!value.ok()) return value.status();
  if (const T* typed = std::get_if<T>(*value)) return typed;
  return WrongValue(metadata.file(), key, Shown(**value), kind);
}

// An integer, or a bool as 0 or 1 where `or_bool`; nullopt for what is neither or outside of [min, max].
std::optional<int64_t> AsInteger(const GgufValue& value, bool or_bool, int64_t min, int64_t max) {
  std::optional<int64_t> number;
  if (const auto* u = std::get_if<uint64_t>(&value)) {
    if (*u <= uint64_t{INT64_MAX}) number = static_cast<int64_t>(*u);
  } else if (const auto* i = std::get_if<int64_t>(&value)) {
    number = *i;
  } else if (const auto* b = std::get_if<bool>(&value); b != nullptr && or_bool) {
    number = *b;
  }
  return number.has_value() && *number >= min && *number <= max ? number : std::nullopt;
}

std::optional<double> AsNumber(const GgufValue& value) {
  if (const auto* u = std::get_if<uint64_t>(&value)) return static_cast<double>(*u);
  if (const auto* i = std::get_if<int64_t>(&value)) return static_cast<double>(*i);
  const auto* d = std::get_if<double>(&value);
  return d != nullptr && std::isfinite(*d) ? std::optional(*d) : std::nullopt;
}

GgufValue Element(const GgufArray& array, uint64_t i) {
  return LoadNumber(array.type, array.numbers + i * NumberBytes(array.type));
}

std::string RangeText(int64_t min, int64_t max) { return absl::StrCat("an integer from ", min, " to ", max); }

}  // namespace

const GgmlTypeInfo* FindGgmlType(uint32_t number) {
  const auto* const info = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const GgmlTypeInfo& type) {
    return static_cast<uint32_t>(type.type) == number;
  });
  return info == std::end(kTypes) ? nullptr : info;
}

absl::StatusOr<int64_t> GgufMetadata::Integer(absl::string_view key, int64_t min, int64_t max) const {
  const absl::StatusOr<const GgufValue*> value = Find(*this, key);
  if (!value.ok()) return value.status();
  const std::optional<int64_t> number = AsInteger(**value, /*or_bool=*/false, min, max);
  if (number.has_value()) return *number;
  return WrongValue(file_, key, Shown(**value), RangeText(min, max));
}

absl::StatusOr<double> GgufMetadata::Number(absl::string_view key) const {
  const absl::StatusOr<const GgufValue*> value = Find(*this, key);
  if (!value.ok()) return value.status();
  const std::optional<double> number = AsNumber(**value);
  if (number.has_value()) return *number;
  return WrongValue(file_, key, Shown(**value), "a finite number");
}

absl::StatusOr<bool> GgufMetadata::Bool(absl::string_view key) const {
  const absl::StatusOr<const bool*> value = FindAs<bool>(*this, key, "a bool");
  if (!value.ok()) return value.status();
  return **value;
}

absl::StatusOr<absl::string_view> GgufMetadata::Text(absl::string_view key) const {
  const absl::StatusOr<const absl::string_view*> value = FindAs<absl::string_view>(*this, key, "a text");
  if (!value.ok()) return value.status();
  return **value;
}

absl::StatusOr<absl::Span<const absl::string_view>> GgufMetadata::Texts(absl::string_view key) const {
  const absl::StatusOr<const GgufArray*> array = FindAs<GgufArray>(*this, key, "an array of texts");
  if (!array.ok()) return array.status();
  if ((*array)->type != GgufValueType::kText && (*array)->count > 0)
    return WrongValue(file_, key, Shown(**array), "an array of texts");
  return absl::MakeConstSpan((*array)->texts);
}

absl::StatusOr<std::vector<int64_t>> GgufMetadata::Integers(absl::string_view key, int64_t min, int64_t max) const {
  const absl::StatusOr<const GgufArray*> array = FindAs<GgufArray>(*this, key, "an array of integers");
  if (!array.ok()) return array.status();
  if ((*array)->type == GgufValueType::kText) return WrongValue(file_, key, Shown(**array), "an array of integers");
  std::vector<int64_t> numbers((*array)->count);
  for (uint64_t i = 0; i < numbers.size(); ++i) {
    const GgufValue element = Element(**array, i);
    const std::optional<int64_t> number = AsInteger(element, /*or_bool=*/true, min, max);
    if (!number.has_value()) {
      return WrongValue(file_, key, absl::StrCat(Shown(element), " at index ", i), RangeText(min, max));
    }
    numbers[i] = *number;
  }
  return numbers;
}

absl::StatusOr<std::vector<float>> GgufMetadata::Numbers(absl::string_view key) const {
  const absl::StatusOr<const GgufArray*> array = FindAs<GgufArray>(*this, key, "an array of numbers");
  if (!array.ok()) return array.status();
  if ((*array)->type == GgufValueType::kText) return WrongValue(file_, key, Shown(**array), "an array of numbers");
  std::vector<float> numbers((*array)->count);
  for (uint64_t i = 0; i < numbers.size(); ++i) {
    const GgufValue element = Element(**array, i);
    const std::optional<double> number = AsNumber(element);
    numbers[i] = static_cast<float>(number.value_or(0));
    if (!number.has_value() || !std::isfinite(numbers[i]))
      return WrongValue(file_, key, absl::StrCat(Shown(element), " at index ", i), "finite numbers");
  }
  return numbers;
}

absl::StatusOr<Gguf> ParseGguf(absl::Span<const std::byte> file, absl::string_view name) {
  return Reader(file, name).Read();
}

}  // namespace quire
