import VarveFormats
import ArgumentParser
import VarveBtrfs
import BtrfsSendStream
import Logging
import VarveStore
import VarveSystem

/// `varve store` stat, resize and destroy.
extension StoreCommands {
    struct Status: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "stat",
            abstract: "Show where the store lies, how full it is, and what is wrong with that.",
            discussion: """
                Data and metadata lie in parts of a btrfs of their own, which are made of what is unallocated: it is full when \
                either is. What is wrong stands last, with what helps. Bundles and quota groups are counted for root only.
                """)

        enum Format: String, ChoiceArgument {
            case text, json
        }

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Option(help: "How it is shown.")
        var format = Format.text

        @Argument(help: ArgumentHelp("Where the store is.", valueName: "path"), completion: .directory)
        var path: PathArgument?

        func execute(_ context: CommandContext) throws {
            let store = try SnapshotStore.open(
                at: try context.storePath(path), logger: context.logger, cancellation: context.cancellation)
            let status = try StoreStatus(of: store)
            switch format {
            case .json: try context.output.write(Self.json(status).serialized() + [0x0a])
            case .text: try context.output.show(Self.text(status))
            }
        }

        private static func text(_ status: StoreStatus) -> String {
            func part(_ part: FileSystemUsage.Part) -> String {
                "\(size(part.used)) of \(size(part.size)) used"
            }
            func count(_ number: Int, _ noun: String) -> String {
                "\(number) \(noun)\(number == 1 ? "" : "s")"
            }
            var rows: [(String, String)] = [("store", "\(status.path)")]
            if let image = status.image {
                rows.append(
                    (
                        "image file",
                        "\(image.path), \(binarySize(image.size)), of which \(binarySize(image.allocated)) on disk"
                    ))
                rows.append(("at boot", image.isMountedAtBoot ? "mounted" : "not mounted"))
            }
            rows.append(
                (
                    "file system",
                    "btrfs \(status.fileSystem), mounted at \(status.mountPoint?.description ?? "?")"
                ))
            rows.append(("options", options(status).joined(separator: ", ")))
            rows.append(("size", size(status.usage.size)))
            rows.append(("free", binarySize(status.free)))
            rows.append(("data", part(status.usage.data)))
            rows.append(("metadata", part(status.usage.metadata)))
            rows.append(("unallocated", size(status.usage.unallocated)))
            var contents = [count(status.chains, "chain")]
            if let bundles = status.bundles { contents.append(count(bundles, "bundle")) }
            contents.append(count(status.snapshots, "snapshot"))
            if status.images > 0 { contents.append(count(status.images, "image")) }
            if status.containerds > 0 { contents.append(count(status.containerds, "containerd")) }
            rows.append(("contents", contents.joined(separator: ", ")))
            let width = rows.map { $0.0.count }.max() ?? 0
            var lines = rows.map { name, value in
                name + ":" + String(repeating: " ", count: width - name.count + 1) + value
            }
            for problem in status.problems {
                lines.append("")
                lines.append(problem.sentence)
                lines.append("  " + problem.remedy(status))
            }
            return lines.joined(separator: "\n") + "\n"
        }

        private static func options(_ status: StoreStatus) -> [String] {
            var options = [status.isNoAccessTime ? "noatime" : "access times"]
            options.append(status.compression.map { "compression \($0)" } ?? "no compression")
            if let hasQuotas = status.hasQuotas {
                options.append(hasQuotas ? "quota groups" : "no quota groups")
            }
            if status.options.contains("user_subvol_rm_allowed") { options.append("user_subvol_rm_allowed") }
            return options
        }

        private static func size(_ bytes: UInt64) -> String { binarySize(Int64(clamping: bytes)) }

        private static func json(_ status: StoreStatus) -> JSONValue {
            func number(_ bytes: UInt64) -> JSONValue { .number(JSONNumber(Int64(clamping: bytes))) }
            func part(_ part: FileSystemUsage.Part) -> JSONValue {
                ["size": number(part.size), "used": number(part.used)]
            }
            func path(_ path: BytePath) -> JSONValue { .string(path.string ?? "\(path)") }
            let image = status.image.map { image -> JSONValue in
                [
                    "path": path(image.path), "size": .number(JSONNumber(image.size)),
                    "allocated": .number(JSONNumber(image.allocated)),
                    "hostFree": .number(JSONNumber(image.hostFree)),
                    "isMountedAtBoot": .bool(image.isMountedAtBoot),
                ]
            }
            return [
                "path": path(status.path), "image": image ?? .null,
                "fileSystem": [
                    "uuid": .string(status.fileSystem), "mountPoint": status.mountPoint.map(path) ?? .null,
                    "device": status.device.map(path) ?? .null,
                    "options": .array(status.options.map { .string($0) }),
                    "isNoAccessTime": .bool(status.isNoAccessTime),
                    "compression": status.compression.map { .string($0) } ?? .null,
                    "hasQuotas": status.hasQuotas.map { .bool($0) } ?? .null,
                ],
                "size": number(status.usage.size), "free": .number(JSONNumber(status.free)),
                "unallocated": number(status.usage.unallocated), "data": part(status.usage.data),
                "metadata": part(status.usage.metadata), "chains": .number(JSONNumber(status.chains)),
                "bundles": status.bundles.map { .number(JSONNumber($0)) } ?? .null,
                "snapshots": .number(JSONNumber(status.snapshots)),
                "images": .number(JSONNumber(status.images)),
                "containerds": .number(JSONNumber(status.containerds)),
                "problems": .array(
                    status.problems.map { problem in
                        [
                            "problem": .string(problem.sentence), "remedy": .string(problem.remedy(status)),
                        ]
                    }),
            ]
        }
    }

    struct Resize: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "resize", abstract: "Make a loopback store larger or smaller.",
            discussion: """
                SIZE is what its image file is to have, such as 40G; with a plus or a minus sign it is what it is to have more or \
                less. The store stays in use meanwhile. It shrinks only as far as what is in it fits.

                Examples:

                  varve store resize 40G
                  varve store resize +10G
                  varve store resize -5G /srv/varve
                """)

        @OptionGroup(visibility: .private) var global: GlobalOptions

        /// The parser takes every dash for an option's: a number gets a minus sign in its place.
        static func respelled(_ words: [String]) -> [String] {
            words.map { word in
                guard word.hasPrefix("-"), let digit = word.utf8.dropFirst().first,
                    (0x30...0x39).contains(digit)
                else { return word }
                return NewSizeArgument.minus + word.dropFirst()
            }
        }

        @Argument(help: ArgumentHelp("The new size, or +SIZE or -SIZE.", valueName: "size"))
        var size: NewSizeArgument

        @Argument(help: ArgumentHelp("Where the store is.", valueName: "path"), completion: .directory)
        var path: PathArgument?

        func execute(_ context: CommandContext) throws {
            let path = try context.storePath(path)
            let bytes = try LoopbackStore.resize(path, to: size.size, logger: context.logger)
            context.logger.info("the store \"\(path)\" has \(binarySize(bytes)) now")
        }
    }

    struct Destroy: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "destroy", abstract: "Delete a store with all that is in it.",
            discussion: """
                Named snapshots, the bundles in PATH/bundles and what containers have written go too; of a loopback store, the image \
                file, and what brings it back at boot. Asks first, or takes --yes. Refuses while something of it is in use. \
                Bundles elsewhere stay whole.
                """)

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Flag(help: "Do not ask.")
        var yes = false

        @Argument(help: ArgumentHelp("Where the store is.", valueName: "path"), completion: .directory)
        var path: PathArgument?

        func execute(_ context: CommandContext) throws {
            let path = try context.storePath(path)
            let destruction = try StoreDestruction(
                of: path, logger: context.logger, cancellation: context.cancellation)
            if !yes {
                let contents = try destruction.contents().map {
                    " with \($0.chains) chains, \($0.snapshots) snapshots and \($0.bundles) bundles"
                        + ($0.containerds > 0 ? ", and what \($0.containerds) containerds have in it" : "")
                }
                try context.confirm("delete the store \"\(path)\"\(contents ?? "")", flag: "--yes")
            }
            try destruction.run()
            context.logger.info("the store \"\(path)\" is gone")
        }
    }
}

