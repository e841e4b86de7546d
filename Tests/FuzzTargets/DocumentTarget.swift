import VarveFormats
import VarveOCI
import VarveSystem

extension FuzzTarget {
    /// JSON, and the index, manifest, configuration and runtime configuration that it may be.
    ///
    /// An error of the reader's own, or a value that is the same after it was written and read again; documents too.
    package static let documents = FuzzTarget(
        name: "documents",
        seeds: { documentSeeds.map { Array($0.utf8) } },
        run: { bytes in
            let value: JSONValue
            do throws(JSONSyntaxError) {
                value = try JSONValue(parsing: bytes)
            } catch {
                try require(error.offset <= bytes.count, "it blames byte \(error.offset)")
                return .refused
            }
            for pretty in [false, true] {
                let text = value.serialized(pretty: pretty)
                try require(
                    text.count <= bytes.count * 8 + (pretty ? bytes.count * 1100 : 0),
                    "it became \(text.count) bytes")
                try require(
                    (try? JSONValue(parsing: text)) == value, "it is another value after a round trip")
            }
            try document(value) { value throws(OCIError) in try ImageIndex(value, of: "the input").json }
            try document(value) { value throws(OCIError) in try ImageManifest(value, of: "the input").json }
            try document(value) { value throws(OCIError) in try Descriptor(value, of: "the input").json }
            do {
                let config = try ImageConfig(value, of: "the input")
                try require(config.chainIDs.count == config.diffIDs.count, "ChainIDs are missing")
                let runtime = try RuntimeConfig.make(config, passwd: nil, group: nil)
                try require(
                    (try? JSONValue(parsing: runtime.serialized())) == runtime, "config.json is not JSON")
            } catch {
                try refusal(error)
            }
            return .taken
        })

    /// Users in an image's passwd and group files, references, platforms and times: short texts from outside, each
    /// behind a byte 0xff.
    package static let accounts = FuzzTarget(
        name: "accounts",
        seeds: {
            [
                "root", "1000:1000", "bin:daemon", "lisa:", "a/b/c:tag", "linux/arm64/v8",
                "2020-02-29T23:59:60.5+01:30",
            ].map {
                Array($0.utf8) + [0xff]
                    + Array("root:x:0:0:r:/root:/bin/sh\nbin:x:1:1::/:\nlisa:x:1000:7::/home:\n".utf8)
                    + [0xff] + Array("root:x:0:\ndaemon:x:2:root,bin,lisa\n".utf8)
            }
        },
        run: { bytes in
            let parts = bytes.split(separator: 0xff, maxSplits: 2, omittingEmptySubsequences: false).map(
                Array.init)
            let text = String(decoding: parts[0], as: UTF8.self)
            if let time = RFC3339.parse(text) {
                try require(
                    RFC3339.parse(RFC3339.format(time)) == time, "\(text) became \(RFC3339.format(time))")
            }
            if let digest = Digest(text) {
                try require(digest.description == text, "\(text) became \(digest)")
            }
            do {
                let platform = try Platform(parsing: text)
                try require(try Platform(parsing: "\(platform)") == platform, "\(text) became \(platform)")
            } catch { try refusal(error) }
            do {
                if let path = BytePath(parts[0]) {
                    let reference = try ImageReference(parsing: path)
                    try require(ImageReference.isValidTag(reference.tag), "the tag \(reference.tag)")
                }
            } catch { try refusal(error) }
            do {
                _ = try ContainerUser(
                    text, passwd: parts.count > 1 ? parts[1] : nil, group: parts.count > 2 ? parts[2] : nil)
                return .taken
            } catch {
                try refusal(error)
                return .refused
            }
        })
}

/// What a document keeps is read as the same document again.
private func document(_ value: JSONValue, _ read: (JSONValue) throws(OCIError) -> JSONObject) throws {
    do {
        let kept = try read(value)
        try require(JSONValue.object(kept) == value, "a member was lost or changed")
        try require((try? read(.object(kept))) == kept, "it is another document after a round trip")
    } catch {
        try refusal(error)
    }
}

private func refusal(_ error: any Error) throws {
    guard let error = error as? OCIError else { throw error }
    switch error.kind {
    case .invalidInput, .usage, .notFound: break
    case .alreadyExists, .inUse, .unsafePlace, .cancelled, .io: throw error
    }
    try require("\(error)".utf8.count < 4000, "a message of \("\(error)".utf8.count) bytes")
}

private let digest = "sha256:" + String(repeating: "0a", count: 32)
private let documentSeeds = [
    #"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"#
        + #""application/vnd.oci.image.manifest.v1+json","digest":"\#(digest)","size":7,"annotations":"#
        + #"{"org.opencontainers.image.ref.name":"latest"},"platform":{"os":"linux","architecture":"amd64"}}]}"#,
    #"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"\#(digest)","#
        + #""size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"\#(digest)","size":3}]}"#,
    #"{"architecture":"amd64","os":"linux","created":"2020-01-01T00:00:00Z","config":{"User":"1:2","Env":["A=b"],"#
        + #""Cmd":["sh"],"Entrypoint":null,"WorkingDir":"/w","Labels":{"a":"b"},"Volumes":{"/v":{}},"#
        + #""ExposedPorts":{"80/tcp":{}},"StopSignal":"9"},"rootfs":{"type":"layers","diff_ids":["\#(digest)"]},"#
        + #""history":[{"created":"2020-01-01T00:00:00Z","created_by":"x","empty_layer":true}]}"#,
    #"{"mediaType":"a/b","digest":"\#(digest)","size":0,"data":"e30=","urls":["x"]}"#,
    #" [ 1, -0.5e+7, "\u00e4\ud83d\ude00\n", true , false, null, {} , [ [ ] ] ] "#,
]
