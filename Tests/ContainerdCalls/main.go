// Command calls measures the calls of snapshotters, each on a parent with few files and on one with many, in turn.
//
//	calls -few N -many N -rounds N -point DIRECTORY LABEL=SOCKET=SNAPSHOTTER…
//	calls -list N LABEL=SOCKET=SNAPSHOTTER
//
// SOCKET is that of a snapshotter's daemon, or of a containerd, which passes the calls on to its snapshotter of that name. It prints a line of
// JSON for each call: label, files of the parent, name of the call, and the seconds of each round.
//
// Scripts/bench builds and runs it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

type result struct {
	Label   string    `json:"label"`
	Files   int       `json:"files"`
	Call    string    `json:"call"`
	Seconds []float64 `json:"seconds"`
}

type contestant struct {
	label string
	snapshots.Snapshotter
}

var (
	point   string
	ctx     = namespaces.WithNamespace(context.Background(), "calls")
	results []*result
	// containerd collects what nothing refers to.
	kept = snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "kept"})
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "calls:", err)
		os.Exit(1)
	}
}

func timed(label string, files int, call string, body func() error) {
	start := time.Now()
	err := body()
	seconds := time.Since(start).Seconds()
	if err != nil {
		must(fmt.Errorf("%s: %s: %w", label, call, err))
	}
	for _, r := range results {
		if r.Label == label && r.Files == files && r.Call == call {
			r.Seconds = append(r.Seconds, seconds)
			return
		}
	}
	results = append(results, &result{label, files, call, []float64{seconds}})
}

func change(mounts []mount.Mount, body func(string)) {
	must(mount.All(mounts, point))
	body(point)
	must(mount.Unmount(point, 0))
}

func write(path, text string) { must(os.WriteFile(path, []byte(text), 0o644)) }

func makeParent(c contestant, files int) string {
	name := fmt.Sprintf("parent-%d", files)
	mounts, err := c.Prepare(ctx, name+"-making", "", kept)
	must(err)
	change(mounts, func(root string) {
		for i := 0; i < files; i++ {
			directory := filepath.Join(root, fmt.Sprint(i/500))
			if i%500 == 0 {
				must(os.Mkdir(directory, 0o755))
			}
			write(filepath.Join(directory, fmt.Sprint(i)), "content")
		}
	})
	must(c.Commit(ctx, name, name+"-making", kept))
	return name
}

func round(c contestant, files int, number int) {
	parent := fmt.Sprintf("parent-%d", files)
	key := fmt.Sprintf("%s-%d", parent, number)
	call := func(name string, body func() error) { timed(c.label, files, name, body) }
	var mounts []mount.Mount
	call("Prepare", func() (err error) {
		mounts, err = c.Prepare(ctx, key, parent, kept)
		return
	})
	change(mounts, func(root string) { write(filepath.Join(root, "new"), key) })
	call("Usage, active, one change", func() error { _, err := c.Usage(ctx, key); return err })
	call("Commit, one change", func() error { return c.Commit(ctx, key+"-done", key, kept) })
	call("Usage, committed", func() error { _, err := c.Usage(ctx, key+"-done"); return err })
	call("Remove", func() error { return c.Remove(ctx, key+"-done") })
}

func main() {
	few := flag.Int("few", 200, "files of the small parent")
	many := flag.Int("many", 20000, "files of the large parent")
	rounds := flag.Int("rounds", 20, "rounds")
	list := flag.Int("list", 0, "make so many snapshots, and measure List at a tenth of them and at all")
	flag.StringVar(&point, "point", "", "an empty directory to mount at")
	flag.Parse()
	var contestants []contestant
	for _, argument := range flag.Args() {
		parts := strings.SplitN(argument, "=", 3)
		if len(parts) != 3 {
			must(fmt.Errorf("%q is not LABEL=SOCKET=SNAPSHOTTER", argument))
		}
		connection, err := grpc.Dial("unix://"+parts[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
		must(err)
		contestants = append(contestants,
			contestant{parts[0], proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(connection), parts[2])})
	}
	if *list > 0 {
		measureList(contestants[0], *list, *rounds)
	} else {
		sizes := []int{*few, *many}
		for _, c := range contestants {
			for _, files := range sizes {
				makeParent(c, files)
			}
		}
		// The first round warms up.
		for number := 0; number <= *rounds; number++ {
			for offset := range contestants {
				for _, files := range sizes {
					round(contestants[(number+offset)%len(contestants)], files, number)
				}
			}
			if number == 0 {
				results = nil
			}
		}
		for _, c := range contestants {
			for _, files := range sizes {
				must(c.Remove(ctx, fmt.Sprintf("parent-%d", files)))
			}
		}
	}
	for _, r := range results {
		line, err := json.Marshal(r)
		must(err)
		fmt.Println(string(line))
	}
}

func measureList(c contestant, count, rounds int) {
	for made := 0; made < count; made++ {
		if made == count/10 {
			walks(c, made, rounds)
		}
		_, err := c.Prepare(ctx, fmt.Sprintf("listed-%d", made), "", kept)
		must(err)
	}
	walks(c, count, rounds)
	for made := 0; made < count; made++ {
		must(c.Remove(ctx, fmt.Sprintf("listed-%d", made)))
	}
}

func walks(c contestant, count, rounds int) {
	for i := 0; i < rounds; i++ {
		timed(c.label, count, "List", func() error {
			found := 0
			err := c.Walk(ctx, func(context.Context, snapshots.Info) error { found++; return nil })
			if err == nil && found != count {
				err = fmt.Errorf("%d snapshots, where there are %d", found, count)
			}
			return err
		})
	}
}
