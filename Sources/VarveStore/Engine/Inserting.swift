import VarveArchive
package import VarveLayers
package import VarveOCI
package import VarveSystem
import SystemPackage

/// Writes files of this host, a deletion or an archive as one new layer, which needs no bundle.
package struct Inserting: Sendable {
    package struct Options: Sendable {
        package var compression: LayerCompression
        package var threads = 2
        /// What the packer does besides; the placement is set here.
        package var pack = PackOptions()

        package init(compression: LayerCompression) { self.compression = compression }
    }

    private let layout: ImageLayout
    private let options: Options
    private let cancellation: Cancellation

    package init(into layout: ImageLayout, options: Options, cancellation: Cancellation = Cancellation()) {
        self.layout = layout
        self.options = options
        self.cancellation = cancellation
    }

    /// A layer in which the file or directory `source` of this host lies at `target`.
    ///
    /// - Parameter isOpaque: what lower layers have in `target`, a directory, is not seen any more.
    package func insert(_ source: BytePath, at target: BytePath, isOpaque: Bool = false) throws -> (
        Descriptor, DiffID
    ) {
        let target = try Self.target(target)
        let status = try attempt("look at", source) { () throws(Errno) in
            try FileDescriptor.workingDirectory.status(of: source)
        }
        if isOpaque, !status.isDirectory {
            throw VarveError(
                .usage, "\"\(source)\" is not a directory, and only a directory can hide what was in another",
                subject: source)
        }
        if target == .current, !status.isDirectory {
            throw VarveError(
                .usage, "\"\(source)\" cannot be the root of an image: it is not a directory",
                subject: source, remedy: .name("its place"))
        }
        let parent = source.parent
        let directory = status.isDirectory ? source : parent.isEmpty ? .current : parent
        let root: SharedDescriptor
        do throws(PlaceError) { root = SharedDescriptor(try Place.directory(directory, .safeLinks)) } catch {
            throw VarveError(error, "open the directory", directory)
        }
        // A link that root of a container puts there is one of root's.
        let found = try attempt("look at", source) { () throws(Errno) in
            try status.isDirectory ? root.fd.status() : root.fd.status(of: source.lastComponent)
        }
        guard found.isSameFile(as: status) else {
            throw VarveError(
                .failed, "\"\(source)\" was replaced while it was opened", subject: source,
                remedy: .tryAgainLater)
        }
        let inTree = status.isDirectory ? BytePath.current : source.lastComponent
        let changes =
            status.isDirectory
            ? try Change.wholeTree(root.fd) { try cancellation.check() }
            : [Change(kind: .added, path: inTree, type: status.type ?? .regular)]
        var pack = options.pack
        pack.placement = PackPlacement(source: inTree, target: target)
        // The files are the host's, and the user's choice.
        pack.crossesMounts = true
        return try NewLayer.write(into: layout, options.compression, threads: options.threads) { sink in
            let writer = TarWriter(sink)
            if isOpaque { try writer.write(Self.deletion(target.child(Whiteout.opaqueName))) }
            try LayerPacker(root: root.fd, options: pack).pack(changes, to: writer) { _ in
                try cancellation.check()
            }
        }
    }

    /// A layer that deletes `target`.
    package func delete(_ target: BytePath) throws -> (Descriptor, DiffID) {
        let target = try Self.target(target)
        guard target != .current else {
            throw VarveError(
                .usage, "the root of an image cannot be deleted", subject: target,
                remedy: .name("what is in it"))
        }
        let whiteout = target.parent.appending(Whiteout.name(deleting: target.lastComponent))
        return try NewLayer.write(into: layout, options.compression, threads: options.threads) { sink in
            let writer = TarWriter(sink)
            try writer.write(Self.deletion(whiteout))
            try writer.finish()
        }
    }

    /// A layer that is the tar archive `archive`, byte for byte. It is read as it goes: what could not be unpacked again
    /// does not become a layer.
    package func add(archive: BytePath) throws -> (Descriptor, DiffID) {
        let place: SharedDescriptor
        do throws(PlaceError) { place = SharedDescriptor(try Place.handle(archive, .safeLinks)) } catch {
            throw VarveError(error, "open the archive", archive)
        }
        let file = SharedDescriptor(
            try attempt("open the archive", archive) { () throws(Errno) in
                // A FIFO that nobody writes to yet is waited for, until it is asked to stop.
                let type = try place.fd.status().type
                // To open a device may do something to it.
                guard type == .regular || type == .fifo else { throw .notRegularFile }
                return try place.fd.reopened([.readOnly, .nonBlocking])
            })
        return try NewLayer.write(into: layout, options.compression, threads: options.threads) { sink in
            let copy = CopyToSink(sink)
            let reader = TarReader(TappedSource(FileSource(file, cancellation: cancellation), observer: copy))
            do {
                while try reader.nextEntry() != nil { try cancellation.check() }
            } catch let error as TarError {
                throw VarveError(
                    .invalidInput,
                    "\"\(archive)\" is not an uncompressed tar archive that can be a layer: \(error.problem)",
                    subject: archive, remedy: error.remedy, cause: error)
            }
        }
    }

    private static func deletion(_ path: BytePath) -> TarEntry {
        TarEntry(path: path, kind: .regular, mode: 0, modificationTime: .epoch)
    }

    /// `target` from the root of the image, `..` taken as that of a path that cannot leave it.
    private static func target(_ target: BytePath) throws -> BytePath {
        var parts: [BytePath] = []
        for part in target.components where part != .current {
            if part == ".." {
                _ = parts.popLast()
                continue
            }
            guard !part.hasPrefix(Whiteout.prefix) else {
                throw VarveError(
                    .usage,
                    "nothing can be called \"\(target)\": names that begin with \".wh.\" mean deletions in a layer",
                    subject: target
                )
            }
            parts.append(part)
        }
        return parts.reduce(BytePath.current) { $0.child($1) }
    }
}

extension BytePath {
    /// `name` in the directory that this path is, `.` being the root.
    fileprivate func child(_ name: BytePath) -> BytePath { self == .current ? name : appending(name) }
}

/// Writes what is read elsewhere to a sink; an error ends the reading at its end.
private final class CopyToSink: ByteObserver {
    private let sink: any ByteSink
    private var failure: (any Error)?

    init(_ sink: any ByteSink) { self.sink = sink }

    func observe(_ bytes: UnsafeRawBufferPointer) {
        guard failure == nil else { return }
        do { try unsafe sink.write(bytes) } catch { failure = error }
    }

    func finish() throws { if let failure { throw failure } }
}
