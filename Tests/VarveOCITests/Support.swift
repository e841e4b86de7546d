import VarveFormats
import Glibc
import VarveOCI
import VarveSystem
import SystemPackage
import Testing

/// A directory that goes away with its owner.
final class TemporaryDirectory {
    let path: String
    var bytes: BytePath { BytePath(path) }

    init() throws {
        path = "/tmp/varve-oci-" + randomName()
        try FileDescriptor.workingDirectory.makeDirectory(BytePath(path), mode: 0o755)
    }

    deinit { _ = try? shell("rm -rf '\(path)'") }

    func layout() throws -> ImageLayout { try ImageLayout.create(at: bytes.appending("layout")) }
}

struct CommandFailure: Error, CustomStringConvertible {
    var description: String
}

/// The output of a shell command, which must succeed.
@discardableResult
func shell(_ command: String) throws -> String {
    guard let pipe = unsafe popen("exec 2>&1; " + command, "re") else {
        throw CommandFailure(description: "popen")
    }
    var output = [UInt8]()
    while true {
        let byte = unsafe fgetc(pipe)
        if byte == EOF { break }
        output.append(UInt8(truncatingIfNeeded: byte))
    }
    let text = String(decoding: output, as: UTF8.self)
    guard unsafe pclose(pipe) == 0 else { throw CommandFailure(description: "\(command): \(text)") }
    return text
}

func json(_ text: String) throws -> JSONValue { try JSONValue(parsing: Array(text.utf8)) }

func object(_ text: String) throws -> JSONObject { try #require(try json(text).object) }

extension ImageLayout {
    /// Stores bytes under their digest.
    func put(_ bytes: [UInt8], mediaType: String) throws -> Descriptor {
        let writer = try BlobWriter(self)
        try writer.write(bytes)
        try writer.finish()
        let blob = try #require(writer.blob)
        return Descriptor(mediaType: mediaType, digest: blob.digest, size: blob.size)
    }

    func put(_ text: String, mediaType: String) throws -> Descriptor {
        try put(Array(text.utf8), mediaType: mediaType)
    }

    /// An image of made-up layers, one for each string.
    func putImage(
        _ layers: [String] = ["layer"], platform: Platform = .host, describes: Bool = true,
        manifestType: String = MediaType.ociManifest, configType: String = MediaType.ociConfig,
        layerType: String = "application/vnd.oci.image.layer.v1.tar"
    ) throws -> Descriptor {
        let blobs = try layers.map { try put($0, mediaType: layerType) }
        let variant = platform.variant.map { "\"variant\":\"\($0)\"," } ?? ""
        let ids = blobs.map { "\"\($0.digest)\"" }.joined(separator: ",")
        let config = try put(
            """
            {"architecture":"\(platform.architecture)",\(variant)"os":"\(platform.os)","x-unknown":1.50,"config":{},\
            "rootfs":{"type":"layers","diff_ids":[\(ids)]}}
            """, mediaType: configType)
        let manifest: JSONObject = [
            "schemaVersion": 2, "mediaType": .string(manifestType), "config": .object(config.json),
            "layers": .array(blobs.map { .object($0.json) }), "x-kept": ["a": 1],
        ]
        return try putJSON(manifest, mediaType: manifestType, platform: describes ? platform : nil)
    }

    func putIndex(_ entries: [Descriptor], type: String = MediaType.ociIndex) throws -> Descriptor {
        try putJSON(
            [
                "schemaVersion": 2, "mediaType": .string(type),
                "manifests": .array(entries.map { .object($0.json) }),
            ],
            mediaType: type)
    }

    /// Replaces index.json by entries as they are given.
    func setEntries(_ entries: [JSONValue]) throws { try updateIndex { $0.entries = entries } }
}

/// Runs `body`, which must throw an `OCIError` of `kind`; returns its text.
@discardableResult
func expectError(
    _ kind: OCIError.Kind, sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Void
) -> String {
    do {
        try body()
        Issue.record("nothing was thrown", sourceLocation: sourceLocation)
    } catch let error as OCIError {
        #expect(error.kind == kind, "\(error)", sourceLocation: sourceLocation)
        return error.description
    } catch {
        Issue.record("another error: \(error)", sourceLocation: sourceLocation)
    }
    return ""
}
