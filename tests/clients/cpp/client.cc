// One call of each kind through gRPC's C++ library.
//
//   client ADDRESS SUBJECT [CA_FILE]
//
// Prints one line of JSON: what the subject gave.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "grpc_health/v1/health.grpc.pb.h"
#include "inferd/oip/v2/inference.grpc.pb.h"

using grpc::ClientContext;
using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using grpc::Status;
using grpc::StatusCode;
using inference::GRPCInferenceService;
using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;

namespace {

constexpr int kMany = 50;
constexpr int kUnknown = 7;
constexpr int kColumns = 16;
constexpr size_t kLarge = 5 * 1024 * 1024;
constexpr int kKeepaliveMs = 10000;
constexpr int kSilenceS = 45;

using Stub = GRPCInferenceService::Stub;

std::string Name(StatusCode code) {
  switch (code) {
    case StatusCode::OK: return "OK";
    case StatusCode::CANCELLED: return "CANCELLED";
    case StatusCode::DEADLINE_EXCEEDED: return "DEADLINE_EXCEEDED";
    case StatusCode::NOT_FOUND: return "NOT_FOUND";
    case StatusCode::UNAVAILABLE: return "UNAVAILABLE";
    default: return "code " + std::to_string(code);
  }
}

std::string Quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

template <typename Items>
std::string List(const Items& items) {
  std::ostringstream out;
  out << "[";
  bool first = true;
  for (const auto& item : items) {
    if (!first) out << ",";
    out << item;
    first = false;
  }
  out << "]";
  return out.str();
}

void SetTimeout(ClientContext* context, std::chrono::milliseconds time) {
  context->set_deadline(std::chrono::system_clock::now() + time);
}

// INPUT0 is start, start + 1, ...; INPUT1 is ones.
ModelInferRequest Request(const std::string& model, int start, const std::string& id) {
  ModelInferRequest request;
  request.set_model_name(model);
  request.set_id(id);
  for (int index = 0; index < 2; ++index) {
    auto* input = request.add_inputs();
    input->set_name("INPUT" + std::to_string(index));
    input->set_datatype("INT32");
    input->add_shape(1);
    input->add_shape(kColumns);
    std::vector<int32_t> row(kColumns, 1);
    if (index == 0) {
      for (int column = 0; column < kColumns; ++column) row[column] = start + column;
    }
    request.add_raw_input_contents(row.data(), row.size() * sizeof(int32_t));
  }
  return request;
}

std::vector<int32_t> Numbers(const std::string& raw) {
  const auto* begin = reinterpret_cast<const int32_t*>(raw.data());
  return {begin, begin + raw.size() / sizeof(int32_t)};
}

Status Infer(Stub* stub, ModelInferResponse* answer, bool wait = false, bool compress = false,
             std::chrono::milliseconds time = std::chrono::seconds(30),
             const std::string& model = "simple") {
  ClientContext context;
  SetTimeout(&context, time);
  context.set_wait_for_ready(wait);
  if (compress) context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  return stub->ModelInfer(&context, Request(model, 1, "one"), answer);
}

std::string Then(Stub* stub) {
  ModelInferResponse answer;
  return Quoted(Name(Infer(stub, &answer).error_code()));
}

std::string Summed(Stub* stub, bool compress) {
  ModelInferResponse answer;
  Status status = Infer(stub, &answer, false, compress);
  if (!status.ok()) return "{\"code\":" + Quoted(Name(status.error_code())) + "}";
  return "{\"code\":\"OK\",\"id\":" + Quoted(answer.id()) +
         ",\"sums\":" + List(Numbers(answer.raw_output_contents(0))) + "}";
}

std::string Refused(Stub* stub) {
  ClientContext context;
  SetTimeout(&context, std::chrono::seconds(30));
  ModelInferResponse answer;
  Status status = stub->ModelInfer(&context, Request("absent", 1, "one"), &answer);
  const auto& trailing = context.GetServerTrailingMetadata();
  auto found = trailing.find("inferd-error");
  std::string kind =
      found == trailing.end() ? "" : std::string(found->second.data(), found->second.size());
  return "{\"code\":" + Quoted(Name(status.error_code())) + ",\"kind\":" + Quoted(kind) +
         ",\"details\":" + Quoted(status.error_message()) + "}";
}

std::string Stream(Stub* stub) {
  ClientContext context;
  SetTimeout(&context, std::chrono::seconds(30));
  auto stream = stub->ModelStreamInfer(&context);
  for (int index = 0; index < kMany; ++index) {
    stream->Write(Request(index == kUnknown ? "absent" : "simple", index, std::to_string(index)));
  }
  stream->WritesDone();
  std::vector<std::string> answered, failed;
  std::vector<int32_t> sums;
  ModelStreamInferResponse message;
  while (stream->Read(&message)) {
    const auto& answer = message.infer_response();
    if (!message.error_message().empty()) {
      failed.push_back(Quoted(answer.id()));
    } else {
      answered.push_back(Quoted(answer.id()));
      sums.push_back(Numbers(answer.raw_output_contents(0))[0]);
    }
  }
  return "{\"code\":" + Quoted(Name(stream->Finish().error_code())) +
         ",\"answered\":" + List(answered) + ",\"sums\":" + List(sums) +
         ",\"failed\":" + List(failed) + "}";
}

std::string Deadline(Stub* stub) {
  ModelInferResponse answer;
  Status status =
      Infer(stub, &answer, false, false, std::chrono::milliseconds(300), "slow");
  return "{\"code\":" + Quoted(Name(status.error_code())) + ",\"then\":" + Then(stub) + "}";
}

std::string CancelledCall(Stub* stub) {
  ClientContext context;
  SetTimeout(&context, std::chrono::seconds(30));
  std::thread canceller([&context] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    context.TryCancel();
  });
  ModelInferResponse answer;
  Status status = stub->ModelInfer(&context, Request("slow", 1, "one"), &answer);
  canceller.join();
  return Quoted(Name(status.error_code()));
}

