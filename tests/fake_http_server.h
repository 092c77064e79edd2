// An HTTP/1.1 server whose answers a test writes byte by byte: a thread for each connection on a free loopback port.

#ifndef QUIRE_TESTS_FAKE_HTTP_SERVER_H_
#define QUIRE_TESTS_FAKE_HTTP_SERVER_H_

#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace quire {

class FakeHttpServer {
 public:
  struct Request {
    std::string method, path;
    std::string head;  // the lines of the header, each with its CR LF
    std::string body;
  };

  // Writes the answer of one request.
  class Reply {
   public:
    explicit Reply(int fd) : fd_(fd) {}
    bool Raw(const std::string& bytes);  // false: the client is gone
    // A whole answer.
    void Full(int status, const std::string& type, const std::string& body, const std::string& headers = "");
    // The head of an event stream whose pieces follow, each a chunk of the transfer encoding; an empty one ends it.
    void BeginEvents();
    bool Piece(const std::string& bytes);
    // "data: JSON\n\n" as a piece.
    bool Event(const std::string& json) { return Piece("data: " + json + "\n\n"); }
    void Close();  // no keep-alive: the connection breaks off here

   private:
    int fd_;
  };
  using Handler = std::function<void(const Request&, Reply&)>;

  explicit FakeHttpServer(Handler handler);
  ~FakeHttpServer();

  std::string url() const;
  size_t num_connections();
  std::vector<Request> requests();

 private:
  void Accept();
  void Serve(int fd);

  const Handler handler_;
  int listen_fd_;
  int port_ = 0;
  std::mutex mutex_;
  std::vector<int> fds_;              // guarded by mutex_
  std::vector<Request> requests_;     // guarded by mutex_
  std::vector<std::thread> threads_;  // of connections; of the accepting thread until it ends
  std::thread accepting_;
};

}  // namespace quire

#endif  // QUIRE_TESTS_FAKE_HTTP_SERVER_H_
