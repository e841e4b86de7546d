import VarveArchive
import Crypto
import VarveSystem
import SystemPackage
import TestSupport

/// Judges an image layout by the rules of image-spec 1.1, with nothing of the module that writes layouts: its own reader
/// of JSON, its own digests. What it finds wrong it says, one line each.
struct LayoutChecker {
    let path: BytePath
    private(set) var findings: [String] = []
    private var seen = Set<String>()

    static func findings(_ path: BytePath) throws -> [String] {
        var checker = LayoutChecker(path: path)
        try checker.check()
        return checker.findings
    }

    private init(path: BytePath) { self.path = path }

    private mutating func check() throws {
        // image-layout.md, "oci-layout file" and "index.json file"
        let marker = try document("oci-layout")
        require(marker["imageLayoutVersion"]?.text == "1.0.0", "oci-layout has no version 1.0.0")
        for entry in try entries(".") where !["oci-layout", "index.json", "blobs"].contains(entry) {
            require(entry.hasPrefix(".varve-index.lock"), "\(entry) has no place in a layout")
        }
        let index = try document("index.json")
        try checkIndex(index, "index.json")
        // Every reference of a tag stands once (annotations.md: it names an image).
        let names = (index["manifests"]?.elements ?? []).compactMap {
            $0["annotations"]?["org.opencontainers.image.ref.name"]?.text
        }
        require(Set(names).count == names.count, "a tag stands twice in index.json: \(names)")
        // image-layout.md, "Blobs": named by what they hold.
        for algorithm in try entries("blobs") {
            for name in try entries("blobs/\(algorithm)") {
                guard algorithm == "sha256" else { continue }
                let bytes = try read("blobs/sha256/\(name)")
                require(SHA256.hash(data: bytes).hex == name, "the blob \(name) holds something else")
            }
        }
    }

    private mutating func require(_ holds: Bool, _ finding: @autoclosure () -> String) {
        if !holds { findings.append(finding()) }
    }

    private func read(_ name: String) throws -> [UInt8] {
        try FileDescriptor.workingDirectory.readFile(path.appending(name), limit: 1 << 30)
    }

    private func document(_ name: String) throws -> LayoutDocument { try LayoutDocument(try read(name)) }

    private func entries(_ name: String) throws -> [String] {
        let opened = try FileDescriptor.workingDirectory.openDirectory(path.appending(name))
        return try opened.fd.entries().map { "\($0.name)" }
    }

    /// image-index.md, "Image Index Property Descriptions"
    private mutating func checkIndex(_ index: LayoutDocument, _ name: String) throws {
        require(index["schemaVersion"]?.integer == 2, "\(name) has no schemaVersion 2")
        let type = index["mediaType"]
        require(
            type == nil || type?.text == "application/vnd.oci.image.index.v1+json",
            "\(name) has the mediaType \(type.map { "\($0)" } ?? "")")
        require(index["layers"] == nil && index["config"] == nil, "\(name) is a manifest as well")
        checkAnnotations(index["annotations"], name)
        guard let manifests = index["manifests"]?.elements else {
            findings.append("\(name) has no array of manifests")
            return
        }
        for entry in manifests { try checkReferred(entry, from: name) }
    }

