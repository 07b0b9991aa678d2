import com.google.protobuf.ByteString;
import inference.GRPCInferenceServiceGrpc;
import inference.Inference.ModelInferRequest;
import inference.Inference.ModelInferRequest.InferInputTensor;
import inference.Inference.ModelInferResponse;
import inference.Inference.ModelStreamInferResponse;
import inference.Inference.RepositoryModelLoadRequest;
import inference.Inference.RepositoryModelUnloadRequest;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.StreamObserver;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

/**
 * One call of each kind through gRPC's Java library.
 *
 * <p>Client ADDRESS SUBJECT [CA_FILE] prints one line of JSON: what the subject gave.
 */
public final class Client {
  private static final long PATIENCE_S = 30;
  private static final int MANY = 50;
  private static final int UNKNOWN = 7;
  private static final int COLUMNS = 16;
  private static final int LARGE = 5 * 1024 * 1024;
  private static final long KEEPALIVE_S = 10;
  private static final long SILENCE_S = 45;
  private static final Metadata.Key<String> KIND =
      Metadata.Key.of("inferd-error", Metadata.ASCII_STRING_MARSHALLER);

  private final ManagedChannel channel;

  private Client(ManagedChannel channel) {
    this.channel = channel;
  }

  /** A call that can fail with a status. */
  private interface Attempt {
    void make() throws StatusRuntimeException;
  }

  /** The messages of a stream as they come, and its end. */
  private static final class Inbox implements StreamObserver<ModelStreamInferResponse> {
    private final BlockingQueue<ModelStreamInferResponse> messages = new LinkedBlockingQueue<>();
    private final BlockingQueue<Status.Code> end = new LinkedBlockingQueue<>();

    @Override
    public void onNext(ModelStreamInferResponse message) {
      messages.add(message);
    }

    @Override
    public void onError(Throwable error) {
      end.add(Status.fromThrowable(error).getCode());
    }

    @Override
    public void onCompleted() {
      end.add(Status.Code.OK);
    }

    private ModelStreamInferResponse next() throws InterruptedException {
      return messages.poll(PATIENCE_S, TimeUnit.SECONDS);
    }

    private Status.Code ended() throws InterruptedException {
      return end.poll(PATIENCE_S, TimeUnit.SECONDS);
    }
  }

  private static String quoted(Object text) {
    return '"' + text.toString().replace("\\", "\\\\").replace("\"", "\\\"") + '"';
  }

  private static String list(List<?> items) {
    return items.stream().map(Object::toString).collect(Collectors.joining(",", "[", "]"));
  }

  /** INPUT0 is start, start + 1, ...; INPUT1 is ones. */
  private static ModelInferRequest request(String model, int start, String id) {
    ModelInferRequest.Builder made = ModelInferRequest.newBuilder().setModelName(model).setId(id);
    for (int index = 0; index < 2; index++) {
      ByteBuffer row = ByteBuffer.allocate(4 * COLUMNS).order(ByteOrder.LITTLE_ENDIAN);
      for (int column = 0; column < COLUMNS; column++) {
        row.putInt(index == 0 ? start + column : 1);
      }
      row.flip();
      made.addInputs(
          InferInputTensor.newBuilder()
              .setName("INPUT" + index)
              .setDatatype("INT32")
              .addShape(1)
              .addShape(COLUMNS));
      made.addRawInputContents(ByteString.copyFrom(row));
    }
    return made.build();
  }

  private static List<Integer> numbers(ModelInferResponse answer) {
    ByteBuffer raw =
        answer.getRawOutputContents(0).asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
    List<Integer> found = new ArrayList<>();
    while (raw.hasRemaining()) {
      found.add(raw.getInt());
    }
    return found;
  }

  private static String code(Attempt attempt) {
    try {
      attempt.make();
    } catch (StatusRuntimeException error) {
      return quoted(error.getStatus().getCode());
    }
    return quoted(Status.Code.OK);
  }

