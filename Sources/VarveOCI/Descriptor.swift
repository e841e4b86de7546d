package import VarveFormats
private import VarveSystem

/// A reference to a blob (image-spec descriptor.md). Members that are not known here are kept.
public struct Descriptor: Hashable, Sendable {
    /// The annotation that holds a tag (annotations.md).
    package static let referenceNameKey = "org.opencontainers.image.ref.name"

    package private(set) var json: JSONObject
    /// The type of the blob, such as `application/vnd.oci.image.manifest.v1+json`.
    public let mediaType: String
    /// The digest of the blob.
    public let digest: Digest
    /// Bytes.
    public let size: Int64
    /// What the blob runs on, where an index says so.
    public let platform: Platform?

    package init(mediaType: String, digest: Digest, size: Int64, platform: Platform? = nil) {
        self.mediaType = mediaType
        self.digest = digest
        self.size = size
        self.platform = platform
        json = [
            "mediaType": .string(mediaType), "digest": .string(digest.description),
            "size": .number(JSONNumber(size)),
        ]
        if let platform {
            var value: JSONObject = [
                "architecture": .string(platform.architecture), "os": .string(platform.os),
            ]
            if let variant = platform.variant { value["variant"] = .string(variant) }
            json["platform"] = .object(value)
        }
    }

    /// `what` names the document that holds the descriptor, for messages.
    package init(_ value: JSONValue, of what: String) throws(OCIError) {
        guard let json = value.object else {
            throw .invalid("\(what) is invalid: a descriptor is \(value.kind)")
        }
        guard let mediaType = try json.string("mediaType", of: what), !mediaType.isEmpty else {
            throw .invalid("\(what) is invalid: a descriptor has no \"mediaType\"")
        }
        guard let text = try json.string("digest", of: what) else {
            throw .invalid("\(what) is invalid: a descriptor has no \"digest\"")
        }
        guard let digest = Digest(text) else {
            throw .invalid(
                "\(what) is invalid: \"\(shown(text))\" is no digest; it must be sha256 or sha512, a colon, "
                    + "and all of its lower-case hexadecimal digits")
        }
        guard let size = try json.integer("size", of: what), size >= 0 else {
            throw .invalid(
                "\(what) is invalid: the descriptor of \(digest) has no \"size\" of zero or more bytes")
        }
        self.json = json
        self.mediaType = mediaType
        self.digest = digest
        self.size = size
        if let platform = try json.object("platform", of: what),
            let os = try platform.string("os", of: what), !os.isEmpty,
            let architecture = try platform.string("architecture", of: what), !architecture.isEmpty
        {
            self.platform = Platform(
                os: os, architecture: architecture, variant: try platform.string("variant", of: what))
        } else {
            platform = nil
        }
    }

    package func annotation(_ key: String) -> String? { json["annotations"]?.object?[key]?.string }

    /// The annotations whose value is a string, in order.
    public var annotations: [(key: String, value: String)] { json["annotations"]?.object?.strings ?? [] }

    /// The tag that this entry of an index has.
    package var referenceName: String? { annotation(Self.referenceNameKey) }

    /// This descriptor with an annotation set, or removed by nil. Annotations that become empty go away.
    package func annotated(_ key: String, _ value: String?) -> Descriptor {
        var copy = self
        copy.json.setAnnotation(key, value)
        return copy
    }

    /// This reference, to other content: annotations and unknown members stay, what stood for the old
    /// content (`data`, `urls`) goes.
    func replacing(mediaType: String, digest: Digest, size: Int64) -> Descriptor {
        var json = json
        json["mediaType"] = .string(mediaType)
        json["digest"] = .string(digest.description)
        json["size"] = .number(JSONNumber(size))
        json["data"] = nil
        json["urls"] = nil
        // It came from nowhere else.
        json.setAnnotation(ImageLayout.SourcedEntry.sourceKey, nil)
        json.setAnnotation(ImageLayout.SourcedEntry.usedKey, nil)
        return Descriptor(json: json, mediaType: mediaType, digest: digest, size: size, platform: platform)
    }

    /// This blob under another media type.
    func retyped(_ mediaType: String) -> Descriptor {
        var json = json
        json["mediaType"] = .string(mediaType)
        return Descriptor(json: json, mediaType: mediaType, digest: digest, size: size, platform: platform)
    }

    /// This descriptor with the platform of an image configuration, where the descriptor names a platform.
    func replacingPlatform(by config: JSONObject) -> Descriptor {
        guard var platform = json["platform"]?.object else { return self }
        for key in ["architecture", "os", "variant"] { platform[key] = config[key] }
        var json = json
        json["platform"] = .object(platform)
        return (try? Descriptor(.object(json), of: "the new descriptor")) ?? self
    }

    private init(json: JSONObject, mediaType: String, digest: Digest, size: Int64, platform: Platform?) {
        self.json = json
        self.mediaType = mediaType
        self.digest = digest
        self.size = size
        self.platform = platform
    }
}

extension JSONObject {
    mutating func setAnnotation(_ key: String, _ value: String?) {
        var annotations = self["annotations"]?.object ?? JSONObject()
        annotations[key] = value.map { .string($0) }
        self["annotations"] = annotations.isEmpty ? nil : .object(annotations)
    }
}

/// Text from outside, cut to a length that fits a message, control characters escaped.
func shown(_ text: String) -> String { BytePath.excerpt(text.utf8) }
