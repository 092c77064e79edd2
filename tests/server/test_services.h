// The services of a daemon in this process, over a runner of the test's: put together and taken down as Daemon does.

#ifndef QUIRE_TESTS_SERVER_TEST_SERVICES_H_
#define QUIRE_TESTS_SERVER_TEST_SERVICES_H_

#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "server/generation_service.h"
#include "server/model_service.h"
#include "server/rpc_server.h"
#include "server/span_exporter.h"
#include "server/vllm_service.h"
#include "tests/server/byte_tokenizer.h"

namespace quire {

struct TestServicesSetup {
  SchedulerOptions scheduler;
  int32_t max_waiting = 4;
  GenerationOptions generation;
  Metrics::Info info;
  std::unique_ptr<ModelRunner> runner;
  std::unique_ptr<AuthTokens> tokens = nullptr;  // none: everybody may call
  absl::Duration write_timeout = absl::Seconds(30);
  int32_t max_call_rate = 1'000'000;
  RpcLimits limits = {};
  std::string otlp_url = "";  // empty: no spans
  bool kv_events = false;
  KvEventFeed::Limits kv_event_limits = {};
};

// Everything is there to be looked at.
struct TestServices {
  explicit TestServices(TestServicesSetup setup)
      : tokenizer(MakeByteTokenizer()),
        authenticator(std::move(setup.tokens)),
        metrics(setup.info),
        log(LogFormat::kText),
        spans(setup.otlp_url.empty() ? nullptr : MakeSpans(setup, metrics)),
        detokenizer(*tokenizer, metrics, log, spans.get()),
        kv_event_log(/*max_events=*/1000),
        engine(WithKvEvents(setup, kv_event_log), setup.max_waiting, /*max_waiting_tokens=*/100000,
               std::move(setup.runner), &detokenizer),
        live(setup.write_timeout),
        pool(TokenizerPool::Options()),
        rate(setup.max_call_rate),
        generation({*tokenizer, engine, detokenizer, pool, live, metrics, rate, spans.get(), &authenticator},
                   std::move(setup.generation)),
        model(ModelOf(setup), &authenticator),
        kv_events(kv_event_log, setup.scheduler.block_size, setup.kv_event_limits),
        vllm({generation, engine, live, authenticator, [] { return true; }, setup.kv_events ? &kv_events : nullptr},
             ModelOf(setup), /*model_directory=*/"", setup.scheduler.max_num_seqs) {
    detokenizer.Start([this](RequestId id, uint32_t index) { engine.Stop(id, index); }, [](const absl::Status&) {});
    grpc::Service* const services[] = {&generation, &model, &vllm};
    server = *RpcServer::Start({.address = {"127.0.0.1", 0}, .limits = setup.limits}, services);
    channel = Connect();
  }
  ~TestServices() {
    live.Close([] {});
    pool.Shutdown();
    engine.Shutdown();
    detokenizer.Shutdown();
    kv_events.Shutdown();
    server->Shutdown(absl::Seconds(5));
    EXPECT_EQ(live.size(), 0u);
  }

  // A connection of its own, with a window of 64 KiB.
  std::shared_ptr<grpc::Channel> Connect() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    return grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(server->port()), grpc::InsecureChannelCredentials(),
                                     arguments);
  }

  static std::unique_ptr<SpanExporter> MakeSpans(const TestServicesSetup& setup, Metrics& metrics) {
    SpanExporterOptions options;
    options.url = setup.otlp_url;
    options.model_name = setup.info.model_name;
    options.max_delay = absl::ZeroDuration();
    return std::make_unique<SpanExporter>(std::move(options), metrics);
  }
  static SchedulerOptions WithKvEvents(const TestServicesSetup& setup, KvEventLog& log) {
    SchedulerOptions options = setup.scheduler;
    if (setup.kv_events) options.kv_events = &log;
    return options;
  }
  static v1::GetModelResponse ModelOf(const TestServicesSetup& setup) {
    v1::GetModelResponse model;
    model.set_name(setup.info.model_name);
    model.set_max_model_len(static_cast<uint32_t>(setup.scheduler.max_model_len));
    model.set_block_size(static_cast<uint32_t>(setup.scheduler.block_size));
    return model;
  }

  const std::unique_ptr<Tokenizer> tokenizer;
  Authenticator authenticator;
  Metrics metrics;
  RequestLog log;
  const std::unique_ptr<SpanExporter> spans;
  Detokenizer detokenizer;
  KvEventLog kv_event_log;
  Engine engine;
  LiveRequests live;
  TokenizerPool pool;
  CallRate rate;
  GenerationService generation;
  ModelService model;
  KvEventFeed kv_events;
  VllmService vllm;
  std::unique_ptr<RpcServer> server;
  std::shared_ptr<grpc::Channel> channel;
};

}  // namespace quire

#endif  // QUIRE_TESTS_SERVER_TEST_SERVICES_H_
