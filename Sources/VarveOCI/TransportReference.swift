import VarveFormats
package import VarveSystem
private import SystemPackage

/// An image where other tools keep it, as containers-transports(5) names it: in a registry, an archive, a daemon.
package struct TransportReference: Hashable, Sendable, CustomStringConvertible {
    /// How the image is reached.
    package enum Transport: String, Sendable, CaseIterable {
        case docker
        case dockerArchive = "docker-archive"
        case ociArchive = "oci-archive"
        case dockerDaemon = "docker-daemon"
        case containersStorage = "containers-storage"
        case oci
        case dir

        /// What an image of it begins with: `docker://`.
        package var prefix: String { rawValue + separator }

        /// What stands between its name and that of the image.
        fileprivate var separator: String { self == .docker ? "://" : ":" }
    }

    package let transport: Transport
    /// What stands behind the transport. Of a registry it has the host, and a tag or a digest.
    package let name: String
    /// Of a registry: the digest that the image has.
    package let digest: Digest?

    /// Bytes of a reference at most. No registry has longer names.
    private static let limit = 4096

    /// Nil for what does not begin with the name of a transport.
    ///
    /// - Throws: `usage` for a name that nothing can have.
    package init?(parsing text: BytePath) throws(OCIError) {
        guard let word = text.string,
            let transport = Transport.allCases.first(where: {
                word.hasPrefix($0.rawValue + $0.separator)
            })
        else { return nil }
        let rest = String(word.dropFirst(transport.rawValue.count + transport.separator.count))
        // Names in registries are ASCII; what is more could be taken apart in two ways.
        guard !rest.isEmpty, word.utf8.count <= Self.limit, ShownText.isPlain(word),
            transport != .docker || rest.utf8.allSatisfy({ $0 < 0x80 })
        else {
            throw .usage(
                "\"\(shown(word))\" names no image", subject: text,
                remedy: .name("one as containers-transports(5) has it, such as docker://debian:12"))
        }
        try self.init(transport, rest, text)
    }

    /// - Throws: `usage` also for what has no transport.
    package init(naming text: String) throws(OCIError) {
        guard let reference = try TransportReference(parsing: BytePath(text)) else {
            throw .usage(
                "\"\(shown(text))\" has no transport before it", subject: BytePath(text),
                remedy: .name("one as containers-transports(5) has it, such as docker://debian:12"))
        }
        self = reference
    }

    private init(_ transport: Transport, _ rest: String, _ text: BytePath) throws(OCIError) {
        self.transport = transport
        guard transport == .docker else {
            name = rest
            digest = nil
            return
        }
        let parts = rest.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        digest = parts.count == 2 ? Digest(parts[1]) : nil
        guard parts.count == 1 || digest != nil else {
            throw .usage(
                "\"\(shown(String(parts[1])))\" is no digest: it takes sha256: or sha512: and all of its lower-case hexadecimal digits",
                subject: text)
        }
        name = Self.withHost(String(parts[0]), digest)
    }

    private init(_ transport: Transport, name: String, digest: Digest?) {
        self.transport = transport
        self.name = name
        self.digest = digest
    }

    /// With what Docker leaves out: the host `docker.io`, the folder `library` and the tag `latest`.
    private static func withHost(_ name: String, _ digest: Digest?) -> String {
        var name = name
        let first = name.prefix { $0 != "/" }
        let hasHost =
            first.count < name.count && (first.contains(".") || first.contains(":") || first == "localhost")
        if !hasHost { name = "docker.io/" + (name.contains("/") ? "" : "library/") + name }
        if let digest { return "\(name)@\(digest)" }
        let last = name.split(separator: "/").last ?? ""
        return last.contains(":") ? name : name + ":" + ImageReference.defaultTag
    }

    /// The image with this digest in the same place; nil where images are not found by digests.
    package func pinned(to digest: Digest) -> TransportReference? {
        guard transport == .docker else { return nil }
        return TransportReference(transport, name: "\(repository)@\(digest)", digest: digest)
    }

    /// The name in the registry, without tag and digest.
    private var repository: String {
        let name = name.prefix { $0 != "@" }
        let start = name.lastIndex(of: "/") ?? name.startIndex
        guard let colon = name[start...].lastIndex(of: ":"), colon > start else { return String(name) }
        return String(name[..<colon])
    }

    /// The host of the registry; nil where there is none.
    package var host: String? {
        transport == .docker ? name.split(separator: "/").first.map(String.init) : nil
    }

    /// The tag that the image gets in a store's own layout.
    package var layoutTag: String {
        if transport == .docker, ImageReference.isValidTag(name) { return name }
        let last = name.split(separator: "/").last ?? ""
        let words = last.utf8.split { byte in
            !((UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
                || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
                || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte))
        }.map { String(decoding: $0, as: UTF8.self) }
        let hex = Digest(of: description.utf8).hex.prefix(12)
        return ([transport.rawValue] + words + [String(hex)]).joined(separator: "-")
    }

    /// Where an archive, a layout or a directory is on this host; nil for the others.
    package var path: BytePath? {
        switch transport {
        case .docker, .dockerDaemon, .containersStorage: nil
        case .dir: BytePath(name)
        // containers-transports(5): the first colon ends the path.
        case .dockerArchive, .ociArchive, .oci: BytePath(name.split(atByte: ":", maxSplits: 1)[0])
        }
    }

    /// The same image at another path.
    ///
    /// - Parameter path: has no colon.
    package func at(_ path: BytePath) -> TransportReference {
        let parts = transport == .dir ? [] : name.split(atByte: ":", maxSplits: 1)
        return TransportReference(
            transport, name: parts.count == 2 ? "\(path):\(parts[1])" : "\(path)", digest: nil)
    }

    package var description: String { transport.rawValue + transport.separator + name }

    /// The same image by a name that means it from every directory: of an archive or a directory its absolute path, without links.
    package var located: TransportReference {
        guard let path, let opened = try? FileDescriptor.workingDirectory.open(path, [.path]),
            let real = try? opened.fd.path(), real.isAbsolute, real.string?.contains(":") == false
        else { return self }
        return at(real)
    }
}

extension TransportReference {
    /// What an image that somebody names means: one in a layout, or one that is elsewhere.
    package enum Named: Sendable, CustomStringConvertible {
        case layout(ImageReference)
        case elsewhere(TransportReference)

        package var description: String {
            switch self {
            case .layout(let reference): reference.description
            case .elsewhere(let reference): reference.description
            }
        }
    }

    /// Finds out what `text` names. A layout that is there comes first, so that a name means what it always did; an archive may be named by
    /// its path alone.
    ///
    /// - Throws: `usage` or `notFound` for what names neither.
    package static func find(_ text: BytePath) throws(OCIError) -> Named {
        if ImageReference.namesLayout(text) { return .layout(try ImageReference.locating(text)) }
        if let reference = try TransportReference(parsing: text) {
            // Nothing is to be fetched of a layout on this host.
            if reference.transport == .oci {
                return .layout(try ImageReference.locating(BytePath(reference.name)))
            }
            return .elsewhere(reference)
        }
        if let archive = ArchiveKind.archive(text), let word = text.string {
            return .elsewhere(TransportReference(archive, name: word, digest: nil))
        }
        return .layout(try ImageReference.locating(text))
    }
}
