#if Containerd
    import ArgumentParser

    @main
    struct Program {
        static func main() {
            do {
                try Daemon(DaemonOptions.parseOrExit().resolved()).run()
            } catch {
                DaemonLog.write("error", DaemonError.sentence(error))
                Daemon.exit(1)
            }
        }
    }
#else
    import Glibc
    import SystemPackage

    @main
    struct Program {
        static func main() {
            let reason =
                "it was built without containerd's interfaces; build it with: swift build --traits Containerd"
            _ = try? FileDescriptor.standardError.writeAll("varve-containerd: error: \(reason)\n".utf8)
            exit(5)
        }
    }
#endif
