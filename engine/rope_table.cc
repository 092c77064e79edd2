#include "engine/rope_table.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace quire {
namespace {

constexpr double kPi = 3.14159265358979323846;

// theta^(2i / dim)
std::vector<float> Wavelengths(float theta, const RopeConfig& config) {
  std::vector<float> wavelengths(config.NumFrequencies());
  for (int32_t i = 0; i < config.NumFrequencies(); ++i)
    wavelengths[i] = std::pow(theta, static_cast<float>(2 * i) / static_cast<float>(config.dim));
  return wavelengths;
}

// The base of NTK-aware scaling grows with the context: theta (s L / L0 - (s - 1))^(dim / (dim - 2)).
float DynamicTheta(const RopeConfig& config, int32_t max_model_len) {
  const auto theta = static_cast<float>(config.theta);
  if (max_model_len <= config.original_len || config.dim <= 2) return theta;
  const auto factor = static_cast<float>(config.factor);
  const float stretch = factor * static_cast<float>(max_model_len) / static_cast<float>(config.original_len) -
                        static_cast<float>(config.factor - 1);
  const auto exponent = static_cast<float>(double(config.dim) / (config.dim - 2));
  return theta * std::pow(stretch, exponent);
}

// Llama 3.1: frequencies whose wavelength is beyond the original context are divided by the factor, those of short
// wavelengths stay, between the two it goes over smoothly.
void ScaleLlama3(const RopeConfig& config, std::vector<float>& frequencies) {
  const auto original = static_cast<float>(config.original_len), factor = static_cast<float>(config.factor);
  const auto low = static_cast<float>(config.low_freq_factor);
  const auto low_wavelength = static_cast<float>(config.original_len / config.low_freq_factor);
  const auto high_wavelength = static_cast<float>(config.original_len / config.high_freq_factor);
  for (float& frequency : frequencies) {
    const float wavelength = static_cast<float>(2 * kPi) / frequency;
    if (wavelength > low_wavelength) {
      frequency /= factor;
    } else if (wavelength >= high_wavelength) {
      const float smooth =
          (original / wavelength - low) / static_cast<float>(config.high_freq_factor - config.low_freq_factor);
      frequency = (1 - smooth) * frequency / factor + smooth * frequency;
    }
  }
}

// YaRN (Peng et al. 2023, §3.2): the dim whose wavelength makes `rotations` turns within the original context.
double YarnDim(const RopeConfig& config, double rotations) {
  return config.dim * std::log(config.original_len / (rotations * 2 * kPi)) / (2 * std::log(config.theta));
}

// Frequencies of many turns stay, those of few are divided by the factor, a ramp leads from one to the other.
std::vector<float> YarnFrequencies(const RopeConfig& config, const std::vector<float>& wavelengths) {
  double low = YarnDim(config, config.beta_fast), high = YarnDim(config, config.beta_slow);
  if (config.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, config.dim - 1.0);
  if (low == high) high += 0.001;  // as in the reference implementation: no division by 0
  std::vector<float> frequencies(wavelengths.size());
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float ramp = (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float kept = 1 - std::clamp(ramp, 0.0f, 1.0f);
    frequencies[i] =
        1.0f / (static_cast<float>(config.factor) * wavelengths[i]) * (1 - kept) + 1.0f / wavelengths[i] * kept;
  }
  return frequencies;
}

}  // namespace

std::vector<float> RopeInverseFrequencies(const RopeConfig& config, int32_t max_model_len) {
  const float theta =
      config.kind == RopeKind::kDynamic ? DynamicTheta(config, max_model_len) : static_cast<float>(config.theta);
  const std::vector<float> wavelengths = Wavelengths(theta, config);
  if (config.kind == RopeKind::kYarn) return YarnFrequencies(config, wavelengths);
  const bool is_long = max_model_len > config.original_len;
  std::vector<float> frequencies(wavelengths.size());
  for (size_t i = 0; i < frequencies.size(); ++i) {
    float wavelength = wavelengths[i];
    if (config.kind == RopeKind::kLongRope)
      wavelength *= static_cast<float>((is_long ? config.long_factor : config.short_factor)[i]);
    frequencies[i] = 1.0f / wavelength;
    if (config.kind == RopeKind::kLinear) frequencies[i] /= static_cast<float>(config.factor);
  }
  if (config.kind == RopeKind::kLlama3) ScaleLlama3(config, frequencies);
  return frequencies;
}

absl::StatusOr<RopeTable> RopeTable::Create(const RopeConfig& config, int32_t max_model_len, Backend& backend) {
  absl::StatusOr<Buffer> values = backend.Allocate(Bytes(config, max_model_len));
  if (!values.ok()) return values.status();
  RopeTable table;
  table.values_ = *std::move(values);
  table.num_values_ = int64_t{max_model_len} * config.NumFrequencies();
  table.rotary_dim_ = config.rotary_dim();
  table.pairing_ = config.interleaved ? RopePairing::kInterleaved : RopePairing::kHalves;
  std::vector<float> host(2 * table.num_values_);
  float* cos = host.data();
  float* sin = cos + table.num_values_;
  const std::vector<float> frequencies = RopeInverseFrequencies(config, max_model_len);
  const auto attention = static_cast<float>(config.attention_factor);
  for (int32_t position = 0; position < max_model_len; ++position) {
    for (const float frequency : frequencies) {
      const float angle = static_cast<float>(position) * frequency;
      *cos++ = std::cos(angle) * attention;
      *sin++ = std::sin(angle) * attention;
    }
  }
  if (absl::Status status = backend.CopyToDevice(table.values_.data(), host.data(), host.size() * sizeof(float));
      !status.ok())
    return status;
  return table;
}

}  // namespace quire