    /// descriptor.md, "Properties"; returns nil if nothing can be read by it.
    private mutating func checkDescriptor(_ descriptor: LayoutDocument, from name: String) -> (
        type: String, blob: String
    )? {
        guard let type = descriptor["mediaType"]?.text, let digest = descriptor["digest"]?.text,
            let size = descriptor["size"]?.integer
        else {
            findings.append("a descriptor in \(name) lacks mediaType, digest or size: \(descriptor)")
            return nil
        }
        // RFC 6838, 4.2
        let parts = type.split(separator: "/", omittingEmptySubsequences: false)
        require(
            parts.count == 2
                && parts.allSatisfy {
                    !$0.isEmpty && $0.utf8.count <= 127 && !$0.utf8.contains { $0 <= 0x20 }
                },
            "\"\(type)\" in \(name) is no media type")
        checkAnnotations(descriptor["annotations"], name)
        if let platform = descriptor["platform"] {
            require(
                platform["os"]?.text?.isEmpty == false && platform["architecture"]?.text?.isEmpty == false,
                "a platform in \(name) lacks os or architecture")
        }
        if let tag = descriptor["annotations"]?["org.opencontainers.image.ref.name"]?.text {
            let isPlain = tag.utf8.allSatisfy { byte in
                (0x30...0x39).contains(byte) || (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte)
                    || "-._:@+/".utf8.contains(byte)
            }
            require(isPlain && !tag.isEmpty, "\"\(tag)\" in \(name) is no tag")
        }
        let hex = digest.dropFirst("sha256:".count)
        guard digest.hasPrefix("sha256:"), hex.utf8.count == 64,
            hex.utf8.allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) })
        else {
            findings.append("\"\(digest)\" in \(name) is no sha256 digest")
            return nil
        }
        let blob = "blobs/sha256/\(hex)"
        guard let status = try? FileDescriptor.workingDirectory.status(of: path.appending(blob)) else {
            findings.append("\(name) refers to \(digest), which is not there")
            return nil
        }
        require(status.isRegular && status.size == size, "\(digest) is not \(size) bytes, as \(name) says")
        return (type, blob)
    }

    private mutating func checkReferred(_ descriptor: LayoutDocument, from name: String) throws {
        guard let (type, blob) = checkDescriptor(descriptor, from: name) else { return }
        guard seen.insert(type + blob).inserted else { return }
        switch type {
        case "application/vnd.oci.image.index.v1+json": try checkIndex(try document(blob), blob)
        case "application/vnd.oci.image.manifest.v1+json": try checkManifest(try document(blob), blob)
        default: return
        }
    }

    private mutating func checkAnnotations(_ annotations: LayoutDocument?, _ name: String) {
        guard let annotations else { return }
        guard let members = annotations.members else {
            findings.append("the annotations of \(name) are no object")
            return
        }
        for (key, value) in members {
            require(!key.isEmpty && value.text != nil, "the annotation \"\(key)\" in \(name) is no string")
        }
    }

    /// manifest.md, "Image Manifest Property Descriptions"
    private mutating func checkManifest(_ manifest: LayoutDocument, _ name: String) throws {
        require(manifest["schemaVersion"]?.integer == 2, "\(name) has no schemaVersion 2")
        let type = manifest["mediaType"]
        require(
            type == nil || type?.text == "application/vnd.oci.image.manifest.v1+json",
            "\(name) has the wrong mediaType")
        require(manifest["manifests"] == nil, "\(name) is an index as well")
        checkAnnotations(manifest["annotations"], name)
        guard let config = manifest["config"], let layers = manifest["layers"]?.elements else {
            findings.append("\(name) has no config or no array of layers")
            return
        }
        guard let (configType, configBlob) = checkDescriptor(config, from: name) else { return }
        guard configType == "application/vnd.oci.image.config.v1+json" else { return }
        let diffIDs = try checkConfig(try document(configBlob), configBlob)
        require(diffIDs.count == layers.count, "\(name) has not as many layers as its configuration")
        for (layer, diffID) in zip(layers, diffIDs) {
            guard let (type, blob) = checkDescriptor(layer, from: name) else { continue }
            try checkLayer(blob, type, diffID)
        }
    }

    /// config.md, "Properties"; returns the DiffIDs.
    private mutating func checkConfig(_ config: LayoutDocument, _ name: String) throws -> [String] {
        for key in ["architecture", "os"] {
            require(config[key]?.text?.isEmpty == false, "\(name) has no \(key)")
        }
        for key in ["created", "author", "variant"] where config[key] != nil {
            require(config[key]?.text != nil, "\(key) of \(name) is no string")
        }
        if let created = config["created"]?.text { require(Self.isTime(created), "\(created) is no time") }
        let execution = config["config"]
        require(execution == nil || execution?.members != nil, "config of \(name) is no object")
        for key in ["User", "WorkingDir", "StopSignal"] where execution?[key] != nil {
            require(execution?[key]?.text != nil, "\(key) of \(name) is no string")
        }
        for key in ["Env", "Entrypoint", "Cmd"] where execution?[key] != nil {
            let words = execution?[key]?.elements
            require(words?.allSatisfy { $0.text != nil } == true, "\(key) of \(name) is no array of strings")
        }
        let variables = (execution?["Env"]?.elements ?? []).compactMap(\.text)
        let names = variables.map { $0.prefix { $0 != "=" } }
        require(
            variables.allSatisfy { $0.contains("=") && !$0.hasPrefix("=") }, "Env of \(name): \(variables)")
        require(Set(names).count == names.count, "a variable stands twice in \(name): \(variables)")
        for key in ["ExposedPorts", "Volumes"] where execution?[key] != nil {
            let values = execution?[key]?.members?.values
            require(values?.allSatisfy { $0 == .object([:]) } == true, "\(key) of \(name) is no set")
        }
        if let labels = execution?["Labels"] { checkAnnotations(labels, name) }
        require(config["rootfs"]?["type"]?.text == "layers", "the rootfs of \(name) is none of layers")
        guard let diffIDs = config["rootfs"]?["diff_ids"]?.elements?.map({ $0.text ?? "" }) else {
            findings.append("\(name) has no diff_ids")
            return []
        }
        if let history = config["history"] {
            let entries = history.elements ?? []
            require(history.elements != nil, "the history of \(name) is no array")
            // With --no-history there are fewer; there are never more.
            let layers = entries.count { $0["empty_layer"] != .bool(true) }
            require(layers <= diffIDs.count, "the history of \(name) speaks of \(layers) layers")
            for entry in entries {
                if let created = entry["created"] {
                    require(created.text.map(Self.isTime) == true, "\(created) in the history is no time")
                }
            }
        }
        return diffIDs
    }

    /// RFC 3339, section 5.6, as far as its fixed places go.
    private static func isTime(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        guard bytes.count >= 20 else { return false }
        let form = Array("0000-00-00T00:00:00".utf8)
        for (byte, wanted) in zip(bytes, form) {
            if wanted == UInt8(ascii: "0") ? !(0x30...0x39).contains(byte) : byte != wanted { return false }
        }
        let rest = bytes[form.count...].drop { $0 == UInt8(ascii: ".") || (0x30...0x39).contains($0) }
        return rest.elementsEqual("Z".utf8) || (rest.count == 6 && "+-".utf8.contains(rest[rest.startIndex]))
    }

    /// layer.md: an archive that is what its DiffID says, whose whiteouts name something, with no name twice.
    private mutating func checkLayer(_ blob: String, _ type: String, _ diffID: String) throws {
        let layer = try LayerContent(try read(blob), type)
        require(layer.diffID == diffID, "the DiffID of \(blob) is \(layer.diffID), not \(diffID)")
        let names = layer.entries.map(\.path)
        require(Set(names).count == names.count, "a path stands twice in \(blob): \(names)")
        for name in names {
            let last = name.split(separator: "/").last ?? ""
            require(last != ".wh.", "a whiteout in \(blob) names nothing")
        }
    }
}

