// Every #include follows an arrow of ARCHITECTURE.md §1 (further right is allowed, never left), and every room uses
// only its packages. The table below is the rule; this test reads the sources and names file and line of what breaks
// it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace quire {
namespace {

struct Room {
  std::string_view name;
  std::vector<std::string_view> rooms;     // that it may include, beside itself
  std::vector<std::string_view> packages;  // that it may include
  size_t min_files;                        // a check that saw fewer has looked in the wrong place
};

//    ┌───────┐  ┌────────┐  ┌────────┐  ┌───────────┐  ┌─────────┐  ┌─────────┐
//    │ proto │◄─│ server │─►│ engine │─►│ scheduler │─►│ kvcache │─►│ kernels │
//    └───────┘  └────────┘  └────────┘  └───────────┘  └─────────┘  └─────────┘
//        ▲
//        └────── client
const std::vector<Room> kRooms = {
    {"proto", {}, {"protobuf", "grpc"}, 0},  // its C++ is generated
    {"kernels", {}, {"absl", "cuda"}, 40},
    {"kvcache", {"kernels"}, {"absl", "openssl"}, 9},
    {"scheduler", {"kvcache", "kernels"}, {"absl"}, 7},
    {"engine", {"scheduler", "kvcache", "kernels"}, {"absl", "spdlog", "json"}, 15},
    {"server",
     {"engine", "scheduler", "kvcache", "kernels", "proto"},
     {"absl", "spdlog", "grpc", "protobuf", "json", "openssl", "sentencepiece", "toml", "http", "zip", "curl"},
     30},
    {"client", {"proto"}, {"absl", "grpc", "protobuf", "json", "flags", "curl"}, 20},
};

// How an included path begins -> the room that it is of. Generated headers are included by their path below proto/.
const std::map<std::string_view, std::string_view> kRoomOfPrefix = {
    {"proto/", "proto"},     {"quire/", "proto"},         {"google/rpc/", "proto"}, {"kernels/", "kernels"},
    {"kvcache/", "kvcache"}, {"scheduler/", "scheduler"}, {"engine/", "engine"},    {"server/", "server"},
    {"client/", "client"},   {"tests/", "tests"},         {"vllm/", "proto"},       {"smg/", "proto"},
};

const std::map<std::string_view, std::string_view> kPackageOfPrefix = {
    {"absl/", "absl"},
    {"openssl/", "openssl"},
    {"spdlog/", "spdlog"},
    {"nlohmann/", "json"},
    {"grpc/", "grpc"},
    {"grpcpp/", "grpc"},
    {"google/protobuf/", "protobuf"},
    {"sentencepiece", "sentencepiece"},
    {"CLI/", "flags"},
    {"toml++/", "toml"},
    {"microhttpd.h", "http"},
    {"zip.h", "zip"},
    {"curl/", "curl"},
    {"cuda", "cuda"},
    {"cublas", "cuda"},
    {"nccl.h", "cuda"},
    {"mma.h", "cuda"},
};

// Headers of the system and the compiler that every room may include; those of the C++ library have neither '/' nor
// '.'.
const std::vector<std::string_view> kSystemPrefixes = {"sys/", "linux/", "asm/", "net/", "netinet/", "arpa/"};
const std::set<std::string_view> kSystemHeaders = {
    "cpuid.h", "dirent.h", "errno.h",  "fcntl.h", "immintrin.h", "netdb.h",  "poll.h",    "pthread.h", "pwd.h",
    "sched.h", "signal.h", "stdint.h", "stdio.h", "stdlib.h",    "string.h", "termios.h", "unistd.h",  "time.h",
};

struct Include {
  int line;
  std::string path;
};

std::vector<Include> IncludesOf(std::istream& source) {
  std::vector<Include> includes;
  std::string line;
  for (int number = 1; std::getline(source, line); ++number) {
    size_t at = line.find_first_not_of(" \t");
    if (at == std::string::npos || line[at] != '#') continue;
    at = line.find_first_not_of(" \t", at + 1);
    if (at == std::string::npos || line.compare(at, 7, "include") != 0) continue;
    const size_t begin = line.find_first_of("<\"", at + 7);
    const size_t end = begin == std::string::npos ? begin : line.find_first_of(">\"", begin + 1);
    includes.push_back({number, end == std::string::npos ? "" : line.substr(begin + 1, end - begin - 1)});
  }
  return includes;
}

bool Has(const std::vector<std::string_view>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// What a prefix of `path` stands for in `table`.
std::optional<std::string_view> FindPrefix(const std::map<std::string_view, std::string_view>& table,
                                           std::string_view path) {
  for (const auto& [prefix, name] : table) {
    if (path.starts_with(prefix)) return name;
  }
  return std::nullopt;
}

bool IsSystemHeader(std::string_view path) {
  for (const std::string_view prefix : kSystemPrefixes) {
    if (path.starts_with(prefix)) return true;
  }
  return kSystemHeaders.contains(path) || path.find_first_of("/.") == std::string_view::npos;
}

// All that includes CUDA: kernels are written against kernels/cuda/thread.cuh, so that they can be emulated.
constexpr std::string_view kCudaFiles[] = {"kernels/cuda/thread.cuh", "kernels/cuda/cuda_device.cuh",
                                           "kernels/linear/cublas_lt.cuh", "kernels/backend_cuda.cu"};

// Why a file of `room` may not include `path`; nothing if it may.
std::optional<std::string> Objection(const Room& room, const std::string& file, const std::string& path) {
  if (const auto target = FindPrefix(kRoomOfPrefix, path)) {
    if (*target == room.name || Has(room.rooms, *target)) return std::nullopt;
    return std::string(room.name) + " must not know " + std::string(*target);
  }
  if (const auto package = FindPrefix(kPackageOfPrefix, path)) {
    if (!Has(room.packages, *package)) return std::string(room.name) + " must not use " + std::string(*package);
    const auto is_file = [&](std::string_view name) { return file.ends_with(name); };
    if (*package == "cuda" && std::none_of(std::begin(kCudaFiles), std::end(kCudaFiles), is_file))
      return "CUDA is for kernels/cuda/thread.cuh and what launches kernels";
    return std::nullopt;
  }
  if (!path.empty() && IsSystemHeader(path)) return std::nullopt;
  return "neither a path from the repository root nor a package of the table";
}

// The objections to the includes of one file, as "file:line: #include path: why".
std::vector<std::string> ObjectionsTo(const Room& room, const std::string& file, std::istream& source) {
  std::vector<std::string> objections;
  for (const Include& include : IncludesOf(source)) {
    if (const auto why = Objection(room, file, include.path)) {
      objections.push_back(file + ":" + std::to_string(include.line) + ": #include " + include.path + ": " + *why);
    }
  }
  return objections;
}

const Room& RoomNamed(std::string_view name) {
  for (const Room& room : kRooms) {
    if (room.name == name) return room;
  }
  throw std::invalid_argument(std::string(name));
}

bool IsSource(const std::filesystem::path& path) {
  static const std::set<std::string> kExtensions = {".h", ".hpp", ".cc", ".cpp", ".c", ".cu", ".cuh", ".inc"};
  return kExtensions.contains(path.extension().string());
}

// The objections to a planted file.
std::vector<std::string> Planted(std::string_view room, const std::string& source,
                                 const std::string& file = "planted.cc") {
  std::istringstream stream(source);
  return ObjectionsTo(RoomNamed(room), file, stream);
}

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Layering, EveryIncludeFollowsAnArrow) {
  const std::filesystem::path root = QUIRE_SOURCE_DIR;
  for (const Room& room : kRooms) {
    size_t num_files = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / room.name)) {
      if (!entry.is_regular_file() || !IsSource(entry.path())) continue;
      ++num_files;
      std::ifstream source(entry.path());
      ASSERT_TRUE(source.is_open()) << entry.path();
      for (const std::string& objection : ObjectionsTo(room, entry.path().lexically_relative(root).string(), source)) {
        ADD_FAILURE() << objection;
      }
    }
    EXPECT_GE(num_files, room.min_files) << "in " << room.name;
  }
}

