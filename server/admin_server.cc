#include "server/admin_server.h"

#include <microhttpd.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/listen_socket.h"

namespace quire {
namespace {

// Who opens connections and says nothing must not keep a probe out: one address cannot have them all, nor one for long.
constexpr unsigned kMaxConnections = 1024;
constexpr unsigned kMaxConnectionsOfAddress = 256;
constexpr unsigned kIdleSeconds = 5;
constexpr size_t kConnectionBytes = 16384;  // of request line and headers

constexpr char kPlainText[] = "text/plain; charset=utf-8";

MHD_Result Respond(MHD_Connection* connection, AdminServer::Page page) {
  MHD_Response* response = MHD_create_response_from_buffer(page.body.size(), page.body.data(), MHD_RESPMEM_MUST_COPY);
  if (response == nullptr) return MHD_NO;
  MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, page.content_type.c_str());
  if (page.status == MHD_HTTP_METHOD_NOT_ALLOWED) MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
  const MHD_Result result = MHD_queue_response(connection, page.status, response);
  MHD_destroy_response(response);
  return result;
}

MHD_Result Handle(void* server, MHD_Connection* connection, const char* url, const char* method,
                  const char* /*version*/, const char* /*upload_data*/, size_t* upload_bytes, void** seen) {
  // The first call announces the headers; a response to it would close the connection.
  static const char kSeen = 0;
  if (*seen == nullptr) {
    *seen = const_cast<char*>(&kSeen);
    return MHD_YES;
  }
  if (*upload_bytes != 0) {  // a body is read past and not kept
    *upload_bytes = 0;
    return MHD_YES;
  }
  return Respond(connection, AdminServer::Answer(static_cast<AdminServer*>(server)->pages(), method, url));
}

}  // namespace

AdminServer::Page AdminServer::Answer(const Pages& pages, const std::string& method, const std::string& path) {
  const bool known = path == "/metrics" || path == "/livez" || path == "/readyz" || path == "/health";
  if (!known) return {MHD_HTTP_NOT_FOUND, kPlainText, "not found: there are /metrics, /health, /livez, /readyz\n"};
  if (method != MHD_HTTP_METHOD_GET && method != MHD_HTTP_METHOD_HEAD) {
    return {MHD_HTTP_METHOD_NOT_ALLOWED, kPlainText, "only GET and HEAD\n"};
  }
  if (path == "/metrics") return {MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", pages.metrics()};
  const bool good = path == "/livez" ? pages.live() : pages.ready();
  if (good) return {MHD_HTTP_OK, kPlainText, "ok\n"};
  return {MHD_HTTP_SERVICE_UNAVAILABLE, kPlainText, path == "/livez" ? "the engine does not move\n" : "not ready\n"};
}

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Start(const ListenAddress& address, Pages pages) {
  absl::StatusOr<ListenSocket> socket = ListenSocket::Open(address, "--admin-listen");
  if (!socket.ok()) return socket.status();
  std::unique_ptr<AdminServer> server(new AdminServer(std::move(pages), socket->port()));
  const int fd = socket->Release();
  server->daemon_ =
      MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, /*port=*/0, nullptr, nullptr, Handle, server.get(),
                       MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, kMaxConnections,
                       MHD_OPTION_PER_IP_CONNECTION_LIMIT, kMaxConnectionsOfAddress, MHD_OPTION_CONNECTION_TIMEOUT,
                       kIdleSeconds, MHD_OPTION_CONNECTION_MEMORY_LIMIT, kConnectionBytes, MHD_OPTION_END);
  if (server->daemon_ == nullptr) {
    close(fd);
    return absl::InternalError(absl::StrCat("--admin-listen ", address.ToString(), ": the HTTP server does not start"));
  }
  return server;
}

AdminServer::~AdminServer() {
  if (daemon_ != nullptr) MHD_stop_daemon(daemon_);
}

}  // namespace quire
