import VarveSystem
private import SystemPackage

/// Something that names an image, but for other tools: a registry's, an archive, an image of a container engine. The description says
/// what it is.
struct ForeignReference: CustomStringConvertible {
    private let text: String
    /// What it is, with an article.
    private let what: String
    /// What skopeo(1) calls it; nil where it is a layout already.
    private let source: String?
    /// A name for the layout, and the tag in it.
    private let name: String
    private let tag: String

    /// Nil for what may well be a layout that is not there.
    init?(_ path: BytePath) {
        let text = path.description
        self.text = text
        if text == "-" {
            (what, source) = ("standard input", "docker-archive:/dev/stdin")
            (name, tag) = ("image", "latest")
            return
        }
        for (transport, what) in Self.transports where text.hasPrefix(transport) {
            let rest = String(text.dropFirst(transport.count))
            let isArchive = transport.hasSuffix("archive:")
            (name, tag) = isArchive ? Self.archiveName(rest) : Self.imageName(rest)
            self.what = what
            source = transport == "oci:" ? nil : transport + rest
            return
        }
        if let (archive, rest) = Self.archive(path) {
            what = archive == .oci ? "an archive of an image layout" : "an archive of docker save"
            source = (archive == .oci ? "oci-archive:" : "docker-archive:") + text
            (name, tag) = Self.archiveName(rest.description)
            return
        }
        guard Self.namesRegistry(text) else { return nil }
        what = "an image in a registry"
        source = "docker://" + text
        (name, tag) = Self.imageName(text)
    }

    var description: String {
        guard source != nil else {
            return
                "\"\(text)\" is how skopeo names an image in a layout (\(BytePath(text).shellWord)); here it has no \"oci:\" before it: "
                + "--image \(BytePath(String(text.dropFirst(4))).shellWord)"
        }
        return "\"\(text)\" is \(what), not an image layout in a directory"
    }

    var remedy: VarveError.Remedy? { source.map { .importImage(source: $0, layout: name, tag: tag) } }

    /// containers-transports(5).
    private static let transports = [
        ("docker://", "an image in a registry"), ("oci:", "an image layout"),
        ("oci-archive:", "an archive of an image layout"), ("docker-archive:", "an archive of docker save"),
        ("docker-daemon:", "an image of the Docker daemon"), ("containers-storage:", "an image of Podman"),
        ("dir:", "an image in the form of skopeo's dir:"),
    ]

    private enum Archive { case oci, docker }

    /// An archive that is there, and its path without a tag.
    private static func archive(_ path: BytePath) -> (Archive, BytePath)? {
        var candidates = [path]
        if let colon = path.bytes.lastIndex(of: UInt8(ascii: ":")),
            let shorter = BytePath(path.bytes[..<colon])
        {
            candidates.append(shorter)
        }
        for candidate in candidates {
            guard
                let place = try? FileDescriptor.workingDirectory.open(candidate, [.path]),
                (try? place.fd.status().isRegular) == true,
                let file = try? place.fd.reopened([.readOnly, .nonBlocking])
            else { continue }
            let isOCI = holdsLayout(file.fd)
            return (isOCI ? .oci : .docker, candidate)
        }
        return nil
    }

    /// Whether a tar archive begins as that of an image layout does; those of docker save begin with other names, or are layouts as
    /// well.
    private static func holdsLayout(_ file: FileDescriptor) -> Bool {
        var start = [UInt8](repeating: 0, count: 512)
        guard
            (try? unsafe start.withUnsafeMutableBytes({ unsafe try file.readFull(into: $0) })) == start.count
        else { return false }
        let name = start.starts(with: "./".utf8) ? start.dropFirst(2) : start[...]
        return ["blobs", "index.json", "oci-layout"].contains { name.starts(with: $0.utf8) }
    }

    /// Whether it reads as HOST[:PORT]/NAME with a host of the kind that registries have.
    private static func namesRegistry(_ text: String) -> Bool {
        guard let slash = text.firstIndex(of: "/"), slash != text.startIndex else { return false }
        let host = text[..<slash]
        guard host != ".", host != "..", host.contains(".") || host.contains(":") || host == "localhost"
        else {
            return false
        }
        guard host.utf8.allSatisfy({ isHostByte($0) }), host.first != "." else { return false }
        return (try? FileDescriptor.workingDirectory.status(of: BytePath(String(host)))) == nil
    }

    private static func isHostByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: ":"):
            true
        default: false
        }
    }

    /// The last part of a name, and its tag.
    private static func imageName(_ text: String) -> (String, String) {
        let withoutDigest = text.prefix { $0 != "@" }
        let last = withoutDigest.split(separator: "/").last ?? "image"
        let parts = last.split(separator: ":", maxSplits: 1)
        let tag = parts.count > 1 ? String(parts[1]) : ImageReference.defaultTag
        return (
            parts.first.map(String.init) ?? "image",
            ImageReference.isValidTag(tag) ? tag : ImageReference.defaultTag
        )
    }

    private static func archiveName(_ path: String) -> (String, String) {
        var (name, tag) = imageName(path)
        for ending in [".gz", ".zst", ".tgz", ".tar"]
        where name.hasSuffix(ending) && name.count > ending.count {
            name = String(name.dropLast(ending.count))
        }
        return (name, tag)
    }
}