TEST(Layering, ThereIsNoRoomThatTheTableDoesNotKnow) {
  const std::set<std::string_view> others = {"build", "cmake", "deploy", "tests"};
  for (const auto& entry : std::filesystem::directory_iterator(QUIRE_SOURCE_DIR)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_directory() || name.starts_with(".") || others.contains(name)) continue;
    if (std::filesystem::exists(entry.path() / "CMakeCache.txt")) continue;  // somebody's build
    bool has_source = false;
    for (const auto& file : std::filesystem::recursive_directory_iterator(entry.path()))
      has_source |= IsSource(file.path());
    const bool is_room = std::any_of(kRooms.begin(), kRooms.end(), [&](const Room& room) { return room.name == name; });
    EXPECT_TRUE(is_room || !has_source) << name << " has sources and is not in the table";
  }
}

TEST(LayeringChecker, NamesFileAndLineOfAPlantedInclude) {
  EXPECT_THAT(Planted("kvcache", "// x\n#include <vector>\n#include \"scheduler/request.h\"\n"),
              ElementsAre("planted.cc:3: #include scheduler/request.h: kvcache must not know scheduler"));
}

TEST(LayeringChecker, AllowsItselfAndEverythingFurtherRight) {
  EXPECT_THAT(Planted("scheduler", "#include \"scheduler/a.h\"\n#include \"kvcache/b.h\"\n#include \"kernels/c.h\"\n"),
              IsEmpty());
  EXPECT_THAT(Planted("server", "#include \"kernels/a.h\"\n#include \"quire/v1/generation.pb.h\"\n"), IsEmpty());
  EXPECT_THAT(Planted("client", "#include \"google/rpc/status.pb.h\"\n"), IsEmpty());
}

