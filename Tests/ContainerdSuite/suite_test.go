// Package suite runs containerd's own conformance suite for snapshotters against varve-containerd, through the socket.
//
// Scripts/containerd-suite builds and runs it. Each test of the suite has a daemon of its own, on one store:
// VARVE_CONTAINERD is the program, VARVE_STORE the store.
package suite

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/pkg/testutil"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"github.com/containerd/containerd/snapshots/testsuite"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

var daemons atomic.Int32

// The sockets of the daemons, by their roots. They lie beside these: the path of a socket has 107 bytes at most (unix(7)).
var addresses sync.Map

func start(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
	id := fmt.Sprintf("suite-%d", daemons.Add(1))
	address := filepath.Join(os.Getenv("VARVE_SOCKETS"), id)
	addresses.Store(root, address)
	daemon := exec.Command(os.Getenv("VARVE_CONTAINERD"), "--address", address, "--root", os.Getenv("VARVE_STORE"),
		"--id", id)
	daemon.Stderr = os.Stderr
	if err := daemon.Start(); err != nil {
		return nil, nil, err
	}
	for try := 0; ; try++ {
		connection, err := net.Dial("unix", address)
		if err == nil {
			connection.Close()
			break
		}
		if try == 600 {
			daemon.Process.Kill()
			return nil, nil, err
		}
		time.Sleep(50 * time.Millisecond)
	}
	connection, err := grpc.Dial("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	snapshotter := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(connection), "varve")
	return snapshotter, func() error {
		// Its real deleting must work too.
		if err := snapshotter.(snapshots.Cleaner).Cleanup(ctx); err != nil {
			return err
		}
		connection.Close()
		if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		return daemon.Wait()
	}, nil
}

func TestVarve(t *testing.T) {
	testutil.RequiresRoot(t)
	testsuite.SnapshotterSuite(t, "varve", start)
}
