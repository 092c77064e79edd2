#include "client/scrape.h"

#include <curl/curl.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace quire::client {
namespace {

constexpr size_t kMaxBodyBytes = 16 << 20;

// libcurl's write callback; a short return ends the transfer.
size_t Append(char* data, size_t size, size_t count, void* body) {
  auto* text = static_cast<std::string*>(body);
  if (text->size() + size * count > kMaxBodyBytes) {
    return 0;
  }
  text->append(data, size * count);
  return size * count;
}

// Reads `name="value",...}` behind the brace and leaves `text` behind the closing one; false if it is none.
bool ParseLabels(absl::string_view& text, std::map<std::string, std::string>& labels) {
  while (!text.empty() && text.front() != '}') {
    const size_t equals = text.find("=\"");
    if (equals == absl::string_view::npos) {
      return false;
    }
    const absl::string_view name = absl::StripAsciiWhitespace(text.substr(0, equals));
    std::string value;
    size_t at = equals + 2;
    for (; at < text.size() && text[at] != '"'; ++at) {
      if (text[at] == '\\' && at + 1 < text.size()) {
        ++at;
        value += text[at] == 'n' ? '\n' : text[at];
      } else {
        value += text[at];
      }
    }
    labels.emplace(std::string(name), std::move(value));
    text.remove_prefix(std::min(at + 1, text.size()));
    if (!text.empty() && text.front() == ',') {
      text.remove_prefix(1);
    }
  }
  if (text.empty()) {
    return false;
  }
  text.remove_prefix(1);
  return true;
}

bool ParseSample(absl::string_view line, Sample& sample) {
  const size_t name_end = line.find_first_of("{ ");
  if (line.empty() || line.front() == '#' || name_end == absl::string_view::npos) {
    return false;
  }
  sample.name = std::string(line.substr(0, name_end));
  const bool labelled = line[name_end] == '{';
  line.remove_prefix(name_end + 1);
  if (labelled && !ParseLabels(line, sample.labels)) {
    return false;
  }
  const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
  return !words.empty() && absl::SimpleAtod(words[0], &sample.value);  // a timestamp may follow
}

}  // namespace

absl::StatusOr<std::string> HttpGet(const std::string& address, const std::string& path) {
  return HttpGetUrl(absl::StrCat("http://", address, path));
}

absl::StatusOr<std::string> HttpGetUrl(const std::string& url) {
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(), curl_easy_cleanup);
  if (curl == nullptr) {
    return absl::InternalError("libcurl does not start");
  }
  std::string body;
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl.get(), CURLOPT_NOPROXY, "*");
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS, 2000L);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, Append);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &body);
  if (const CURLcode code = curl_easy_perform(curl.get()); code != CURLE_OK) {
    return absl::UnavailableError(absl::StrCat(url, ": ", curl_easy_strerror(code)));
  }
  long http_code = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &http_code);
  if (http_code != 200) {
    return absl::UnavailableError(absl::StrCat(url, ": HTTP ", http_code));
  }
  return body;
}

std::vector<Sample> ParsePrometheus(absl::string_view text) {
  std::vector<Sample> samples;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    Sample sample;
    if (ParseSample(absl::StripAsciiWhitespace(line), sample)) {
      samples.push_back(std::move(sample));
    }
  }
  return samples;
}

std::optional<double> SumOf(const std::vector<Sample>& samples, absl::string_view name,
                            const std::map<std::string, std::string>& labels) {
  std::optional<double> sum;
  for (const Sample& sample : samples) {
    const bool matches = std::all_of(labels.begin(), labels.end(), [&](const auto& label) {
      const auto found = sample.labels.find(label.first);
      return found != sample.labels.end() && found->second == label.second;
    });
    if (sample.name == name && matches) {
      sum = sum.value_or(0) + sample.value;
    }
  }
  return sum;
}

}  // namespace quire::client
