import VarveSystem

/// The media types of image-spec 1.1 (media-types.md) and those of Docker's registry format that stand for
/// the same.
package enum MediaType {
    package static let ociIndex = "application/vnd.oci.image.index.v1+json"
    package static let ociManifest = "application/vnd.oci.image.manifest.v1+json"
    package static let ociConfig = "application/vnd.oci.image.config.v1+json"
    package static let dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
    package static let dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
    package static let dockerConfig = "application/vnd.docker.container.image.v1+json"

    package static func isIndex(_ type: String) -> Bool { type == ociIndex || type == dockerManifestList }
    package static func isManifest(_ type: String) -> Bool { type == ociManifest || type == dockerManifest }
    package static func isConfig(_ type: String) -> Bool { type == ociConfig || type == dockerConfig }
}

/// How the tar archive of a layer is compressed in its blob.
public enum LayerCompression: String, Hashable, Sendable, CaseIterable {
    /// A plain tar archive.
    case none
    /// gzip (RFC 1952).
    case gzip
    /// Zstandard (RFC 8878).
    case zstd

    /// The media type of an OCI layer compressed so.
    package var mediaType: String {
        switch self {
        case .none: LayerMediaType.ociBase
        case .gzip: LayerMediaType.ociBase + "+gzip"
        case .zstd: LayerMediaType.ociBase + "+zstd"
        }
    }
}

/// What the media type of a layer says.
package struct LayerMediaType: Hashable, Sendable {
    static let ociBase = "application/vnd.oci.image.layer.v1.tar"
    private static let ociNondistributableBase = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    private static let dockerBase = "application/vnd.docker.image.rootfs.diff.tar"
    private static let dockerForeignBase = "application/vnd.docker.image.rootfs.foreign.diff.tar"

    package let compression: LayerCompression
    /// Deprecated by image-spec 1.1, but still readable.
    package let isNondistributable: Bool
    package let isDocker: Bool

    /// Throws `invalidInput` for what is not a layer that can be read here.
    package init(_ type: String) throws(OCIError) {
        func suffix(_ base: String, _ separator: String) -> LayerCompression? {
            if type == base { return LayerCompression.none }
            if type == base + separator + "gzip" { return .gzip }
            if type == base + separator + "zstd" { return .zstd }
            return nil
        }
        if let compression = suffix(Self.ociBase, "+") {
            (self.compression, isNondistributable, isDocker) = (compression, false, false)
        } else if let compression = suffix(Self.ociNondistributableBase, "+") {
            (self.compression, isNondistributable, isDocker) = (compression, true, false)
        } else if let compression = suffix(Self.dockerBase, ".") {
            (self.compression, isNondistributable, isDocker) = (compression, false, true)
        } else if type.hasPrefix(Self.dockerForeignBase) {
            throw .invalid(
                "a layer of type \(type) is foreign: it lies at a URL outside the image, which Varve does not "
                    + "fetch",
                remedy: .copyImage(
                    "copy the image with a tool that does, so that the layout holds the layer"))
        } else if type.hasSuffix("+encrypted") {
            throw .invalid(
                "a layer of type \(type) is encrypted", remedy: .decryptImage
            )
        } else {
            throw .invalid(
                "a layer has the media type \"\(type)\", which is none of an OCI or Docker image layer; "
                    + "Varve reads tar, tar+gzip and tar+zstd")
        }
    }

    /// The OCI media type for the same archive.
    package var ociMediaType: String {
        guard isNondistributable else { return compression.mediaType }
        return Self.ociNondistributableBase + (compression == .none ? "" : "+" + compression.rawValue)
    }

    /// True for any layer, foreign and encrypted ones included: a blob that refers to nothing.
    static func isLayer(_ type: String) -> Bool {
        type.hasPrefix(ociBase) || type.hasPrefix(ociNondistributableBase) || type.hasPrefix(dockerBase)
            || type.hasPrefix(dockerForeignBase)
    }
}
