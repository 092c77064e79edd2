#include "client/load/save.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"

namespace quire::client {
namespace {

absl::Status WriteFile(const std::filesystem::path& path, const std::string& content, bool append = false) {
  std::ofstream file(path, append ? std::ios::binary | std::ios::app : std::ios::binary);
  file << content << std::flush;
  return file ? absl::OkStatus() : absl::UnavailableError(absl::StrCat("cannot write ", path.string()));
}

absl::Status SaveResult(const LoadOptions& options, const RunResult& run, const Report& report) {
  const std::filesystem::path folder = options.result_dir.empty() ? "." : options.result_dir;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const std::string name = options.result_filename.empty() ? ResultFilename(options, report) : options.result_filename;
  const nlohmann::ordered_json json = ReportJson(options, run, report, options.save_detailed);
  absl::Status saved = WriteFile(
      folder / name, json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n", options.append_result);
  if (saved.ok() && options.save_detailed) {
    saved = WriteFile((folder / name).replace_extension("jsonl"), RequestLines(run));
  }
  return saved;
}

}  // namespace

absl::Status SaveFiles(const LoadOptions& options, const RunResult& run, const Report& report) {
  absl::Status saved;
  if (options.save_result) {
    saved = SaveResult(options, run, report);
  }
  if (saved.ok() && !options.markdown.empty()) {
    saved = WriteFile(options.markdown, ReportMarkdown(options, run, report));
  }
  if (saved.ok() && !options.html.empty()) {
    saved = WriteFile(options.html, ReportHtml(options, run, report));
  }
  return saved;
}

}  // namespace quire::client