extension SHA256Digest {
    var hex: String {
        map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
    }
}

/// What is in a layer, for comparing.
struct LayerContent {
    struct Entry: Hashable, CustomStringConvertible {
        var path: String
        var kind: String
        /// Of a hard link the path, else of a symbolic link what it says.
        var target: String
        /// When it was changed, in seconds; nil for a hard link.
        var time: Int64?
        /// What comes before and after the time in `text`.
        var parts: [String]
        /// Everything but the path.
        var text: String { text(atMost: .max) }
        var description: String { "/\(path) \(text)" }

        /// Everything but the path, with a later time taken for `time`, as `SOURCE_DATE_EPOCH` has it.
        func text(atMost limit: Int64) -> String {
            parts.joined(separator: time.map { " \(min($0, limit))" } ?? "")
        }
    }

    var diffID: String
    var entries: [Entry]

    init(_ blob: [UInt8], _ type: String) throws {
        let compression: Compression =
            type.hasSuffix("+gzip") ? .gzip : type.hasSuffix("+zstd") ? .zstd : .none
        var archive: [UInt8] = []
        let source = compression.decoder(over: MemorySource(blob))
        while true {
            let run = try unsafe source.next()
            if unsafe run.isEmpty { break }
            unsafe archive.append(contentsOf: run)
        }
        diffID = "sha256:" + SHA256.hash(data: archive).hex
        entries = []
        let reader = TarReader(MemorySource(archive))
        while let entry = try reader.nextEntry() {
            var hash = SHA256()
            while let (_, bytes) = try unsafe reader.nextContent() {
                unsafe hash.update(bufferPointer: bytes)
            }
            let path = entry.path.components.filter { $0 != .current }.map(\.description).joined(
                separator: "/")
            let attributes = entry.extendedAttributes.map { "\($0.name)=\($0.value)" }.joined(separator: ",")
            entries.append(
                Entry(
                    path: path, kind: "\(entry.kind)", target: "\(entry.linkTarget)",
                    time: entry.kind == .hardLink ? nil : Int64(entry.modificationTime.seconds),
                    parts: [
                        "\(entry.kind) \(String(entry.mode, radix: 8)) \(entry.uid):\(entry.gid) "
                            + "\(entry.size) \(entry.linkTarget)",
                        " [\(attributes)] \(hash.finalize().hex.prefix(8))",
                    ]))
        }
    }
}

/// Bytes in memory, in one run.
@safe
final class MemorySource: ByteSource {
    private let bytes: [UInt8]
    private let copy: UnsafeMutableRawBufferPointer
    private var isRead = false

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        unsafe copy = .allocate(byteCount: max(bytes.count, 1), alignment: 16)
        unsafe copy.copyBytes(from: bytes)
    }

    deinit { unsafe copy.deallocate() }

    func next() throws -> UnsafeRawBufferPointer {
        defer { isRead = true }
        return unsafe UnsafeRawBufferPointer(rebasing: copy[..<(isRead ? 0 : bytes.count)])
    }
}
