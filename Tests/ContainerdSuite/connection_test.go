package suite

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// TestOneConnection makes many calls at once, as a containerd does that imports many images. The connection must outlive them: Go's client makes calls anew
// that were under way on one that is closed, and each must be made once.
func TestOneConnection(t *testing.T) {
	ctx := context.Background()
	root, err := os.MkdirTemp("", "connection-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	sn, stop, err := start(ctx, root)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	// Some KiB of answer, which make the client ping.
	for i := 0; i < 200; i++ {
		_, err := sn.Prepare(ctx, fmt.Sprintf("listed-%d", i), "")
		must(err)
	}

	var connections atomic.Int32
	found, _ := addresses.Load(root)
	socket := found.(string)
	connection, err := grpc.Dial("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			connections.Add(1)
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	shared := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(connection), "varve")
	var group sync.WaitGroup
	for caller := 0; caller < 16; caller++ {
		group.Add(1)
		go func(caller int) {
			defer group.Done()
			for i := 0; i < 20; i++ {
				key := fmt.Sprintf("%d-%d", caller, i)
				_, err := shared.Prepare(ctx, key, "")
				must(err)
				must(shared.Walk(ctx, func(context.Context, snapshots.Info) error { return nil }))
				must(shared.Commit(ctx, key+"-done", key))
				must(shared.Walk(ctx, func(context.Context, snapshots.Info) error { return nil }))
				must(shared.Remove(ctx, key+"-done"))
			}
		}(caller)
	}
	group.Wait()
	if made := connections.Load(); made != 1 {
		t.Errorf("%d connections were made, and one was to do", made)
	}
}
