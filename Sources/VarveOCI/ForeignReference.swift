import VarveSystem
private import SystemPackage

/// Something that names an image, but for other tools: a registry's, an archive, an image of a container engine. The description says
/// what it is; of a file, as its bytes tell.
struct ForeignReference: CustomStringConvertible {
    let description: String
    let remedy: VarveError.Remedy?

    /// Nil for what may well be a layout that is not there.
    init?(_ path: BytePath) {
        let text = path.description
        if text == "-" {
            // skopeo reads an archive more than once, and goes back in it: a pipe will not do.
            self.init(
                text, "standard input",
                .follow(
                    "write the archive to a file, and make a layout of that: cat > image.tar && skopeo copy docker-archive:image.tar oci:image:latest, and then name it image:latest (an archive of an image layout: oci-archive:image.tar)"
                ))
        } else if let found = Self.ofTransport(text) {
            self = found
        } else if let found = Self.ofFile(path) {
            self = found
        } else if Self.namesRegistry(text) {
            self.init(text, "an image in a registry", source: "docker://" + text, Self.imageName(text))
        } else {
            return nil
        }
    }

    private init(_ text: String, _ what: String, source: String, _ image: (name: String, tag: String)) {
        self.init(text, what, .importImage(source: source, layout: image.name, tag: image.tag))
    }

    private init(_ text: String, _ what: String, _ remedy: VarveError.Remedy?) {
        description = "\"\(text)\" is \(what), not an image layout in a directory"
        self.remedy = remedy
    }

    private init(sentence: String) {
        description = sentence
        remedy = nil
    }

    /// containers-transports(5).
    private static let transports = [
        ("docker://", "an image in a registry"), ("oci:", "an image layout"),
        ("oci-archive:", "an archive of an image layout"), ("docker-archive:", "an archive of docker save"),
        ("docker-daemon:", "an image of the Docker daemon"), ("containers-storage:", "an image of Podman"),
        ("dir:", "an image in the form of skopeo's dir:"),
    ]

    /// What begins with the name of a transport of skopeo(1), or as a web address does.
    static func ofTransport(_ text: String) -> ForeignReference? {
        for scheme in ["https://", "http://"] where text.hasPrefix(scheme) {
            let rest = String(text.dropFirst(scheme.count))
            return ForeignReference(
                text, "a web address",
                source: "docker://" + rest, imageName(rest))
        }
        for (transport, what) in transports where text.hasPrefix(transport) {
            let rest = String(text.dropFirst(transport.count))
            if transport == "oci:" {
                return ForeignReference(
                    sentence:
                        "\"\(text)\" is how skopeo names an image in a layout (\(BytePath(text).shellWord)); here it has no \"oci:\" before it: "
                        + "\(BytePath(rest).shellWord)")
            }
            let isArchive = transport.hasSuffix("archive:")
            return ForeignReference(
                text, what, source: transport + rest, isArchive ? archiveName(rest) : imageName(rest))
        }
        return nil
    }

    /// Whether a directory is one in the form of `dir:`: a manifest and blobs side by side, and the version of that form.
    static func isDirectoryTransport(_ path: BytePath) -> Bool {
        ["version", "manifest.json"].allSatisfy { name in
            (try? FileDescriptor.workingDirectory.status(of: path.appending(name)))?.isRegular == true
        }
    }

    /// A directory in the form of `dir:`.
    static func ofDirectory(_ path: BytePath) -> ForeignReference? {
        guard isDirectoryTransport(path) else { return nil }
        let text = path.description
        return ForeignReference(
            text, "an image in the form of skopeo's dir:", source: "dir:" + text, imageName(text))
    }

    /// A regular file that is there, with a tag behind it or without.
    private static func ofFile(_ path: BytePath) -> ForeignReference? {
        var candidates = [path]
        if let colon = path.bytes.lastIndex(of: UInt8(ascii: ":")),
            let shorter = BytePath(path.bytes[..<colon])
        {
            candidates.append(shorter)
        }
        for candidate in candidates {
            guard
                let place = try? FileDescriptor.workingDirectory.open(candidate, [.path]),
                (try? place.fd.status().isRegular) == true
            else { continue }
            let file = candidate.description
            let image = archiveName(file)
            guard let opened = try? place.fd.reopened([.readOnly, .nonBlocking]) else {
                return ForeignReference(file, "a regular file", .name("a directory with an image layout"))
            }
            switch ArchiveKind(of: opened.fd) {
            case .imageLayout:
                return ForeignReference(
                    file, "an archive of an image layout", source: "oci-archive:" + file, image)
            case .dockerSave:
                return ForeignReference(
                    file, "an archive of docker save", source: "docker-archive:" + file, image)
            case .otherTar:
                return ForeignReference(
                    file,
                    "a tar archive with no image in it (neither oci-layout nor manifest.json)",
                    .name(
                        "a directory with an image layout, and add the archive to that image as a layer if it is a file system"
                    ))
            case .compressed(let format):
                let target = BytePath("oci:\(image.name):\(image.tag)").shellWord
                return ForeignReference(
                    file, "a file compressed with \(format)",
                    .follow(
                        "if it is an archive of docker save, make one of it with: skopeo copy \(BytePath("docker-archive:" + file).shellWord) \(target), or of an archive of an image layout with: skopeo copy \(BytePath("oci-archive:" + file).shellWord) \(target)"
                    ))
            case .none:
                let folder = candidate.directory
                let isInLayout =
                    (try? FileDescriptor.workingDirectory.status(of: folder.appending("oci-layout"))) != nil
                return ForeignReference(
                    file, "a regular file and no archive",
                    .name(
                        isInLayout
                            ? "the layout \(folder.shellWord) itself" : "a directory with an image layout"))
            }
        }
        return nil
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
    private static func imageName(_ text: String) -> (name: String, tag: String) {
        let withoutDigest = text.prefix { $0 != "@" }
        let last = withoutDigest.split(separator: "/").last ?? "image"
        let parts = last.split(separator: ":", maxSplits: 1)
        let tag = parts.count > 1 ? String(parts[1]) : ImageReference.defaultTag
        return (
            parts.first.map(String.init) ?? "image",
            ImageReference.isValidTag(tag) ? tag : ImageReference.defaultTag
        )
    }

    private static func archiveName(_ path: String) -> (name: String, tag: String) {
        var (name, tag) = imageName(path)
        for ending in [".gz", ".zst", ".xz", ".bz2", ".tgz", ".tar"]
        where name.hasSuffix(ending) && name.count > ending.count {
            name = String(name.dropLast(ending.count))
        }
        return (name, tag)
    }
}