  private GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingStub calls() {
    return GRPCInferenceServiceGrpc.newBlockingStub(channel)
        .withDeadlineAfter(PATIENCE_S, TimeUnit.SECONDS);
  }

  private StreamObserver<ModelInferRequest> stream(Inbox inbox) {
    return GRPCInferenceServiceGrpc.newStub(channel).modelStreamInfer(inbox);
  }

  private String then() {
    return code(() -> calls().modelInfer(request("simple", 1, "one")));
  }

  private static String summed(GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingStub calls) {
    ModelInferResponse answer = calls.modelInfer(request("simple", 1, "one"));
    return String.format(
        "{\"code\":\"OK\",\"id\":%s,\"sums\":%s}", quoted(answer.getId()), list(numbers(answer)));
  }

  private String refused() {
    try {
      calls().modelInfer(request("absent", 1, "one"));
      return "{\"code\":\"OK\"}";
    } catch (StatusRuntimeException error) {
      return String.format(
          "{\"code\":%s,\"kind\":%s,\"details\":%s}",
          quoted(error.getStatus().getCode()),
          quoted(error.getTrailers().get(KIND)),
          quoted(error.getStatus().getDescription()));
    }
  }

  private String streamed() throws InterruptedException {
    Inbox inbox = new Inbox();
    StreamObserver<ModelInferRequest> requests = stream(inbox);
    for (int index = 0; index < MANY; index++) {
      requests.onNext(request(index == UNKNOWN ? "absent" : "simple", index, "" + index));
    }
    requests.onCompleted();
    Status.Code code = inbox.ended();
    List<String> answered = new ArrayList<>();
    List<String> failed = new ArrayList<>();
    List<Integer> sums = new ArrayList<>();
    for (ModelStreamInferResponse message : inbox.messages) {
      if (message.getErrorMessage().isEmpty()) {
        answered.add(quoted(message.getInferResponse().getId()));
        sums.add(numbers(message.getInferResponse()).get(0));
      } else {
        failed.add(quoted(message.getInferResponse().getId()));
      }
    }
    return String.format(
        "{\"code\":%s,\"answered\":%s,\"sums\":%s,\"failed\":%s}",
        quoted(code), list(answered), list(sums), list(failed));
  }

  private String deadline() {
    String code =
        code(
            () ->
                GRPCInferenceServiceGrpc.newBlockingStub(channel)
                    .withDeadlineAfter(300, TimeUnit.MILLISECONDS)
                    .modelInfer(request("slow", 1, "one")));
    return String.format("{\"code\":%s,\"then\":%s}", code, then());
  }

  private String cancelled() throws InterruptedException {
    Context.CancellableContext context = Context.current().withCancellation();
    Thread canceller =
        new Thread(
            () -> {
              try {
                Thread.sleep(300);
              } catch (InterruptedException error) {
                return;
              }
              context.cancel(null);
            });
    canceller.start();
    String[] code = new String[1];
    context.run(() -> code[0] = code(() -> calls().modelInfer(request("slow", 1, "one"))));
    canceller.join();
    return String.format(
        "{\"code\":%s,\"stream\":%s,\"then\":%s}", code[0], cancelledStream(), then());
  }

  private String cancelledStream() throws InterruptedException {
    Context.CancellableContext context = Context.current().withCancellation();
    Inbox inbox = new Inbox();
    List<StreamObserver<ModelInferRequest>> made = new ArrayList<>();
    context.run(() -> made.add(stream(inbox)));
    made.get(0).onNext(request("simple", 1, "one"));
    inbox.next();
    made.get(0).onNext(request("slow", 1, "two"));
    context.cancel(null);
    return quoted(inbox.ended());
  }

