import ArgumentParser
import Glibc
import VarveLayers
import Logging
import VarveOCI
import VarveStore
import VarveSystem
import SystemPackage

struct RawCommands: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "raw", abstract: "The steps of unpack and repack, one by one.",
        subcommands: [Unpack.self, AddLayer.self, RuntimeConfiguration.self, MtreeValidate.self])

    func run() throws { throw MissingCommand(command: Self.self) }

    struct Unpack: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "unpack", abstract: "Extract the root file system of an image, and nothing else.",
            discussion: "It needs no store, and what it makes cannot be repacked.")

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Option(
            help: ArgumentHelp("PATH[:TAG], an OCI image layout and a tag in it.", valueName: "image"),
            completion: .names(.image))
        var image: PathArgument

        @Option(
            help: ArgumentHelp(
                "OS/ARCH[/VARIANT] of an image for several; this host's by default.", valueName: "platform"))
        var platform: PlatformArgument?

        @Flag(help: "Keep symbolic links to directories where a layer has a directory.")
        var keepDirlinks = false

        @Flag(help: .strictXattrs)
        var strictXattrs = false

        @OptionGroup var owners: OwnerOptions

        @Option(help: .maxSize)
        var maxSize: SizeArgument?

        @Option(help: .maxEntries)
        var maxEntries: CountArgument?

        @Argument(help: ArgumentHelp("The directory to make.", valueName: "rootfs"), completion: .directory)
        var rootfs: PathArgument

        func execute(_ context: CommandContext) throws {
            let owners = owners.mapping
            try owners.checkPrivileges()
            context.tolerateMissingPermissions()
            let reference = try ImageReference.locating(image.path)
            let resolved = try ImageLayout.resolve(
                reference, platform: platform?.platform, cancellation: context.cancellation)
            var options = Unpacking.Options()
            options.apply.keepDirlinks = keepDirlinks
            options.apply.owners = owners
            options.apply.refusesOddAttributes = strictXattrs
            options.limits = UnpackLimits(maxSize: maxSize, maxEntries: maxEntries)
            let result = try Unpacking(
                driver: RootfsDriver(), options: options, cancellation: context.cancellation,
                logger: context.logger,
                progress: context.showProgress("unpacking")
            ).unpackRootfs(resolved, into: rootfs.path)
            guard context.program == .umoci else {
                return context.logger.info(
                    "unpacked the \(result.layers) layers of \(reference) to \"\(rootfs.path)\"")
            }
            // As umoci has it: warnings.
            context.logger.warning("unpacking rootfs ...")
            for layer in resolved.layers { context.logger.info("unpack layer: \(layer.digest)") }
            for line in ["... done", "unpacked image rootfs: \(rootfs.path)"] {
                context.logger.warning("\(line)")
            }
        }
    }

    struct AddLayer: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "add-layer",
            abstract: "Add a tar archive to an image as its topmost layer, as it is.",
            usage: "varve raw add-layer --image <image> [--tag <tag>] [<options>] <archive>",
            discussion: """
                The archive is not compressed; varve does that. Names that begin with .wh. in it are deletions.

                Example:

                  tar --numeric-owner -cC ./diff . > diff.tar && varve raw add-layer --image ./debian:12 diff.tar
                """)

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @OptionGroup var change: ChangedImageOptions

        @Option(help: "How the layer is compressed; auto is as the layers below it.")
        var compress = CompressionArgument.auto

        @Argument(help: ArgumentHelp("The tar archive.", valueName: "archive"))
        var archive: PathArgument

        func execute(_ context: CommandContext) throws {
            try change.run(context, as: "raw add-layer") { image, _, _ in
                let options = Inserting.Options(
                    compression: compress.compression ?? image.usualCompression)
                return try Inserting(
                    into: image.layout, options: options, cancellation: context.cancellation
                ).add(archive: archive.path)
            }
        }
    }

    struct RuntimeConfiguration: ExecutableCommand {
        static let about = CommandConfiguration(
            commandName: "runtime-config", abstract: "Write the config.json of an image.",
            discussion: """
                A user by name is looked up in the root file system that --rootfs names; without it such a user becomes \
                root, and a warning says so.

                Example:

                  varve raw runtime-config --image ./debian:12 --rootfs ./rootfs config.json
                """,
            aliases: ["config"])

        @OptionGroup(visibility: .private) var global: GlobalOptions

        @Option(
            help: ArgumentHelp("PATH[:TAG], an OCI image layout and a tag in it.", valueName: "image"),
            completion: .names(.image))
        var image: PathArgument

        @Option(help: ArgumentHelp("The root file system that the container is to have.", valueName: "path"))
        var rootfs: PathArgument?

        @OptionGroup var owners: OwnerOptions

        @Argument(help: ArgumentHelp("The file to write; one that is there is replaced.", valueName: "file"))
        var file: PathArgument

        func execute(_ context: CommandContext) throws {
            context.tolerateMissingPermissions()
            let image = try ImageLayout.resolve(
                try ImageReference.locating(image.path), cancellation: context.cancellation)
            if context.program == .umoci { context.logger.info("generating config.json") }
            try write(try configuration(image.config, context), context.cancellation)
        }

        private func configuration(_ config: ImageConfig, _ context: CommandContext) throws -> [UInt8] {
            // umoci names it as it lies beside the file.
            let name = (context.program == .umoci ? rootfs?.path.lastComponent : nil).map {
                $0.isEmpty ? "/" : $0.description
            }
            return try Unpacking.runtimeConfiguration(
                of: config, rootfs: rootfs?.path, path: name, owners: owners.mapping,
                hostname: context.program.hostname
            ) {
                context.logger.warning("\($0), or name one with --rootfs; root is taken instead")
            } onWarning: {
                context.logger.warning("\($0)")
            }
        }

        /// Replaces a regular file as a whole; into anything else, such as /dev/stdout, it is written. Nothing on the way may be
        /// another user's to change.
        private func write(_ bytes: [UInt8], _ cancellation: Cancellation) throws {
            let parent = file.path.directory
            let name = file.path.lastComponent
            let operation = "write the runtime configuration"
            let directory: SharedDescriptor
            do throws(PlaceError) {
                directory = SharedDescriptor(try Place.directory(parent, .closedToOthers))
            } catch {
                throw VarveError(error, operation, file.path)
            }
            let (existing, owner) = try attempt(operation, file.path) { () throws(Errno) in
                (try directory.fd.statusIfPresent(of: name), try directory.fd.status().uid)
            }
            guard let existing, !existing.isRegular else {
                return try attempt(operation, file.path) { () throws(Errno) in
                    try directory.fd.writeFileDurably(name, bytes)
                }
            }
            // The owner of a directory can put a link there at any moment, to a file that is not theirs.
            guard owner == 0 || owner == geteuid() else {
                throw VarveError(
                    .failed,
                    "\"\(file.path)\" is no regular file, and lies in a directory of another user, who may make it lead anywhere",
                    subject: file.path, remedy: .name("the file itself"))
            }
            let place: SharedDescriptor
            do throws(PlaceError) {
                place = SharedDescriptor(try Place.handle(file.path, .closedToOthers))
            } catch {
                throw VarveError(error, operation, file.path)
            }
            let (type, reader, isPipe) = try attempt(operation, file.path) { () throws(Errno) in
                let status = try place.fd.status()
                return (status.type, status.uid, try place.fd.fileSystem().isOfPipes)
            }
            // The configuration holds the variables of the image.
            if type == .fifo, !isPipe, reader != 0, reader != geteuid() {
                throw refusal("is a FIFO of another user")
            }
            // Of a device, the open alone can do something; a FIFO that nobody reads would wait.
            if type == .blockDevice { throw refusal("is a block device") }
            let opened: SharedDescriptor
            do throws(Errno) {
                opened = SharedDescriptor(
                    try place.fd.reopened(
                        type == .regular ? [.writeOnly, .truncate] : [.writeOnly, .nonBlocking]))
            } catch .noSuchAddressOrDevice where type == .fifo {
                throw refusal("is a FIFO that nobody reads")
            } catch {
                throw VarveError.system(operation, file.path, error)
            }
            try attempt(operation, file.path) { () throws(Errno) in
                if type == .regular {
                    try opened.fd.writeFull(bytes)
                } else {
                    try opened.fd.writeFull(bytes, cancellation)
                }
            }
        }

        private func refusal(_ reason: String) -> VarveError {
            VarveError(
                .failed, "\"\(file.path)\" \(reason)", subject: file.path, remedy: .name("a regular file"))
        }

        private func attempt<T: ~Copyable>(
            _ operation: String, _ path: BytePath, _ body: () throws(Errno) -> T
        ) throws -> T {
            do throws(Errno) {
                return try body()
            } catch {
                throw VarveError.system(operation, path, error)
            }
        }
    }
}
