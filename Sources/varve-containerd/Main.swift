#if Containerd
    import ArgumentParser
    import Logging
    import VarveStore

    @main
    struct Program {
        static func main() {
            let options = DaemonOptions.parseOrExit()
            // Before the configuration is read, the flag alone says how to write.
            var format = options.logFormat.flatMap { LogLine.Format(rawValue: $0) } ?? .text
            do {
                let resolved = try options.resolved()
                format = resolved.logFormat
                try Daemon(resolved).run()
            } catch {
                DaemonLog.write(.error, DaemonError.sentence(error), [], format)
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
