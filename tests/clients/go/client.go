// One call of each kind through gRPC's Go library.
//
//	client ADDRESS SUBJECT [CA_FILE]
//
// Prints one line of JSON: what the subject gave.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding/gzip"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	oip "inferd/oip/v2"
)

const (
	patience  = 30 * time.Second
	many      = 50
	unknown   = 7
	columns   = 16
	large     = 5 * 1024 * 1024
	pingEvery = 10 * time.Second
	silence   = 45 * time.Second
)

type result map[string]interface{}

// code names a status as the protocol does.
func code(err error) string {
	names := []string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"}
	number := int(status.Code(err))
	if number < len(names) {
		return names[number]
	}
	if number == 14 {
		return "UNAVAILABLE"
	}
	return strconv.Itoa(number)
}

// request has INPUT0 with start, start + 1, ..., and INPUT1 with ones.
func request(model string, start int, id string) *oip.ModelInferRequest {
	made := &oip.ModelInferRequest{ModelName: model, Id: id}
	for index := 0; index < 2; index++ {
		row := make([]byte, 0, 4*columns)
		for column := 0; column < columns; column++ {
			value := uint32(1)
			if index == 0 {
				value = uint32(start + column)
			}
			row = append(row, byte(value), byte(value>>8), byte(value>>16), byte(value>>24))
		}
		made.Inputs = append(made.Inputs, &oip.ModelInferRequest_InferInputTensor{
			Name: "INPUT" + strconv.Itoa(index), Datatype: "INT32", Shape: []int64{1, columns},
		})
		made.RawInputContents = append(made.RawInputContents, row)
	}
	return made
}

func numbers(raw []byte) []int32 {
	found := make([]int32, len(raw)/4)
	if err := binary.Read(bytes.NewReader(raw), binary.LittleEndian, found); err != nil {
		log.Fatal(err)
	}
	return found
}

func limited() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

func then(client oip.GRPCInferenceServiceClient, options ...grpc.CallOption) string {
	ctx, cancel := limited()
	defer cancel()
	_, err := client.ModelInfer(ctx, request("simple", 1, "one"), options...)
	return code(err)
}

func summed(client oip.GRPCInferenceServiceClient, options ...grpc.CallOption) result {
	ctx, cancel := limited()
	defer cancel()
	answer, err := client.ModelInfer(ctx, request("simple", 1, "one"), options...)
	if err != nil {
		return result{"code": code(err)}
	}
	return result{"code": "OK", "id": answer.Id, "sums": numbers(answer.RawOutputContents[0])}
}

func refused(client oip.GRPCInferenceServiceClient) result {
	ctx, cancel := limited()
	defer cancel()
	var trailing metadata.MD
	_, err := client.ModelInfer(ctx, request("absent", 1, "one"), grpc.Trailer(&trailing))
	kind := append(trailing.Get("inferd-error"), "")[0]
	return result{"code": code(err), "kind": kind, "details": status.Convert(err).Message()}
}

