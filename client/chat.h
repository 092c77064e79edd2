// `quire chat`: a conversation, one line of standard input for each turn of the user.

#ifndef QUIRE_CLIENT_CHAT_H_
#define QUIRE_CLIENT_CHAT_H_

#include <string>

#include "client/channel.h"
#include "client/io.h"
#include "quire/v1/generation.pb.h"

namespace quire::client {

struct ChatOptions {
  ConnectionOptions connection;
  v1::GenerateRequest request;  // all but the conversation
  std::string system;           // the system message; empty: none
};

// Until the end of input. The first RPC that fails ends the loop: its error is shown, never hidden.
int RunChat(const ChatOptions& options, Io& io);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_CHAT_H_