extension StoreStatus.Problem {
    /// What is wrong, as a sentence.
    fileprivate var sentence: String {
        switch self {
        case .accessTimes:
            "the file system is mounted with access times: every file that is read is one more to look at for the next delta"
        case .readOnly: "the file system is mounted read-only"
        case .littleSpace(let free, _): "there is little space left: \(binarySize(free))"
        case .littleMetadata(let free):
            "there is little space left for metadata, \(binarySize(free)): nothing can be written once that is used up, whatever is free"
        case .hostTooSmall(let free, let growth):
            "the image file may grow by \(binarySize(growth)), and its file system has \(binarySize(free)) free: once that is used up, writing in the store fails with I/O errors"
        case .notAtBoot: "no boot brings the store back"
        case .deviceErrors(let count):
            "the device under the file system has failed \(count == 1 ? "once" : "\(count) times")"
        }
    }

    /// What helps, for somebody at a shell.
    fileprivate func remedy(_ status: StoreStatus) -> String {
        let point = (status.mountPoint ?? status.path).shellWord
        let store = status.path.shellWord
        return switch self {
        case .accessTimes: "mount -o remount,noatime \(point), and write noatime where it is mounted from"
        case .readOnly: "see dmesg; mount -o remount,rw \(point)"
        case .littleSpace(_, isLoopback: true):
            "varve --store \(store) store gc, or: varve store resize +SIZE \(store)"
        case .littleSpace(_, isLoopback: false): "varve --store \(store) store gc, or enlarge the file system"
        case .littleMetadata: "btrfs balance start -dusage=10 \(point), or delete snapshots"
        case .hostTooSmall: "free space there, or: varve store resize SIZE \(store)"
        case .notAtBoot: "varve store mount --at-boot \(store)"
        case .deviceErrors: "btrfs device stats \(point), and dmesg, say more"
        }
    }
}
