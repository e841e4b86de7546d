/// Writes what it is given as it is: the encoder of `Compression.none`.
public final class NullEncoder: ByteSink {
    private let downstream: any ByteSink
    private var finished = false

    public init(into downstream: any ByteSink) { self.downstream = downstream }

    public func write(_ bytes: UnsafeRawBufferPointer) throws { try unsafe downstream.write(bytes) }

    public func finish() throws {
        if finished { return }
        finished = true
        try downstream.finish()
    }
}