func stream(client oip.GRPCInferenceServiceClient) result {
	ctx, cancel := limited()
	defer cancel()
	calls, err := client.ModelStreamInfer(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for index := 0; index < many; index++ {
		model := "simple"
		if index == unknown {
			model = "absent"
		}
		if err := calls.Send(request(model, index, strconv.Itoa(index))); err != nil {
			log.Fatal(err)
		}
	}
	if err := calls.CloseSend(); err != nil {
		log.Fatal(err)
	}
	var answered, failed []string
	var sums []int32
	for {
		message, err := calls.Recv()
		if err != nil {
			return result{"code": ended(err), "answered": answered, "sums": sums, "failed": failed}
		}
		answer := message.InferResponse
		if message.ErrorMessage != "" {
			failed = append(failed, answer.Id)
		} else {
			answered = append(answered, answer.Id)
			sums = append(sums, numbers(answer.RawOutputContents[0])[0])
		}
	}
}

// ended is the status of a stream, of which Go tells a good end as EOF.
func ended(err error) string {
	if err == io.EOF {
		return "OK"
	}
	return code(err)
}

func deadline(client oip.GRPCInferenceServiceClient) result {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err := client.ModelInfer(ctx, request("slow", 1, "one"))
	return result{"code": code(err), "then": then(client)}
}

func cancelled(client oip.GRPCInferenceServiceClient) result {
	ctx, cancel := limited()
	timer := time.AfterFunc(300*time.Millisecond, cancel)
	defer timer.Stop()
	_, err := client.ModelInfer(ctx, request("slow", 1, "one"))
	return result{"code": code(err), "stream": cancelledStream(client), "then": then(client)}
}

func cancelledStream(client oip.GRPCInferenceServiceClient) string {
	ctx, cancel := limited()
	defer cancel()
	calls, err := client.ModelStreamInfer(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for index, model := range []string{"simple", "slow"} {
		if err := calls.Send(request(model, 1, strconv.Itoa(index))); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := calls.Recv(); err != nil {
		log.Fatal(err)
	}
	cancel()
	_, err = calls.Recv()
	return code(err)
}

func fiveMegabytes(client oip.GRPCInferenceServiceClient) result {
	payload := make([]byte, large)
	for index := range payload {
		payload[index] = byte(index % 251)
	}
	ctx, cancel := limited()
	defer cancel()
	answer, err := client.ModelInfer(ctx, &oip.ModelInferRequest{
		ModelName: "large",
		Inputs: []*oip.ModelInferRequest_InferInputTensor{
			{Name: "INPUT0", Datatype: "UINT8", Shape: []int64{1, large}},
		},
		RawInputContents: [][]byte{payload},
	})
	equal := err == nil && bytes.Equal(answer.RawOutputContents[0], payload)
	return result{"code": code(err), "equal": equal}
}

// watch tells the states of a model while this client unloads and loads it.
func watch(connection *grpc.ClientConn, client oip.GRPCInferenceServiceClient) result {
	ctx, cancel := limited()
	defer cancel()
	calls, err := health.NewHealthClient(connection).Watch(ctx, &health.HealthCheckRequest{Service: "watched"})
	if err != nil {
		log.Fatal(err)
	}
	var states []string
	for len(states) < 3 {
		state, err := calls.Recv()
		if err != nil {
			log.Fatal(err)
		}
		states = append(states, state.Status.String())
		switch len(states) {
		case 1:
			_, err = client.RepositoryModelUnload(ctx, &oip.RepositoryModelUnloadRequest{ModelName: "watched"})
		case 2:
			_, err = client.RepositoryModelLoad(ctx, &oip.RepositoryModelLoadRequest{ModelName: "watched"})
		}
		if err != nil {
			log.Fatal(err)
		}
	}
	return result{"states": states}
}

// pinged has a stream that is silent for several pings answered on the same connection.
func pinged(client oip.GRPCInferenceServiceClient) result {
	calls, err := client.ModelStreamInfer(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	answers := 0
	for index := 0; index < 2; index++ {
		if index == 1 {
			time.Sleep(silence)
		}
		if err := calls.Send(request("simple", index, "one")); err == nil {
			if _, err := calls.Recv(); err == nil {
				answers++
			}
		}
	}
	if err := calls.CloseSend(); err != nil {
		log.Fatal(err)
	}
	_, err = calls.Recv()
	return result{"code": ended(err), "answers": answers}
}

// restart is stopped at each line that it writes until the test has ended or started the server.
func restart(client oip.GRPCInferenceServiceClient) result {
	lines := bufio.NewScanner(os.Stdin)
	before := then(client)
	fmt.Println("before")
	lines.Scan()
	away := then(client)
	fmt.Println("away")
	lines.Scan()
	return result{"before": before, "away": away, "after": then(client, grpc.WaitForReady(true))}
}

func connect(address string, caFile string) *grpc.ClientConn {
	security := grpc.WithInsecure()
	if caFile != "" {
		trusted, err := credentials.NewClientTLSFromFile(caFile, "")
		if err != nil {
			log.Fatal(err)
		}
		security = grpc.WithTransportCredentials(trusted)
	}
	connection, err := grpc.Dial(address, security,
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery}))
	if err != nil {
		log.Fatal(err)
	}
	return connection
}

func main() {
	connection := connect(os.Args[1], append(os.Args, "")[3])
	defer connection.Close()
	client := oip.NewGRPCInferenceServiceClient(connection)
	subjects := map[string]func() result{
		"unary":       func() result { return summed(client) },
		"tls":         func() result { return summed(client) },
		"compression": func() result { return summed(client, grpc.UseCompressor(gzip.Name)) },
		"refused":     func() result { return refused(client) },
		"stream":      func() result { return stream(client) },
		"deadline":    func() result { return deadline(client) },
		"cancel":      func() result { return cancelled(client) },
		"large":       func() result { return fiveMegabytes(client) },
		"health":      func() result { return watch(connection, client) },
		"keepalive":   func() result { return pinged(client) },
		"restart":     func() result { return restart(client) },
	}
	text, err := json.Marshal(subjects[os.Args[2]]())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(text))
}
