#include "client/cli.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/chat.h"
#include "client/flags.h"
#include "client/generate.h"
#include "client/load/load.h"
#include "client/parse.h"
#include "client/status.h"
#include "client/tokenize.h"

namespace quire::client {
namespace {

void AddConstraintFlags(CLI::App& app, v1::GenerateRequest& request) {
  v1::GenerateRequest* r = &request;
  CLI::Option* constraints[] = {
      app.add_option_function<std::string>(
          "--json-schema", [r](const std::string& v) { r->set_json_schema(v); }, "Output must match this JSON schema"),
      app.add_option_function<std::string>(
          "--regex", [r](const std::string& v) { r->set_regex(v); }, "Output must match this regular expression"),
      app.add_option_function<std::string>(
          "--grammar", [r](const std::string& v) { r->set_grammar(v); }, "Output must match this grammar"),
      app.add_option_function<std::vector<std::string>>(
             "--choice",
             [r](const std::vector<std::string>& v) {
               r->mutable_choice()->mutable_choices()->Add(v.begin(), v.end());
             },
             "Output must be one of these; repeat for each")
          ->allow_extra_args(false),
      app.add_flag_callback(
          "--json-object", [r] { r->set_json_object(true); }, "Output must be a JSON object"),
  };
  for (CLI::Option* one : constraints) {
    for (CLI::Option* other : constraints) {
      if (one != other) {
        one->excludes(other);
      }
    }
  }
}

void AddOutputFlags(CLI::App& app, v1::GenerateRequest& request) {
  v1::OutputOptions* output = request.mutable_output();
  app.add_option_function<uint32_t>(
      "--logprobs", [output](uint32_t v) { output->set_logprobs(v); },
      "0 to 20: log-probabilities of the output, with this many of the best (shown by --json)");
  app.add_option_function<uint32_t>(
      "--prompt-logprobs", [output](uint32_t v) { output->set_prompt_logprobs(v); },
      "0 to 20: the same for the prompt (shown by --json)");
  app.add_flag_callback(
      "--no-skip-special-tokens", [output] { output->set_skip_special_tokens(false); }, "Show special tokens as text");
}

void AddGenerate(CLI::App& cli, GenerateOptions& options) {
  CLI::App& app = *cli.add_subcommand("generate", "Generate text from a prompt and stream it to standard output");
  CLI::Option* prompt =
      app.add_option("--prompt", options.prompt, "Text of the prompt (default: standard input, as it is)");
  CLI::Option* file = app.add_option("--prompt-file", options.prompt_file, "File with the text of the prompt");
  CLI::Option* ids = app.add_option("--prompt-ids", options.prompt_ids, "Token ids of the prompt, as 1,2,3");
  prompt->excludes(file)->excludes(ids);
  file->excludes(ids);
  app.add_flag("--json", options.json, "Print each response as one line of JSON, with the names of the proto");
  v1::GenerateRequest* request = &options.request;
  app.add_option_function<uint32_t>(
      "--n,-n", [request](uint32_t v) { request->set_n(v); }, "Outputs for the prompt, 1 to 16 (default 1)");
  app.add_option_function<std::string>(
      "--request-id", [request](const std::string& v) { request->set_request_id(v); },
      "Name of the request, up to 128 characters (default: the server makes one)");
  app.add_option_function<uint64_t>(
         "--seed", [request](uint64_t v) { request->mutable_sampling()->set_seed(v); },
         "Seed of the draws; the summary shows the one in effect (default: drawn by the server)")
      ->check(CheckSeed);
  AddSamplingFlags(app, *request->mutable_sampling());
  AddStoppingFlags(app, *request->mutable_stopping());
  AddOutputFlags(app, *request);
  AddConstraintFlags(app, *request);
  AddSchedulingFlags(app, *request);
  AddConnectionFlags(app, options.connection);
}

void AddChat(CLI::App& cli, ChatOptions& options) {
  CLI::App& app = *cli.add_subcommand("chat", "Converse: each line of standard input is a turn");
  app.add_option("--system", options.system, "System message (default: none)");
  v1::GenerateRequest* request = &options.request;
  app.add_option_function<uint64_t>(
         "--seed", [request](uint64_t v) { request->mutable_sampling()->set_seed(v); },
         "Seed of the draws (default: drawn)")
      ->check(CheckSeed);
  AddSamplingFlags(app, *request->mutable_sampling());
  AddStoppingFlags(app, *request->mutable_stopping());
  AddSchedulingFlags(app, *request);
  AddConnectionFlags(app, options.connection);
}

void AddTokenize(CLI::App& cli, TokenizeOptions& options) {
  CLI::App& app = *cli.add_subcommand("tokenize", "Print the token ids of a text as a JSON array");
  app.add_option("--prompt", options.prompt, "The text (default: standard input, as it is)");
  app.add_flag("!--no-special", options.add_special_tokens, "Without the model's BOS and the like");
  AddConnectionFlags(app, options.connection);
}

void AddDetokenize(CLI::App& cli, DetokenizeOptions& options) {
  CLI::App& app = *cli.add_subcommand("detokenize", "Print the text of token ids");
  app.add_option("--ids", options.ids, "The ids, as 1,2,3 (default: a JSON array on standard input)");
  app.add_flag("!--no-skip-special-tokens", options.skip_special_tokens, "Show special tokens as text");
  AddConnectionFlags(app, options.connection);
}

void AddStatus(CLI::App& cli, StatusOptions& options) {
  CLI::App& app = *cli.add_subcommand("status", "Show model, health and load of a daemon");
  app.add_option("--admin", options.admin,
                 "HOST:PORT of its admin listener, for the load (default: port 9400 of the target's host)");
  app.add_flag("--json", options.json, "One line of JSON instead of the screen");
  app.add_flag("--watch", options.watch, "Again every second, until interrupted");
  AddConnectionFlags(app, options.connection);
  // A daemon that does not answer is a finding, not something to wait for.
  options.connection.timeout = absl::Seconds(5);
}

void AddLoad(CLI::App& cli, LoadOptions& options) {
  AddLoadFlags(*cli.add_subcommand("load", "Load a daemon with requests and report latencies and throughput"), options);
}

// `text` as one line; CLI11 puts some hints on lines of their own.
std::string OneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

int RunCli(int argc, const char* const* argv, Io& io) {
  CLI::App cli("quire: the client of quired, a daemon that serves language models", "quire");
  cli.set_version_flag("--version", QUIRE_VERSION);
  cli.require_subcommand(1);
  GenerateOptions generate;
  ChatOptions chat;
  TokenizeOptions tokenize;
  DetokenizeOptions detokenize;
  StatusOptions status;
  LoadOptions load;
  AddGenerate(cli, generate);
  AddChat(cli, chat);
  AddTokenize(cli, tokenize);
  AddDetokenize(cli, detokenize);
  AddStatus(cli, status);
  AddLoad(cli, load);
  try {
    for (int i = 1; i < argc; ++i) {
      if (absl::Status checked = CheckUtf8(absl::StrCat("argument ", i), argv[i]); !checked.ok()) {
        throw CLI::ValidationError(std::string(checked.message()));
      }
    }
    cli.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {
      return cli.exit(error, io.out, io.err);  // --help, --version
    }
    const bool no_command = dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && cli.get_subcommands().empty();
    io.err << "quire: "
           << (no_command ? "want a command: generate, chat, tokenize, detokenize, status or load"
                          : OneLine(error.what()))
           << '\n';
    return kExitUsage;
  }
  const auto run = [&] {
    if (cli.got_subcommand("generate")) {
      return RunGenerate(generate, io);
    }
    if (cli.got_subcommand("chat")) {
      return RunChat(chat, io);
    }
    if (cli.got_subcommand("tokenize")) {
      return RunTokenize(tokenize, io);
    }
    if (cli.got_subcommand("detokenize")) {
      return RunDetokenize(detokenize, io);
    }
    if (cli.got_subcommand("load")) {
      return RunLoad(load, io);
    }
    return RunStatus(status, io);
  };
  const int code = run();
  if (code == kExitOk && !io.out.flush()) {  // a full disk, say
    io.err << "quire: cannot write to standard output\n";
    return kExitUsage;
  }
  return code;
}

}  // namespace quire::client