std::string CancelledStream(Stub* stub) {
  ClientContext context;
  SetTimeout(&context, std::chrono::seconds(30));
  auto stream = stub->ModelStreamInfer(&context);
  ModelStreamInferResponse message;
  stream->Write(Request("simple", 1, "one"));
  stream->Read(&message);
  stream->Write(Request("slow", 1, "two"));
  context.TryCancel();
  while (stream->Read(&message)) {
  }
  return Quoted(Name(stream->Finish().error_code()));
}

std::string Cancel(Stub* stub) {
  std::string code = CancelledCall(stub);
  return "{\"code\":" + code + ",\"stream\":" + CancelledStream(stub) +
         ",\"then\":" + Then(stub) + "}";
}

std::string Large(Stub* stub) {
  ModelInferRequest request;
  request.set_model_name("large");
  auto* input = request.add_inputs();
  input->set_name("INPUT0");
  input->set_datatype("UINT8");
  input->add_shape(1);
  input->add_shape(kLarge);
  std::string payload(kLarge, '\0');
  for (size_t index = 0; index < kLarge; ++index) payload[index] = static_cast<char>(index % 251);
  request.add_raw_input_contents(payload);
  ClientContext context;
  SetTimeout(&context, std::chrono::seconds(30));
  ModelInferResponse answer;
  Status status = stub->ModelInfer(&context, request, &answer);
  bool equal = status.ok() && answer.raw_output_contents(0) == payload;
  return "{\"code\":" + Quoted(Name(status.error_code())) +
         ",\"equal\":" + (equal ? "true" : "false") + "}";
}

// The state of a model while this client unloads and loads it.
std::string Watch(const std::shared_ptr<grpc::Channel>& channel, Stub* stub) {
  auto health = Health::NewStub(channel);
  ClientContext context;
  SetTimeout(&context, std::chrono::seconds(30));
  HealthCheckRequest request;
  request.set_service("watched");
  auto watch = health->Watch(&context, request);
  std::vector<std::string> states;
  HealthCheckResponse state;
  while (states.size() < 3 && watch->Read(&state)) {
    states.push_back(Quoted(HealthCheckResponse::ServingStatus_Name(state.status())));
    ClientContext change;
    SetTimeout(&change, std::chrono::seconds(30));
    if (states.size() == 1) {
      inference::RepositoryModelUnloadRequest unload;
      inference::RepositoryModelUnloadResponse done;
      unload.set_model_name("watched");
      stub->RepositoryModelUnload(&change, unload, &done);
    } else if (states.size() == 2) {
      inference::RepositoryModelLoadRequest load;
      inference::RepositoryModelLoadResponse done;
      load.set_model_name("watched");
      stub->RepositoryModelLoad(&change, load, &done);
    }
  }
  context.TryCancel();
  return "{\"states\":" + List(states) + "}";
}

// A stream that is silent for several pings is answered on the same connection.
std::string Keepalive(Stub* stub) {
  ClientContext context;
  auto stream = stub->ModelStreamInfer(&context);
  ModelStreamInferResponse message;
  int answers = 0;
  for (int index = 0; index < 2; ++index) {
    if (index == 1) std::this_thread::sleep_for(std::chrono::seconds(kSilenceS));
    stream->Write(Request("simple", index, "one"));
    if (stream->Read(&message)) ++answers;
  }
  stream->WritesDone();
  while (stream->Read(&message)) {
  }
  return "{\"code\":" + Quoted(Name(stream->Finish().error_code())) +
         ",\"answers\":" + std::to_string(answers) + "}";
}

// The test stops the server before the first line that it writes, and starts it before the second.
std::string Restart(Stub* stub) {
  ModelInferResponse answer;
  std::string line;
  std::string before = Then(stub);
  std::cout << "before" << std::endl;
  std::getline(std::cin, line);
  std::string away = Then(stub);
  std::cout << "away" << std::endl;
  std::getline(std::cin, line);
  std::string after = Quoted(Name(Infer(stub, &answer, true).error_code()));
  return "{\"before\":" + before + ",\"away\":" + away + ",\"after\":" + after + "}";
}

std::shared_ptr<grpc::Channel> Connect(const std::string& address, const char* ca_file) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  if (ca_file == nullptr) {
    return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  }
  std::ifstream file(ca_file);
  std::stringstream text;
  text << file.rdbuf();
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = text.str();
  return grpc::CreateCustomChannel(address, grpc::SslCredentials(options), arguments);
}

std::string Answer(const std::string& subject, const std::shared_ptr<grpc::Channel>& channel) {
  auto stub = GRPCInferenceService::NewStub(channel);
  if (subject == "unary" || subject == "tls") return Summed(stub.get(), false);
  if (subject == "compression") return Summed(stub.get(), true);
  if (subject == "refused") return Refused(stub.get());
  if (subject == "stream") return Stream(stub.get());
  if (subject == "deadline") return Deadline(stub.get());
  if (subject == "cancel") return Cancel(stub.get());
  if (subject == "large") return Large(stub.get());
  if (subject == "health") return Watch(channel, stub.get());
  if (subject == "keepalive") return Keepalive(stub.get());
  if (subject == "restart") return Restart(stub.get());
  throw std::invalid_argument(subject);
}

}  // namespace

int main(int count, char** arguments) {
  auto channel = Connect(arguments[1], count > 3 ? arguments[3] : nullptr);
  std::cout << Answer(arguments[2], channel) << std::endl;
  return 0;
}
