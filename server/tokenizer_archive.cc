#include "server/tokenizer_archive.h"

#include <openssl/sha.h>
#include <zip.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace quire {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{256} << 20;

constexpr const char* kFiles[] = {"tokenizer.json",
                                  "tokenizer.model",
                                  "tokenizer_config.json",
                                  "special_tokens_map.json",
                                  "added_tokens.json",
                                  "vocab.json",
                                  "merges.txt",
                                  "tiktoken.model",
                                  "config.json",
                                  "generation_config.json",
                                  "chat_template.json",
                                  "chat_template.jinja",
                                  "preprocessor_config.json"};

struct File {
  std::string name;
  std::string bytes;
};

absl::StatusOr<std::vector<File>> ReadFiles(const std::filesystem::path& directory) {
  std::vector<File> files;
  uint64_t total = 0;
  bool has_tokenizer = false;
  for (const char* name : kFiles) {
    std::error_code error;
    const uint64_t size = std::filesystem::file_size(directory / name, error);
    if (error) continue;
    total += size;
    if (total > kMaxBytes) return absl::ResourceExhaustedError("the tokenizer's files are too large to send");
    std::ifstream stream(directory / name, std::ios::binary);
    std::ostringstream bytes;
    bytes << stream.rdbuf();
    const absl::string_view n = name;
    has_tokenizer = has_tokenizer || n == "tokenizer.json" || n == "tokenizer.model" || n == "vocab.json";
    files.push_back({name, std::move(bytes).str()});
  }
  if (!has_tokenizer) return absl::NotFoundError("the model has no tokenizer files of its own");
  return files;
}

struct Discard {
  void operator()(zip_t* archive) const { zip_discard(archive); }
  void operator()(zip_source_t* source) const { zip_source_free(source); }
};

std::string ReadAll(zip_source_t* source) {
  std::string bytes;
  zip_stat_t stat;
  if (zip_source_stat(source, &stat) != 0 || zip_source_open(source) != 0) return bytes;
  bytes.resize(stat.size);
  const zip_int64_t got = zip_source_read(source, bytes.data(), bytes.size());
  bytes.resize(got < 0 ? 0 : static_cast<size_t>(got));
  zip_source_close(source);
  return bytes;
}

// `files` must live until it returns.
absl::StatusOr<std::string> Zip(const std::vector<File>& files) {
  const absl::Status failed = absl::InternalError("the archive of the tokenizer cannot be made");
  zip_error_t error;
  const std::unique_ptr<zip_source_t, Discard> out(zip_source_buffer_create(nullptr, 0, 0, &error));
  if (out == nullptr) return failed;
  zip_source_keep(out.get());  // zip_close releases it once
  std::unique_ptr<zip_t, Discard> archive(zip_open_from_source(out.get(), ZIP_TRUNCATE, &error));
  if (archive == nullptr) {
    zip_source_free(out.get());
    return failed;
  }
  for (const File& file : files) {
    zip_source_t* source = zip_source_buffer(archive.get(), file.bytes.data(), file.bytes.size(), 0);
    const zip_int64_t index = source == nullptr ? -1 : zip_file_add(archive.get(), file.name.c_str(), source, 0);
    if (index < 0) {
      if (source != nullptr) zip_source_free(source);
      return failed;
    }
    zip_file_set_mtime(archive.get(), static_cast<zip_uint64_t>(index), 0, 0);  // the same files, the same bytes
  }
  if (zip_close(archive.get()) != 0) return failed;
  archive.release();
  return ReadAll(out.get());
}

}  // namespace

absl::StatusOr<TokenizerArchive> MakeTokenizerArchive(const std::string& directory) {
  const absl::StatusOr<std::vector<File>> files = ReadFiles(directory);
  if (!files.ok()) return files.status();
  absl::StatusOr<std::string> bytes = Zip(*files);
  if (!bytes.ok()) return bytes.status();
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes->data()), bytes->size(), digest);
  return TokenizerArchive{*std::move(bytes),
                          absl::BytesToHexString({reinterpret_cast<const char*>(digest), sizeof digest})};
}

}  // namespace quire
