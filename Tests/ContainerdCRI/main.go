// Command cri calls containerd as a kubelet does, by CRI.
//
//	cri SOCKET pull IMAGE | images | rmi IMAGE
//	cri SOCKET pod NAME LOGS                        a pod in the network of the host, below a control group of that name; prints its ID
//	cri SOCKET run POD NAME IMAGE COMMAND…          a container in it, started; prints its ID. NAME is the pod's
//	cri SOCKET exec CONTAINER COMMAND…              prints what the command prints
//	cri SOCKET fs                                   ImageFsInfo: MOUNTPOINT BYTES INODES
//	cri SOCKET stats CONTAINER                      ContainerStats, of its writable layer: MOUNTPOINT BYTES INODES
//	cri SOCKET poll N                               ListContainerStats and ImageFsInfo N times; prints the milliseconds of one of both
//	cri SOCKET rm CONTAINER | rm-pod POD
//	cri SOCKET ls                                   a line for each pod, container and image
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, "cri:", err)
		os.Exit(1)
	}
	return value
}

func pod(name, logs string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Uid: name, Namespace: "default"},
		LogDirectory: logs,
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: "/" + name,
			SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE},
			},
		},
	}
}

func show(usage *cri.FilesystemUsage) {
	fmt.Println(usage.GetFsId().GetMountpoint(), usage.GetUsedBytes().GetValue(), usage.GetInodesUsed().GetValue())
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	connection := must(grpc.NewClient("unix://"+os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials())))
	runtime, images := cri.NewRuntimeServiceClient(connection), cri.NewImageServiceClient(connection)
	arguments := os.Args[3:]
	switch os.Args[2] {
	case "pull":
		fmt.Println(must(images.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: arguments[0]}})).ImageRef)
	case "rmi":
		must(images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: arguments[0]}}))
	case "pod":
		fmt.Println(must(runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: pod(arguments[0], arguments[1])})).PodSandboxId)
	case "run":
		made := must(runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
			PodSandboxId: arguments[0],
			Config: &cri.ContainerConfig{
				Metadata: &cri.ContainerMetadata{Name: "main"},
				Image:    &cri.ImageSpec{Image: arguments[2]},
				Command:  arguments[3:],
				Linux:    &cri.LinuxContainerConfig{},
			},
			SandboxConfig: pod(arguments[1], ""),
		}))
		must(runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: made.ContainerId}))
		fmt.Println(made.ContainerId)
	case "exec":
		answer := must(runtime.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: arguments[0], Cmd: arguments[1:], Timeout: 60}))
		os.Stdout.Write(answer.Stdout)
		os.Stderr.Write(answer.Stderr)
		os.Exit(int(answer.ExitCode))
	case "fs":
		for _, usage := range must(images.ImageFsInfo(ctx, &cri.ImageFsInfoRequest{})).ImageFilesystems {
			show(usage)
		}
	case "stats":
		show(must(runtime.ContainerStats(ctx, &cri.ContainerStatsRequest{ContainerId: arguments[0]})).Stats.WritableLayer)
	case "poll":
		count := must(strconv.Atoi(arguments[0]))
		start := time.Now()
		for range count {
			must(runtime.ListContainerStats(ctx, &cri.ListContainerStatsRequest{}))
			must(images.ImageFsInfo(ctx, &cri.ImageFsInfoRequest{}))
		}
		fmt.Printf("%.2f\n", time.Since(start).Seconds()*1000/float64(count))
	case "rm":
		must(runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: arguments[0]}))
		must(runtime.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: arguments[0]}))
	case "rm-pod":
		must(runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: arguments[0]}))
		must(runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: arguments[0]}))
	case "ls":
		for _, item := range must(runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})).Items {
			fmt.Println("pod", item.Id)
		}
		for _, item := range must(runtime.ListContainers(ctx, &cri.ListContainersRequest{})).Containers {
			fmt.Println("container", item.Id)
		}
		for _, item := range must(images.ListImages(ctx, &cri.ListImagesRequest{})).Images {
			fmt.Println("image", item.Id, item.RepoTags)
		}
	default:
		fmt.Fprintln(os.Stderr, "cri: there is no command", os.Args[2])
		os.Exit(2)
	}
}
