// A server of quire.v1 and of OpenAI completions that computes nothing: every stream gets a token every so many
// milliseconds. It loads the load client, whose own cost is what is measured then.
//
//   quire_paced_server [GRPC_PORT] [HTTP_PORT] [TOKENS_PER_SECOND]      (50061 8061 50; port 0: a free one)
//
// When ready it says so and where. GET /metrics on the HTTP port has gauges as vLLM's, of a fixed value.

#include <arpa/inet.h>
#include <grpcpp/grpcpp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "quire/v1/generation.grpc.pb.h"
#include "quire/v1/model.grpc.pb.h"

namespace quire {
namespace {

using Clock = std::chrono::steady_clock;

// Whatever gets a token at each beat.
class Paced {
 public:
  virtual ~Paced() = default;
  virtual void Beat() = 0;
};

// Beats each of its members once in a period, a millisecond's share of them at a time: streams do not tick together.
class Pacer {
 public:
  explicit Pacer(int period_ms) : slots_(period_ms) {
    thread_ = std::thread([this] { Run(); });
  }

  void Join(Paced* paced) {
    std::lock_guard<std::mutex> lock(mutex_);
    slot_of_[paced] = now_;
    slots_[now_].insert(paced);  // its first beat is a whole period away
  }

  void Leave(Paced* paced) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (const auto found = slot_of_.find(paced); found != slot_of_.end()) {
      slots_[found->second].erase(paced);
      slot_of_.erase(found);
    }
  }

 private:
  void Run() {
    auto next = Clock::now();
    while (true) {
      std::this_thread::sleep_until(next += std::chrono::milliseconds(1));
      std::lock_guard<std::mutex> lock(mutex_);
      now_ = (now_ + 1) % slots_.size();
      for (Paced* paced : slots_[now_]) {
        paced->Beat();
      }
    }
  }

  std::mutex mutex_;
  size_t now_ = 0;                       // guarded by mutex_
  std::vector<std::set<Paced*>> slots_;  // guarded by mutex_
  std::map<Paced*, size_t> slot_of_;     // guarded by mutex_
  std::thread thread_;
};

class GrpcStream final : public grpc::ServerWriteReactor<v1::GenerateResponse>, public Paced {
 public:
  GrpcStream(Pacer& pacer, uint32_t prompt_tokens, uint32_t max_tokens)
      : pacer_(pacer), prompt_tokens_(prompt_tokens), max_tokens_(max_tokens) {
    response_.mutable_accepted()->set_prompt_tokens(prompt_tokens);
    StartWrite(&response_);
    pacer_.Join(this);
  }

  void Beat() override {
    std::lock_guard<std::mutex> lock(mutex_);
    ++due_;
    if (!writing_) {
      WriteNext();
    }
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard<std::mutex> lock(mutex_);
    writing_ = false;
    if (finished_ || !ok) {
      Finish(grpc::Status::OK);
    } else if (due_ > 0) {
      WriteNext();
    }
  }

  void OnDone() override {
    pacer_.Leave(this);
    delete this;
  }

 private:
  void WriteNext() {
    if (finished_) {
      return;
    }
    if (sent_ == max_tokens_) {
      finished_ = true;
      v1::Finished* finished = response_.mutable_finished();
      finished->set_reason(v1::FINISH_REASON_LENGTH);
      finished->mutable_usage()->set_prompt_tokens(prompt_tokens_);
      finished->mutable_usage()->set_completion_tokens(sent_);
    } else {
      v1::Delta* delta = response_.mutable_delta();
      delta->Clear();
      delta->set_text(" word");
      for (; due_ > 0 && sent_ < max_tokens_; --due_) {  // what waited comes in one message, as from any server
        delta->add_token_ids(++sent_);
      }
    }
    writing_ = true;
    StartWrite(&response_);
  }

  Pacer& pacer_;
  const uint32_t prompt_tokens_, max_tokens_;
  std::mutex mutex_;
  v1::GenerateResponse response_;
  uint32_t sent_ = 0, due_ = 0;  // guarded by mutex_, as all below
  bool writing_ = true;
  bool finished_ = false;
};

class Generation final : public v1::GenerationService::CallbackService {
 public:
  explicit Generation(Pacer& pacer) : pacer_(pacer) {}
  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext*,
                                                           const v1::GenerateRequest* request) override {
    return new GrpcStream(pacer_, request->tokens().ids_size(), request->stopping().max_tokens());
  }

 private:
  Pacer& pacer_;
};

class Model final : public v1::ModelService::Service {
  grpc::Status GetModel(grpc::ServerContext*, const v1::GetModelRequest*, v1::GetModelResponse* response) override {
    response->set_name("paced");
    response->set_vocab_size(32000);
    return grpc::Status::OK;
  }
};

// One connection of HTTP/1.1; requests come one after the other, as a client without pipelining sends them.
class HttpConnection final : public Paced {
 public:
  HttpConnection(Pacer& pacer, int fd) : pacer_(pacer), fd_(fd) {}
  ~HttpConnection() override {
    pacer_.Leave(this);
    close(fd_);
  }