  private String large() {
    byte[] payload = new byte[LARGE];
    for (int index = 0; index < LARGE; index++) {
      payload[index] = (byte) (index % 251);
    }
    InferInputTensor.Builder input =
        InferInputTensor.newBuilder()
            .setName("INPUT0")
            .setDatatype("UINT8")
            .addShape(1)
            .addShape(LARGE);
    ModelInferRequest request =
        ModelInferRequest.newBuilder()
            .setModelName("large")
            .addInputs(input)
            .addRawInputContents(ByteString.copyFrom(payload))
            .build();
    ByteString found = calls().modelInfer(request).getRawOutputContents(0);
    return String.format(
        "{\"code\":\"OK\",\"equal\":%s}", found.equals(ByteString.copyFrom(payload)));
  }

  /** The states of a model while this client unloads and loads it. */
  private String watched() {
    Iterator<HealthCheckResponse> watch =
        HealthGrpc.newBlockingStub(channel)
            .watch(HealthCheckRequest.newBuilder().setService("watched").build());
    List<String> states = new ArrayList<>();
    while (states.size() < 3) {
      states.add(quoted(watch.next().getStatus()));
      if (states.size() == 1) {
        calls()
            .repositoryModelUnload(
                RepositoryModelUnloadRequest.newBuilder().setModelName("watched").build());
      } else if (states.size() == 2) {
        calls()
            .repositoryModelLoad(
                RepositoryModelLoadRequest.newBuilder().setModelName("watched").build());
      }
    }
    return String.format("{\"states\":%s}", list(states));
  }

  /** A stream that is silent for several pings is answered on the same connection. */
  private String pinged() throws InterruptedException {
    Inbox inbox = new Inbox();
    StreamObserver<ModelInferRequest> requests = stream(inbox);
    int answers = 0;
    for (int index = 0; index < 2; index++) {
      if (index == 1) {
        TimeUnit.SECONDS.sleep(SILENCE_S);
      }
      requests.onNext(request("simple", index, "one"));
      answers += inbox.next() == null ? 0 : 1;
    }
    requests.onCompleted();
    return String.format("{\"code\":%s,\"answers\":%d}", quoted(inbox.ended()), answers);
  }

  /** Stops at each line that it writes until the test has ended or started the server. */
  private String restarted() throws java.io.IOException {
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    String before = then();
    System.out.println("before");
    lines.readLine();
    String away = then();
    System.out.println("away");
    lines.readLine();
    String after =
        code(() -> calls().withWaitForReady().modelInfer(request("simple", 1, "one")));
    return String.format("{\"before\":%s,\"away\":%s,\"after\":%s}", before, away, after);
  }

  private String answer(String subject) throws Exception {
    switch (subject) {
      case "unary":
      case "tls":
        return summed(calls());
      case "compression":
        return summed(calls().withCompression("gzip"));
      case "refused":
        return refused();
      case "stream":
        return streamed();
      case "deadline":
        return deadline();
      case "cancel":
        return cancelled();
      case "large":
        return large();
      case "health":
        return watched();
      case "keepalive":
        return pinged();
      case "restart":
        return restarted();
      default:
        throw new IllegalArgumentException(subject);
    }
  }

  private static ManagedChannel connect(String address, String caFile) throws Exception {
    NettyChannelBuilder builder =
        NettyChannelBuilder.forTarget(address)
            .maxInboundMessageSize(Integer.MAX_VALUE)
            .keepAliveTime(KEEPALIVE_S, TimeUnit.SECONDS);
    if (caFile == null) {
      return builder.usePlaintext().build();
    }
    return builder
        .sslContext(GrpcSslContexts.forClient().trustManager(new File(caFile)).build())
        .build();
  }

  /** Makes the calls of one subject. */
  public static void main(String[] arguments) throws Exception {
    ManagedChannel channel = connect(arguments[0], arguments.length > 2 ? arguments[2] : null);
    System.out.println(new Client(channel).answer(arguments[1]));
    channel.shutdownNow().awaitTermination(PATIENCE_S, TimeUnit.SECONDS);
  }
}
