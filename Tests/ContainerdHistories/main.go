// Command histories makes the calls of a program's histories to a containerd.
//
//	histories SOCKET SNAPSHOTTER PROGRAM ARGUMENT…
//
// It starts the program (Tests/DaemonHistories) and reads calls from its standard output, a line each, words with tabs between them; the answer
// goes to its standard input: "ok" and what was asked for, or "failed" and why. It ends as the program does.
//
// Scripts/containerd-histories builds and runs it.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

var (
	ctx = namespaces.WithNamespace(context.Background(), "histories")
	// containerd collects what nothing refers to.
	kept        = snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "kept"})
	snapshotter snapshots.Snapshotter
	differ      diffapi.DiffClient
	leases      leasesapi.LeasesClient
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "histories:", err)
		os.Exit(1)
	}
}

// The mounts of an active snapshot or a view; none for no key.
func mounts(key string) ([]*types.Mount, error) {
	if key == "" {
		return nil, nil
	}
	found, err := snapshotter.Mounts(ctx, key)
	return toProto(found), err
}

func toProto(found []mount.Mount) (result []*types.Mount) {
	for _, m := range found {
		result = append(result, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return
}

func answer(words []string) ([]string, error) {
	switch {
	case words[0] == "prepare" && len(words) == 3:
		_, err := snapshotter.Prepare(ctx, words[1], words[2], kept)
		return nil, err
	case words[0] == "view" && len(words) == 3:
		_, err := snapshotter.View(ctx, words[1], words[2], kept)
		return nil, err
	case words[0] == "commit" && len(words) == 3:
		return nil, snapshotter.Commit(ctx, words[1], words[2], kept)
	case words[0] == "remove" && len(words) == 2:
		return nil, snapshotter.Remove(ctx, words[1])
	case words[0] == "diff" && len(words) == 4:
		left, err := mounts(words[1])
		if err != nil {
			return nil, err
		}
		right, err := mounts(words[2])
		if err != nil {
			return nil, err
		}
		made, err := differ.Diff(ctx, &diffapi.DiffRequest{Left: left, Right: right, MediaType: words[3]})
		if err != nil {
			return nil, err
		}
		if made.Diff.MediaType != words[3] {
			return nil, fmt.Errorf("the layer is of the type %s", made.Diff.MediaType)
		}
		return []string{made.Diff.Digest, strconv.FormatInt(made.Diff.Size, 10)}, nil
	case words[0] == "apply" && len(words) == 5:
		size, err := strconv.ParseInt(words[2], 10, 64)
		if err != nil {
			return nil, err
		}
		target, err := mounts(words[4])
		if err != nil {
			return nil, err
		}
		_, err = differ.Apply(ctx, &diffapi.ApplyRequest{
			Diff:   &types.Descriptor{Digest: words[1], Size: size, MediaType: words[3]},
			Mounts: target,
		})
		return nil, err
	case words[0] == "collect" && len(words) == 1:
		// The end of a lease makes containerd collect; those of the differ end here too.
		list, err := leases.List(ctx, &leasesapi.ListRequest{})
		if err != nil {
			return nil, err
		}
		own, err := leases.Create(ctx, &leasesapi.CreateRequest{ID: "collect"})
		if err != nil {
			return nil, err
		}
		for _, lease := range append(list.Leases, own.Lease) {
			if _, err := leases.Delete(ctx, &leasesapi.DeleteRequest{ID: lease.ID, Sync: lease.ID == own.Lease.ID}); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
	return nil, fmt.Errorf("there is no call %q", words)
}

func main() {
	if len(os.Args) < 4 {
		must(fmt.Errorf("give a socket, the name of a snapshotter and a program"))
	}
	connection, err := grpc.Dial("unix://"+os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(err)
	snapshotter = proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(connection), os.Args[2])
	differ = diffapi.NewDiffClient(connection)
	leases = leasesapi.NewLeasesClient(connection)

	program := exec.Command(os.Args[3], os.Args[4:]...)
	program.Stderr = os.Stderr
	calls, err := program.StdoutPipe()
	must(err)
	answers, err := program.StdinPipe()
	must(err)
	must(program.Start())
	lines := bufio.NewScanner(calls)
	for lines.Scan() {
		line := "ok"
		if found, err := answer(strings.Split(lines.Text(), "\t")); err != nil {
			line = "failed\t" + strings.NewReplacer("\n", " ", "\t", " ").Replace(err.Error())
		} else if len(found) > 0 {
			line += "\t" + strings.Join(found, "\t")
		}
		_, err := fmt.Fprintln(answers, line)
		must(err)
	}
	must(program.Wait())
}
