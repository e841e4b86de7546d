// Command recorder stands between a client and a gRPC server, passes each call on as it is, and writes down which calls there were.
//
//	recorder LISTEN SERVER LOG
//
// LISTEN and SERVER are Unix sockets. Each call that has ended adds a line of JSON to LOG: its method, the seconds that it took, the status it
// ended with, and of a call that makes a snapshot its key and its labels.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// bytesAsTheyAre is a codec that leaves messages packed.
type bytesAsTheyAre struct{}

func (bytesAsTheyAre) Marshal(message any) ([]byte, error) { return *message.(*[]byte), nil }
func (bytesAsTheyAre) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (bytesAsTheyAre) Name() string { return "proto" }

type call struct {
	Method  string            `json:"method"`
	Seconds float64           `json:"seconds"`
	Status  string            `json:"status"`
	Key     string            `json:"key,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "recorder:", err)
		os.Exit(1)
	}
}

func main() {
	log, err := os.OpenFile(os.Args[3], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(err)
	var lock sync.Mutex
	write := func(call call) {
		line, err := json.Marshal(call)
		must(err)
		lock.Lock()
		defer lock.Unlock()
		_, err = log.Write(append(line, '\n'))
		must(err)
	}
	server, err := grpc.NewClient("unix://"+os.Args[2], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesAsTheyAre{}), grpc.MaxCallRecvMsgSize(32<<20), grpc.MaxCallSendMsgSize(32<<20)))
	must(err)
	listener, err := net.Listen("unix", os.Args[1])
	must(err)
	must(grpc.NewServer(grpc.ForceServerCodec(bytesAsTheyAre{}), grpc.MaxRecvMsgSize(32<<20), grpc.MaxSendMsgSize(32<<20),
		grpc.UnknownServiceHandler(func(_ any, client grpc.ServerStream) error {
			method, _ := grpc.MethodFromServerStream(client)
			record := call{Method: method[strings.LastIndex(method, "/")+1:]}
			start := time.Now()
			err := pass(client, server, method, &record)
			record.Seconds, record.Status = time.Since(start).Seconds(), status.Code(err).String()
			write(record)
			return err
		})).Serve(listener))
}

// pass passes one call on, in both directions, until the server has ended it.
func pass(client grpc.ServerStream, server *grpc.ClientConn, method string, record *call) error {
	headers, _ := metadata.FromIncomingContext(client.Context())
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(client.Context(), headers))
	defer cancel()
	stream, err := server.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	// All requests that there are here come as one message.
	var message []byte
	if err := client.RecvMsg(&message); err != nil {
		return err
	}
	if record.Method == "Prepare" {
		var request snapshotsapi.PrepareSnapshotRequest
		if proto.Unmarshal(message, &request) == nil {
			record.Key, record.Labels = request.Key, request.Labels
		}
	}
	if err := stream.SendMsg(&message); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		var answer []byte
		if err := stream.RecvMsg(&answer); err == io.EOF {
			client.SetTrailer(stream.Trailer())
			return nil
		} else if err != nil {
			client.SetTrailer(stream.Trailer())
			return err
		}
		if err := client.SendMsg(&answer); err != nil {
			return err
		}
	}
}
