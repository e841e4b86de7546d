#if Containerd
    import VarveFormats

    import ArgumentParser
    import Logging
    import VarveContainerdRPC
    import VarveStore
    import VarveSystem

    /// What the daemon is told by its flags and, where they say nothing, by its configuration file.
    struct DaemonOptions: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "varve-containerd",
            abstract: "Serves a store of Varve to containerd: snapshotter and differ on one socket.",
            version: DaemonOptions.versionText)
        static let versionText = "varve-containerd, snapshots.v1 and diff.v1"
        static let defaultConfiguration = "/etc/varve-containerd/config.toml"

        @Option(help: ArgumentHelp("The socket to listen at.", valueName: "path"))
        var address: String?
        @Option(help: ArgumentHelp("The configuration file.", valueName: "path"))
        var config: String?
        @Option(help: ArgumentHelp("The store.", valueName: "path"))
        var root: String?
        @Option(
            help: ArgumentHelp(
                "The name under which this containerd's snapshots are kept.", valueName: "name"))
        var id: String?
        @Option(help: ArgumentHelp("The socket of containerd itself.", valueName: "path"))
        var containerd: String?
        @Option(
            name: .customLong("log-level"),
            help: ArgumentHelp("trace, debug, info, notice, warning, error or critical.", valueName: "level"))
        var logLevel: String?
        @Option(
            name: .customLong("log-format"),
            help: ArgumentHelp("text, or json for an object on each line.", valueName: "format"))
        var logFormat: String?
        @Option(
            help: ArgumentHelp(
                "Serve figures to Prometheus at this address: HOST:PORT, or PORT of this host's loopback.",
                valueName: "address"))
        var metrics: String?

        struct Resolved {
            var address = "/run/varve-containerd/varve-containerd.sock"
            var root = "/var/lib/varve"
            var id = "default"
            var containerd = "/run/containerd/containerd.sock"
            var logLevel = Logger.Level.info
            var logFormat = LogLine.Format.text
            /// Nil for none.
            var metrics: (host: String, port: Int)?
            /// Bytes for all layers that are inflated at the same time.
            var memory = 96 << 20
        }

        func resolved() throws -> Resolved {
            var result = Resolved()
            let path = config ?? Self.defaultConfiguration
            if let bytes = try Place.configuration(BytePath(path)) {
                let table: TOMLTable
                do throws(TOMLError) { table = try TOMLTable(parsing: bytes) } catch {
                    throw DaemonError("the configuration file \"\(path)\" is not valid: \(error)")
                }
                try result.read(table, path)
            } else if config != nil {
                throw DaemonError("there is no configuration file \"\(path)\"")
            }
            result.address = address ?? result.address
            result.root = root ?? result.root
            result.id = id ?? result.id
            result.containerd = containerd ?? result.containerd
            if let logLevel {
                guard let level = Logger.Level(rawValue: logLevel) else {
                    throw DaemonError("\"\(logLevel)\" is no log level")
                }
                result.logLevel = level
            }
            if let logFormat { result.logFormat = try Self.format(logFormat) }
            if let metrics { result.metrics = try Self.address(metrics) }
            for (name, path) in [
                ("address", result.address), ("root", result.root), ("containerd", result.containerd),
            ]
            where !path.beginsWithByte("/") {
                throw DaemonError("\(name) must be an absolute path, and \"\(path)\" is not")
            }
            return result
        }

        fileprivate static func format(_ text: String) throws(DaemonError) -> LogLine.Format {
            guard let format = LogLine.Format(rawValue: text) else {
                throw DaemonError("\"\(text)\" is no format of logs; there are text and json")
            }
            return format
        }

        /// Nil for an empty text, by which a flag turns off what the configuration file turns on.
        fileprivate static func address(_ text: String) throws(DaemonError) -> (host: String, port: Int)? {
            if text.isEmpty { return nil }
            guard let address = MetricsServer.address(text) else {
                throw DaemonError(
                    "\"\(text)\" is no address for the metrics; it takes HOST:PORT, as in 127.0.0.1:9464, or a port"
                )
            }
            return address
        }
    }

    extension DaemonOptions.Resolved {
        /// Throws for what is unknown: a misspelt key must not be taken for one that is not there.
        fileprivate mutating func read(_ table: TOMLTable, _ path: String) throws(DaemonError) {
            func wrong(_ member: TOMLTable.Member, _ reason: String) -> DaemonError {
                DaemonError("the configuration file \"\(path)\" is not valid: line \(member.line): \(reason)")
            }
            for member in table.members {
                func text() throws(DaemonError) -> String {
                    guard case .string(let value) = member.value else {
                        throw wrong(member, "\"\(member.key)\" is not a string")
                    }
                    return value
                }
                switch member.key {
                case "address": address = try text()
                case "root": root = try text()
                case "id": id = try text()
                case "containerd": containerd = try text()
                case "log-level":
                    guard let level = Logger.Level(rawValue: try text()) else {
                        throw wrong(member, "\"log-level\" is none of the levels")
                    }
                    logLevel = level
                case "log-format":
                    do throws(DaemonError) { logFormat = try DaemonOptions.format(text()) } catch {
                        throw wrong(member, error.description)
                    }
                case "metrics":
                    do throws(DaemonError) { metrics = try DaemonOptions.address(text()) } catch {
                        throw wrong(member, error.description)
                    }
                case "memory":
                    guard case .integer(let mebibytes) = member.value, (32...65536).contains(mebibytes) else {
                        throw wrong(member, "\"memory\" is not a number of MiB from 32 to 65536")
                    }
                    memory = Int(mebibytes) << 20
                default: throw wrong(member, "there is no setting \"\(member.key)\"")
                }
            }
        }
    }
#endif