TEST(LayeringChecker, ObjectsToEveryRoomFurtherLeft) {
  const std::vector<std::string> order = {"kernels", "kvcache", "scheduler", "engine", "server"};
  for (size_t right = 0; right < order.size(); ++right) {
    for (size_t left = right + 1; left < order.size(); ++left) {
      EXPECT_EQ(Planted(order[right], "#include \"" + order[left] + "/x.h\"\n").size(), 1u)
          << order[right] << " <- " << order[left];
    }
    EXPECT_EQ(Planted(order[right], "#include \"client/x.h\"\n").size(), 1u);
    EXPECT_EQ(Planted(order[right], "#include \"tests/x.h\"\n").size(), 1u);
    EXPECT_EQ(Planted("client", "#include \"" + order[right] + "/x.h\"\n").size(), 1u);
    EXPECT_EQ(Planted("proto", "#include \"" + order[right] + "/x.h\"\n").size(), 1u);
    const size_t num_objections = order[right] == "server" ? 0 : 1;
    EXPECT_EQ(Planted(order[right], "#include \"quire/v1/model.pb.h\"\n").size(), num_objections) << order[right];
  }
}

TEST(LayeringChecker, HoldsThePackagesColumn) {
  EXPECT_THAT(Planted("scheduler",
                      "#include <spdlog/spdlog.h>\n#include <nlohmann/json.hpp>\n#include <grpcpp/server.h>\n#include "
                      "<openssl/sha.h>\n#include \"absl/time/time.h\"\n"),
              ElementsAre(HasSubstr(":1:"), HasSubstr(":2:"), HasSubstr(":3:"), HasSubstr(":4:")));
  EXPECT_THAT(Planted("kvcache", "#include <openssl/sha.h>\n"), IsEmpty());
  EXPECT_THAT(Planted("engine", "#include <google/protobuf/message.h>\n"),
              ElementsAre(HasSubstr("must not use protobuf")));
  EXPECT_THAT(Planted("kernels", "#include <cuda_runtime.h>\n", "kernels/cuda/thread.cuh"), IsEmpty());
  for (const char* file : {"a.cc", "a.cuh", "a.cu"})
    EXPECT_THAT(Planted("kernels", "#include <cuda_runtime.h>\n", file), ElementsAre(HasSubstr("CUDA is for")));
  EXPECT_THAT(Planted("client", "#include <sqlite3.h>\n"), ElementsAre(HasSubstr("neither")));
}

TEST(LayeringChecker, SeesIncludesHoweverTheyAreWritten) {
  EXPECT_THAT(Planted("kernels",
                      "  #  include <server/a.h>\n#include\"server/b.h\"\n#include \"check.h\"\n#include "
                      "\"../engine/c.h\"\n#include MACRO\n"),
              ElementsAre(HasSubstr(":1:"), HasSubstr(":2:"), HasSubstr(":3:"), HasSubstr(":4:"), HasSubstr(":5:")));
  EXPECT_THAT(Planted("kernels", "#define A\n#if 1\n#endif\n#include <sys/mman.h>\n#include <unistd.h>\n"), IsEmpty());
}

}  // namespace
}  // namespace quire
