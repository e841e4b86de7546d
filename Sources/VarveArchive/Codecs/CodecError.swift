package import VarveSystem

/// Why compressed bytes could not be read, or bytes not be compressed.
package struct CodecError: Error, Hashable, CustomStringConvertible {
    package enum Reason: Hashable, Sendable {
        /// The bytes end before the compressed stream does.
        case truncated
        /// The bytes do not start as this format does.
        case notThisFormat
        /// The header is not a legal one.
        case badHeader(String)
        /// The compressed data contradict themselves.
        case corrupt(String)
        /// The checksum in the stream is not the one of the bytes that came out of it.
        case wrongChecksum
        /// The length in the stream is not the one of what came out of it.
        case wrongLength
        /// Something that is not compressed data follows the stream.
        case trailingGarbage
        /// The frame asks for more memory than `ZstdDecoder.windowLimit`.
        case windowTooLarge
        /// The frame needs a dictionary, which OCI layers do not have.
        case needsDictionary
        case outOfMemory
        /// The library that compresses refused to.
        case encoderFailed(String)
    }

    package var compression: Compression
    package var reason: Reason
    /// Bytes of the compressed stream up to where the fault was seen.
    package var offset: UInt64

    package init(_ compression: Compression, _ reason: Reason, offset: UInt64) {
        self.compression = compression
        self.reason = reason
        self.offset = offset
    }

    package var description: String { VarveError.sentence(problem, remedy) }

    /// What was being done, and why it failed.
    package var problem: String {
        let cannot = "cannot decompress the \(compression) data"
        return switch reason {
        case .truncated: "\(cannot): they end too early, after \(offset) bytes"
        case .notThisFormat: "\(cannot): at byte \(offset) they are not \(compression)"
        case .badHeader(let what): "\(cannot): the header before byte \(offset) is not valid (\(what))"
        case .corrupt(let what): "\(cannot): they are not valid at byte \(offset) (\(what))"
        case .wrongChecksum: "\(cannot): the checksum before byte \(offset) is not that of their content"
        case .wrongLength: "\(cannot): the length before byte \(offset) is not that of their content"
        case .trailingGarbage: "\(cannot): something else follows them at byte \(offset)"
        case .windowTooLarge:
            "\(cannot): at byte \(offset) they need more than \(ZstdDecoder.windowLimit >> 20) MiB of memory"
        case .needsDictionary: "\(cannot): at byte \(offset) they need a dictionary"
        case .outOfMemory: "there is not enough memory for the \(compression) codec"
        case .encoderFailed(let what): "cannot compress to \(compression) after \(offset) bytes (\(what))"
        }
    }

    package var remedy: VarveError.Remedy {
        switch reason {
        case .truncated: .replaceLayer("the blob is incomplete, fetch it again")
        case .notThisFormat:
            .replaceLayer("the media type of the blob is wrong, or the blob is damaged, fetch it again")
        case .badHeader, .corrupt, .wrongChecksum, .wrongLength:
            .replaceLayer("the blob is damaged, fetch it again")
        case .trailingGarbage:
            .replaceLayer("the blob was not made as one layer, build or fetch it again")
        case .windowTooLarge: .compressWithSmallerWindow
        case .needsDictionary: .replaceLayer("compress the layer again without one")
        case .outOfMemory: .raiseLimit(.memory)
        case .encoderFailed: .report
        }
    }
}
