#include "engine/read_ahead.h"

#include <algorithm>
#include <utility>

#include "engine/mapped_file.h"

namespace quire {
namespace {

// What the system reads at once when it is told of more: its usual read-ahead (mm/readahead.c, force_page_cache_ra).
constexpr size_t kPieceBytes = size_t{128} << 10;

}  // namespace

ReadAhead::ReadAhead(std::vector<absl::Span<const std::byte>> regions) : regions_(std::move(regions)) {
  uint64_t sum = 0;
  for (const auto& region : regions_) {
    begins_.push_back(sum);
    sum += region.size();
  }
  thread_ = std::thread([this] { Run(); });
}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  moved_.notify_one();
  thread_.join();
}

void ReadAhead::Reached(size_t index) {
  {
    const std::lock_guard lock(mutex_);
    reached_ = std::max(reached_, begins_[index]);
  }
  moved_.notify_one();
}

void ReadAhead::Run() {
  for (size_t i = 0; i < regions_.size(); ++i) {
    for (size_t at = 0; at < regions_[i].size(); at += kPieceBytes) {
      {
        std::unique_lock lock(mutex_);
        moved_.wait(lock, [&] { return stops_ || begins_[i] + at < reached_ + kWindowBytes; });
        if (stops_) return;
        if (begins_[i] + regions_[i].size() <= reached_) break;  // too late for it
      }
      const absl::Span<const std::byte> piece = regions_[i].subspan(at, kPieceBytes);
      FetchPages(piece.data(), piece.data() + piece.size());
    }
  }
}

}  // namespace quire
