/// Writes what it is given as it is: the encoder of `Compression.none`.
package final class NullEncoder: ByteSink {
    private let downstream: any ByteSink
    private var finished = false

    package init(into downstream: any ByteSink) { self.downstream = downstream }

    package func write(_ bytes: UnsafeRawBufferPointer) throws { try unsafe downstream.write(bytes) }

    package func finish() throws {
        if finished { return }
        finished = true
        try downstream.finish()
    }
}