  // False: the client is gone.
  bool Read() {
    char piece[16384];
    const ssize_t got = recv(fd_, piece, sizeof piece, MSG_DONTWAIT);
    if (got <= 0) {
      return got < 0 && errno == EAGAIN;
    }
    bytes_.append(piece, static_cast<size_t>(got));
    const size_t head_end = bytes_.find("\r\n\r\n");
    if (head_end == std::string::npos) {
      return true;
    }
    const size_t length_at = bytes_.find("Content-Length: ");
    const size_t length = length_at < head_end ? std::strtoul(&bytes_[length_at + 16], nullptr, 10) : 0;
    if (bytes_.size() < head_end + 4 + length) {
      return true;
    }
    Answer();
    bytes_.erase(0, head_end + 4 + length);
    return true;
  }

  void Beat() override {
    static constexpr char kChunk[] =
        "data: {\"id\":\"cmpl-0123456789abcdef0123456789abcdef\",\"object\":\"text_completion\",\"created\":1700000000,"
        "\"model\":\"paced\",\"choices\":[{\"index\":0,\"text\":\" word\",\"logprobs\":null,\"finish_reason\":null,"
        "\"stop_reason\":null}],\"usage\":null}\n\n";
    if (idle_) {
      return;
    }
    if (sent_ < max_tokens_) {
      ++sent_;
      SendChunk(kChunk);
      return;
    }
    SendChunk("data: {\"choices\":[{\"index\":0,\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n");
    SendChunk("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":" + std::to_string(sent_) +
              "}}\n\ndata: [DONE]\n\n");
    Send("0\r\n\r\n");
    idle_ = true;
  }

 private:
  void Answer() {
    if (bytes_.compare(0, 4, "GET ") == 0) {
      const std::string body =
          bytes_.compare(0, 12, "GET /metrics") == 0
              ? "vllm:num_requests_running 3\nvllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc 0.5\n"
              : "{\"data\":[{\"id\":\"paced\",\"meta\":{\"n_vocab\":32000}}]}";
      Send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n\r\n" + body);
      return;
    }
    const size_t at = bytes_.find("\"max_tokens\":");
    pacer_.Leave(this);  // from here on no beat looks at it
    sent_ = 0;
    max_tokens_ = at == std::string::npos ? 16 : std::strtoul(&bytes_[at + 13], nullptr, 10);
    idle_ = false;
    Send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    pacer_.Join(this);
  }

  void SendChunk(const std::string& data) {
    char size[16];
    std::snprintf(size, sizeof size, "%zx\r\n", data.size());
    Send(size + data + "\r\n");
  }

  void Send(const std::string& bytes) { (void)!send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }

  Pacer& pacer_;
  const int fd_;
  std::string bytes_;
  uint32_t sent_ = 0, max_tokens_ = 0;
  bool idle_ = true;
};

int Listen(int port) {
  const int listen_fd = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (bind(listen_fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || listen(listen_fd, 4096) != 0) {
    std::perror("quire_paced_server");
    std::exit(1);
  }
  return listen_fd;
}

int PortOf(int listen_fd) {
  sockaddr_in address = {};
  socklen_t size = sizeof address;
  getsockname(listen_fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

// Accepts and reads for ever.
void ServeHttp(Pacer& pacer, int listen_fd) {
  const int on = 1;
  const int epoll_fd = epoll_create1(0);
  epoll_event event = {EPOLLIN, {.fd = listen_fd}};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event);
  std::map<int, std::unique_ptr<HttpConnection>> connections;
  epoll_event events[256];
  while (true) {
    const int count = epoll_wait(epoll_fd, events, 256, -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == listen_fd) {
        const int accepted = accept(listen_fd, nullptr, nullptr);
        setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        epoll_event readable = {EPOLLIN, {.fd = accepted}};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, accepted, &readable);
        connections.emplace(accepted, std::make_unique<HttpConnection>(pacer, accepted));
      } else if (!connections.at(fd)->Read()) {
        connections.erase(fd);
      }
    }
  }
}

int Main(int argc, char** argv) {
  const auto argument = [&](int index, int otherwise) { return argc > index ? std::atoi(argv[index]) : otherwise; };
  Pacer pacer(1000 / argument(3, 50));
  Generation generation(pacer);
  Model model;
  grpc::ServerBuilder builder;
  int grpc_port = 0;
  builder.AddListeningPort("127.0.0.1:" + std::to_string(argument(1, 50061)), grpc::InsecureServerCredentials(),
                           &grpc_port);
  builder.RegisterService(&generation);
  builder.RegisterService(&model);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) {
    return 1;
  }
  const int listen_fd = Listen(argument(2, 8061));
  std::printf("paced ready grpc=127.0.0.1:%d http=127.0.0.1:%d\n", grpc_port, PortOf(listen_fd));
  std::fflush(stdout);
  ServeHttp(pacer, listen_fd);
  return 0;
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) { return quire::Main(argc, argv); }
