package import Logging
import VarveFormats
import VarveLayers
package import VarveOCI
package import VarveSystem
import SystemPackage

/// Copies an image of a layout to where another tool keeps it, by skopeo.
package struct ImagePush {
    private let destination: TransportReference
    private let logger: Logger
    private let platform: Platform?
    private let cancellation: Cancellation
    private let progress: ProgressHandler

    /// - Parameter platform: which image of several is copied; nil for all of them, where the destination takes several.
    package init(
        to destination: TransportReference, platform: Platform? = nil,
        cancellation: Cancellation = Cancellation(), logger: Logger,
        progress: @escaping ProgressHandler = { _ in }
    ) throws {
        guard destination.digest == nil else {
            throw VarveError(
                .usage, "\"\(destination)\" has a digest, but what is pushed decides its digest",
                subject: BytePath(destination.description), remedy: .name("a tag"))
        }
        self.destination = destination
        self.platform = platform
        self.cancellation = cancellation
        self.progress = progress
        self.logger = logger
    }

    /// Copies the image. Every blob of it must be in the layout.
    ///
    /// - Returns: what was copied: a manifest, or an index of several.
    package func push(_ reference: ImageReference) throws -> Descriptor {
        let image = try ImageLayout.resolve(
            reference, platform: platform, cancellation: cancellation)
        let layout = image.layout
        var pushed = image.manifestDescriptor
        if platform == nil, destination.transport.takesSeveral, let first = image.path.first,
            MediaType.isIndex(first.mediaType)
        {
            pushed = first
        }
        let missing = try layout.missingBlobs(below: pushed)
        if let first = missing.first {
            let source = try layout.sourcedEntries().first {
                $0.descriptor.digest == image.manifestDescriptor.digest
            }?.source
            throw VarveError(
                .notFound,
                "the image layout \(layout.path) lacks \(missing.count) blobs of \(reference), such as \(first.digest)",
                subject: BytePath("\(reference)"),
                remedy: source.map { .pullImage($0) }
                    ?? (MediaType.isIndex(pushed.mediaType) ? .choosePlatform : .copyImageAgain))
        }
        if destination.transport == .oci {
            try copy(pushed, of: layout, named: reference)
            return pushed
        }
        let skopeo = try Skopeo(
            for: destination.transport, platform: platform, cancellation: cancellation, logger: logger)
        let written = try destination.path.map { try WrittenFile(destination, at: $0, cancellation) }
        // A layout with this image alone: its tag, and the path of the layout, may be what skopeo cannot name.
        let place = try TransferPlace(near: nil, cancellation: cancellation)
        try place.layout.note(
            [], tagged: (pushed, TransferPlace.tag), from: reference.description, used: .now())
        let blobs = try sharedBlobs(of: pushed, in: layout, place)
        let several: [BytePath] = MediaType.isIndex(pushed.mediaType) ? ["--all"] : []
        let sending = SentBytes(of: image)
        progress(.planned(layersInPlace: 0, layers: image.layers.count, bytes: sending.total))
        try skopeo.copy(
            several + blobs + [place.reference, BytePath((written?.reference ?? destination).description)],
            "push to", destination
        ) { progress(.read(bytes: sending.look(at: $0))) }
        try written?.putInPlace()
        extendLifetime(place)
        return pushed
    }

    /// Has skopeo read the blobs of the layout where nobody else can put something in their place; elsewhere they are copied, as what they are
    /// checked to be.
    ///
    /// - Returns: options of skopeo.
    private func sharedBlobs(of pushed: Descriptor, in layout: ImageLayout, _ place: TransferPlace) throws
        -> [BytePath]
    {
        let folder = layout.path.appending("blobs")
        if (try? Place.ownDirectory(folder)) != nil, let opened = try? Place.directory(folder, .own),
            let entries = try? opened.fd.entries(),
            entries.allSatisfy({ (try? Place.ownDirectory(folder.appending($0.name))) != nil })
        {
            return ["--src-shared-blob-dir", folder]
        }
        try place.layout.adoptAll(below: pushed, from: layout) { _ in try cancellation.check() }
        return []
    }

    /// To a layout on this host nothing but a copy of its blobs is needed.
    private func copy(_ pushed: Descriptor, of layout: ImageLayout, named reference: ImageReference) throws {
        let name = try ImageReference.locating(BytePath(destination.name))
        let tag = try name.tagToChange()
        try StoreGround.checkLayout(name.path)
        try ImageLayout.changeOrCreate(at: name.path, cancellation) { other in
            try other.adoptAll(below: pushed, from: layout) { _ in try cancellation.check() }
            try other.tag(tag, pushed)
        }
    }
}

extension TransportReference.Transport {
    /// Whether it keeps images for several platforms under one name.
    fileprivate var takesSeveral: Bool {
        switch self {
        case .docker, .oci, .dir: true
        case .dockerArchive, .ociArchive, .dockerDaemon, .containersStorage: false
        }
    }
}

/// How much of the blobs of an image a process has read, which is what it has sent.
private final class SentBytes {
    private let sizes: [BytePath: Int64]
    private var read: [BytePath: Int64] = [:]
    let total: Int64

    init(of image: ResolvedImage) {
        sizes = Dictionary(
            image.layers.map { (BytePath($0.digest.hex), $0.size) }, uniquingKeysWith: { first, _ in first })
        total = sizes.values.saturatingSum()
    }

    func look(at process: Int32) -> Int64 {
        let folder = BytePath("/proc/\(process)/fd")
        var open: Set<BytePath> = []
        guard let opened = try? FileDescriptor.workingDirectory.openDirectory(folder) else {
            return read.values.saturatingSum()
        }
        for entry in (try? opened.fd.entries()) ?? [] {
            guard
                let target = try? FileDescriptor.workingDirectory.readSymbolicLink(
                    folder.appending(entry.name)), sizes[target.lastComponent] != nil,
                let info = try? FileDescriptor.workingDirectory.readFile(
                    BytePath("/proc/\(process)/fdinfo/\(entry.name)"), limit: 4096)
            else { continue }
            // proc(5): `pos:`, a tabulator, the offset.
            let line = String(decoding: info, as: UTF8.self).prefix { $0 != "\n" }
            guard let offset = Int64(line.drop { !$0.isNumber }) else { continue }
            open.insert(target.lastComponent)
            read[target.lastComponent] = max(read[target.lastComponent] ?? 0, offset)
        }
        // What it has open no more it has read to the end.
        for name in read.keys where !open.contains(name) { read[name] = sizes[name] }
        return read.values.saturatingSum()
    }
}
