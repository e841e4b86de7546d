package suite

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/snapshots"
)

// BenchmarkCalls measures each call on a parent with no files, and on one with 20,000: the figures must not grow with the tree.
//
//	Scripts/containerd-suite -run NONE -test.bench Calls
func BenchmarkCalls(b *testing.B) {
	for _, files := range []int{0, 20000} {
		b.Run(fmt.Sprintf("files=%d", files), func(b *testing.B) { benchmarkCalls(b, files) })
	}
}

func benchmarkCalls(b *testing.B, files int) {
	ctx := namespaces.WithNamespace(context.Background(), "bench")
	root, err := os.MkdirTemp("", "calls-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(root)
	sn, stop, err := start(ctx, root)
	if err != nil {
		b.Fatal(err)
	}
	defer stop()
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	change := func(mounts []mount.Mount, body func(string)) {
		point := filepath.Join(root, "point")
		must(os.MkdirAll(point, 0o755))
		must(mount.All(mounts, point))
		body(point)
		must(mount.Unmount(point, 0))
	}
	mounts, err := sn.Prepare(ctx, "making", "")
	must(err)
	change(mounts, func(point string) {
		for i := 0; i < files; i++ {
			directory := filepath.Join(point, fmt.Sprint(i/500))
			if i%500 == 0 {
				must(os.Mkdir(directory, 0o755))
			}
			must(os.WriteFile(filepath.Join(directory, fmt.Sprint(i)), []byte("content"), 0o644))
		}
	})
	must(sn.Commit(ctx, "parent", "making"))
	b.Run("Prepare", func(b *testing.B) {
		for i := 0; i < b.N; i++ {
			_, err := sn.Prepare(ctx, fmt.Sprintf("prepare-%d-%d", b.N, i), "parent")
			must(err)
		}
	})
	b.Run("Stat", func(b *testing.B) {
		for i := 0; i < b.N; i++ {
			_, err := sn.Stat(ctx, "parent")
			must(err)
		}
	})
	b.Run("UsageOfOneChange", func(b *testing.B) {
		key := fmt.Sprintf("usage-%d", b.N)
		mounts, err := sn.Prepare(ctx, key, "parent")
		must(err)
		change(mounts, func(point string) { must(os.WriteFile(filepath.Join(point, "new"), []byte("x"), 0o644)) })
		b.ResetTimer()
		for i := 0; i < b.N; i++ {
			_, err := sn.Usage(ctx, key)
			must(err)
		}
	})
	b.Run("Commit", func(b *testing.B) {
		for i := 0; i < b.N; i++ {
			b.StopTimer()
			key := fmt.Sprintf("commit-%d-%d", b.N, i)
			mounts, err := sn.Prepare(ctx, key, "parent")
			must(err)
			change(mounts, func(point string) { must(os.WriteFile(filepath.Join(point, "new"), []byte("x"), 0o644)) })
			b.StartTimer()
			must(sn.Commit(ctx, key+"-done", key))
		}
	})
	b.Run("Remove", func(b *testing.B) {
		for i := 0; i < b.N; i++ {
			b.StopTimer()
			key := fmt.Sprintf("remove-%d-%d", b.N, i)
			_, err := sn.Prepare(ctx, key, "parent")
			must(err)
			b.StartTimer()
			must(sn.Remove(ctx, key))
		}
	})
	b.Run("List", func(b *testing.B) {
		for i := 0; i < b.N; i++ {
			must(sn.Walk(ctx, func(context.Context, snapshots.Info) error { return nil }))
		}
	})
}
