import VarveArchive
import VarveOCI
import VarveSystem

/// The streams of an image's layers. While one layer is applied, the next ones are inflated already, as far as the
/// memory goes: gzip is slower than disks, and the file system has its own times of waiting.
///
/// However many layers there are, no more than `limit` streams are open at once, and all their slabs come from one
/// budget.
struct LayersAhead {
    /// Streams behind the one being applied. Each costs two threads, which mostly sleep; a few small layers are to fill
    /// the memory as one large layer does.
    static let limit = 3

    private let image: ResolvedImage
    private let limit: Int
    private let budget: MemoryBudget
    private let bytesRead: SharedCounter
    private let cancellation: Cancellation
    private var streams: [Int: LayerStream] = [:]

    /// - Parameter helpers: threads for the streams behind the one being applied.
    init(
        _ image: ResolvedImage, memory: Int, helpers: Int, bytesRead: SharedCounter,
        cancellation: Cancellation
    ) {
        self.image = image
        self.cancellation = cancellation
        limit = min(Self.limit, max(0, helpers) / 2)
        budget = MemoryBudget(bytes: memory)
        self.bytesRead = bytesRead
    }

    /// The stream of layer `index`, and from now on those above it are inflated ahead. Streams of layers below it that
    /// were not asked for are given up.
    mutating func stream(ofLayer index: Int) throws -> LayerStream {
        for (other, stream) in streams where other < index {
            stream.source.cancel()
            streams[other] = nil
        }
        let stream = try streams.removeValue(forKey: index) ?? open(index)
        for next in (index + 1)..<max(index + 1, min(index + 1 + limit, image.layers.count))
        where streams[next] == nil {
            // What is wrong with a layer is said when it is its turn: those below it may be right.
            guard let ahead = try? open(next) else { break }
            streams[next] = ahead
        }
        return stream
    }

    private func open(_ index: Int) throws -> LayerStream {
        try LayerStream(
            image.layers[index], diffID: image.diffIDs[index], from: image.layout, budget: budget,
            bytesRead: bytesRead, cancellation: cancellation)
    }
}
