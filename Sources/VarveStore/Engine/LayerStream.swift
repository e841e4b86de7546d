import VarveArchive
import VarveLayers
import VarveOCI
import Synchronization
import VarveSystem

/// One layer's blob on its way to a tree: read, checked and inflated on one thread, hashed for its DiffID on another,
/// applied on the caller's.
///
/// The end of the stream arrives only when size and digest of the blob and the DiffID of what came out of it are right,
/// so whoever read to the end without an error has applied exactly this layer.
final class LayerStream {
    let source: ThreadedSource
    private let layer: Descriptor
    private let result: ArchiveResult
    private let cancellation: Cancellation

    /// - Parameter diffID: what the layer must have; nil to take what comes.
    init(
        _ descriptor: Descriptor, diffID: DiffID?, from blobs: any BlobSource,
        budget: MemoryBudget = MemoryBudget(bytes: 4 << 20), bytesRead: SharedCounter = SharedCounter(),
        cancellation: Cancellation
    ) throws {
        layer = descriptor
        self.cancellation = cancellation
        let result = ArchiveResult()
        self.result = result
        let type = try LayerMediaType(descriptor.mediaType)
        let blob = TappedSource(
            try blobs.bytes(of: descriptor), observer: BlobObserver(descriptor, bytesRead))
        source = try ThreadedSource(
            Compression(type.compression).decoder(over: blob, slabSize: budget.slabSize),
            observer: DiffIDObserver(diffID, of: descriptor, result), budget: budget,
            cancellation: cancellation)
    }

    /// The DiffID and the bytes of the layer's archive; nil until the end of the stream was read.
    var archive: (diffID: DiffID, size: Int64)? { result.value }

    /// Applies the layer to its end: the one way to put a blob onto a tree. An error names the layer where it can, and ends the
    /// threads of the stream.
    ///
    /// - Parameters:
    ///   - allowance: what the archive may be; nil where it is known to be no more than what there is.
    ///   - onEntry: called before each entry; throws to stop.
    func apply(
        with applier: LayerApplier, _ allowance: UnpackAllowance? = nil, onEntry: () throws -> Void
    ) throws {
        try ending(allowance) {
            try applier.apply(TarReader(source, allowance: allowance?.archives), onEntry: onEntry)
        }
    }

    /// Reads the layer to its end, and gives each entry of its archive.
    func read(_ allowance: UnpackAllowance, _ take: (TarEntry) throws -> Void) throws {
        try ending(allowance) {
            let reader = TarReader(source, allowance: allowance.archives)
            while let entry = try reader.nextEntry() { try take(entry) }
        }
    }

    /// Reads by `body`. An error ends the threads, and is one of this layer.
    private func ending(_ allowance: UnpackAllowance?, _ body: () throws -> Void) throws {
        do { try body() } catch {
            source.cancel()
            // However deep in the stream that was noticed.
            try cancellation.check()
            if let error = error as? TarError, let limit = allowance?.explain(error, layer) { throw limit }
            throw explain(error)
        }
    }

    /// Names the layer where the error itself cannot.
    private func explain(_ error: any Error) -> any Error {
        switch error {
        case let error as TarError:
            VarveError(
                .invalidInput, "the layer \(layer.digest) is not valid: \(error.problem)",
                subject: BytePath("\(layer.digest)"), remedy: error.remedy, cause: error)
        case let error as CodecError:
            VarveError(
                .invalidInput, "the layer \(layer.digest) is not valid: \(error.problem)",
                subject: BytePath("\(layer.digest)"), remedy: error.remedy, cause: error)
        default:
            error
        }
    }
}

/// Bytes counted by one thread and shown by another.
final class SharedCounter: Sendable {
    private let value = Atomic<Int64>(0)
    func add(_ count: Int) { value.add(Int64(count), ordering: .relaxed) }
    var count: Int64 { value.load(ordering: .relaxed) }
}

/// Checks size and digest of a blob while it is read.
private final class BlobObserver: ByteObserver {
    private var verifier: BlobVerifier
    private let bytesRead: SharedCounter
    private var failure: OCIError?

    init(_ descriptor: Descriptor, _ bytesRead: SharedCounter) {
        verifier = BlobVerifier(descriptor)
        self.bytesRead = bytesRead
    }

    func observe(_ bytes: UnsafeRawBufferPointer) {
        bytesRead.add(bytes.count)
        guard failure == nil else { return }
        do throws(OCIError) { try unsafe verifier.update(bytes) } catch { failure = error }
    }

    func finish() throws {
        if let failure { throw failure }
        try verifier.finish()
    }
}

/// Takes the DiffID of what came out of a blob, and checks it against that which the image's configuration gives.
private final class DiffIDObserver: ByteObserver {
    private var hasher: DigestHasher
    private let expected: DiffID?
    private let blob: Descriptor
    private let result: ArchiveResult
    private var size: Int64 = 0

    init(_ diffID: DiffID?, of blob: Descriptor, _ result: ArchiveResult) {
        hasher = DigestHasher(diffID?.digest.algorithm ?? .sha256)
        expected = diffID
        self.blob = blob
        self.result = result
    }

    func observe(_ bytes: UnsafeRawBufferPointer) {
        unsafe hasher.update(bytes)
        size += Int64(bytes.count)
    }

    func finish() throws {
        let actual = hasher.finish()
        if let expected, actual != expected.digest {
            throw VarveError(
                .invalidInput,
                "the layer \(blob.digest) is not what the image's configuration says: its DiffID is \(actual), not \(expected)",
                subject: BytePath("\(blob.digest)"), remedy: .getImageAgain
            )
        }
        result.set(DiffID(actual), size: size)
    }
}

/// What one thread finds out of an archive and another reads.
private final class ArchiveResult: Sendable {
    private let found = Mutex<(diffID: DiffID, size: Int64)?>(nil)
    var value: (diffID: DiffID, size: Int64)? { found.withLock { $0 } }
    func set(_ diffID: DiffID, size: Int64) { found.withLock { $0 = (diffID, size) } }
}

extension Compression {
    /// What a layer's media type says, as the codec for it.
    init(_ layer: LayerCompression) {
        self =
            switch layer {
            case .none: .none
            case .gzip: .gzip
            case .zstd: .zstd
            }
    }
}
